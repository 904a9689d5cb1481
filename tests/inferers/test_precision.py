import contextlib

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from monai_unetpp.devices import resolve_precision
from monai_unetpp.inferers import PrecisionInferer, precision


class Recorder(torch.nn.Module):
    """A convolution that notes in which type it computed."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 3, padding=1)
        self.seen = set()

    def forward(self, x):
        y = self.conv(x)
        self.seen.add(y.dtype)
        return y


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Recorder().eval()


def test_bf16_runs_the_network_in_bf16_and_returns_float32(network):
    x = torch.rand(1, 1, 8, 8)
    with torch.no_grad():
        result = PrecisionInferer(precision="bf16")(x, network)
        exact = network(x)
    assert torch.bfloat16 in network.seen
    assert result.dtype == torch.float32
    assert 0 < (result - exact).abs().max() < 0.05


def test_fp32_is_the_network_itself(network):
    x = torch.rand(1, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(PrecisionInferer(precision="fp32")(x, network), network(x))


def test_windows_are_stitched_in_float32(network):
    inferer = PrecisionInferer(SlidingWindowInferer((4, 4), overlap=0.5, mode="gaussian"), precision="bf16")
    with torch.no_grad():
        assert inferer(torch.rand(1, 1, 9, 7), network).dtype == torch.float32
    assert network.seen == {torch.bfloat16}


def test_classes_keep_their_type(network):
    result = PrecisionInferer(precision="bf16")(torch.rand(1, 1, 8, 8), lambda x: network(x).argmax(1, keepdim=True))
    assert result.dtype == torch.int64


@pytest.mark.parametrize("form", [list, dict])
def test_lists_and_dicts_keep_their_form(network, form):
    def several(x):
        y = network(x)
        return [y, y + 1] if form is list else {"L1": y, "L2": y + 1}

    result = PrecisionInferer(precision="bf16")(torch.rand(1, 1, 8, 8), several)
    assert isinstance(result, form)
    values = result if form is list else result.values()
    assert {value.dtype for value in values} == {torch.float32}


def test_gradients_flow_through_reduced_precision(network):
    PrecisionInferer(precision="bf16")(torch.rand(1, 1, 8, 8), network).mean().backward()
    assert network.conv.weight.grad.abs().sum() > 0


def test_auto_follows_the_processor(monkeypatch):
    for capabilities, expected in (({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({}, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found, raising=False)
        assert resolve_precision("auto", "cpu") == expected


def test_auto_follows_the_gpu_of_the_network(monkeypatch):
    majors, current = {"cuda:0": 8, "cuda:1": 7}, ["cuda:0"]

    @contextlib.contextmanager
    def switched(device):
        current.append(str(device))
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", switched)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: majors[current[-1]] >= 8)
    assert [resolve_precision("auto", device) for device in ("cuda:0", "cuda:1", "cuda:0")] == ["bf16", "fp32", "bf16"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_precision("auto", "cuda:0") == "fp32"


def test_auto_follows_the_device_of_the_weights_not_that_of_the_image(monkeypatch):
    monkeypatch.setattr(precision, "resolve_precision", lambda _, device: "bf16" if str(device) == "meta" else "fp32")
    network = torch.nn.Conv2d(1, 2, 3, device="meta")
    seen = []
    monkeypatch.setattr(network, "forward", lambda x: seen.append(torch.is_autocast_enabled("cpu")) or x)
    PrecisionInferer()(torch.rand(1, 1, 8, 8), network)
    assert seen == [True]


def test_unknown_precision():
    with pytest.raises(ValueError, match="precision must be one of auto, fp32, bf16, fp16, got 'half'"):
        PrecisionInferer(precision="half")
