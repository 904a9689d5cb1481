"""DICOM files made from voxels and a grid: single slices, and files of many frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

MR, CT, ENHANCED_MR = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("4", "2", "4.1"))
SERIES = "1.2.826.0.1.3680043.10.1.7"
SIDEWAYS = ["0", "1", "0", "0", "0", "-1"]
"""An ImageOrientationPatient across that of :class:`Grid`."""

Tags = Callable[[int], Mapping[str, Any]]
"""Attributes of a slice by its number."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where slices lie, in DICOM's patient space."""

    orientation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    spacing_mm: tuple[float, float] = (1.0, 1.5)  # of rows, of columns
    step_mm: float = 2.0
    origin_mm: tuple[float, ...] = (-7.0, -6.0, 5.0)

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.orientation[:3], self.orientation[3:])

    def position(self, k: float) -> np.ndarray:
        return np.asarray(self.origin_mm) + k * self.step_mm * self.normal

    def affine(self) -> np.ndarray:
        """From (column, row, slice) to mm in RAS, by the equation of the standard."""
        axes = (
            np.asarray(self.orientation[:3]) * self.spacing_mm[1],
            np.asarray(self.orientation[3:]) * self.spacing_mm[0],
            self.normal * self.step_mm,
        )
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = np.stack(axes, axis=1), self.origin_mm
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def text(numbers: Sequence[float] | np.ndarray) -> list[str]:
    """Decimal strings of at most 16 characters, as DICOM has them."""
    return [f"{number:.10f}"[:16] for number in numbers]


def at(position: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """The attribute of a slice at ``position``."""
    return {"ImagePositionPatient": text(position)}


def only_first(**tags: Any) -> Tags:
    """Attributes of the first slice alone."""
    return lambda k: tags if k == 0 else {}


def halves(grid: Grid, slices: int, name: str, first: Any, second: Any) -> Tags:
    """Each position twice, with another value of one attribute."""
    half = slices // 2
    return lambda k: {**at(grid.position(k % half)), name: first if k < half else second}


def image_dataset(pixels: np.ndarray, uid: str, sop_class: str = MR, **tags: Any) -> Dataset:
    """A file with ``pixels`` ``([frames, ]rows, columns)`` and no geometry."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID = sop_class, uid, SERIES
    dataset.Modality, dataset.ImageType = "MR", ["ORIGINAL", "PRIMARY"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.dtype.kind == "f":
        dataset.BitsAllocated = 32
        dataset.FloatPixelData = pixels.astype("<f4").tobytes()
    else:
        bits = pixels.dtype.itemsize * 8
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        dataset["PixelData"].VR = "OW"
    return with_tags(dataset, tags)


def with_tags(dataset: Dataset, tags: Mapping[str, Any]) -> Dataset:
    """Set attributes; None removes one."""
    for name, value in tags.items():
        if value is None:
            if name in dataset:
                delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def slice_dataset(pixels: np.ndarray, k: float, grid: Grid, **tags: Any) -> Dataset:
    """One slice ``(rows, columns)`` of a series."""
    place = {
        "ImagePositionPatient": text(grid.position(k)),
        "ImageOrientationPatient": text(grid.orientation),
        "PixelSpacing": text(grid.spacing_mm),
    }
    return image_dataset(pixels, f"{SERIES}.{int(k * 100) + 100}", **{**place, **tags})


def write(path: Path, dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a file with DICOM's mark and file meta information."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def series_datasets(voxels: np.ndarray, grid: Grid, tags: Sequence[Mapping[str, Any]] = ()) -> list[Dataset]:
    """One dataset per slice of ``voxels`` ``(columns, rows, slices)``; ``tags`` are those of each slice."""
    own = tags or [{}] * voxels.shape[2]
    return [slice_dataset(voxels[:, :, k].T, k, grid, **own[k]) for k in range(voxels.shape[2])]


def write_all(folder: Path, datasets: Sequence[Dataset], order: Sequence[int] | None = None) -> Path:
    """Write datasets into ``folder``; ``order`` gives the place of each among names and instance numbers."""
    for k, dataset in enumerate(datasets):
        place = k if order is None else order[k]
        dataset.InstanceNumber = place + 1
        write(folder / f"{place:03d}.dcm", dataset)
    return folder


def groups(**sequences: Mapping[str, Any]) -> Dataset:
    """Functional groups: sequences of one item each."""
    group = Dataset()
    for name, tags in sequences.items():
        setattr(group, name, [with_tags(Dataset(), tags)])
    return group


def frame_groups(grid: Grid, k: float, shared: bool, slope: float | None = None, **more: Any) -> Dataset:
    """The groups of one frame; with ``shared``, what all frames have in common is not in them."""
    sequences: dict[str, Any] = {"PlanePositionSequence": {"ImagePositionPatient": text(grid.position(k))}}
    if not shared:
        sequences.update(common_groups(grid))
    if slope is not None:
        sequences["PixelValueTransformationSequence"] = {"RescaleSlope": f"{slope:g}", "RescaleIntercept": "1"}
    return groups(**sequences, **more)


def common_groups(grid: Grid) -> dict[str, Any]:
    """Groups that may be those of each frame or of all."""
    return {
        "PlaneOrientationSequence": {"ImageOrientationPatient": text(grid.orientation)},
        "PixelMeasuresSequence": {"PixelSpacing": text(grid.spacing_mm), "SliceThickness": "2"},
    }


def enhanced_dataset(frames: np.ndarray, grid: Grid, per_frame: Sequence[Dataset], shared: bool = True) -> Dataset:
    """An enhanced MR file of ``frames`` ``(frames, rows, columns)``."""
    dataset = image_dataset(frames, f"{SERIES}.1", ENHANCED_MR)
    dataset.PerFrameFunctionalGroupsSequence = list(per_frame)
    dataset.SharedFunctionalGroupsSequence = [groups(**common_groups(grid))] if shared else [Dataset()]
    return dataset
