"""The tables of a grid of operating points."""

from __future__ import annotations

from collections.abc import Mapping

from monai_unetpp.errors import counted
from monai_unetpp.metrics import FOREGROUND, METRICS
from monai_unetpp.pruning.points.tradeoffs import accuracy_of_each
from monai_unetpp.pruning.results import OperatingGrid, PruningResult
from monai_unetpp.pruning.statistics import FULL_SUBJECTS
from monai_unetpp.pruning.summary import shown_labels
from monai_unetpp.pruning.wording import STATE_TONES, format_difference, format_metric, quartiles, quoted, speed_up
from monai_unetpp.reporting.numbers import join_shape, rough_percent, significant, time_unit
from monai_unetpp.reporting.tables import Table, TableCell

_MEGA = 1e6
#: Headings of what a setting consists of.
_SETTINGS = ("Overlap", "Flips", "Precision", "Runtime", "Windows")

GRID_RULE = (
    "Every level was run at every setting and is compared, case by case, with the reference: the deepest level as the "
    "bundle runs it. Margins and limits are those of the verdict above, which these comparisons do not change. The "
    "comparisons are many and have no fixed order, so the level of their bounds is corrected by Holm's procedure: the "
    "chance that any point that is worse by the margin passes stays at alpha. Still, the choice of a point is "
    "optimistic, as the same cases choose it and give its figures: confirm it on others."
)


def grid_state(grid: OperatingGrid, point: str) -> str:
    """The state of a point over all data sets: ``"reference"``, ``"pass"``, ``"fail"`` or ``"inconclusive"``."""
    states = {outcome.state for outcome in grid.outcomes if outcome.point == point}
    return next((state for state in ("fail", "inconclusive", "pass") if state in states), "reference")


def grid_table(grid: OperatingGrid, result: PruningResult) -> Table:
    """Every operating point of the grid, the fastest first."""
    labels = [label for label in shown_labels(result) if label != FOREGROUND] or [FOREGROUND]
    names = [point.name for point in grid.points]
    rows = {label: [row for row in grid.rows if row.label == label] for label in labels}
    means = {label: accuracy_of_each(scores, names) for label, scores in rows.items()}
    points = sorted(grid.points, key=lambda point: grid.time_ratios[point.name].median)
    unit, scale = time_unit(cost.volume_latency_s.median for cost in grid.costs.values())
    records: list[dict[str, TableCell | str | None]] = []
    marked = []
    for number, point in enumerate(points):
        setting, cost, ratio = point.known_setting, grid.costs[point.name], grid.time_ratios[point.name]
        if point.name == (grid.recommended or grid.reference):
            marked.append(number)
        records.append(
            {
                "Level": point.level,
                "Overlap": ", ".join(f"{share:g}" for share in setting.overlap),
                "Flips": ", ".join(map(str, setting.flips)) or "none",
                "Precision": setting.precision,
                "Runtime": setting.runtime,
                "Windows": setting.windows,
                "Result": _grid_verdict(grid, point.name),
                **{
                    f"Dice, {label}": format_metric("dice", dice[point.name]) if dice else None
                    for label, dice in means.items()
                },
                "Bound nearest its margin": _closest_bound(grid, point.name),
                f"Time per volume ({unit})": significant(cost.volume_latency_s.median * scale),
                "Time ratio": quartiles(ratio, 1.0),
                "Speed-up": speed_up(1 / ratio.median),
                "Front": str(grid.front.index(point.name) + 1) if point.name in grid.front else None,
                "On the front": rough_percent(grid.on_front[point.name]) if grid.on_front else None,
            }
        )
    alike = {name: records[0][name] for name in _SETTINGS if len({record[name] for record in records}) == 1}
    return Table.of(
        "Operating points, the fastest first",
        [{name: cell for name, cell in record.items() if name not in alike} for record in records],
        words=("Level", *_SETTINGS[1:], "Result"),
        marked=marked,
        notes=_grid_notes(grid, result.rules.alpha, alike),
    )


def _grid_notes(grid: OperatingGrid, alpha: float, alike: Mapping[str, TableCell | str | None]) -> list[str]:
    first = grid.costs[grid.reference]
    shared = ", ".join(f"{name.lower()} {value}" for name, value in alike.items())
    return [
        f"The same for all of them: {shared}." if shared else "",
        "Dice: mean over the cases that were compared, then over the data sets; a point that rightly finds nothing, "
        "where another does not, counts as 1. Bound nearest its margin: among all guarded metrics and labels, "
        "the lower confidence bound of a mean difference from the reference that is nearest to minus its margin, or "
        "furthest beyond it.",
        f"Time ratio: time per volume divided by that of the reference in the same round, median (quartiles) of "
        f"{counted(grid.time_ratios[grid.reference].count, 'round')} on a volume of {join_shape(first.volume_shape)} "
        "voxels. Speed-up: the inverse of its median.",
        "Front: number of the point in the plot, the most accurate first; no other point is both faster and more "
        "accurate (mean Dice over the labels). On the front: in how many of 1,000 resamples of the subjects.",
        *_grid_levels(grid, alpha),
        *(f"Left out: {name}: {reason}" for name, reason in grid.left_out.items()),
    ]


def _closest_bound(grid: OperatingGrid, point: str) -> str | None:
    comparisons = [c for outcome in grid.outcomes if outcome.point == point for c in outcome.comparisons]
    if not comparisons:
        return None
    closest = min(comparisons, key=lambda c: c.lower_bound / c.margin)
    bound = format_difference(closest.metric, closest.lower_bound)
    return f"{bound} ({METRICS[closest.metric].name} {closest.label})"


def grid_networks_table(grid: OperatingGrid) -> Table:
    """Time per window and memory, which do not depend on overlap and flips."""
    unit, scale = time_unit(cost.window_latency_s.median for cost in grid.costs.values())
    records: dict[tuple[str, str, str, str], dict[str, str]] = {}
    for point in grid.points:
        setting, cost = point.known_setting, grid.costs[point.name]
        key = (setting.precision, setting.runtime, setting.windows, point.level)
        record = {"Level": point.level, "Precision": key[0], "Runtime": key[1], "Windows": key[2]}
        record[f"Time per window ({unit})"] = quartiles(cost.window_latency_s, scale)
        record["Peak memory (MB)"] = significant(cost.peak_memory_bytes / _MEGA)
        records.setdefault(key, record)
    return Table.of(
        "Windows and memory of the operating points",
        [records[key] for key in sorted(records)],
        words=("Level", "Precision", "Runtime", "Windows"),
        notes=[
            "These do not depend on overlap and flips, and are measured once per level, precision, runtime and choice "
            "of windows. Time per window is that of a window of the configuration's shape. Peak memory is that of "
            "segmenting the whole volume. It includes the conversion if the runtime converts networks, unless a "
            "converted network was cached."
        ],
    )


def _grid_verdict(grid: OperatingGrid, point: str) -> TableCell:
    state = grid_state(grid, point)
    if point == grid.recommended:
        return TableCell("pass, recommended", "good")
    return TableCell(state, STATE_TONES.get(state, ""))


def _grid_levels(grid: OperatingGrid, alpha: float) -> list[str]:
    """The level of the bounds by Holm's procedure, and why points did not pass."""
    if not grid.outcomes:
        return []
    points = {outcome.point for outcome in grid.outcomes}
    levels = sorted({outcome.alpha for outcome in grid.outcomes})
    spread = significant(levels[0], 2) + (f" to {significant(levels[-1], 2)}" if len(levels) > 1 else "")
    sentences = [
        f"Result: {len(points)} points share the one-sided alpha of {alpha:g} by Holm's procedure; bounds are at a "
        f"level of {spread}; with fewer than {FULL_SUBJECTS} subjects at a lower one, down to a tenth of it with ten."
    ]
    for state in ("fail", "inconclusive"):
        first = next((o for o in grid.outcomes if o.state == state and o.reasons), None)
        if first is not None:
            reason = first.reasons[0].removeprefix(f"{first.point}: ")
            sentences.append(f"Example: {first.point} ({quoted(first.dataset)}), {state}: {reason}")
    return sentences
