"""Blocks, and norms on inputs with a single value per channel."""

import pytest
import torch
from monai.data import MetaTensor, meta_tensor
from torch import nn

from monai_unetpp import NestedUNet
from monai_unetpp.networks.blocks import make_block
from monai_unetpp.networks.config import NestedUNetConfig

NORMS = [
    ("instance", {"affine": True}),
    ("instance", {"affine": True, "track_running_stats": True}),
    "instance",
    ("group", {"num_groups": 4}),
    ("group", {"num_groups": 4, "affine": False}),
    "batch",
]


def block(norm, dims=2):
    torch.manual_seed(0)
    config = NestedUNetConfig.check(
        spatial_dims=dims, in_channels=2, out_channels=2, features=(4, 4), act="relu", norm=norm
    )
    return make_block(config, 2, 4, (3,) * dims)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dims", [2, 3])
def test_single_values_pass_in_evaluation(norm, dims):
    output = block(norm, dims).eval()(torch.rand(1, 2, *(1,) * dims))
    assert torch.isfinite(output).all()


def test_a_single_value_is_normalised_to_the_bias():
    layers = block(("instance", {"affine": True})).eval()
    norm = layers.conv_1.adn.N
    nn.init.constant_(norm.bias, 0.75)
    assert torch.allclose(layers(torch.rand(3, 2, 1, 1)), torch.tensor(0.75))


@pytest.mark.parametrize("norm", NORMS[:5])
def test_single_values_still_fail_in_training(norm):
    with pytest.raises(ValueError, match=r"(Expected|needs) more than (1|one) value"):
        block(norm).train()(torch.rand(1, 2, 1, 1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_norms_equal_torchs_own_on_larger_inputs(norm, training):
    ours = block(norm).conv_0.adn.N.train(training)
    kind = norm if isinstance(norm, str) else norm[0]
    arguments = {} if isinstance(norm, str) else norm[1]
    classes = {"instance": nn.InstanceNorm2d, "batch": nn.BatchNorm2d, "group": nn.GroupNorm}
    size = {"num_channels": 4} if kind == "group" else {"num_features": 4}
    theirs = classes[kind](**size, **arguments).train(training)
    theirs.load_state_dict(ours.state_dict())
    for _ in range(2):
        image = torch.rand(2, 4, 5, 6)
        assert torch.equal(ours(image), theirs(image))
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


def test_the_norm_keeps_its_arguments():
    norm = block(("instance", {"eps": 1e-3, "momentum": 0.5, "track_running_stats": True})).conv_0.adn.N
    assert (norm.eps, norm.momentum, norm.affine, norm.track_running_stats) == (1e-3, 0.5, False, True)
    norm = block(("group", {"num_groups": 2, "eps": 1e-3, "affine": False})).conv_0.adn.N
    assert (norm.num_groups, norm.num_channels, norm.eps, norm.affine) == (2, 4, 1e-3, False)


@pytest.mark.parametrize("dims", [2, 3])
def test_batches_of_tiny_images(dims):
    net = NestedUNet(dims, 1, 2, features=(4, 8, 8, 8)).eval()
    image = torch.rand(2, 1, *(1,) * dims)
    assert torch.isfinite(net(image)).all()
    assert torch.allclose(net(image)[:1], net(image[:1]), atol=1e-6)


def test_training_on_maps_of_one_value_says_what_to_do() -> None:
    network = NestedUNet(2, 1, 2, features=(4, 4, 4))
    with pytest.raises(ValueError, match=r"more than one value per channel .* \[1, 4, 1, 1\]\. Use larger patches"):
        network.train()(torch.rand(1, 1, 4, 4))


@pytest.mark.parametrize("norm", NORMS)
def test_metadata_of_a_batch_are_not_taken_apart_at_each_norm(norm, monkeypatch) -> None:
    image = MetaTensor(torch.rand(2, 2, 6, 6))
    image.is_batch = True
    monkeypatch.setattr(meta_tensor, "decollate_batch", None)
    assert block(norm).train()(image).shape == (2, 4, 6, 6)
