"""One picture of an image and of what every level made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Panel", "draw_levels"]

_HALO = "#1a1a1a"

#: What the figure is measured in: inches.
_WIDTH = 15.0
_MARGIN = 0.1
_GAP = 0.06
_ROW_NAMES = 0.3
_HEADINGS = 1.0
_LEGEND = 0.4

_PLANES = (("sagittal", "x"), ("coronal", "y"), ("axial", "z"))
#: What is at the left, the right, the bottom and the top of a plane across each axis, where axes run to R, A and S.
_LETTERS = ("PAIS", "LRIS", "LRPA")


@dataclasses.dataclass(frozen=True)
class Panel:
    """One column of the picture.

    Attributes:
        heading: stands above it.
        labels: label map on the image's grid; None for the image alone.
    """

    heading: str
    labels: npt.NDArray[Any] | None = None


def draw_levels(
    figure: Any,
    image: Any,
    panels: Sequence[Panel],
    names: Mapping[int, str],
    colours: Sequence[str],
    title: str,
    *,
    position: Sequence[int],
    filled: bool = False,
    scale_bar_mm: float = 10,
) -> None:
    """Draw panels side by side, in three planes: rows are planes, columns panels.

    All panels are equally wide and as high as their plane asks for, so that no room is lost; each row has its scale.

    Args:
        figure: an empty matplotlib figure; its size is set.
        image: 3D nibabel image with axes exactly along R, A and S.
        panels: the columns.
        names: value and name of the labels.
        colours: a colour for each label, in the order of ``names``.
        title: stands above all.
        position: voxel ``(x, y, z)`` that the planes run through.
        filled: fill the labels in colours that let the image through, instead of drawing their borders.
        scale_bar_mm: length of the scale bars.
    """
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    spacing = np.diag(image.affine)[:3]
    position_mm = image.affine[:3, :3] @ np.asarray(position) + image.affine[:3, 3]
    # a background of zeros would take the contrast of the tissues
    inside = voxels[voxels > 0]
    window = np.percentile(inside if len(inside) else voxels, (3, 97))

    size_mm = [np.delete(np.array(voxels.shape) * spacing, axis) for axis in range(3)]
    width = (_WIDTH - 2 * _MARGIN - _ROW_NAMES - (len(panels) - 1) * _GAP) / len(panels)
    heights = [width * vertical / horizontal for horizontal, vertical in size_mm]
    total = _HEADINGS + sum(heights) + 2 * _GAP + _LEGEND
    figure.set_size_inches(_WIDTH, total)

    top = total - _HEADINGS
    for axis, (plane, coordinate) in enumerate(_PLANES):
        top -= heights[axis]
        for column, panel in enumerate(panels):
            left = _MARGIN + _ROW_NAMES + column * (width + _GAP)
            axes = figure.add_axes((left / _WIDTH, top / total, width / _WIDTH, heights[axis] / total))
            axes.set_axis_off()
            _draw_plane(axes, _slice(voxels, axis, position[axis]), size_mm[axis], window)
            if panel.labels is None:
                _draw_letters(axes, _LETTERS[axis])
                _draw_scale_bar(axes, size_mm[axis], scale_bar_mm)
            else:
                draw = _fill if filled else _draw_contour
                for value, colour in zip(names, colours, strict=True):
                    draw(axes, _slice(panel.labels, axis, position[axis]) == value, size_mm[axis], colour)
            if axis == 0:
                axes.set_title(panel.heading)
        figure.text(
            (_MARGIN + _ROW_NAMES / 2) / _WIDTH,
            (top + heights[axis] / 2) / total,
            f"{plane}, {coordinate} = {position_mm[axis]:.0f} mm",
            rotation="vertical",
            ha="center",
            va="center",
            fontsize=12,
        )
        top -= _GAP
    figure.text((_MARGIN + _ROW_NAMES) / _WIDTH, 1 - _MARGIN / total, title, va="top", fontsize=15, weight="bold")
    _draw_legend(figure, names, colours, total)


def _draw_plane(axes: Any, plane: npt.NDArray[Any], size_mm: npt.NDArray[Any], window: npt.NDArray[Any]) -> None:
    axes.imshow(
        plane,
        cmap="gray",
        origin="lower",
        extent=(0, size_mm[0], 0, size_mm[1]),
        vmin=window[0],
        vmax=window[1],
        interpolation="bicubic",
        aspect="auto",
    )
    axes.set_autoscale_on(False)


def _draw_contour(axes: Any, mask: npt.NDArray[np.bool_], size_mm: npt.NDArray[Any], colour: str) -> None:
    """The border of a label, with the corners of its voxels rounded."""
    if not mask.any():
        return
    fine = 6
    smooth = gaussian_filter(np.kron(mask, np.ones((fine, fine))).astype(np.float32), 0.6 * fine)
    y, x = (
        (np.arange(count) + 0.5) * length / count for count, length in zip(smooth.shape, size_mm[::-1], strict=True)
    )
    axes.contour(x, y, smooth, levels=[0.5], colors=[_HALO], linewidths=3.4, alpha=0.5)
    axes.contour(x, y, smooth, levels=[0.5], colors=[colour], linewidths=2.2)


def _fill(axes: Any, mask: npt.NDArray[np.bool_], size_mm: npt.NDArray[Any], colour: str) -> None:
    from matplotlib.colors import to_rgb

    pixels = np.zeros((*mask.shape, 4), dtype=np.float32)
    pixels[mask] = (*to_rgb(colour), 0.55)
    axes.imshow(pixels, origin="lower", extent=(0, size_mm[0], 0, size_mm[1]), interpolation="nearest", aspect="auto")


def _draw_letters(axes: Any, letters: str) -> None:
    places = (
        (0.015, 0.5, "left", "center"),
        (0.985, 0.5, "right", "center"),
        (0.5, 0.015, "center", "bottom"),
        (0.5, 0.985, "center", "top"),
    )
    for letter, (x, y, ha, va) in zip(letters, places, strict=True):
        _outlined(axes.text(x, y, letter, ha=ha, va=va, transform=axes.transAxes, color="white", fontsize=11))


def _draw_scale_bar(axes: Any, size_mm: npt.NDArray[Any], length_mm: float) -> None:
    x, y = 0.03 * size_mm[0], 0.035 * size_mm[0]
    axes.plot([x, x + length_mm], [y, y], color=_HALO, linewidth=5, solid_capstyle="butt")
    axes.plot([x, x + length_mm], [y, y], color="white", linewidth=3, solid_capstyle="butt")
    text = axes.text(
        x + length_mm / 2, y + 0.01 * size_mm[0], f"{length_mm:g} mm", color="white", ha="center", va="bottom"
    )
    _outlined(text)


def _outlined(text: Any) -> None:
    """Readable on bright and on dark ground."""
    from matplotlib.patheffects import withStroke

    text.set_path_effects([withStroke(linewidth=2.5, foreground=_HALO)])


def _draw_legend(figure: Any, names: Mapping[int, str], colours: Sequence[str], total: float) -> None:
    from matplotlib.lines import Line2D

    figure.legend(
        handles=[
            Line2D([], [], color=colour, linewidth=3, label=name)
            for name, colour in zip(names.values(), colours, strict=True)
        ],
        loc="lower center",
        bbox_to_anchor=(0.5, 0.02 / total),
        ncols=len(names),
        frameon=False,
        fontsize=12,
    )


def _slice(voxels: npt.NDArray[Any], axis: int, index: int) -> npt.NDArray[Any]:
    """A plane with the later axis upwards."""
    plane: npt.NDArray[Any] = np.take(voxels, index, axis=axis).T
    return plane
