"""Convolutions that pad the first axis themselves give what the library's own padding gives."""

import copy

import pytest
import torch
from torch import nn

from monai_unetpp import NestedUNet
from monai_unetpp.training import accelerate
from monai_unetpp.training.acceleration import DepthPaddedConv3d, pad_depth


@pytest.fixture
def capability(monkeypatch):
    """The processor's capability as torch names it."""
    named = ["AVX2"]
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: named[0])
    return named


def _padded(network):
    return [module for module in network.modules() if isinstance(module, DepthPaddedConv3d)]


@pytest.mark.usefixtures("capability")
@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (8, {"kernel_size": 3, "padding": 1}),
        (8, {"kernel_size": (1, 3, 3), "padding": (0, 1, 1)}),
        (8, {"kernel_size": (5, 3, 1), "padding": (2, 1, 0), "stride": (2, 1, 1)}),
        (8, {"kernel_size": 3, "padding": 2, "dilation": 2, "bias": False}),
        (4, {"kernel_size": 3, "padding": 1, "groups": 2}),
        (16, {"kernel_size": 3, "padding": 1}),
        (17, {"kernel_size": 3, "padding": 1}),
        (8, {"kernel_size": 3, "padding": "same"}),
        (8, {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}),
    ],
)
def test_outputs_and_gradients_are_those_of_the_library(channels, options):
    torch.manual_seed(0)
    plain = nn.Conv3d(2, channels, **options).double()
    other = pad_depth(copy.deepcopy(plain))
    inputs = [torch.randn(2, 2, 9, 8, 7, dtype=torch.float64).requires_grad_()]
    inputs.append(inputs[0].detach().clone().requires_grad_())
    found = [module(image) for module, image in zip((plain, other), inputs, strict=True)]
    torch.testing.assert_close(found[1], found[0])
    for output in found:
        output.square().sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
    for first, second in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(second.grad, first.grad)


def test_only_narrow_convolutions_of_volumes_are_changed_and_only_for_avx2(capability):
    network = NestedUNet(3, 1, 2, features=(8, 16, 32), norm="batch")
    keys = list(network.state_dict())
    for capability[0] in ("AVX512", "DEFAULT"):
        assert not _padded(accelerate(network, channels_last=True))
    capability[0] = "AVX2"
    assert not _padded(accelerate(network))
    assert {module.out_channels for module in _padded(accelerate(network, channels_last=True))} == {8, 16}
    assert list(network.state_dict()) == keys
    assert "DepthPaddedConv3d(1, 8, kernel_size=(3, 3, 3)" in str(network)
    assert not _padded(accelerate(NestedUNet(2, 1, 2, features=(8, 16)), channels_last=True))


@pytest.mark.slow
@pytest.mark.usefixtures("capability")
def test_an_accelerated_network_can_be_scripted():
    network = accelerate(NestedUNet(3, 1, 2, features=(8, 16)), channels_last=True).eval()
    assert _padded(network)
    image = torch.rand(1, 1, 8, 8, 8)
    torch.testing.assert_close(torch.jit.script(network)(image), network(image))


@pytest.mark.usefixtures("capability")
def test_large_inputs_of_wider_convolutions_are_left_to_the_library(monkeypatch):
    calls = []
    convolve = torch.nn.functional.conv3d
    monkeypatch.setattr(torch.nn.functional, "conv3d", lambda *given: calls.append(given[4]) or convolve(*given))
    for channels, edge in ((8, 33), (16, 32), (16, 33)):
        pad_depth(nn.Conv3d(1, channels, 3, padding=1))(torch.zeros(1, 1, edge, edge, edge))
    assert calls == [(0, 1, 1), (0, 1, 1), (1, 1, 1)]
