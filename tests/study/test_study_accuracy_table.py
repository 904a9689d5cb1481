"""The numbers of the table, computed by hand from the scores of the cases."""

import json
import math

import pytest

from monai_unetpp.measuring.environment import Environment
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.pruning.statistics import bound_alpha, mean_bounds
from monai_unetpp.study import StudySettings, draw_accuracy, draw_learning_curves, format_study
from monai_unetpp.study.accuracy_table import RunResult, case_means, compare_cases, summarise
from monai_unetpp.study.costs import RowLatency
from monai_unetpp.study.variants import REFERENCE, StudyRow

ROWS = (
    StudyRow("U-Net L1", "unet_L1", "L1", "network"),
    StudyRow("UNet+", "unet+", "L2", "network"),
    StudyRow(REFERENCE, "unet++_ds", "L2", "network"),
    StudyRow("UNet++ L1, embedded", "unet++_ds", "L1", "embedded"),
    StudyRow("UNet++ L1, alone", "unet_L1", "L1", "isolated"),
)


def scores(*values):
    """IoU of one label per case; Dice is higher by 0.1."""
    return {f"case_{number}": {"disc": {"iou": v, "dice": v + 0.1}} for number, v in enumerate(values)}


def result(variant, seed, levels, curve=(2.0, 1.0)):
    sizes = {level: {"parameters": 1000 * (number + 1), "flops": 2000} for number, level in enumerate(levels)}
    return RunResult(variant, seed, {"features": [2, 4, 4]}, "", 3.0, {"device": "abacus"}, sizes, levels, list(curve))


@pytest.fixture
def study():
    results = [
        result("unet++_ds", 0, {"L2": scores(0.8, 0.6), "L1": scores(0.5, 0.5)}),
        result("unet++_ds", 1, {"L2": scores(0.9, 0.7), "L1": scores(0.5, 0.7)}),
        result("unet_L1", 0, {"L1": scores(0.6, 0.6)}, curve=range(500, 0, -1)),
    ]
    seconds = Quartiles(0.002, 0.001, 0.003, 15)
    latencies = {row.name: RowLatency(seconds, Quartiles(0.25, 0.2, 0.3, 15)) for row in ROWS}
    versions = {"monai-unetpp": "1", "torch": "2", "monai": "3"}
    environment = Environment("abacus", "fp32", "torch", 1, versions, "2026-01-02T03:04:05+00:00")
    cases = {"name": "Discs", "labels": {"disc": 1, "ignore": 2}, "training": ["a"], "validation": ["b", "c"]}
    return summarise(ROWS, results, latencies, StudySettings(2), cases, environment)


def row(study, name):
    (found,) = [each for each in study["rows"] if each["name"] == name]
    return found


def test_mean_over_cases_then_spread_over_seeds(study):
    iou = row(study, REFERENCE)["iou"]
    # seed 0: (0.8 + 0.6) / 2, seed 1: (0.9 + 0.7) / 2
    assert iou["by_seed"] == pytest.approx({"0": 0.7, "1": 0.8})
    assert iou["mean"] == pytest.approx(0.75)
    assert iou["sd"] == pytest.approx(math.sqrt(0.005))
    assert row(study, REFERENCE)["dice"]["mean"] == pytest.approx(0.85)
    assert row(study, "U-Net L1")["iou"] == {
        "by_seed": {"0": pytest.approx(0.6)},
        "mean": pytest.approx(0.6),
        "sd": None,
    }


def test_differences_are_paired_by_case_and_seed(study):
    assert row(study, REFERENCE)["iou_difference"] is None
    # seed 0 alone is shared: 0.6 - 0.8 and 0.6 - 0.6
    found = row(study, "U-Net L1")["iou_difference"]
    bounds = mean_bounds([-0.2, 0.0], alpha=0.025)
    assert (found["mean"], found["lower"], found["upper"]) == pytest.approx((-0.1, bounds.lower, bounds.upper))
    assert (found["cases"], found["seeds"]) == (2, 1)
    # case 0: -0.3 and -0.4, case 1: -0.1 and 0.0
    found = row(study, "UNet++ L1, embedded")["iou_difference"]
    bounds = mean_bounds([-0.35, -0.05], alpha=0.025)
    assert (found["mean"], found["lower"], found["upper"]) == pytest.approx((-0.2, bounds.lower, bounds.upper))
    assert found["seeds"] == 2
    # with few cases the bounds hold at a stricter level
    assert found["confidence"] == pytest.approx(1 - 2 * bound_alpha(2, 0.025))


def test_embedded_against_isolated(study):
    (pair,) = study["embedded_isolated"]
    assert (pair["level"], pair["embedded"], pair["isolated"]) == ("L1", "UNet++ L1, embedded", "UNet++ L1, alone")
    # seed 0 alone is shared: 0.5 - 0.6 in both cases
    assert pair["iou_difference"]["mean"] == pytest.approx(-0.1)


def test_classes_count_alike_and_undefined_ones_not_at_all():
    by_label = {"a": {"iou": 0.2}, "b": {"iou": 0.6}, "c": {"iou": None}}
    assert case_means({"x": by_label, "y": {"a": {"iou": None}}}, "iou") == {"x": pytest.approx(0.4)}


def of_one_class(**iou):
    return {case: {"x": {"iou": value}} for case, value in iou.items()}


def test_comparisons_need_two_cases_in_common():
    assert compare_cases({0: of_one_class(a=0.5, b=0.5)}, {1: of_one_class(a=0.5, b=0.5)}, "iou") is None
    assert compare_cases({0: of_one_class(a=0.5, b=0.5)}, {0: of_one_class(a=0.5, c=0.5)}, "iou") is None


def test_a_false_positive_is_a_loss_against_a_network_that_has_none():
    mine = {0: {case: {"x": {"iou": 0.5}, "y": {"iou": 0.5}} for case in "ab"} | {"c": {"x": {"iou": 0.0}}}}
    theirs = {0: {case: {"x": {"iou": 0.5}, "y": {"iou": 0.5}} for case in "ab"} | {"c": {"x": {"iou": None}}}}
    # nothing has the class in case d
    for each in (mine, theirs):
        each[0]["d"] = {"x": {"iou": None}}
    found = compare_cases(mine, theirs, "iou")
    assert (found["cases"], found["mean"]) == (3, pytest.approx(-1 / 3))
    # of one of two classes
    mine[0]["a"], theirs[0]["a"] = {"x": {"iou": 0.0}, "y": {"iou": 0.5}}, {"x": {"iou": None}, "y": {"iou": 0.5}}
    assert compare_cases(mine, theirs, "iou")["mean"] == pytest.approx(-0.5)


def test_cases_of_one_subject_count_once():
    mine, theirs = {0: of_one_class(a=0.5, b=0.7, c=0.4)}, {0: of_one_class(a=0.4, b=0.4, c=0.5)}
    found = compare_cases(mine, theirs, "iou", {"a": "s", "b": "s"})
    # 0.2 of the subject with two cases, -0.1 of the other
    assert (found["cases"], found["subjects"], found["mean"]) == (3, 2, pytest.approx(0.05))
    assert compare_cases(mine, theirs, "iou", dict.fromkeys("abc", "s")) is None


def test_long_curves_are_thinned_to_means(study):
    curve = study["curves"]["unet_L1"]["0"]
    # 500 steps in parts of three: 500, 499, 498 first, and 2, 1 last
    assert (curve["step"][0], curve["loss"][0]) == (3, 499)
    assert (curve["step"][-1], curve["loss"][-1]) == (500, 1.5)
    assert study["curves"]["unet++_ds"]["0"] == {"step": [1, 2], "loss": [2.0, 1.0]}


def test_the_markdown_holds_the_numbers(study):
    text = format_study(study)
    assert "mean over the foreground classes (disc) of a case" in text
    assert "Not trained yet: U-Net L1 (seed 1); UNet+; UNet++ L1, alone (seed 1)." in text
    assert (
        "| UNet++, deep supervision | 0.001 M | 0.00 | 2.0 ms (0.25) | 0.7500 ± 0.0707 | 0.8500 ± 0.0707 | reference |"
        in text
    )
    assert "| U-Net L1 | 0.001 M | 0.00 | 2.0 ms (0.25) | 0.6000 (seed 0) | 0.7000 (seed 0) | -0.1000 (" in text
    assert "| L1 | 0.5500 ± 0.0707 | 0.6000 (seed 0) | -0.1000 (-0.1000 to -0.1000) |" in text
    assert "abacus, 1 thread" in text
    assert "2026-01-02" in text
    assert "99.8 %" in text


def test_names_are_never_markup(study):
    cases = {**study["cases"], "name": "a | <b>set", "labels": {"x|<i>": 1}}
    text = format_study({**study, "cases": cases})
    assert text.startswith("# Comparison on a \\| &lt;b&gt;set\n")
    assert r"classes (x\|&lt;i&gt;)" in text
    assert "<" not in text.replace("<br>", "")


def test_a_study_without_the_reference_or_latencies(study):
    settings = StudySettings(2)
    environment = Environment(**study["environment"])
    results = [result("unet_L1", 0, {"L1": scores(0.6)})]
    alone = summarise(ROWS, results, {}, settings, study["cases"], environment)
    assert row(alone, "U-Net L1")["iou_difference"] is None
    assert alone["embedded_isolated"] == []
    text = format_study(alone)
    assert "| U-Net L1 | 0.001 M | 0.00 | n/a | 0.6000 | 0.7000 | n/a |" in text
    assert "## A level" not in text


@pytest.mark.slow
def test_pictures_from_the_json_file_alone(study, tmp_path):
    pytest.importorskip("matplotlib")
    again = json.loads(json.dumps(study))
    draw_accuracy(again, tmp_path / "accuracy.png")
    draw_learning_curves(again, tmp_path / "curves.png")
    for name in ("accuracy.png", "curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
