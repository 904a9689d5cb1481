"""The tables of depths chosen per window."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from statistics import fmean

import numpy as np

from monai_unetpp.errors import counted
from monai_unetpp.metrics import FOREGROUND
from monai_unetpp.pruning.points.adaptive_points import operations_ratio
from monai_unetpp.pruning.results import AdaptiveDepth, AdaptivePoint, Comparison, PointOutcome, ScoreRow
from monai_unetpp.pruning.wording import STATE_TONES, format_difference, format_metric, interval, quartiles
from monai_unetpp.reporting.numbers import percent, significant
from monai_unetpp.reporting.tables import Table, TableCell
from monai_unetpp.spreadsheet import format_csv

ADAPTIVE_RULE = (
    "L1 and L2 of every window are computed. If 1 - Dice between their segmentations is below the tolerance for every "
    "class that occurs in either, L2 is taken; otherwise L3 is computed from the same nodes and compared with L2, and "
    "so on. The tolerances are tested in a fixed order, the smallest first, until one does not pass. So each is tested "
    "at the full error level, by the margins and limits of the verdict, and no cases need to be held out for the "
    "choice. The verdict itself does not change."
)

_Key = tuple[str, str]
_Record = dict[str, TableCell | str | None]


def adaptive_table(adaptive: AdaptiveDepth) -> Table:
    """Cost and accuracy of every tolerance, beside the level of nearest cost."""
    operations, time = f"Operations ({adaptive.reference} = 1)", f"Time ({adaptive.reference} = 1)"
    records: list[_Record] = []
    for point in adaptive.points:
        for outcome, level in zip(point.outcomes, point.equal_cost_outcomes, strict=True):
            dice, static = _dice(outcome), _dice(level)
            records.append(
                {
                    "Tolerance": f"{point.tolerance:g}",
                    **({"Data set": outcome.dataset} if len(point.outcomes) > 1 else {}),
                    "Result": _state(adaptive, point, outcome),
                    **{
                        f"Windows at {name}": percent(count / max(sum(point.windows.values()), 1))
                        for name, count in point.windows.items()
                    },
                    operations: significant(point.operations_ratio, 3),
                    time: quartiles(point.time_ratio, 1.0),
                    "Dice difference": interval(dice) if dice else None,
                    "Worst case": _worst(outcome),
                    "Level of nearest cost": f"{level.point} ({adaptive.level_operations[level.point]:.2f})",
                    "Its Dice difference": interval(static) if static else None,
                    "Its worst case": _worst(level),
                }
            )
    # what the stages cost comes first: windows that never stop
    unstopped: list[_Record] = [
        dict.fromkeys(records[0])
        | {"Tolerance": "0", "Result": f"never stops ({runtime})", f"Windows at {adaptive.reference}": percent(1)}
        | {operations: significant(adaptive.level_operations[adaptive.reference]), time: quartiles(ratio, 1.0)}
        for runtime, ratio in adaptive.staging.items()
    ]
    marked = [n for n, point in enumerate(adaptive.points, len(unstopped)) if point.name == adaptive.recommended]
    return Table.of(
        "Depth chosen for each window",
        [*unstopped, *records],
        words=("Data set", "Result", "Worst case", "Level of nearest cost", "Its worst case"),
        marked=marked if len(records) == len(adaptive.points) else (),
        notes=[
            f"Operations and time are relative to {adaptive.reference}. Time: median (quartiles) of "
            f"{counted(adaptive.points[0].time_ratio.count, 'round')} over {adaptive.timed_cases} cases, evenly "
            "spaced from the shallowest to the deepest. In brackets after the level of nearest cost: its operations.",
            "Dice difference: from the deepest level, for the guarded label with the largest loss, with one-sided "
            "bounds at the error level of the verdict.",
            f"Never stops: every window goes through all stages to {adaptive.reference}. Its time is what the stages "
            f"themselves cost, in proportion to {adaptive.reference} in one piece with the same runtime."
            if unstopped
            else "",
        ],
    )


def adaptive_cases_table(adaptive: AdaptiveDepth, rows: Sequence[ScoreRow]) -> Table:
    """Which cases stay shallow: thirds of the cases by depth; ``rows`` hold the scores of the deepest level."""
    shown = next((each for each in adaptive.points if each.name == adaptive.recommended), adaptive.points[-1])
    depths = {(each.dataset, each.case): each.windows for each in adaptive.depths if each.point == shown.name}
    ratios = {case: operations_ratio(windows, adaptive.level_operations) for case, windows in depths.items()}
    ordered = sorted(ratios, key=lambda case: (ratios[case], case))
    found = _foreground(adaptive.rows, shown.name)
    deepest = _foreground(rows, adaptive.reference)
    records = []
    for name, group in zip(("shallow third", "middle third", "deep third"), np.array_split(ordered, 3), strict=True):
        cases = [(str(dataset), str(case)) for dataset, case in group]
        if not cases:
            continue
        pairs = [(found[case].score, deepest[case].score) for case in cases if case in found and case in deepest]
        dice = [(a.dice, b.dice) for a, b in pairs if a.dice is not None and b.dice is not None]
        middle = len(cases) // 2
        records.append(
            {
                "Cases": f"{name} ({len(cases)})",
                "Operations": significant(fmean([ratios[case] for case in cases])),
                "Windows of a case": significant(fmean([sum(depths[case].values()) for case in cases]), 2),
                "True volume (ml)": significant(fmean([score.truth_ml for _, score in pairs])) if pairs else None,
                "Dice at the deepest": format_metric("dice", fmean([b for _, b in dice])) if dice else None,
                "Difference": format_difference("dice", fmean([a - b for a, b in dice])) if dice else None,
                "Such as": ", ".join(case for _, case in (cases[0], cases[middle], cases[-1])),
            }
        )
    return Table.of(
        f"Which cases stay shallow at tolerance {shown.tolerance:g}",
        records,
        words=("Cases", "Such as"),
        notes=[
            "Cases are ordered by their operations relative to the deepest level; figures are means of each third. "
            "Dice is that of all labels pooled. adaptive_depth.csv lists every case."
        ],
    )


def adaptive_csv(adaptive: AdaptiveDepth) -> str:
    """For every case and tolerance, the windows by level, and the operations relative to the deepest level."""
    levels = list(adaptive.points[0].windows)
    rows = (
        (
            each.dataset,
            each.case,
            each.point,
            *(each.windows.get(level, 0) for level in levels),
            repr(operations_ratio(each.windows, adaptive.level_operations)),
        )
        for each in adaptive.depths
    )
    return format_csv(("dataset", "case", "point", *(f"windows_{level}" for level in levels), "operations_ratio"), rows)


def _foreground(rows: Sequence[ScoreRow], point: str) -> dict[_Key, ScoreRow]:
    """The rows of the pooled labels; with a single label, its own."""
    labels = {row.label for row in rows}
    label = FOREGROUND if FOREGROUND in labels else min(labels, default=FOREGROUND)
    return {(row.dataset, row.case): row for row in rows if row.point == point and row.label == label}


def _dice(outcome: PointOutcome) -> Comparison | None:
    """The comparison of Dice with the largest loss; of another metric if Dice is not guarded."""
    return min(outcome.comparisons, key=lambda each: (each.metric != "dice", each.mean_difference), default=None)


def _worst(outcome: PointOutcome) -> str | None:
    """The largest drop of Dice over all labels; of another metric if Dice is not guarded."""
    dice = _dice(outcome)
    if dice is None:
        return None
    worst = min(
        (each for each in outcome.comparisons if each.metric == dice.metric), key=attrgetter("worst_difference")
    )
    labels = {each.label for each in outcome.comparisons}
    where = f"{worst.label} of {worst.worst_case}" if len(labels) > 1 else worst.worst_case
    return f"{format_difference(worst.metric, worst.worst_difference)} ({where})"


def _state(adaptive: AdaptiveDepth, point: AdaptivePoint, outcome: PointOutcome) -> TableCell:
    if point.name == adaptive.recommended:
        return TableCell("pass, recommended", "good")
    before = adaptive.points[: adaptive.points.index(point)]
    if not all(each.accepted for each in before):
        return TableCell("not tested: one before it does not pass", "unsure")
    return TableCell(outcome.state, STATE_TONES.get(outcome.state, ""))
