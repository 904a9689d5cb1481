"""How large an image is, and its intensities: what a data set is measured by, and what an image is compared by."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nibabel.orientations import io_orientation

from monai_unetpp.data.surround import find_surround

__all__ = ["PERCENTILES", "ImageExtent", "measure_extent", "sample_evenly"]

PERCENTILES = (0.5, 5.0, 50.0, 95.0, 99.5)
"""Of intensities, wherever they are described."""

_MOST_VOXELS = 2**20
"""Voxels that percentiles are taken from: exact enough, and bounded in memory."""


@dataclasses.dataclass(frozen=True)
class ImageExtent:
    """How large an image is. Axes are in the order R, A, S; of images with two axes, as they are stored.

    Attributes:
        shape: voxels by axis.
        spacing_mm: voxel size by axis.
        size_mm: physical size by axis, without the constant surround.
        constant_surround: whether it has one.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    size_mm: tuple[float, ...]
    constant_surround: bool


def measure_extent(image: torch.Tensor, affine: npt.ArrayLike) -> ImageExtent:
    """Measure an image as it is in its file.

    Args:
        image: ``(C, H, W[, D])``.
        affine: ``(4, 4)``, from voxel indices to mm.
    """
    dims = image.ndim - 1
    matrix = np.asarray(affine, dtype=np.float64)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)[:dims]
    surround = find_surround(image)
    has_surround = surround is not None and surround.share < 1
    inside = _lengths(~surround.mask) if surround is not None and has_surround else tuple(image.shape[1:])
    order = _ras_order(matrix) if dims == 3 else range(dims)
    return ImageExtent(
        shape=tuple(int(image.shape[1 + axis]) for axis in order),
        spacing_mm=tuple(float(spacing[axis]) for axis in order),
        size_mm=tuple(float(inside[axis] * spacing[axis]) for axis in order),
        constant_surround=has_surround,
    )


def sample_evenly(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """At most 2²⁰ of the values, evenly spread; always the same ones."""
    flat = values.reshape(-1)
    return flat[:: max(1, -(-len(flat) // _MOST_VOXELS))].astype(np.float64)


def _lengths(inside: torch.Tensor) -> tuple[int, ...]:
    """Lengths of the box around what is inside."""
    lengths = []
    for axis in range(inside.ndim):
        others = [other for other in range(inside.ndim) if other != axis]
        found = torch.nonzero(torch.amax(inside, dim=others))
        lengths.append(int(found[-1] - found[0]) + 1)
    return tuple(lengths)


def _ras_order(affine: npt.NDArray[np.float64]) -> list[int]:
    """The array's axes that lie nearest to R, A and S."""
    towards = io_orientation(affine)[:, 0]
    return [int(np.flatnonzero(towards == axis)[0]) for axis in range(3)]
