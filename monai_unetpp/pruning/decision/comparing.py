"""Compare an operating point with a reference on one data set, metric by metric and label by label; or many points."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from monai_unetpp.errors import counted, list_values
from monai_unetpp.metrics import METRICS
from monai_unetpp.pruning.decision.samples import (
    FAIL,
    MOST_WORSE,
    OPEN,
    PASS,
    GuardSample,
    MissSample,
    PointSamples,
    count_state,
    is_excess,
    mean_state,
)
from monai_unetpp.pruning.pairing import BOTH_FALSE_POSITIVE, PairedScores, list_data_sets
from monai_unetpp.pruning.results import Comparison, PointOutcome, ScoreRow
from monai_unetpp.pruning.rules import Margin, Rules
from monai_unetpp.pruning.statistics import (
    MIN_SUBJECTS,
    FloatArray,
    MeanBounds,
    bound_alpha,
    mean_bounds,
    subject_means,
    subjects_needed,
    unseen_rate,
)
from monai_unetpp.pruning.wording import confidence, few_subjects, format_difference
from monai_unetpp.reporting.numbers import percent

DEFAULT_RULES = Rules()

State = Literal["pass", "fail", "inconclusive"]
Guard = tuple[str, str, float]
"""Metric, label and margin."""

_ORDER: tuple[State, ...] = ("fail", "inconclusive", "pass")
_FROM_STATE: dict[int, State] = {FAIL: "fail", OPEN: "inconclusive", PASS: "pass"}
_MOST_MISSED = 0.2
_FAR_ABOVE = 5.0


class LevelTest:
    """Compares any point with the reference on one data set, as one of several simultaneous comparisons."""

    def __init__(self, paired: PairedScores, reference: str, rules: Rules, simultaneous: int = 1) -> None:
        self.paired = paired
        self.reference = reference
        self.rules = rules
        self.guards = _guards(rules.margins, paired)
        self.bound_alpha = rules.alpha / simultaneous
        self.subjects = len(set(paired.subjects.values()))
        self.held = {label: text for _, label, _ in self.guards if (text := self._unfit_reference(label))}

    def samples(self, point: str) -> PointSamples:
        """Everything tested at ``point``, subject by subject."""
        guards = [
            GuardSample.of(self.paired, guard, point, self.reference, self.rules.max_case_drop.get(guard[0]))
            for guard in self.guards
        ]
        tested = tuple(guard for guard in guards if guard.subjects > 1)
        misses = tuple(MissSample.of(self.paired, label, point, self.reference) for label in self.paired.labels)
        return PointSamples(point, tested, misses, bool(self.held) or len(tested) < len(guards), frozenset(self.held))

    def compare(self, point: str) -> LevelOutcome:
        """Compare every guarded metric of every label at ``point``, and the structures that it newly misses."""
        samples = self.samples(point)
        tested = {(guard.metric, guard.label) for guard in samples.guards}
        failing = float(samples.sign_test_alpha(np.ones((1, self.subjects)), self.rules.alpha)[0])
        comparisons = [self._comparison(point, guard, samples.misses, failing) for guard in samples.guards]
        untested = [
            self._untested(point, metric, label) for metric, label, _ in self.guards if (metric, label) not in tested
        ]
        missed = [self._missed(point, miss, failing) for miss in samples.misses if miss.cases]
        judged = [*missed, *((each.state, f"{point}: {each.reason}") for each in comparisons)]
        # what fails says more than what stays open
        stopped = [text for wanted in _ORDER[:2] for state, text in judged if state == wanted]
        notes = [text for state, text in missed if state == "pass"]
        notes += [text for each in comparisons if (text := self._weak_reference(each))]
        states: set[State] = {state for state, _ in judged}
        if samples.held:
            states.add("inconclusive")
        state: State = next((each for each in _ORDER if each in states), "pass")
        return LevelOutcome(samples, comparisons, list(dict.fromkeys(stopped + untested)), notes, state)

    def _unfit_reference(self, label: str) -> str:
        """Why a label cannot be compared with the reference; empty if it can."""
        found = {
            case: score
            for case in self.paired.subjects
            if (score := self.paired.scores[self.reference, label, case]).state in ("ok", "missed")
        }
        if not found:
            return ""
        # each subject counts once, as in the means that are compared
        subjects = [self.paired.subjects[case] for case in found]
        missed = [score.state == "missed" for score in found.values()]
        if subject_means(missed, subjects).mean() > _MOST_MISSED:
            share = f"{sum(missed)} of {len(found)} cases"
            if len(set(subjects)) < len(found):
                share += f", on average {percent(subject_means(missed, subjects).mean())} of a subject's"
            return f"{self.reference} itself misses {label} in {share}"
        mean = float(subject_means([score.dice or 0.0 for score in found.values()], subjects).mean())
        if mean < self.rules.min_reference:
            return (
                f"the mean Dice of {label} at {self.reference} itself is {mean:.3f}, below {self.rules.min_reference:g}"
            )
        return ""

    def _untested(self, point: str, metric: str, label: str) -> str:
        if not self._in_cases(label):
            return f"{point}: {self._in_no_case(label)}."
        what = f"{METRICS[metric].in_words} of {label}"
        return f"{point}: {what} cannot be tested on fewer than two subjects{self._left_out(label, point)}."

    def _in_cases(self, label: str) -> bool:
        """Whether the truth of any case has the label."""
        scores = (self.paired.scores[self.reference, label, case] for case in self.paired.subjects)
        return any(score.state in ("ok", "missed") for score in scores)

    @staticmethod
    def _in_no_case(label: str) -> str:
        return (
            f"{label} is in no case, so nothing can be said about it. Add cases that have it, or name the labels to "
            "guard, as in --margin dice:LABEL=0.01"
        )

    def _left_out(self, label: str, point: str) -> str:
        """End of a sentence: how many pairs are left out because both points have a false positive."""
        count = len(self.paired.both_false_positive(label, point, self.reference))
        return f"; {counted(count, 'case')} {BOTH_FALSE_POSITIVE}" if count else ""

    def _missed(self, point: str, miss: MissSample, failing: float) -> tuple[State, str]:
        worse, better, present = int((miss.signs < 0).sum()), int((miss.signs > 0).sum()), int(miss.present.sum())
        state, found = self._judge_counts(worse, better, present, failing)
        if miss.label in self.held:
            state, found = "inconclusive", f"; {self.held[miss.label]}"
        return state, (
            f"{point}: {miss.label} is missed in {list_values(miss.cases, most=3)}, where {self.reference} finds it "
            f"({worse} of {present} subjects, {better} the other way round{found})."
        )

    def _judge_counts(self, worse: int, better: int, subjects: int, failing: float) -> tuple[State, str]:
        """The state of two counts, and the end of a sentence about them."""
        alpha = self.rules.alpha
        state = _FROM_STATE[int(count_state(worse, better, subjects, error=alpha, failing=failing))]
        if state == "fail":
            return state, ": more than chance"
        if is_excess(worse, better, alpha):
            return state, (
                f": more than chance as the only such test, but not as one of several ({percent(failing, '.2g')} each)"
            )
        return state, "" if state == "pass" else f": this does not exclude an excess of {percent(MOST_WORSE)}"

    def _weak_reference(self, comparison: Comparison) -> str:
        """A warning if the reference is far worse than a shallower level."""
        margin = comparison.margin
        clear = comparison.mean_difference >= _FAR_ABOVE * margin and comparison.lower_bound >= margin
        if not clear or not self._in_cases(comparison.label):
            return ""
        what = f"{METRICS[comparison.metric].in_words} of {comparison.label}"
        return (
            f"{comparison.point} is better than {self.reference} by {comparison.mean_difference:.3f} in {what}: the "
            "deepest level was not trained well. Check it before you prune."
        )

    def _comparison(self, point: str, guard: GuardSample, misses: Sequence[MissSample], failing: float) -> Comparison:
        metric, label, cases = guard.metric, guard.label, guard.cases
        subjects = [self.paired.subjects[case] for case in cases]
        at_point, at_reference = guard.values
        differences = at_point - at_reference
        worst_case, worst = cases[differences.argmin()], float(differences.min())
        bounds = self._bounds(guard.differences)
        state, reason = self._judge(guard, bounds, failing, worst_case, worst)
        signs = next((miss.signs for miss in misses if miss.label == label), np.zeros(0, dtype=np.int64))
        return Comparison(
            point=point,
            reference=self.reference,
            metric=metric,
            label=label,
            margin=guard.margin,
            cases=len(cases),
            clusters=guard.subjects,
            mean_reference=_plain_mean(at_reference, subjects, metric),
            mean_point=_plain_mean(at_point, subjects, metric),
            mean_difference=bounds.mean,
            sd_difference=bounds.sd,
            lower_bound=bounds.lower,
            upper_bound=bounds.upper,
            method=bounds.method,
            worst_difference=worst,
            worst_case=worst_case,
            state=state,
            subjects_needed=subjects_needed(bounds.sd, guard.margin, alpha=self.bound_alpha, error=self.rules.alpha),
            reason=f"{reason.rstrip('.')}{self._left_out(label, point)}.",
            drops=int((guard.drops < 0).sum()),
            gains=int((guard.drops > 0).sum()),
            newly_missed=int((signs < 0).sum()),
            newly_found=int((signs > 0).sum()),
        )

    def _bounds(self, means: FloatArray) -> MeanBounds:
        return mean_bounds(
            means[np.isfinite(means)],
            alpha=self.bound_alpha,
            bootstrap_samples=self.rules.bootstrap_samples,
            seed=self.rules.seed,
        )

    def _judge(
        self, guard: GuardSample, bounds: MeanBounds, failing: float, worst_case: str, worst: float
    ) -> tuple[State, str]:
        """The state of a comparison and its reason: the worst of all its tests."""
        what = f"{METRICS[guard.metric].in_words} of {guard.label}"
        judged = [self._judge_mean(what, guard, bounds, guard.subjects)]
        if guard.subjects < MIN_SUBJECTS:
            return judged[0]
        if guard.label in self.held:
            return "inconclusive", f"{what}: {self.held[guard.label]}, so it is no reference."
        judged += self._judge_found(what, guard)
        drops, gains = int((guard.drops < 0).sum()), int((guard.drops > 0).sum())
        limit = self.rules.max_case_drop.get(guard.metric, math.nan)
        state, told = self._judge_counts(drops, gains, guard.subjects, failing)
        large = (
            f"{what} falls by more than {limit:g} in {drops} of {guard.subjects} subjects (most in {worst_case}, by "
            f"{-worst:.4f}) and rises by as much in {gains}{told}."
        )
        return min([*judged, (state, large)], key=lambda each: _ORDER.index(each[0]))

    def _judge_found(self, what: str, guard: GuardSample) -> list[tuple[State, str]]:
        """The state of the cases where both find the label, unless these are all."""
        if guard.found is None:
            return []
        if not self._in_cases(guard.label):
            return [("inconclusive", f"{what}: {self._in_no_case(guard.label)}.")]
        seen = int(np.isfinite(guard.found).sum())
        if seen < 2:
            return [("inconclusive", f"{what}: both find it in fewer than two subjects.")]
        return [self._judge_mean(f"{what}, where both find it,", guard, self._bounds(guard.found), seen)]

    def _judge_mean(self, what: str, guard: GuardSample, bounds: MeanBounds, n: int) -> tuple[State, str]:
        margin, alpha = guard.margin, self.rules.alpha
        mean, lower, upper = (
            format_difference(guard.metric, each) for each in (bounds.mean, bounds.lower, bounds.upper)
        )
        interval = (
            f"mean difference {mean}, one-sided {confidence(bound_alpha(n, self.bound_alpha))} bounds {lower} and "
            f"{upper}, margin {margin:g}"
        )
        if n < MIN_SUBJECTS:
            return "inconclusive", f"{what}: {few_subjects(n)} ({interval})."
        found = int(mean_state(bounds.lower, bounds.upper, bounds.mean, subjects=n, margin=margin, error=alpha))
        if found == FAIL:
            return "fail", f"{what} is worse by more than the margin ({interval})."
        if found == PASS:
            return "pass", f"{what} is not worse by more than the margin ({interval})."
        if bounds.lower > -margin:
            return "inconclusive", (
                f"{what}: {n} subjects cannot exclude large drops in up to {percent(unseen_rate(n, alpha), '.1f')} of "
                f"subjects, and the mean leaves too little room for them ({interval})."
            )
        return "inconclusive", f"{what}: the loss may or may not exceed the margin ({interval})."


@dataclasses.dataclass(frozen=True)
class LevelOutcome:
    """How one operating point compares with the deepest level: what did not pass, other notes, and the worst state."""

    samples: PointSamples
    comparisons: list[Comparison]
    sentences: list[str]
    notes: list[str]
    state: State

    @property
    def point(self) -> str:
        """Name of the operating point."""
        return self.samples.point


def compare_points(
    rows: Sequence[ScoreRow],
    points: Sequence[str],
    reference: str,
    rules: Rules = DEFAULT_RULES,
) -> tuple[PointOutcome, ...]:
    """Compare many operating points with one, by the rule of :func:`decide` corrected for their number.

    These points have no natural order, so they are tested by Holm's procedure: with ``m`` points left, those whose
    bounds at ``alpha / m`` pass are accepted, until none passes. If the bounds hold, the chance of accepting any point
    that is worse by the margin stays at ``alpha``. Only the bounds are corrected; the limit on single cases and the
    room for unseen drops are those of :func:`decide`. With several data sets, a point must pass on each, which needs
    no further correction.

    Args:
        rows: scores of all points on one or more data sets.
        points: names of the points.
        reference: name of the point to compare with.
        rules: as in :func:`decide`, with the error level for all points together.

    Returns:
        By data set, the outcomes of all points but the reference, in the order given.

    Raises:
        ValueError: ``reference`` is not among the points, or anything that :func:`decide` refuses.

    See:
        Holm 1979, https://www.jstor.org/stable/4615733.
    """
    if reference not in points:
        raise ValueError(f"reference must be one of {', '.join(points)}, got {reference!r}.")
    datasets = list_data_sets(rows)
    paired = {dataset: PairedScores.from_rows(rows, points, dataset) for dataset in datasets}
    others = [point for point in points if point != reference]
    left = list(others)
    outcomes: dict[tuple[str, str], PointOutcome] = {}
    while left:
        tests = {dataset: LevelTest(each, reference, rules, len(left)) for dataset, each in paired.items()}
        outcomes |= {(dataset, point): _outcome(test, point) for dataset, test in tests.items() for point in left}
        failing = [point for point in left if any(outcomes[dataset, point].state != "pass" for dataset in datasets)]
        if len(failing) == len(left):
            break
        left = failing
    return tuple(outcomes[dataset, point] for dataset in datasets for point in others)


def passing_points(outcomes: Sequence[PointOutcome]) -> list[str]:
    """Names of the points that pass on every data set."""
    stopped = {each.point for each in outcomes if each.state != "pass"}
    return [point for point in dict.fromkeys(each.point for each in outcomes) if point not in stopped]


def _outcome(test: LevelTest, point: str) -> PointOutcome:
    level = test.compare(point)
    few = test.subjects < MIN_SUBJECTS
    reasons = list(level.sentences)
    if few:
        reasons.insert(0, f"{few_subjects(test.subjects)}.")
    return PointOutcome(
        point=point,
        dataset=test.paired.dataset,
        state="inconclusive" if few else level.state,
        alpha=test.bound_alpha,
        comparisons=tuple(level.comparisons),
        reasons=tuple(reasons),
    )


def _plain_mean(goodness: FloatArray, subjects: Sequence[str], metric: str) -> float:
    """Mean over subjects of the metric with its original sign."""
    mean = float(subject_means(goodness, subjects).mean())
    # 0 has no sign
    return 0.0 - mean if metric == "hd95_mm" else mean


def _guards(margins: Sequence[Margin], paired: PairedScores) -> list[Guard]:
    """Metric, label and margin of everything guarded; a margin with labels takes precedence over one without."""
    guards: dict[tuple[str, str], float] = {}
    for margin in sorted(margins, key=lambda each: each.labels is not None):
        for label in paired.labels if margin.labels is None else margin.labels:
            guards[margin.metric, paired.check_label(label)] = margin.value
    return [(metric, label, value) for (metric, label), value in guards.items()]
