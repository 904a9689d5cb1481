"""Taking over MONAI's BasicUNetPlusPlus."""

import pytest
import torch
from monai.networks.layers.factories import Norm
from monai.networks.nets import BasicUNet, BasicUNetPlusPlus
from torch import nn

from monai_unetpp import NestedUNet
from monai_unetpp.export import FORMATS, export_network
from monai_unetpp.networks.conversion import convert_basic_unetplusplus
from monai_unetpp.networks.folding import fold_batch_norms
from monai_unetpp.openvino_loading import has_openvino

FEATURES = (2, 4, 6, 8, 10, 3)


def trained(spatial_dims=2, **arguments):
    """A network of MONAI whose weights and running statistics are not those of its initialisation."""
    torch.manual_seed(0)
    settings = {"in_channels": 2, "out_channels": 3, "features": FEATURES, "deep_supervision": True} | arguments
    net = BasicUNetPlusPlus(spatial_dims, **settings)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for name, buffer in net.named_buffers():
            if "running" in name:
                buffer.add_(0.1 * torch.rand_like(buffer))
    return net


def assert_same_outputs(net, converted, *shapes):
    for shape in shapes:
        image = torch.rand(shape)
        with torch.no_grad():
            expected = net(image)
            levels = converted.forward_levels(image)
        assert list(levels) == ["L1", "L2", "L3", "L4"]
        for output, level in zip(expected, levels.values(), strict=True):
            assert output.shape == level.shape
            assert (output - level).abs().max() <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("upsample", ["deconv", "nontrainable", "pixelshuffle", "deconvgroup"])
@pytest.mark.parametrize(("spatial_dims", "sizes"), [(2, [(32, 48), (33, 47)]), (3, [(32, 16, 16), (17, 33, 19)])])
def test_all_four_heads_agree_then_it_prunes(spatial_dims, sizes, upsample):
    features = (2, 4, 8, 8, 16, 3) if upsample == "deconvgroup" else FEATURES
    net = trained(spatial_dims, upsample=upsample, features=features).eval()
    converted = NestedUNet.from_basic_unetplusplus(net)
    assert_same_outputs(net, converted, *((1, 2, *size) for size in sizes))
    image = torch.rand(1, 2, *sizes[1])
    for output, level in zip(net(image), ("L1", "L2", "L3", "L4"), strict=True):
        assert torch.allclose(converted.prune(level)(image), output, atol=1e-5)


@pytest.mark.parametrize("features", [(4, 4, 4, 4, 4, 4), (3, 5, 7, 9, 11, 1), (8, 2, 6, 4, 12, 5)])
def test_any_features(features):
    net = trained(features=features).eval()
    converted = convert_basic_unetplusplus(net, NestedUNet)
    assert converted.config["features"] == list(features[:5])
    assert converted.config["last_features"] == features[5]
    assert_same_outputs(net, converted, (1, 2, 35, 33))


@pytest.mark.slow
@pytest.mark.skipif(not has_openvino(), reason="needs the extra openvino")
def test_a_converted_network_with_batch_norm_folds_and_runs_in_openvino(tmp_path):
    net = trained(norm="batch").eval()
    converted = NestedUNet.from_basic_unetplusplus(net).eval()
    image = torch.rand(1, 2, 32, 48)
    with torch.no_grad():
        expected = net(image)[-1]
        folded = fold_batch_norms(converted.prune("L4"))
        torch.testing.assert_close(folded(image), expected, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in folded.modules())
    path = tmp_path / "network.xml"
    export_network(converted, path, "openvino", (32, 48))
    torch.testing.assert_close(FORMATS["openvino"].load(path)(image), expected, rtol=1e-4, atol=1e-4)


ACTS = ["relu", "elu", "relu6", "selu", "celu", "sigmoid", "tanh", "memswish", "mish", ("swish", {"alpha": 2.0})]
ACTS += [("gelu", {"approximate": "tanh"}), ("softmax", {"dim": 1}), ("logsoftmax", {"dim": 1}), None, ""]
ACTS += [("prelu", {"init": 0.1}), ("leakyrelu", {"negative_slope": 0.3})]
NORMS = ["instance", "batch", "syncbatch", None, ("group", {"num_groups": 2}), ("batch", {"momentum": None})]
NORMS += [("instance", {"track_running_stats": True, "eps": 1e-3}), ("group", {"num_groups": 1, "affine": False})]
NORMS += [
    ("instance", {"track_running_stats": True, "momentum": None}),
    ("localresponse", {"size": 3, "alpha": 0.5}),
    ("batch", {"affine": False}),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [{"act": act} for act in ACTS]
    + [{"norm": norm, "bias": False, "features": (2, 4, 6, 8, 10, 4)} for norm in NORMS]
    + [{"dropout": dropout} for dropout in (0.3, None, ("alphadropout", {"p": 0.2}), ("dropout", {"inplace": True}))],
)
@pytest.mark.filterwarnings("ignore:Implicit dimension")
def test_any_layers_that_the_factories_name(arguments):
    net = trained(**arguments)
    converted = NestedUNet.from_basic_unetplusplus(net)
    assert_same_outputs(net.eval(), converted.eval(), (2, 2, 32, 32))
    # the same random numbers give the same outputs in training, dropout and running statistics included
    converted = NestedUNet.from_basic_unetplusplus(net).train()
    image = torch.rand(2, 2, 32, 32)
    if not arguments.get("dropout"):
        expected, outputs = net.train()(image), converted(image)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(expected, reversed(outputs), strict=True))
    else:
        assert converted.config["dropout"] in (
            0.3,
            ["alphadropout", {"p": 0.2}],
            ["dropout", {"p": 0.5, "inplace": True}],
        )


@pytest.mark.slow
def test_mode_type_and_frozen_parameters_are_taken_over_and_the_original_is_left_alone():
    net = trained().double()
    net.conv_1_0.requires_grad_(False)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    converted = NestedUNet.from_basic_unetplusplus(net)
    assert converted.training
    net.conv_1_0.convs.conv_1.eval()
    net.upcat_0_2.upsample.deconv.eval()
    evaluated = [
        name for name, module in NestedUNet.from_basic_unetplusplus(net).named_modules() if not module.training
    ]
    assert {name for name in evaluated if not name.startswith("nodes.x_1_0.block.conv_1")} == {
        "nodes.x_0_2.upsample.deconv"
    }
    assert "nodes.x_1_0.block.conv_1.adn.N" in evaluated
    assert not NestedUNet.from_basic_unetplusplus(net.eval()).training
    assert {name for name, p in converted.named_parameters() if not p.requires_grad} == {
        name for name, _ in converted.named_parameters() if name.startswith("nodes.x_1_0.")
    }
    with torch.no_grad():
        for parameter in converted.parameters():
            assert parameter.dtype == torch.float64
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.slow
def test_conversion_is_deterministic_and_leaves_the_random_state_alone():
    net = trained()
    state = torch.get_rng_state()
    first, second = (NestedUNet.from_basic_unetplusplus(net) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.config == second.config
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_synchronised_batch_norm_made_by_torch():
    net = nn.SyncBatchNorm.convert_sync_batchnorm(trained(norm="batch")).eval()
    converted = NestedUNet.from_basic_unetplusplus(net)
    assert converted.config["norm"][0] == "syncbatch"
    assert_same_outputs(net, converted, (1, 2, 32, 32))


def test_heads_that_may_be_untrained_are_named():
    net = trained(deep_supervision=False).eval()
    with pytest.warns(UserWarning, match=r"the heads of L1, L2 and L3 are untrained, and pruning to them gives noise"):
        converted = NestedUNet.from_basic_unetplusplus(net)
    image = torch.rand(1, 2, 32, 32)
    assert torch.allclose(converted(image), net(image)[0], atol=1e-5)


class OwnNetwork(BasicUNetPlusPlus):
    def forward(self, x):
        return super().forward(x)[::-1]


@pytest.mark.parametrize("net", [nn.Identity(), BasicUNet(2, features=(2,) * 6), OwnNetwork(2, features=(2,) * 6)])
def test_other_networks(net):
    with pytest.raises(
        TypeError, match=rf"net must be a .*BasicUNetPlusPlus, got {type(net).__name__}. Other networks"
    ):
        NestedUNet.from_basic_unetplusplus(net)


def test_wrapped_networks_name_the_way_in():
    with pytest.raises(TypeError, match=r"got DataParallel. Pass its \.module\."):
        NestedUNet.from_basic_unetplusplus(nn.DataParallel(trained()))
    with pytest.raises(TypeError, match=r"got OptimizedModule. Pass its \._orig_mod\."):
        NestedUNet.from_basic_unetplusplus(torch.compile(trained(), backend="eager"))


def test_one_dimension():
    with pytest.raises(ValueError, match=r"net must have 2 or 3 spatial dimensions, got 1"):
        NestedUNet.from_basic_unetplusplus(trained(spatial_dims=1))


class OwnNorm(nn.Module):
    def __init__(self, num_features):
        super().__init__()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda block: setattr(block.conv_0.adn, "N", OwnNorm(2)),
            r"norm of net must be one of MONAI's layers \(.*\), got OwnNorm. Replace these",
        ),
        (
            lambda block: setattr(block.conv_0.adn.N, "process_group", object()),
            r"norm of net must have plain arguments, got process_group=.* in SyncBatchNorm",
        ),
        (lambda block: nn.utils.parametrizations.weight_norm(block.conv_0.conv), r"net must have the layers|Undo"),
        (
            lambda block: setattr(block, "conv_0", nn.Identity()),
            r"net must begin with a plain convolution, got Identity. Undo fusing",
        ),
    ],
)
def test_layers_that_no_factory_builds(change, message):
    net = trained(norm="syncbatch")
    change(net.conv_0_0)
    with pytest.raises(ValueError, match=message):
        NestedUNet.from_basic_unetplusplus(net)


@pytest.mark.parametrize(
    ("place", "layer"),
    [
        ("upcat_1_2.convs.conv_0.adn.A", nn.Tanh()),
        ("upcat_1_2.convs.conv_1.conv", nn.Conv2d(4, 4, 3, padding=2, dilation=2)),
        ("conv_2_0.max_pooling", nn.AvgPool2d(2)),
        ("conv_3_0.convs.conv_0.adn.N", nn.Identity()),
        ("upcat_0_1.upsample", nn.Upsample(scale_factor=2)),
    ],
)
def test_blocks_that_were_changed_by_hand(place, layer):
    net = trained()
    parent, _, name = place.rpartition(".")
    setattr(net.get_submodule(parent), name, layer)
    with pytest.raises(ValueError, match=r"net must have the layers that BasicUNetPlusPlus builds|must be one of"):
        NestedUNet.from_basic_unetplusplus(net)


def test_every_norm_of_the_factories_is_known():
    """A new norm in MONAI should be tried here, too."""
    assert {name.lower() for name in Norm.names} == {
        *("instance", "batch", "group", "layer", "localresponse", "syncbatch", "instance_nvfuser")
    }
