"""The formats of images by the ends of their names; a folder, as of a DICOM series, has none of them."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
JPEG_SUFFIXES = (".jpg", ".jpeg")
TIFF_SUFFIXES = (".tif", ".tiff")
PICTURE_SUFFIXES = (".png", *JPEG_SUFFIXES, *TIFF_SUFFIXES)
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES)
IMAGE_SUFFIXES = (*VOLUME_SUFFIXES, *PICTURE_SUFFIXES)
"""Suffixes of all images but DICOM."""

_Path = str | PathLike[str]

# longest first, so that .nii.gz is tried before shorter suffixes
_LONGEST_FIRST = tuple(sorted((*IMAGE_SUFFIXES, ".dcm"), key=len, reverse=True))


def is_nifti_name(path: _Path) -> bool:
    """Whether ``path`` has a suffix of NIfTI, or of a pair of header and voxels."""
    return _ends_with(path, NIFTI_SUFFIXES)


def is_itk_name(path: _Path) -> bool:
    """Whether ``path`` has the suffix of a volume format that is read through ITK."""
    return _ends_with(path, ITK_SUFFIXES)


def is_picture_name(path: _Path) -> bool:
    """Whether ``path`` has a suffix of PNG, JPEG or TIFF."""
    return _ends_with(path, PICTURE_SUFFIXES)


def without_suffix(name: str) -> str:
    """The name of an image file without the suffix of its format, unless nothing else is left."""
    suffix = next((suffix for suffix in _LONGEST_FIRST if name.lower().endswith(suffix)), "")
    return name[: -len(suffix)] if 0 < len(suffix) < len(name) else name


def result_suffix(image: _Path) -> str:
    """The suffix of the segmentation of ``image``: TIFF for TIFF, PNG for other pictures, else NIfTI."""
    if not is_picture_name(image):
        return ".nii.gz"
    return ".tif" if _ends_with(image, TIFF_SUFFIXES) else ".png"


def _ends_with(path: _Path, suffixes: tuple[str, ...]) -> bool:
    return Path(path).name.lower().endswith(suffixes) and not os.path.isdir(path)
