"""DICOM: series and files of many frames, read slice by slice or refused with the reason."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless, generate_uid
from scipy.spatial.transform import Rotation

from benchmarks.robustness.inputs import LABELS, VOXELS, labels_of, read, save, segmented
from benchmarks.robustness.situations import REFUSED, TOLD, Kind, expect, expect_equal
from monai_unetpp.data.formats.dicom import find_series
from tests.data.dicom_builder import (
    SERIES,
    SIDEWAYS,
    Grid,
    Tags,
    at,
    enhanced_dataset,
    frame_groups,
    halves,
    image_dataset,
    only_first,
    series_datasets,
    slice_dataset,
    with_tags,
    write,
    write_all,
)

KIND = Kind("DICOM")

_SLICES = VOXELS.shape[2]
_TURN = Rotation.from_euler("xyz", [14, -9, 21], degrees=True).as_matrix()
_ROW, _COLUMN = _TURN[:, 0], _TURN[:, 1]
_GRID = Grid((*_ROW, *_COLUMN), (1.0, 1.0), 2.0, (-7.0, -6.0, 5.0))


def _slices(tags: Tags = lambda k: {}) -> list[Dataset]:
    return series_datasets(VOXELS, _GRID, [tags(k) for k in range(_SLICES)])


def _halves(name: str, first: Any, second: Any) -> Tags:
    return halves(_GRID, _SLICES, name, first, second)


def _is_known(path: Path, values: Any = VOXELS, within_mm: float = 1e-3) -> None:
    voxels, affine = read(path)
    expect_equal(voxels, values)
    for corner in itertools.product(*((0, length - 1) for length in VOXELS.shape)):
        apart = np.linalg.norm((affine - _GRID.affine()) @ [*corner, 1])
        expect(apart <= within_mm, f"a corner lies {apart:.3g} mm beside its place")


def _series(folder: Path, tags: Tags = lambda k: {}, order: Sequence[int] | None = None, **known: Any) -> None:
    _is_known(write_all(folder / "scan", _slices(tags), order), **known)


_ORDER = np.random.default_rng(1).permutation(_SLICES).tolist()
_SLOPES = np.array([1.0, 0.001, 2.5, 100.0] * 5)[:_SLICES]
_SCALED = VOXELS * _SLOPES - 3
_TILT = 2 * np.tan(np.radians(12)) * _COLUMN

_SERIES_READ: list[tuple[str, dict[str, Any]]] = [
    ("names and instance numbers in another order than the slices", {"order": _ORDER}),
    ("a negative SpacingBetweenSlices", {"tags": lambda k: {"SpacingBetweenSlices": "-2"}}),
    ("SliceThickness unlike the distance of the slices", {"tags": lambda k: {"SliceThickness": "5"}}),
    (
        "positions with one decimal (within 0.1 mm)",
        {"tags": lambda k: at(np.round(_GRID.position(k), 1)), "within_mm": 0.1},
    ),
    (
        "a RescaleSlope of its own in every slice (PET)",
        {"tags": lambda k: {"RescaleSlope": f"{_SLOPES[k]:g}", "RescaleIntercept": "-3"}, "values": _SCALED},
    ),
]
for _title, _options in _SERIES_READ:
    KIND.add(f"series: {_title}", functools.partial(_series, **_options))

_SERIES_REFUSED: list[tuple[str, str, Tags]] = [
    ("a slice is missing", "about 1 is missing", lambda k: at(_GRID.position(k + (k > 3)))),
    ("uneven steps", "not evenly spaced", lambda k: at(_GRID.position(k + 0.2 * (k == 2)))),
    ("gantry tilt", "tilted by 12 degrees", lambda k: at(_GRID.position(k) + k * _TILT)),
    ("one slice is shifted sideways", "shifted sideways", lambda k: at(_GRID.position(k) + 3 * (k == 4) * _ROW)),
    ("two echoes", "EchoTime", _halves("EchoTime", "10", "20")),
    ("two b-values", "DiffusionBValue", _halves("DiffusionBValue", 0.0, 1000.0)),
    ("two points in time", "TemporalPosition", _halves("TemporalPositionIdentifier", 1, 2)),
    ("magnitude and phase", "ImageType", _halves("ImageType", ["ORIGINAL", "M"], ["ORIGINAL", "P"])),
    ("one slice has no position", "no ImagePositionPatient", only_first(ImagePositionPatient=None)),
    ("no slice has a position", "no ImagePositionPatient", lambda k: {"ImagePositionPatient": None}),
    ("no pixel spacing", "no PixelSpacing", lambda k: {"PixelSpacing": None}),
    ("pixel spacing 0", "PixelSpacing is 0", lambda k: {"PixelSpacing": ["0", "1"]}),
    ("slices in two directions", "2 orientations", lambda k: {"ImageOrientationPatient": SIDEWAYS} if k < 2 else {}),
    ("a localizer among the slices", "localizers", only_first(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
    (
        "only some slices have a scale",
        "scale their values in different ways",
        only_first(RescaleSlope="2", RescaleIntercept="0"),
    ),
    ("slope 0", "RescaleSlope is 0", lambda k: {"RescaleSlope": "0"}),
    ("colours", "holds colours", lambda k: {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}),
    ("a Siemens mosaic", "mosaic", lambda k: {"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}),
]
for _title, _says, _tags in _SERIES_REFUSED:
    KIND.add(f"series: {_title}", functools.partial(_series, tags=_tags), REFUSED, _says)


@KIND.situation("series: segmented as the same voxels in NIfTI")
def _segmented(folder: Path) -> None:
    scan = write_all(folder / "scan", _slices(), _ORDER)
    image = save(folder / "x.nii.gz", affine=_GRID.affine())
    summary = segmented([scan, image], folder / "out")
    expect_equal(labels_of(summary, 1), LABELS)
    expect_equal(labels_of(summary, 0), LABELS)


@KIND.situation("series: slices of mixed thickness on an even grid", TOLD, "differ in kind")
def _thickness(folder: Path) -> None:
    _series(folder, lambda k: {"SliceThickness": 2 if k % 2 else 3})


@KIND.situation("series: slices of two sizes", REFUSED, "several sizes")
def _sizes(folder: Path) -> None:
    other = slice_dataset(np.zeros((9, 9), np.int16), _SLICES, _GRID)
    _is_known(write_all(folder / "scan", [*_slices(), other]))


@KIND.situation("series: a report (SR) and a key object (KO) beside the slices", says=r"left out: KO \(1\), SR \(1\)")
def _reports(folder: Path) -> None:
    scan = write_all(folder / "scan", _slices())
    for kind, sop_class in (("SR", "88.11"), ("KO", "88.59")):
        report = Dataset()
        report.SOPClassUID, report.SOPInstanceUID = f"1.2.840.10008.5.1.4.1.1.{sop_class}", generate_uid()
        report.SeriesInstanceUID, report.Modality = SERIES, kind
        write(scan / f"{kind}.dcm", report)
    _is_known(scan)


@KIND.situation("series: a slice occurs twice", says="1 duplicate file")
def _copy(folder: Path) -> None:
    scan = write_all(folder / "scan", _slices())
    (scan / "copy.dcm").write_bytes((scan / "003.dcm").read_bytes())
    _is_known(scan)


@KIND.situation("series: another image under the identifier of a slice", REFUSED, "the same image")
def _same_identifier(folder: Path) -> None:
    scan = write_all(folder / "scan", _slices())
    impostor = _slices()[3]
    impostor.PixelData = bytes(len(impostor.PixelData))
    write(scan / "x.dcm", impostor)
    _is_known(scan)


@KIND.situation("two series in one folder", REFUSED, "holds 2 DICOM series")
def _two_series(folder: Path) -> None:
    scan = write_all(folder / "scan", _slices())
    for k, dataset in enumerate(_slices(lambda k: {"SeriesInstanceUID": f"{SERIES}.9", "SOPInstanceUID": f"1.2.{k}"})):
        write(scan / f"other{k}.dcm", dataset)
    expect(len(find_series([scan])) == 2, "not two series")
    _is_known(scan)


@KIND.situation("series: the pixels of one slice are cut off", REFUSED, "damaged or cut off")
def _cut(folder: Path) -> None:
    scan = write_all(folder / "scan", _slices())
    content = (scan / "004.dcm").read_bytes()
    (scan / "004.dcm").write_bytes(content[:-100])
    _is_known(scan)


@KIND.situation("series: the last slice is a link to a file that was not fetched (datalad)", REFUSED, "a missing file")
def _not_fetched(folder: Path) -> None:
    scan = write_all(folder / "scan", _slices())
    last = max(scan.iterdir())
    last.unlink()
    last.symlink_to(folder / ".git" / "annex" / last.name)
    _is_known(scan)


@KIND.situation("series: the last of files without suffix is empty", REFUSED, "empty, or cut off")
def _without_content(folder: Path) -> None:
    scan = write_all(folder / "scan", _slices())
    for path in scan.iterdir():
        path.rename(path.with_suffix(""))
    max(scan.iterdir()).write_bytes(b"")
    _is_known(scan)


@KIND.situation("series: an empty file called `_SUCCESS` beside it")
def _marker(folder: Path) -> None:
    scan = write_all(folder / "scan", _slices())
    (scan / "_SUCCESS").touch()
    _is_known(scan)


@KIND.situation("series: compressed without loss (RLE)")
def _run_lengths(folder: Path) -> None:
    datasets = _slices()
    for k, dataset in enumerate(datasets):
        dataset.InstanceNumber = k + 1
        path = write(folder / "scan" / f"{k:03d}.dcm", dataset)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    _is_known(folder / "scan")


@KIND.situation("series: damaged JPEG 2000", REFUSED, "damaged, or compressed")
def _jpeg(folder: Path) -> None:
    datasets = _slices(lambda k: {"PixelData": encapsulate([bytes(range(200))])})
    for k, dataset in enumerate(datasets):
        dataset["PixelData"].is_undefined_length = True
        write(folder / "scan" / f"{k}.dcm", dataset, JPEG2000Lossless)
    _is_known(folder / "scan")


@KIND.situation("text in a file called `.dcm`", REFUSED, "cannot be read")
def _no_dicom(folder: Path) -> None:
    (folder / "a.dcm").write_text("not DICOM")
    read(folder)


def _enhanced(folder: Path, per_frame: Sequence[Dataset], frames: Any = None, values: Any = VOXELS) -> None:
    stored = VOXELS.transpose(2, 1, 0) if frames is None else frames
    _is_known(write(folder / "a.dcm", enhanced_dataset(stored.astype(np.uint16), _GRID, per_frame)), values)


def _frames(places: Sequence[float], more: Callable[[int], dict[str, Any]] = lambda k: {}) -> list[Dataset]:
    return [frame_groups(_GRID, place, True, **more(k)) for k, place in enumerate(places)]


@KIND.situation("enhanced: frames in another order than their positions, each with its own slope")
def _frame_order(folder: Path) -> None:
    frames = np.stack([VOXELS[:, :, place].T for place in _ORDER])
    slopes = [1.0, 0.5, 10.0] * 6
    values = np.stack([VOXELS[:, :, _ORDER[k]] * slopes[k] + 1 for k in np.argsort(_ORDER)], axis=2)
    per_frame = [frame_groups(_GRID, place, False, slopes[k]) for k, place in enumerate(_ORDER)]
    _enhanced(folder, per_frame, frames, values)


_half = [*range(_SLICES // 2)] * 2
_ENHANCED_REFUSED: list[tuple[str, str, list[Dataset]]] = [
    ("a gap between frames", "are missing", _frames([*range(9), *range(12, 21)])),
    (
        "two echoes",
        "EffectiveEchoTime",
        _frames(_half, lambda k: {"MREchoSequence": {"EffectiveEchoTime": 10.0 + k // 9}}),
    ),
    (
        "frames in two directions",
        "2 orientations",
        _frames(range(18), lambda k: {"PlaneOrientationSequence": {"ImageOrientationPatient": SIDEWAYS}} if k else {}),
    ),
    ("fewer descriptions than frames", "but describes 17", _frames(range(17))),
    ("frames without positions", "have no positions", []),
]
for _title, _says, _per_frame in _ENHANCED_REFUSED:
    KIND.add(f"enhanced: {_title}", functools.partial(_enhanced, per_frame=_per_frame), REFUSED, _says)


@KIND.situation("a header that claims 2147483647 frames", REFUSED, "have no positions")
def _many_frames(folder: Path) -> None:
    read(write(folder / "a.dcm", with_tags(_slices()[0], {"NumberOfFrames": 2**31 - 1})))


@KIND.situation("a single slice of a series, for a network in 3D", REFUSED, "a single slice")
def _single(folder: Path) -> None:
    read(write(folder / "a.dcm", _slices()[0]))


@KIND.situation("a radiograph without a place in the patient, for a network in 2D", TOLD, "has no position")
def _radiograph(folder: Path) -> None:
    digital = "1.2.840.10008.5.1.4.1.1.1.1"
    plain = image_dataset(VOXELS[:, :, 5].T, "1.2.3", digital, Modality="DX", PixelSpacing=["1", "1"])
    voxels, _ = read(write(folder / "a.dcm", plain), spatial_dims=2)
    expect_equal(voxels, VOXELS[:, :, 5])
