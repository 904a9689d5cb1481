"""Draw an image with the segmentations of all levels."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from monai_unetpp.reporting.overlays import draw_contour, draw_grey, draw_letters, draw_scale_bar, tint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Measures of the figure in inches.
_WIDTH = 15.0
_MARGIN = 0.1
_GAP = 0.06
_ROW_NAMES = 0.3
_HEADINGS = 1.0
_LEGEND_ROW = 0.3
_LEGEND_COLUMNS = 6

_PLANES = (("sagittal", "x"), ("coronal", "y"), ("axial", "z"))
#: Letters at the right and at the top of the plane across each axis, with axes towards R, A and S.
_LETTERS = ("AS", "RS", "RA")
#: A column of the picture: the text above it, and a label map on the image's grid; None for the image alone.
Panel = tuple[str, npt.NDArray[Any] | None]


def draw_levels(
    image: Any,
    panels: Sequence[Panel],
    names: Mapping[int, str],
    colours: Sequence[str],
    title: str,
    *,
    position: Sequence[int],
    filled: bool = False,
) -> Figure:
    """Draw panels in three planes: rows are planes, columns are panels.

    All panels have the same width, and the height of their plane; each row has its own scale. The 3D nibabel image has
    axes exactly along R, A and S; the voxel ``position`` lies in all planes. The colours of the labels are in the order
    of their names; ``filled`` labels have transparent colours instead of borders.
    """
    from matplotlib.figure import Figure

    voxels = np.asarray(image.dataobj, dtype=np.float32)
    spacings = [np.delete(np.diag(image.affine)[:3], axis).tolist() for axis in range(3)]
    position_mm = image.affine[:3, :3] @ np.asarray(position) + image.affine[:3, 3]
    # a background of zeros would reduce the contrast of the tissues
    inside = voxels[voxels > 0]
    window = np.percentile(inside if len(inside) else voxels, (3, 97))
    shapes = [voxels.shape[:axis] + voxels.shape[axis + 1 :] for axis in range(3)]
    width = (_WIDTH - 2 * _MARGIN - _ROW_NAMES - (len(panels) - 1) * _GAP) / len(panels)
    heights = [width * (y * dy) / (x * dx) for (x, y), (dx, dy) in zip(shapes, spacings, strict=True)]
    total = _HEADINGS + sum(heights) + 2 * _GAP + 0.1 + _LEGEND_ROW * math.ceil(len(names) / _LEGEND_COLUMNS)
    figure = Figure(figsize=(_WIDTH, total), facecolor="white")
    top = total - _HEADINGS
    for axis, (plane, coordinate) in enumerate(_PLANES):
        top -= heights[axis]
        for column, (heading, labels) in enumerate(panels):
            left = _MARGIN + _ROW_NAMES + column * (width + _GAP)
            axes = figure.add_axes((left / _WIDTH, top / total, width / _WIDTH, heights[axis] / total))
            axes.set_axis_off()
            plane_of = functools.partial(np.take, indices=position[axis], axis=axis)
            draw_grey(axes, plane_of(voxels), window, interpolation="bicubic", aspect="auto")
            axes.set_autoscale_on(False)
            if labels is None:
                draw_letters(axes, *_LETTERS[axis])
                draw_scale_bar(axes, shapes[axis], spacings[axis], "mm")
            else:
                _draw_labels(axes, plane_of(labels), dict(zip(names, colours, strict=True)), filled)
            if axis == 0:
                axes.set_title(heading)
        place = (_MARGIN + _ROW_NAMES / 2) / _WIDTH, (top + heights[axis] / 2) / total
        name = f"{plane}, {coordinate} = {position_mm[axis]:.0f} mm"
        figure.text(*place, name, rotation="vertical", ha="center", va="center", fontsize=12)
        top -= _GAP
    figure.text((_MARGIN + _ROW_NAMES) / _WIDTH, 1 - _MARGIN / total, title, va="top", fontsize=15, weight="bold")
    _draw_legend(figure, names, colours, total)
    return figure


def _draw_labels(axes: Any, labels: npt.NDArray[Any], colours: Mapping[int, str], filled: bool) -> None:
    for value, colour in colours.items():
        if filled:
            tint(axes, labels == value, colour, 0.55)
        else:
            draw_contour(axes, labels == value, colour, 2.2, rounded=True, halo=True)


def _draw_legend(figure: Any, names: Mapping[int, str], colours: Sequence[str], total: float) -> None:
    from matplotlib.lines import Line2D

    figure.legend(
        handles=[
            Line2D([], [], color=colour, linewidth=3, label=name)
            for name, colour in zip(names.values(), colours, strict=True)
        ],
        loc="lower center",
        bbox_to_anchor=(0.5, 0.02 / total),
        ncols=min(len(names), _LEGEND_COLUMNS),
        frameon=False,
        fontsize=12,
    )
