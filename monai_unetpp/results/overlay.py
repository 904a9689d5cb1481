"""Draw a label map over its image, in planes through the labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, io_orientation

from monai_unetpp.data.formats.label_table import Label, make_labels
from monai_unetpp.reporting.figures import new_figure
from monai_unetpp.reporting.overlays import draw_contour, draw_grey, tint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INCHES = 3.2
_STRENGTH = 0.35
_LARGEST_LEGEND = 12
#: Axis perpendicular to a plane, and the name of the plane in RAS.
_PLANES = ((0, "sagittal"), (1, "coronal"), (2, "axial"))

_Array = npt.NDArray[Any]


def draw_overlay(image: _Array, labels: _Array, affine: _Array, names: Mapping[int, str]) -> Figure:
    """Draw labels over an image: a 2D image as stored, a volume in three planes with head up and left on the left.

    Intensities and labels are ``(H, W[, D])``, and ``affine`` leads from voxels to mm in RAS. If values have no names,
    as for numbered objects, all get the same colour.
    """
    limits = np.percentile(image[np.isfinite(image)], (0.5, 99.5))
    shown = make_labels(names) if set(np.unique(labels)) - {0} <= set(names) else make_labels({1: "objects"})
    if len(shown) == 1:
        labels = np.minimum(labels, 1) * shown[0].value
    if image.ndim == 2:
        height = _INCHES * 1.5 * image.shape[1] / image.shape[0]
        with new_figure(_INCHES * 1.5, min(height, 3 * _INCHES)) as (figure, axes):
            _draw_plane(axes[0, 0], image, labels, shown, limits, upright=False)
            _add_legend(axes[0, 0], labels, shown)
        return figure
    orientation = io_orientation(affine)[:3]
    image, labels = (apply_orientation(array, orientation) for array in (image, labels))
    sizes = np.linalg.norm(affine[:3, :3], axis=0)[np.argsort(orientation[:, 0])]
    found = np.argwhere(labels) if labels.any() else np.array([image.shape]) / 2
    middle = found.mean(axis=0).astype(int)
    with new_figure(3 * _INCHES, _INCHES, 1, 3) as (figure, axes):
        for plot, (axis, title) in zip(axes[0], _PLANES, strict=True):
            width, height = (sizes[other] for other in range(3) if other != axis)
            plane, there = (np.take(array, middle[axis], axis) for array in (image, labels))
            _draw_plane(plot, plane, there, shown, limits, upright=True, aspect=height / width)
            plot.set_title(title)
        _add_legend(axes[0, -1], labels, shown)
    return figure


def _draw_plane(
    axes: Any, image: _Array, labels: _Array, shown: tuple[Label, ...], limits: _Array, upright: bool, aspect: float = 1
) -> None:
    draw_grey(axes, image, limits, upright=upright, aspect=aspect)
    for label in shown:
        mask = labels == label.value
        if mask.any():
            tint(axes, mask, label.hex_colour, _STRENGTH)
            draw_contour(axes, mask, label.hex_colour, 1.0)
    axes.set_axis_off()


def _add_legend(axes: Any, labels: _Array, shown: tuple[Label, ...]) -> None:
    from matplotlib.patches import Patch

    there = [label for label in shown if (labels == label.value).any()][:_LARGEST_LEGEND]
    if there:
        patches = [Patch(color=label.hex_colour, label=label.name) for label in there]
        axes.figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 4))
