"""Write DICOM SEG: label maps of DICOM series for archives and viewers, with references to the images."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Hashable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import MetaKeys
from nibabel import orientations

from monai_unetpp.data.formats.dicom import find_series, is_dicom_file, is_own_seg, stack_series
from monai_unetpp.data.formats.dicom_planes import IDENTITY, DicomPlane, quiet_pydicom
from monai_unetpp.data.formats.grid import ImageGeometry, compare_geometry
from monai_unetpp.data.formats.image_errors import ImageFileError, describe_failure
from monai_unetpp.data.formats.label_table import make_labels
from monai_unetpp.data.formats.source_files import source_files
from monai_unetpp.files import MARK, atomic_path
from monai_unetpp.version import __version__

if TYPE_CHECKING:  # imported when a DICOM SEG is written
    from pydicom import Dataset

#: This package's own coding scheme, for labels without a code.
_OWN_SCHEME = "99MONAIUNETPP"
#: Attributes that must exist but may be empty; anonymised files often lack them.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "ReferringPhysicianName"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
)
#: The form that some of them must have, and what old files have between the digits.
_FORMS = {
    "StudyDate": (r"\d{8}", "."),
    "PatientBirthDate": (r"\d{8}", "."),
    "StudyTime": (r"(\d\d){1,3}(\.\d{1,6})?", ":"),
}
#: Functional groups that a DICOM SEG takes over if they are shared.
_SHARED = ("PixelMeasuresSequence", "PlaneOrientationSequence")
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_LARGEST_DESCRIPTION, _LARGEST_NUMBER = 64, 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Code:
    """An entry of a terminology, such as value 5366008, scheme SCT (SNOMED CT), meaning Hippocampus."""

    value: str
    scheme: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class LabelCodes:
    """The meaning of a label in DICOM terms.

    Attributes:
        category: the kind of structure, such as an anatomical structure.
        type: the structure.
        modifier: which part of it; None for all of it.
        side: the side of the body, if it is not in the modifier.
    """

    category: Code
    type: Code
    modifier: Code | None = None
    side: Code | None = None


#: Sides of the body by name.
SIDES = {"left": Code("7771000", "SCT", "Left"), "right": Code("24028007", "SCT", "Right")}
_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")


def read_label_codes(path: str | PathLike[str], entry: Any) -> dict[int, LabelCodes]:
    """Parse the entry ``label_codes`` of the ``metadata.json`` at ``path``; any other form is a ``ValueError``.

    It has ``category``, ``type`` and optionally ``modifier`` and ``side`` of each value, each with ``value``,
    ``scheme`` and ``meaning``; None gives an empty dict.
    """
    try:
        return {
            int(value): LabelCodes(
                **{part: Code(**{key: str(text) for key, text in code.items()}) for part, code in codes.items()}
            )
            for value, codes in (entry or {}).items()
        }
    except (AttributeError, TypeError, ValueError) as e:
        raise ValueError(
            f"{path}: label_codes must give category, type and optionally modifier and side per label, each with "
            f"value, scheme and meaning, got {entry!r:.80}. Correct it, or leave it out."
        ) from e


class DicomSegSaved(MapTransform):
    """Write a DICOM SEG beside each label map, with the suffix ``.dcm``; for use after ``SegmentationSaveImaged``.

    Each value has a name and, where it has no codes of its own, a code of this package; ``model`` names the bundle.
    """

    def __init__(
        self,
        keys: KeysCollection,
        names: Mapping[int, str],
        codes: Mapping[int, LabelCodes] | None = None,
        model: str = "",
    ) -> None:
        super().__init__(keys)
        self.names, self.codes, self.model = names, codes or {}, model

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the label maps of one item; errors are those of :meth:`write`."""
        d = dict(data)
        for key in self.key_iterator(d):
            label_map: MetaTensor = d[key]
            labels = np.asarray(label_map.detach().cpu())[0]
            self.write(Path(label_map.meta[MetaKeys.SAVED_TO]), labels, source_files(label_map.meta))
        return d

    def write(
        self,
        output: Path,
        labels: np.ndarray[Any, Any],
        source: Sequence[str | PathLike[str]],
        affine: np.ndarray[Any, Any] | None = None,
    ) -> None:
        """Write the DICOM SEG beside a label map, whole or not at all.

        Each name becomes a segment, numbered in order, even if its value does not occur.

        Args:
            output: the label map.
            labels: ``(columns, rows[, slices])``, on the grid of the series.
            source: the folder or the files of the series.
            affine: of the labels where they may have been saved again, with axes in other directions or order.

        Raises:
            ImageFileError: the series is unusable, or ``labels`` with an affine are on another grid.
            ValueError: ``labels`` has another shape than the series.
            FileExistsError: as for :func:`check_replaceable`.
        """
        path = dicom_seg_path(output)
        check_replaceable(path)
        paths = [Path(file) for file in source]
        _check_dicom(paths[0])
        planes, place = stack_series(paths)
        _check_needed(paths[0], planes)
        shape = (*planes[0].size, len(planes))
        if affine is not None:
            labels = _along(ImageGeometry(shape, place), labels, affine, output, paths[0])
        if labels.size != np.prod(shape):
            raise ValueError(f"labels must have the shape of {paths[0]}, {shape}, got {labels.shape}.")
        frames = np.zeros(shape[::-1], np.uint8 if len(self.names) < 256 else np.uint16)
        for number, value in enumerate(sorted(self.names), start=1):
            frames[np.transpose(labels.reshape(shape)) == value] = number
        # the unsorted frames are let go
        images, frames = _in_order_of_files(planes, frames)
        with quiet_pydicom():
            try:
                segmentation = self._segmentation(images, frames)
            except (AttributeError, KeyError, TypeError, ValueError) as e:
                raise ImageFileError(
                    f"{paths[0]}: highdicom makes no DICOM SEG for it ({describe_failure(e)}). Leave --dicom_seg out."
                ) from e
            with atomic_path(path) as temporary:
                segmentation.save_as(temporary)

    def _segmentation(self, images: Sequence[Dataset], frames: np.ndarray[Any, Any]) -> Dataset:
        from highdicom import UID
        from highdicom.seg import Segmentation, SegmentationTypeValues

        return Segmentation(
            source_images=images,
            pixel_array=frames,
            segmentation_type=SegmentationTypeValues.BINARY,
            segment_descriptions=self._descriptions(),
            series_instance_uid=UID(),
            series_number=_series_number(images[0]),
            sop_instance_uid=UID(),
            instance_number=1,
            manufacturer=MARK,
            manufacturer_model_name=(self.model or MARK)[:_LARGEST_DESCRIPTION],
            software_versions=__version__,
            device_serial_number="1",
            content_label="SEGMENTATION",
            # names of labels need not be of the images' character set
            specific_character_set="ISO_IR 192",
            series_description=f"Segmentation by {self.model or MARK}"[:_LARGEST_DESCRIPTION],
        )

    def _descriptions(self) -> list[Any]:
        from highdicom import AlgorithmIdentificationSequence
        from highdicom.color import CIELabColor
        from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
        from pydicom.sr.codedict import codes as known

        algorithm = AlgorithmIdentificationSequence(MARK, known.cid7162.ArtificialIntelligence, __version__)
        descriptions = []
        for number, label in enumerate(make_labels(self.names), start=1):
            own = LabelCodes(_STRUCTURE, Code(str(label.value), _OWN_SCHEME, label.name))
            given = self.codes.get(label.value, own)
            description = SegmentDescription(
                segment_number=number,
                segment_label=label.name[:_LARGEST_DESCRIPTION],
                segmented_property_category=_concept(given.category),
                segmented_property_type=_concept(given.type),
                algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
                display_color=CIELabColor.from_rgb(*label.colour),
            )
            is_region = given.category.value == _STRUCTURE.value  # unlike a lesion
            modifiers = [_concept(code) for code in (given.modifier, None if is_region else given.side) if code]
            if modifiers:
                kind = description.SegmentedPropertyTypeCodeSequence[0]
                kind.SegmentedPropertyTypeModifierCodeSequence = modifiers
            if is_region and given.side:
                region = _concept(given.type)
                region.AnatomicRegionModifierSequence = [_concept(given.side)]
                description.AnatomicRegionSequence = [region]
            descriptions.append(description)
        return descriptions


def _along(
    grid: ImageGeometry, labels: np.ndarray[Any, Any], affine: np.ndarray[Any, Any], output: Path, series: Path
) -> np.ndarray[Any, Any]:
    """The labels with their axes as those of the grid; other grids are refused."""
    volume = labels.reshape(*labels.shape, *[1] * (3 - labels.ndim))
    # of the labels in the series, where no axis lies between two others
    turn = orientations.io_orientation(np.linalg.inv(grid.affine) @ affine)
    turned: np.ndarray[Any, Any] = orientations.apply_orientation(volume, turn)
    own = ImageGeometry(turned.shape, affine @ orientations.inv_ornt_aff(turn, volume.shape))
    difference = compare_geometry(grid, own)
    if difference is not None:
        raise ImageFileError(
            f"{output}: not on the grid of {series}: {difference}. Save the label map on its grid, or remove it "
            "to have it made again."
        )
    return turned


def dicom_seg_path(label_map: Path) -> Path:
    """The DICOM SEG beside a label map."""
    return label_map.with_name(f"{label_map.name.removesuffix('.gz').removesuffix('.nii')}.dcm")


def check_references(source: Sequence[str | PathLike[str]]) -> None:
    """Check that the headers of a series, a folder or its files, have what a DICOM SEG refers to.

    An ``ImageFileError`` says what is missing. Several series are left to the reader.
    """
    paths = [Path(file) for file in source]
    _check_dicom(paths[0])
    first, *others = find_series(paths)
    if not others:
        _check_needed(paths[0], [plane for file in first.files for plane in file.planes])


def _check_dicom(given: Path) -> None:
    if not (given.is_dir() or is_dicom_file(given)):
        raise ImageFileError(f"{given}: not DICOM, so no DICOM SEG can be written. Leave --dicom_seg out.")


def _check_needed(given: Path, planes: Sequence[DicomPlane]) -> None:
    for name in _NEEDED:
        values = {plane.attributes[name] for plane in planes}
        if values == {""}:
            raise ImageFileError(f"{given}: has no {name}, which a DICOM SEG needs. Export the series again.")
        if len(values) > 1:
            raise ImageFileError(
                f"{given}: its slices differ in {name}, but a DICOM SEG refers to one. Export the series again."
            )
    for name in IDENTITY:
        if any(not plane.attributes[name] for plane in planes):
            raise ImageFileError(f"{given}: has no {name}, which a DICOM SEG needs. Export the series again.")
    kind = _name_of_class(planes[0].attributes["SOPClassUID"])
    if not kind:
        raise ImageFileError(f"{given}: is of no class of DICOM that a DICOM SEG can name. Leave --dicom_seg out.")
    if "Enhanced" in kind and len({plane.path for plane in planes}) > 1:
        raise ImageFileError(
            f"{given}: has several files of the class {kind}, but a DICOM SEG refers to one. Name one file, or leave "
            "--dicom_seg out."
        )


def _series_number(image: Any) -> int:
    """A number beyond those of a study's images, as far as DICOM allows."""
    return min(100 + int(image.get("SeriesNumber") or 0), _LARGEST_NUMBER)


def _name_of_class(uid: str) -> str:
    """The name of a kind of DICOM files; empty for what the standard does not define."""
    from pydicom.uid import UID

    return str(UID(uid).name) if UID(uid).type == "SOP Class" else ""


def check_replaceable(path: str | PathLike[str]) -> None:
    """Refuse, by a ``FileExistsError``, to write over a file of another program."""
    path = Path(path)
    if path.exists() and not is_own_seg(path):
        raise FileExistsError(
            f"{path}: exists and was not written by monai-unetpp. Move it away, or name another output folder."
        )


def _concept(code: Code) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning[:_LARGEST_DESCRIPTION])


def _in_order_of_files(
    planes: Sequence[DicomPlane], frames: np.ndarray[Any, Any]
) -> tuple[list[Dataset], np.ndarray[Any, Any]]:
    """The headers of the files, and the frames in the same order."""
    import pydicom

    images: list[Dataset] = []
    many = planes[0].frames > 1
    for path in dict.fromkeys(plane.path for plane in planes):
        image = pydicom.dcmread(fspath(path), stop_before_pixels=True, force=True)
        for name in _MAY_BE_EMPTY:
            if name not in image:
                setattr(image, name, "")
        for name, (form, separator) in _FORMS.items():
            value = str(image[name].value or "").replace(separator, "").strip()
            setattr(image, name, value if re.fullmatch(form, value) else "")
        if not image.get("SliceThickness") and not many:
            image.SliceThickness = f"{_step_mm(planes):g}"
        if many:
            _share_groups(image)
        images.append(image)
    return images, frames[np.argsort([plane.frame for plane in planes])] if many else frames


def _share_groups(image: Dataset) -> None:
    """Let a file of many frames share the groups that its frames, which are a volume, repeat each by itself."""
    from pydicom import Dataset

    shared = (image.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    first = image.PerFrameFunctionalGroupsSequence[0]
    for name in _SHARED:
        if name not in shared and name in first:
            setattr(shared, name, first[name].value)
    image.SharedFunctionalGroupsSequence = [shared]


def _step_mm(planes: Sequence[DicomPlane]) -> float:
    """Distance between neighbouring slices."""
    positions = [np.asarray(plane.position_mm or (0.0, 0.0, 0.0)) for plane in planes[:2]]
    return float(np.linalg.norm(positions[-1] - positions[0])) or 1.0
