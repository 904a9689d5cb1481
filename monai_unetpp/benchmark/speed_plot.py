"""The plot of an inference benchmark."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from monai_unetpp.benchmark.speed_results import InferenceBenchmark
from monai_unetpp.files import make_output_dir, write_figure
from monai_unetpp.reporting.figures import FAINT, INK, PALETTE, check_drawing, new_figure, use_log_scale

_RUNTIMES = {"MONAI": FAINT, "torch": PALETTE[0], "compile": PALETTE[4], "openvino": PALETTE[2]}
_HATCHES = {"fp32": "", "bf16": "///", "fp16": "..."}


def save_speed_plot(result: InferenceBenchmark, path: str | PathLike[str]) -> None:
    """Draw how many times as fast as MONAI's route each contender is, as bars on a logarithmic axis.

    Colour shows the runtime and hatching the precision, as do the names of the bars. Whiskers are the quartiles over
    the rounds.

    The path is one that :func:`check_plot_path` accepts.
    """
    with new_figure(8.5, 1.5 + 0.3 * len(result.costs)) as (figure, grid):
        axes = grid[0, 0]
        for row, cost in enumerate(result.costs):
            speed_up = cost.speed_up
            axes.barh(
                row,
                # starting at 1, MONAI's speed
                speed_up.median - 1,
                left=1,
                height=0.72,
                color=_RUNTIMES["MONAI" if cost.level is None else cost.runtime],
                hatch=_HATCHES[cost.precision],
                edgecolor="white",
                xerr=[[speed_up.median - speed_up.lower], [speed_up.upper - speed_up.median]],
                error_kw={"ecolor": INK, "capsize": 2, "linewidth": 1},
            )
            text = f"{speed_up.median:.2f}x   {cost.seconds.median:.3g} s"
            axes.annotate(
                text, (max(speed_up.upper, 1.0), row), (6, 0), textcoords="offset points", va="center", fontsize=8.5
            )
        axes.set_yticks(range(len(result.costs)), [cost.name for cost in result.costs])
        axes.invert_yaxis()
        use_log_scale(axes, "x")
        axes.axvline(1, color=INK, linewidth=1)
        least = min(cost.speed_up.lower for cost in result.costs)
        most = max(cost.speed_up.upper for cost in result.costs)
        # room for the text beside the longest bar
        axes.set_xlim(min(0.9, 0.9 * least), max(2.0, most * max(1.5, most**0.45)))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"times as fast as {result.reference} (median and quartiles of the rounds; logarithmic)")
        volume = " x ".join(map(str, result.volume_shape))
        axes.set_title(f"Segmenting {volume} voxels: {result.environment.device}", fontsize=9.5)
        write_figure(path, figure, dpi=150)


def check_plot_path(path: str | PathLike[str]) -> None:
    """Check before measuring that a plot can be drawn, with the errors of ``run_benchmark``."""
    if not str(path).lower().endswith(".png"):
        raise ValueError(f"plot must be a PNG file, got {str(path)!r}. Give it the suffix .png.")
    if os.path.isdir(path):
        raise ValueError(f"plot must be a file, got the folder {str(path)!r}. Give it another name.")
    check_drawing()
    make_output_dir(Path(path).parent)
