"""DICOM series in the reader, the finder and the writer, on files that SimpleITK has written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_unetpp.data import ImageFileError, VolumeReader, find_cases, read_geometry, write_volume


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 500, (10, 8, 6)).astype(np.int16)


@pytest.fixture
def series(tmp_path: Path, voxels: np.ndarray, write_series: Callable[..., Path]) -> Path:
    return write_series(tmp_path / "brain.mri", voxels)


def load(paths: object) -> tuple[np.ndarray, dict]:
    reader = VolumeReader()
    return reader.get_data(reader.read(paths))


def test_a_series_is_read_with_its_geometry(series: Path, voxels: np.ndarray, series_affine: np.ndarray) -> None:
    array, metadata = load(series)
    np.testing.assert_array_equal(array, voxels)
    np.testing.assert_allclose(metadata["affine"], series_affine, atol=1e-6)
    geometry = read_geometry(series)
    assert geometry.shape == (10, 8, 6)
    np.testing.assert_allclose(geometry.spacing_mm, np.linalg.norm(series_affine[:3, :3], axis=0), atol=1e-6)


def test_geometry_is_that_of_the_headers_also_where_pixels_are_lost(
    series: Path, series_affine: np.ndarray, tmp_path: Path
) -> None:
    for path in sorted(series.iterdir()):
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ImageFileError, match="its pixels are damaged"):
        load(series)
    np.testing.assert_allclose(read_geometry(series).affine, series_affine, atol=1e-6)
    (tmp_path / "one").mkdir()
    single = next(series.iterdir()).rename(tmp_path / "one" / "slice")
    assert read_geometry(single).shape == (10, 8, 1)
    with pytest.raises(ImageFileError, match="is missing"):
        read_geometry(series)


def test_files_without_suffix_and_in_any_order(series: Path, voxels: np.ndarray) -> None:
    for path in list(series.iterdir()):
        path.rename(path.with_suffix(""))
    (series / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (series / "notes.txt").write_text("not a slice")
    np.testing.assert_array_equal(load(series)[0], voxels)
    files = [path for path in sorted(series.iterdir(), reverse=True) if path.name.startswith("slice")]
    np.testing.assert_array_equal(load(files)[0], voxels)


def test_find_cases_in_dicom_folders(
    series: Path, tmp_path: Path, voxels: np.ndarray, write_series: Callable[..., Path]
) -> None:
    assert find_cases(series) == [{"image": str(series), "case": "brain.mri"}]
    other = write_series(tmp_path / "second", voxels)
    (tmp_path / "papers").mkdir()
    assert [case["image"] for case in find_cases(tmp_path)] == [str(series), str(other)]


def test_written_volume_has_the_place_of_the_series(
    series: Path, tmp_path: Path, voxels: np.ndarray, series_affine: np.ndarray
) -> None:
    _, metadata = load(series)
    write_volume(tmp_path / "out.nii.gz", (voxels > 250).astype(np.uint8), series, metadata["affine"])
    image = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), voxels > 250)
    np.testing.assert_allclose(image.get_sform(), series_affine, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), series_affine, atol=1e-4)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_files_of_several_folders(series: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    moved = shutil.copy(series / "slice07.dcm", tmp_path / "other")
    with pytest.raises(ImageFileError, match="files of several folders were given"):
        load([series / "slice00.dcm", moved])
