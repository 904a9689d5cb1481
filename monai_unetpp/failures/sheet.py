"""A sheet of pictures: each whole image, beside a part of it that shows truth and segmentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from monai_unetpp.errors import printable
from monai_unetpp.failures.examined_cases import CaseArrays
from monai_unetpp.failures.kinds import ExaminedCase, FailureReport
from monai_unetpp.files import write_figure
from monai_unetpp.reporting.figures import HALO, PALETTE, new_figure
from monai_unetpp.reporting.overlays import draw_contour, draw_grey, error_slice, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PICTURES = 24
_LARGEST_WINDOW, _SMALLEST_WINDOW = 128, 48
_CONTEXT = 0.3
"""Margin around the labels, as a share of their extent."""

_TRUTH, _SEGMENTATION, _CONFUSED = PALETTE[5], PALETTE[4], PALETTE[3]
_ALMOST_ALL = 0.75
"""The image is shown whole if a part of it would hold this share along both axes."""
_PANEL_INCHES = 3.0
_GAP = 0.06

_Array = npt.NDArray[Any]


def save_sheet(
    path: str | PathLike[str],
    cases: Sequence[ExaminedCase],
    report: FailureReport,
    read: Callable[[ExaminedCase], CaseArrays],
) -> None:
    """Draw cases, two in a row: the image, and beside it the part with the most errors, with contours and tints.

    Of a volume, the slice with the most errors is drawn, perpendicular to its coarsest axis. Missed areas lie inside
    the truth's contour only, false positives inside the segmentation's only; each is tinted in its contour's colour.
    The first 24 of the cases, which have scores, are drawn into the PNG ``path``; ``read`` reads the files of one.
    """
    shown = cases[:MOST_PICTURES]
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    # a narrow column keeps the pairs of a row apart
    ratios = (1, 1, _GAP) * columns
    width, height = _PANEL_INCHES * sum(ratios), (_PANEL_INCHES + 0.45) * rows + 0.4
    with new_figure(width, height, rows, len(ratios), width_ratios=ratios) as (figure, grid):
        figure.set_layout_engine("constrained", w_pad=0.02, wspace=0)
        for axes in grid.flat:
            axes.set_axis_off()
        for (left, right, _), case in zip(grid.reshape(-1, 3), shown, strict=False):
            where = _draw_case(left, right, read(case), sorted(report.labels.values()))
            left.set_title(_title(case, report, where), fontsize=9, fontweight="normal", linespacing=1.35)
        framed = any(axes.patches for axes in grid.flat)
        _draw_legend(figure, confused=len(report.labels) > 1, framed=framed, columns=3 * columns)
        description = "; ".join(_title(case, report).replace("\n", ", ") for case in shown)
        metadata = {"Title": f"{printable(report.dataset)}: worst cases", "Description": description}
        write_figure(path, figure, dpi=130, metadata=metadata)


def error_window(truth: npt.ArrayLike, segmentation: npt.ArrayLike) -> tuple[slice, slice]:
    """The part of a 2D image to show: the labels ``(H, W)`` with a margin or, if that is too large, where errors are.

    It has 48 to 128 pixels along each axis (fewer in a smaller image), or is the whole image if that is little more.
    The share of wrong pixels in it is as close to a half as possible, so that the borders of errors show.
    """
    true, segmented = np.asarray(truth), np.asarray(segmentation)
    labelled, wrong = (true != 0) | (segmented != 0), true != segmented
    sides = [_side(labelled.any(axis=1 - axis)) for axis in range(2)]
    # square, if the image is large enough
    size = [min(max(sides), length) for length in true.shape]
    if all(side >= _ALMOST_ALL * length for side, length in zip(size, true.shape, strict=True)):
        return slice(0, true.shape[0]), slice(0, true.shape[1])
    return _densest(wrong, labelled, size)


def _side(occupied: npt.NDArray[np.bool_]) -> int:
    places = np.flatnonzero(occupied)
    extent = places[-1] - places[0] + 1 if len(places) else len(occupied)
    return int(np.clip(math.ceil(extent * (1 + _CONTEXT)), _SMALLEST_WINDOW, _LARGEST_WINDOW))


def _densest(wrong: _Array, labelled: _Array, size: Sequence[int]) -> tuple[slice, slice]:
    share = _window_sums(wrong, size) / math.prod(size)
    mixed = share * (1 - share)
    # among equals the one with the most labelled pixels, then the most central
    seen = np.where(mixed == mixed.max(), _window_sums(labelled, size), -1)
    places = np.argwhere(seen == seen.max())
    start = places[np.abs(places - places.mean(axis=0)).sum(axis=1).argmin()]
    rows, columns = (slice(int(at), int(at) + length) for at, length in zip(start, size, strict=True))
    return rows, columns


def _window_sums(mask: _Array, size: Sequence[int]) -> _Array:
    """Number of pixels of a mask in every window inside the image, by the window's first pixel."""
    sums = np.pad(mask, ((1, 0), (1, 0))).cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    rows, columns = size
    total: _Array = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
    return total


def _title(case: ExaminedCase, report: FailureReport, where: str = "") -> str:
    # a single kind need not be named
    kind = report.case_kinds[case.case].values() if len(report.kinds) > 1 else ()
    details = ", ".join(filter(None, (*kind, where)))
    score = case.score
    figures = (("foreground IoU", score.foreground_iou), ("mean IoU", score.mean_iou)) if score is not None else ()
    values = ", ".join(f"{name} {value:.3f}" for name, value in figures if value is not None)
    return f"{printable(case.case)}{f' ({details})' if details else ''}\n{values}"


def _draw_case(left: Axes, right: Axes, arrays: CaseArrays, values: Sequence[int]) -> str:
    """Draw a case, and return a description of its slice (empty in 2D)."""
    image, truth, segmented, spacing = arrays.image, arrays.truth, arrays.segmentation, arrays.spacing_mm
    axis, index = error_slice(truth, segmented, spacing)
    if axis is not None:
        image, truth, segmented = (np.take(each, index, axis) for each in (image, truth, segmented))
        spacing = spacing[:axis] + spacing[axis + 1 :]
    window = error_window(truth, segmented)
    upright = axis is not None
    _draw_image(left, image, spacing, upright)
    if any(part.stop - part.start < length for part, length in zip(window, image.shape, strict=True)):
        _draw_frame(left, window)
    _draw_image(right, image[window], spacing, upright)
    truth, segmented = truth[window], segmented[window]
    tint(right, (truth != 0) & (segmented == 0), _TRUTH, 0.5)
    tint(right, (segmented != 0) & (truth == 0), _SEGMENTATION, 0.5)
    tint(right, (segmented != 0) & (truth != 0) & (segmented != truth), _CONFUSED, 0.5)
    for mask, colour, width in ((truth, _TRUTH, 1.8), (segmented, _SEGMENTATION, 0.9)):
        for value in values:
            draw_contour(right, mask == value, colour, width)
    return f"slice {index} across axis {axis}" if axis is not None else ""


def _draw_image(axes: Axes, image: _Array, spacing: Sequence[float], upright: bool) -> None:
    # photographs start at the top; in a RAS volume, the second and third axis run upwards
    limits = np.percentile(image, (0.5, 99.5))
    draw_grey(axes, image, limits, upright=upright, aspect=spacing[1] / spacing[0])
    axes.set_autoscale_on(False)
    axes.set_anchor("NW")


def _draw_frame(axes: Axes, window: tuple[slice, slice]) -> None:
    from matplotlib.patches import Rectangle

    (x, y), (width, height) = zip(*((part.start - 0.5, part.stop - part.start) for part in window), strict=True)
    for colour, line in ((HALO, 2.6), ("white", 1.2)):
        axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=line))


def _draw_legend(figure: Figure, confused: bool, framed: bool, columns: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Line2D([], [], color=_TRUTH, linewidth=2.4, label="truth"),
        Line2D([], [], color=_SEGMENTATION, linewidth=1.4, label="segmentation"),
        Patch(facecolor=_TRUTH, alpha=0.6, label="missed"),
        Patch(facecolor=_SEGMENTATION, alpha=0.6, label="false positive"),
    ]
    if confused:
        handles.append(Patch(facecolor=_CONFUSED, alpha=0.6, label="wrong label"))
    if framed:
        handles.append(Patch(facecolor="white", edgecolor=HALO, label="part on the right"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)), fontsize=9)
