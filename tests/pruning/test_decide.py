"""The decision: what passes, what fails, what stays open, and that it is the statistics that decide."""

from __future__ import annotations

import dataclasses
import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from benchmarks import simulate
from monai_unetpp.metrics import LabelScore, State
from monai_unetpp.pruning import decision as deciding
from monai_unetpp.pruning.confirmation import draw_subjects
from monai_unetpp.pruning.decision.samples import FAIL, OPEN, count_state, is_excess_excluded, mean_state
from monai_unetpp.pruning.exposure import with_exposures
from monai_unetpp.pruning.results import Comparison, Decision, Exposure, OperatingPoint, ScoreRow
from monai_unetpp.pruning.rules import (
    DEFAULT_MARGINS,
    Margin,
    Rules,
    parse_margin,
)

POINTS = tuple(OperatingPoint(name, name) for name in ("L1", "L2", "L3"))
ALONE = OperatingPoint("L2 trained alone", "L2", "extra")
DICE = (Margin("dice", 0.01),)
FAST = {"bootstrap_samples": 500}
OPTIONS = ("dataset", "role")
MISSED = LabelScore("missed", 0.0, 0.0, 50.0, 0.0, -1.0, 0.0, 1.0)


def with_rules(function: Callable[..., object], given: tuple[object, ...], options: dict[str, object]) -> object:
    """Call with the margins, if there are any behind rows and points, and with all other rules by name."""
    *rows_and_points, margins = (
        given if isinstance(given[-1], (list, tuple)) and _are_margins(given[-1]) else (*given, DEFAULT_MARGINS)
    )
    others = {name: options.pop(name) for name in list(options) if name not in OPTIONS}
    return function(*rows_and_points, Rules(margins=margins, **others), **options)


def _are_margins(values: Sequence[object]) -> bool:
    return all(isinstance(each, Margin) for each in values)


def decide(*given: object, **options: object) -> Decision:
    return with_rules(deciding.decide, given, options)


def decide_all(*given: object, **options: object) -> tuple[Decision, ...]:
    return with_rules(deciding.decide_all, given, options)


def confirm(*given: object, **options: object) -> Decision:
    return with_rules(deciding.confirm, given, options)


def ok(dice: float, nsd: float = 0.9, hd95: float = 2.0) -> LabelScore:
    return LabelScore("ok", dice, dice / (2 - dice), hd95, nsd, 0.0, 1.0, 1.0)


def empty(state: State) -> LabelScore:
    if state == "both_empty":
        return LabelScore(state, None, None, None, None, 0.0, 0.0, 0.0)
    return LabelScore(state, 0.0, 0.0, 50.0, 0.0, 1.0, 1.0, 0.0)


def rows_of(
    dice: Mapping[str, Sequence[float]],
    *,
    label: str = "Anterior",
    dataset: str = "A",
    per_subject: int = 1,
    nsd: Mapping[str, Sequence[float]] | None = None,
) -> list[ScoreRow]:
    """One row per point and value: Dice by point, and NSD where it is given."""
    return [
        ScoreRow(
            dataset,
            f"case_{index:03d}",
            f"subject_{index // per_subject:03d}" if per_subject > 1 else f"case_{index:03d}",
            point,
            label,
            ok(value) if nsd is None else ok(value, nsd[point][index]),
        )
        for point, values in dice.items()
        for index, value in enumerate(values)
    ]


def noise(n: int, sd: float = 0.005, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    """Values with exactly this mean and about this standard deviation."""
    values = np.random.default_rng(seed).normal(scale=sd, size=n)
    return values - values.mean() + mean


def levels(n: int, l1: float = 0.0, l2: float = 0.0, **options: float) -> dict[str, np.ndarray]:
    """Dice of three levels: L3 at 0.8, the others with these mean differences."""
    return {
        "L1": 0.8 + noise(n, mean=l1, seed=1, **options),
        "L2": 0.8 + noise(n, mean=l2, seed=2, **options),
        "L3": np.full(n, 0.8),
    }


def replace_score(rows: list[ScoreRow], point: str, case: str, score: LabelScore) -> list[ScoreRow]:
    assert any(row.point == point and row.case == case for row in rows)
    return [dataclasses.replace(row, score=score) if row.point == point and row.case == case else row for row in rows]


def found(decision: Decision, point: str, metric: str = "dice", label: str = "Anterior") -> Comparison:
    (comparison,) = [c for c in decision.comparisons if (c.point, c.metric, c.label) == (point, metric, label)]
    return comparison


def test_a_verdict_that_is_withdrawn_still_tells_which_levels_were_tested() -> None:
    decision = decide(rows_of(levels(40)), POINTS, DICE, dataset="A", **FAST)
    exposure = Exposure("A", decision.role, cases=40, training=1, selecting=0, rule="")
    (withdrawn,) = with_exposures([decision], [exposure], "L3")
    assert (withdrawn.verdict, withdrawn.level, withdrawn.tested) == ("inconclusive", "L3", ("L2", "L1"))


class TestVerdict:
    def test_prunes_to_the_shallowest_level_that_passed(self) -> None:
        decision = decide(rows_of(levels(40)), POINTS, DICE, dataset="A", **FAST)
        assert (decision.verdict, decision.level) == ("prune", "L1")
        assert decision.blockers == ()
        assert decision.subjects_needed is None
        assert decision.optimistic
        assert "Prune to L1" in decision.summary
        assert "optimistic" in decision.summary

    def test_stops_at_the_first_failure(self) -> None:
        decision = decide(rows_of(levels(40, l1=-0.03)), POINTS, DICE, dataset="A", **FAST)
        assert (decision.verdict, decision.level) == ("prune", "L2")
        assert decision.tested == ("L2", "L1")
        assert found(decision, "L1").state == "fail"
        assert len(decision.blockers) == 1
        assert decision.blockers[0].startswith("L1: Dice of Anterior is worse by more than the margin")

    def test_a_loss_of_exactly_the_margin_is_not_worse_by_more(self) -> None:
        assert 0.89 - 0.9 < -0.01  # by rounding
        assert mean_state(0.89 - 0.9, 0.89 - 0.9, 0.89 - 0.9, subjects=40, margin=0.01, error=0.05) == OPEN
        assert mean_state(-0.0101, -0.0101, -0.0101, subjects=40, margin=0.01, error=0.05) == FAIL

    def test_a_shallower_level_beyond_the_stop_is_described_and_cannot_win(self) -> None:
        decision = decide(rows_of(levels(40, l2=-0.03)), POINTS, DICE, dataset="A", **FAST)
        assert (decision.verdict, decision.level) == ("keep", "L3")
        assert [c.point for c in decision.comparisons] == ["L2", "L1"]
        assert decision.tested == ("L2",)
        assert found(decision, "L1").state == "pass"
        assert all(blocker.startswith("L2") for blocker in decision.blockers)
        assert decision.summary.startswith("Keep L3: on 40 cases, L2 fails: Dice of Anterior is worse")

    def test_inconclusive_where_the_interval_covers_the_margin(self) -> None:
        decision = decide(rows_of(levels(40, l2=-0.009, sd=0.03)), POINTS, DICE, dataset="A", **FAST)
        comparison = found(decision, "L2")
        assert comparison.lower_bound < -0.01 < comparison.upper_bound
        assert comparison.state == "inconclusive"
        assert (decision.verdict, decision.level) == ("inconclusive", "L3")
        assert decision.subjects_needed == pytest.approx(comparison.subjects_needed, rel=0.15)
        needed = f"about {decision.subjects_needed} subjects would be needed for all tests together at 80 % power, "
        assert f"{needed}if there is no true" in decision.summary

    def test_enough_cases_for_no_difference_are_too_few_for_the_observed_one(self) -> None:
        decision = decide(rows_of(levels(40, l2=-0.008, sd=0.02)), POINTS, DICE, dataset="A", **FAST)
        comparison = found(decision, "L2")
        assert (decision.verdict, comparison.state) == ("inconclusive", "inconclusive")
        assert comparison.subjects_needed < 40
        assert decision.subjects_needed == pytest.approx((2.487 * comparison.sd_difference / 0.002) ** 2, rel=0.15)
        needed = f"about {decision.subjects_needed} subjects would be needed for all tests together at 80 % power, "
        assert f"{needed}if the true" in decision.summary

    def test_inconclusive_for_lack_of_cases_says_how_many(self) -> None:
        decision = decide(rows_of(levels(30, sd=0.045)), POINTS, DICE, dataset="A", **FAST)
        comparison = found(decision, "L2")
        assert decision.verdict == "inconclusive"
        assert decision.subjects_needed == pytest.approx((2.487 * comparison.sd_difference / 0.01) ** 2 + 2, rel=0.15)

    def test_everything_together_needs_more_subjects_than_a_single_comparison(self) -> None:
        wide = {point: 0.8 + noise(30, sd=0.03, seed=seed) for seed, point in enumerate(("L1", "L2"))}
        rows = [
            row
            for seed, label in enumerate(("A", "B", "C", "D"))
            for row in rows_of(
                {p: v[np.random.default_rng(seed).permutation(30)] for p, v in wide.items()} | {"L3": [0.8] * 30},
                label=label,
            )
        ]
        decision = decide(rows, POINTS, DICE, dataset="A", **FAST)
        single = max(c.subjects_needed for c in decision.comparisons if c.point == "L2")
        assert decision.subjects_needed > 1.2 * single
        assert "for all tests together at 80 % power, if" in decision.summary

    @pytest.mark.parametrize("change", [0.0, -0.5])
    def test_fewer_than_ten_are_inconclusive_whatever_the_numbers(self, change: float) -> None:
        decision = decide(rows_of(levels(9, l1=change, l2=change)), POINTS, DICE, dataset="A", **FAST)
        assert (decision.verdict, decision.level) == ("inconclusive", "L3")
        assert decision.blockers[0] == "9 subjects are fewer than the 10 that any verdict needs."
        assert decision.subjects_needed is None or decision.subjects_needed >= 10
        assert "9 cases are fewer than the 10 subjects" in decision.summary

    def test_one_is_counted_as_one(self) -> None:
        decision = decide(rows_of(levels(1)), POINTS, DICE, dataset="A", **FAST)
        assert decision.blockers[0] == "1 subject is fewer than the 10 that any verdict needs."
        assert "for now: 1 case is fewer than the 10 subjects" in decision.summary

    def test_fewer_than_ten_are_inconclusive_even_with_a_missed_structure(self) -> None:
        rows = replace_score(rows_of(levels(9)), "L2", "case_004", MISSED)
        assert decide(rows, POINTS, DICE, dataset="A", **FAST).verdict == "inconclusive"

    @pytest.mark.parametrize("n", [25, 40])
    def test_equal_levels_prune_without_warnings(self, n: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            decision = decide(rows_of({p.name: [0.8] * n for p in POINTS}), POINTS, dataset="A", **FAST)
        assert (decision.verdict, decision.level) == ("prune", "L1")
        for comparison in decision.comparisons:
            numbers = (comparison.mean_difference, comparison.lower_bound, comparison.upper_bound)
            assert numbers == (0.0, 0.0, 0.0)

    def test_equal_levels_on_twelve_cases_leave_room_for_unseen_drops(self) -> None:
        decision = decide(rows_of({p.name: [0.8] * 12 for p in POINTS}), POINTS, DICE, dataset="A", **FAST)
        assert decision.verdict == "inconclusive"
        assert 14 <= decision.subjects_needed <= 17
        assert "cannot exclude large drops in up to 22.1 % of subjects" in decision.blockers[0]
        enough = rows_of({p.name: [0.8] * 17 for p in POINTS})
        assert decide(enough, POINTS, DICE, dataset="A", **FAST).verdict == "prune"

    def test_does_not_depend_on_the_order_of_rows_and_repeats_exactly(self) -> None:
        rows = rows_of(levels(30, l1=-0.006, sd=0.015))
        first = decide(rows, POINTS, DICE, dataset="A", seed=5, **FAST)
        assert decide(rows, POINTS, DICE, dataset="A", seed=5, **FAST) == first
        points = list(reversed(POINTS))
        assert decide(rows, points, DICE, dataset="A", seed=5, **FAST) == first

    def test_the_number_of_subjects_needed_does_not_depend_on_the_order_of_cases(self) -> None:
        rows = rows_of(levels(40, l2=-0.006, sd=0.03))
        names = list(dict.fromkeys(row.case for row in rows))
        of = {name: [row for row in rows if row.case == name] for name in names}
        needed = set()
        for seed in range(4):
            shuffled = random.Random(seed).sample(names, len(names))
            found = decide([row for name in shuffled for row in of[name]], POINTS, DICE, dataset="A", **FAST)
            needed.add((found.verdict, found.subjects_needed))
        assert len(needed) == 1
        assert None not in needed.pop()

    def test_a_perfect_distance_has_no_sign(self) -> None:
        rows = [
            dataclasses.replace(row, score=dataclasses.replace(row.score, hd95_mm=0.0))
            for row in rows_of({point.name: [1.0] * 30 for point in POINTS})
        ]
        decision = decide(rows, POINTS, (Margin("hd95_mm", 1.0),), dataset="A", **FAST)
        means = [mean for each in decision.comparisons for mean in (each.mean_point, each.mean_reference)]
        assert {str(mean) for mean in means} == {"0.0"}


class TestGuards:
    def test_one_failing_label_among_several_stops(self) -> None:
        rows = rows_of(levels(40)) + rows_of(levels(40, l2=-0.05), label="Posterior")
        decision = decide(rows, POINTS, DICE, dataset="A", **FAST)
        assert decision.verdict == "keep"
        assert found(decision, "L2", label="Posterior").state == "fail"
        assert found(decision, "L2", label="Anterior").state == "pass"

    def test_the_boundary_metric_stops_where_overlap_passes(self) -> None:
        nsd = {"L1": [0.9] * 40, "L2": [0.8] * 40, "L3": [0.9] * 40}
        decision = decide(rows_of(levels(40), nsd=nsd), POINTS, dataset="A", **FAST)
        assert decision.verdict == "keep"
        assert found(decision, "L2", "nsd").state == "fail"
        assert found(decision, "L2", "dice").state == "pass"

    def test_smaller_hd95_is_better(self) -> None:
        rows = [
            ScoreRow("A", f"c{i}", f"c{i}", point, "Anterior", ok(0.8, hd95=hd95))
            for point, hd95 in (("L1", 1.0), ("L2", 2.5), ("L3", 2.0))
            for i in range(40)
        ]
        decision = decide(rows, POINTS, [Margin("hd95_mm", 1.0)], dataset="A", **FAST)
        worse, better = found(decision, "L2", "hd95_mm"), found(decision, "L1", "hd95_mm")
        assert (worse.mean_difference, better.mean_difference) == (-0.5, 1.0)
        assert (worse.mean_reference, worse.mean_point) == (2.0, 2.5)
        assert decision.level == "L1"
        assert decide(rows, POINTS, [Margin("hd95_mm", 0.2)], dataset="A", **FAST).verdict == "keep"

    def test_a_margin_for_a_label_goes_before_the_general_one(self) -> None:
        rows = rows_of(levels(40, l1=-0.03, l2=-0.03)) + rows_of(levels(40), label="Posterior")
        margins = [Margin("dice", 0.05, ("Anterior",)), Margin("dice", 0.01)]
        decision = decide(rows, POINTS, margins, dataset="A", **FAST)
        assert decision.level == "L1"
        assert found(decision, "L2").margin == 0.05
        assert found(decision, "L2", label="Posterior").margin == 0.01

    def test_only_the_labels_of_a_margin_are_guarded(self) -> None:
        rows = rows_of(levels(40)) + rows_of(levels(40, l2=-0.05), label="Posterior")
        decision = decide(rows, POINTS, [Margin("dice", 0.01, ("Anterior",))], dataset="A", **FAST)
        assert decision.verdict == "prune"
        assert {c.label for c in decision.comparisons} == {"Anterior"}

    def test_the_pooled_foreground_is_guarded_only_by_name(self) -> None:
        rows = rows_of(levels(40)) + rows_of(levels(40, l2=-0.05), label="foreground")
        assert decide(rows, POINTS, DICE, dataset="A", **FAST).verdict == "prune"
        named = decide(rows, POINTS, [Margin("dice", 0.01, ("foreground",))], dataset="A", **FAST)
        assert named.verdict == "keep"

    @staticmethod
    def with_misses(dice: Mapping[str, Sequence[float]], missed: Mapping[str, Sequence[int]]) -> list[ScoreRow]:
        rows = rows_of(dice)
        for point, cases in missed.items():
            for case in cases:
                rows = replace_score(rows, point, f"case_{case:03d}", MISSED)
        return rows

    def test_more_newly_missed_structures_than_chance_stop_even_where_the_mean_gains(self) -> None:
        rows = self.with_misses({"L1": [0.9] * 200, "L2": [0.9] * 200, "L3": [0.8] * 200}, {"L2": range(5)})
        decision = decide(rows, POINTS, DICE, dataset="A", max_case_drop={}, **FAST)
        assert found(decision, "L2").state == "pass"
        assert (found(decision, "L2").newly_missed, found(decision, "L2").newly_found) == (5, 0)
        assert decision.verdict == "keep"
        assert decision.blockers[0].startswith("L2: Anterior is missed in case_000, case_001, case_002 and 2 more")
        assert "5 of 200 subjects, 0 the other way round: more than chance" in decision.blockers[0]

    def test_one_newly_missed_structure_among_few_leaves_the_verdict_open(self) -> None:
        rows = self.with_misses({"L1": [0.9] * 40, "L2": [0.9] * 40, "L3": [0.8] * 40}, {"L2": [7]})
        decision = decide(rows, POINTS, DICE, dataset="A", max_case_drop={}, **FAST)
        assert decision.verdict == "inconclusive"
        assert "does not exclude an excess of 5 %" in decision.blockers[0]

    def test_one_missed_structure_against_twenty_of_the_deepest_level_is_no_reason_to_keep_it(self) -> None:
        rows = self.with_misses(levels(120), {"L2": [7], "L1": [7], "L3": range(20, 40)})
        decision = decide(rows, POINTS, DICE, dataset="A", **FAST)
        assert (decision.verdict, decision.level) == ("prune", "L1")
        assert "L1: Anterior is missed in case_007, where L3 finds it (1 of 120 subjects, 20 the other" in " ".join(
            decision.warnings
        )

    def test_a_structure_that_the_deepest_level_misses_too_is_not_new(self) -> None:
        rows = self.with_misses(levels(40), dict.fromkeys(("L1", "L2", "L3"), range(7, 8)))
        assert decide(rows, POINTS, DICE, dataset="A", **FAST).level == "L1"

    @pytest.mark.parametrize(
        ("n", "down", "up", "verdict"),
        [(100, 1, 0, "inconclusive"), (110, 1, 0, "prune"), (100, 5, 0, "keep"), (150, 5, 5, "prune")],
    )
    def test_large_drops_are_weighed_against_large_gains(self, n: int, down: int, up: int, verdict: str) -> None:
        dice = {point: np.full(n, 0.7) for point in ("L1", "L2", "L3")}
        for point in ("L1", "L2"):
            dice[point] += 0.03 * (up < down)
            dice[point][:down] = 0.45
            dice[point][down : down + up] = 0.95
        decision = decide(rows_of(dice), POINTS, [Margin("dice", 0.02)], dataset="A", **FAST)
        comparison = found(decision, "L2")
        assert (comparison.drops, comparison.gains) == (down, up)
        assert (decision.verdict, comparison.worst_case) == (verdict, "case_000")
        if verdict != "prune":
            assert f"falls by more than 0.2 in {down} of {n} subjects (most in case_000" in decision.blockers[0]
        loose = decide(rows_of(dice), POINTS, [Margin("dice", 0.02)], dataset="A", max_case_drop={"dice": 0.26}, **FAST)
        assert loose.level == "L1"

    @pytest.mark.slow
    @pytest.mark.parametrize("n", [160, 400])
    def test_more_subjects_never_turn_symmetric_noise_into_a_refusal(self, n: int) -> None:
        rng = np.random.default_rng(4)
        verdicts = []
        for _ in range(12):
            # a large drop in one case of 200, and a large gain as often
            dice = {"L2": 0.5 + 0.07 * rng.standard_t(8, n) * 0.866, "L3": np.full(n, 0.5)}
            rows = rows_of({point: np.clip(values, 0.01, 0.99) for point, values in dice.items()})
            margin = [Margin("dice", 0.02)]
            verdicts.append(decide(rows, POINTS[1:], margin, dataset="A", **FAST).verdict)
        assert "keep" not in verdicts
        assert verdicts.count("prune") >= 9

    @pytest.mark.parametrize("broken", ["missed", "poor"])
    def test_a_broken_reference_gives_no_verdict(self, broken: str) -> None:
        if broken == "missed":
            everywhere = dict.fromkeys(("L1", "L2", "L3"), range(40))
            rows = self.with_misses({p: [0.8] * 40 for p in ("L1", "L2", "L3")}, everywhere)
        else:
            rows = rows_of({p: [0.3] * 40 for p in ("L1", "L2", "L3")})
        decision = decide(rows, POINTS, DICE, dataset="A", **FAST)
        assert (decision.verdict, decision.level) == ("inconclusive", "L3")
        expected = {"missed": "L3 itself misses Anterior in 40 of 40 cases", "poor": "at L3 itself is 0.300, below 0.5"}
        assert expected[broken] in decision.summary
        assert expected[broken] in decision.blockers[0]
        if broken == "poor":
            assert decide(rows, POINTS, DICE, dataset="A", min_reference=0.2, **FAST).verdict == "prune"

    def test_a_broken_reference_of_many_labels_is_told_of_three(self) -> None:
        broken = rows_of({p: [0.3] * 40 for p in ("L1", "L2", "L3")})
        rows = [dataclasses.replace(row, label=f"label {number}") for number in range(9) for row in broken]
        summary = decide(rows, POINTS, DICE, dataset="A", **FAST).summary
        assert summary.count("at L3 itself is 0.300") == 3
        assert "of label 2 at L3 itself is 0.300, below 0.5; 6 more labels likewise, so it is no reference" in summary

    def test_a_broken_reference_counts_every_subject_once(self) -> None:
        # one subject has twelve cases that the deepest level misses, each of 29 others a good one
        names = [f"case_{number:03d}" for number in range(41)]
        rows = self.with_misses(
            {p: [0.8] * 41 for p in ("L1", "L2", "L3")}, dict.fromkeys(("L1", "L2", "L3"), range(12))
        )
        rows = [dataclasses.replace(r, subject="x" if names.index(r.case) < 12 else r.case) for r in rows]
        assert decide(rows, POINTS, DICE, dataset="A", **FAST).verdict == "prune"

    def test_a_broken_reference_tells_the_share_of_subjects_beside_that_of_cases(self) -> None:
        # three of ten subjects have one case each, which the deepest level misses, the others twenty good ones each
        everywhere = dict.fromkeys(("L1", "L2", "L3"), range(3))
        rows = self.with_misses({p: [0.8] * 143 for p in ("L1", "L2", "L3")}, everywhere)
        names = list(dict.fromkeys(row.case for row in rows))
        subjects = [f"s{number if number < 3 else 3 + (number - 3) // 20}" for number in range(143)]
        of = dict(zip(names, subjects, strict=True))
        decision = decide(
            [dataclasses.replace(row, subject=of[row.case]) for row in rows], POINTS, DICE, dataset="A", **FAST
        )
        assert "L3 itself misses Anterior in 3 of 143 cases, on average 30 % of a subject's" in decision.summary

    def test_a_level_below_a_broken_reference_gives_no_verdict_either(self) -> None:
        rows = rows_of({"L1": [0.1] * 40, "L2": [0.1] * 40, "L3": [0.3] * 40})
        decision = decide(rows, POINTS, DICE, dataset="A", **FAST)
        assert (decision.verdict, found(decision, "L2").state) == ("inconclusive", "inconclusive")
        assert "at L3 itself is 0.300, below 0.5" in decision.summary

    def test_a_verdict_to_keep_names_what_fails_not_what_is_open(self) -> None:
        wide = {"L1": 0.8 + noise(40, sd=0.05), "L2": 0.8 + noise(40, sd=0.05), "L3": [0.8] * 40}
        rows = rows_of(wide) + rows_of(levels(40, l1=-0.05, l2=-0.05), label="Posterior")
        decision = decide(rows, POINTS, DICE, dataset="A", **FAST)
        assert (found(decision, "L2").state, decision.verdict) == ("inconclusive", "keep")
        assert "L2 fails: Dice of Posterior is worse by more than the margin" in decision.summary

    def test_drops_that_would_fail_as_the_only_ones_stay_open_as_some_of_several(self) -> None:
        rows = [
            row
            for number, gains in enumerate((0, 5, 5, 5))
            for row in rows_of(
                {
                    "L1": [0.7] * 100,
                    "L2": [0.45] * 5 + [0.7] * 90 + [0.95] * gains + [0.7] * (5 - gains),
                    "L3": [0.7] * 100,
                },
                label=f"label {number}",
            )
        ]
        decision = decide(rows, POINTS, [Margin("dice", 0.1)], dataset="A", **FAST)
        assert (decision.verdict, found(decision, "L2", label="label 0").state) == ("inconclusive", "inconclusive")
        assert (
            "and rises by as much in 0: more than chance as the only such test, but not as one of several ("
            in (decision.blockers[0])
        )

    def test_drops_that_would_fail_as_the_only_ones_never_pass(self) -> None:
        # 27 drops and 14 gains among 1,000 exclude an excess of 5 %, and are still more than chance
        assert is_excess_excluded(27, 14, 1000)
        assert count_state(27, 14, 1000, error=0.05, failing=0.05) == FAIL
        assert count_state(27, 14, 1000, error=0.05, failing=0.025) == OPEN

    def test_pairs_that_both_miss_do_not_dilute_a_loss(self) -> None:
        shared = dict.fromkeys(("L1", "L2", "L3"), range(8))
        loss = levels(48, l1=-0.011, l2=-0.011, sd=0.002)
        decision = decide(self.with_misses(loss, shared), POINTS, DICE, dataset="A", **FAST)
        assert found(decision, "L2").mean_difference > -0.01
        assert decision.verdict == "keep"
        assert "Dice of Anterior, where both find it, is worse by more than the margin" in decision.blockers[0]

    def test_what_the_deepest_level_misses_does_not_make_up_for_a_loss_elsewhere(self) -> None:
        rows = self.with_misses(levels(60, l1=-0.02, l2=-0.02), {"L3": range(6)})
        decision = decide(rows, POINTS, DICE, dataset="A", **FAST)
        assert found(decision, "L2").mean_difference > 0
        assert decision.verdict == "keep"

    def test_a_deepest_level_far_below_a_shallower_one_is_told(self) -> None:
        decision = decide(rows_of(levels(40, l1=0.1)), POINTS, DICE, dataset="A", **FAST)
        assert decision.warnings == (
            "L1 is better than L3 by 0.100 in Dice of Anterior: the deepest level was not trained well. Check it "
            "before you prune.",
        )

    def test_pairs_without_the_structure_are_left_out(self) -> None:
        rows = rows_of(levels(40))
        for point in ("L1", "L2", "L3"):
            rows = replace_score(rows, point, "case_003", empty("both_empty"))
        decision = decide(rows, POINTS, DICE, dataset="A", **FAST)
        assert (decision.cases, found(decision, "L2").cases) == (40, 39)

    def test_a_structure_that_only_the_shallow_level_finds_without_truth_is_not_left_out(self) -> None:
        rows = rows_of(levels(40))
        for point, state in (("L1", "both_empty"), ("L2", "false_positive"), ("L3", "both_empty")):
            rows = replace_score(rows, point, "case_003", empty(state))
        decision = decide(rows, POINTS, DICE, dataset="A", **FAST)
        assert (found(decision, "L2").cases, found(decision, "L1").cases) == (40, 39)
        assert found(decision, "L2").worst_difference == -1
        assert decision.verdict == "inconclusive"

    @staticmethod
    def with_false_positives(dice: Mapping[str, Sequence[float]], count: int) -> list[ScoreRow]:
        """Rows of these cases and of further ones without truth, in which every point finds the structure."""
        more = {point: [*values, *[0.0] * count] for point, values in dice.items()}
        first = len(dice["L3"])
        return [
            dataclasses.replace(row, score=empty("false_positive")) if int(row.case[5:]) >= first else row
            for row in rows_of(more)
        ]

    def test_pairs_of_two_false_positives_do_not_dilute_a_loss(self) -> None:
        loss = {"L1": 0.77 + noise(10, seed=1), "L2": 0.77 + noise(10, seed=2), "L3": np.full(10, 0.8)}
        decision = decide(self.with_false_positives(loss, 90), POINTS, DICE, dataset="A", **FAST)
        assert (decision.verdict, decision.level, decision.cases) == ("keep", "L3", 100)
        comparison = found(decision, "L2")
        assert (comparison.cases, comparison.clusters) == (10, 10)
        assert comparison.mean_difference == pytest.approx(-0.03)
        assert "; 90 cases left out, where both find a structure that the truth lacks." in comparison.reason

    def test_pairs_of_two_false_positives_change_no_figure(self) -> None:
        plain = found(decide(rows_of(levels(40)), POINTS, DICE, dataset="A", **FAST), "L2")
        more = found(decide(self.with_false_positives(levels(40), 7), POINTS, DICE, dataset="A", **FAST), "L2")
        assert dataclasses.replace(more, reason=plain.reason) == plain
        assert "left out" not in plain.reason

    def test_a_vanished_false_positive_still_counts_as_a_gain(self) -> None:
        rows = rows_of(levels(40))
        for point, state in (("L1", "false_positive"), ("L2", "both_empty"), ("L3", "false_positive")):
            rows = replace_score(rows, point, "case_003", empty(state))
        decision = decide(rows, POINTS, DICE, dataset="A", **FAST)
        assert (found(decision, "L2").cases, found(decision, "L1").cases) == (40, 39)
        assert found(decision, "L2").mean_difference > 0.02

    def test_false_positives_of_the_deepest_level_pass_no_label_that_is_in_no_case(self) -> None:
        rows = rows_of(levels(40))
        for row in rows[:]:
            state: State = "false_positive" if row.point == "L3" and row.case < "case_025" else "both_empty"
            rows.append(dataclasses.replace(row, label="Tumour", score=empty(state)))
        decision = decide(rows, POINTS, DICE, dataset="A", **FAST)
        tumour = found(decision, "L2", label="Tumour")
        assert (tumour.mean_difference, tumour.state, decision.verdict) == (1.0, "inconclusive", "inconclusive")
        assert "L2: Dice of Tumour: Tumour is in no case, so nothing can be said about it." in decision.blockers[0]
        assert not decision.warnings
        assert decision.subjects_needed is None

    def test_new_false_positives_of_a_label_that_is_in_no_case_still_fail(self) -> None:
        rows = rows_of(levels(40))
        for row in rows[:]:
            state: State = "false_positive" if row.point != "L3" and row.case < "case_025" else "both_empty"
            rows.append(dataclasses.replace(row, label="Tumour", score=empty(state)))
        decision = decide(rows, POINTS, DICE, dataset="A", **FAST)
        assert (decision.verdict, found(decision, "L2", label="Tumour").state) == ("keep", "fail")

    def test_false_positives_of_the_deepest_level_do_not_make_up_for_a_loss_elsewhere(self) -> None:
        rows = rows_of(levels(60, l1=-0.02, l2=-0.02))
        for number in range(6):
            for point, state in (("L1", "both_empty"), ("L2", "both_empty"), ("L3", "false_positive")):
                rows = replace_score(rows, point, f"case_{number:03d}", empty(state))
        decision = decide(rows, POINTS, DICE, dataset="A", **FAST)
        assert found(decision, "L2").mean_difference > 0
        assert decision.verdict == "keep"
        assert "Dice of Anterior, where both find it, is worse by more than the margin" in decision.blockers[0]

    def test_a_label_with_nothing_but_false_positives_cannot_be_tested(self) -> None:
        rows = rows_of(levels(40))
        rows += [dataclasses.replace(row, label="Tumour", score=empty("false_positive")) for row in rows]
        decision = decide(rows, POINTS, DICE, dataset="A", **FAST)
        assert (decision.verdict, decision.subjects_needed) == ("inconclusive", None)
        assert decision.blockers[0].startswith("L2: Tumour is in no case, so nothing can be said about it.")
        several = decide(rows, POINTS, (*DICE, Margin("iou", 0.01)), dataset="A", **FAST)
        assert [text for text in several.blockers if "in no case" in text] == [decision.blockers[0]]

    def test_a_label_that_every_fourth_subject_has_needs_four_times_the_subjects(self) -> None:
        rows = rows_of(levels(80))
        rare = levels(20, sd=0.03)
        rows += [
            ScoreRow("A", row.case, row.subject, row.point, "Tumour", score)
            for row in rows
            for number in [int(row.case[5:])]
            for score in [ok(rare[row.point][number]) if number < 20 else empty("both_empty")]
        ]
        decision = decide(rows, POINTS, DICE, dataset="A", **FAST)
        comparison = found(decision, "L2", label="Tumour")
        assert (comparison.clusters, comparison.state, decision.verdict) == (20, "inconclusive", "inconclusive")
        assert comparison.subjects_needed > 20
        assert decision.subjects_needed == pytest.approx(4 * comparison.subjects_needed, rel=0.15)
        assert "for all tests together at 80 % power, if" in decision.summary

    def test_the_verdict_says_how_strict_the_bounds_of_a_rare_label_are(self) -> None:
        same = {point: [0.8] * 40 for point in ("L1", "L2", "L3")}
        assert "one-sided 95 % bounds)" in decide(rows_of(same), POINTS, DICE, dataset="A", **FAST).summary
        rare = [
            row if row.case < "case_022" else dataclasses.replace(row, score=empty("both_empty"))
            for row in rows_of(same, label="Rare")
        ]
        decision = decide(rows_of(same) + rare, POINTS, DICE, dataset="A", max_case_drop={}, **FAST)
        assert decision.verdict == "prune"
        assert "one-sided 95 % bounds, up to 98.01 % for rare labels)" in decision.summary

    def test_a_label_that_is_never_there_leaves_the_verdict_open(self) -> None:
        rows = rows_of(levels(40))
        rows += [dataclasses.replace(row, label="Tumour", score=empty("both_empty")) for row in rows]
        decision = decide(rows, POINTS, DICE, dataset="A", **FAST)
        assert decision.verdict == "inconclusive"
        assert "Add cases that have it, or name the labels to guard" in decision.blockers[0]
        assert {c.label for c in decision.comparisons} == {"Anterior"}

    def test_extra_points_are_described_and_never_chosen(self) -> None:
        dice = {**levels(40, l1=-0.05, l2=-0.05), ALONE.name: [0.9] * 40}
        decision = decide(rows_of(dice), (ALONE, *POINTS), DICE, dataset="A", **FAST)
        assert (decision.verdict, decision.level) == ("keep", "L3")
        assert [c.point for c in decision.comparisons] == ["L2", "L1", ALONE.name]
        assert found(decision, ALONE.name).mean_difference == pytest.approx(0.1)


class TestSubjects:
    def test_cases_of_a_subject_count_once(self) -> None:
        dice = {"L1": [0.8, 0.8, 0.5] * 14, "L2": [0.8, 0.79, 0.78] * 14, "L3": [0.8, 0.8, 0.8] * 14}
        decision = decide(rows_of(dice, per_subject=3), POINTS, DICE, dataset="A", **FAST)
        comparison = found(decision, "L2")
        assert (decision.cases, decision.subjects) == (42, 14)
        assert (comparison.cases, comparison.clusters) == (42, 14)
        assert comparison.mean_difference == pytest.approx(-0.01)
        assert comparison.sd_difference == pytest.approx(0)
        assert comparison.mean_point == pytest.approx(0.79)
        assert comparison.mean_point - comparison.mean_reference == pytest.approx(comparison.mean_difference)

    def test_symmetric_noise_in_many_cases_of_a_subject_counts_for_neither_side(self) -> None:
        rng = np.random.default_rng(0)
        cases, subjects = 50, 200
        count = cases * subjects
        dice = {"L2": np.full(count, 0.6), "L3": np.full(count, 0.6)}
        event = rng.random(count)
        dice["L2"][event < 0.01] = 0.35
        dice["L2"][event > 0.99] = 0.85
        rows = rows_of(dice, per_subject=cases)
        comparison = found(decide(rows, POINTS[1:], [Margin("dice", 0.02)], dataset="A", **FAST), "L2")
        # 79 of the subjects have a drop, and 48 a gain alone
        assert comparison.state != "fail"
        assert (comparison.drops, comparison.gains) == pytest.approx((62, 62), abs=15)

    def test_many_cases_of_few_subjects_are_few(self) -> None:
        decision = decide(rows_of(levels(90), per_subject=10), POINTS, DICE, dataset="A", **FAST)
        assert (decision.cases, decision.subjects, decision.verdict) == (90, 9, "inconclusive")
        assert "90 cases of 9 subjects are fewer than the 10 subjects" in decision.summary

    def test_clustering_widens_the_interval_of_correlated_cases(self) -> None:
        shifts = np.repeat(noise(30, sd=0.01), 4)
        dice = {"L1": 0.8 + shifts, "L2": 0.8 + shifts, "L3": np.full(120, 0.8)}
        clustered = decide(rows_of(dice, per_subject=4), POINTS, DICE, dataset="A", **FAST)
        independent = decide(rows_of(dice), POINTS, DICE, dataset="A", **FAST)
        assert found(clustered, "L2").lower_bound < 1.7 * found(independent, "L2").lower_bound < 0


class TestSeveralDatasets:
    def test_the_joint_level_is_the_deepest_of_all(self) -> None:
        rows = rows_of(levels(40)) + rows_of(levels(40, l1=-0.05), dataset="B")
        decisions = decide_all(rows, POINTS, DICE, **FAST)
        assert [(d.dataset, d.verdict, d.level) for d in decisions] == [
            ("A", "prune", "L1"),
            ("B", "prune", "L2"),
            ("all", "prune", "L2"),
        ]
        joint = decisions[-1]
        assert (joint.cases, joint.subjects, joint.comparisons) == (80, 80, ())
        assert joint.blockers[0].startswith("B: L1: Dice of Anterior is worse")
        assert "(B)" in joint.summary

    @pytest.mark.parametrize(("l2", "sd", "verdict"), [(-0.05, 0.005, "keep"), (-0.008, 0.03, "inconclusive")])
    def test_one_data_set_can_stop_all(self, l2: float, sd: float, verdict: str) -> None:
        rows = rows_of(levels(40)) + rows_of(levels(40, l2=l2, sd=sd), dataset="B")
        joint = decide_all(rows, POINTS, DICE, **FAST)[-1]
        assert (joint.dataset, joint.verdict, joint.level) == ("all", verdict, "L3")
        assert all(blocker.startswith("B: L2") for blocker in joint.blockers)
        assert (joint.subjects_needed is not None) == (verdict == "inconclusive")

    def test_one_unknown_number_leaves_the_joint_one_unknown(self) -> None:
        wide = rows_of(levels(40, l2=-0.008, sd=0.03))
        rows = wide + [dataclasses.replace(row, label="Tumour") for row in wide]
        rows += [dataclasses.replace(row, dataset="B") for row in wide]
        rows += [
            dataclasses.replace(row, dataset="B", label="Tumour", score=empty("both_empty"))
            for row in rows_of(levels(40))
        ]
        first, second, joint = decide_all(rows, POINTS, DICE, **FAST)
        assert (first.verdict, second.verdict, joint.verdict) == ("inconclusive",) * 3
        assert first.subjects_needed > 40
        assert (second.subjects_needed, joint.subjects_needed) == (None, None)

    def test_one_data_set_has_one_decision(self) -> None:
        rows = rows_of(levels(40))
        assert decide_all(rows, POINTS, DICE, **FAST) == (decide(rows, POINTS, DICE, dataset="A", **FAST),)

    def test_no_rows_or_a_taken_name(self) -> None:
        with pytest.raises(ValueError, match="rows must hold scores, got none"):
            decide_all([], POINTS)
        rows = rows_of(levels(12), dataset="all") + rows_of(levels(12))
        with pytest.raises(ValueError, match="dataset must not be called 'all'"):
            decide_all(rows, POINTS, DICE)


class TestConfirm:
    def chosen(self) -> Decision:
        return decide(rows_of(levels(40, l1=-0.05)), POINTS, DICE, dataset="A", role="choose", **FAST)

    def test_tests_only_the_chosen_level_and_is_not_optimistic(self) -> None:
        decision = confirm(self.chosen(), rows_of(levels(40), dataset="B"), POINTS, DICE, **FAST)
        assert (decision.verdict, decision.level, decision.role, decision.optimistic) == (
            "prune", "L2", "confirm", False,
        )  # fmt: skip
        assert {c.point for c in decision.comparisons} == {"L2"}
        assert decision.dataset == "B"
        assert decision.summary.startswith("Prune to L2, confirmed: on ")
        assert self.chosen().optimistic

    @pytest.mark.parametrize(("n", "l2", "verdict"), [(40, -0.05, "keep"), (9, 0.0, "inconclusive")])
    def test_an_unconfirmed_level_falls_back_to_the_deepest(self, n: int, l2: float, verdict: str) -> None:
        decision = confirm(self.chosen(), rows_of(levels(n, l2=l2)), POINTS, DICE, **FAST)
        assert (decision.verdict, decision.level) == (verdict, "L3")

    def test_refuses_what_cannot_be_confirmed(self) -> None:
        kept = decide(rows_of(levels(40, l2=-0.05)), POINTS, DICE, dataset="A", **FAST)
        rows = rows_of(levels(40))
        with pytest.raises(ValueError, match="decision must be to prune, got 'keep' for 'A'"):
            confirm(kept, rows, POINTS, DICE)
        with pytest.raises(ValueError, match=r"confirm_rows must be of one data set, got \['A', 'B'\]"):
            confirm(self.chosen(), rows + rows_of(levels(40), dataset="B"), POINTS, DICE)
        with pytest.raises(ValueError, match="decision must be for one of the levels L1, L2, got 'L5'"):
            confirm(dataclasses.replace(self.chosen(), level="L5"), rows, POINTS, DICE)
        with pytest.raises(
            ValueError, match=r"role must be 'choose' or 'choose and report', got 'confirm'.*confirm\(\)"
        ):
            decide(rows, POINTS, DICE, dataset="A", role="confirm")  # type: ignore[arg-type]


class TestDraw:
    SUBJECTS = tuple(f"s{i // 2}" for i in range(20))

    def test_the_order_of_the_subjects_does_not_matter(self) -> None:
        drawn = draw_subjects(self.SUBJECTS, 0.6, seed=1)
        assert len(drawn) == 6
        assert drawn < set(self.SUBJECTS)
        shuffled = random.Random(0).sample(self.SUBJECTS, 20)
        assert draw_subjects(shuffled, 0.6, seed=1) == drawn
        assert draw_subjects(self.SUBJECTS, 0.6, seed=2) != drawn

    @pytest.mark.parametrize(("share", "drawn"), [(0.001, 1), (0.999, 9)])
    def test_both_parts_have_a_subject(self, share: float, drawn: int) -> None:
        assert len(draw_subjects(self.SUBJECTS, share)) == drawn


class TestParsing:
    @pytest.mark.parametrize(
        ("text", "margin"),
        [
            ("dice=0.01", Margin("dice", 0.01)),
            (" hd95_mm = 1 ", Margin("hd95_mm", 1.0)),
            ("dice:Anterior=0.02", Margin("dice", 0.02, ("Anterior",))),
            ("nsd:a=b, c=2e-2", Margin("nsd", 0.02, ("a=b", "c"))),
        ],
    )
    def test_margins(self, text: str, margin: Margin) -> None:
        assert parse_margin(text) == margin

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("dice", "margin must be a name, '=' and a number, got 'dice'. Write it like dice=0.01"),
            ("dice=x", "margin must be a name, '=' and a number"),
            ("=0.1", "margin must be a name, '=' and a number"),
            ("dice=nan", "margin must be a name, '=' and a number"),
            ("dices=0.1", "metric must be one of dice, iou, nsd, hd95_mm, got 'dices'"),
            ("dice=-0.1", "margin must be positive, got -0.1 for dice"),
            ("dice=0", "margin must be positive, got 0.0 for dice"),
            ("dice:=0.1", "margin must name labels after the colon, got 'dice:=0.1'"),
        ],
    )
    def test_bad_margins(self, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            parse_margin(text)

    def test_labels_are_given_as_names(self) -> None:
        with pytest.raises(ValueError, match=r"labels must be names of labels or None for all, got \(\)"):
            Margin("dice", 0.1, ())

    def test_case_drops(self) -> None:
        assert Rules(max_case_drop=["dice=0.1"]).max_case_drop["dice"] == 0.1
        with pytest.raises(ValueError, match="max_case_drop must be a name, '=' and a number, got 'dice'"):
            Rules(max_case_drop=["dice"])
        with pytest.raises(ValueError, match=r"max_case_drop must be positive, got -1\.0 for dice"):
            Rules(max_case_drop=["dice=-1"])
        with pytest.raises(ValueError, match="metric must be one of dice, iou, nsd, hd95_mm, got 'dic'"):
            Rules(max_case_drop=["dic=1"])


def edited(edit: Callable[[list[ScoreRow]], list[ScoreRow]]) -> list[ScoreRow]:
    return edit(rows_of(levels(12)))


class TestErrors:
    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (rows_of(levels(12), dataset="B"), "rows must hold scores of data set 'A', got none"),
            (edited(lambda r: r[1:]), "got no score of 'Anterior' at L1 for case 'case_000' of data set 'A'"),
            (edited(lambda r: [*r, r[0]]), "got two scores of 'Anterior' at L1 for case 'case_000'"),
            (
                edited(lambda r: [dataclasses.replace(r[0], subject="x"), *r[1:]]),
                "rows must give case 'case_000' one subject, got 'x' and 'case_000'",
            ),
            (
                edited(lambda r: [*r, dataclasses.replace(r[0], point="L7")]),
                "rows must be of the points L1, L2, L3, got 'L7' for case 'case_000'",
            ),
            (
                edited(lambda r: replace_score(r, "L1", "case_002", empty("both_empty"))),
                "rows must be scored against one truth, got 'Anterior' of case 'case_002'",
            ),
            (
                edited(lambda r: replace_score(r, "L1", "case_002", ok(math.nan))),
                r"dice must be a finite number, got nan for 'Anterior' of case 'case_002' at L1 \(state 'ok'\)",
            ),
            (
                edited(lambda r: replace_score(r, "L2", "case_002", dataclasses.replace(ok(0.5), dice=None))),
                "dice must be a finite number, got None for 'Anterior' of case 'case_002' at L2",
            ),
        ],
    )
    def test_rows(self, rows: list[ScoreRow], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            decide(rows, POINTS, DICE, dataset="A", **FAST)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"points": POINTS[:1]}, "points must hold two embedded levels or more, got 1. A network with a single"),
            ({"points": (*POINTS, POINTS[0])}, "points must have unique names, got 'L1' twice"),
            ({"points": (*POINTS, OperatingPoint("other", "L1"))}, "each embedded level once, got L1, L1, L2, L3"),
            ({"points": (*POINTS, OperatingPoint("x", "deep"))}, "L1, L2 and so on, got 'deep' for point 'x'"),
            ({"margins": []}, "margins must name one metric or more, got none"),
            ({"margins": [Margin("dice", 0.1, ("Ant",))]}, "label must be one of Anterior, got 'Ant' for data set 'A'"),
            ({"margins": [Margin("dice", 0.1), Margin("dice", 0.2)]}, "margins must guard dice once, got two"),
            (
                {"margins": [Margin("dice", 0.1, ("Anterior",)), Margin("dice", 0.2, ("b", "Anterior"))]},
                "margins must guard dice of 'Anterior' once, got two",
            ),
            ({"alpha": 0.5}, "alpha must lie between 0 and 0.5, got 0.5"),
            ({"bootstrap_samples": 10}, "bootstrap_samples must be 100 or more, got 10"),
            ({"max_case_drop": {"dice": 0}}, "max_case_drop must be positive, got 0 for dice"),
            ({"max_case_drop": {"dic": 1}}, "metric must be one of dice, iou, nsd, hd95_mm, got 'dic'"),
        ],
    )
    def test_points_margins_and_options(self, given: dict[str, object], message: str) -> None:
        points, margins, *_ = ({"points": POINTS, "margins": DICE} | given).values()
        options = {name: value for name, value in given.items() if name not in ("points", "margins")}
        with pytest.raises(ValueError, match=message):
            decide(rows_of(levels(12)), points, margins, dataset="A", **{**FAST, **options})


class TestSimulatedDecisions:
    """The whole decision, on differences drawn as in STATISTICS.md."""

    REPETITIONS = 80

    def share_to_prune(self, n: int, shape: simulate.Shape, sd: float, mean: float) -> float:
        points = POINTS[1:]
        rng = np.random.default_rng(11)
        pruned = 0
        for _ in range(self.REPETITIONS):
            differences = mean + sd * shape.draw(rng, (n,))
            rows = rows_of({"L2": 0.5 + differences, "L3": [0.5] * n})
            decision = decide(rows, points, DICE, dataset="A", bootstrap_samples=300, max_case_drop={"dice": 0.2})
            pruned += decision.verdict == "prune"
        return pruned / self.REPETITIONS

    @pytest.mark.slow
    @pytest.mark.parametrize("n", [10, 30])
    @pytest.mark.parametrize(
        "shape", [simulate.MODERATE_SHAPES[0], simulate.MODERATE_SHAPES[7]], ids=["normal", "drops"]
    )
    def test_a_drop_of_the_margin_is_rarely_accepted(self, shape: simulate.Shape, n: int) -> None:
        allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / self.REPETITIONS)
        assert self.share_to_prune(n, shape, sd=0.02, mean=-0.01) <= allowed

    @pytest.mark.slow
    def test_no_difference_is_mostly_accepted(self) -> None:
        assert self.share_to_prune(27, simulate.MODERATE_SHAPES[0], sd=0.02, mean=0.0) >= 0.75
