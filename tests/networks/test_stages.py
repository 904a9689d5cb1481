"""The network in stages, each from the nodes that were kept."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from monai_unetpp import NestedUNet
from monai_unetpp.topology import VARIANTS, Node, nodes_of_levels, stages_of_levels


def build(variant="unet++", **arguments):
    torch.manual_seed(0)
    return NestedUNet(2, 1, 2, features=(2, 4, 6, 8), variant=variant, **arguments).eval()


def operations(run):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def staged(net, image, first=1):
    kept = {"input": image}
    for stage in net.split(first):
        logits, kept = stage.advance(kept)
        yield logits


def test_each_stage_of_unetplusplus_is_one_new_diagonal():
    stages = stages_of_levels(("L1", "L2", "L3"), "unet++")
    assert [stage.levels for stage in stages] == [("L1",), ("L2",), ("L3",)]
    assert stages[1].nodes == (Node(2, 0), Node(1, 1), Node(0, 2))
    assert stages[1].takes == (Node(0, 0), Node(0, 1), Node(1, 0))
    assert stages[1].keeps == stages[1].nodes
    assert stages[2].keeps == ()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("first", [1, 2])
def test_the_stages_compute_every_node_once_and_take_only_what_was_kept(variant, first):
    levels = ("L3",) if variant == "unet" else ("L1", "L2", "L3")
    stages = stages_of_levels(levels, variant, first)
    assert [level for stage in stages for level in stage.levels] == list(levels)
    computed = [node for stage in stages for node in stage.nodes]
    assert sorted(computed) == sorted(nodes_of_levels(levels, variant))
    kept = set()
    for stage in stages:
        assert set(stage.takes) <= kept
        assert set(stage.keeps) <= set(stage.nodes)
        kept |= set(stage.keeps)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(9, 7), (16, 16)])
def test_logits_of_the_stages_equal_those_of_forward_levels_bit_for_bit(variant, size):
    net = build(variant)
    image = torch.rand(2, 1, *size)
    with torch.no_grad():
        expected = net.forward_levels(image)
        for first in range(1, len(net.levels) + 1):
            found = {level: logits for outputs in staged(net, image, first) for level, logits in outputs.items()}
            assert list(found) == list(net.levels)
            assert all(torch.equal(found[level], expected[level]) for level in net.levels)


def test_all_stages_cost_what_one_pass_costs_and_the_first_no_more_than_its_level():
    net, image = build(), torch.rand(1, 1, 16, 16)
    whole = operations(lambda: net.forward_levels(image))
    assert operations(lambda: list(staged(net, image))) == whole
    assert operations(lambda: next(staged(net, image))) == operations(lambda: net.prune("L1")(image)) < whole / 2


@pytest.mark.parametrize("first", [0, 4, True, "L1"])
def test_a_first_stage_of_more_levels_than_there_are_is_refused(first):
    with pytest.raises(ValueError, match="first must be a number of levels from 1 to 3, got"):
        build().split(first)
