"""Figures in one style, with text drawn as paths, so that they look the same on any machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from monai_unetpp.installing import install_command

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

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
    "axes.unicode_minus": False,
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
    """Make the x-axis logarithmic, with plain numbers and their ``unit`` even within one power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    # matplotlib's own labels are formulas, which the style switches off
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


_MARKER = 8.0
"""Half the size of a marker with some room around it, in pixels."""

_BESIDE = (
    (0, 9, "center", "bottom"),
    (0, -9, "center", "top"),
    (10, 0, "left", "center"),
    (-10, 0, "right", "center"),
    (-6, 9, "left", "bottom"),
    (6, 9, "right", "bottom"),
    (-6, -9, "left", "top"),
    (6, -9, "right", "top"),
)
_FARTHER = tuple(
    (right, up, horizontal, vertical)
    for up, vertical in ((36, "bottom"), (-36, "top"))
    for right, horizontal in ((0, "center"), (20, "left"), (-20, "right"))
)
_SIDES = (*_BESIDE, *_FARTHER)
"""Where a text can be, as its offset from the point in points of 1/72 inch, and its alignment."""

_LINE: Any = {"arrowstyle": "-", "color": FAINT, "shrinkA": 0, "shrinkB": 5}


def write_beside(axes: Axes, points: Sequence[tuple[float, float, float, str]], **options: Any) -> None:
    """Write a text at each point, on the side where it hides least of the others, with a line to it if that is farther.

    To be called when all else is drawn and the limits of the axes are set. A point is its place along the x-axis, its
    lower and upper end along the y-axis, and its text; ``options`` are those of ``annotate``, such as ``fontsize``.
    """
    from matplotlib.transforms import Bbox

    figure: Any = axes.figure
    # the layout gives the axes their final place
    figure.get_layout_engine().execute(figure)
    taken = [Bbox(axes.transData.transform([(x, low), (x, high)])).padded(_MARKER) for x, low, high, _ in points]
    for x, low, high, text in points:
        note = axes.annotate(text, (x, high), (0, 0), textcoords="offset points", **options)
        # otherwise the axes would shrink to make room for it
        note.set_in_layout(False)
        hidden = [_hidden(_put(note, side, x, low, high), taken, axes) for side in range(len(_SIDES))]
        side = hidden.index(min(hidden))
        taken.append(_put(note, side, x, low, high))
        if side >= len(_BESIDE):
            axes.annotate("", note.xy, note.xyann, textcoords="offset points", arrowprops=_LINE)


def _put(note: Annotation, side: int, x: float, low: float, high: float) -> Bbox:
    """Move the text to a side of its point; where it is then, in pixels."""
    right, up, horizontal, vertical = _SIDES[side]
    note.xy = (x, high if up > 0 else low if up < 0 else (low + high) / 2)
    note.xyann = (right, up)
    note.set(horizontalalignment=horizontal, verticalalignment=vertical)
    return note.get_window_extent()


def _hidden(box: Bbox, taken: Sequence[Bbox], axes: Axes) -> float:
    """How much of a text at ``box`` lies on what is taken, as shares of the text; outside of the axes, two more."""
    inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
    shared = filter(None, (box.intersection(box, other) for other in taken))
    covered = sum((each.width * each.height for each in shared), 0.0)
    return float(covered / (box.width * box.height)) + (0.0 if inside else 2.0)
