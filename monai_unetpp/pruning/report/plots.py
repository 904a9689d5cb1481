"""The plots of a pruning report, as SVG with text drawn as paths, so that they look the same on any machine.

Shape or position always repeats what colour says. Each function returns the picture and its alternative text.
"""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

from monai_unetpp.metrics import METRICS
from monai_unetpp.pruning.report.grid_tables import grid_state
from monai_unetpp.pruning.results import Comparison, Decision, OperatingGrid, OperatingPoint, PruningResult
from monai_unetpp.pruning.summary import shown_labels
from monai_unetpp.pruning.wording import format_difference, format_metric
from monai_unetpp.reporting.figures import FAINT, INK, PALETTE, new_figure, use_log_scale
from monai_unetpp.reporting.numbers import rough_percent, significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_PANELS = 6
_MAX_SPOTS = 600


class Spot(NamedTuple):
    """A place in a plot, in percent of its width from the left and of its height from the top, with its values."""

    left: float
    top: float
    text: str


class Picture(NamedTuple):
    """A plot: SVG source with a transparent background, alternative text, and places that show values."""

    svg: str
    alt: str
    spots: tuple[Spot, ...] = ()


def picture_of(figure: Figure, alt: str, marks: Sequence[tuple[Axes, tuple[float, float], str]] = ()) -> Picture:
    """The finished figure with its marks (axes, position in data coordinates, values to show), unless they are many."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    spots = []
    for axes, position, text in marks if len(marks) <= _MAX_SPOTS else ():
        x, y = figure.transFigure.inverted().transform(axes.transData.transform(position))
        if math.isfinite(x) and math.isfinite(y):
            spots.append(Spot(round(100 * float(x), 2), round(100 * (1 - float(y)), 2), text))
    return Picture(buffer.getvalue(), alt, tuple(spots))


_SETTING_MARKERS = "osD^vP"
"""One for each precision and runtime, repeated if there are more."""


def plot_grid(grid: OperatingGrid) -> Picture:
    """Plot the mean Dice of every operating point against its time, with the Pareto front.

    Colour is the level, shape the precision and runtime; filled points are the reference and those that pass.
    """
    colours = dict(zip(dict.fromkeys(point.level for point in grid.points), cycle(PALETTE), strict=False))
    markers = dict(zip(dict.fromkeys(map(_kind, grid.points)), cycle(_SETTING_MARKERS), strict=False))
    place = {name: (grid.time_ratios[name].median, accuracy) for name, accuracy in grid.accuracy.items()}
    with new_figure(9.0, 5.0) as (figure, axes_grid):
        axes = axes_grid[0, 0]
        if len(grid.front) > 1:
            axes.plot(*zip(*(place[name] for name in grid.front), strict=True), color=FAINT, linestyle="--", zorder=1)
        for point in grid.points:
            colour = colours[point.level]
            filled = grid_state(grid, point.name) in ("pass", "reference")
            axes.plot(
                *place[point.name],
                marker=markers[_kind(point)],
                markersize=8,
                color=colour,
                markerfacecolor=colour if filled else "white",
                markeredgewidth=1.6,
                linestyle="none",
                zorder=3,
            )
        for name in dict.fromkeys((grid.recommended or grid.reference, grid.reference)):
            axes.plot(*place[name], marker="o", markersize=16, markerfacecolor="none", color=INK, zorder=4)
        for number, name in enumerate(grid.front, start=1):
            style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 8.5, "zorder": 5}
            axes.annotate(str(number), place[name], xytext=(0, 11), **style)
        axes.margins(0.08, 0.14)
        use_log_scale(axes)
        axes.set_xlabel("time per volume (times that of the reference; median, logarithmic)")
        axes.set_ylabel("mean Dice over the labels (0 to 1)")
        _legend_grid(figure, grid, colours, markers)
        words = {
            p.name: f"{p.name} {grid.accuracy[p.name]:.3f} at {significant(place[p.name][0])}" for p in grid.points
        }
        often = {name: f", unbeaten in {rough_percent(share)} of resamples" for name, share in grid.on_front.items()}
        marks = [
            (axes, place[name], f"{text} of the reference's time{often.get(name, '')}") for name, text in words.items()
        ]
        alt = "Mean Dice against time relative to the reference: " + "; ".join(words.values()) + "."
        return picture_of(figure, alt, marks)


def _kind(point: OperatingPoint) -> str:
    return f"{point.known_setting.precision} {point.known_setting.runtime}"


def _legend_grid(figure: Figure, grid: OperatingGrid, colours: dict[str, str], markers: dict[str, str]) -> None:
    dot: dict[str, Any] = {"linestyle": "none", "marker": "o"}
    handles = [_handle(level, colour, **dot) for level, colour in colours.items()]
    handles += [_handle(kind, FAINT, linestyle="none", marker=marker) for kind, marker in markers.items()]
    if any(outcome.state != "pass" for outcome in grid.outcomes):
        handles.append(_handle("hollow: not shown to pass", FAINT, markerfacecolor="white", **dot))
    ringed = "reference" if grid.recommended is None else "recommended, and reference"
    handles.append(_handle(ringed, INK, markersize=13, markerfacecolor="none", **dot))
    if len(grid.front) > 1:
        handles.append(_handle("Pareto front, numbered", FAINT, linestyle="--"))
    _legend(figure, handles, 5)


def plot_differences(result: PruningResult, decision: Decision) -> Picture | None:
    """Plot mean differences with bounds, zero and the margin, one panel per metric; None without comparisons.

    Untested comparisons are grey and hollow.
    """
    metrics = tuple(dict.fromkeys(comparison.metric for comparison in decision.comparisons))
    if not metrics:
        return None
    tested = decision.tested
    groups = [[c for c in decision.comparisons if c.metric == metric] for metric in metrics]
    height = 1.5 + 0.32 * max(map(len, groups))
    with new_figure(max(6.0, 5.6 * len(metrics)), height, 1, len(metrics)) as (figure, grid):
        for axes, metric, comparisons in zip(grid.flat, metrics, groups, strict=True):
            _draw_differences(axes, comparisons, tested)
            axes.set_title(METRICS[metric].heading)
            unit = METRICS[metric].unit or "share"
            axes.set_xlabel(f"level minus deepest ({unit}); left is worse")
        untested = any(c.point not in tested for c in decision.comparisons)
        _legend_differences(figure, {c.state for c in decision.comparisons if c.point in tested}, untested)
        words = [
            f"{c.point} {METRICS[c.metric].name} {c.label} {format_difference(c.metric, c.mean_difference)}, bound "
            f"{format_difference(c.metric, c.lower_bound)}, margin {c.margin:g}, {_outcome(c, tested)}"
            for c in decision.comparisons
        ]
        marks = [
            (axes, (c.mean_difference, row), words[decision.comparisons.index(c)])
            for axes, comparisons in zip(grid.flat, groups, strict=True)
            for row, c in enumerate(comparisons)
            if axes.get_xlim()[0] <= c.mean_difference <= axes.get_xlim()[1]
        ]
        alt = "Mean differences from the deepest level with bounds: " + "; ".join(words) + "."
        return picture_of(figure, alt, marks)


_STATE_STYLE = {"pass": ("o", PALETTE[0]), "fail": ("s", PALETTE[1]), "inconclusive": ("D", PALETTE[4])}
_MARGIN_STYLE: dict[str, Any] = {"color": PALETTE[3], "linewidth": 2, "linestyle": (0, (3, 1.5))}


def _outcome(comparison: Comparison, tested: Collection[str]) -> str:
    return comparison.state if comparison.point in tested else f"{comparison.state}, not tested"


def _draw_differences(axes: Axes, comparisons: Sequence[Comparison], tested: Collection[str]) -> None:
    low, high = _difference_limits(comparisons)
    axes.axvline(0, color=INK, linewidth=1)
    for row, c in enumerate(comparisons):
        marker, colour = _STATE_STYLE[c.state]
        face = colour
        if c.point not in tested:
            colour, face = FAINT, "white"
        axes.plot([-c.margin, -c.margin], [row - 0.5, row + 0.5], **_MARGIN_STYLE)
        if math.isfinite(c.lower_bound) and math.isfinite(c.upper_bound):
            axes.plot([c.lower_bound, c.upper_bound], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot([c.lower_bound], [row], marker="|", markersize=11, markeredgewidth=2, color=colour)
        if math.isfinite(c.mean_difference):
            style: dict[str, Any] = {"marker": marker, "markersize": 7, "markerfacecolor": face}
            axes.plot([c.mean_difference], [row], color=colour, linestyle="none", **style)
        for edge, arrow, out in ((low, "<", c.lower_bound < low), (high, ">", c.upper_bound > high)):
            if out:
                # the interval continues beyond the plot
                axes.plot(edge, row, marker=arrow, markersize=9, color=colour, clip_on=False)
    axes.set_yticks(range(len(comparisons)), [f"{c.point} · {c.label} · {_outcome(c, tested)}" for c in comparisons])
    axes.set_ylim(len(comparisons) - 0.4, -0.6)
    axes.set_xlim(low, high)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0, pad=9)


def _difference_limits(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """Limits that hold everything near the margin; clear failures must not squeeze the rest."""
    margin = max(c.margin for c in comparisons)
    near = [c for c in comparisons if c.state != "fail"]
    extent = max(
        [5 * margin, *(1.3 * abs(b) for c in near for b in (c.lower_bound, c.upper_bound) if math.isfinite(b))]
    )
    ends = [b for c in comparisons for b in (c.lower_bound, c.upper_bound, -c.margin, 0.0) if math.isfinite(b)]
    pad = 0.06 * (max(ends) - min(ends))
    return max(-extent, min(ends) - pad), min(extent, max(ends) + max(pad, 0.5 * margin))


def _legend_differences(figure: Figure, states: set[str], untested: bool) -> None:
    handles = [
        _handle(state, colour, marker=marker, linewidth=2, markersize=7)
        for state, (marker, colour) in _STATE_STYLE.items()
        if state in states
    ]
    if untested:
        handles.append(_handle("not tested, descriptive", FAINT, marker="o", markerfacecolor="white", linewidth=2))
    handles += [_handle("minus the margin", **_MARGIN_STYLE), _handle("no difference", INK, linewidth=1)]
    _legend(figure, handles, 5)


def plot_case_lines(result: PruningResult) -> Picture | None:
    """Plot the Dice of every case across the operating points, one panel per label.

    None with a single point, or where no case has a label.
    """
    if len(result.points) < 2 or all(row.score.dice is None for row in result.rows):
        return None
    every, names = shown_labels(result), [point.name for point in result.points]
    labels = every[-_MAX_PANELS:]
    undrawn = f" Not drawn: {', '.join(every[:-_MAX_PANELS])}." if len(every) > len(labels) else ""
    embedded = [point.name for point in result.points if point.kind == "embedded"]
    colours = dict(zip(dict.fromkeys(row.dataset for row in result.rows), cycle(PALETTE), strict=False))
    dice: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in result.rows:
        if row.score.dice is not None:
            dice.setdefault((row.label, row.dataset, row.case), {})[row.point] = row.score.dice
    zeros = [row for row in result.rows if row.score.dice == 0 and row.label in labels]
    columns = 2 if len(labels) == 4 else min(len(labels), 3)
    rows = math.ceil(len(labels) / columns)
    with new_figure(max(3.75 * columns, 5.0), 0.4 + 2.9 * rows, rows, columns) as (figure, grid):
        for axes in grid.flat[len(labels) :]:
            axes.set_visible(False)
        for index, (axes, label) in enumerate(zip(grid.flat, labels, strict=False)):
            for dataset, colour in colours.items():
                cases = [s for (of, where, _), s in dice.items() if (of, where) == (label, dataset)]
                _draw_cases(axes, cases, names, len(embedded), colour)
            means = _draw_means(axes, [s for (of, _, _), s in dice.items() if of == label], names, len(embedded))
            lost = [names.index(row.point) for row in zeros if row.label == label]
            if lost:
                heights = [v for (of, _, _), s in dice.items() if of == label for v in s.values() if v > 0]
                _draw_zeros(axes, lost, [*heights, *(mean for mean in means if mean > 0)])
            axes.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names])
            axes.set_xlim(-0.4, len(names) - 0.6)
            axes.set_title(label)
            if index % columns == 0:
                axes.set_ylabel("Dice (0 to 1)")
            if index + columns >= len(labels):
                axes.set_xlabel("level")
        _legend_cases(figure, colours, bool(zeros))
        count = len({(row.dataset, row.case) for row in result.rows})
        alt = (
            f"Dice of each of {count} cases at {', '.join(names)}, one line per case, for {', '.join(labels)}; "
            f"{len(zeros)} marks of Dice 0.{undrawn}"
        )
        marks = [
            (axes, (names.index(point), value), f"{case} ({dataset}), {point}: Dice {format_metric('dice', value)}")
            for axes, label in zip(grid.flat, labels, strict=False)
            for (of, dataset, case), scores in dice.items()
            if of == label
            for point, value in scores.items()
            if value >= axes.get_ylim()[0]
        ]
        return picture_of(figure, alt, marks)


def _draw_cases(
    axes: Axes, cases: Sequence[dict[str, float]], names: Sequence[str], embedded: int, colour: str
) -> None:
    style: dict[str, Any] = {"color": colour, "alpha": 0.45, "markersize": 3}
    for columns, marker, line in ((range(embedded), "o", 0.9), (range(embedded, len(names)), "D", 0.0)):
        # all cases as one line with gaps, since a thousand separate lines would take a minute to draw
        x = [position for _ in cases for position in (*columns, math.nan)]
        y = [height for scores in cases for height in (*(scores.get(names[i], math.nan) for i in columns), math.nan)]
        axes.plot(x, y, linewidth=line, marker=marker, linestyle="-" if line else "none", **style)


def _draw_means(axes: Axes, cases: Sequence[dict[str, float]], names: Sequence[str], embedded: int) -> list[float]:
    columns = [[scores[name] for scores in cases if name in scores] for name in names]
    means = [sum(column) / len(column) if column else math.nan for column in columns]
    style: dict[str, Any] = {"color": INK, "markersize": 6, "zorder": 3, "markeredgecolor": "white"}
    axes.plot(range(embedded), means[:embedded], linewidth=2.2, marker="o", **style)
    axes.plot(range(embedded, len(means)), means[embedded:], linestyle="none", marker="D", **style)
    return means


def _draw_zeros(axes: Axes, positions: Sequence[int], heights: Sequence[float]) -> None:
    """Draw crosses at the lower edge, so that a few zeros do not flatten all other lines."""
    low, high = (min(heights), max(heights)) if heights else (0.0, 1.0)
    room = 0.12 * max(high - low, 0.05)
    bottom = max(0.0, low - room)
    axes.set_ylim(bottom, high + room)
    style: dict[str, Any] = {"color": INK, "markersize": 7, "markeredgewidth": 1.8, "linestyle": "none", "zorder": 4}
    axes.plot(positions, [bottom] * len(positions), marker="x", clip_on=False, **style)


def _legend_cases(figure: Figure, colours: dict[str, str], zeros: bool) -> None:
    handles = [_handle(name, colour, marker="o", markersize=3) for name, colour in colours.items()]
    handles.append(_handle("mean", INK, linewidth=2.2, marker="o"))
    if zeros:
        words = "Dice 0: missed, or found where nothing is (at the lower edge)"
        handles.append(_handle(words, INK, marker="x", linestyle="none"))
    _legend(figure, handles, 4)


def _handle(label: str, color: str, **style: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, color=color, **style)


def _legend(figure: Figure, handles: Sequence[Any], columns: int) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8.5)
