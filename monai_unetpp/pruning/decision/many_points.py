"""Compare many operating points with one reference, at an error level corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence

from monai_unetpp.pruning.decision.comparing import DEFAULT_RULES, LevelTest
from monai_unetpp.pruning.pairing import PairedScores
from monai_unetpp.pruning.results import PointOutcome, ScoreRow
from monai_unetpp.pruning.rules import Rules
from monai_unetpp.pruning.statistics import MIN_SUBJECTS
from monai_unetpp.pruning.wording import few_subjects

__all__ = ["compare_points", "passing_points"]


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
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    if not datasets:
        raise ValueError("rows must hold scores, got none.")
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
