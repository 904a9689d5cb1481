"""Read DICOM series: every slice at its own position and scale, or an error that says why not.

Values are the stored values times RescaleSlope plus RescaleIntercept, slice by slice; a series without this scale uses
its real-world value map, if any. Grey values are never inverted (``MONOCHROME1``), and padding (PixelPaddingValue) is
kept as stored, since both concern display only.
"""

from __future__ import annotations

import dataclasses
import filecmp
import logging
import os
import re
import struct
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_unetpp.data.formats.dicom_planes import DicomFile, DicomPlane, quiet_pydicom, read_dicom_file
from monai_unetpp.data.formats.dicom_stack import stack_planes
from monai_unetpp.data.formats.grid import warn_once
from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.errors import counted
from monai_unetpp.files import MARK

if TYPE_CHECKING:  # imported when a DICOM file is met, to keep start-up fast
    from pydicom import Dataset
    from pydicom.uid import UID

logger = logging.getLogger(__name__)

_PREAMBLE_LENGTH = 128
#: Suffixes of slices that have one.
_SLICE_SUFFIXES = (".dcm", ".ima")
#: How names of DICOM SEGs beside results end.
_SEG_ENDING = "seg.dcm"
_MOST_SERIES_TOLD = 8
#: Elements without which stored values mean nothing.
_OF_PIXELS = ("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation")
_INTEGERS = (np.int16, np.uint16, np.int32, np.uint32, np.int64)


@dataclasses.dataclass(frozen=True)
class DicomSeries:
    """One series: UID, number as text, modality such as ``"MR"``, description, and its images without duplicates."""

    uid: str
    number: str
    modality: str
    description: str
    files: tuple[DicomFile, ...]

    @property
    def slices(self) -> int:
        """Number of slices, counting frames."""
        return sum(max(len(file.planes), file.planes[0].frames) if file.planes else 1 for file in self.files)

    def __str__(self) -> str:
        name = f"{self.description!r} " if self.description else ""
        number = f"{self.number}: " if self.number else ""
        return f"{number}{name}({self.modality}, {self.slices} slice{'s' * (self.slices > 1)}, {self.uid or 'no UID'})"


def is_dicom_file(path: str | Path) -> bool:
    """Whether ``path`` is a DICOM file, by content or suffix; an index (``DICOMDIR``) is not.

    A file that cannot be read is judged by its suffix alone.
    """
    path = Path(path)
    # os.path.isfile is False for inaccessible files, and for pipes, which must not be opened
    if not os.path.isfile(path) or path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() == ".dcm":
        return True
    start = _start_of(path)
    return start[_PREAMBLE_LENGTH:] == b"DICM" or _starts_with_elements(start)


def has_dicom_prefix(path: Path) -> bool:
    """Whether ``path`` is a DICOM file beyond doubt, such as a slice whose suffix is one of NIfTI, like ``.img``."""
    return os.path.isfile(path) and _start_of(path)[_PREAMBLE_LENGTH:] == b"DICM"


def _start_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_PREAMBLE_LENGTH + 4)
    except OSError:
        return b""


def dicom_files(folder: str | Path) -> Iterator[Path]:
    """The DICOM files of ``folder`` sorted by name, without those of subfolders, and without results."""
    return (path for path in sorted(Path(folder).iterdir()) if not path.name.startswith(".") and is_dicom_image(path))


def lost_files(folder: str | Path, slices: Sequence[Path]) -> dict[Path, str]:
    """Files of ``folder`` that may be further slices beside these and cannot be read, each with the reason.

    They are links to missing files and files that may not be opened, with the suffix of DICOM or a name that differs
    from those of slices by digits alone (or ends in a digit, if there are no slices); and files without content named
    like slices.
    """
    known, alike = set(slices), {_without_digits(path) for path in slices}
    lost = {}
    for path in sorted(Path(folder).iterdir()):
        ours = path.name.lower().endswith(_SEG_ENDING)
        if path.name.startswith(".") or path in known or os.path.isdir(path) or ours:
            continue
        named_alike = _without_digits(path) in alike
        if named_alike or path.suffix.lower() in _SLICE_SUFFIXES or (not slices and path.name[-1].isdigit()):
            reason = _why_lost(path, named_alike)
            if reason:
                lost[path] = reason
    return lost


def _why_lost(path: Path, named_alike: bool) -> str:
    if os.path.islink(path) and not os.path.exists(path):
        return "a link to a missing file"
    try:
        if os.path.isfile(path):
            with path.open("rb") as file:
                short = len(file.read(_PREAMBLE_LENGTH)) < _PREAMBLE_LENGTH
            return "empty, or cut off" if short and named_alike else ""
    except OSError as e:
        return e.strerror or type(e).__name__
    return ""


def _without_digits(path: Path) -> str:
    return re.sub(r"\d+", "0", path.name)


def is_dicom_image(path: str | Path) -> bool:
    """Whether ``path`` is a DICOM file and no DICOM SEG that this package wrote."""
    path = Path(path)
    return is_dicom_file(path) and not (path.name.lower().endswith(_SEG_ENDING) and is_own_seg(path))


def is_own_seg(path: Path) -> bool:
    """Whether a DICOM file was written by this package."""
    return bool(_header_entry(path, "Manufacturer") == MARK)


def read_series_uid(path: Path) -> str:
    """The SeriesInstanceUID of a DICOM file; empty if it has none or cannot be read."""
    return str(_header_entry(path, "SeriesInstanceUID") or "")


def _header_entry(path: Path, name: str) -> Any:
    import pydicom

    try:
        with quiet_pydicom():
            return pydicom.dcmread(path, specific_tags=[name], stop_before_pixels=True).get(name)
    except Exception:  # it is no valid file, which is told where it is read
        return None


def read_dicom(paths: Sequence[Path]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Read one DICOM series, from a folder with no other, or from its files, which lie in one folder.

    An ``ImageFileError`` says why it is no volume of grey values; see :mod:`monai_unetpp.data.formats.dicom_stack`.

    Returns:
        Values ``(columns, rows, slices)``, integers if slope is 1 and intercept an integer, else float32; and the
        affine ``(4, 4)`` from voxel indices to positions in mm, RAS.
    """
    planes, affine = stack_series(paths)
    if planes[0].attributes["PhotometricInterpretation"] == "MONOCHROME1":
        warn_once(f"{paths[0]}: low values are displayed bright (MONOCHROME1); values are used as stored.")
    if planes[0].is_localizer:
        warn_once(f"{paths[0]}: a localizer (scout), for planning other scans. Check that this is the right series.")
    return _voxels(planes), affine


def stack_series(paths: Sequence[Path]) -> tuple[list[DicomPlane], np.ndarray[Any, Any]]:
    """The slices of one DICOM series in their order, and the affine of their volume; see :func:`read_dicom`."""
    found = find_series(paths)
    if len(found) > 1:
        told = "; ".join(map(str, found[:_MOST_SERIES_TOLD]))
        more = f"; and {len(found) - _MOST_SERIES_TOLD} more" if len(found) > _MOST_SERIES_TOLD else ""
        raise ImageFileError(
            f"{paths[0]}: holds {len(found)} DICOM series: {told}{more}. Name one with --series (series=), "
            "or put each into a folder of its own."
        )
    series = found[0]
    for file in series.files:
        if file.refusal is not None:
            raise ImageFileError(f"{file.path}: {file.refusal}")
    many = [file for file in series.files if file.planes[0].frames > 1]
    if many and len(series.files) > 1:
        raise ImageFileError(
            f"{paths[0]}: holds {len(many)} multi-frame files in one series, such as {many[0].path.name}. Name one "
            "file."
        )
    return stack_planes([plane for file in series.files for plane in file.planes], paths[0])


def find_series(paths: Sequence[Path]) -> list[DicomSeries]:
    """Find the series in a folder, or among files of one, sorted by number; none, and unreadable files, are an error.

    Files that are not images (reports, presentation states, segmentations, …) and duplicates are left out and logged.
    """
    given = paths[0]
    folder = given if given.is_dir() else given.parent
    try:
        names = list(dicom_files(folder)) if given.is_dir() else list(paths)
        if any(name.parent != folder for name in names):
            raise ImageFileError(f"{given}: files of several folders were given. Put the series into one folder.")
        lost = lost_files(given, names) if given.is_dir() else {}
        for path, reason in lost.items():
            raise ImageFileError(
                f"{given}: {counted(len(lost), 'file')} that may be slices cannot be read, such as {path.name} "
                f"({reason}). Fetch or copy them again, or remove them."
            )
        if not names:
            raise ImageFileError(f"{folder}: holds no DICOM files. Name a folder with one DICOM series in it.")
        images = _distinct(_images(names, given), given)
    except OSError as e:
        raise ImageFileError(
            f"{e.filename or given}: cannot be read ({e.strerror}). Check the path and its permissions."
        ) from e
    groups: dict[str, list[DicomFile]] = defaultdict(list)
    for file in images:
        groups[file.series_uid].append(file)
    series = [
        DicomSeries(uid, files[0].series_number, files[0].kind, files[0].description, tuple(files))
        for uid, files in groups.items()
    ]
    return sorted(series, key=lambda one: (len(one.number), one.number, one.uid))


def _starts_with_elements(start: bytes) -> bool:
    """Whether a file without the DICOM prefix begins with an element of group 2 or 8, as old files do."""
    if len(start) < 8:
        return False
    group, element, length = struct.unpack("<HHI", start[:8])
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return group in (2, 8) and element <= 0x18 and (explicit or 0 < length <= 64)


def _images(names: Sequence[Path], given: Path) -> list[DicomFile]:
    files = {name: read_dicom_file(name) for name in names}
    unreadable = [name for name, file in files.items() if file is None]
    if unreadable:
        raise ImageFileError(
            f"{given}: {len(unreadable)} of {len(names)} DICOM files cannot be read, such as {unreadable[0].name}. "
            "Export the series again."
        )
    found = [file for file in files.values() if file is not None]
    others = Counter(file.kind for file in found if not file.is_image)
    told = ", ".join(f"{kind} ({count})" for kind, count in sorted(others.items()))
    if len(found) == sum(others.values()):
        raise ImageFileError(f"{given}: holds no image, only {told}. Name a folder with one DICOM series in it.")
    if others:
        logger.info("%s: DICOM files that are not images are left out: %s.", given, told)
    return [file for file in found if file.is_image]


def _distinct(files: Sequence[DicomFile], given: Path) -> list[DicomFile]:
    """The files without duplicates."""
    first_of: dict[str, DicomFile] = {}
    distinct, copies = [], []
    for file in files:
        first = first_of.setdefault(file.instance_uid, file) if file.instance_uid else file
        if first is file:
            distinct.append(file)
        elif filecmp.cmp(first.path, file.path, shallow=False):
            copies.append(file.path.name)
        else:
            raise ImageFileError(
                f"{given}: {first.path.name} and {file.path.name} claim to be the same image (SOPInstanceUID), "
                "but differ. Remove the wrong one."
            )
    if copies:
        logger.info("%s: %s left out, such as %s.", given, counted(len(copies), "duplicate file"), copies[0])
    return distinct


def _voxels(planes: Sequence[DicomPlane]) -> np.ndarray[Any, Any]:
    """The values ``(columns, rows, slices)``; only one file at a time is held in memory besides them."""
    dtype = _value_type(planes)
    columns, rows = planes[0].size
    slots: dict[Path, dict[int, int]] = defaultdict(dict)
    for slot, plane in enumerate(planes):
        slots[plane.path][plane.frame] = slot
    voxels = np.empty((0, rows, columns), dtype)
    with quiet_pydicom():
        for path, slot_of in slots.items():
            for frame, pixels in enumerate(_frames(path, len(slot_of))):
                if not voxels.size:  # only once a slice was decoded: a damaged header may claim any size
                    voxels = np.empty((len(planes), rows, columns), dtype)
                _scale(pixels, planes[slot_of[frame]], voxels[slot_of[frame]])
    return np.transpose(voxels, (2, 1, 0))


def _value_type(planes: Sequence[DicomPlane]) -> type[np.generic]:
    """The smallest type for the values of all slices."""
    exact = all(plane.slope == 1 and plane.intercept.is_integer() for plane in planes)
    if not exact or any(plane.stored_range is None or plane.scale_source == "table" for plane in planes):
        return np.float32
    lows, highs = zip(*(plane.stored_range for plane in planes if plane.stored_range is not None), strict=True)
    low = min(low + int(plane.intercept) for low, plane in zip(lows, planes, strict=True))
    high = max(high + int(plane.intercept) for high, plane in zip(highs, planes, strict=True))
    for candidate in _INTEGERS:
        if np.iinfo(candidate).min <= low and high <= np.iinfo(candidate).max:
            return candidate
    return np.float32


def _scale(pixels: np.ndarray[Any, Any], plane: DicomPlane, out: np.ndarray[Any, Any]) -> None:
    if plane.stored_range is not None and plane.scale_source != "table":
        low, high = plane.stored_range
        if pixels.min() < low or pixels.max() > high:
            raise ImageFileError(
                f"{plane.path}: has values from {pixels.min()} to {pixels.max()}, outside its BitsStored. "
                "Export or copy it again."
            )
    if out.dtype.kind == "f":
        with np.errstate(over="ignore"):  # the reader reports infinite values
            out[...] = pixels * np.float64(plane.slope) + plane.intercept
    else:
        np.add(pixels, int(plane.intercept), out=out, dtype=np.int64, casting="unsafe")


def _frames(path: Path, count: int) -> Iterator[np.ndarray[Any, Any]]:
    """The stored values ``(rows, columns)`` of each frame."""
    import pydicom
    from pydicom.pixels.processing import apply_modality_lut
    from pydicom.pixels.utils import iter_pixels

    trouble = "damaged or cut off. Export or copy it again."
    try:
        dataset = pydicom.dcmread(path, force=True)
        syntax = _checked_syntax(dataset, path)
        if syntax.is_encapsulated:
            trouble = f"damaged, or compressed ({syntax.name}) in an unsupported way. Export it uncompressed."
        # With indices, pydicom also corrects the sign of JPEG 2000; without them its array would be read-only.
        for pixels in iter_pixels(dataset, indices=range(count), raw=True):
            if pixels.shape != (dataset.Rows, dataset.Columns):
                raise ValueError(f"a frame has the shape {pixels.shape}")
            yield apply_modality_lut(pixels, dataset) if dataset.get("ModalityLUTSequence") else pixels
    except (ImageFileError, MemoryError):
        raise
    except Exception as e:  # hostile bytes make pydicom and the decoders raise almost anything
        logger.debug("%s", path, exc_info=True)
        raise ImageFileError(f"{path}: its pixels are {trouble}") from e


def _checked_syntax(dataset: Dataset, path: Path) -> UID:
    """The transfer syntax of the pixels, checked to be decodable."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" not in dataset.file_meta:  # as in files without the DICOM prefix
        implicit, little = dataset.original_encoding
        native = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = native
    syntax: UID = dataset.file_meta.TransferSyntaxUID
    missing = [name for name in _OF_PIXELS if name not in dataset]
    # of a file that was cut off, more is missing
    if missing and "PixelData" in dataset:
        raise ImageFileError(f"{path}: has no {missing[0]}, which its pixels need. Export it again.")
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError as e:
        raise ImageFileError(
            f"{path}: its pixels are compressed as {syntax.name}, which cannot be read. Export it uncompressed."
        ) from e
    if not available:
        raise ImageFileError(
            f"{path}: its pixels are compressed as {syntax.name}, which needs another package. Install it with: "
            "pip install python-gdcm pylibjpeg pylibjpeg-openjpeg"
        )
    return syntax
