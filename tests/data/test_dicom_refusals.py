"""DICOM that is no volume: refused with the reason and the remedy, or what is none left out with a note."""

from __future__ import annotations

import contextlib
import errno
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pydicom.pixels.decoders.base
import pytest
from dicom_builder import (
    SERIES,
    SIDEWAYS,
    Grid,
    Tags,
    at,
    enhanced_dataset,
    frame_groups,
    groups,
    halves,
    image_dataset,
    only_first,
    series_datasets,
    slice_dataset,
    text,
    with_tags,
    write,
    write_all,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import generate_uid

from monai_unetpp.data import ImageFileError, find_cases
from monai_unetpp.data.formats.dicom import find_series, read_dicom
from monai_unetpp.results import collecting_warnings

VOXELS = np.random.default_rng(0).integers(0, 500, (7, 6, 6)).astype(np.int16)


def refusal(path: Path) -> str:
    """The message of the error for ``path``: one line that names it."""
    with pytest.raises(ImageFileError) as caught:
        read_dicom([path])
    message = str(caught.value)
    assert message.startswith(str(path)), message
    assert "\n" not in message
    return message


def datasets(tags: Tags = lambda k: {}, grid: Grid | None = None) -> list[Dataset]:
    return series_datasets(VOXELS, grid or Grid(), [tags(k) for k in range(VOXELS.shape[2])])


def _halves(name: str, first: Any, second: Any) -> list[Dataset]:
    return datasets(halves(Grid(), VOXELS.shape[2], name, first, second))


GRID = Grid()
SERIES_REFUSED: dict[str, tuple[list[Dataset], str]] = {
    "slice missing": (
        datasets(lambda k: at(GRID.position(k + (k > 3)))),
        r"not evenly spaced: 4 mm between 003\.dcm and 004\.dcm, elsewhere 2 mm; about 1 is missing\. Export",
    ),
    "uneven": (
        datasets(lambda k: at(GRID.position(k + 0.2 * (k == 2)))),
        r"not evenly spaced: the steps are 1\.6 to 2\.4 mm\. Resample it to even steps\.",
    ),
    "steps that grow": (
        datasets(lambda k: at(GRID.position(k + 0.05 * k * k))),
        r"not evenly spaced: the steps are 2\.1 to 2\.9 mm",
    ),
    "mixed thickness": (
        datasets(lambda k: {**at(GRID.position(min(k, 3) + 0.5 * max(k - 3, 0))), "SliceThickness": 2 - (k > 3)}),
        r"not evenly spaced.*; their SliceThickness is mixed: 2 mm \(4\), 1 mm \(2\)",
    ),
    "gantry tilt": (
        datasets(lambda k: at(GRID.position(k) + np.array([0, 2 * k * np.tan(np.radians(12)), 0]))),
        r"tilted by 12 degrees \(gantry tilt\)\. Resample it to right angles\..*dcm2niix",
    ),
    "small tilt": (
        datasets(lambda k: at(GRID.position(k) + np.array([0, 2 * k * np.tan(np.radians(2)), 0]))),
        r"tilted by 2 degrees",
    ),
    "one slice sideways": (
        datasets(lambda k: at(GRID.position(k) + np.array([0, 3.0 * (k == 4), 0]))),
        r"shifted sideways against each other, 004\.dcm by 2\.5 mm",
    ),
    "one slice turned": (
        datasets(only_first(ImageOrientationPatient=text([np.cos(0.01), np.sin(0.01), 0, -np.sin(0.01), 0.99995, 0]))),
        r"2 orientations, of 5, 1 slices; 000\.dcm is not parallel to the others",
    ),
    "three planes": (
        datasets(lambda k: {"ImageOrientationPatient": SIDEWAYS} if k < 2 else {}),
        r"2 orientations, of 4, 2 slices",
    ),
    "echoes": (
        _halves("EchoTime", "10", "20"),
        r"3 of its 6 slices lie at the position of another.*EchoTime \(10, 20\)",
    ),
    "time points": (_halves("TemporalPositionIdentifier", 1, 2), r"TemporalPositionIdentifier \(1, 2\)"),
    "b-values": (_halves("DiffusionBValue", 0.0, 1000.0), r"they differ in DiffusionBValue \(0\.0, 1000\.0\)\. Put"),
    "acquisitions": (_halves("AcquisitionNumber", 1, 2), r"they differ in AcquisitionNumber \(1, 2\)"),
    "phase and magnitude": (_halves("ImageType", ["ORIGINAL", "M"], ["ORIGINAL", "P"]), r"ImageType \(ORIGINAL\\M, "),
    "times alone": (_halves("ContentTime", "101010", "101011"), r"they differ in ContentTime"),
    "copies": (_halves("EchoTime", "10", "10"), r"no attribute tells them apart\. Remove the copies"),
    "no position": (
        datasets(only_first(ImagePositionPatient=None)),
        r"1 of its 6 slices have no ImagePositionPatient, such as 000\.dcm\. Export the series again",
    ),
    "no positions": (datasets(lambda k: {"ImagePositionPatient": None}), r"6 of its 6 slices have no ImagePosition"),
    "empty position": (datasets(only_first(ImagePositionPatient=[])), r"1 of its 6 slices have no ImagePosition"),
    "no orientation": (datasets(lambda k: {"ImageOrientationPatient": None}), r"have no ImageOrientationPatient"),
    "no spacing": (datasets(lambda k: {"PixelSpacing": None}), r"have no PixelSpacing"),
    "spacing of the detector": (
        datasets(lambda k: {"PixelSpacing": None, "ImagerPixelSpacing": ["1", "1"]}),
        r"have no PixelSpacing",
    ),
    "zero spacing": (datasets(lambda k: {"PixelSpacing": ["0", "1"]}), r"its PixelSpacing is 0 mm"),
    "several spacings": (
        datasets(only_first(PixelSpacing=["1", "2"])),
        r"several pixel spacings: 1 x 1\.5 mm \(5\), 1 x 2 mm \(1\)",
    ),
    "no directions": (
        datasets(lambda k: {"ImageOrientationPatient": ["0"] * 6}),
        r"ImageOrientationPatient \[.*\] must give two perpendicular directions",
    ),
    "skewed directions": (
        datasets(lambda k: {"ImageOrientationPatient": ["1", "0", "0", "0.1", "0.995", "0"]}),
        r"must give two perpendicular directions",
    ),
    "frames of reference": (
        datasets(lambda k: {"FrameOfReferenceUID": f"1.2.{k // 3}"}),
        r"differ in FrameOfReferenceUID: 1\.2\.0 \(3\), 1\.2\.1 \(3\)",
    ),
    "studies": (
        datasets(lambda k: {"StudyInstanceUID": f"1.2.{k % 2}", "PatientID": "AB"[k % 2]}),
        r"differ in StudyInstanceUID: 1\.2\.0 \(3\), 1\.2\.1 \(3\)\. Put each kind",
    ),
    "patients, whose identifiers are not told": (
        datasets(lambda k: {"PatientID": "AB"[k % 2]}),
        r"its slices differ in PatientID\. Put each kind",
    ),
    "modalities": (datasets(only_first(Modality="CT")), r"differ in Modality: MR \(5\), CT \(1\)"),
    "inverted slices": (
        datasets(only_first(PhotometricInterpretation="MONOCHROME1")),
        r"differ in PhotometricInterpretation: MONOCHROME2 \(5\), MONOCHROME1 \(1\)",
    ),
    "units": (datasets(lambda k: {"Units": "BQML" if k else "CNTS"}), r"differ in Units: BQML \(5\), CNTS \(1\)"),
    "scale of some": (
        datasets(only_first(RescaleSlope="2", RescaleIntercept="0")),
        r"its 6 slices scale their values in different ways: none \(5\), rescale \(1\)",
    ),
    "localizer": (
        datasets(only_first(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=SIDEWAYS)),
        r"1 of its 6 slices are localizers \(scouts\), such as 000\.dcm\. Remove them\.",
    ),
    "several sizes": (
        [*datasets(), slice_dataset(np.zeros((9, 9), np.int16), 6, GRID)],
        r"several sizes in pixels: 7 x 6 \(6\), 9 x 9 \(1\)",
    ),
}


@pytest.mark.parametrize("case", SERIES_REFUSED)
def test_a_series_that_is_no_volume_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    spoilt, reason = SERIES_REFUSED[case]
    assert_matches(refusal(write_all(tmp_path / "scan", spoilt)), reason)


def assert_matches(message: str, reason: str) -> None:
    with pytest.raises(ImageFileError, match=reason):
        raise ImageFileError(message)


FILES_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "position of two numbers": (
        {"ImagePositionPatient": ["1", "2"]},
        r"its ImagePositionPatient is '1\\\\2', not 3 numbers\. Export or copy it again\.",
    ),
    "slope 0": ({"RescaleSlope": "0"}, r"its RescaleSlope is 0, which makes all values equal"),
    "colours": (
        {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3},
        r"holds colours \(RGB\).*Convert it to grey",
    ),
    "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, r"holds colours \(PALETTE COLOR\)"),
    "video colours": ({"PhotometricInterpretation": "YBR_FULL_422", "SamplesPerPixel": 3}, r"holds colours \(YBR_"),
    "mosaic": ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, r"a Siemens mosaic.*with dcm2niix"),
    "concatenation": ({"ConcatenationUID": "1.2.3"}, r"a part of a concatenation of files"),
    "slide": ({"TotalPixelMatrixColumns": 500}, r"a tiled slide image"),
    "no pixels across": ({"Columns": 0}, r"has 0 columns and 6 rows"),
    "bits": ({"BitsStored": 99}, r"its BitsStored is 99"),
    "bits at the upper end": ({"BitsStored": 12, "HighBit": 15}, r"its HighBit is 15 with 12 bits stored\. Convert it"),
    "values beyond bits": ({"BitsAllocated": 16, "Rows": 60}, r"its pixels are damaged or cut off\. Export or copy"),
    "table of real-world values": (
        {"RealWorldValueMappingSequence": [with_tags(Dataset(), {"RealWorldValueLUTData": [1.0, 2.0]})]},
        r"its real-world values are in a table",
    ),
    "maps": (
        {
            "RealWorldValueMappingSequence": [
                with_tags(Dataset(), {"RealWorldValueSlope": slope, "RealWorldValueIntercept": 0.0})
                for slope in (1.0, 2.0)
            ]
        },
        r"has 2 different maps to real-world values",
    ),
}


@pytest.mark.parametrize("case", FILES_REFUSED)
def test_a_file_that_is_no_grey_slice_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    tags, reason = FILES_REFUSED[case]
    assert_matches(refusal(write(tmp_path / "a.dcm", datasets(lambda k: tags)[0])), reason)


def _frames(places: Sequence[float], more: Callable[[int], dict[str, Any]] = lambda k: {}) -> list[Dataset]:
    return [frame_groups(GRID, place, True, **more(k)) for k, place in enumerate(places)]


def _orientation(k: int) -> dict[str, Any]:
    return {"PlaneOrientationSequence": {"ImageOrientationPatient": SIDEWAYS}} if k < 2 else {}


FRAMES_REFUSED: dict[str, tuple[list[Dataset], str]] = {
    "gap": (_frames([0, 1, 2, 6, 7, 8]), r"8 mm between frame 3 and frame 4, elsewhere 2 mm; about 3 are missing"),
    "echoes": (
        _frames([0, 1, 2] * 2, lambda k: {"MREchoSequence": {"EffectiveEchoTime": 10.0 + k // 3}}),
        r"3 of its 6 slices lie at the position of another.*EffectiveEchoTime \(10\.0, 11\.0\)\. Export each kind",
    ),
    "b-values": (
        _frames([0, 1, 2] * 2, lambda k: {"MRDiffusionSequence": {"DiffusionBValue": 1000.0 * (k // 3)}}),
        r"DiffusionBValue \(0\.0, 1000\.0\)",
    ),
    "time points": (
        _frames([0, 0, 1, 1, 2, 2], lambda k: {"FrameContentSequence": {"TemporalPositionIndex": k % 2 + 1}}),
        r"TemporalPositionIndex \(1, 2\)",
    ),
    "orientations": (_frames(range(6), _orientation), r"2 orientations, of 4, 2 slices; frame 1 is not parallel"),
    "no position": ([*_frames(range(5)), groups()], r"1 of its 6 slices have no ImagePositionPatient, such as frame 6"),
    "too few groups": (_frames(range(5)), r"claims 6 frames, but describes 5"),
    "no groups": ([], r"its 6 frames have no positions, as in films and older scans"),
}


@pytest.mark.parametrize("case", FRAMES_REFUSED)
def test_frames_that_are_no_volume_are_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    per_frame, reason = FRAMES_REFUSED[case]
    dataset = enhanced_dataset(VOXELS.transpose(2, 1, 0).astype(np.uint16), GRID, per_frame)
    assert_matches(refusal(write(tmp_path / "a.dcm", dataset)), reason)


def test_a_film_with_one_position_is_no_volume(tmp_path: Path) -> None:
    place = {"ImagePositionPatient": ["0"] * 3, "ImageOrientationPatient": text(GRID.orientation)}
    dataset = image_dataset(VOXELS.transpose(2, 1, 0), "1.2.3", SpacingBetweenSlices="2", **place)
    assert "its 6 frames have no positions" in refusal(write(tmp_path / "a.dcm", dataset))


def test_a_header_that_claims_many_frames_takes_no_memory(tmp_path: Path) -> None:
    dataset = with_tags(datasets()[0], {"NumberOfFrames": 2**31 - 1})
    assert "its 2147483647 frames have no positions" in refusal(write(tmp_path / "a.dcm", dataset))


def test_several_files_of_many_frames_are_refused(tmp_path: Path) -> None:
    for k in range(2):
        dataset = enhanced_dataset(VOXELS.transpose(2, 1, 0).astype(np.uint16), GRID, _frames(range(6)))
        dataset.SOPInstanceUID = generate_uid()
        write(tmp_path / f"{k}.dcm", dataset)
    assert "holds 2 multi-frame files in one series, such as 0.dcm. Name one file." in refusal(tmp_path)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(angle=st.floats(3, 40), direction=st.floats(0, 6.2), step=st.floats(0.5, 6), order=st.permutations(range(6)))
def test_any_tilt_is_told(angle: float, direction: float, step: float, order: list[int]) -> None:
    grid = Grid(step_mm=step)
    shift = np.tan(np.radians(angle)) * step * np.array([np.cos(direction), np.sin(direction), 0])
    tilted = datasets(lambda k: at(grid.position(k) + k * shift), grid)
    with tempfile.TemporaryDirectory() as name:
        assert f"tilted by {angle:.3g} degrees" in refusal(write_all(Path(name), tilted, order))


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(missing=st.integers(1, 4), order=st.permutations(range(5)), step=st.floats(0.5, 6))
def test_any_missing_slice_is_told_with_its_neighbours(missing: int, order: list[int], step: float) -> None:
    left = [dataset for k, dataset in enumerate(datasets(grid=Grid(step_mm=step))) if k != missing]
    with tempfile.TemporaryDirectory() as name:
        message = refusal(write_all(Path(name), left, order))
    before, after = order[missing - 1], order[missing]
    assert f"between {before:03d}.dcm and {after:03d}.dcm, elsewhere {step:.3g} mm; about 1 is missing" in message


class TestFolders:
    """What lies beside the slices."""

    def test_several_series_are_listed(self, tmp_path: Path) -> None:
        write_all(tmp_path / "scan", datasets(lambda k: {"SeriesNumber": 3, "SeriesDescription": "T1 mprage"}))
        second = slice_dataset(np.ones((6, 7), np.int16), 0, GRID, SeriesInstanceUID="1.2.9", SeriesNumber=12)
        write(tmp_path / "scan" / "x.dcm", with_tags(second, {"SOPInstanceUID": "1.2.9.1", "Modality": "CT"}))
        assert refusal(tmp_path / "scan").endswith(
            f": holds 2 DICOM series: 3: 'T1 mprage' (MR, 6 slices, {SERIES}); 12: (CT, 1 slice, 1.2.9). Name one with "
            "--series (series=), or put each into a folder of its own."
        )
        assert [len(series.files) for series in find_series([tmp_path / "scan"])] == [6, 1]

    def test_many_series_are_not_all_listed(self, tmp_path: Path) -> None:
        for k in range(11):
            one = slice_dataset(np.ones((6, 7), np.int16), k, GRID, SeriesInstanceUID=f"1.2.{k}", SeriesNumber=k)
            write(tmp_path / f"{k}.dcm", one)
        assert "(MR, 1 slice, 1.2.7); and 3 more. Name" in refusal(tmp_path)

    def test_descriptions_stay_on_one_line(self, tmp_path: Path) -> None:
        write_all(
            tmp_path, datasets(lambda k: {"SeriesInstanceUID": f"1.2.{k}", "SeriesDescription": "a\r\n\x1b[31mb"})
        )
        assert "'a [31mb' (MR" in refusal(tmp_path)

    def test_what_is_no_image_is_left_out_with_a_note(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        write_all(tmp_path, datasets())
        others = {
            "SR": "1.2.840.10008.5.1.4.1.1.88.22",
            "PR": "1.2.840.10008.5.1.4.1.1.11.1",
            "KO": "1.2.840.10008.5.1.4.1.1.88.59",
            "SEG": "1.2.840.10008.5.1.4.1.1.66.4",
            "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
            "RTDOSE": "1.2.840.10008.5.1.4.1.1.481.2",
            "OT": "1.2.840.10008.1.3.10",
            "MR": "1.2.840.10008.5.1.4.1.1.66",
        }
        for kind, sop_class in others.items():
            other = image_dataset(np.ones((4, 3), np.uint8), generate_uid(), sop_class, SeriesInstanceUID="1.2.99")
            write(tmp_path / f"{kind}.dcm", with_tags(other, {"Modality": kind, "Rows": None} if kind != "SEG" else {}))
        with caplog.at_level(logging.INFO):
            np.testing.assert_array_equal(read_dicom([tmp_path])[0], VOXELS)
        assert caplog.text.count("are left out") == 1
        assert (
            "not images are left out: KO (1), MR (2), OT (1), PR (1), RTDOSE (1), RTSTRUCT (1), SR (1)" in caplog.text
        )

    @pytest.mark.parametrize("kind", ["1.1", "1.1.1", "1.2", "1.3"])
    def test_radiographs_for_presentation_and_processing_are_images(self, tmp_path: Path, kind: str) -> None:
        pixels = np.arange(12, dtype=np.uint16).reshape(4, 3)
        write(tmp_path / "a.dcm", image_dataset(pixels, "1.2.3", f"1.2.840.10008.5.1.4.1.1.{kind}", Modality="DX"))
        np.testing.assert_array_equal(read_dicom([tmp_path])[0].squeeze(), pixels.T)

    def test_a_folder_of_reports_holds_no_image(self, tmp_path: Path) -> None:
        report = image_dataset(np.ones((4, 3), np.uint8), "1.2.3", "1.2.840.10008.5.1.4.1.1.88.22", Modality="SR")
        write(tmp_path / "a.dcm", report)
        assert "holds no image, only SR (1). Name a folder with one DICOM series in it." in refusal(tmp_path)

    def test_a_copy_is_taken_once_with_a_note(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        write_all(tmp_path, datasets())
        (tmp_path / "copy of 2.dcm").write_bytes((tmp_path / "002.dcm").read_bytes())
        with caplog.at_level(logging.INFO):
            np.testing.assert_array_equal(read_dicom([tmp_path])[0], VOXELS)
        assert "1 duplicate file left out, such as copy of 2.dcm" in caplog.text

    def test_other_content_under_the_same_identifier_is_refused(self, tmp_path: Path) -> None:
        write_all(tmp_path, datasets())
        write(tmp_path / "other.dcm", slice_dataset(VOXELS[:, :, 0].T + 1, 2, GRID))
        assert "002.dcm and other.dcm claim to be the same image (SOPInstanceUID), but differ" in refusal(tmp_path)

    def test_mixed_thickness_on_an_even_grid_is_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        folder = write_all(tmp_path, datasets(lambda k: {"SliceThickness": "1" if k else "5"}))
        with collecting_warnings() as warnings:
            for _ in range(2):  # as for a DICOM SEG beside the label map
                read_dicom([folder])
        assert len(warnings) == 1
        assert "differ in kind; their SliceThickness is mixed: 1 mm (5), 5 mm (1)" in caplog.text

    @pytest.mark.parametrize(
        ("tags", "told"),
        [
            (lambda k: {"EchoTime": str(10 + 10 * (k % 2))}, "EchoTime is mixed: 10 (3), 20 (3)"),
            (lambda k: {"EffectiveEchoTime": 4.6 if k else 2.3}, "EffectiveEchoTime is mixed: 4.6 (5), 2.3 (1)"),
            (lambda k: {"InversionTime": "90" if k < 2 else "2500"}, "InversionTime is mixed: 2500 (4), 90 (2)"),
            (lambda k: {"DiffusionBValue": 1000.0 * (k > 2)}, "DiffusionBValue is mixed: 0 (3), 1000 (3)"),
            (lambda k: {"ConvolutionKernel": "AB"[k > 4]}, "ConvolutionKernel is mixed: A (5), B (1)"),
            (lambda k: {"ImageType": ["ORIGINAL", "PRIMARY", "MP"[k % 2]]}, "ImageType is mixed: M (3), P (3)"),
        ],
    )
    def test_mixed_kinds_on_an_even_grid_are_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, tags: Tags, told: str
    ) -> None:
        read_dicom([write_all(tmp_path, datasets(tags))])
        assert f"its slices are evenly spaced, but differ in kind; their {told}." in caplog.text

    @pytest.mark.parametrize(
        "tags",
        [
            lambda k: {"EchoTime": ["2.46", "2.460", "2.456"][k % 3]},
            lambda k: {"InversionTime": str(100 + 80 * k)},
            lambda k: {"DiffusionBValue": 1000.0} if k else {},
            lambda k: {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND" if k else "NORM"]},
            lambda k: {"ReconstructionDiameter": str(100 + k), "AcquisitionNumber": str(k), "ContentTime": f"10101{k}"},
            lambda k: {"StudyInstanceUID": f"1.2.{k}"},
        ],
        ids=["rounding", "its own in every slice", "absent in one", "other entries", "acquisition", "as ITK writes"],
    )
    def test_what_may_vary_by_slice_is_not_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, tags: Tags
    ) -> None:
        read_dicom([write_all(tmp_path, datasets(tags))])
        assert not caplog.records

    @pytest.mark.parametrize("length", [0, 20, 140, 300, 400])
    def test_cut_files_are_named(self, tmp_path: Path, length: int, capfd: pytest.CaptureFixture[str]) -> None:
        path = write_all(tmp_path / "scan", datasets()) / "005.dcm"  # the last one, so that no gap tells of it
        path.write_bytes(path.read_bytes()[:length])
        assert "1 of 6 DICOM files cannot be read, such as 005.dcm. Export the series again." in refusal(path.parent)
        assert capfd.readouterr() == ("", "")

    def test_cut_pixels_are_named(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        path = write_all(tmp_path, datasets()) / "005.dcm"
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ImageFileError, match=r"005\.dcm: its pixels are damaged or cut off"):
            read_dicom([tmp_path])
        path.write_bytes(path.read_bytes()[:-96])
        with pytest.raises(ImageFileError, match=r"005\.dcm: its pixels are damaged or cut off"):
            read_dicom([tmp_path])
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("suffix", [".dcm", ""])
    @pytest.mark.parametrize("lost", [[5], [0, 5], [0, 1, 2, 3, 4, 5]])
    def test_links_to_missing_files_are_slices(self, tmp_path: Path, suffix: str, lost: list[int]) -> None:
        """Also at the ends, where no gap tells of them, and where nothing was fetched."""
        folder = write_all(tmp_path / "study" / "scan", datasets())
        for k in range(6):
            path = (folder / f"{k:03d}.dcm").rename(folder / f"{k:03d}{suffix}")
            if k in lost:
                path.unlink()
                path.symlink_to(tmp_path / ".annex" / path.name)
        for name in ("notes.txt", "DICOMDIR", "README", "latest", "scan_seg.dcm"):
            (folder / name).symlink_to(tmp_path / "missing")
        told = refusal(folder)
        assert (
            f"{len(lost)} file{'s' * (len(lost) > 1)} that may be slices cannot be read, such as {lost[0]:03d}" in told
        )
        assert "(a link to a missing file). Fetch or copy them again, or remove them." in told
        # and the folder is no less a case
        assert [case["case"] for case in find_cases(tmp_path / "study")] == ["scan"]

    @pytest.mark.parametrize("length", [0, 100])
    def test_files_without_content_are_slices_if_they_are_named_alike(self, tmp_path: Path, length: int) -> None:
        folder = write_all(tmp_path / "scan", datasets())
        for path in folder.glob("*.dcm"):
            path.rename(folder / f"1.2.840.{path.stem}")
        for name in ("_SUCCESS", "README", ".done"):
            (folder / name).write_bytes(bytes(length))
        assert read_dicom([folder])[0].shape[2] == 6
        last = folder / "1.2.840.005"
        last.write_bytes(last.read_bytes()[:length])
        assert "1 file that may be slices cannot be read, such as 1.2.840.005 (empty, or cut off)" in refusal(folder)

    def test_files_that_may_not_be_opened_are_slices(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = write_all(tmp_path / "scan", datasets())
        for path in folder.glob("*.dcm"):
            path.rename(folder / path.stem)
        opened = Path.open

        def refuse(path: Path, *given: Any, **named: Any) -> Any:
            if path.name == "005":
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return opened(path, *given, **named)

        monkeypatch.setattr(Path, "open", refuse)
        assert "1 file that may be slices cannot be read, such as 005 (Permission denied)" in refusal(folder)

    @pytest.mark.parametrize("name", ["SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation"])
    def test_what_pixels_need_is_named(self, tmp_path: Path, name: str) -> None:
        folder = write_all(tmp_path / "scan", datasets())
        for path in folder.iterdir():
            dataset = pydicom.dcmread(path)
            del dataset[name]
            dataset.save_as(path)
        with pytest.raises(ImageFileError, match=rf"000\.dcm: has no {name}, which its pixels need. Export it again"):
            read_dicom([folder])

    def test_text_named_dcm(self, tmp_path: Path) -> None:
        (tmp_path / "scan.dcm").write_text("no DICOM")
        assert "1 of 1 DICOM files cannot be read, such as scan.dcm" in refusal(tmp_path / "scan.dcm")

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        assert "holds no DICOM files. Name a folder with one DICOM series in it." in refusal(tmp_path)


class TestCompression:
    """Pixels that nothing here decodes."""

    def test_the_syntax_and_the_packages_are_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        decoder = type("Decoder", (), {"is_available": False})
        monkeypatch.setattr(pydicom.pixels.decoders.base, "get_decoder", lambda syntax: decoder)
        path = write(tmp_path / "a.dcm", datasets()[0])
        assert_matches(
            refusal(path),
            r"compressed as Explicit VR Little Endian, which needs another package\..*pip install python-",
        )

    @pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "JPGExtended.dcm"])
    def test_a_kind_of_jpeg_that_is_not_read_is_named(self, name: str) -> None:
        path = pydicom.data.get_testdata_file(name, download=False)
        assert "compressed (JPEG Extended (Process 2 and 4)) in an unsupported way. Export" in refusal(Path(path))

    def test_films_are_refused(self, tmp_path: Path) -> None:
        dataset = datasets()[0]
        dataset.PixelData = encapsulate([b"film"])
        path = write(tmp_path / "a.dcm", dataset, "1.2.840.10008.1.2.4.100")
        assert (
            "compressed as MPEG2 Main Profile / Main Level, which cannot be read. Export it uncompressed."
            in refusal(path)
        )


ENHANCED = enhanced_dataset(VOXELS.transpose(2, 1, 0).astype(np.uint16), GRID, _frames(range(6)))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    frames=st.booleans(),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12),
    cut=st.none() | st.floats(0, 1),
)
def test_damaged_bytes_are_refused_or_read_but_never_crash(
    frames: bool, changes: list[tuple[float, int]], cut: float | None
) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = write(Path(name) / "a.dcm", ENHANCED if frames else datasets()[0])
        content = bytearray(path.read_bytes())
        header = len(content) - VOXELS.nbytes if frames else len(content) - VOXELS[:, :, 0].nbytes
        for place, value in changes:
            content[132 + int(place * (header - 133))] = value
        path.write_bytes(content if cut is None else content[: int(cut * len(content))])
        with contextlib.suppress(ImageFileError):
            assert read_dicom([path])[0].size > 0
