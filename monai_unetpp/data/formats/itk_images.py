"""Open NRRD, MetaImage and pictures through SimpleITK, with errors that name the file and the remedy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.data.utils import orientation_ras_lps

from monai_unetpp.data.formats.grid import check_grid
from monai_unetpp.data.formats.image_errors import ImageFileError, check_regular_file
from monai_unetpp.data.formats.text_headers import check_text_header

if TYPE_CHECKING:
    import SimpleITK

__all__ = ["ITK_SUFFIXES", "detached_files", "is_itk_name", "open_itk_file", "read_itk_file", "read_itk_header"]

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")

_DETACHED_SUFFIXES = (".mhd", ".nhdr")
_LONGEST_HEADER = 2**16


def is_itk_name(path: str | Path) -> bool:
    """Whether ``path`` has the suffix of a volume format that is read through ITK."""
    return Path(path).name.lower().endswith(ITK_SUFFIXES)


def read_itk_header(path: Path) -> tuple[tuple[int, ...], np.ndarray[Any, Any]]:
    """Read shape and affine ``(4, 4)`` in RAS of one image file, without its voxels.

    Raises:
        ImageFileError: the file is missing, empty, damaged, of unknown format, or has several values per voxel or an
            impossible grid.
    """
    reader = open_itk_file(path)
    if (components := reader.GetNumberOfComponents()) > 1:
        raise ImageFileError(f"{path}: holds {components} values per voxel instead of one. Convert it to grey values.")
    dims = min(reader.GetDimension(), 3)
    direction = np.asarray(reader.GetDirection()).reshape(reader.GetDimension(), -1)[:dims, :dims]
    affine = np.eye(4)
    affine[:dims, :dims] = direction * np.asarray(reader.GetSpacing())[:dims]
    affine[:dims, 3] = reader.GetOrigin()[:dims]
    affine = orientation_ras_lps(affine)
    check_grid(reader.GetSize(), affine, path)
    return tuple(reader.GetSize()), affine


def read_itk_file(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Read voxels and affine ``(4, 4)`` in RAS of one image file.

    Raises:
        ImageFileError: see :func:`read_itk_header`.
    """
    _, affine = read_itk_header(path)
    try:
        image = open_itk_file(path).Execute()
    except RuntimeError as e:
        raise ImageFileError(_damaged(path)) from e
    import SimpleITK  # takes a moment that NIfTI files need not wait for

    return SimpleITK.GetArrayFromImage(image).T, affine


def open_itk_file(path: Path) -> SimpleITK.ImageFileReader:
    """Open an image file and read its header.

    Raises:
        ImageFileError: the file is missing, empty, damaged or of unknown format.
    """
    check_regular_file(path)
    for voxels in detached_files(path):
        check_regular_file(voxels)
    try:
        str(path).encode()
    except UnicodeEncodeError as e:  # SimpleITK would end the process
        raise ImageFileError(f"{path}: its path is not UTF-8, so ITK cannot open it. Rename it.") from e
    if path.stat().st_size == 0:
        raise ImageFileError(f"{path}: empty, it has 0 bytes. Export or copy it again.")
    check_text_header(path)
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as e:
        raise ImageFileError(_damaged(path)) from e
    if not reader.GetDimension():
        raise ImageFileError(_damaged(path))
    return reader


def detached_files(header: Path) -> list[Path]:
    """The existing voxel files that a text header names, also by a pattern, on own lines or after ``=`` or ``:``."""
    if header.suffix.lower() not in _DETACHED_SUFFIXES:
        return []
    with header.open("rb") as file:
        text = os.fsdecode(file.read(_LONGEST_HEADER))
    names = (re.split(r"[=:]", line, maxsplit=1)[-1].strip() for line in text.splitlines())
    files = (header.parent / name for given in names if "\0" not in given for name in _expanded(given) if name)
    return [file for file in files if os.path.lexists(file) and not os.path.isdir(file)]


def _expanded(name: str) -> Iterable[str]:
    """A name, or the names of a pattern such as ``slice_%03d.raw 1 20 1``, with the first, last and step."""
    found = re.fullmatch(r"([^%]*%\d{0,2}d[^%]*?)\s+(\d{1,6})\s+(\d{1,6})\s+([1-9]\d{0,5})(\s+\d+)?", name)
    if found is None:
        return [name]
    first, last, step = map(int, found.group(2, 3, 4))
    return (found[1] % number for number in range(first, last + 1, step))


def _damaged(given: Path) -> str:
    return f"{given}: damaged, or not of the format that its suffix says. Export or copy it again."
