"""Bad arguments fail before any layer of the network is built, with the remedy in the message."""

import inspect
import json

import pytest
import torch
from torch import nn

from monai_unetpp import NestedUNet
from monai_unetpp.networks.config import NestedUNetConfig

GOOD = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": (4, 8, 12)}

VALUE_ERRORS = [
    ({"spatial_dims": 1}, r"spatial_dims must be one of 2, 3, got 1"),
    ({"spatial_dims": True}, r"spatial_dims must be one of 2, 3, got True"),
    ({"in_channels": 0}, r"in_channels must be 1 or more, got 0"),
    ({"out_channels": -2}, r"out_channels must be 1 or more, got -2"),
    (
        {"features": (4,)},
        r"features must have at least two entries, got \[4\]. Each entry after the first adds a level",
    ),
    ({"features": (4, 0)}, r"every entry of features must be 1 or more, got 0"),
    ({"variant": "unetpp"}, r"variant must be one of unet, unet_e, unet\+, unet\+\+, got 'unetpp'"),
    ({"block": "dense"}, r"block must be one of plain, residual, got 'dense'"),
    ({"upsample": "bilinear"}, r"upsample must be one of deconv, deconvgroup, nontrainable, pixelshuffle, got"),
    ({"strides": (2, 2, 2)}, r"strides must have 2 entries, one per step down, got 3: .* Give one number"),
    ({"strides": ((2, 2, 2), 2)}, r"every entry of strides must be a number or have 2 numbers, got \(2, 2, 2\)"),
    ({"strides": 0}, r"strides must be 1 or more, got 0"),
    ({"strides": ((2, 1), 2), "upsample": "pixelshuffle"}, r"strides must be the same .* Use upsample='deconv'"),
    ({"kernel_size": 4}, r"kernel_size must be odd, got 4. Use 3"),
    ({"kernel_size": (3, 3)}, r"kernel_size must have 3 entries, one per resolution, got 2"),
    ({"up_features": (4,)}, r"up_features must have one entry for each row but the deepest, 2, got \[4\]"),
    ({"last_features": 0}, r"last_features must be 1 or more, got 0"),
    ({"act": "rellu"}, r"act must name one of MONAI's layers, got 'rellu'. Use one of: celu, elu, "),
    ({"act": "geglu"}, r"act must name one of MONAI's layers, got 'geglu'"),
    ({"act": ("relu", {"slope": 1})}, r"act must have the arguments of its layer, got .*'slope'"),
    ({"act": ("prelu", {"num_parameters": 4})}, r"got num_parameters=4 for \[4, 8, 12\] channels"),
    ({"norm": "instanse"}, r"norm must name one of MONAI's layers, got 'instanse'. Use one of: batch, group, instance"),
    ({"norm": ("layer", {"normalized_shape": [4]})}, r"norm must name one of MONAI's layers, got \('layer'"),
    ({"norm": "group"}, r"norm='group' needs num_groups that divides every entry of features, got num_groups=None"),
    ({"norm": ("group", {"num_groups": 3})}, r"got num_groups=3 for 4 channels. Give norm=\('group'"),
    ({"norm": ("group", {"num_groups": 4}), "last_features": 6}, r"got num_groups=4 for 6 channels"),
    ({"dropout": 1.0}, r"dropout must be a probability from 0 up to 1, got 1.0"),
    ({"dropout": -0.1}, r"dropout must be a probability from 0 up to 1, got -0.1"),
    ({"dropout": ("drop", {})}, r"dropout must name one of MONAI's layers, .* alphadropout, dropout"),
    (
        {"dropout": ("dropout", {"p": 7})},
        r"dropout must have the arguments of its layer, got .*between 0 and 1",
    ),
]

TYPE_ERRORS = [
    ({"in_channels": 1.0}, r"in_channels must be an integer, got 1.0"),
    ({"features": "big"}, r"features must be a sequence of integers such as \(32, 64, 128\), got 'big'"),
    ({"features": 32}, r"features must be a sequence of integers"),
    ({"features": (4, 8.5)}, r"every entry of features must be an integer, got 8.5"),
    ({"strides": "2"}, r"strides must be an integer or a sequence with one entry per level, got '2'"),
    ({"kernel_size": True}, r"kernel_size must be an integer or a sequence"),
    ({"act": nn.ReLU}, r"act must consist of plain values .* Name layers as for MONAI's factories"),
    ({"act": ("relu",)}, r"act must be a layer's name or \(name, arguments\), got \('relu',\)"),
    ({"norm": 3}, r"norm must be a layer's name or \(name, arguments\), got 3"),
    ({"dropout": None}, r"dropout must be a probability, a layer's name or \(name, arguments\), got None"),
    ({"dropout": True}, r"dropout must be a probability, a layer's name"),
    ({"bias": 1}, r"bias must be True or False, got 1"),
    ({"deep_supervision": "yes"}, r"deep_supervision must be True or False, got 'yes'"),
    ({"use_checkpoint": None}, r"use_checkpoint must be True or False, got None"),
    ({"ceil_mode": 0}, r"ceil_mode must be True or False, got 0"),
]


@pytest.fixture
def no_blocks(monkeypatch):
    """Make the test fail if any node is built."""

    def fail(*args, **kwargs):
        pytest.fail("a layer was built before the arguments were checked")

    for layer in (nn.Conv2d, nn.Conv3d):
        monkeypatch.setattr(layer, "__init__", fail)


@pytest.mark.usefixtures("no_blocks")
@pytest.mark.parametrize(
    ("error", "change", "message"),
    [*((ValueError, *each) for each in VALUE_ERRORS), *((TypeError, *each) for each in TYPE_ERRORS)],
)
def test_values_that_cannot_work(error, change, message):
    with pytest.raises(error, match=message):
        NestedUNet(**{**GOOD, **change})


def test_unknown_and_missing_arguments_of_a_stored_configuration():
    with pytest.raises(TypeError, match=r"NestedUNet has no argument 'channels'. It takes: spatial_dims, in_channels"):
        NestedUNetConfig.check(**GOOD, channels=3)
    with pytest.raises(TypeError, match=r"NestedUNet needs the argument 'out_channels'"):
        NestedUNetConfig.check(spatial_dims=2, in_channels=1)


def test_config_is_complete_plain_and_a_copy():
    net = NestedUNet(**GOOD, norm=("group", {"num_groups": 2}), strides=((2, 1), 2))
    config = net.config
    assert json.loads(json.dumps(config)) == config
    assert NestedUNet(**config).config == config
    config["features"].append(99)
    assert net.config["features"] == [4, 8, 12]


@pytest.mark.slow
@pytest.mark.parametrize(
    "act",
    [
        *("elu", "RELU", "leakyrelu", "prelu", "relu6", "selu", "celu", "gelu", "sigmoid", "tanh", "swish", "memswish"),
        *("mish", None, ("softmax", {"dim": 1}), ("logsoftmax", {"dim": 1}), ["prelu", {"num_parameters": 1}]),
    ],
)
def test_monai_activations(act):
    net = NestedUNet(**GOOD, act=act).eval()
    image = torch.rand(1, 1, 5, 6)
    assert torch.equal(net.prune("L1")(image), net.forward_levels(image)["L1"])


@pytest.mark.parametrize(
    "norm",
    [
        *("instance", "batch", "syncbatch", None, ("instance", {"track_running_stats": True})),
        *(("group", {"num_groups": 2}), ["batch", {"affine": False}], ("localresponse", {"size": 3})),
        ("instance", {"affine": True}),
    ],
)
def test_monai_norms(norm):
    net = NestedUNet(**GOOD, norm=norm)
    for output in net.train()(torch.rand(2, 1, 16, 16)):
        output.sum().backward(retain_graph=True)
    image = torch.rand(1, 1, 5, 6)
    assert torch.equal(net.eval().prune("L1")(image), net.forward_levels(image)["L1"])


@pytest.mark.parametrize("dropout", [0.5, ("dropout", {"p": 0.5}), ("alphadropout", {"p": 0.5}), "dropout"])
def test_monai_dropout_acts_in_training_only(dropout):
    net = NestedUNet(**GOOD, dropout=dropout)
    image = torch.rand(1, 1, 16, 16)
    assert not torch.equal(net.train()(image)[0], net(image)[0])
    assert torch.equal(net.eval()(image), net(image))


def test_the_defaults_are_those_of_the_networks_signature():
    parameters = inspect.signature(NestedUNet).parameters
    given = {name: 2 for name, parameter in parameters.items() if parameter.default is parameter.empty}
    defaults = {name: parameter.default for name, parameter in parameters.items() if name not in given}
    assert NestedUNetConfig.check(**given) == NestedUNetConfig.check(**given, **defaults)
    with pytest.raises(TypeError) as error:
        NestedUNetConfig.check(depth=4)
    # all arguments, in the order of the signature
    assert str(error.value).endswith(f"It takes: {', '.join(parameters)}.")
