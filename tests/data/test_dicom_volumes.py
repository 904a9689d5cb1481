"""DICOM read right: every voxel at the place and with the value that its slice says."""

from __future__ import annotations

import locale
import tempfile
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import gdcm
import highdicom
import numpy as np
import pydicom.data
import pytest
import SimpleITK
from dicom_builder import (
    CT,
    SERIES,
    Grid,
    enhanced_dataset,
    frame_groups,
    image_dataset,
    series_datasets,
    slice_dataset,
    write,
    write_all,
)
from highdicom.legacy import LegacyConvertedEnhancedMRImage
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from scipy.spatial.transform import Rotation

from monai_unetpp.data import ImageFileError, VolumeReader, find_cases
from monai_unetpp.data.formats.dicom import find_series, is_dicom_file, read_dicom, stack_series
from monai_unetpp.data.formats.grid import warn_once

SHAPE = (7, 6, 5)  # columns, rows, slices


class DicomVolume(NamedTuple):
    array: np.ndarray
    affine: np.ndarray


def read(path: Path) -> DicomVolume:
    return DicomVolume(*read_dicom([path]))


def random_voxels(seed: int = 0, dtype: type = np.int16, shape: Sequence[int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2000, shape).astype(dtype)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    rotation = Rotation.from_rotvec(draw(st.tuples(*[st.floats(-3, 3)] * 3))).as_matrix()
    lengths = st.floats(0.3, 6)
    origin = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    orientation = (*rotation[:, 0], *rotation[:, 1])
    return Grid(orientation, (draw(lengths), draw(lengths)), draw(lengths), origin)


def assert_slices_lie_where_they_say(volume: DicomVolume, datasets: Sequence[Dataset]) -> None:
    """Each slice, known by its pixels, has its four corners where its own header puts them."""
    for dataset in datasets:
        pixels = dataset.pixel_array.T * float(dataset.get("RescaleSlope", 1)) + float(
            dataset.get("RescaleIntercept", 0)
        )
        k = int(np.argmin([np.abs(volume.array[..., k] - pixels).sum() for k in range(volume.array.shape[2])]))
        np.testing.assert_allclose(volume.array[..., k], pixels, rtol=1e-6)
        row, column = np.reshape(np.asarray(dataset.ImageOrientationPatient, float), (2, 3))
        for i, j in ((0, 0), (dataset.Columns - 1, 0), (0, dataset.Rows - 1), (dataset.Columns - 1, dataset.Rows - 1)):
            lps = np.asarray(dataset.ImagePositionPatient, float)
            lps = lps + row * float(dataset.PixelSpacing[1]) * i + column * float(dataset.PixelSpacing[0]) * j
            np.testing.assert_allclose((volume.affine @ [i, j, k, 1])[:3], lps * [-1, -1, 1], atol=1e-4)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    grid=grids(),
    order=st.permutations(range(SHAPE[2])),
    slopes=st.lists(st.sampled_from([1.0, 0.001, 2.5, 100.0]), min_size=SHAPE[2], max_size=SHAPE[2]),
    between=st.sampled_from([None, "-2", "0", "77"]),
)
def test_a_series_is_read_as_its_slices_say_in_any_order(
    grid: Grid, order: list[int], slopes: list[float], between: str | None
) -> None:
    tags = [
        {"RescaleSlope": f"{slope:g}", "RescaleIntercept": "-3", "SpacingBetweenSlices": between} for slope in slopes
    ]
    datasets = series_datasets(random_voxels(), grid, tags)
    with tempfile.TemporaryDirectory() as name:
        volume = read(write_all(Path(name) / "series", datasets, order))
    assert volume.array.shape == SHAPE
    np.testing.assert_allclose(volume.affine, grid.affine(), atol=1e-5)
    assert_slices_lie_where_they_say(volume, datasets)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    grid=grids(),
    order=st.permutations(range(SHAPE[2])),
    slopes=st.lists(st.sampled_from([1.0, 0.5, 10.0]), min_size=SHAPE[2], max_size=SHAPE[2]),
    shared=st.booleans(),
)
def test_frames_of_one_file_are_read_as_they_say_in_any_order(
    grid: Grid, order: list[int], slopes: list[float], shared: bool
) -> None:
    voxels = random_voxels(dtype=np.uint16)
    per_frame = [frame_groups(grid, order[k], shared, slopes[k]) for k in range(SHAPE[2])]
    frames = np.stack([voxels[:, :, order[k]].T for k in range(SHAPE[2])])
    expected = np.stack([voxels[:, :, order[k]] * slopes[k] + 1 for k in np.argsort(order)], axis=2)
    with tempfile.TemporaryDirectory() as name:
        path = write(Path(name) / "a.dcm", enhanced_dataset(frames, grid, per_frame, shared))
        volume, planes = read(path), stack_series([path])[0]
    np.testing.assert_allclose(volume.array, expected)
    np.testing.assert_allclose(volume.affine, grid.affine(), atol=1e-5)
    assert [plane.frame for plane in planes] == list(np.argsort(order))


ROTATIONS = Rotation.create_group("O").as_matrix().round().tolist()


@pytest.mark.slow
@pytest.mark.parametrize("turn", [None, [0.1, -0.2, 0.3]])
def test_series_lie_where_simpleitk_puts_them(tmp_path: Path, turn: list[float] | None) -> None:
    for index, axes in enumerate(ROTATIONS):
        matrix = np.asarray(axes) if turn is None else Rotation.from_rotvec(turn).as_matrix() @ np.asarray(axes)
        grid = Grid((*matrix[:, 0], *matrix[:, 1]))
        folder = write_all(tmp_path / str(index), series_datasets(random_voxels(), grid), [3, 0, 4, 1, 2])
        volume = read(folder)
        before = locale.setlocale(locale.LC_ALL)
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        image = reader.Execute()
        locale.setlocale(locale.LC_ALL, before)
        np.testing.assert_array_equal(volume.array, SimpleITK.GetArrayFromImage(image).T)
        for voxel in ((0, 0, 0), (6, 0, 0), (0, 5, 0), (0, 0, 4), (6, 5, 4)):
            lps = np.asarray(image.TransformIndexToPhysicalPoint(voxel))
            np.testing.assert_allclose((volume.affine @ [*voxel, 1])[:3], lps * [-1, -1, 1], atol=1e-4)


@pytest.mark.slow
def test_highdicom_makes_the_same_volume_and_its_own_files_are_read(tmp_path: Path) -> None:
    turn = Rotation.from_rotvec([0.3, -0.4, 0.5]).as_matrix()
    grid = Grid((*turn[:, 0], *turn[:, 1]))
    patient = dict.fromkeys(
        ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"), ""
    )
    tags = {**patient, "StudyTime": "", "StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4", "SeriesNumber": 1}
    tags |= {"RescaleSlope": "2", "RescaleIntercept": "5", "SliceThickness": "2", "Manufacturer": "none"}
    datasets = series_datasets(random_voxels(dtype=np.uint16), grid, [tags] * 5)
    volume = read(write_all(tmp_path / "series", datasets, [3, 0, 4, 1, 2]))
    theirs = highdicom.get_volume_from_series([dcmread(path) for path in (tmp_path / "series").iterdir()])
    ours_in_theirs = theirs.inverse_affine @ np.diag([-1, -1, 1, 1]) @ volume.affine
    for voxel in np.ndindex(*SHAPE):
        index = (ours_in_theirs @ [*voxel, 1])[:3]
        np.testing.assert_allclose(index, index.round(), atol=1e-4)
        assert theirs.array[tuple(index.round().astype(int))] == volume.array[voxel]
    converted = LegacyConvertedEnhancedMRImage(
        datasets, series_instance_uid="1.2.5", series_number=2, sop_instance_uid="1.2.6", instance_number=1
    )
    converted.save_as(tmp_path / "converted.dcm")
    again = read(tmp_path / "converted.dcm")
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "tags", "expected"),
    [
        (np.int16, {}, np.int16),
        (np.uint16, {}, np.uint16),
        (np.uint8, {}, np.int16),
        (np.uint16, {"BitsStored": 12, "HighBit": 11}, np.int16),
        (np.uint16, {"BitsStored": 12, "HighBit": 11, "RescaleSlope": "1", "RescaleIntercept": "-1024"}, np.int16),
        (np.uint16, {"RescaleSlope": "1", "RescaleIntercept": "-1024"}, np.int32),
        (np.int16, {"RescaleSlope": "1", "RescaleIntercept": "0.5"}, np.float32),
        (np.int16, {"RescaleSlope": "2", "RescaleIntercept": "0"}, np.float32),
        (np.uint32, {}, np.uint32),
        (np.float32, {}, np.float32),
    ],
)
def test_integers_are_kept_where_the_scale_allows(tmp_path: Path, dtype: type, tags: dict, expected: type) -> None:
    voxels = random_voxels(dtype=dtype)
    volume = read(write_all(tmp_path, series_datasets(voxels, Grid(), [tags] * SHAPE[2])))
    assert volume.array.dtype == expected
    slope, intercept = float(tags.get("RescaleSlope", 1)), float(tags.get("RescaleIntercept", 0))
    np.testing.assert_array_equal(volume.array, voxels.astype(np.float64) * slope + intercept)


def test_bits_that_are_not_stored_are_no_values(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(-2048, 2048, SHAPE).astype(np.int16)
    stored = ((voxels.astype(np.uint16) & 0x0FFF) | 0x5000).view(np.int16)  # an overlay in the upper bits
    datasets = series_datasets(stored, Grid(), [{"BitsStored": 12, "HighBit": 11}] * SHAPE[2])
    np.testing.assert_array_equal(read(write_all(tmp_path, datasets)).array, voxels)


def test_padding_and_low_values_shown_bright_stay_as_they_are_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    voxels = random_voxels()
    voxels[0] = -2000
    tags = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": -2000}
    np.testing.assert_array_equal(read(write_all(tmp_path, series_datasets(voxels, Grid(), [tags] * 5))).array, voxels)
    assert "low values are displayed bright (MONOCHROME1); values are used as stored" in caplog.text


def _map(slope: float) -> Dataset:
    item = Dataset()
    item.RealWorldValueSlope, item.RealWorldValueIntercept = slope, 2.0
    return item


def test_a_map_to_real_world_values_is_used_where_no_other_scale_is_given(tmp_path: Path) -> None:
    voxels = random_voxels()
    alone = series_datasets(voxels, Grid(), [{"RealWorldValueMappingSequence": [_map(0.25)]}] * 5)
    np.testing.assert_array_equal(read(write_all(tmp_path / "map", alone)).array, voxels * 0.25 + 2)
    tags = {"RealWorldValueMappingSequence": [_map(0.25)], "RescaleSlope": "3", "RescaleIntercept": "0"}
    both = series_datasets(voxels, Grid(), [tags] * 5)
    np.testing.assert_array_equal(read(write_all(tmp_path / "both", both)).array, voxels * 3)


def test_maps_that_are_not_used_may_differ(tmp_path: Path) -> None:
    items = [_map(factor) for factor in (1, 2)]
    tags = {"RescaleSlope": "3", "RescaleIntercept": "0", "RealWorldValueMappingSequence": items}
    voxels = random_voxels()
    volume = read(write_all(tmp_path, series_datasets(voxels, Grid(), [tags] * SHAPE[2])))
    np.testing.assert_array_equal(volume.array, 3 * voxels)


def test_a_map_of_each_frame_is_its_own(tmp_path: Path) -> None:
    voxels = random_voxels(dtype=np.uint16)
    per_frame = [frame_groups(Grid(), k, True) for k in range(5)]
    for k, group in enumerate(per_frame):
        group.RealWorldValueMappingSequence = [_map(k + 1)]
    volume = read(write(tmp_path / "a.dcm", enhanced_dataset(voxels.transpose(2, 1, 0), Grid(), per_frame)))
    np.testing.assert_array_equal(volume.array, voxels * np.arange(1, 6) + 2)


def test_a_table_of_values_is_applied(tmp_path: Path) -> None:
    voxels = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint8)
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 16], np.arange(0, 2560, 10, dtype="<u2").tobytes()
    table.ModalityLUTType = "US"
    datasets = series_datasets(voxels, Grid(), [{"ModalityLUTSequence": [table]}] * 5)
    np.testing.assert_array_equal(read(write_all(tmp_path, datasets)).array, voxels.astype(np.float32) * 10)


COMPRESSIONS = {
    "1.2.840.10008.1.2.4.57": gdcm.TransferSyntax.JPEGLosslessProcess14,
    "1.2.840.10008.1.2.4.70": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "1.2.840.10008.1.2.4.80": gdcm.TransferSyntax.JPEGLSLossless,
    "1.2.840.10008.1.2.4.90": gdcm.TransferSyntax.JPEG2000Lossless,
    "1.2.840.10008.1.2.5": gdcm.TransferSyntax.RLELossless,
}


def compress(path: Path, syntax: str) -> None:
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(COMPRESSIONS[syntax]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@pytest.mark.parametrize("syntax", COMPRESSIONS, ids=lambda uid: UID(uid).name)
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_compressed_pixels_are_read(tmp_path: Path, syntax: str, dtype: type) -> None:
    voxels = np.random.default_rng(0).integers(-900 if dtype is np.int16 else 0, 2000, (20, 18, 3)).astype(dtype)
    for path in write_all(tmp_path, series_datasets(voxels, Grid())).iterdir():
        compress(path, syntax)
        assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read(tmp_path).array, voxels)


@pytest.mark.parametrize(
    "name",
    ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "693_J2KI", "JPEG2000"],
)
def test_files_of_other_writers_hold_what_simpleitk_reads(name: str) -> None:
    path = pydicom.data.get_testdata_file(f"{name}.dcm", download=False)
    before = locale.setlocale(locale.LC_ALL)
    expected = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)).T
    locale.setlocale(locale.LC_ALL, before)
    np.testing.assert_array_equal(read(Path(path)).array, expected)


def test_jpeg_2000_keeps_the_sign_that_the_header_gives() -> None:
    array = read(Path(pydicom.data.get_testdata_file("J2K_pixelrep_mismatch.dcm", download=False))).array
    assert (array.min(), array.max()) == (-2000, 1896)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian], ids=lambda uid: uid.name
)
def test_other_encodings_are_read(tmp_path: Path, syntax: str) -> None:
    voxels = random_voxels()
    for k, dataset in enumerate(series_datasets(voxels, Grid())):
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = voxels[:, :, k].T.astype(">i2").tobytes()
        write(tmp_path / f"{k}.dcm", dataset, syntax)
    np.testing.assert_array_equal(read(tmp_path).array, voxels)


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_preamble_are_found_and_read(tmp_path: Path, implicit: bool) -> None:
    voxels = random_voxels()
    for k, dataset in enumerate(series_datasets(voxels, Grid())):
        dataset.save_as(tmp_path / f"IM{k}", implicit_vr=implicit, little_endian=True)
        assert (tmp_path / f"IM{k}").read_bytes()[128:132] != b"DICM"
    assert all(is_dicom_file(path) for path in tmp_path.iterdir())
    np.testing.assert_array_equal(read(tmp_path).array, voxels)


@pytest.mark.parametrize("content", [b"", b"short", b"text " * 60, bytes(400), b"\x5c\x01\0\0" + bytes(344)])
def test_other_files_are_not_taken_for_dicom(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert not is_dicom_file(tmp_path / "file")


def test_positions_with_one_decimal_are_even_enough(tmp_path: Path) -> None:
    grid = Grid(step_mm=0.625)
    tags = [{"ImagePositionPatient": [f"{v:.1f}" for v in grid.position(k)]} for k in range(5)]
    volume = read(write_all(tmp_path, series_datasets(random_voxels(), grid, tags)))
    np.testing.assert_allclose(volume.affine, grid.affine(), atol=0.06)


def test_two_slices_are_a_volume(tmp_path: Path) -> None:
    datasets = series_datasets(random_voxels(shape=(7, 6, 2)), Grid())
    volume = read(write_all(tmp_path, datasets, [1, 0]))
    assert_slices_lie_where_they_say(volume, datasets)


def test_one_enhanced_file_per_slice_is_a_series(tmp_path: Path) -> None:
    voxels = random_voxels(dtype=np.uint16)
    for k in range(5):
        dataset = enhanced_dataset(voxels[:, :, k].T[None], Grid(), [frame_groups(Grid(), k, False)], False)
        dataset.SOPInstanceUID = f"{SERIES}.{k + 1}"
        write(tmp_path / f"{4 - k}.dcm", dataset)
    volume = read(tmp_path)
    np.testing.assert_array_equal(volume.array, voxels)
    np.testing.assert_allclose(volume.affine, Grid().affine())


def test_the_files_of_a_volume_are_known_slice_by_slice(tmp_path: Path) -> None:
    write_all(tmp_path, series_datasets(random_voxels(), Grid()), [3, 0, 4, 1, 2])
    assert [plane.path.name for plane in stack_series([tmp_path])[0]] == [f"{k:03d}.dcm" for k in (3, 0, 4, 1, 2)]
    (series,) = find_series([tmp_path])
    assert (series.uid, series.modality, series.slices) == (SERIES, "MR", 5)


@pytest.mark.slow
def test_a_long_series_takes_the_memory_of_its_voxels_once(tmp_path: Path) -> None:
    voxels = random_voxels(shape=(64, 64, 100))
    tags = [{"RescaleSlope": "0.5", "RescaleIntercept": "0"}] * 100
    write_all(tmp_path, series_datasets(voxels, Grid(), tags))
    read(tmp_path)  # modules are imported
    tracemalloc.start()
    volume = read(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert volume.array.dtype == np.float32
    assert peak < 2 * volume.array.nbytes


class TestSingleSlices:
    """Images in 2D, which may lack a place."""

    def load(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        reader = VolumeReader(spatial_dims=2)
        array, metadata = reader.get_data(reader.read(path))
        return array, metadata["affine"]

    def test_a_slice_with_a_place_keeps_it(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        pixels = random_voxels(shape=(6, 7))
        array, affine = self.load(write(tmp_path / "a.dcm", slice_dataset(pixels, 3, Grid(), SliceThickness="4")))
        np.testing.assert_array_equal(array, pixels.T)
        np.testing.assert_allclose((affine @ [2, 1, 0, 1])[:3], np.array([-7 + 3.0, -6 + 1.0, 5 + 6.0]) * [-1, -1, 1])
        assert caplog.text == ""

    @pytest.mark.parametrize(
        ("tags", "spacing", "warning"),
        [
            ({"PixelSpacing": ["0.2", "0.3"]}, (0.3, 0.2), "has no position"),
            ({"ImagerPixelSpacing": ["0.2", "0.3"]}, (0.3, 0.2), "no PixelSpacing; its ImagerPixelSpacing is used"),
            ({"NominalScannedPixelSpacing": ["2", "3"]}, (3, 2), "its NominalScannedPixelSpacing is used instead"),
            ({}, (1, 1), r"a.dcm: has no PixelSpacing; 1 mm is assumed"),
        ],
    )
    def test_a_radiograph_is_read_with_a_warning(
        self, tmp_path: Path, tags: dict, spacing: tuple, warning: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        pixels = random_voxels(shape=(6, 7), dtype=np.uint16)
        array, affine = self.load(write(tmp_path / "a.dcm", image_dataset(pixels, "1.2.3", **tags)))
        np.testing.assert_array_equal(array, pixels.T)
        np.testing.assert_allclose(np.abs(np.diag(affine))[:2], spacing)
        assert warning in caplog.text

    def test_a_volume_is_not_made_of_one(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.dcm", slice_dataset(random_voxels(shape=(6, 7)), 0, Grid()))
        reader = VolumeReader()
        with pytest.raises(ImageFileError, match=r"a single slice instead of a volume"):
            reader.get_data(reader.read(path))


def test_reading_leaves_the_locale_alone(tmp_path: Path) -> None:
    for path in write_all(tmp_path, series_datasets(random_voxels(), Grid())).iterdir():
        compress(path, "1.2.840.10008.1.2.4.70")
    before = locale.setlocale(locale.LC_ALL)
    read(tmp_path)
    assert locale.setlocale(locale.LC_ALL) == before


def test_ct_is_read_in_hounsfield_units(tmp_path: Path) -> None:
    tags = {"SOPClassUID": CT, "Modality": "CT", "RescaleType": "HU", "RescaleSlope": "1", "RescaleIntercept": "-1024"}
    volume = read(write_all(tmp_path, series_datasets(random_voxels(), Grid(), [tags] * 5)))
    np.testing.assert_array_equal(volume.array, random_voxels() - 1024)


def test_a_series_in_two_folders_is_told(tmp_path, caplog):
    datasets = series_datasets(np.arange(48.0).reshape(2, 4, 6), Grid())
    write_all(tmp_path / "a", datasets[:3])
    write_all(tmp_path / "b", datasets[3:])
    assert [case["case"] for case in find_cases(tmp_path)] == ["a", "b"]
    told = "files of one DICOM series in several folders: a, b. If each has a part, join them in one."
    assert told in caplog.text
    # as a pattern of the shell names them
    caplog.clear()
    warn_once.cache_clear()
    find_cases([tmp_path / "a", tmp_path / "b"])
    assert told in caplog.text
    # a folder that is named twice is one
    caplog.clear()
    warn_once.cache_clear()
    find_cases([tmp_path / "a", tmp_path / "a"])
    assert "one DICOM series in several folders" not in caplog.text
