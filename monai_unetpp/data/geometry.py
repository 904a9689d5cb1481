"""Where the voxels of an image lie, and whether two images share a grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monai_unetpp.data.dicom import is_dicom_file, read_dicom_grid
from monai_unetpp.data.grid import (
    GEOMETRY_TOLERANCE_VOXELS,
    ImageGeometry,
    check_grid,
    compare_geometry,
    shorten_shape,
)
from monai_unetpp.data.image_errors import ImageFileError
from monai_unetpp.data.itk_images import is_itk_name, read_itk_header
from monai_unetpp.data.nifti import is_nifti_name, open_nifti
from monai_unetpp.data.pictures import is_picture_name, read_picture_shape
from monai_unetpp.data.reader import not_supported

__all__ = ["check_same_geometry", "read_geometry"]


def read_geometry(path: str | Path) -> ImageGeometry:
    """The grid of an image file or a DICOM series, from headers alone.

    Pixels of PNG and TIFF count as 1 mm.

    Raises:
        ImageFileError: a header cannot be read; see :class:`monai_unetpp.data.VolumeReader`.
    """
    path = Path(path)
    if is_nifti_name(path):
        image = open_nifti(path)
        return ImageGeometry(shorten_shape(image.shape), np.asarray(image.affine, dtype=np.float64))
    if path.is_dir() or is_dicom_file(path):
        slices, affine = read_dicom_grid([path])
        check_grid(slices, affine, path)
        return ImageGeometry(slices, affine)
    if is_itk_name(path):
        shape, affine = read_itk_header(path)
        return ImageGeometry(shorten_shape(shape), affine)
    if is_picture_name(path):
        return ImageGeometry(shorten_shape(read_picture_shape(path), 2), np.eye(4))
    raise not_supported(path)


def check_same_geometry(
    image_path: str | Path, label_path: str | Path, tolerance_voxels: float = GEOMETRY_TOLERANCE_VOXELS
) -> str | None:
    """What keeps a label map from being used with its image, or None.

    Args:
        image_path: the image.
        label_path: the label map.
        tolerance_voxels: see :func:`compare_geometry`.

    Returns:
        One line that names the files: a header that cannot be read, another shape, or another place.
    """
    try:
        image, label = read_geometry(image_path), read_geometry(label_path)
    except ImageFileError as e:
        return str(e)
    difference = compare_geometry(image, label, tolerance_voxels)
    if difference is None:
        return None
    return f"{label_path}: not on the grid of {image_path}: {difference}. Resample one to the other."
