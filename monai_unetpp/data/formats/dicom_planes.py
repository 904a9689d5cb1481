"""Read the headers of DICOM files: one record per slice or frame."""

from __future__ import annotations

import dataclasses
import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_unetpp.data.formats.image_errors import ImageFileError, without_log

if TYPE_CHECKING:  # pydicom is imported when a DICOM file is met, to keep start-up fast
    from pydicom import Dataset

logger = logging.getLogger(__name__)

#: The remedy for series that other programs can read.
CONVERT = "Convert it to NIfTI, for example with dcm2niix."
#: DICOM attributes in which two slices at the same position may differ.
DISTINGUISHING = (
    *("FrameType", "ImageType", "EchoTime", "EffectiveEchoTime", "InversionTime", "RepetitionTime", "FlipAngle"),
    *("DiffusionBValue", "DiffusionGradientOrientation", "SequenceName", "TemporalPositionIndex"),
    *("TemporalPositionIdentifier", "TriggerTime", "NominalCardiacTriggerDelayTime", "FrameReferenceTime", "StackID"),
    *("KVP", "ConvolutionKernel", "ReconstructionDiameter", "SliceThickness"),
    *("AcquisitionNumber", "AcquisitionTime", "AcquisitionDateTime", "ContentTime"),
)
#: Attributes that all slices of a volume must share, besides their grid.
COMMON = (
    *("StudyInstanceUID", "SeriesInstanceUID", "PatientID", "Modality"),
    *("FrameOfReferenceUID", "PhotometricInterpretation", "RescaleType", "Units"),
)
#: Attributes of each file.
IDENTITY = ("SOPClassUID", "SOPInstanceUID")
_OTHERS = (
    *("SeriesNumber", "SeriesDescription", "ConcatenationUID", "NumberOfFrames", "TotalPixelMatrixColumns"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ModalityLUTSequence"),
    *("ImagePositionPatient", "ImageOrientationPatient", "Rows", "Columns"),
    *("SamplesPerPixel", "BitsStored", "HighBit", "PixelRepresentation"),
)
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_SCALES = {
    "rescale": ("RescaleSlope", "RescaleIntercept"),
    "map": ("RealWorldValueSlope", "RealWorldValueIntercept"),
}
_MAPS = "RealWorldValueMappingSequence"
_READ = sorted({*DISTINGUISHING, *COMMON, *_SPACINGS, *_SCALES["rescale"], _MAPS, *IDENTITY, *_OTHERS})
#: Key for the number of different maps, of which only the first is kept.
_SEVERAL = "different maps"
_GREY = ("MONOCHROME1", "MONOCHROME2")
_MORE_IMAGE_CLASSES = ("Parametric Map Storage", "Enhanced US Volume Storage")


@dataclasses.dataclass(frozen=True)
class DicomPlane:
    """One slice: a file, or one frame of a file.

    Attributes:
        frame: index of the frame in the file, from 0, of as many as it has ``frames``.
        size: columns and rows.
        position_mm: of the centre of the first pixel, in DICOM's patient space (left, posterior, superior).
        orientation: direction cosines along a row, then down a column.
        spacing_mm: distance between rows, then between columns.
        spacing_source: the attribute it comes from: ``"PixelSpacing"``, or that of a detector or scanner.
        thickness_mm: SliceThickness, which says nothing about positions.
        scale_source: ``"rescale"``, ``"map"`` (real-world values), ``"table"`` (a modality LUT) or ``"none"``.
        slope: factor of the stored values, to which ``intercept`` is added then.
        stored_range: lowest and highest value that the pixels can hold; None for floats.
        attributes: other attributes as text, by keyword; those of the frame override those of the file.
    """

    path: Path
    frame: int
    frames: int
    size: tuple[int, int]
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing_mm: tuple[float, ...] | None
    spacing_source: str | None
    thickness_mm: float | None
    scale_source: str
    slope: float
    intercept: float
    stored_range: tuple[int, int] | None
    attributes: Mapping[str, str]

    @property
    def is_localizer(self) -> bool:
        """Whether it is a scout, for planning other scans."""
        return "LOCALIZER" in self.attributes["ImageType"].upper()

    @property
    def label(self) -> str:
        """A name for messages."""
        return f"frame {self.frame + 1}" if self.frames > 1 else self.path.name


@dataclasses.dataclass(frozen=True)
class DicomFile:
    """One DICOM file; what it does not say is an empty string.

    Attributes:
        kind: its modality, such as ``"MR"`` or ``"SR"``.
        is_image: whether it holds an image to segment, not a report, presentation state, segmentation or the like.
        refusal: why its pixels are not slices, with the remedy, or None.
        planes: its slices; none if its attributes are no slices'.
    """

    path: Path
    kind: str
    is_image: bool
    instance_uid: str
    series_uid: str
    series_number: str
    description: str
    refusal: str | None
    planes: tuple[DicomPlane, ...]


def read_dicom_file(path: Path) -> DicomFile | None:
    """Read the header of a DICOM file; None if it cannot be read."""
    import pydicom

    with quiet_pydicom():
        try:
            dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(_READ))
            is_image = _is_image(dataset)
            return None if is_image is None else _dicom_file(path, dataset, is_image)
        except (MemoryError, OSError):
            raise
        except Exception:  # hostile bytes make pydicom raise almost anything
            logger.debug("%s", path, exc_info=True)
            return None


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's messages about files."""
    import pydicom

    with without_log(pydicom.config.logger), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_image(dataset: Dataset) -> bool | None:
    """Whether a file is an image; None if it is not DICOM, or cut off."""
    has_pixels = "Rows" in dataset and "Columns" in dataset
    if "SOPClassUID" not in dataset:
        return True if has_pixels else None
    name = dataset.SOPClassUID.name
    if name == dataset.SOPClassUID:  # private, or newer than pydicom
        return has_pixels
    # radiographs are "... Image Storage - For Presentation" or "- For Processing"
    if name in _MORE_IMAGE_CLASSES or name.partition(" - For ")[0].endswith("Image Storage"):
        return True if has_pixels else None
    return False


def _dicom_file(path: Path, dataset: Dataset, is_image: bool) -> DicomFile:
    values = _values(dataset)
    texts = {name: _text(value) for name, value in values.items() if not name.endswith("Sequence")}
    refusal = _refusal(texts) if is_image else None
    planes: tuple[DicomPlane, ...] = ()
    try:
        planes = tuple(_planes(path, values)) if is_image else ()
    except ImageFileError as e:
        # the other series of a folder can be read all the same
        refusal = refusal or str(e).removeprefix(f"{path}: ")
    return DicomFile(
        path=path,
        kind=texts.get("Modality") or "a file of an unknown kind",
        is_image=is_image,
        instance_uid=texts.get("SOPInstanceUID", ""),
        series_uid=texts.get("SeriesInstanceUID", ""),
        series_number=texts.get("SeriesNumber", ""),
        description=texts.get("SeriesDescription", ""),
        refusal=refusal,
        planes=planes,
    )


def _refusal(texts: Mapping[str, str]) -> str | None:
    photometric = texts.get("PhotometricInterpretation") or "MONOCHROME2"
    if photometric not in _GREY or texts.get("SamplesPerPixel", "1") != "1":
        return f"holds colours ({photometric}) instead of one grey value per voxel. Convert it to grey values."
    if "MOSAIC" in texts.get("ImageType", "").upper().split("\\"):
        return f"a Siemens mosaic, with slices as tiles of one picture. {CONVERT}"
    if "TotalPixelMatrixColumns" in texts:
        return "a tiled slide image, not slices of a patient. Extract the part that you need as a picture."
    if texts.get("ConcatenationUID"):
        return "a part of a concatenation of files. Export it as one file, or as single slices."
    return None


def _planes(path: Path, values: dict[str, Any]) -> Iterator[DicomPlane]:
    frames = int((_numbers(path, values, "NumberOfFrames", 1) or (1,))[0])
    groups: list[Dataset | None] = list(_items(path, values, "PerFrameFunctionalGroupsSequence"))
    if groups and len(groups) != frames:
        raise ImageFileError(f"{path}: claims {frames} frames, but describes {len(groups)}. Export or copy it again.")
    of_file = {**values, **_map_values(path, values)}
    for shared in _items(path, values, "SharedFunctionalGroupsSequence")[:1]:
        of_file.update(_group_values(path, shared))
    if frames > 1 and not groups:
        # one position cannot hold for all frames, and a header may claim any number of them
        of_file["ImagePositionPatient"] = None
        groups = [None]
    for index, group in enumerate(groups or [None]):
        yield _plane(path, index, frames, {**of_file, **(_group_values(path, group) if group is not None else {})})


def _group_values(path: Path, group: Dataset) -> dict[str, Any]:
    """The attributes in the functional groups of one frame, or in the shared ones."""
    values = _values(group)
    found = _map_values(path, values)
    for name in values:
        if name != _MAPS and name.endswith("Sequence"):
            for item in _items(path, values, name)[:1]:
                found.update(_values(item))
    return found


def _map_values(path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    found = [_values(item) for item in _items(path, values, _MAPS)]
    differ = any(item != found[0] for item in found)
    return {**found[0], _SEVERAL: len(found) if differ else 0} if found else {}


def _plane(path: Path, index: int, frames: int, values: Mapping[str, Any]) -> DicomPlane:
    source, slope, intercept = _scale(path, values)
    spacing_source = next((name for name in _SPACINGS if _text(values.get(name))), None)
    columns, rows = (int((_numbers(path, values, name, 1) or (0,))[0]) for name in ("Columns", "Rows"))
    if columns < 1 or rows < 1:
        raise ImageFileError(f"{path}: has {columns} columns and {rows} rows. Export or copy it again.")
    return DicomPlane(
        path=path,
        frame=index,
        frames=frames,
        size=(columns, rows),
        position_mm=_numbers(path, values, "ImagePositionPatient", 3),
        orientation=_numbers(path, values, "ImageOrientationPatient", 6),
        spacing_mm=None if spacing_source is None else _numbers(path, values, spacing_source, 2),
        spacing_source=spacing_source,
        thickness_mm=(_numbers(path, values, "SliceThickness", 1) or (None,))[0],
        scale_source=source,
        slope=slope,
        intercept=intercept,
        stored_range=_stored_range(path, values),
        attributes={name: _text(values.get(name)) for name in (*DISTINGUISHING, *COMMON, *IDENTITY)},
    )


def _scale(path: Path, values: Mapping[str, Any]) -> tuple[str, float, float]:
    for source, names in _SCALES.items():
        if source == "map" and (count := values.get(_SEVERAL)):
            raise ImageFileError(f"{path}: has {count} different maps to real-world values. Export it with one.")
        slope, intercept = (_numbers(path, values, name, 1) for name in names)
        if slope is None and intercept is None:
            continue
        if slope == (0.0,):
            raise ImageFileError(f"{path}: its {names[0]} is 0, which makes all values equal. Export it again.")
        return source, (slope or (1.0,))[0], (intercept or (0.0,))[0]
    if values.get("ModalityLUTSequence"):
        return "table", 1.0, 0.0
    if values.get("RealWorldValueLUTData"):
        raise ImageFileError(f"{path}: its real-world values are in a table, which is not supported. {CONVERT}")
    return "none", 1.0, 0.0


def _stored_range(path: Path, values: Mapping[str, Any]) -> tuple[int, int] | None:
    bits, signed = (_numbers(path, values, name, 1) for name in ("BitsStored", "PixelRepresentation"))
    if bits is None or signed is None:  # as in floats
        return None
    if not 1 <= bits[0] <= 64:
        raise ImageFileError(f"{path}: its BitsStored is {bits[0]:g}. Export or copy it again.")
    # pydicom takes the lowest bits in any case
    if (highest := _numbers(path, values, "HighBit", 1)) is not None and highest[0] != bits[0] - 1:
        raise ImageFileError(f"{path}: its HighBit is {highest[0]:g} with {bits[0]:g} bits stored. {CONVERT}")
    half = 2 ** (int(bits[0]) - 1)
    return (-half, half - 1) if signed[0] else (0, 2 * half - 1)


def _values(dataset: Dataset) -> dict[str, Any]:
    """Attributes by keyword; one that cannot be parsed is given as bytes."""
    from pydicom.datadict import keyword_for_tag

    found: dict[str, Any] = {}
    for tag in list(dataset.keys()):
        try:
            found[dataset[tag].keyword] = dataset[tag].value
        except MemoryError:
            raise
        except Exception:
            found[keyword_for_tag(tag)] = dataset.get_item(tag).value
    return found


def _items(path: Path, values: Mapping[str, Any], name: str) -> list[Dataset]:
    """The items of a sequence; none if it is absent."""
    from pydicom.sequence import Sequence

    value = values.get(name)
    if value is not None and not isinstance(value, Sequence):
        raise ImageFileError(f"{path}: its {name} is damaged. Export or copy it again.")
    return list(value or [])


def _numbers(path: Path, values: Mapping[str, Any], name: str, count: int) -> tuple[float, ...] | None:
    """``count`` finite numbers; None if the attribute is absent or empty."""
    value = values.get(name)
    text = _text(value)
    if not text:
        return None
    try:
        numbers = tuple(float(part) for part in text.split("\\"))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        wanted = "a number" if count == 1 else f"{count} numbers"
        raise ImageFileError(f"{path}: its {name} is {text[:60]!r}, not {wanted}. Export or copy it again.")
    return numbers


def _text(value: Any) -> str:
    """One printable line; several values are separated by backslashes, as in DICOM."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    parts = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value
    line = "\\".join(str(part) for part in parts)
    return " ".join("".join(letter if letter.isprintable() else " " for letter in line).split())
