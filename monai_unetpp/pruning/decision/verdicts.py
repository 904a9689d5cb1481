"""Decide how shallow is good enough: non-inferiority with margins fixed in advance."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Literal

from monai_unetpp.errors import counted
from monai_unetpp.metrics import METRICS
from monai_unetpp.pruning.decision.comparing import DEFAULT_RULES, Guard, LevelOutcome, LevelTest
from monai_unetpp.pruning.decision.stability import (
    differences_between,
    join_verdicts,
    joint_subjects_needed,
    sample_verdicts,
    stability_of,
)
from monai_unetpp.pruning.pairing import PairedScores, list_data_sets
from monai_unetpp.pruning.results import Decision, OperatingPoint, ScoreRow, SetDifference, Stability, Verdict
from monai_unetpp.pruning.rules import Rules
from monai_unetpp.pruning.statistics import MIN_SUBJECTS, bound_alpha
from monai_unetpp.pruning.wording import confidence, few_subjects

Role = Literal["choose", "confirm", "choose and report"]

_STRICTEST: tuple[Verdict, ...] = ("keep", "inconclusive", "prune")
_OPTIMISTIC = "; the same cases chose the level, so its figures are optimistic"
#: Most labels whose reference is told to be unfit in one sentence; the table has all.
_MOST_TOLD = 3
_JOINT_TEXTS: tuple[dict[Verdict, str], dict[Verdict, str]] = (
    {
        "prune": "Prune to {level}: the deepest level that one of {count} data sets asks for ({names})",
        "keep": "Keep {level}: no shallower level passes on {names}",
        "inconclusive": "Inconclusive, keep {level} for now: no verdict on {names}",
    },
    {
        "prune": "Prune to {level}, confirmed on each of {count} data sets ({names})",
        "keep": "Keep {level}: the chosen level fails on {names}",
        "inconclusive": "Inconclusive, keep {level} for now: the choice is not confirmed on {names}",
    },
)
"""The verdict on several data sets in words, where cases choose a level and where they confirm one."""


def decide(
    rows: Sequence[ScoreRow],
    points: Sequence[OperatingPoint],
    rules: Rules = DEFAULT_RULES,
    *,
    dataset: str,
    role: Literal["choose", "choose and report"] = "choose and report",
) -> Decision:
    """Decide on one data set which is the shallowest level that is good enough.

    Levels are tested in a fixed order from deep to shallow, and the first that does not pass ends the test, so several
    levels need no correction. The verdict is *prune* to the last level that passed. If the first level tested fails, it
    is *keep*; if that neither passes nor fails, or with fewer than ten subjects, it is *inconclusive*. All levels and
    extra points are compared: those beyond the stop are descriptive and never change the verdict.

    A level passes if every guarded metric of every guarded label passes and it does not miss structures more often than
    the deepest level does. A metric of a label

    * *passes* if the lower confidence bound of the mean paired difference is above ``-margin``, the mean leaves room
      for rare drops that so few subjects may not show (:func:`~monai_unetpp.pruning.statistics.least_mean`), and large
      drops of single cases do not exceed large gains by 5 % of the subjects (``pruning.decision.samples``);
    * *fails* if the upper bound is below ``-margin``, or an exact sign test shows more large drops than large gains;
    * is *inconclusive* otherwise, and if the deepest level is no reference: it misses the label in over a fifth of
      its cases, or its mean Dice is below ``rules.min_reference``.

    If a label is missed in some cases, the mean must also pass on the cases in which both levels find it: pairs that
    both miss always differ by 0, and structures that only the deepest level misses would offset losses elsewhere.
    Missed structures are counted in both directions and judged like large drops.

    Differences are first averaged within each subject, and all subjects have the same weight. Pairs that cannot show a
    loss are left out: truth and both predictions are empty, or both points have a false positive (the reason of the
    comparison counts these). If only one point has a false positive, the other counts as perfect: a new one is a drop
    of 1 in Dice. HD95 is negated, so that negative is always worse.

    Args:
        rows: scores of all points; other data sets are ignored.
        points: operating points; the embedded ones are the levels, and the deepest of these is the reference.
        rules: margins, limits and error level, see :class:`~monai_unetpp.pruning.rules.Rules`.
        dataset: name of the data set.
        role: use of the cases; the figures are optimistic either way, see :func:`confirm`.

    Raises:
        ValueError: fewer than two levels, a margin for an unknown label, or unpaired rows; see
            :meth:`~monai_unetpp.pruning.pairing.PairedScores.from_rows`.

    See:
        Ahn et al. 2013, doi 10.1148/radiol.12120725, for margins and bounds; ``STATISTICS.md`` of the pruning guide
        for the error rates of the rule.
    """
    if role not in ("choose", "choose and report"):
        raise ValueError(f"role must be 'choose' or 'choose and report', got {role!r}. Use confirm() to confirm.")
    levels = _levels(points)
    test = LevelTest(_paired(rows, points, dataset), levels[-1].name, rules)
    extra = [point for point in points if point.kind == "extra"]
    tested = [test.compare(point.name) for point in reversed(levels[:-1])]
    described = [test.compare(point.name) for point in reversed(_by_depth(extra))]
    return _verdict(test, levels, tested, described, role)


def confirm(
    decision: Decision,
    confirm_rows: Sequence[ScoreRow],
    points: Sequence[OperatingPoint],
    rules: Rules = DEFAULT_RULES,
    *,
    dataset: str | None = None,
) -> Decision:
    """Test the chosen level, and no other, on cases that had no part in choosing it.

    Its figures are not optimistic. If the level passes, the verdict is *prune*; if it fails, *keep*; otherwise
    *inconclusive*. Trying another level would be choosing again.

    Args:
        decision: from the choosing cases; its verdict must be to prune.
        confirm_rows: scores of other subjects, which the caller must ensure.
        points: as in :func:`decide`.
        rules: as in :func:`decide`, the same as for choosing.
        dataset: name of the confirming data set; by default the only one in ``confirm_rows``.

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
    test = LevelTest(_paired(confirm_rows, points, dataset), levels[-1].name, rules)
    return _verdict(test, [*chosen, levels[-1]], [test.compare(chosen[0].name)], [], "confirm")


def decide_all(
    rows: Sequence[ScoreRow],
    points: Sequence[OperatingPoint],
    rules: Rules = DEFAULT_RULES,
    *,
    role: Literal["choose", "choose and report"] = "choose and report",
) -> tuple[Decision, ...]:
    """A decision for each data set in ``rows``, and for several one more, named ``"all"``.

    A level must be acceptable on every data set, so the joint level is the deepest of the single ones, and every
    single verdict must be to prune. This needs no correction for the number of data sets. The joint decision has no
    comparisons of its own; its blockers name the data set that stopped it.

    Args:
        rows: scores of all data sets.
        points: as in :func:`decide`, the same for every data set.
        rules: as in :func:`decide`.
        role: as in :func:`decide`.

    Raises:
        ValueError: no rows, a data set called ``"all"`` beside others, or anything that :func:`decide` refuses.
    """
    datasets = list_data_sets(rows)
    if len(datasets) > 1 and "all" in datasets:
        raise ValueError("dataset must not be called 'all' where there are several. Rename it.")
    decisions = [decide(rows, points, rules, dataset=dataset, role=role) for dataset in datasets]
    if len(decisions) > 1:
        decisions.append(join(decisions))
    return tuple(decisions)


def join(decisions: Sequence[Decision]) -> Decision:
    """One decision for several data sets: the deepest of their levels, if all are to prune."""
    verdicts, role = {each.verdict for each in decisions}, decisions[0].role
    verdict: Verdict = next(each for each in _STRICTEST if each in verdicts)
    level = max((each.level for each in decisions), key=_depth)
    stopping = [each for each in decisions if each.verdict == verdict and (verdict != "prune" or each.level == level)]
    text = _JOINT_TEXTS[role == "confirm"][verdict].format(
        level=level, count=len(decisions), names=", ".join(each.dataset for each in stopping)
    )
    if role == "choose and report" and verdict == "prune":
        text += _OPTIMISTIC
    needed = [each.subjects_needed for each in stopping]
    known = [number for number in needed if number is not None]
    return Decision(
        dataset="all",
        verdict=verdict,
        level=level,
        role=role,
        cases=sum(each.cases for each in decisions),
        subjects=sum(each.subjects for each in decisions),
        comparisons=(),
        blockers=tuple(
            f"{each.dataset}: {blocker}"
            for each in decisions
            if each.verdict != "prune" or each.level == level
            for blocker in each.blockers
        ),
        # unknown for one is unknown for all
        subjects_needed=max(known) if verdict == "inconclusive" and len(known) == len(needed) else None,
        optimistic=any(each.optimistic for each in decisions),
        summary=f"{text}.",
        warnings=tuple(f"{each.dataset}: {warning}" for each in decisions for warning in each.warnings),
    )


def trust(
    rows: Sequence[ScoreRow],
    points: Sequence[OperatingPoint],
    rules: Rules = DEFAULT_RULES,
) -> tuple[tuple[Stability, ...], tuple[SetDifference, ...]]:
    """The stability of verdicts on these rows, and the differences between data sets."""
    levels = _levels(points)
    names = [point.level for point in levels]
    sampled, tested = {}, {}
    for dataset in dict.fromkeys(row.dataset for row in rows):
        test = LevelTest(_paired(rows, points, dataset), levels[-1].name, rules)
        tested[dataset] = [test.samples(point.name) for point in reversed(levels[:-1])]
        sampled[dataset] = sample_verdicts(tested[dataset], list(test.paired.subject_numbers), rules)
    stability = [stability_of(each, names, dataset) for dataset, each in sampled.items()]
    if len(sampled) > 1:
        stability.insert(0, stability_of(join_verdicts(sampled), names, "all"))
    return tuple(stability), differences_between(tested)


def _verdict(
    test: LevelTest, levels: list[OperatingPoint], tested: list[LevelOutcome], described: list[LevelOutcome], role: Role
) -> Decision:
    by_name, deepest = {point.name: point.level for point in levels}, levels[-1].level
    enough = test.subjects >= MIN_SUBJECTS
    passed = list(itertools.takewhile(lambda level: enough and level.state == "pass", tested))
    stop = tested[len(passed)] if len(passed) < len(tested) else None
    failed = enough and stop is not None and stop.state == "fail"
    verdict: Verdict = "prune" if passed else "keep" if failed else "inconclusive"
    needed, supposing = _needed(test, stop) if verdict == "inconclusive" and stop is not None else (None, "")
    blockers = list(stop.sentences) if stop is not None else []
    if not enough:
        blockers.insert(0, f"{few_subjects(test.subjects)}.")
    chosen = by_name[passed[-1].point] if passed else deepest
    return Decision(
        dataset=test.paired.dataset,
        verdict=verdict,
        level=chosen,
        role=role,
        cases=len(test.paired.subjects),
        subjects=test.subjects,
        comparisons=tuple(c for outcome in [*tested, *described] for c in outcome.comparisons),
        blockers=tuple(blockers),
        subjects_needed=needed,
        optimistic=role != "confirm",
        summary=_summary(test, verdict, chosen, deepest, tested, stop, needed, supposing, role),
        warnings=tuple(dict.fromkeys(note for level in tested for note in level.notes)),
        tested=tuple(level.point for level in tested[: len(passed) + 1]),
    )


def _needed(test: LevelTest, stop: LevelOutcome) -> tuple[int | None, str]:
    """Subjects that would settle the test that stopped, or None if unknown; and the assumption behind it.

    If there are already enough subjects for no true difference, the observed difference is assumed to be true.
    """
    supposed = {True: "there is no true difference", False: "the true difference is the observed one"}
    for no_difference, supposing in supposed.items():
        needed = joint_subjects_needed(stop.samples, test.rules, test.bound_alpha, no_difference)
        if needed is None or needed > test.subjects:
            return needed, supposing
    return None, ""


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


def _by_depth(points: Sequence[OperatingPoint]) -> list[OperatingPoint]:
    for point in points:
        if not re.fullmatch(r"L[1-9][0-9]*", point.level):
            raise ValueError(f"level must be L1, L2 and so on, got {point.level!r} for point {point.name!r}.")
    return sorted(points, key=lambda point: _depth(point.level))


def _depth(level: str) -> int:
    return int(level.removeprefix("L"))


def _paired(rows: Sequence[ScoreRow], points: Sequence[OperatingPoint], dataset: str) -> PairedScores:
    return PairedScores.from_rows(rows, [point.name for point in points], dataset)


def _margins_text(guards: Sequence[Guard]) -> str:
    shared = dict.fromkeys((metric, margin) for metric, _, margin in guards)
    if len(shared) == len({metric for metric, _ in shared}):
        return ", ".join(f"{METRICS[metric].in_words} {margin:g}" for metric, margin in shared)
    return ", ".join(f"{METRICS[metric].in_words} {label} {margin:g}" for metric, label, margin in guards)


def _bounds_text(test: LevelTest, passed: Sequence[LevelOutcome]) -> str:
    """The confidence of the bounds, which is higher for labels that few subjects have."""
    used = {bound_alpha(each.clusters, test.rules.alpha) for outcome in passed for each in outcome.comparisons}
    most, *fewer = sorted(used or {bound_alpha(test.subjects, test.rules.alpha)}, reverse=True)
    rare = f", up to {confidence(fewer[-1])} for rare labels" if fewer else ""
    return f"one-sided {confidence(most)} bounds{rare}"


def _summary(
    test: LevelTest,
    verdict: Verdict,
    level: str,
    deepest: str,
    tested: Sequence[LevelOutcome],
    stop: LevelOutcome | None,
    needed: int | None,
    supposing: str,
    role: Role,
) -> str:
    cases, guarded, first = len(test.paired.subjects), _margins_text(test.guards), tested[0]
    on_cases = counted(cases, "case") + ("" if cases == test.subjects else f" of {counted(test.subjects, 'subject')}")
    if verdict == "prune":
        confirmed = ", confirmed" if role == "confirm" else ""
        text = (
            f"Prune to {level}{confirmed}: on {on_cases} it is not worse than {deepest} by more than the margins "
            f"({guarded}; {_bounds_text(test, tested[: None if stop is None else tested.index(stop)])})"
        )
        if stop is not None:
            text += f"; {stop.point} fails" if stop.state == "fail" else f"; for {stop.point} this is not shown"
    elif verdict == "keep":
        reason = first.sentences[0].removeprefix(f"{first.point}: ").rstrip(".")
        text = f"Keep {deepest}: on {on_cases}, {first.point} fails: {reason}"
    else:
        text = f"Inconclusive, keep {deepest} for now: "
        if test.subjects < MIN_SUBJECTS:
            are = "is" if cases == 1 else "are"
            text += f"{on_cases} {are} fewer than the {MIN_SUBJECTS} subjects that any verdict needs"
        else:
            text += f"{on_cases} do not show whether {first.point} is worse by more than the margins ({guarded})"
        if test.held:
            told = list(dict.fromkeys(test.held.values()))
            more = f"; {counted(len(told) - _MOST_TOLD, 'more label')} likewise" if len(told) > _MOST_TOLD else ""
            text += f"; {'; '.join(told[:_MOST_TOLD])}{more}, so it is no reference"
        if needed is not None:
            text += f"; about {needed} subjects would be needed for all tests together at 80 % power, if {supposing}"
    if role == "choose and report" and verdict == "prune":
        text += _OPTIMISTIC
    return f"{text}."
