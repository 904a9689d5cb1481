"""Open NRRD, MetaImage and pictures through SimpleITK, with errors that name the file and the remedy.

What headers of NRRD and MetaImage leave out, ITK fills in silently; here it is told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_unetpp.data.formats.grid import check_grid, check_spacing, warn_once
from monai_unetpp.data.formats.image_errors import ImageFileError, check_regular_file, read_start

if TYPE_CHECKING:
    import SimpleITK

_DETACHED_SUFFIXES = (".mhd", ".nhdr")
#: Bytes of a header that are read.
_MOST_BYTES = 2**20
#: Axes that a MetaImage may have.
_MOST_AXES = 10
#: The NRRD spaces that define left and right, and that ITK converts.
_KNOWN_SPACES = {"right-anterior-superior", "left-anterior-superior", "left-posterior-superior", "ras", "las", "lps"}
_IN_MM = ("mm", "millimeter", "millimeters", "millimetre", "millimetres", "")


def read_itk_header(path: Path) -> tuple[tuple[int, ...], np.ndarray[Any, Any]]:
    """Read shape and affine ``(4, 4)`` in RAS of one image file, without its voxels.

    An ``ImageFileError`` as for :func:`open_itk_file`, or for several values per voxel or an impossible grid.
    """
    reader = open_itk_file(path)
    if (components := reader.GetNumberOfComponents()) > 1:
        raise ImageFileError(f"{path}: holds {components} values per voxel instead of one. Convert it to grey values.")
    dims = min(reader.GetDimension(), 3)
    direction = np.asarray(reader.GetDirection()).reshape(reader.GetDimension(), -1)[:dims, :dims]
    affine = np.eye(4)
    affine[:dims, :dims] = direction * np.asarray(reader.GetSpacing())[:dims]
    affine[:dims, 3] = reader.GetOrigin()[:dims]
    affine[:2] *= -1  # from LPS, in ITK
    check_grid(reader.GetSize(), affine, path)
    return tuple(reader.GetSize()), affine


def read_itk_file(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Read voxels and affine ``(4, 4)`` in RAS of one image file; errors are those of :func:`read_itk_header`."""
    _, affine = read_itk_header(path)
    try:
        image = open_itk_file(path).Execute()
    except RuntimeError as e:
        raise ImageFileError(_damaged(path)) from e
    import SimpleITK  # takes a moment that NIfTI files need not wait for

    return SimpleITK.GetArrayFromImage(image).T, affine


def open_itk_file(path: Path) -> SimpleITK.ImageFileReader:
    """Open an image file and read its header.

    An ``ImageFileError`` says what is wrong with it, also with voxel size or number of axes in the header.
    """
    read_start(path, 1)
    for voxels in detached_files(path):
        check_regular_file(voxels)
    try:
        str(path).encode()
    except UnicodeEncodeError as e:  # SimpleITK would end the process
        raise ImageFileError(f"{path}: its path is not UTF-8, so ITK cannot open it. Rename it.") from e
    if path.suffix.lower() in (".nrrd", ".nhdr"):
        _check_nrrd(_read_fields(path, ":", ""), path)
    elif path.suffix.lower() in (".mha", ".mhd"):
        _check_metaimage(_read_fields(path, "=", "elementdatafile"), path)
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
        text = os.fsdecode(file.read(_MOST_BYTES))
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


def _read_fields(path: Path, mark: str, last: str) -> dict[str, str]:
    """The fields of a header up to the one called ``last``, with names in lower case."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for line in file.read(_MOST_BYTES).splitlines():
            name, _, value = line.decode("latin-1").partition(mark)
            name = name.strip().lower()
            if name == last:
                break
            fields[name] = value.strip()
    return fields


def _check_nrrd(fields: Mapping[str, str], path: Path) -> None:
    spacing = [size for size in _numbers(fields.get("spacings", "")) if size == size]
    if "space directions" not in fields:
        check_spacing(spacing, path)
        if not spacing:
            _warn_of_unknown_size(path)
    space = fields.get("space", "").lower()
    oriented = space.removesuffix("-time") in _KNOWN_SPACES or space in ("rast", "last", "lpst")
    if fields.get("dimension") != "2" and not (oriented and "space directions" in fields):
        missing = f"calls its space {space!r}" if space and not oriented else "names no space or no directions in it"
        _warn_of_unknown_orientation(missing, path)
    for unit in set(fields.get("space units", "").replace('"', " ").split()):
        _check_unit(unit, path)


def _check_metaimage(fields: Mapping[str, str], path: Path) -> None:
    _check_axes(fields.get("ndims", ""), fields.get("dimsize", ""), path)
    spacing = _numbers(fields.get("elementspacing") or fields.get("elementsize") or "")
    check_spacing(spacing, path)
    if not spacing:
        _warn_of_unknown_size(path)
    if fields.get("ndims") != "2" and not {"transformmatrix", "rotation", "orientation"} & set(fields):
        _warn_of_unknown_orientation("has no TransformMatrix", path)
    _check_unit(fields.get("distanceunits", ""), path)


def _check_axes(count: str, lengths: str, path: Path) -> None:
    """Refuse numbers of axes that would make ITK end the process."""
    sizes = lengths.split()
    usable = count.isascii() and count.isdecimal() and len(count) <= 2 and 0 < int(count) <= _MOST_AXES
    if not usable or len(sizes) != int(count) or not all(size.isascii() and size.isdecimal() for size in sizes):
        raise ImageFileError(
            f"{path}: its header gives the impossible NDims {count[:20]!r} and DimSize {lengths[:60]!r}. Export or "
            "copy it again."
        )


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split()]
    except ValueError:  # ITK reports it
        return []


def _check_unit(unit: str, path: Path) -> None:
    if unit.lower() not in (*_IN_MM, "?", "???"):
        warn_once(f"{path}: its header gives lengths in {unit}; they are read as mm. If that is wrong, convert them.")


def _warn_of_unknown_size(path: Path) -> None:
    warn_once(f"{path}: its header gives no voxel size; 1 mm is assumed. Write the size into the header.")


def _warn_of_unknown_orientation(missing: str, path: Path) -> None:
    warn_once(
        f"{path}: its header {missing}, so its orientation is unknown; axes are assumed to run from right to left, "
        "anterior to posterior, inferior to superior. Left and right may be swapped: convert the image again."
    )


def _damaged(given: Path) -> str:
    return f"{given}: damaged, or not of the format that its suffix says. Export or copy it again."
