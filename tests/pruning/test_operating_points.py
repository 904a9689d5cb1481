"""Operating points of a grid: the comparisons with Holm's correction, and what is recommended."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.metrics import LabelScore
from monai_unetpp.pruning.decision import compare_points, decide
from monai_unetpp.pruning.points.operating_points import at_setting, compare_grid, recommend_point
from monai_unetpp.pruning.results import (
    InferenceSetting,
    OperatingPoint,
    PointCost,
    PointOutcome,
    ScoreRow,
)
from monai_unetpp.pruning.rules import Margin, Rules

MARGIN = (Margin("dice", 0.01),)
RULES = Rules(margins=MARGIN, max_case_drop={"dice": 0.2}, bootstrap_samples=999)


def rows_of(differences: dict[str, np.ndarray], dataset: str = "set") -> list[ScoreRow]:
    """Scores at each point that differ from those of ``reference``, 0.9 in every case, by the given numbers."""
    rows = []
    for point, found in {"reference": np.zeros(len(next(iter(differences.values())))), **differences}.items():
        for number, difference in enumerate(found):
            dice = 0.9 + float(difference)
            value = LabelScore("ok", dice, dice, 1.0, dice, 0.0, 1.0, 1.0)
            rows.append(ScoreRow(dataset, f"case_{number:03d}", f"case_{number:03d}", point, "liver", value))
    return rows


def normal(mean: float, sd: float, count: int = 100) -> np.ndarray:
    """Numbers that lie like a normal distribution, with exactly this mean and standard deviation."""
    quantiles = stats.norm.ppf((np.arange(count) + 0.5) / count)
    return mean + sd * quantiles / quantiles.std(ddof=1)


def states(outcomes) -> dict[str, str]:
    return {outcome.point: outcome.state for outcome in outcomes}


#: Passes at alpha 0.05 (bound -0.0097) and not at 0.025 (bound -0.0103).
EDGE = normal(-0.00635, 0.02)
SAME, WORSE = normal(0.0, 0.001), normal(-0.03, 0.02)


def test_one_point_is_compared_as_a_level_is():
    points = [OperatingPoint("L1", "L1"), OperatingPoint("reference", "L2")]
    rows = [dataclasses.replace(r, point="L1" if r.point == "edge" else r.point) for r in rows_of({"edge": EDGE})]
    (outcome,) = compare_points(rows, ["L1", "reference"], "reference", RULES)
    assert outcome.comparisons == decide(rows, points, RULES, dataset="set").comparisons
    assert (outcome.state, outcome.alpha) == ("pass", 0.05)


def test_points_share_alpha_by_holms_procedure():
    # alone it passes, and beside one that passes, which is set aside first; beside one that does not it is not enough
    alone = compare_points(rows_of({"edge": EDGE}), ["reference", "edge"], "reference", RULES)
    assert states(alone) == {"edge": "pass"}
    names = ["reference", "edge", "same"]
    outcomes = compare_points(rows_of({"edge": EDGE, "same": SAME}), names, "reference", RULES)
    assert states(outcomes) == {"edge": "pass", "same": "pass"}
    assert {o.point: o.alpha for o in outcomes} == {"edge": 0.05, "same": 0.025}
    names = ["reference", "edge", "same", "worse"]
    rows = rows_of({"edge": EDGE, "same": SAME, "worse": WORSE})
    outcomes = compare_points(rows, names, "reference", RULES)
    assert states(outcomes) == {"edge": "inconclusive", "same": "pass", "worse": "fail"}
    assert {o.point: o.alpha for o in outcomes} == {"edge": 0.025, "same": 0.05 / 3, "worse": 0.025}


def test_the_bound_is_that_of_the_corrected_level():
    names = ["reference", "edge", "worse"]
    found = compare_points(rows_of({"edge": EDGE, "worse": WORSE}), names, "reference", RULES)
    by_hand = EDGE.mean() - stats.t.ppf(1 - 0.025, 99) * EDGE.std(ddof=1) / 10
    (comparison,) = found[0].comparisons
    # the lower one of t and bootstrap counts
    assert by_hand - 2e-4 < comparison.lower_bound <= by_hand + 1e-9
    assert "one-sided 97.5 % bounds" in found[0].reasons[0]


def test_a_point_must_pass_on_every_data_set():
    rows = rows_of({"a": SAME, "b": SAME}) + rows_of({"a": SAME, "b": WORSE}, "other")
    outcomes = compare_points(rows, ["a", "b", "reference"], "reference", RULES)
    assert [(o.dataset, o.point, o.state) for o in outcomes] == [
        ("set", "a", "pass"),
        ("set", "b", "pass"),
        ("other", "a", "pass"),
        ("other", "b", "fail"),
    ]
    ratios = {name: Quartiles(ratio, ratio, ratio, 3) for name, ratio in (("a", 0.5), ("b", 0.1), ("reference", 1))}
    assert recommend_point("reference", outcomes, ratios)[0] == "a"


def test_too_few_subjects_are_inconclusive_whatever_the_numbers():
    rows = rows_of({"same": np.zeros(9), "worse": np.full(9, -0.5)})
    outcomes = compare_points(rows, ["reference", "same", "worse"], "reference", RULES)
    assert states(outcomes) == {"same": "inconclusive", "worse": "inconclusive"}
    assert all(o.reasons[0] == "9 subjects are fewer than the 10 that any verdict needs." for o in outcomes)


def test_wrong_arguments_are_refused():
    rows = rows_of({"same": SAME})
    with pytest.raises(ValueError, match="reference must be one of same, got 'reference'"):
        compare_points(rows, ["same"], "reference")
    with pytest.raises(ValueError, match="rows must hold scores, got none"):
        compare_points([], ["reference", "same"], "reference")
    with pytest.raises(ValueError, match=r"alpha must lie between 0 and 0\.5, got 0\.9"):
        compare_points(rows, ["reference", "same"], "reference", Rules(alpha=0.9))


def test_levels_at_a_setting_have_names_and_scores_of_their_own():
    setting = InferenceSetting((0.0,), (), "bf16", "openvino")
    levels = [OperatingPoint("same", "L1"), OperatingPoint("reference", "L2")]
    rows = rows_of({"same": SAME, "further": SAME})
    points, found = at_setting(levels, rows, setting)
    assert [(p.name, p.level, p.setting) for p in points] == [
        ("L1 overlap=0 bf16 openvino", "L1", setting),
        ("L2 overlap=0 bf16 openvino", "L2", setting),
    ]
    assert len(found) == 200
    assert {row.point for row in found} == {point.name for point in points}
    assert [r.score for r in found if r.point == points[0].name] == [r.score for r in rows if r.point == "same"]


# ---------------------------------------------------------------- what is recommended


def outcome(point: str, state: str) -> PointOutcome:
    return PointOutcome(point, "set", state, 0.05, (), ())


@pytest.mark.parametrize(
    ("found", "expected", "reason"),
    [
        (
            {"a": ("pass", 0.5), "b": ("pass", 0.25), "c": ("fail", 0.1)},
            "b",
            "2 of 3 operating points are shown to be no worse than R by more than the margins; the fastest of them, "
            "b, is 4 times as fast.",
        ),
        (
            {"a": ("pass", 1.5)},
            None,
            "1 of 1 operating points are shown to be no worse than R, none of which is faster",
        ),
        ({"a": ("inconclusive", 0.5)}, None, "0 of 1 operating points are shown to be no worse than R: keep it."),
    ],
)
def test_the_fastest_that_passes_is_recommended(found, expected, reason):
    ratios = {name: Quartiles(ratio, ratio, ratio, 3) for name, (_, ratio) in found.items()}
    recommended, said = recommend_point("R", [outcome(name, state) for name, (state, _) in found.items()], ratios)
    assert recommended == expected
    assert said.startswith(reason)


def grid_of(differences: dict[str, np.ndarray], seconds: dict[str, float]):
    points = [OperatingPoint(name, "L1", setting=InferenceSetting((0.0,), (), "fp32", "torch")) for name in seconds]
    times = {name: Quartiles(value, value, value, 3) for name, value in seconds.items()}
    costs = {name: PointCost(name, 1, 1, 1, times[name], times[name], 1, (8, 8), (16, 16)) for name in seconds}
    return compare_grid(points, rows_of(differences), costs, times, RULES, reference="reference")


def test_grid_has_front_accuracy_and_recommendation():
    grid = grid_of(
        {"fast": SAME, "cheap": WORSE, "slow": SAME}, {"reference": 1.0, "fast": 0.5, "cheap": 0.1, "slow": 2.0}
    )
    assert grid.recommended == "fast"
    assert set(grid.front) >= {"fast", "cheap"}
    assert "slow" not in grid.front
    assert grid.accuracy["cheap"] == pytest.approx(0.87)
    assert {o.point for o in grid.outcomes} == {"fast", "cheap", "slow"}


def test_a_data_set_without_any_label_leaves_the_accuracy_to_the_others():
    empty = LabelScore("both_empty", None, None, None, None, 0.0, 0.0, 0.0)
    without = [dataclasses.replace(row, dataset="empty", score=empty) for row in rows_of({"fast": SAME})]
    times = {"reference": Quartiles(1.0, 1.0, 1.0, 5), "fast": Quartiles(0.5, 0.5, 0.5, 5)}
    costs = {name: PointCost(name, 1, 1, 1, of, of, 1, (8, 8), (16, 16)) for name, of in times.items()}
    points = [OperatingPoint("fast", "L1"), OperatingPoint("reference", "L2")]
    rows = [*rows_of({"fast": SAME}), *without]
    grid = compare_grid(points, rows, costs, times, RULES, reference="reference")
    assert grid.accuracy["fast"] == pytest.approx(0.9)
    # nothing is shown where there is nothing to find
    assert grid.recommended is None


def test_grid_of_few_cases_says_so_and_has_its_numbers():
    grid = grid_of({"fast": np.zeros(3)}, {"reference": 1.0, "fast": 0.5})
    assert grid.recommended is None
    assert grid.reason.startswith("3 subjects are fewer than the 10 that any verdict needs: no operating point is")
    assert grid.accuracy["fast"] == pytest.approx(0.9)
    assert grid.costs["fast"].volume_latency_s.median == 0.5
