"""Batch norms that are folded into convolutions change nothing but the time that it takes."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from monai_unetpp import NestedUNet
from monai_unetpp.inferers.predictors import make_predictor
from monai_unetpp.networks.folding import fold_batch_norms
from monai_unetpp.openvino_loading import has_openvino, openvino_core


def trained(dims=2, **options):
    torch.manual_seed(0)
    network = NestedUNet(dims, 1, 3, features=(4, 6, 8), norm="batch", **options)
    for _ in range(4):
        network(1 + 2 * torch.randn(4, 1, *[16] * dims))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.weight.uniform_(0.2, 3)
                module.bias.uniform_(-1, 1)
    return network.eval()


@pytest.mark.parametrize("options", [{}, {"dims": 3}, {"block": "residual"}, {"upsample": "nontrainable"}])
def test_a_folded_network_gives_the_same(options):
    network = trained(**options)
    windows = torch.randn(2, 1, *[19] * options.get("dims", 2))
    with torch.no_grad():
        expected = network(windows)
        folded = fold_batch_norms(network)
        assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in folded.modules())
        torch.testing.assert_close(folded(windows), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        torch.nn.utils.parametrizations.spectral_norm,
        lambda conv: prune.l1_unstructured(conv, "weight", 0.3),
        lambda conv: conv.register_forward_hook(lambda module, inputs, output: 2 * output),
    ],
    ids=["parametrization", "mask", "hook"],
)
def test_convolutions_that_make_their_own_weights_stay_as_they_are(change):
    network, windows = trained(), torch.randn(1, 1, 16, 16)
    change(network.nodes["x_0_0"].block.conv_0.conv)
    settings = {"levels": None, "window_shape": (16, 16), "batch_size": 1, "device": "cpu", "precision": "fp32"}
    with torch.no_grad():
        expected = network.eval()(windows)
        found = make_predictor(network, runtime="torch", **settings)(windows)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_other_norms_stay_as_they_are():
    network = NestedUNet(2, 1, 2, features=(4, 8)).eval()
    before = dict(network.state_dict())
    assert list(fold_batch_norms(network).state_dict()) == list(before)


def test_a_predictor_sees_weights_and_statistics_that_change():
    network = trained()
    windows = torch.randn(1, 1, 16, 16)
    settings = {"levels": None, "window_shape": (16, 16), "batch_size": 1, "device": "cpu", "precision": "fp32"}
    predictor = make_predictor(network, runtime="torch", **settings)
    with torch.no_grad():
        torch.testing.assert_close(predictor(windows), network(windows), rtol=1e-5, atol=1e-5)
    network.train()(3 + torch.randn(4, 1, 16, 16))
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(predictor(windows), network(windows), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not has_openvino(), reason="needs the extra openvino")
def test_openvino_folds_by_itself():
    from monai_unetpp.inferers.predictors.openvino_conversion import convert_to_openvino

    model = convert_to_openvino(trained(), None, torch.zeros(1, 1, 16, 16))
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    kinds = {str(node.get_rt_info()["layerType"].value) for node in compiled.get_runtime_model().get_ops()}
    assert "Convolution" in kinds
    assert not {kind for kind in kinds if "Norm" in kind or kind in ("Multiply", "Eltwise", "ScaleShift")}
