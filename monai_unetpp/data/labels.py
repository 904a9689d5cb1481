"""Label maps as they are in their files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_unetpp.data.errors import ImageFileError
from monai_unetpp.data.label_values import as_integers
from monai_unetpp.data.nifti import is_nifti_name, open_nifti, read_voxels, stored_step
from monai_unetpp.data.pictures import is_picture_name, read_picture_shape
from monai_unetpp.data.reader import VolumeReader, check_not_constant

__all__ = ["Volume", "read_label_map", "read_volume"]


@dataclasses.dataclass(frozen=True)
class Volume:
    """Voxels and where they are.

    Attributes:
        data: ``(H, W[, D], ...)``.
        affine: ``(4, 4)``, from voxel indices to mm.
    """

    data: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]


def read_volume(
    path: Path, spatial_dims: int | None = None, allow_constant: bool = True, labels: bool = False
) -> Volume:
    """Any image as it is in the file; NIfTI keeps all of its axes.

    Args:
        path: the file.
        spatial_dims: 2 or 3; None takes what the file has.
        allow_constant: whether an image may have the same value everywhere.
        labels: whether it is a label map; see :class:`monai_unetpp.data.VolumeReader`.

    Raises:
        ImageFileError: a file that cannot be read, or a constant image that must be none.
    """
    if is_nifti_name(path):
        image = open_nifti(path)
        voxels = read_voxels(image, path)
        if labels:
            voxels = as_integers(voxels, path, stored_step(image))
        if not allow_constant:
            check_not_constant(voxels, path)
        return Volume(voxels, np.asarray(image.affine, dtype=np.float64))
    reader = VolumeReader(spatial_dims or _file_axes(path), allow_constant=allow_constant, labels=labels)
    data, metadata = reader.get_data(reader.read(path))
    return Volume(data, np.asarray(metadata["affine"], dtype=np.float64))


def read_label_map(path: Path, spatial_dims: int | None = None) -> Volume:
    """A label map as it is in the file, ``(H, W[, D])`` of integers.

    Args:
        path: the file.
        spatial_dims: 2 or 3; None takes what the file has, without axes of length 1 at the end.

    Raises:
        ImageFileError: a file that cannot be read, has other dimensions, or holds no integers.
    """
    volume = read_volume(path, spatial_dims, labels=True)
    shape = volume.data.shape
    dims = spatial_dims or _count_axes(shape)
    if dims > 3 or len(shape) < dims or math.prod(shape[dims:]) != 1:
        expected = f"{spatial_dims}D" if spatial_dims else "2D or 3D"
        raise ImageFileError(f"{path}: the label must be {expected}, got shape {shape}. Give one label map.")
    return Volume(volume.data.reshape(shape[:dims]), volume.affine)


def _file_axes(path: Path) -> int:
    """Axes of an image that is not NIfTI: pictures have two, or three for a TIFF of several pages."""
    return len(read_picture_shape(path)) if is_picture_name(path) else 3


def _count_axes(shape: Sequence[int]) -> int:
    """Number of axes but for those of length 1 at the end; two at the least."""
    dims = len(shape)
    while dims > 2 and shape[dims - 1] == 1:
        dims -= 1
    return dims
