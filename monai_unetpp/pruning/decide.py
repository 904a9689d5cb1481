"""The decision how shallow is good enough: non-inferiority with margins fixed in advance."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from monai_unetpp.metrics import METRICS
from monai_unetpp.pruning.pairing import BOTH_INVENT, PairedScores, check_metric
from monai_unetpp.pruning.results import (
    Comparison,
    Decision,
    Margin,
    OperatingPoint,
    PointOutcome,
    ScoreRow,
    Verdict,
)
from monai_unetpp.pruning.statistics import (
    MIN_SUBJECTS,
    MeanBounds,
    bound_alpha,
    check_alpha,
    is_non_inferior,
    mean_bounds,
    subject_means,
    subjects_needed,
    unseen_rate,
)

__all__ = [
    "DEFAULT_MARGINS",
    "DEFAULT_MAX_CASE_DROP",
    "compare_points",
    "confirm",
    "decide",
    "decide_all",
    "parse_case_drop",
    "parse_margin",
    "split_cases",
    "split_rows",
]

DEFAULT_MARGINS: tuple[Margin, ...] = tuple(
    Margin(metric.key, metric.margin) for metric in METRICS.values() if metric.margin is not None
)
"""What is guarded where nothing else is said: every label's Dice and normalised surface Dice."""

DEFAULT_MAX_CASE_DROP: Mapping[str, float] = {
    metric.key: metric.case_drop for metric in METRICS.values() if metric.case_drop is not None
}
"""The worst drop of a single case, twenty times the default margins."""

_ROUNDING = 1e-9

State = Literal["pass", "fail", "inconclusive"]
Role = Literal["choose", "confirm", "choose and report"]
_Guard = tuple[str, str, float]


def decide(
    rows: Sequence[ScoreRow],
    points: Sequence[OperatingPoint],
    margins: Sequence[Margin] = DEFAULT_MARGINS,
    *,
    dataset: str,
    alpha: float = 0.05,
    max_case_drop: Mapping[str, float] = DEFAULT_MAX_CASE_DROP,
    bootstrap_samples: int = 9999,
    seed: int = 0,
    role: Literal["choose", "choose and report"] = "choose and report",
) -> Decision:
    """How shallow one may go on one data set.

    Levels are tested in a fixed order from deep to shallow, and the first that does not pass ends the test, so no
    correction for multiple levels is needed. The verdict is *prune* to the last level that passed. If the very first
    fails clearly it is *keep*; if it neither passes nor fails clearly, or if there are fewer than ten subjects, it is
    *inconclusive*. Comparisons are made for all levels and extra points: those beyond the stop carry their own state,
    but are descriptive only and never change the verdict.

    A level passes if every guarded metric of every guarded label passes and no label that the deepest level found is
    missed altogether in any case. A metric of a label

    * *passes* if the lower confidence bound of the mean paired difference lies above ``-margin``, the mean leaves room
      for rare drops that so many subjects may not show (:func:`~monai_unetpp.pruning.statistics.least_mean`), and no
      single case drops by more than its limit;
    * *fails* if the upper bound lies below ``-margin``, or a single case drops by more than its limit;
    * is *inconclusive* otherwise.

    Differences are averaged within each subject first, and every subject weighs the same. Pairs in which truth and
    both predictions are empty are left out, and so are those in which both points invent a structure that the truth
    lacks (the reason of the comparison counts them): neither can show a loss. Where only one of the two points invents
    a structure, the other counts as perfect, so that a new false positive is a drop of 1 in Dice. HD95 is reversed, so
    that negative is always worse.

    Args:
        rows: scores of all points, possibly of further data sets, which are ignored.
        points: operating points; the embedded ones are the levels of the network, of which the deepest is the
            reference.
        margins: what to guard; a margin with labels goes before one without.
        dataset: name of the data set.
        alpha: one-sided error level, above 0 and below 0.5.
        max_case_drop: the worst allowed drop of a single case by metric, for the guarded labels of guarded metrics;
            a metric that is not named has no limit.
        bootstrap_samples: number of resamples.
        seed: of the resampling. The same arguments always give the same decision.
        role: what the cases are used for; the figures are optimistic either way, see :func:`confirm`.

    Raises:
        ValueError: fewer than two levels, bad margins or limits, or rows that are not pairs; see
            :meth:`~monai_unetpp.pruning.pairing.PairedScores.from_rows`.

    See:
        Ahn et al. 2013, doi 10.1148/radiol.12120725, for margins and bounds; ``STATISTICS.md`` beside this file for
        how often the rule accepts what it should not.
    """
    if role not in ("choose", "choose and report"):
        raise ValueError(f"role must be 'choose' or 'choose and report', got {role!r}. Use confirm() to confirm.")
    levels = _levels(points)
    paired = _paired(rows, points, dataset)
    test = _Test(paired, levels[-1].name, margins, alpha, max_case_drop, bootstrap_samples, seed)
    extra = [point for point in points if point.kind == "extra"]
    tested = [test.compare(point.name) for point in reversed(levels[:-1])]
    described = [test.compare(point.name) for point in reversed(_by_depth(extra))]
    return _verdict(test, levels, tested, described, role)


def confirm(
    decision: Decision,
    confirm_rows: Sequence[ScoreRow],
    points: Sequence[OperatingPoint],
    margins: Sequence[Margin] = DEFAULT_MARGINS,
    *,
    dataset: str | None = None,
    alpha: float = 0.05,
    max_case_drop: Mapping[str, float] = DEFAULT_MAX_CASE_DROP,
    bootstrap_samples: int = 9999,
    seed: int = 0,
) -> Decision:
    """Test the chosen level, and no other, on cases that had no part in choosing it.

    Its figures are not optimistic. If the level passes, the verdict is *prune*; if it fails clearly, *keep*; otherwise
    *inconclusive*. No other level is tried, as that would be choosing again.

    Args:
        decision: what the choosing cases gave; its verdict must be to prune.
        confirm_rows: scores of other subjects. Whether they are others is for the caller to ensure, for example with
            :func:`split_rows`.
        points: as in :func:`decide`.
        margins: as in :func:`decide`, the same as for choosing.
        dataset: name of the confirming data set; by default the only one in ``confirm_rows``.
        alpha: as in :func:`decide`.
        max_case_drop: as in :func:`decide`.
        bootstrap_samples: as in :func:`decide`.
        seed: as in :func:`decide`.

    Raises:
        ValueError: a decision that is not to prune, or anything that :func:`decide` refuses.
    """
    if decision.verdict != "prune":
        raise ValueError(
            f"decision must be to prune, got {decision.verdict!r} for {decision.dataset!r}. "
            "There is nothing to confirm."
        )
    if dataset is None:
        names = list(dict.fromkeys(row.dataset for row in confirm_rows))
        if len(names) != 1:
            raise ValueError(f"confirm_rows must be of one data set, got {names}. Name it as dataset.")
        dataset = names[0]
    levels = _levels(points)
    chosen = [point for point in levels[:-1] if point.level == decision.level]
    if not chosen:
        raise ValueError(
            f"decision must be for one of the levels {', '.join(point.level for point in levels[:-1])}, "
            f"got {decision.level!r}."
        )
    paired = _paired(confirm_rows, points, dataset)
    test = _Test(paired, levels[-1].name, margins, alpha, max_case_drop, bootstrap_samples, seed)
    return _verdict(test, [*chosen, levels[-1]], [test.compare(chosen[0].name)], [], "confirm")


def decide_all(
    rows: Sequence[ScoreRow],
    points: Sequence[OperatingPoint],
    margins: Sequence[Margin] = DEFAULT_MARGINS,
    *,
    alpha: float = 0.05,
    max_case_drop: Mapping[str, float] = DEFAULT_MAX_CASE_DROP,
    bootstrap_samples: int = 9999,
    seed: int = 0,
    role: Literal["choose", "choose and report"] = "choose and report",
) -> tuple[Decision, ...]:
    """A decision for each data set in ``rows``, and for several one more, named ``"all"``.

    A level is acceptable for all only if it is on every data set, so the joint level is the deepest of the single
    ones, and each of these must be to prune. All data sets must agree, which needs no correction for their number.
    The joint decision has no comparisons of its own; its blockers name the data set that stopped it.

    Args:
        rows: scores of all data sets.
        points: as in :func:`decide`, the same for every data set.
        margins: as in :func:`decide`.
        alpha: as in :func:`decide`.
        max_case_drop: as in :func:`decide`.
        bootstrap_samples: as in :func:`decide`.
        seed: as in :func:`decide`.
        role: as in :func:`decide`.

    Raises:
        ValueError: no rows, a data set called ``"all"`` beside others, or anything that :func:`decide` refuses.
    """
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    if not datasets:
        raise ValueError("rows must hold scores, got none.")
    if len(datasets) > 1 and "all" in datasets:
        raise ValueError("dataset must not be called 'all' where there are several. Rename it.")
    decisions = [
        decide(
            rows,
            points,
            margins,
            dataset=dataset,
            alpha=alpha,
            max_case_drop=max_case_drop,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
            role=role,
        )
        for dataset in datasets
    ]
    if len(decisions) > 1:
        decisions.append(_joint(decisions, [point.level for point in _levels(points)], role))
    return tuple(decisions)


def compare_points(
    rows: Sequence[ScoreRow],
    points: Sequence[str],
    reference: str,
    margins: Sequence[Margin] = DEFAULT_MARGINS,
    *,
    alpha: float = 0.05,
    max_case_drop: Mapping[str, float] = DEFAULT_MAX_CASE_DROP,
    bootstrap_samples: int = 9999,
    seed: int = 0,
) -> tuple[PointOutcome, ...]:
    """Compare many operating points with one, by the rule of :func:`decide` corrected for their number.

    These points have no natural order, so they are tested by Holm's procedure: with ``m`` points left, those whose
    bounds at ``alpha / m`` pass are set aside, until none does. The chance that any point is accepted which is worse by
    the margin stays at ``alpha``, as far as the bounds hold. Only the bounds are corrected; the limit of a single case
    and the room for unseen drops are those of :func:`decide`. On several data sets a point must pass on each, which
    needs no further correction.

    Args:
        rows: scores of all points on one data set or several.
        points: names of the points.
        reference: name of the one that the others are compared with.
        margins: as in :func:`decide`.
        alpha: as in :func:`decide`, for all points together.
        max_case_drop: as in :func:`decide`.
        bootstrap_samples: as in :func:`decide`.
        seed: as in :func:`decide`.

    Returns:
        Outcomes by data set, of all points but the reference, in the order given.

    Raises:
        ValueError: a reference that is not among the points, or anything that :func:`decide` refuses.

    See:
        Holm 1979, https://www.jstor.org/stable/4615733.
    """
    if reference not in points:
        raise ValueError(f"reference must be one of {', '.join(points)}, got {reference!r}.")
    check_alpha(alpha)
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    if not datasets:
        raise ValueError("rows must hold scores, got none.")
    paired = {dataset: PairedScores.from_rows(rows, points, dataset) for dataset in datasets}
    others = [point for point in points if point != reference]
    left = list(others)
    found: dict[tuple[str, str], PointOutcome] = {}
    while left:
        tests = {
            dataset: _Test(each, reference, margins, alpha, max_case_drop, bootstrap_samples, seed, len(left))
            for dataset, each in paired.items()
        }
        found |= {(dataset, point): _outcome(test, point) for dataset, test in tests.items() for point in left}
        failing = [point for point in left if any(found[dataset, point].state != "pass" for dataset in datasets)]
        if len(failing) == len(left):
            break
        left = failing
    return tuple(found[dataset, point] for dataset in datasets for point in others)


def _outcome(test: _Test, point: str) -> PointOutcome:
    level = test.compare(point)
    few = test.subjects < MIN_SUBJECTS
    reasons = list(level.sentences)
    if few:
        reasons.insert(0, f"{test.subjects} subjects are fewer than the {MIN_SUBJECTS} that any verdict needs.")
    return PointOutcome(
        point=point,
        dataset=test.paired.dataset,
        state="inconclusive" if few else level.state,
        alpha=test.bound_alpha,
        comparisons=tuple(level.comparisons),
        reasons=tuple(reasons),
    )


def parse_margin(text: str) -> Margin:
    """A margin as the command line takes it.

    Args:
        text: ``"dice=0.01"`` for every label, ``"dice:Anterior=0.02"`` or ``"dice:Anterior,Posterior=0.02"`` for some.

    Raises:
        ValueError: another form, an unknown metric, or a value that is not a positive number.

    Example:
        >>> parse_margin("nsd:Anterior=0.02")
        Margin(metric='nsd', value=0.02, labels=('Anterior',))
    """
    name, value = _name_and_value(text, "margin", "dice=0.01 or dice:Anterior=0.02")
    metric, colon, names = name.partition(":")
    labels = tuple(label.strip() for label in names.split(",")) if colon else None
    if labels is not None and not all(labels):
        raise ValueError(f"margin must name labels after the colon, got {text!r}. Write it like dice:Anterior=0.02.")
    margin = Margin(metric.strip(), value, labels)
    _check_margin(margin)
    return margin


def parse_case_drop(text: str) -> tuple[str, float]:
    """A limit on the drop of a single case as the command line takes it: ``"dice=0.1"``.

    Raises:
        ValueError: another form, an unknown metric, or a value that is not a positive number.
    """
    metric, value = _name_and_value(text, "max_case_drop", "dice=0.1")
    _check_case_drops({metric: value})
    return metric, value


def split_cases(cases: Mapping[str, str], share: float = 0.5, seed: int = 0) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split cases into those that choose the level and those that confirm it, by subject.

    Args:
        cases: subject of each case.
        share: share of the subjects that choose, above 0 and below 1.
        seed: the same subjects, share and seed always give the same split, in whatever order they come.

    Returns:
        Names of the choosing and of the confirming cases, sorted.

    Raises:
        ValueError: a share out of its range or fewer than two subjects.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}. 0.5 is a good split.")
    subjects = sorted(set(cases.values()))
    if len(subjects) < 2:
        raise ValueError(f"cases must be of two subjects or more to be split, got {len(subjects)}. Add cases.")
    count = min(max(round(len(subjects) * share), 1), len(subjects) - 1)
    order = np.random.default_rng(seed).permutation(len(subjects))
    choosing = {subjects[index] for index in order[:count]}
    return (
        tuple(sorted(case for case, subject in cases.items() if subject in choosing)),
        tuple(sorted(case for case, subject in cases.items() if subject not in choosing)),
    )


def split_rows(
    rows: Sequence[ScoreRow], share: float = 0.5, seed: int = 0
) -> tuple[tuple[ScoreRow, ...], tuple[ScoreRow, ...]]:
    """Split scores into a choosing and a confirming part, each data set by :func:`split_cases`.

    Raises:
        ValueError: as :func:`split_cases`.
    """
    cases: dict[str, dict[str, str]] = {}
    for row in rows:
        cases.setdefault(row.dataset, {})[row.case] = row.subject
    choosing = {
        (dataset, case) for dataset, subjects in cases.items() for case in split_cases(subjects, share, seed)[0]
    }
    return (
        tuple(row for row in rows if (row.dataset, row.case) in choosing),
        tuple(row for row in rows if (row.dataset, row.case) not in choosing),
    )


def _name_and_value(text: str, argument: str, example: str) -> tuple[str, float]:
    name, equals, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not equals or not name or not math.isfinite(value):
        raise ValueError(f"{argument} must be a name, '=' and a number, got {text!r}. Write it like {example}.")
    return name.strip(), value


def _check_margin(margin: Margin) -> None:
    check_metric(margin.metric)
    if not (math.isfinite(margin.value) and margin.value > 0):
        raise ValueError(
            f"margin must be positive, got {margin.value} for {margin.metric}. It is the largest mean loss to accept."
        )
    if margin.labels is not None and (not margin.labels or isinstance(margin.labels, str)):
        raise ValueError(f"labels must be names of labels or None for all, got {margin.labels!r}.")


def _check_case_drops(max_case_drop: Mapping[str, float]) -> None:
    for metric, limit in max_case_drop.items():
        check_metric(metric)
        if not limit > 0:
            raise ValueError(f"max_case_drop must be positive, got {limit} for {metric}. Leave it out for no limit.")


def _by_depth(points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    for point in points:
        if not re.fullmatch(r"L[1-9][0-9]*", point.level):
            raise ValueError(f"level must be L1, L2 and so on, got {point.level!r} for point {point.name!r}.")
    return sorted(points, key=lambda point: int(point.level[1:]))


def _levels(points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    """The embedded points, shallowest first."""
    names = [point.name for point in points]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"points must have unique names, got {repeated!r} twice.")
    levels = _by_depth([point for point in points if point.kind == "embedded"])
    if len({point.level for point in levels}) < len(levels):
        raise ValueError(
            f"points must hold each embedded level once, got {', '.join(point.level for point in levels)}."
        )
    if len(levels) < 2:
        raise ValueError(
            f"points must hold two embedded levels or more, got {len(levels)}. "
            "A network with a single level cannot be pruned."
        )
    return levels


def _paired(rows: Sequence[ScoreRow], points: Sequence[OperatingPoint], dataset: str) -> PairedScores:
    return PairedScores.from_rows(rows, [point.name for point in points], dataset)


def _guards(margins: Sequence[Margin], paired: PairedScores) -> list[_Guard]:
    """Metric, label and margin of everything guarded; a margin with labels goes before one without."""
    if not margins:
        raise ValueError("margins must name one metric or more, got none. DEFAULT_MARGINS guards Dice and NSD.")
    named: dict[tuple[str, str], float] = {}
    general: dict[tuple[str, str], float] = {}
    for margin in margins:
        _check_margin(margin)
        found = general if margin.labels is None else named
        for label in paired.labels if margin.labels is None else margin.labels:
            key = (margin.metric, paired.check_label(label))
            if key in found:
                raise ValueError(f"margins must guard {margin.metric} of {label!r} once, got two margins.")
            found[key] = margin.value
    return [(metric, label, value) for (metric, label), value in {**general, **named}.items()]


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _listed(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


class _Level:
    """What was found about one operating point against the deepest level."""

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


class _Test:
    """The test of one data set: compares any point with the reference, one of so many comparisons at once."""

    def __init__(
        self,
        paired: PairedScores,
        reference: str,
        margins: Sequence[Margin],
        alpha: float,
        max_case_drop: Mapping[str, float],
        bootstrap_samples: int,
        seed: int,
        simultaneous: int = 1,
    ) -> None:
        _check_case_drops(max_case_drop)
        self.paired = paired
        self.reference = reference
        self.guards = _guards(margins, paired)
        self.alpha = check_alpha(alpha)
        self.bound_alpha = alpha / simultaneous
        self.max_case_drop = max_case_drop
        self.bootstrap_samples = bootstrap_samples
        self.seed = seed
        self.subjects = len(set(paired.subjects.values()))

    def compare(self, point: str) -> _Level:
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
        stopped = [f"{point}: {found.reason}" for found in comparisons if found.state != "pass"]
        return _Level(point, comparisons, missed + stopped + untested, failed=bool(missed), untested=bool(untested))

    def _left_out(self, label: str, point: str) -> str:
        """How many pairs are no pairs because both points invent the structure, for the end of a sentence."""
        count = len(self.paired.both_invent(label, point, self.reference))
        return f"; {count} {BOTH_INVENT}" if count else ""

    def _comparison(self, point: str, metric: str, label: str, margin: float, cases: tuple[str, ...]) -> Comparison:
        subjects = [self.paired.subjects[case] for case in cases]
        at_point = [self.paired.goodness(point, label, case, metric) for case in cases]
        at_reference = [self.paired.goodness(self.reference, label, case, metric) for case in cases]
        differences = [a - b for a, b in zip(at_point, at_reference, strict=True)]
        means = subject_means(differences, subjects)
        bounds = mean_bounds(means, alpha=self.bound_alpha, bootstrap_samples=self.bootstrap_samples, seed=self.seed)
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
            cases_needed=needed,
            reason=f"{reason.rstrip('.')}{self._left_out(label, point)}.",
        )

    def _judge(
        self, metric: str, label: str, margin: float, bounds: MeanBounds, n: int, worst_case: str, worst: float
    ) -> tuple[State, str]:
        what = f"{METRICS[metric].in_words} of {label}"
        interval = (
            f"mean difference {bounds.mean:+.4f}, one-sided {_percent(1 - bound_alpha(n, self.bound_alpha))} bounds "
            f"{bounds.lower:+.4f} and {bounds.upper:+.4f}, margin {margin:g}"
        )
        limit = self.max_case_drop.get(metric)
        if n < MIN_SUBJECTS:
            return "inconclusive", f"{what}: {n} subjects are fewer than {MIN_SUBJECTS} ({interval})."
        if limit is not None and worst < -limit - _ROUNDING:
            return "fail", f"{what} falls by {-worst:.4f} in {worst_case}, more than the {limit:g} that one case may."
        if bounds.upper < -margin:
            return "fail", f"{what} is worse by more than the margin ({interval})."
        if is_non_inferior(bounds.lower, bounds.mean, subjects=n, margin=margin, alpha=self.alpha):
            return "pass", f"{what} is not worse by more than the margin ({interval})."
        if bounds.lower > -margin:
            return "inconclusive", (
                f"{what}: {n} subjects cannot exclude drops in up to {_percent(unseen_rate(n, self.alpha))} of "
                f"subjects, and the mean leaves too little room for them ({interval})."
            )
        return "inconclusive", f"{what}: the loss may or may not exceed the margin ({interval})."


def _plain_mean(goodness: Sequence[float], subjects: Sequence[str], metric: str) -> float:
    """Mean over subjects of the metric itself, its sign given back."""
    mean = float(subject_means(goodness, subjects).mean())
    return -mean if metric == "hd95_mm" else mean


def _verdict(
    test: _Test, levels: list[OperatingPoint], tested: list[_Level], described: list[_Level], role: Role
) -> Decision:
    deepest = levels[-1]
    by_name = {point.name: point.level for point in levels}
    enough = test.subjects >= MIN_SUBJECTS
    passed: list[_Level] = []
    stop: _Level | None = None
    for level in tested:
        if not enough or level.state != "pass":
            stop = level
            break
        passed.append(level)
    verdict: Verdict
    if passed:
        verdict = "prune"
    elif enough and stop is not None and stop.state == "fail":
        verdict = "keep"
    else:
        verdict = "inconclusive"
    needed, supposing = _needed(test, stop) if verdict == "inconclusive" and stop is not None else (None, "")
    blockers = list(stop.sentences) if stop is not None else []
    if not enough:
        blockers.insert(0, f"{test.subjects} subjects are fewer than the {MIN_SUBJECTS} that any verdict needs.")
    chosen = by_name[passed[-1].point] if passed else deepest.level
    return Decision(
        dataset=test.paired.dataset,
        verdict=verdict,
        level=chosen,
        role=role,
        cases=len(test.paired.subjects),
        subjects=test.subjects,
        comparisons=tuple(c for found in [*tested, *described] for c in found.comparisons),
        blockers=tuple(blockers),
        cases_needed=needed,
        optimistic=role != "confirm",
        summary=_summary(test, verdict, chosen, deepest, tested[0], stop, needed, supposing, role),
    )


def _needed(test: _Test, stop: _Level) -> tuple[int | None, str]:
    """Subjects that would settle what stopped the test, and what that supposes; None where there is no number.

    Where there are already as many as no true difference would need, the observed difference is supposed to be true.
    A comparison counts the subjects with its label; where not every subject has it, so many more are needed in all.
    """
    numbers: list[int] = [MIN_SUBJECTS]
    supposing = "there is no true difference"
    if stop.untested:
        return None, supposing
    for found in stop.comparisons:
        if test.subjects >= MIN_SUBJECTS and found.state != "inconclusive":
            continue
        needed = found.cases_needed
        if needed is not None and needed <= found.clusters:
            supposing = "the true difference is the observed one"
            needed = subjects_needed(
                found.sd_difference, found.margin, alpha=test.alpha, mean=min(found.mean_difference, 0.0)
            )
        if needed is None:
            return None, supposing
        numbers.append(math.ceil(needed * test.subjects / found.clusters))
    most = max(numbers)
    return (most if most > test.subjects else None), supposing


def _counted(test: _Test) -> str:
    cases = len(test.paired.subjects)
    return f"{cases} cases" if cases == test.subjects else f"{cases} cases of {test.subjects} subjects"


def _margins_text(guards: Sequence[_Guard]) -> str:
    texts = [f"{METRICS[metric].in_words} {label} {margin:g}" for metric, label, margin in guards]
    shared = {(metric, margin) for metric, _, margin in guards}
    if len(shared) == len({metric for metric, _, _ in guards}):
        texts = [
            f"{METRICS[metric].in_words} {margin:g}" for metric, margin in dict.fromkeys((m, v) for m, _, v in guards)
        ]
    return ", ".join(texts)


def _summary(
    test: _Test,
    verdict: Verdict,
    level: str,
    deepest: OperatingPoint,
    first: _Level,
    stop: _Level | None,
    needed: int | None,
    supposing: str,
    role: Role,
) -> str:
    counted, guarded = _counted(test), _margins_text(test.guards)
    alpha = _percent(1 - bound_alpha(test.subjects, test.alpha))
    if verdict == "prune":
        lead = "Confirmed: prune" if role == "confirm" else "Prune"
        text = (
            f"{lead} to {level}: on {counted} it is not worse than {deepest.level} by more than the margins "
            f"({guarded}; one-sided {alpha} bounds)"
        )
        if stop is not None:
            text += f", while {stop.point} {'fails' if stop.state == 'fail' else 'is not shown to be so'}"
    elif verdict == "keep":
        text = f"Keep {deepest.level}: on {counted}, {first.sentences[0].rstrip('.')}"
    else:
        text = f"Inconclusive, keep {deepest.level} for now: "
        if test.subjects < MIN_SUBJECTS:
            text += f"{counted} are fewer than the {MIN_SUBJECTS} subjects that any verdict needs"
        else:
            text += f"{counted} do not show whether {first.point} is worse by more than the margins ({guarded})"
        if needed is not None:
            text += f"; about {needed} subjects would be needed if {supposing} (for each comparison alone, 80 % power)"
    if role == "choose and report" and verdict == "prune":
        text += "; the same cases chose the level, so its figures are optimistic"
    return f"{text}."


def _joint(decisions: Sequence[Decision], levels: Sequence[str], role: Role) -> Decision:
    """One decision for several data sets: the deepest of their levels, if all are to prune."""
    verdict: Verdict = "prune"
    if any(decision.verdict == "keep" for decision in decisions):
        verdict = "keep"
    elif any(decision.verdict == "inconclusive" for decision in decisions):
        verdict = "inconclusive"
    level = max((decision.level for decision in decisions), key=levels.index)
    stopping = [
        decision
        for decision in decisions
        if decision.verdict == verdict and (verdict != "prune" or decision.level == level)
    ]
    names = ", ".join(decision.dataset for decision in stopping)
    if verdict == "prune":
        text = f"Prune to {level}: the deepest level that one of {len(decisions)} data sets asks for ({names})"
        if role == "choose and report":
            text += "; the same cases chose the level, so its figures are optimistic"
    elif verdict == "keep":
        text = f"Keep {level}: no shallower level passes on {names}"
    else:
        text = f"Inconclusive, keep {level} for now: no verdict on {names}"
    needed = [decision.cases_needed for decision in stopping]
    known = [number for number in needed if number is not None]
    return Decision(
        dataset="all",
        verdict=verdict,
        level=level,
        role=role,
        cases=sum(decision.cases for decision in decisions),
        subjects=sum(decision.subjects for decision in decisions),
        comparisons=(),
        blockers=tuple(
            f"{decision.dataset}: {blocker}"
            for decision in decisions
            if decision.verdict != "prune" or decision.level == level
            for blocker in decision.blockers
        ),
        # one data set whose number is not known leaves that of all unknown
        cases_needed=max(known) if verdict == "inconclusive" and len(known) == len(needed) else None,
        optimistic=True,
        summary=f"{text}.",
    )
