"""Operating points beyond the levels: every level at every setting of a grid, and which of them to take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.pruning.decide import DEFAULT_MARGINS, DEFAULT_MAX_CASE_DROP, compare_points
from monai_unetpp.pruning.results import (
    InferenceSetting,
    Margin,
    OperatingGrid,
    OperatingPoint,
    PointCost,
    PointOutcome,
    ScoreRow,
)
from monai_unetpp.pruning.statistics import MIN_SUBJECTS
from monai_unetpp.pruning.tradeoffs import mean_accuracy, pareto_front

__all__ = ["at_setting", "compare_grid", "recommend_point"]


def at_setting(
    levels: Sequence[OperatingPoint], rows: Sequence[ScoreRow], setting: InferenceSetting
) -> tuple[tuple[OperatingPoint, ...], tuple[ScoreRow, ...]]:
    """Levels and their scores as operating points of a grid, named after level and setting.

    Args:
        levels: the levels.
        rows: their scores at ``setting``; rows of other points are left out.
        setting: how the levels were run.
    """
    points = {
        level.name: dataclasses.replace(level, name=f"{level.level} {setting.name}", setting=setting)
        for level in levels
    }
    renamed = (dataclasses.replace(row, point=points[row.point].name) for row in rows if row.point in points)
    return tuple(points.values()), tuple(renamed)


def compare_grid(
    points: Sequence[OperatingPoint],
    rows: Sequence[ScoreRow],
    costs: Mapping[str, PointCost],
    time_ratios: Mapping[str, Quartiles],
    *,
    reference: str,
    margins: Sequence[Margin] = DEFAULT_MARGINS,
    alpha: float = 0.05,
    max_case_drop: Mapping[str, float] = DEFAULT_MAX_CASE_DROP,
    bootstrap_samples: int = 9999,
    seed: int = 0,
    left_out: Mapping[str, str] | None = None,
) -> OperatingGrid:
    """Compare all points of a grid with its reference, and recommend one.

    Args:
        points: levels at settings.
        rows: scores of all points on the same cases.
        costs: of all points.
        time_ratios: time of all points in proportion to the reference.
        reference: name of the deepest level at the setting of the given inferer.
        margins: as for :func:`~monai_unetpp.pruning.decide`.
        alpha: one-sided error level for all points together.
        max_case_drop: as for :func:`~monai_unetpp.pruning.decide`.
        bootstrap_samples: as for :func:`~monai_unetpp.pruning.decide`.
        seed: as for :func:`~monai_unetpp.pruning.decide`.
        left_out: settings that could not be evaluated, and why.

    Raises:
        ValueError: points without cost, rows that are not pairs, or anything that ``compare_points`` refuses.
    """
    names = [point.name for point in points]
    outcomes = compare_points(
        rows,
        names,
        reference,
        margins,
        alpha=alpha,
        max_case_drop=max_case_drop,
        bootstrap_samples=bootstrap_samples,
        seed=seed,
    )
    accuracy = mean_accuracy(rows, names)
    recommended, reason = recommend_point(reference, outcomes, time_ratios)
    subjects = min(len({row.subject for row in rows if row.dataset == name}) for name in {r.dataset for r in rows})
    if subjects < MIN_SUBJECTS:
        reason = (
            f"{subjects} subjects are fewer than the {MIN_SUBJECTS} that any verdict needs: no operating point is "
            f"recommended instead of {reference}. Accuracy and cost are measured all the same."
        )
    return OperatingGrid(
        reference=reference,
        points=tuple(points),
        rows=tuple(rows),
        accuracy=accuracy,
        costs=dict(costs),
        time_ratios=dict(time_ratios),
        outcomes=outcomes,
        front=pareto_front(accuracy, costs).points,
        recommended=recommended,
        reason=reason,
        left_out=dict(left_out or {}),
    )


def recommend_point(
    reference: str, outcomes: Sequence[PointOutcome], time_ratios: Mapping[str, Quartiles]
) -> tuple[str | None, str]:
    """The fastest point that passes on every data set, if it is faster than the reference, and why.

    Args:
        reference: name of the point that the others were compared with.
        outcomes: of all other points on all data sets.
        time_ratios: time of all points in proportion to the reference.
    """
    states: dict[str, set[str]] = {}
    for outcome in outcomes:
        states.setdefault(outcome.point, set()).add(outcome.state)
    passed = [point for point, found in states.items() if found == {"pass"}]
    counted = f"{len(passed)} of {len(states)} operating points are shown to be not worse than {reference}"
    if not passed:
        return None, f"{counted}: keep it."
    fastest = min(passed, key=lambda point: time_ratios[point].median)
    ratio = time_ratios[fastest].median
    if ratio >= 1:
        return None, f"{counted}, none of which is faster: keep it."
    return fastest, (
        f"{counted} by more than the margins; the fastest of them is {fastest}, which takes {ratio:.3g} times as long "
        f"({1 / ratio:.3g} times as fast)."
    )
