"""One operating point against the deepest level on one data set, metric by metric and label by label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from monai_unetpp.metrics import METRICS
from monai_unetpp.pruning.pairing import BOTH_FALSE_POSITIVE, PairedScores
from monai_unetpp.pruning.results import Comparison
from monai_unetpp.pruning.rules import Margin, Rules
from monai_unetpp.pruning.statistics import (
    MIN_SUBJECTS,
    MeanBounds,
    bound_alpha,
    is_non_inferior,
    mean_bounds,
    subject_means,
    subjects_needed,
    unseen_rate,
)

__all__ = ["DEFAULT_RULES", "Guard", "LevelOutcome", "LevelTest", "State", "percent"]

DEFAULT_RULES = Rules()
"""The default rules."""

State = Literal["pass", "fail", "inconclusive"]
Guard = tuple[str, str, float]
"""Metric, label and margin."""

_ROUNDING = 1e-9


class LevelTest:
    """The test of one data set: compares any point with the reference, one of so many comparisons at once."""

    def __init__(self, paired: PairedScores, reference: str, rules: Rules, simultaneous: int = 1) -> None:
        self.paired = paired
        self.reference = reference
        self.rules = rules
        self.guards = _guards(rules.margins, paired)
        self.bound_alpha = rules.alpha / simultaneous
        self.subjects = len(set(paired.subjects.values()))

    def compare(self, point: str) -> LevelOutcome:
        """Every guarded metric of every label at ``point``, and the structures that it newly misses."""
        comparisons: list[Comparison] = []
        untested: list[str] = []
        for metric, label, margin in self.guards:
            cases = self.paired.comparable_cases(label, point, self.reference)
            if len({self.paired.subjects[case] for case in cases}) < 2:
                untested.append(
                    f"{point}: {METRICS[metric].in_words} of {label} cannot be tested: {len(cases)} case(s) have the "
                    f"structure{self._left_out(label, point)}."
                )
                continue
            comparisons.append(self._comparison(point, metric, label, margin, cases))
        missed = [
            f"{point}: {label} is missed in {_listed(cases)}, where {self.reference} finds it."
            for label in self.paired.labels
            if (cases := self.paired.newly_missed(point, self.reference, label))
        ]
        stopped = [f"{point}: {each.reason}" for each in comparisons if each.state != "pass"]
        return LevelOutcome(
            point, comparisons, missed + stopped + untested, failed=bool(missed), untested=bool(untested)
        )

    def _left_out(self, label: str, point: str) -> str:
        """How many pairs are left out because both points are false positives, for the end of a sentence."""
        count = len(self.paired.both_false_positive(label, point, self.reference))
        return f"; {count} {BOTH_FALSE_POSITIVE}" if count else ""

    def _comparison(self, point: str, metric: str, label: str, margin: float, cases: tuple[str, ...]) -> Comparison:
        subjects = [self.paired.subjects[case] for case in cases]
        at_point = [self.paired.goodness(point, label, case, metric) for case in cases]
        at_reference = [self.paired.goodness(self.reference, label, case, metric) for case in cases]
        differences = [a - b for a, b in zip(at_point, at_reference, strict=True)]
        means = subject_means(differences, subjects)
        bounds = mean_bounds(
            means, alpha=self.bound_alpha, bootstrap_samples=self.rules.bootstrap_samples, seed=self.rules.seed
        )
        worst = int(np.argmin(differences))
        needed = subjects_needed(bounds.sd, margin, alpha=self.bound_alpha)
        state, reason = self._judge(metric, label, margin, bounds, len(means), cases[worst], differences[worst])
        return Comparison(
            point=point,
            reference=self.reference,
            metric=metric,
            label=label,
            margin=margin,
            cases=len(cases),
            clusters=len(means),
            mean_reference=_plain_mean(at_reference, subjects, metric),
            mean_point=_plain_mean(at_point, subjects, metric),
            mean_difference=bounds.mean,
            sd_difference=bounds.sd,
            lower_bound=bounds.lower,
            upper_bound=bounds.upper,
            method=bounds.method,
            worst_difference=differences[worst],
            worst_case=cases[worst],
            state=state,
            subjects_needed=needed,
            reason=f"{reason.rstrip('.')}{self._left_out(label, point)}.",
        )

    def _judge(
        self, metric: str, label: str, margin: float, bounds: MeanBounds, n: int, worst_case: str, worst: float
    ) -> tuple[State, str]:
        what = f"{METRICS[metric].in_words} of {label}"
        interval = (
            f"mean difference {bounds.mean:+.4f}, one-sided {percent(1 - bound_alpha(n, self.bound_alpha))} bounds "
            f"{bounds.lower:+.4f} and {bounds.upper:+.4f}, margin {margin:g}"
        )
        limit = self.rules.max_case_drop.get(metric)
        if n < MIN_SUBJECTS:
            return "inconclusive", f"{what}: {n} subjects are fewer than {MIN_SUBJECTS} ({interval})."
        if limit is not None and worst < -limit - _ROUNDING:
            return "fail", f"{what} falls by {-worst:.4f} in {worst_case}, more than the {limit:g} that one case may."
        if bounds.upper < -margin:
            return "fail", f"{what} is worse by more than the margin ({interval})."
        if is_non_inferior(bounds.lower, bounds.mean, subjects=n, margin=margin, alpha=self.rules.alpha):
            return "pass", f"{what} is not worse by more than the margin ({interval})."
        if bounds.lower > -margin:
            return "inconclusive", (
                f"{what}: {n} subjects cannot exclude drops in up to {percent(unseen_rate(n, self.rules.alpha))} of "
                f"subjects, and the mean leaves too little room for them ({interval})."
            )
        return "inconclusive", f"{what}: the loss may or may not exceed the margin ({interval})."


class LevelOutcome:
    """How one operating point compares with the deepest level."""

    def __init__(
        self, point: str, comparisons: list[Comparison], sentences: list[str], failed: bool, untested: bool
    ) -> None:
        self.point = point
        self.comparisons = comparisons
        self.sentences = sentences
        self.untested = untested
        states = {comparison.state for comparison in comparisons}
        self.state: State = "pass"
        if failed or "fail" in states:
            self.state = "fail"
        elif untested or "inconclusive" in states:
            self.state = "inconclusive"


def _plain_mean(goodness: Sequence[float], subjects: Sequence[str], metric: str) -> float:
    """Mean over subjects of the metric itself, its sign given back."""
    mean = float(subject_means(goodness, subjects).mean())
    return -mean if metric == "hd95_mm" else mean


def _guards(margins: Sequence[Margin], paired: PairedScores) -> list[Guard]:
    """Metric, label and margin of everything guarded; a margin with labels takes precedence over one without."""
    named: dict[tuple[str, str], float] = {}
    general: dict[tuple[str, str], float] = {}
    for margin in margins:
        guards = general if margin.labels is None else named
        for label in paired.labels if margin.labels is None else margin.labels:
            key = (margin.metric, paired.check_label(label))
            if key in guards:
                raise ValueError(f"margins must guard {margin.metric} of {label!r} once, got two margins.")
            guards[key] = margin.value
    return [(metric, label, value) for (metric, label), value in {**general, **named}.items()]


def percent(share: float) -> str:
    """A share for a sentence, such as ``"95 %"``."""
    return f"{100 * share:.4g} %"


def _listed(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
