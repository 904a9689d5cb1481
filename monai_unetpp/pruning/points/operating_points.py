"""Operating points beyond the levels: every level at every setting of a grid, and which one to recommend."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence

from monai_unetpp.errors import counted
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.pruning.decision import compare_points, passing_points
from monai_unetpp.pruning.points.tradeoffs import mean_accuracy, pareto_front, resampled_accuracy, with_labels
from monai_unetpp.pruning.results import (
    InferenceSetting,
    OperatingGrid,
    OperatingPoint,
    PointCost,
    PointOutcome,
    ScoreRow,
)
from monai_unetpp.pruning.rules import Rules
from monai_unetpp.pruning.scoring.levels import Scores
from monai_unetpp.pruning.statistics import MIN_SUBJECTS
from monai_unetpp.pruning.wording import few_subjects

logger = logging.getLogger(__name__)


def at_setting(
    levels: Sequence[OperatingPoint], rows: Sequence[ScoreRow], setting: InferenceSetting
) -> tuple[tuple[OperatingPoint, ...], tuple[ScoreRow, ...]]:
    """Levels and their scores as operating points of a grid, named after level and setting."""
    points = {
        level.name: dataclasses.replace(level, name=f"{level.level} {setting.name}", setting=setting)
        for level in levels
    }
    renamed = (dataclasses.replace(row, point=points[row.point].name) for row in rows if row.point in points)
    return tuple(points.values()), tuple(renamed)


def points_at_settings(
    levels: Sequence[OperatingPoint],
    rows: Sequence[ScoreRow],
    own: InferenceSetting,
    further: Mapping[InferenceSetting, Sequence[Scores]],
) -> tuple[tuple[OperatingPoint, ...], tuple[ScoreRow, ...], dict[str, str]]:
    """The points and scores of all settings that ran on every case, and why others are left out."""
    embedded = [point for point in levels if point.kind == "embedded"]
    points, scored = at_setting(embedded, rows, own)
    cases = {(row.dataset, row.case) for row in rows}
    left_out = {}
    for setting, scores in further.items():
        new_points, new_rows = at_setting(embedded, [row for each in scores for row in each.rows], setting)
        missing = cases - {(row.dataset, row.case) for row in new_rows}
        if missing:
            reasons = [f"{each.case}: {each.reason}" for some in scores for each in some.problems]
            left_out[setting.name] = f"not run on {counted(len(missing), 'case')}. {' '.join(reasons)}"
            logger.warning("%s is left out of the comparison: %s", setting.name, left_out[setting.name])
            continue
        points, scored = (*points, *new_points), (*scored, *(r for r in new_rows if (r.dataset, r.case) in cases))
    return points, scored, left_out


def compare_grid(
    points: Sequence[OperatingPoint],
    rows: Sequence[ScoreRow],
    costs: Mapping[str, PointCost],
    time_ratios: Mapping[str, Quartiles],
    rules: Rules,
    *,
    reference: str,
    left_out: Mapping[str, str] | None = None,
) -> OperatingGrid:
    """Compare all points of a grid with its reference, at the error level of the rules together, and recommend one."""
    names = [point.name for point in points]
    outcomes = compare_points(rows, names, reference, rules)
    known = with_labels(rows)
    accuracy = mean_accuracy(known, names)
    front = pareto_front(accuracy, costs, resampled=resampled_accuracy(known, names, seed=rules.seed))
    recommended, reason = recommend_point(reference, outcomes, time_ratios)
    subjects = min(len({row.subject for row in rows if row.dataset == name}) for name in {r.dataset for r in rows})
    if subjects < MIN_SUBJECTS:
        reason = (
            f"{few_subjects(subjects)}: no operating point is recommended instead of {reference}. Accuracy and cost "
            "are still reported."
        )
    return OperatingGrid(
        reference=reference,
        points=tuple(points),
        rows=tuple(rows),
        accuracy=accuracy,
        costs=dict(costs),
        time_ratios=dict(time_ratios),
        outcomes=outcomes,
        front=front.points,
        recommended=recommended,
        reason=reason,
        left_out=dict(left_out or {}),
        on_front=front.on_front,
    )


def recommend_point(
    reference: str, outcomes: Sequence[PointOutcome], time_ratios: Mapping[str, Quartiles]
) -> tuple[str | None, str]:
    """The fastest point that passes on every data set, if it is faster than the reference, and why."""
    passed, count = passing_points(outcomes), len({outcome.point for outcome in outcomes})
    told = f"{len(passed)} of {count} operating points are shown to be no worse than {reference}"
    if not passed:
        return None, f"{told}: keep it."
    fastest = min(passed, key=lambda point: time_ratios[point].median)
    ratio = time_ratios[fastest].median
    if ratio >= 1:
        return None, f"{told}, none of which is faster: keep it."
    return fastest, (
        f"{told} by more than the margins; the fastest of them, {fastest}, is {1 / ratio:.3g} times as fast."
    )
