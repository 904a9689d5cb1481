"""Read the grid of an image from its header."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monai_unetpp.data.formats.dicom import is_dicom_file, stack_series
from monai_unetpp.data.formats.grid import ImageGeometry, check_grid, shorten_shape
from monai_unetpp.data.formats.itk_images import is_itk_name, read_itk_header
from monai_unetpp.data.formats.nifti import is_nifti_name, open_nifti
from monai_unetpp.data.formats.pictures import is_picture_name, read_picture_shape
from monai_unetpp.data.formats.reader import not_supported

__all__ = ["read_geometry"]


def read_geometry(path: str | Path) -> ImageGeometry:
    """Read the grid of an image file or a DICOM series from its headers.

    Pixels of PNG, JPEG and TIFF count as 1 mm wide.

    Raises:
        ImageFileError: a header cannot be read; see :class:`monai_unetpp.data.VolumeReader`.
    """
    path = Path(path)
    if is_nifti_name(path):
        image = open_nifti(path)
        return ImageGeometry(shorten_shape(image.shape), np.asarray(image.affine, dtype=np.float64))
    if path.is_dir() or is_dicom_file(path):
        planes, affine = stack_series([path])
        grid = ImageGeometry((*planes[0].size, len(planes)), affine)
        check_grid(grid.shape, affine, path)
        return grid
    if is_itk_name(path):
        shape, affine = read_itk_header(path)
        return ImageGeometry(shorten_shape(shape), affine)
    if is_picture_name(path):
        return ImageGeometry(shorten_shape(read_picture_shape(path), 2), np.eye(4))
    raise not_supported(path)
