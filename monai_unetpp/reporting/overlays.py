"""Drawing on images: label contours, tints, scale bars and orientation letters; and which slice to show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from monai_unetpp.reporting.figures import HALO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLANES = {"L": "sagittal", "R": "sagittal", "P": "coronal", "A": "coronal", "I": "axial", "S": "axial"}
"""Name of the plane perpendicular to the axis that points to a side of the patient."""

_OPPOSITE = dict(zip("LRPAIS", "RLAPSI", strict=True))

_FINE = 4
"""Contour points per voxel edge."""

_ROUNDING = 0.6
"""Standard deviation of the filter that rounds corners, in voxels."""


def draw_grey(
    axes: Axes, image: npt.NDArray[Any], limits: Iterable[float], *, upright: bool = True, **options: Any
) -> None:
    """Draw a plane ``(W, H)`` in grey: its first axis runs to the right, its second upwards, or else downwards.

    ``limits`` are the intensities shown as black and as white; if they are equal, the image is black. ``options`` are
    those of ``imshow``, such as ``aspect``.
    """
    low, high = limits
    options = {"interpolation": "nearest", "origin": "lower" if upright else "upper", **options}
    axes.imshow(image.T, cmap="gray", vmin=low, vmax=high if high > low else low + 1, **options)


def tint(axes: Axes, mask: npt.NDArray[np.bool_], colour: str, strength: float) -> None:
    """Tint voxels ``(W, H)`` of an image that :func:`draw_grey` drew, with an opacity of ``strength``."""
    from matplotlib.colors import to_rgb

    pixels = np.zeros((*mask.T.shape, 4))
    pixels[..., :3] = to_rgb(colour)
    pixels[..., 3] = strength * mask.T
    axes.imshow(pixels, origin=axes.images[0].origin, interpolation="nearest", aspect=axes.get_aspect())


def draw_contour(
    axes: Axes,
    mask: npt.NDArray[np.bool_],
    colour: str,
    width: float,
    *,
    closed: bool = False,
    rounded: bool = False,
    halo: bool = False,
) -> None:
    """Draw the border of a label ``(W, H)`` along voxel edges, without interpolation; ``width`` is in points.

    ``closed`` draws it also where the label touches the edge of the picture, ``rounded`` rounds the corners, for images
    of few large voxels, and ``halo`` outlines the line in a dark colour.
    """
    # a label that fills the whole picture has no border inside it
    if not mask.any() or (mask.all() and not closed):
        return
    fine = np.kron(np.pad(mask, 1, mode="constant" if closed else "edge"), np.ones((_FINE, _FINE)))
    if rounded:
        fine = gaussian_filter(fine.astype(np.float32), _ROUNDING * _FINE)
    x, y = ((np.arange(points) + 0.5) / _FINE - 1.5 for points in fine.shape)
    if halo:
        axes.contour(x, y, fine.T, levels=[0.5], colors=[HALO], linewidths=width + 1.2, alpha=0.5)
    axes.contour(x, y, fine.T, levels=[0.5], colors=[colour], linewidths=width)


def draw_scale_bar(axes: Axes, shape: tuple[int, int], spacing: Sequence[float], unit: str) -> None:
    """Draw a scale bar of a round length in the lower left corner, readable on black and on white.

    The image of ``shape`` ``(W, H)`` is upright; ``spacing`` is the size of a voxel along both axes, in ``unit``.
    """
    width = shape[0] * spacing[0]
    length = max(
        step * 10.0**power for power in range(-4, 6) for step in (1, 2, 5) if step * 10.0**power <= 0.4 * width
    )
    x, y = 0.04 * shape[0] - 0.5, 0.05 * shape[1] - 0.5
    for colour, thickness in ((HALO, 5.5), ("white", 3.0)):
        axes.plot([x, x + length / spacing[0]], [y, y], color=colour, linewidth=thickness, solid_capstyle="butt")
    style: dict[str, Any] = {"textcoords": "offset points", "color": "white", "fontsize": 8.5}
    _outline(axes.annotate(f"{length:g} {unit}", (x, y), xytext=(0, 4), **style))
    axes.set_xlim(-0.5, shape[0] - 0.5)
    axes.set_ylim(-0.5, shape[1] - 0.5)


def draw_letters(axes: Axes, right: str, top: str) -> None:
    """Draw orientation letters at the four edges: R for the patient's right, A for anterior, S for superior, ...

    ``right`` and ``top`` are those of the right and the upper edge; the other edges get the opposites.
    """
    places = (
        (_OPPOSITE[right], 0.02, 0.5, "left", "center"),
        (right, 0.98, 0.5, "right", "center"),
        (_OPPOSITE[top], 0.5, 0.02, "center", "bottom"),
        (top, 0.5, 0.98, "center", "top"),
    )
    for letter, x, y, side, height in places:
        style: dict[str, Any] = {"ha": side, "va": height, "transform": axes.transAxes}
        _outline(axes.text(x, y, letter, color="white", fontsize=9.5, fontweight="bold", **style))


def _outline(text: Any) -> None:
    from matplotlib.patheffects import withStroke

    text.set_path_effects([withStroke(linewidth=2.2, foreground=HALO)])


def error_slice(truth: npt.ArrayLike, prediction: npt.ArrayLike, spacing: Sequence[float]) -> tuple[int | None, int]:
    """The slice with the most errors (else the most labels, else the middle one): its axis (None in 2D) and index.

    The slice of a volume is perpendicular to the axis of the coarsest ``spacing``, the last of equals.
    """
    true, predicted = np.asarray(truth), np.asarray(prediction)
    if true.ndim == 2:
        return None, 0
    # equal but for the rounding of an affine
    axis = max(i for i in range(3) if spacing[i] >= max(spacing) * (1 - 1e-4))
    others = tuple(i for i in range(3) if i != axis)
    for voxels in (true != predicted, true != 0):
        count = voxels.sum(axis=others)
        if count.any():
            return axis, int(count.argmax())
    return axis, true.shape[axis] // 2
