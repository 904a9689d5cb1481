"""The network: the contract of every variant, the paper's sizes, and the work that is done."""

import itertools
import json
import weakref

import pytest
import torch
import torch.nn.utils.prune
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from monai_unetpp import NestedUNet, topology

PAPER = {"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "norm": None}
SHAPES = {"isotropic": {"strides": 2, "kernel_size": 3}}
ANISOTROPIC = {
    2: {"strides": ((2, 1), (2, 3)), "kernel_size": ((3, 1), 3, (1, 5))},
    3: {"strides": ((2, 2, 1), (1, 2, 2)), "kernel_size": ((3, 3, 1), 3, (3, 3, 3))},
}
BLOCKS = [
    ("plain", "deconv", "isotropic"),
    ("plain", "deconvgroup", "isotropic"),
    ("plain", "pixelshuffle", "isotropic"),
    ("plain", "nontrainable", "anisotropic"),
    ("residual", "nontrainable", "isotropic"),
    ("residual", "deconv", "anisotropic"),
]
#: Each variant with each block, half of them in 2D and half in 3D, such that each variant and each block has both.
OPTIONS = [
    (2 + (row + column) % 2, variant, *block)
    for (row, variant), (column, block) in itertools.product(enumerate(topology.VARIANTS), enumerate(BLOCKS))
]


def parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())


def build(dims, variant="unet++", block="plain", upsample="deconv", shape="isotropic", **arguments):
    torch.manual_seed(0)
    spacing = SHAPES["isotropic"] if shape == "isotropic" else ANISOTROPIC[dims]
    settings = {"features": (2, 4, 6), "variant": variant, "block": block, "upsample": upsample} | spacing | arguments
    return NestedUNet(dims, 1, 2, **settings).eval()


@pytest.mark.parametrize(("dims", "variant", "block", "upsample", "shape"), OPTIONS)
class TestContract:
    """What holds for every combination of options."""

    def test_pruned_levels_equal_the_full_network_bit_for_bit(self, dims, variant, block, upsample, shape):
        net = build(dims, variant, block, upsample, shape)
        for size in ((9, 7, 5), (1, 3, 2), (1, 1, 1)):
            image = torch.rand(2, 1, *size[:dims])
            with torch.no_grad():
                outputs = net.forward_levels(image)
                assert list(outputs) == list(net.levels)
                assert torch.equal(net(image), outputs[net.levels[-1]])
                for level, output in outputs.items():
                    assert output.shape == (2, 2, *size[:dims])
                    assert torch.isfinite(output).all()
                    pruned = net.prune(level)
                    assert pruned.levels == (level,)
                    assert torch.equal(pruned(image), output)
                    assert torch.equal(net.forward_levels(image, [level])[level], output)

    def test_pruned_weights_are_a_subset_with_the_same_values(self, dims, variant, block, upsample, shape):
        net = build(dims, variant, block, upsample, shape)
        weights = net.state_dict()
        for level in net.levels:
            kept = net.prune(level).state_dict()
            assert set(kept) == set(topology.keys_of_level(weights, level, variant))
            for key, value in kept.items():
                assert torch.equal(value, weights[key])
                assert value.data_ptr() != weights[key].data_ptr()

    def test_every_parameter_of_a_pruned_network_learns_from_its_only_head(self, dims, variant, block, upsample, shape):
        net = build(dims, variant, block, upsample, shape)
        for level in net.levels:
            pruned = net.prune(level).train()
            output = pruned(torch.rand(2, 1, *(12, 12, 12)[:dims]))
            output.square().sum().backward()
            assert [name for name, p in pruned.named_parameters() if p.grad is None] == []

    def test_forward_is_a_list_in_training_and_a_tensor_in_evaluation(self, dims, variant, block, upsample, shape):
        net = build(dims, variant, block, upsample, shape)
        image = torch.rand(2, 1, *(12, 12, 12)[:dims])
        outputs = net.train()(image)
        by_level = net.forward_levels(image)
        assert isinstance(outputs, list)
        assert len(outputs) == (1 if variant == "unet" else 2)
        for output, level in zip(outputs, reversed(net.levels), strict=True):
            assert torch.equal(output, by_level[level])
        assert isinstance(net.eval()(image), torch.Tensor)

    def test_config_rebuilds_the_network_through_json(self, dims, variant, block, upsample, shape):
        net = build(dims, variant, block, upsample, shape)
        for network in (net, *(net.prune(level) for level in net.levels)):
            again = NestedUNet(**json.loads(json.dumps(network.config)))
            assert again.config == network.config
            again.load_state_dict(network.state_dict())
            image = torch.rand(1, 1, *(6, 5, 4)[:dims])
            assert torch.equal(again.eval()(image), network(image))


class TestPaper:
    """Parameter counts of arXiv:1912.05074, table II."""

    @pytest.mark.parametrize(
        ("variant", "count", "paper"),
        [
            ("unet", 7_759_521, 7.76),
            ("unet_e", 8_728_356, 8.73),
            ("unet+", 8_728_356, 8.73),
            ("unet++", 9_041_700, 9.04),
        ],
    )
    def test_variants(self, variant, count, paper):
        with torch.device("meta"):
            net = NestedUNet(**PAPER, variant=variant)
        assert parameters(net) == count
        assert round(count / 1e6, 2) == paper

    @pytest.mark.parametrize(
        ("level", "count", "paper"), [("L1", 100_961, 0.10), ("L2", 511_105, 0.51), ("L3", 2_204_961, 2.2)]
    )
    def test_levels_cut_out(self, level, count, paper):
        pruned = NestedUNet(**PAPER).prune(level)
        assert parameters(pruned) == count
        assert count / 1e6 == pytest.approx(paper, rel=0.01)

    def test_deepest_level_cut_out_loses_only_the_other_heads(self):
        net = NestedUNet(**PAPER)
        assert parameters(net) - parameters(net.prune("L4")) == 3 * (32 + 1)
        assert round(parameters(net.prune("L4")) / 1e6, 2) == 9.04

    def test_wide_unet(self):
        with torch.device("meta"):
            wide = NestedUNet(**PAPER, variant="unet", features=(35, 70, 140, 280, 560))
        # the paper states 9.13 M; a network that gives 7.76 M at 32 channels has (35 / 32)^2 times as many at 35
        assert parameters(wide) == 9_282_246
        assert parameters(wide) / 1e6 == pytest.approx(9.13, rel=0.02)


class TestWork:
    """Only what is needed is computed."""

    @staticmethod
    def flops(function):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            function()
        return counter.get_total_flops()

    @pytest.mark.parametrize("variant", ["unet_e", "unet+", "unet++"])
    @pytest.mark.parametrize("dims", [2, 3])
    def test_a_level_costs_what_the_pruned_network_costs(self, dims, variant):
        net = build(dims, variant, features=(2, 4, 6, 8))
        image = torch.rand(1, 1, *(16,) * dims)
        costs = [self.flops(lambda level=level: net.forward_levels(image, [level])) for level in net.levels]
        assert costs == [self.flops(lambda level=level: net.prune(level)(image)) for level in net.levels]
        assert costs == sorted(costs)
        assert costs[0] < costs[-1]

    @pytest.mark.parametrize("variant", ["unet+", "unet++"])
    @pytest.mark.parametrize("dims", [2, 3])
    def test_all_levels_cost_the_deepest_and_the_other_heads(self, dims, variant):
        net = build(dims, variant, features=(2, 4, 6, 8))
        image = torch.rand(1, 1, *(16,) * dims)
        head = 2 * 2 * 2 * 16**dims  # multiply and add, 2 channels in, 2 out, per voxel
        deepest = self.flops(lambda: net.prune("L3")(image))
        assert self.flops(lambda: net.forward_levels(image)) == deepest + 2 * head
        assert self.flops(lambda: net(image)) == deepest

    def test_shared_nodes_are_computed_once_and_others_never(self):
        net = build(2, features=(2, 4, 6, 8))
        calls = []
        for name, node in net.nodes.items():
            node.register_forward_hook(lambda *_, name=name: calls.append(name))
        net.forward_levels(torch.rand(1, 1, 16, 16), ["L1", "L2"])
        assert sorted(calls) == ["x_0_0", "x_0_1", "x_0_2", "x_1_0", "x_1_1", "x_2_0"]


class TestPrune:
    def test_pruning_a_pruned_network_is_pruning_at_once(self):
        net = build(2, features=(2, 4, 6, 8))
        image = torch.rand(1, 1, 9, 8)
        twice = net.prune("L2").prune("L2")
        assert torch.equal(twice(image), net.prune("L2")(image))
        assert twice.config == net.prune("L2").config

    def test_hooks_go_along(self):
        net, image = build(2), torch.rand(1, 1, 9, 8)
        net.register_forward_pre_hook(lambda _, images: (images[0] - 3,))
        net.nodes["x_0_0"].register_forward_hook(lambda _, __, output: 2 * output)
        with torch.no_grad():
            expected = net.forward_levels(image - 3, ["L1"])["L1"]
            assert torch.equal(net.prune("L1")(image), expected)
        pruned = net.prune("L1")
        pruned.register_forward_pre_hook(lambda _, images: (images[0] + 3,))
        assert len(net._forward_pre_hooks) == 1

    def test_hooks_of_gradients_and_checkpoints_of_activations_go_along(self):
        net, calls = build(2), []
        net.use_checkpoint = True
        net.register_full_backward_hook(lambda *_: calls.append("backward"))
        pruned = net.prune("L1").train()
        pruned(torch.rand(2, 1, 8, 8, requires_grad=True))[0].sum().backward()
        assert (calls, pruned.use_checkpoint) == (["backward"], True)

    def test_weights_that_a_hook_computes(self):
        net, image = build(2), torch.rand(1, 1, 9, 8)
        convolution = next(each for each in net.modules() if isinstance(each, nn.Conv2d))
        torch.nn.utils.prune.l1_unstructured(convolution, "weight", 0.5)
        with pytest.raises(RuntimeError, match=r"network must have weights of its own .*torch\.nn\.utils\.prune"):
            net.prune("L1")
        torch.nn.utils.prune.remove(convolution, "weight")
        assert torch.equal(net.prune("L1")(image), net.forward_levels(image)["L1"])

    @pytest.mark.parametrize("level", ["L0", "L3", "l1", "", 1])
    def test_unknown_levels(self, level):
        with pytest.raises(ValueError, match=r"level must be one of L1, L2, got"):
            build(2).prune(level)
        with pytest.raises(ValueError, match=r"level must be one of L2, got"):
            build(2).prune("L2").prune(level)
        with pytest.raises(ValueError, match=r"level must be one of L1, L2, got"):
            build(2).forward_levels(torch.rand(1, 1, 8, 8), ["L1", level])

    def test_a_network_with_one_head_has_its_deepest_level(self):
        net = build(2, deep_supervision=False)
        assert net.levels == ("L2",)
        assert isinstance(net.train()(torch.rand(2, 1, 8, 8)), torch.Tensor)
        with pytest.raises(ValueError, match=r"level must be one of L2, got 'L1'"):
            net.prune("L1")

    def test_mode_number_type_and_frozen_parameters_are_kept(self):
        net = build(2).double().train()
        net.nodes["x_0_0"].requires_grad_(False)
        net.nodes["x_0_1"].block.conv_1.eval()
        pruned = net.prune("L1")
        assert pruned.training
        evaluated = {name for name, module in net.named_modules() if not module.training}
        assert evaluated == {name for name, module in pruned.named_modules() if not module.training} != set()
        assert pruned(torch.rand(1, 1, 8, 8, dtype=torch.float64)).dtype == torch.float64
        assert {n for n, p in pruned.named_parameters() if not p.requires_grad} == {
            n for n, _ in pruned.named_parameters() if n.startswith("nodes.x_0_0.")
        }

    def test_what_was_changed_on_the_modules_is_kept(self):
        net, image = NestedUNet(2, 1, 2, features=(2, 3, 4), norm="batch").eval(), torch.rand(1, 1, 8, 8)
        for module in list(net.modules()):
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.5
            elif isinstance(module, nn.LeakyReLU):
                module.negative_slope = 0.7
            elif isinstance(module, nn.Conv2d):
                nn.utils.parametrizations.weight_norm(module)
        for level, expected in net.forward_levels(image).items():
            assert torch.equal(net.prune(level)(image), expected)

    def test_training_the_pruned_network_leaves_the_original_alone(self):
        net = build(2)
        before = {key: value.clone() for key, value in net.state_dict().items()}
        pruned = net.prune("L1")
        with torch.no_grad():
            for parameter in pruned.parameters():
                parameter.add_(1)
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())

    def test_settings_per_level_and_extra_widths_are_cut_along(self):
        net = build(3, shape="anisotropic", up_features=(3, 5), last_features=7)
        image = torch.rand(1, 1, 6, 5, 4)
        for level, output in net.forward_levels(image).items():
            pruned = net.prune(level)
            assert torch.equal(pruned(image), output)
        assert net.prune("L1").config["strides"] == [[2, 2, 1]]
        assert net.prune("L1").config["last_features"] is None
        assert net.prune("L2").config["last_features"] == 7


class TestInput:
    @pytest.mark.parametrize("training", [True, False])
    def test_empty_batch(self, training):
        with pytest.raises(ValueError, match="the batch must have at least one image, got none"):
            build(2).train(training)(torch.rand(0, 1, 8, 8))

    @pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 1, 8), (1, 1, 8, 8, 8), (8, 8)])
    def test_other_channels_or_axes(self, shape):
        with pytest.raises(ValueError, match=r"input must have shape \(batch, 1, 2 spatial axes\), got \["):
            build(2)(torch.rand(shape))

    def test_too_small_without_ceil_mode(self):
        net = build(3, ceil_mode=False)
        assert net(torch.rand(1, 1, 4, 5, 7)).shape == (1, 2, 4, 5, 7)
        with pytest.raises(ValueError, match=r"axis 1 of the input must have at least 4 elements, got 3\. Pad"):
            net(torch.rand(1, 1, 4, 3, 8))

    @pytest.mark.parametrize("size", [(8, 8), (9, 7), (31, 6)])
    @pytest.mark.parametrize("ceil_mode", [True, False])
    def test_any_size_comes_back(self, size, ceil_mode):
        assert build(2, ceil_mode=ceil_mode)(torch.rand(1, 1, *size)).shape == (1, 2, *size)

    @pytest.mark.parametrize("levels", [[], "L1", ()])
    def test_levels_that_are_no_list(self, levels):
        with pytest.raises(ValueError, match=r"levels must be a non-empty list out of L1, L2, got"):
            build(2).forward_levels(torch.rand(1, 1, 8, 8), levels)

    def test_levels_come_shallowest_first_whatever_was_asked(self):
        assert list(build(2).forward_levels(torch.rand(1, 1, 8, 8), ["L2", "L1"])) == ["L1", "L2"]


class TestMemory:
    def test_checkpointing_changes_neither_outputs_nor_gradients(self):
        # not in place, so that the plain network keeps what the other computes again
        plain = build(2, features=(2, 4, 6), dropout=0.3).train()
        lean = NestedUNet(**{**plain.config, "use_checkpoint": True}).train()
        lean.load_state_dict(plain.state_dict())
        image = torch.rand(2, 1, 16, 16)
        gradients = []
        for net in (plain, lean):
            torch.manual_seed(1)
            outputs = net(image)
            sum(output.square().sum() for output in outputs).backward()
            gradients.append([p.grad for p in net.parameters()])
            gradients[-1] += outputs
        assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))

    @pytest.mark.parametrize(
        "norm",
        [
            *("batch", "syncbatch", ("batch", {"momentum": None}), ("syncbatch", {"momentum": None})),
            ("instance", {"track_running_stats": True}),
        ],
        ids=str,
    )
    def test_checkpointing_counts_no_batch_twice_in_running_statistics(self, norm):
        plain = build(2, features=(2, 4, 6), norm=norm).train()
        lean = NestedUNet(**{**plain.config, "use_checkpoint": True}).train()
        lean.load_state_dict(plain.state_dict())
        # a frozen norm counts nothing, and keeps to what it has
        for net in (plain, lean):
            net.nodes["x_1_0"].block.eval()
            for image in torch.rand(2, 2, 1, 16, 16, generator=torch.Generator().manual_seed(0)):
                sum(output.square().sum() for output in net(image)).backward()
        assert plain.state_dict().keys() == lean.state_dict().keys()
        for name, value in plain.state_dict().items():
            assert torch.equal(value, lean.state_dict()[name]), name
        assert all(torch.equal(a.grad, b.grad) for a, b in zip(plain.parameters(), lean.parameters(), strict=True))

    @pytest.mark.parametrize("variant", topology.VARIANTS)
    def test_no_other_map_is_held_while_the_last_block_runs(self, variant):
        net = build(2, variant, features=(2, 4, 6, 8))
        maps = {}
        held = []
        for name, node in net.nodes.items():
            node.register_forward_hook(lambda _, __, output, name=name: maps.update({name: weakref.ref(output)}))
        net.nodes["x_0_3"].block.register_forward_pre_hook(
            lambda *_: held.append([name for name, reference in maps.items() if reference() is not None])
        )
        with torch.no_grad():
            net(torch.rand(1, 1, 16, 16))
        assert held == [[]]
