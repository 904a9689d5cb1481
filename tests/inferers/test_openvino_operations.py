"""Replaced operations compute what torch's own decomposition does."""

import pytest
import torch
from torch import nn

from monai_unetpp import NestedUNet
from monai_unetpp.inferers.predictors import openvino_operations
from monai_unetpp.inferers.predictors.openvino_conversion import convert_to_openvino
from monai_unetpp.inferers.predictors.openvino_operations import openvino_graph
from monai_unetpp.inferers.predictors.tracing import trace_network
from monai_unetpp.openvino_loading import has_openvino, openvino_core

pytestmark = pytest.mark.skipif(not has_openvino(), reason="needs the extra openvino")


def run(network, windows, monkeypatch, *, decomposed):
    with monkeypatch.context() as patched:
        if decomposed:
            patched.setattr(openvino_operations, "_is_simple", lambda graph: False)
        else:
            # torch's decomposition would take long
            patched.setattr(openvino_operations, "_decompositions", lambda: pytest.fail("decomposed"))
        model = convert_to_openvino(network, None, windows)
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return torch.from_numpy(compiled(windows.numpy())[0])


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ((9, 8), {"norm": "instance"}),
        ((8, 8, 8), {"norm": ("batch", {"affine": False}), "act": "relu"}),
        ((8, 12), {"norm": "batch", "upsample": "nontrainable"}),
        ((8, 8), {"norm": None, "dropout": 0.5, "features": (2, 4)}),
    ],
    ids=["cropped", "plain batch norm", "interpolated", "dropout"],
)
def test_nested_unets_need_no_decomposition(shape, arguments, monkeypatch):
    torch.manual_seed(0)
    network = NestedUNet(len(shape), 2, 3, **{"features": (3, 4, 6)} | arguments).eval()
    windows = torch.randn(2, 2, *shape)
    found = run(network, windows, monkeypatch, decomposed=False)
    assert torch.equal(found, run(network, windows, monkeypatch, decomposed=True))


class Shared(nn.Module):
    """A view shows what is changed in place later."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 1)

    def forward(self, windows):
        found = self.convolution(windows)
        view = found[:, :, 1:]
        return torch.cat([torch.relu_(found)[:, :, 1:], view], dim=1)


class OfTheBatch(nn.BatchNorm2d):
    """Normalises by the statistics of the batch, in eval mode too."""

    def __init__(self):
        super().__init__(1, track_running_stats=False)


class AlwaysDropping(nn.Module):
    """Drops channels in eval mode too; all or none here, so that results can be compared."""

    def forward(self, windows):
        return nn.functional.dropout2d(windows, 1.0, training=True)


@pytest.mark.parametrize(
    "network",
    [Shared(), OfTheBatch(), AlwaysDropping(), nn.Sigmoid()],
    ids=["in place", "batch", "dropout", "other"],
)
def test_torch_decomposes_what_is_not_replaced(network, monkeypatch):
    decomposed = []
    decompositions = openvino_operations._decompositions
    monkeypatch.setattr(openvino_operations, "_decompositions", lambda: decomposed.append(True) or decompositions())
    windows = torch.randn(2, 1, 4, 4)
    graph = openvino_graph(trace_network(network.eval(), None, windows))
    assert decomposed
    torch.testing.assert_close(graph(windows)[0], network(windows))
