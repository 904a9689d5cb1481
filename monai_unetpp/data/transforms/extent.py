"""Measure size and intensities of an image, to describe data sets and compare images with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from nibabel.orientations import io_orientation

from monai_unetpp.data.transforms.background import find_own_surround
from monai_unetpp.data.transforms.surround_search import Surround, box_around

PERCENTILES = (0.5, 5.0, 50.0, 95.0, 99.5)
"""Percentiles that describe intensities everywhere."""


@dataclasses.dataclass(frozen=True)
class ImageExtent:
    """The size of an image. Axes are in the order R, A, S; in 2D, as stored.

    Attributes:
        size_mm: physical size by axis, without the constant surround.
        constant_surround: whether it has one.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    size_mm: tuple[float, ...]
    constant_surround: bool


def measure_extent(image: torch.Tensor, affine: npt.ArrayLike, as_stored: bool = False) -> ImageExtent:
    """Measure an image as stored in its file."""
    return describe_extent(image.shape[1:], affine, find_own_surround(image), as_stored)


def describe_extent(
    shape: Sequence[int], affine: npt.ArrayLike, surround: Surround | None, as_stored: bool = False
) -> ImageExtent:
    """The extent of an image whose surround is known."""
    dims = len(shape)
    matrix = np.asarray(affine, dtype=np.float64)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)[:dims]
    inside = [side.stop - side.start for side in content_box(shape, surround)]
    order = list(range(dims)) if as_stored else axes_in_order(matrix, dims)
    return ImageExtent(
        shape=tuple(int(shape[axis]) for axis in order),
        spacing_mm=tuple(float(spacing[axis]) for axis in order),
        size_mm=tuple(float(inside[axis] * spacing[axis]) for axis in order),
        constant_surround=surround is not None,
    )


def content_box(shape: Sequence[int], surround: Surround | None) -> tuple[slice, ...]:
    """The bounding box of an image without its surround; the whole image if it has none."""
    if surround is None:
        return tuple(slice(0, length) for length in shape)
    return box_around(~surround.mask.cpu().numpy())


def axes_in_order(affine: npt.ArrayLike, dims: int) -> list[int]:
    """The array axes nearest to R, A and S by an affine ``(4, 4)``; in 2D, as stored."""
    if dims != 3:
        return list(range(dims))
    towards = io_orientation(np.asarray(affine, dtype=np.float64))[:, 0]
    return [int(np.flatnonzero(towards == axis)[0]) for axis in range(3)]


def tilt_of(affine: npt.ArrayLike, dims: int) -> float:
    """Largest angle in degrees between an axis of an array and the nearest of R, A and S; 0 in 2D."""
    if dims != 3:
        return 0.0
    matrix = np.asarray(affine, dtype=np.float64)[:3, :3]
    cosines = np.abs(matrix / np.linalg.norm(matrix, axis=0))
    nearest = [cosines[world, array] for world, array in enumerate(axes_in_order(affine, dims))]
    return float(np.degrees(np.arccos(min(1.0, *nearest))))


def is_left_handed(affine: npt.ArrayLike, dims: int) -> bool:
    """Whether the axes of an array are a mirror image of R, A and S; False in 2D."""
    return dims == 3 and bool(np.linalg.det(np.asarray(affine, dtype=np.float64)[:3, :3]) < 0)
