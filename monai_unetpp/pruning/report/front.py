"""The pictures of the trade-offs: the accuracy of every operating point against each measured cost."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from monai_unetpp.pruning.points.tradeoffs import (
    ResampledAccuracy,
    cost_value,
    mean_accuracy,
    pareto_front,
    resampled_accuracy,
    times_of_depths,
    with_labels,
)
from monai_unetpp.pruning.report.plots import Picture, picture_of
from monai_unetpp.pruning.results import OperatingPoint, PointCost, PruningResult, ScoreRow
from monai_unetpp.pruning.rules import COST_KEYS
from monai_unetpp.pruning.summary import chosen_point, deepest_point
from monai_unetpp.pruning.wording import format_metric
from monai_unetpp.reporting.figures import FAINT, INK, PALETTE, new_figure, write_beside
from monai_unetpp.reporting.numbers import rough_percent, significant, time_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GOALS = ("latency_ms", "memory_mb", "parameters", "energy_j")
_LINE = 16
"""Most letters in a line beside a point."""
_MARKERS = {"level": "o", "further checkpoint": "D", "depth per window": "s"}


class _Place(NamedTuple):
    """A point in a picture.

    ``share`` is how often the point is on the front, ``bar`` the interval of its mean Dice relative to the deepest
    level, and ``role`` one or two words for the chosen and the deepest level.
    """

    name: str
    kind: str
    role: str
    cost: float
    dice: float
    bar: tuple[float, float]
    on_front: bool
    share: float


def plot_trade_offs(result: PruningResult) -> list[Picture]:
    """Plot the mean Dice of every point against each measured cost; no picture without costs or labels.

    Points joined by a line are on the Pareto front; hollow ones are beaten by another. All rests on the cases of the
    table of trade-offs: those that confirm a level do not count. In brackets is the share of resamples of the subjects
    in which a point is unbeaten. Bars are 95 % bootstrap intervals over subjects of the difference from the deepest
    level, without the spread between easy and hard cases, which all levels share. All pictures have the same y-axis.
    """
    depths = times_of_depths(result.adaptive, result.costs)
    kinds = {p.name: "further checkpoint" if p.kind == "extra" else "level" for p in result.points}
    kinds = {name: kind for name, kind in kinds.items() if name in result.costs}
    own = {name: cost for name, cost in result.costs.items() if name in kinds}
    kinds |= dict.fromkeys(depths, "depth per window")
    names = list(kinds)
    rows = _choosing_rows(result, names)
    if not rows:
        return []
    dice, resampled = mean_accuracy(rows, names), resampled_accuracy(rows, names, seed=result.rules.seed)
    bars = _bars(dice, resampled, deepest_point(result))
    # of depths per window, only time was measured
    goals = {key: own | depths if key == "latency_ms" else own for key in _GOALS}
    goals["energy_j"] = {name: cost for name, cost in own.items() if cost.volume_energy_j}
    chosen, deepest = (point.name if point else "" for point in (chosen_point(result), deepest_point(result)))
    roles = {chosen: "chosen", deepest: "deepest, kept" if chosen == deepest else "deepest"}
    pictures = []
    for key, costs in goals.items():
        if costs:
            words, unit, scale = _axis(key, costs)
            front = pareto_front({name: dice[name] for name in costs}, costs, [key], resampled)
            places = [
                _Place(
                    name,
                    kinds[name],
                    roles.get(name, ""),
                    cost_value(cost, key) * scale,
                    dice[name],
                    bars[name],
                    name in front.points,
                    front.on_front[name],
                )
                for name, cost in costs.items()
            ]
            pictures.append(_plot(sorted(places, key=lambda place: place.cost), words, unit, [*bars.values()]))
    return pictures


def _choosing_rows(result: PruningResult, names: Sequence[str]) -> tuple[ScoreRow, ...]:
    """The scores of the cases that choose, where all points have one."""
    every = [*result.rows, *(result.adaptive.rows if result.adaptive else ())]
    cases: dict[str, set[tuple[str, str]]] = {name: set() for name in names}
    for row in every:
        if row.point in cases:
            cases[row.point].add((row.dataset, row.case))
    shared = set.intersection(*cases.values()) - {*result.confirming} if cases else set()
    return with_labels([row for row in every if row.point in cases and (row.dataset, row.case) in shared])


def _bars(
    dice: dict[str, float], resampled: ResampledAccuracy, deepest: OperatingPoint
) -> dict[str, tuple[float, float]]:
    """The interval of each mean relative to that of the deepest level; of no width for that level itself."""
    names = list(dice)
    if deepest.name not in names:
        return {name: (mean, mean) for name, mean in dice.items()}
    means = resampled.among(names).means
    differences = means - means[:, [names.index(deepest.name)]]
    ends = np.nanpercentile(differences, (2.5, 97.5), axis=0) + dice[deepest.name]
    return {name: (float(low), float(high)) for name, low, high in zip(names, *ends, strict=True)}


def _plot(places: Sequence[_Place], words: str, unit: str, bars: Sequence[tuple[float, float]]) -> Picture:
    """The picture of one cost, the cheapest place first; ``bars`` are those of all pictures."""
    deepest = next((place for place in places if place.role.startswith("deepest")), None)
    with new_figure(3.75, 3.5) as (figure, grid):
        axes = grid[0, 0]
        if deepest is not None and len(places) > 1:
            axes.axhline(deepest.dice, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        front = [place for place in places if place.on_front]
        axes.plot([p.cost for p in front], [p.dice for p in front], color=FAINT, linewidth=1.6, zorder=1)
        for place in places:
            _draw(axes, place)
        # with room for the text of the last point to its right
        axes.set_xlim(0, 1.4 * max(place.cost for place in places))
        ends = [end for bar in bars for end in bar]
        room = 0.4 * max(max(ends) - min(ends), 1e-3)
        axes.set_ylim(min(ends) - room, max(ends) + room)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(f"{words} ({unit})")
        axes.set_ylabel("mean Dice over the labels (0 to 1)")
        # the deepest level first, as its text has most lines
        write_beside(axes, [(p.cost, *p.bar, _label(p)) for p in reversed(places)], fontsize=9, color=INK, zorder=4)
        spots = [(axes, (p.cost, p.dice), _in_words(p, words, unit, deepest)) for p in places]
        told = "; ".join(text for _, _, text in spots)
        return picture_of(figure, f"Accuracy against {words}. {told}.", spots)


def _axis(key: str, costs: Mapping[str, PointCost]) -> tuple[str, str, float]:
    """What a cost is, its unit, and the factor from the unit of its key."""
    words, unit = COST_KEYS[key]
    if key == "parameters":
        return words, "million parameters", 1e-6
    if key == "latency_ms":
        unit, scale = time_unit(cost.volume_latency_s.median for cost in costs.values())
        return words, unit, scale / 1e3
    return words, unit, 1.0


def _draw(axes: Axes, place: _Place) -> None:
    chosen = place.role not in ("", "deepest")
    colour = PALETTE[1] if chosen else PALETTE[0]
    if place.bar[0] < place.bar[1]:
        axes.plot([place.cost] * 2, place.bar, color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
        axes.plot([place.cost] * 2, place.bar, color=colour, marker="_", markersize=8, markeredgewidth=1.8, zorder=2)
    axes.plot(
        place.cost,
        place.dice,
        marker=_MARKERS[place.kind],
        markersize=10 if chosen else 7.5,
        color=colour,
        markerfacecolor=colour if place.on_front else "white",
        markeredgewidth=1.8,
        zorder=3,
    )


def _label(place: _Place) -> str:
    """The name, how often it is on the front, and its role, in short lines."""
    share = rough_percent(place.share).replace(" ", "\N{NO-BREAK SPACE}")
    name = textwrap.fill(f"{place.name.replace('=', ' ')} ({share})", _LINE)
    return "\n".join(part for part in (name, place.role) if part)


def _in_words(place: _Place, words: str, unit: str, deepest: _Place | None) -> str:
    text = (
        f"{place.name}: mean Dice {format_metric('dice', place.dice)}, {words} {significant(place.cost)} {unit}, "
        f"unbeaten in {rough_percent(place.share)} of resamples"
    )
    if deepest is None or place.name == deepest.name:
        return text
    low, high = place.bar
    return f"{text}, 95 % interval relative to {deepest.name} {low:.4f} to {high:.4f}"
