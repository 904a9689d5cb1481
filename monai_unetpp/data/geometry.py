"""Where the voxels of an image lie, and whether two images share a grid."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_unetpp.data.errors import ImageFileError
from monai_unetpp.data.itk_images import is_itk_name, read_itk_header
from monai_unetpp.data.nifti import check_affine, is_nifti_name, open_nifti
from monai_unetpp.data.pictures import is_picture_name, read_picture_shape
from monai_unetpp.data.reader import VolumeReader

__all__ = ["ImageGeometry", "check_same_geometry", "compare_geometry", "read_geometry"]


@dataclasses.dataclass(frozen=True, eq=False)
class ImageGeometry:
    """The grid of an image.

    Attributes:
        shape: voxels along each axis, without axes of length one after the third.
        affine: ``(4, 4)``, from voxel indices to positions in mm, RAS.
    """

    shape: tuple[int, ...]
    affine: np.ndarray[Any, Any]

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distance of neighbouring voxels along each axis."""
        return tuple(float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0)[: len(self.shape)])


def read_geometry(path: str | Path) -> ImageGeometry:
    """The grid of an image file, from its header alone; a DICOM series is read whole.

    Pixels of PNG and TIFF count as 1 mm.

    Raises:
        ImageFileError: the file cannot be read; see :class:`monai_unetpp.data.VolumeReader`.
    """
    path = Path(path)
    if is_nifti_name(path):
        image = open_nifti(path)
        return ImageGeometry(_short_shape(image.shape), np.asarray(image.affine, dtype=np.float64))
    if is_itk_name(path):
        shape, affine = read_itk_header(path)
        check_affine(affine, path)
        return ImageGeometry(_short_shape(shape), affine)
    if is_picture_name(path):
        return ImageGeometry(_short_shape(read_picture_shape(path), 2), np.eye(4))
    reader = VolumeReader(allow_constant=True, fill_nonfinite=0.0)
    array, metadata = reader.get_data(reader.read(path))
    return ImageGeometry(array.shape, metadata["affine"])


def compare_geometry(first: ImageGeometry, second: ImageGeometry, tolerance: float = 0.1) -> str | None:
    """How ``second`` differs from ``first``, or None where they are the same grid.

    Args:
        first: the one to compare with.
        second: the other.
        tolerance: distance, in the shortest voxel edge of ``first``, by which no corner may be off. It also
            forgives the rounding of headers.
    """
    shapes = [_short_shape(geometry.shape, 1) for geometry in (first, second)]
    if shapes[0] != shapes[1]:
        return f"its shape is {second.shape}, not {first.shape}"
    corners = np.array(list(itertools.product(*((0, length - 1) for length in shapes[0]))), dtype=np.float64)
    points = np.zeros((4, len(corners)))
    points[: corners.shape[1]], points[3] = corners.T, 1
    offset_mm = float(np.linalg.norm(((second.affine - first.affine) @ points)[:3], axis=0).max())
    if offset_mm > tolerance * min(first.spacing_mm):
        return f"its corners lie up to {offset_mm:.3g} mm away"
    return None


def check_same_geometry(image_path: str | Path, label_path: str | Path, tolerance: float = 0.1) -> str | None:
    """What keeps a label map from being used with its image, or None.

    Args:
        image_path: the image.
        label_path: the label map.
        tolerance: see :func:`compare_geometry`.

    Returns:
        One line that names the files: a header that cannot be read, another shape, or another place.
    """
    try:
        image, label = read_geometry(image_path), read_geometry(label_path)
    except ImageFileError as e:
        return str(e)
    difference = compare_geometry(image, label, tolerance)
    if difference is None:
        return None
    return f"{label_path}: not on the grid of {image_path}: {difference}. Resample one to the other."


def _short_shape(shape: Sequence[int], least: int = 3) -> tuple[int, ...]:
    short = tuple(int(length) for length in shape)
    while len(short) > least and short[-1] == 1:
        short = short[:-1]
    return short
