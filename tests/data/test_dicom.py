"""DICOM series in the reader and the finder, on files that SimpleITK has written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from monai_unetpp.data import ImageFileError, VolumeReader, find_cases, read_geometry


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 500, (10, 8, 6)).astype(np.int16)


@pytest.fixture
def series(tmp_path: Path, voxels: np.ndarray, write_series: Callable[..., Path]) -> Path:
    return write_series(tmp_path / "brain.mri", voxels)


def load(paths: object) -> tuple[np.ndarray, dict]:
    reader = VolumeReader()
    return reader.get_data(reader.read(paths))


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


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.img", "a.mha", "a.png", "a.jpg", "a.tif"])
def test_a_folder_is_dicom_whatever_its_name_ends_in(
    name: str, series: Path, tmp_path: Path, voxels: np.ndarray, write_series: Callable[..., Path]
) -> None:
    folder = write_series(tmp_path / name, voxels)
    np.testing.assert_array_equal(load(folder)[0], voxels)
    assert read_geometry(folder).shape == voxels.shape
    assert find_cases(folder, pictures=True) == [{"image": str(folder), "case": name}]
    assert [case["image"] for case in find_cases(tmp_path, pictures=True)] == [str(folder), str(series)]


@pytest.mark.parametrize("suffix", [".img", ".raw"])
def test_slices_with_the_suffix_of_another_format(suffix, series, tmp_path, voxels, caplog):
    for path in series.iterdir():
        if path.suffix == ".dcm":
            path.rename(path.with_suffix(suffix))
    np.testing.assert_array_equal(load(series)[0], voxels)
    assert find_cases(series) == find_cases(tmp_path) == [{"image": str(series), "case": "brain.mri"}]
    assert not caplog.text


def test_files_of_several_folders(series: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    moved = shutil.copy(series / "slice07.dcm", tmp_path / "other")
    with pytest.raises(ImageFileError, match="files of several folders were given"):
        load([series / "slice00.dcm", moved])
