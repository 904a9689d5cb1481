"""Figures in one style, with text drawn as paths, so that they look the same on any machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from monai_unetpp.installing import install_command

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FAINT", "HALO", "INK", "NEUTRAL", "PALETTE", "check_drawing", "new_figure", "use_log_scale"]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, distinguishable with all common kinds of colour blindness."""

INK = "#1f2933"
FAINT = "#9aa5b1"
NEUTRAL = "#707d8a"
"""Text in pictures with a transparent background: its contrast is 4.2:1 on white and on black."""

HALO = "#1a1a1a"
"""Outline of what is drawn on images, to keep it visible on bright areas."""

_STYLE: Any = {
    "svg.fonttype": "path",
    "svg.hashsalt": "monai-unetpp",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.8,
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "legend.frameon": False,
    "figure.facecolor": "white",
}


@contextmanager
def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> Iterator[tuple[Figure, Any]]:
    """A figure of ``width`` by ``height`` inches in the report's style, and its array of axes ``(rows, columns)``.

    The style applies inside the block only. No display is needed, and no global setting changes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ImportError(f"Reports need matplotlib: {install_command('report')}") from e
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False, **options)


def check_drawing() -> None:
    """Check, before long work, that its figures can be drawn.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with new_figure(1, 1):
        pass


def use_log_scale(axes: Axes, unit: str = "") -> None:
    """Make the x-axis logarithmic, with plain numbers even within one power of ten.

    Args:
        axes: the axes to change.
        unit: written after each number, such as ``"x"``.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    # matplotlib's own labels are formulas, which the style switches off
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
