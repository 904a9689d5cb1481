"""Whether a depth chosen for each window pays: scored in one pass, tested in sequence, timed and reported."""

from __future__ import annotations

import csv
import re
from importlib.util import find_spec

import nibabel
import numpy as np
import pytest
import torch
from forked import draw_nothing
from monai.inferers import SlidingWindowInferer
from tiny_bundle import NETWORK
from tiny_pruning import SHAPE, prune_boxes

from monai_unetpp import NestedUNet
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.metrics import LabelScore
from monai_unetpp.pruning import Rules, cost, evaluation, read_report
from monai_unetpp.pruning.points.adaptive_points import compare_in_sequence, level_operations, recommend
from monai_unetpp.pruning.points.settings import adaptive_tolerances, parse_settings
from monai_unetpp.pruning.report.adaptive_tables import adaptive_table
from monai_unetpp.pruning.results import AdaptiveDepth, AdaptivePoint, ScoreRow
from monai_unetpp.pruning.scoring import case_scores


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Memory, which takes a process for each level, and pictures of cases have tests of their own."""
    monkeypatch.setattr(evaluation, "save_worst_cases", lambda *_: ())
    monkeypatch.setattr(cost, "measure_peak_memory", lambda runs, *_: dict.fromkeys(runs, 1))


@pytest.fixture(scope="module")
def network(few_boxes):
    """Three levels that cut the intensity between the labels' means; L1 sees no label 2."""
    image = nibabel.load(few_boxes / "imagesTr" / "case_00.nii.gz").get_fdata()
    label = nibabel.load(few_boxes / "labelsTr" / "case_00.nii.gz").get_fdata()
    means = [float(((image - image.mean()) / image.std())[label == value].mean()) for value in range(3)]
    low, high = (means[0] + means[1]) / 2 - means[0], (means[1] + means[2]) / 2 - means[0]
    network = NestedUNet(**{**NETWORK, "features": (2, 2, 2, 2), "norm": None}).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for name, node in network.nodes.items():
            if name.startswith("x_0_"):
                for convolution in (node.block.conv_0.conv, node.block.conv_1.conv):
                    convolution.weight[0, 0, 1, 1, 1] = 1.0
        # the background is negative, which the activations would shrink
        network.nodes["x_0_0"].block.conv_0.conv.bias[0] = -means[0]
        for level in network.levels:
            network.heads[level].weight[:, 0] = torch.tensor([0.0, 1.0, 2.0]).reshape(-1, 1, 1, 1)
            last = -low - high if level != "L1" else -1e3
            network.heads[level].bias.copy_(torch.tensor([0.0, -low, last]))
    return network


def run(*given, **settings):
    inferer = NestedSlidingWindowInferer(SHAPE, runtime="torch", precision="fp32")
    return prune_boxes(*given, **{"inferer": inferer, "settings": "adaptive=0.05,1", "settings_repeats": 1, **settings})


@pytest.mark.slow
def test_the_whole_path_scores_every_tolerance_in_the_pass_of_the_levels(network, few_boxes, tmp_path):
    result = run(network, few_boxes, tmp_path)
    found = result.adaptive
    assert (found.reference, [point.name for point in found.points]) == ("L3", ["adaptive=0.05", "adaptive=1"])
    # L1 misses label 2, so that every window goes on to L3, which agrees with L2 but is the deepest
    assert [point.windows for point in found.points] == [{"L2": 0, "L3": 3}, {"L2": 0, "L3": 3}]
    assert found.points[0].operations_ratio == pytest.approx(found.level_operations["L3"])
    deepest = {(r.case, r.label): r.score for r in result.rows if r.point == "L3"}
    assert {(r.case, r.label): r.score for r in found.rows if r.point == "adaptive=1"} == deepest
    assert {point.name for point in result.points} == {"L1", "L2", "L3"}
    assert result.grid is None
    assert (list(found.staging), found.staging["torch"].count) == (["torch"], 1)
    of_time, of_memory = result.trade_offs[:2]
    assert (of_time.rule, set(of_time.on_front) - set(of_memory.on_front)) == (
        "pareto accuracy/latency_ms",
        {"adaptive=0.05", "adaptive=1"},
    )
    assert (found.recommended, found.timed_cases) == (None, 3)
    assert found.reason == "No tolerance is shown to be as good as L3: run all windows at one level."
    assert read_report(tmp_path / "report.json") == result
    rows = list(csv.DictReader((tmp_path / "adaptive_depth.csv").open()))
    assert len(rows) == 6
    assert rows[0] | {"operations_ratio": ""} == {
        "dataset": "few", "case": "case_00", "point": "adaptive=0.05", "windows_L2": "0", "windows_L3": "1",
        "operations_ratio": "",
    }  # fmt: skip
    html = (tmp_path / "report.html").read_text()
    assert "Depth chosen for each window" in html
    assert "Which cases stay shallow" in html
    summary = (tmp_path / "summary.md").read_text()
    assert "Which cases stay shallow" in summary
    assert re.search(r"\| 0 \| never stops \(torch\) \| . \| 100 % \| 1\.\d+ \| [\d.]+ \([\d.]+", summary)

    # what is finished is not scored again, with its depths; without tolerances their file goes
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(case_scores.CaseEvaluation, "score_source", lambda *_: pytest.fail("scored again"))
        again = run(network, few_boxes, tmp_path).adaptive
    assert (again.depths, again.rows) == (found.depths, found.rows)
    assert run(network, few_boxes, tmp_path, settings=None).adaptive is None
    assert not (tmp_path / "adaptive_depth.csv").exists()


def test_what_has_no_depth_to_choose_is_refused_before_any_case(network, few_boxes, tmp_path):
    with pytest.raises(TypeError, match="inferer must be a NestedSlidingWindowInferer where settings are given"):
        run(network, few_boxes, tmp_path, inferer=SlidingWindowInferer(SHAPE))
    compiling = NestedSlidingWindowInferer(SHAPE, runtime="compile")
    with pytest.raises(ValueError, match="runtime must be auto, torch or openvino for levels='adaptive', got 'comp"):
        run(network, few_boxes, tmp_path, inferer=compiling)
    with pytest.raises(ValueError, match="settings must leave out adaptive for a network with the levels L1, L2:"):
        run(NestedUNet(**NETWORK).eval(), few_boxes, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino")
def test_what_the_stages_cost_is_measured_with_every_runtime(network, few_boxes, tmp_path, monkeypatch):
    draw_nothing(monkeypatch)
    found = run(network, few_boxes, tmp_path, settings=["adaptive=1", "runtime=torch,openvino"]).adaptive
    assert list(found.staging) == ["torch", "openvino"]
    assert all(ratio.median > 0 for ratio in found.staging.values())
    assert [point.name for point in found.points] == ["adaptive=1"]
    assert "never stops (openvino)" in (tmp_path / "summary.md").read_text()


def test_tolerances_come_from_text_or_dict_and_are_no_part_of_the_grid():
    assert adaptive_tolerances(["adaptive=0.05,0.02,0.05", "overlap=0"]) == (0.02, 0.05)
    assert adaptive_tolerances({"adaptive": [0.02]}) == (0.02,)
    assert adaptive_tolerances(None) == adaptive_tolerances("overlap=0") == ()
    assert parse_settings(["adaptive=0.05", "overlap=0"]) == {"overlap": ((0.0,),)}
    # one point in all tables
    assert adaptive_tolerances("adaptive=0.33333331,0.33333332") == (0.33333332,)
    for wrong in ("adaptive=x", "adaptive=2", {"adaptive": ["-1"]}, "adaptive=0"):
        with pytest.raises(ValueError, match="settings must have an adaptive tolerance above 0 and at most 1, got"):
            adaptive_tolerances(wrong)
    with pytest.raises(ValueError, match="settings must list one value or more for adaptive"):
        adaptive_tolerances("adaptive=")


@pytest.mark.slow
def test_operations_grow_with_depth_and_end_a_little_above_the_deepest_level_alone():
    network = NestedUNet(2, 1, 2, features=(4, 8, 16, 32))
    operations = level_operations(network, (32, 32))
    assert list(operations) == ["L1", "L2", "L3"]
    assert operations["L1"] < operations["L2"] < 1 < operations["L3"] < 1.01


def rows_of(**dice):
    """Rows of forty cases at the points, with Dice near the one given."""
    noise = 0.01 * np.random.default_rng(0).standard_normal(40)
    return [
        ScoreRow("set", f"case_{n}", f"case_{n}", point, "nucleus", LabelScore("ok", d, d, 1.0, d, 0.0, 1.0, 1.0))
        for point, mean in dice.items()
        for n, d in enumerate(mean + noise)
    ]


@pytest.mark.parametrize(
    ("operations", "staging", "recommended", "reason"),
    [
        (0.7, 1.1, "adaptive=0.1", "with 0.70 of its operations and 0.60 of its time; but L1, the level of"),
        (0.7, 0.5, None, "took 0.50 of its time: times varied too much to tell. Measure with a higher"),
        (1.001, 1.1, None, "it saves no work. Run all windows at one level."),
    ],
)
def test_nothing_is_recommended_on_times_that_cannot_be(operations, staging, recommended, reason):
    point = AdaptivePoint("adaptive=0.1", 0.1, {"L2": 4}, operations, Quartiles.of([0.6]), (), True, "L1", ())
    found = recommend([point], "L2", Quartiles.of([staging]))
    assert found[0] == recommended
    assert reason in found[1]


def test_tolerances_are_accepted_up_to_the_first_that_does_not_pass():
    rows = rows_of(L3=0.9, first=0.9, second=0.8, third=0.9)
    tested = compare_in_sequence(rows, ["first", "second", "third"], "L3", Rules(margins=["dice=0.01"]))
    assert [accepted for _, accepted in tested] == [True, False, False]
    assert [outcomes[0].state for outcomes, _ in tested] == ["pass", "fail", "pass"]
    assert {outcomes[0].alpha for outcomes, _ in tested} == {0.05}


def test_the_table_says_of_all_tolerances_after_the_first_that_does_not_pass_that_they_were_not_tested():
    names = ["first", "second", "third", "fourth"]
    tested = compare_in_sequence(rows_of(L3=0.9, first=0.9, second=0.8, third=0.9, fourth=0.8), names, "L3", Rules())
    points = tuple(
        AdaptivePoint(name, 0.1, {"L2": 1, "L3": 1}, 0.8, Quartiles.of([0.8]), outcomes, accepted, "L2", outcomes)
        for name, (outcomes, accepted) in zip(names, tested, strict=True)
    )
    operations = dict.fromkeys([*names, "L3"], 1.0)
    table = adaptive_table(AdaptiveDepth("L3", points, (), (), operations, 8, "first", ""))
    results = [row[table.columns.index("Result")].text for row in table.rows]
    untested = "not tested: one before it does not pass"
    assert results == ["pass, recommended", "fail", untested, untested]
