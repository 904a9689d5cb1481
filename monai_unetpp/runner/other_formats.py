"""Formats other than NIfTI, which need packages that the runner does without: they are imported only for such a file.

NRRD and MetaImage need SimpleITK; PNG, JPEG and TIFF, for networks of pictures, need Pillow and tifffile as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.formats.suffixes import (
    ITK_SUFFIXES,
    NIFTI_SUFFIXES,
    PICTURE_SUFFIXES,
    is_itk_name,
    is_picture_name,
)

_Array = npt.NDArray[Any]

#: Channels of a picture with colours.
_COLOURS = 3


def read_other(path: Path, reading: Mapping[str, Any]) -> tuple[_Array, _Array]:
    """Read the voxels ``(C, ...)`` of one file, with its own axes, and its affine ``(4, 4)`` in RAS and mm.

    Pixels of pictures count as 1 mm wide.

    Raises:
        ImageFileError: the file is missing, damaged or of another format, or a package that it needs is not installed.
    """
    channels = reading["channels"]
    # folders of earlier versions do not tell whether the network is for pictures
    if is_picture_name(path) and reading.get("pictures", False) and channels in (1, _COLOURS):
        with packages_for(path):
            from monai_unetpp.data.formats.pictures import read_colours, read_picture

            return (read_colours(path) if channels == _COLOURS else read_picture(path)[None]), np.eye(4)
    if is_itk_name(path) and channels == 1:
        with packages_for(path):
            from monai_unetpp.data.formats.itk_images import read_itk_file

            voxels, affine = read_itk_file(path)
            return voxels[None], affine
    known: tuple[str, ...] = NIFTI_SUFFIXES
    if channels == 1:
        known += ITK_SUFFIXES
    if reading.get("pictures", False):
        known += PICTURE_SUFFIXES
    raise ImageFileError(
        f"{path}: the runner reads {', '.join(known)} only for this network. Convert it; monai-unetpp segment reads "
        "further formats, such as DICOM."
    )


@contextmanager
def packages_for(path: Path) -> Iterator[None]:
    """Raise an ``ImageFileError`` where a package that the format of a file needs is not installed."""
    try:
        yield
    except ImportError as e:
        raise ImageFileError(
            f"{path}: needs the package {e.name}, which is not installed. Install SimpleITK, Pillow and tifffile "
            "(monai-unetpp-runner[formats]), or convert the file to NIfTI."
        ) from e
