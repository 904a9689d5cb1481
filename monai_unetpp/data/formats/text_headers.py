"""Check what headers of NRRD and MetaImage files leave out, which ITK fills in silently."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from monai_unetpp.data.formats.grid import check_spacing, warn_once
from monai_unetpp.data.formats.image_errors import ImageFileError

__all__ = ["check_text_header"]

_MOST_BYTES = 2**20
#: Axes that a MetaImage may have.
_MOST_AXES = 10
#: The NRRD spaces that define left and right, and that ITK converts.
_KNOWN_SPACES = {
    "right-anterior-superior",
    "left-anterior-superior",
    "left-posterior-superior",
    "ras",
    "las",
    "lps",
}
_IN_MM = ("mm", "millimeter", "millimeters", "millimetre", "millimetres", "")


def check_text_header(path: Path) -> None:
    """Refuse impossible voxel sizes, and warn once per file about what is assumed if the header says nothing.

    Args:
        path: an existing file. Formats other than NRRD and MetaImage are skipped.

    Raises:
        ImageFileError: a voxel size is 0 or less, or the number of axes is impossible.
    """
    suffix = path.suffix.lower()
    if suffix in (".nrrd", ".nhdr"):
        _check_nrrd(_read_fields(path, ":", ""), path)
    elif suffix in (".mha", ".mhd"):
        _check_metaimage(_read_fields(path, "=", "elementdatafile"), path)


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
