"""Recognize results by the mark in their file, which also identifies their image, never by name."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from monai_unetpp.data.formats.dicom import dicom_files
from monai_unetpp.data.formats.itk_images import detached_files
from monai_unetpp.data.formats.nifti import is_nifti_name
from monai_unetpp.data.formats.nifti_marks import (
    ImageIdentity,
    hash_bytes,
    hash_file,
    hash_path,
    nifti_mark,
    nifti_pair,
    read_nifti_mark,
)
from monai_unetpp.data.formats.pictures import is_picture_name, read_picture_mark
from monai_unetpp.files import MARK

__all__ = [
    "ImageIdentity",
    "identify_image",
    "image_files",
    "is_result",
    "nifti_mark",
    "picture_mark",
    "read_identity",
]


def identify_image(*images: str | PathLike[str]) -> ImageIdentity:
    """The identity of an image; every byte is read once.

    Args:
        *images: its file, the folder of a DICOM series, or several files: channels in their order, or slices.
    """
    try:
        hashes = [file for image in images for file in sorted(map(hash_file, image_files(Path(image))))]
    except OSError:
        hashes = []
    content = hashes[0] if len(hashes) == 1 else hash_bytes(map(str.encode, hashes)) if hashes else None
    return ImageIdentity(hash_path(images[0]), content)


def picture_mark(image: ImageIdentity) -> str:
    """The software to name in a picture that is a result of ``image``."""
    return f"{MARK} {image}"


def is_result(path: str | PathLike[str]) -> bool:
    """Whether a file carries the mark of this package."""
    return _read_mark(Path(path)) is not None


def read_identity(path: str | PathLike[str]) -> ImageIdentity | None:
    """The identity of a result's image; None for other files, and for results of early versions."""
    return ImageIdentity.from_mark(_read_mark(Path(path)))


def _read_mark(path: Path) -> str | None:
    if is_picture_name(path):
        return read_picture_mark(path)
    return read_nifti_mark(path) if is_nifti_name(path) else None


def image_files(image: Path) -> list[Path]:
    """The files that hold an image; empty if unknown."""
    if os.path.isdir(image):
        return list(dicom_files(image))
    suffix = image.suffix.lower()
    if suffix in (".hdr", ".img"):
        return nifti_pair(image)
    if suffix in (".mhd", ".nhdr"):
        voxels = [file for file in detached_files(image) if os.path.isfile(file)]
        return [image, *voxels] if voxels else []
    return [image]
