"""Figures in one style, with every letter drawn as a path: they look the same on any machine."""

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
"""Colours of Okabe and Ito, which stay apart for all common kinds of colour blindness."""

INK = "#1f2933"
FAINT = "#9aa5b1"
NEUTRAL = "#707d8a"
"""Of words in pictures without a ground: it stands out from white and from black alike (4.2 to 1)."""

HALO = "#1a1a1a"
"""Around what is drawn on images, so that it can be seen on bright ground too."""

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

    The style holds inside the block only; no window system is needed and nothing global is changed.

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
    """Check before long work that figures can be drawn after it.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with new_figure(1, 1):
        pass


def use_log_scale(axes: Axes, unit: str = "") -> None:
    """A logarithmic x-axis with plain numbers, also where all lie within one power of ten.

    Args:
        axes: whose x-axis.
        unit: stands behind each number, such as ``"x"``.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    # the style draws no formulas, which matplotlib's own labels are
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
