"""Fronts, budgets and utility, on numbers small enough to check by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.metrics import LabelScore
from monai_unetpp.metrics.scores import State
from monai_unetpp.pruning.points.tradeoffs import (
    ResampledAccuracy,
    accuracy_of_each,
    by_utility,
    cost_value,
    front_of_labels,
    mean_accuracy,
    pareto_front,
    picked_levels,
    within_budget,
)
from monai_unetpp.pruning.results import PointCost, ScoreRow
from monai_unetpp.pruning.rules import COST_KEYS, Budget, Rules, parse_budget
from monai_unetpp.pruning.wording import rule_in_words


def cost(name: str, latency_s: float, parameters: int, memory: int = 10**8) -> PointCost:
    return PointCost(
        name,
        parameters,
        flops_per_window=4 * parameters,
        checkpoint_bytes=4 * parameters,
        window_latency_s=Quartiles(latency_s / 10, latency_s / 10, latency_s / 10, 9),
        volume_latency_s=Quartiles(latency_s, latency_s, latency_s, 9),
        peak_memory_bytes=memory,
        window_shape=(32, 32, 32),
        volume_shape=(64, 64, 64),
        volume_energy_j=Quartiles(30 * latency_s, 30 * latency_s, 30 * latency_s, 9),
    )


ACCURACY = {"L1": 0.86, "L2": 0.90, "L3": 0.89, "L4": 0.91}
COSTS = {
    "L1": cost("L1", 0.020, 100_000),
    "L2": cost("L2", 0.040, 500_000),
    "L3": cost("L3", 0.080, 2_000_000, memory=5 * 10**7),
    "L4": cost("L4", 0.160, 9_000_000),
}


def test_every_key_reads_its_own_cost() -> None:
    values = {key: cost_value(COSTS["L2"], key) for key in COST_KEYS}
    assert values == pytest.approx(
        {
            "latency_ms": 40,
            "window_latency_ms": 4,
            "parameters": 500_000,
            "memory_mb": 100,
            "flops": 2_000_000,
            "checkpoint_mb": 2,
            "energy_j": 1.2,
        }
    )


def test_energy_that_the_machine_does_not_tell_is_refused() -> None:
    silent = dataclasses.replace(COSTS["L2"], volume_energy_j=None)
    with pytest.raises(ValueError, match="energy_j is not reported by this machine"):
        cost_value(silent, "energy_j")


class TestParetoFront:
    def test_leaves_out_what_is_beaten_in_both(self) -> None:
        front = pareto_front(ACCURACY, COSTS)
        assert front.points == ("L4", "L2", "L1")
        assert front.rule == "pareto accuracy/latency_ms"
        assert "L3 is beaten by L2" in front.reason

    def test_several_costs_count_together(self) -> None:
        front = pareto_front(ACCURACY, COSTS, ("latency_ms", "memory_mb"))
        assert front.points == ("L4", "L2", "L3", "L1")
        assert "Every point is on the front" in front.reason

    def test_equal_points_stay_and_equal_accuracy_needs_less_cost(self) -> None:
        twins = {"a": COSTS["L1"], "b": COSTS["L1"], "c": COSTS["L2"]}
        assert set(pareto_front(dict.fromkeys(twins, 0.9), twins).points) == {"a", "b"}

    def test_nothing_on_the_front_is_dominated(self) -> None:
        front = pareto_front(ACCURACY, COSTS, ("parameters",)).points
        for a in front:
            for b in front:
                assert a == b or (ACCURACY[a] > ACCURACY[b]) == (COSTS[a].parameters > COSTS[b].parameters)


class TestBudget:
    def test_picks_the_most_accurate_within(self) -> None:
        picked = within_budget(ACCURACY, COSTS, [parse_budget("latency_ms=100")])
        assert picked.points == ("L2",)
        assert picked.rule == "latency_ms<=100"
        assert picked.reason == "L2 is the most accurate within the budget: accuracy 0.9000 for 40 ms."

    def test_the_limit_itself_is_allowed(self) -> None:
        assert within_budget(ACCURACY, COSTS, [Budget("parameters", 9_000_000)]).points == ("L4",)

    def test_all_budgets_hold(self) -> None:
        picked = within_budget(ACCURACY, COSTS, [Budget("latency_ms", 100), Budget("memory_mb", 60)])
        assert picked.points == ("L3",)
        assert picked.rule == "latency_ms<=100 and memory_mb<=60"

    def test_none_within(self) -> None:
        picked = within_budget(ACCURACY, COSTS, [Budget("latency_ms", 5)])
        assert picked.points == ()
        assert picked.reason == "No point is within the budget: the least that any needs is 20 ms."

    def test_of_equally_accurate_points_the_fastest(self) -> None:
        assert within_budget(dict.fromkeys(COSTS, 0.9), COSTS, [Budget("latency_ms", 1000)]).points == ("L1",)

    @pytest.mark.parametrize(("limit", "best", "picked"), [(1000, "L4", "L2"), (100, "L3", "L2"), (20, "L1", "L1")])
    def test_the_cheapest_that_is_shown_to_be_as_good_as_the_best_within(
        self, limit: float, best: str, picked: str
    ) -> None:
        loss = {"L1": 0.05, "L2": 0.002, "L3": 0.001, "L4": 0.0}
        rows = [row(point, "a", f"{n:03}", 0.9 - loss[point] * (n % 3)) for n in range(201) for point in COSTS]
        rules = Rules(margins=("dice=0.01",), bootstrap_samples=200)
        found = within_budget(mean_accuracy(rows, list(COSTS)), COSTS, [Budget("latency_ms", limit)], rows, rules)
        assert found.points == (picked,)
        assert f"not worse than {best}, the most accurate there" in found.reason or picked == best

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("latency_ms", "budget must be a name, '=' and a number, got 'latency_ms'. Write it like latency_ms=50"),
            ("latency_ms=fast", "budget must be a name, '=' and a number, got 'latency_ms=fast'"),
            ("latency=5", "cost must be one of latency_ms, window_latency_ms, parameters, .*got 'latency'"),
            ("flops=0", "budget must be positive, got 0.0 for flops"),
            ("flops=-1", "budget must be positive, got -1.0 for flops"),
            ("flops=inf", "budget must be a name, '=' and a number, got 'flops=inf'"),
        ],
    )
    def test_bad_budgets(self, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            parse_budget(text)

    @pytest.mark.parametrize("key", COST_KEYS)
    def test_every_key_can_be_a_budget(self, key: str) -> None:
        assert parse_budget(f"{key}=2e6") == Budget(key, 2e6)


class TestUtility:
    def test_by_hand(self) -> None:
        # relative latencies 1/8, 1/4, 1/2, 1; with weight 0.08: 0.85, 0.88, 0.85, 0.83
        picked = by_utility(ACCURACY, COSTS, 0.08)
        assert picked.points == ("L2",)
        assert "L2 has the highest utility, 0.8800: accuracy 0.9000 minus 0.08 times 0.250" in picked.reason

    @pytest.mark.parametrize(("weight", "point"), [(0, "L4"), (10, "L1")])
    def test_weight_moves_the_choice(self, weight: float, point: str) -> None:
        assert by_utility(ACCURACY, COSTS, weight).points == (point,)

    def test_of_equal_points_the_cheaper(self) -> None:
        assert by_utility(dict.fromkeys(COSTS, 0.9), COSTS, 0).points == ("L1",)


def row(point: str, label: str, case: str, dice: float | None, dataset: str = "A") -> ScoreRow:
    if dice is None:
        score = LabelScore("both_empty", None, None, None, None, 0, 0, 0)
    else:
        score = LabelScore("ok", dice, dice / 2, 3.0, dice, 0, 1, 1)
    return ScoreRow(dataset, case, case, point, label, score)


class TestMeanAccuracy:
    def test_labels_weigh_alike_and_empty_cases_are_left_out(self) -> None:
        rows = [row("L1", "a", "1", 0.4), row("L1", "a", "2", 0.6), row("L1", "b", "1", 0.9), row("L1", "b", "2", None)]
        rows += [row("L1", "foreground", case, 0.1) for case in "12"]
        assert mean_accuracy(rows, ["L1"]) == {"L1": pytest.approx((0.5 + 0.9) / 2)}
        assert mean_accuracy(rows, ["L1"], "iou") == {"L1": pytest.approx((0.25 + 0.45) / 2)}

    def test_data_sets_weigh_alike(self) -> None:
        rows = [row("L1", "a", "1", 0.4), *(row("L1", "a", case, 0.8, "B") for case in "123")]
        assert mean_accuracy(rows, ["L1"])["L1"] == pytest.approx(0.6)

    def test_finding_nothing_rightly_is_better_than_a_false_positive(self) -> None:
        rows = [row("L1", "a", "1", 0.5), row("L2", "a", "1", 0.5), row("L1", "a", "2", None)]
        false_positive = dataclasses.replace(row("L2", "a", "2", 0.0).score, state="false_positive", truth_ml=0)
        rows.append(ScoreRow("A", "2", "2", "L2", "a", false_positive))
        assert mean_accuracy(rows, ["L1", "L2"]) == {"L1": pytest.approx(0.75), "L2": pytest.approx(0.25)}
        # but it is no perfect case where the level stands alone
        assert accuracy_of_each(rows, ["L1", "L2"]) == {"L1": pytest.approx(0.5), "L2": pytest.approx(0.25)}

    @pytest.mark.parametrize(
        ("rows", "metric", "message"),
        [
            ([], "dice", "rows must hold scores, got none"),
            ([row("L1", "a", "1", 0.5)], "hd95_mm", "metric must be one where larger is better, got 'hd95_mm'"),
            ([row("L1", "a", "1", 0.5)], "dices", "metric must be one of dice, iou, nsd, hd95_mm, got 'dices'"),
            ([row("L1", "a", "1", None)], "dice", "rows must hold a case with a label, got none in data set 'A'"),
            ([row("L2", "a", "1", 0.5)], "dice", "rows must be of the points L1, got 'L2'"),
        ],
    )
    def test_bad_arguments(self, rows: list[ScoreRow], metric: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            mean_accuracy(rows, ["L1"], metric)


def test_where_no_case_has_a_label_the_cheapest_is_on_no_front() -> None:
    names = ("L1", "L2")
    costs, accuracy = {name: COSTS[name] for name in names}, {"L1": 0.5, "L2": 0.6}
    # in a third of the samples no case has a label
    means = np.array([[0.5, 0.6], [0.5, 0.6], [np.nan, np.nan]])
    resampled = ResampledAccuracy(names, means, means[:, :, None])
    assert pareto_front(accuracy, costs, resampled=resampled).on_front == {"L1": 1.0, "L2": 1.0}
    assert front_of_labels(costs, resampled, ["latency_ms"]).on_front == {"L1": 1.0, "L2": 1.0}


def test_no_reason_holds_a_key_of_the_command_line() -> None:
    keys = list(COST_KEYS)
    limits = [Budget(key, 1e9) for key in keys]
    reasons = [
        pareto_front(ACCURACY, COSTS, keys).reason,
        front_of_labels(COSTS, ResampledAccuracy(tuple(COSTS), np.zeros((2, 4)), np.zeros((2, 4, 1))), keys).reason,
        within_budget(ACCURACY, COSTS, limits).reason,
        within_budget(ACCURACY, COSTS, [Budget(key, 1e-9) for key in keys]).reason,
        by_utility(ACCURACY, COSTS, 0.02).reason,
    ]
    ambiguous = {"parameters"}  # a word as well
    assert not [key for key in {*keys} - ambiguous for reason in reasons if key in reason]
    assert rule_in_words(str(limits[0])) == "Budget: time per volume of at most 1000000000 ms"


def test_false_positives_of_other_points_move_no_level() -> None:
    def score(state: State, dice: float | None) -> LabelScore:
        return LabelScore(state, dice, dice, None if dice is None else 1.0, dice, 0.0, 1.0, 1.0)

    found = {"L1": 0.885, "L2": 0.9, "alone": 0.8}
    rows = [
        ScoreRow("D", f"with {number}", f"with {number}", point, "liver", score("ok", dice))
        for number in range(10)
        for point, dice in found.items()
    ] + [
        ScoreRow("D", f"without {number}", f"without {number}", point, "liver", score(state, dice))
        for number in range(10)
        for point, state, dice in (
            ("L1", "both_empty", None),
            ("L2", "both_empty", None),
            ("alone", "false_positive", 0.0),
        )
    ]
    rules = Rules(utility_weight=0.02, budgets=("latency_ms=50",))
    for given in (rows, [row for row in rows if row.point != "alone"]):
        budget, utility = picked_levels(["L1", "L2"], COSTS, given, rules)
        assert (budget.points, utility.points) == (("L2",), ("L2",))
        assert "0.9000" in budget.reason
