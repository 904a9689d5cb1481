"""When two levels agree, and what is taken then."""

import pytest
import torch

from monai_unetpp.inferers.depth_gate import gate_name, gate_tolerance, gated, levels_agree


def one_hot(*rows, classes=3):
    """Logits whose highest is the class given, for windows of one axis."""
    return torch.nn.functional.one_hot(torch.tensor(rows), classes).movedim(-1, 1).float()


def test_levels_agree_where_every_class_that_occurs_differs_by_less_than_the_tolerance():
    first = one_hot([0, 0, 0, 0, 1, 1, 1, 1])
    second = one_hot([0, 0, 0, 0, 0, 1, 1, 1])  # Dice 8/9 of the background, 6/7 of class 1
    assert levels_agree(first, second, 1 / 7 + 1e-6).tolist() == [True]
    assert levels_agree(first, second, 1 / 7 - 1e-6).tolist() == [False]


def test_a_class_that_only_one_level_finds_keeps_them_apart():
    assert levels_agree(one_hot([0, 0, 0, 2]), one_hot([0, 0, 0, 0]), 0.99).tolist() == [False]


def test_classes_that_neither_finds_do_not_count_and_tolerance_zero_is_never_met():
    empty = one_hot([0, 0, 0, 0])
    assert levels_agree(empty, empty, 1e-9).tolist() == [True]
    assert levels_agree(empty, empty, 0.0).tolist() == [False]


def test_a_single_channel_is_the_foreground_against_the_background():
    first = torch.tensor([[[1.0, 1.0, -1.0, -1.0]], [[1.0, 1.0, -1.0, -1.0]]])
    second = torch.tensor([[[2.0, 0.5, -3.0, -0.1]], [[2.0, -0.5, -3.0, -0.1]]])
    assert levels_agree(first, second, 0.1).tolist() == [True, False]


def test_each_window_gets_the_first_level_that_agrees_with_the_one_before():
    same, other, third = [0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 0]
    logits = {
        "L1": one_hot(same, same, same),
        "L2": one_hot(same, other, other),
        "L3": one_hot(other, other, third),
        "L4": one_hot(third, third, third),
    }
    logits = {level: value + 0.01 * number for number, (level, value) in enumerate(logits.items())}
    chosen, depths = gated(logits, 0.05)
    assert depths.tolist() == [1, 2, 3]
    assert torch.equal(chosen[0], logits["L2"][0])
    assert torch.equal(chosen[1], logits["L3"][1])
    assert torch.equal(chosen[2], logits["L4"][2])


def test_names_of_gates_hold_their_tolerance():
    assert gate_name(0.033) == "adaptive=0.033"
    assert gate_tolerance("adaptive=0.033") == 0.033
    assert gate_tolerance(gate_name(1e-5)) == 1e-5
    assert [gate_tolerance(name) for name in ("adaptive", "L2", "adaptive=", "adaptive=x", "mean")] == [None] * 5
    with pytest.raises(ValueError, match="adaptive_tolerance must lie between 0 and 1, got 2"):
        gate_tolerance("adaptive=2")
