"""The pictures of a study: accuracy against cost, and learning curves."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from monai_unetpp.files import write_figure
from monai_unetpp.reporting.figures import PALETTE, new_figure, use_log_scale
from monai_unetpp.study.accuracy_table import measured_where

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 130

#: Colour and marker of each family; the marker repeats what the colour says.
_FAMILIES = {
    "U-Net": (PALETTE[0], "o"),
    "wide U-Net": (PALETTE[5], "s"),
    "U-Net^e": (PALETTE[4], "v"),
    "UNet+": (PALETTE[3], "P"),
    "UNet++": (PALETTE[1], "D"),
    "UNet++ level, embedded": (PALETTE[2], "^"),
    "UNet++ level, alone": (PALETTE[2], "x"),
}


def draw_accuracy(study: Mapping[str, Any], path: str | PathLike[str]) -> None:
    """Plot the IoU of every row against its parameters and its time per window, with the spread over seeds.

    Args:
        study: the content of ``study.json``.
        path: the PNG file to write.

    Raises:
        ImportError: matplotlib is not installed.
    """
    rows = [row for row in study["rows"] if row["iou"]["mean"] is not None]
    timed = [row for row in rows if row["latency_s"] is not None]
    panels: list[tuple[str, list[Any], list[float]]] = [
        ("parameters (million)", rows, [row["parameters"] / 1e6 for row in rows])
    ]
    if timed:
        panels.append(("time per window (ms)", timed, [1000 * row["latency_s"]["median"] for row in timed]))
    with new_figure(3.0 + 4.6 * len(panels), 5.2, 1, len(panels), sharey=True) as (figure, grid):
        for axes, (title, shown, costs) in zip(grid.flat, panels, strict=True):
            _draw_points(axes, shown, costs, [rows.index(row) + 1 for row in shown])
            use_log_scale(axes)
            axes.set_xlabel(title)
        grid.flat[0].set_ylabel("IoU, mean over cases")
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=8)
        _save(figure, study, path)


def draw_learning_curves(study: Mapping[str, Any], path: str | PathLike[str]) -> None:
    """Plot the loss of the deepest head of every network by step, as the mean over seeds.

    Args:
        study: the content of ``study.json``.
        path: the PNG file to write.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with new_figure(9.5, 5.2) as (figure, grid):
        axes = grid[0, 0]
        for number, (variant, by_seed) in enumerate(study["curves"].items()):
            curves = list(by_seed.values())
            loss = [statistics.fmean(values) for values in zip(*(curve["loss"] for curve in curves), strict=False)]
            # when colours repeat, the dashes change
            dashes = ("-", "--", ":")[number // len(PALETTE) % 3]
            axes.plot(
                curves[0]["step"][: len(loss)],
                # the moving average over each value and up to four before it
                [statistics.fmean(loss[max(0, at - 4) : at + 1]) for at in range(len(loss))],
                color=PALETTE[number % len(PALETTE)],
                linestyle=dashes,
                linewidth=1.5,
                label=variant,
            )
        axes.set_xlabel("training step")
        axes.set_ylabel("training loss of the deepest head (moving average)")
        figure.legend(loc="outside right upper", fontsize=8.5)
        _save(figure, study, path)


def _family(row: Mapping[str, Any]) -> str:
    if row["kind"] in ("embedded", "isolated"):
        return "UNet++ level, embedded" if row["kind"] == "embedded" else "UNet++ level, alone"
    found = {"unet_wide": "wide U-Net", "unet_e": "U-Net^e"}.get(row["variant"])
    return found or ("UNet++" if "++" in row["variant"] else "UNet+" if "+" in row["variant"] else "U-Net")


def _draw_points(axes: Axes, rows: Sequence[Mapping[str, Any]], costs: Sequence[float], numbers: Sequence[int]) -> None:
    """Draw a numbered mark for each row, as its name would not fit."""
    for row, cost, number in zip(rows, costs, numbers, strict=True):
        colour, marker = _FAMILIES[_family(row)]
        mean, sd = row["iou"]["mean"], row["iou"]["sd"]
        label = f"{number}  {row['name']}"
        axes.errorbar([cost], [mean], yerr=sd, color=colour, marker=marker, markersize=7, linestyle="none", label=label)
        # an isolated L1 lies on the U-Net of depth 1, and a mean of heads near its deepest level
        offset = (-6, -6) if row["kind"] in ("isolated", "mean") else (6, 4)
        axes.annotate(
            str(number), (cost, mean), xytext=offset, textcoords="offset points", fontsize=7.5, ha="center", va="center"
        )
    axes.margins(0.08, 0.1)


def _save(figure: Figure, study: Mapping[str, Any], path: str | PathLike[str]) -> None:
    figure.supxlabel(measured_where(study), fontsize=7)
    write_figure(path, figure, dpi=_DPI)
