"""The plot of the trade-off: the accuracy of each level against its time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from monai_unetpp.pruning.report_plots import Picture, picture_of
from monai_unetpp.pruning.results import OperatingPoint, PruningResult, ScoreRow
from monai_unetpp.pruning.summary import chosen_point, deepest_point
from monai_unetpp.pruning.tradeoffs import mean_accuracy, resampled_accuracy, with_labels
from monai_unetpp.pruning.wording import format_metric
from monai_unetpp.reporting.figures import FAINT, INK, PALETTE, new_figure
from monai_unetpp.reporting.numbers import NBSP, significant, time_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["mean_dice", "plot_trade_off"]

_CROWDED = 0.16
"""Points closer than this share of the time axis have their text on different sides."""


class _Place(NamedTuple):
    """A point in the plot: its time in the unit of the plot, its mean Dice, and its bar, if any."""

    name: str
    time: float
    dice: float
    bar: tuple[float, float] | None
    further: bool


def plot_trade_off(result: PruningResult) -> Picture | None:
    """Plot the mean Dice of each point against its time per volume; None without costs or labels.

    Bars are 95 % bootstrap intervals over subjects of the difference from the deepest level. They do not include the
    spread between easy and hard cases, which all levels share.
    """
    unit, scale = time_unit(cost.volume_latency_s.median for cost in result.costs.values())
    places = _places(result, scale)
    if not places:
        return None
    chosen, deepest = (point.name if point else "" for point in (chosen_point(result), deepest_point(result)))
    with new_figure(8.6, 4.3) as (figure, grid):
        axes = grid[0, 0]
        reference = next((place for place in places if place.name == deepest), None)
        if reference is not None and len(places) > 1:
            axes.axhline(reference.dice, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        for place, below in zip(places, _sides(places), strict=True):
            role = "chosen" if place.name == chosen else ""
            if place.name == deepest:
                role = "deepest, kept" if role else "deepest"
            _draw(axes, place, role, below, unit)
        axes.set_xlim(0, 1.16 * max(place.time for place in places))
        axes.margins(y=0.32)
        axes.set_xlabel(f"time per volume ({unit}, median): further left is faster")
        axes.set_ylabel("mean Dice over the labels (0 to 1)")
        spots = [(axes, (place.time, place.dice), _words(place, deepest, unit)) for place in places]
        words = "; ".join(text for _, _, text in spots)
        return picture_of(figure, f"Accuracy against time. {words}.", spots)


def mean_dice(result: PruningResult, points: Sequence[OperatingPoint]) -> dict[str, float]:
    """Mean Dice of each point over cases, labels and data sets, in that order; empty if no case has a label."""
    names = [point.name for point in points]
    rows = _rows(result, names)
    return mean_accuracy(rows, names) if rows else {}


def _rows(result: PruningResult, names: Sequence[str]) -> list[ScoreRow]:
    """The scores of these points on the data sets that have a label."""
    return list(with_labels([row for row in result.rows if row.point in names]))


def _places(result: PruningResult, scale: float) -> list[_Place]:
    """Every point with a cost, the fastest first."""
    points = {point.name: point for point in result.points if point.name in result.costs}
    accuracy, names = mean_dice(result, list(points.values())), list(points)
    if not accuracy:
        return []
    resampled = np.nanmean(resampled_accuracy(_rows(result, names), names, seed=result.rules.seed), axis=2)
    deepest = deepest_point(result)
    bars: dict[str, tuple[float, float] | None] = dict.fromkeys(names)
    if deepest is not None and deepest.name in points:
        bars = _bars(accuracy, resampled, deepest.name)
    places = [
        _Place(
            name, result.costs[name].volume_latency_s.median * scale, accuracy[name], bars[name], point.kind == "extra"
        )
        for name, point in points.items()
    ]
    return sorted(places, key=lambda place: place.time)


def _bars(accuracy: dict[str, float], resampled: Any, deepest: str) -> dict[str, tuple[float, float] | None]:
    """The interval of each mean relative to that of the deepest level."""
    names = list(accuracy)
    differences = resampled - resampled[:, [names.index(deepest)]]
    ends = np.nanpercentile(differences, (2.5, 97.5), axis=0) + accuracy[deepest]
    return {
        name: None if name == deepest else (float(low), float(high))
        for name, low, high in zip(names, *ends, strict=True)
    }


def _sides(places: Sequence[_Place]) -> list[bool]:
    """Whether the text of each point is below it: among crowded points, that of the less accurate ones."""
    width = max(place.time for place in places)

    def crowded(one: _Place, other: _Place) -> bool:
        return one is not other and abs(one.time - other.time) < _CROWDED * width

    return [any(crowded(each, other) and other.dice > each.dice for other in places) for each in places]


def _draw(axes: Axes, place: _Place, role: str, below: bool, unit: str) -> None:
    chosen = role not in ("", "deepest")
    colour = PALETTE[1] if chosen else PALETTE[0]
    low, high = place.bar or (place.dice, place.dice)
    if place.bar:
        axes.plot([place.time] * 2, [low, high], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=2)
        axes.plot([place.time] * 2, [low, high], color=colour, marker="_", markersize=9, markeredgewidth=1.8, zorder=2)
    axes.plot(
        place.time,
        place.dice,
        marker="D" if place.further else "o",
        markersize=11 if chosen else 8,
        color=colour,
        markerfacecolor="white" if place.further else colour,
        markeredgewidth=1.8,
        zorder=3,
    )
    name = f"{place.name}, {role}" if role else place.name
    axes.annotate(
        f"{name}\n{format_metric('dice', place.dice)} in {significant(place.time)} {unit}",
        (place.time, low if below else high),
        xytext=(0, -10 if below else 10),
        textcoords="offset points",
        ha="center",
        va="top" if below else "bottom",
        fontsize=9.5,
        fontweight="bold" if chosen else "normal",
        color=INK,
        zorder=4,
    )


def _words(place: _Place, deepest: str, unit: str) -> str:
    text = f"{place.name}: mean Dice {format_metric('dice', place.dice)} in {significant(place.time)} {unit}"
    if place.bar is None or place.name == deepest:
        return text
    low, high = place.bar
    return f"{text}, 95{NBSP}% interval relative to {deepest} {low:.4f} to {high:.4f}"
