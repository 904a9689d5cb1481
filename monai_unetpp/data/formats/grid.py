"""The grid of an image: check it, and compare it with another."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import math
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.orientations import io_orientation

from monai_unetpp.data.formats.image_errors import ImageFileError

logger = logging.getLogger(__name__)

#: Distance in voxels along each axis up to which two grids count as the same: enough for the rounding of headers, and
#: far too little to move a label to another voxel, whether voxels have 0.005 mm or 5 mm.
GEOMETRY_TOLERANCE_VOXELS = 0.1

#: Voxel sizes from microscopes and preclinical scanners up to scintigraphy.
_PLAUSIBLE_MM = (0.01, 50.0)
#: Volume spanned by unit axes below which an affine is singular to the precision of a header.
_SMALLEST_VOLUME = 1e-6
#: Cosine of the angle between axes above which a warning is logged.
_NOTICEABLE_SHEAR = 1e-3
#: A slice counts as axial, else as coronal, if its normal is nearly as close to that axis as to any: rounding of the
#: header must not change the kind of a slice at 45 degrees.
_NEARLY_MOST = 0.9
#: A turn by a millionth, more than rounding of a header, about an axis that is like no other.
_TINY_TURN = np.eye(3) + 1e-6 * np.array([[0, -0.31, 0.59], [0.31, 0, -1], [-0.59, 1, 0]])


@dataclasses.dataclass(frozen=True, eq=False)
class ImageGeometry:
    """The grid of an image.

    Attributes:
        shape: voxels along each axis, without trailing axes of length one after the third.
        affine: ``(4, 4)``, from voxel indices to positions in mm, RAS.
    """

    shape: tuple[int, ...]
    affine: np.ndarray[Any, Any]

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size along each axis."""
        return tuple(float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0)[: len(self.shape)])


def compare_geometry(
    first: ImageGeometry, second: ImageGeometry, tolerance_voxels: float = GEOMETRY_TOLERANCE_VOXELS
) -> str | None:
    """Describe how ``second`` differs from ``first``; None if the grids are the same.

    Args:
        first: the reference.
        second: the other grid; trailing axes of length one are ignored.
        tolerance_voxels: the largest distance between corners, in voxels along each axis of ``first``.
    """
    shapes = [shorten_shape(geometry.shape, 1) for geometry in (first, second)]
    if shapes[0] != shapes[1]:
        return f"its shape is {second.shape}, not {first.shape}"
    corners = np.array(list(itertools.product(*((0, length - 1) for length in shapes[0][:3]))), dtype=np.float64)
    points = np.zeros((4, len(corners)))
    points[: corners.shape[1]], points[3] = corners.T, 1
    moved_mm = ((second.affine - first.affine) @ points)[:3]
    moved_voxels = np.linalg.lstsq(first.affine[:3, :3], moved_mm, rcond=None)[0]
    if not np.abs(moved_voxels).max() <= tolerance_voxels:
        apart = f"its corners lie up to {np.linalg.norm(moved_mm, axis=0).max():.3g} mm away"
        places, others = ((geometry.affine @ points)[:3] for geometry in (first, second))
        between = np.linalg.norm(places[:, :, None] - others[:, None], axis=0)
        # the same corners in another order
        if between.min(axis=1).max() <= tolerance_voxels * min(first.spacing_mm):
            return f"{apart}, as its axes run in other directions through the same place"
        return apart
    return None


def check_same_grid(
    path: str | PathLike[str], grid: ImageGeometry, of_path: str | PathLike[str], of_grid: ImageGeometry
) -> None:
    """Refuse, by an ``ImageFileError``, a file that does not lie on the grid of another one."""
    difference = compare_geometry(of_grid, grid)
    if difference is not None:
        raise ImageFileError(
            f"{path}: not on the grid of {of_path}: {difference}. Pair the right files, or resample one to the other."
        )


def check_grid(shape: Sequence[int], affine: np.ndarray[Any, Any], path: str | PathLike[str]) -> None:
    """Check the grid in a header of any format: refuse impossible values, and log unlikely ones once per file.

    Args:
        shape: voxels along each axis.
        affine: ``(4, 4)``, from voxel indices to mm.
        path: the file.

    Raises:
        ImageFileError: there are no voxels, or the affine is not finite or singular.
    """
    if 0 in shape or not len(shape):
        raise ImageFileError(f"{path}: empty, its shape is {tuple(shape)}. Export it again.")
    check_invertible(affine, path)
    axes = np.asarray(affine, dtype=np.float64)[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    check_spacing([size for size, length in zip(spacing, shape, strict=False) if length > 1], path)
    cosines = np.abs((axes / spacing).T @ (axes / spacing) - np.eye(3)).max()
    if cosines > _NOTICEABLE_SHEAR:
        degrees = math.degrees(math.asin(min(1.0, cosines)))
        warn_once(
            f"{path}: its axes are up to {degrees:.2g} degrees off right angles. If the image looks skewed, "
            "repair its header, or resample it to axes at right angles."
        )


def check_invertible(affine: np.ndarray[Any, Any], path: str | PathLike[str]) -> None:
    """Refuse, by an ``ImageFileError``, an affine ``(4, 4)`` that is not finite or singular."""
    axes = np.asarray(affine, dtype=np.float64)[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    singular = not np.isfinite(affine).all() or not spacing.all()
    if singular or abs(np.linalg.det(axes / spacing)) < _SMALLEST_VOLUME:
        raise ImageFileError(
            f"{path}: its affine is singular, with axes {axes.round(6).tolist()}. "
            "Repair its header (in NIfTI the sform or qform), or export it again."
        )


def check_spacing(spacing_mm: Sequence[float], path: str | PathLike[str]) -> None:
    """Refuse, by an ``ImageFileError``, a voxel size that is impossible, and warn about an unlikely one."""
    shown = " x ".join(f"{size:.4g}" for size in spacing_mm)
    if not all(math.isfinite(size) and size > 0 for size in spacing_mm):
        raise ImageFileError(
            f"{path}: its header gives the impossible voxel size {shown} mm. Correct the header, or export it again."
        )
    least, most = _PLAUSIBLE_MM
    if not all(least <= size <= most for size in spacing_mm):
        warn_once(
            f"{path}: its header gives the unusual voxel size {shown} mm. If it is wrong, correct the header: "
            "positions and segmentations depend on it."
        )


def spatial_axes(shape: Sequence[int], spatial_dims: Sequence[int]) -> tuple[int, ...] | None:
    """Find the spatial axes of an image without channels, stored with ``shape``; the others have length one.

    Of the numbers of axes that ``spatial_dims`` allows, 2 and 3, the first axes are taken if they suffice. A single
    slice may lie across any axis. None if there are more or fewer, or they are ambiguous.

    Example:
        >>> spatial_axes((1, 20, 30), [2, 3]), spatial_axes((20, 30, 1), [2, 3]), spatial_axes((20, 30, 3), [2])
        ((1, 2), (0, 1), None)
    """
    long = tuple(axis for axis, length in enumerate(shape) if length > 1)
    if len(long) == 2 in spatial_dims and max(long) < 3:
        return long
    count = len(shorten_shape(shape, min(spatial_dims)))
    return tuple(range(count)) if count in spatial_dims else None


def channel_axes(shape: Sequence[int], dims: int) -> tuple[tuple[int, ...], int]:
    """The ``dims`` spatial axes of an image of ``shape``, whose last axes hold channels, and the number of these."""
    axes = spatial_axes(shape, [dims])
    if axes is not None:
        return axes, 1
    long = tuple(axis for axis, length in enumerate(shape[:3]) if length > 1)
    if len(long) == dims:
        return long, math.prod(shape[3:])
    return tuple(range(dims)), math.prod(shape[dims:])


def transform_affine(affine: npt.NDArray[np.float64], dims: int) -> npt.NDArray[np.float64]:
    """The affine of an image for transforms, whose results for the image's own grid then go to the file's affine.

    That of a 2D image is rotated into the plane. Axes that are equally near to two axes of the world, such as at 45
    degrees, are turned by a millionth: rounding alone would decide which of them is which, and for MONAI's
    ``Orientationd`` otherwise than for its inverse. The first ``dims`` columns of ``affine`` ``(4, 4)`` are the axes of
    the image.
    """
    result = _lay_flat(affine) if dims == 2 else affine.copy()
    if np.count_nonzero(result[:dims, :dims]) == dims:
        return result  # along the axes of the world
    turns = _TINY_TURN[:dims, :dims], _TINY_TURN.T[:dims, :dims]
    turned, other = (turn @ result[:dims, :dims] for turn in turns)
    if not np.array_equal(*(io_orientation(np.pad(axes, (0, 1))) for axes in (turned, other))):
        result[:dims, :dims] = turned
    return result


def _lay_flat(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rotate the affine of a 2D image into the plane of the first two coordinates.

    MONAI's transforms take voxel size and orientation from these two alone: they would see one axis of a sagittal
    slice, and too small voxels in an oblique one. Axial slices keep R and A, coronal ones R and S, sagittal ones A and
    S; oblique slices are rotated from the nearest of these. Distances between voxels stay the same.
    """
    normal = np.abs(np.cross(affine[:3, 0], affine[:3, 1]))
    dropped = next(axis for axis in (2, 1, 0) if normal[axis] >= _NEARLY_MOST * normal.max())
    flat = affine[[*(axis for axis in range(3) if axis != dropped), dropped, 3]]
    if flat[2, :2].any():
        basis = np.linalg.qr(flat[:3, :2])[0]
        left, _, right = np.linalg.svd(basis[:2])
        directions = basis @ (left @ right).T  # in the plane, nearest to the two kept coordinates
        flat[:3] = np.column_stack([directions, np.cross(directions[:, 0], directions[:, 1])]).T @ flat[:3]
        flat[2, :2] = 0
    return flat


def shorten_shape(shape: Sequence[int], least: int = 3) -> tuple[int, ...]:
    """``shape`` without trailing axes of length one, but with at least ``least`` axes."""
    short = tuple(int(length) for length in shape)
    while len(short) > least and short[-1] == 1:
        short = short[:-1]
    return short


@functools.lru_cache(maxsize=4096)
def warn_once(message: str) -> None:
    """Log a warning about a file once, however often the file is read."""
    logger.warning("%s", message)


def voxel_ml(affine: npt.ArrayLike, dims: int = 3) -> float:
    """The volume of a voxel in millilitres, by an affine ``(4, 4)`` from indices to mm, also of sheared axes.

    With ``dims=2``, a pixel is 1 mm thick.
    """
    axes = np.asarray(affine, dtype=np.float64)[:3, :3]
    size = np.linalg.det(axes) if dims == 3 else np.linalg.norm(np.cross(axes[:, 0], axes[:, 1]))
    return abs(float(size)) / 1000
