"""Grids: read from headers, compared in space."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_unetpp.data import (
    ImageFileError,
    ImageGeometry,
    check_grid,
    compare_geometry,
    read_geometry,
)

AFFINE = np.array([[0.0, -1.5, 0.0, 10.0], [1.0, 0.0, 0.0, -20.0], [0.0, 0.0, 2.0, 5.0], [0.0, 0.0, 0.0, 1.0]])


def save(path: Path, shape: tuple[int, ...] = (5, 6, 7), affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), affine), path)
    return path


def test_header_of_nifti(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", (5, 6, 700, 1))
    path.write_bytes(path.read_bytes()[:-4])  # the voxels are not needed
    geometry = read_geometry(path)
    assert geometry.shape == (5, 6, 700)
    np.testing.assert_allclose(geometry.affine, AFFINE)
    assert geometry.spacing_mm == (1.0, 1.5, 2.0)


def test_header_of_other_formats(tmp_path: Path) -> None:
    image = SimpleITK.Image(5, 6, 7, SimpleITK.sitkInt8)
    image.SetSpacing((1.0, 1.5, 2.0))
    image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, 1))
    image.SetOrigin((1, 2, 3))
    SimpleITK.WriteImage(image, tmp_path / "a.mha")
    geometry = read_geometry(tmp_path / "a.mha")
    assert geometry.shape == (5, 6, 7)
    expected = np.array([[0, -1.5, 0, -1], [-1.0, 0, 0, -2], [0, 0, 2, 3], [0, 0, 0, 1]])
    np.testing.assert_allclose(geometry.affine, expected)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="no such file"):
        read_geometry(tmp_path / "a.nii")
    (tmp_path / "a.nrrd").write_text("no")
    with pytest.raises(ImageFileError, match="damaged, or not of the format"):
        read_geometry(tmp_path / "a.nrrd")


def test_a_last_axis_of_one_does_not_count(tmp_path: Path) -> None:
    image = read_geometry(save(tmp_path / "image.nii.gz"))
    rounded = AFFINE + 1e-4
    rounded[3] = 0, 0, 0, 1
    assert compare_geometry(image, read_geometry(save(tmp_path / "label.nii", (5, 6, 7, 1), rounded))) is None
    flat = read_geometry(save(tmp_path / "flat.nii", (5, 6)))
    assert compare_geometry(flat, read_geometry(save(tmp_path / "flat_label.nii", (5, 6, 1)))) is None


def test_another_shape() -> None:
    image, label = ImageGeometry((5, 6, 7), AFFINE), ImageGeometry((5, 7, 6), AFFINE)
    assert compare_geometry(image, label) == "its shape is (5, 7, 6), not (5, 6, 7)"


def test_another_place() -> None:
    image = ImageGeometry((5, 6, 7), AFFINE)
    shifted = AFFINE.copy()
    shifted[0, 3] += 3.0
    shifted[1, 3] += 4.0
    assert compare_geometry(image, ImageGeometry((5, 6, 7), shifted)) == "its corners lie up to 5 mm away"
    # 3 mm are two voxels of 1.5 mm, and 4 mm four of 1 mm
    assert compare_geometry(image, ImageGeometry((5, 6, 7), shifted), tolerance_voxels=4.01) is None
    assert compare_geometry(image, ImageGeometry((5, 6, 7), shifted), tolerance_voxels=3.99) is not None
    turned = AFFINE.copy()
    turned[2, 2] += 0.05  # at the seventh slice 0.3 mm
    assert compare_geometry(image, ImageGeometry((5, 6, 7), turned)) == "its corners lie up to 0.3 mm away"
    flipped = AFFINE @ np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[:3, 3] += 4 * AFFINE[:3, 0]
    told = "its corners lie up to 4 mm away, as its axes run in other directions through the same place"
    assert compare_geometry(image, ImageGeometry((5, 6, 7), flipped)) == told


@pytest.mark.parametrize("size_mm", [0.005, 0.05, 1.0, 5.0])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_tolerance_is_a_tenth_of_a_voxel_whatever_its_size(size_mm: float, axis: int) -> None:
    affine = np.diag([size_mm, size_mm, 8 * size_mm, 1.0])
    image = ImageGeometry((5, 6, 7), affine)
    for voxels, same in ((0.09, True), (0.11, False)):
        moved = affine.copy()
        moved[:3, 3] += voxels * affine[:3, axis]
        assert (compare_geometry(image, ImageGeometry((5, 6, 7), moved)) is None) == same


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.diag([1.0, 0.0, 1.0, 1.0]), r"x: its affine is singular, with axes .*\. Repair its header"),
        (np.diag([1.0, np.nan, 1.0, 1.0]), r"x: its affine is singular"),
        (np.diag([1.0, np.inf, 1.0, 1.0]), r"x: its affine is singular"),
        (np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), r"x: its affine is singular"),
    ],
)
def test_grids_that_cannot_be(affine: np.ndarray, message: str) -> None:
    with pytest.raises(ImageFileError, match=message):
        check_grid((5, 6, 7), affine, "x")


def test_a_grid_without_voxels() -> None:
    with pytest.raises(ImageFileError, match=r"x: empty, its shape is \(5, 0, 7\)\. Export it again\."):
        check_grid((5, 0, 7), AFFINE, "x")


SHEARED = AFFINE @ np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (
            AFFINE * [1e-3, 1, 1, 1],
            r"{path}: its header gives the unusual voxel size 0\.001 x 1\.5 x 2 mm",
        ),
        (AFFINE * [1000, 1, 1, 1], r"{path}: its header gives the unusual voxel size 1000 x 1\.5 x 2 mm"),
        (SHEARED, r"{path}: its axes are up to 3\.8 degrees off right angles\. If the image looks skewed"),
        (AFFINE, None),
        (AFFINE * [0.05, 0.05, 0.05, 1], None),
        (AFFINE * [1, 1, 15, 1], None),
    ],
)
def test_grids_that_hardly_can_be_are_told_once_per_file(
    tmp_path: Path, affine: np.ndarray, message: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.nii"
    for _ in range(3):
        check_grid((5, 6, 7), affine, path)
    assert len(caplog.records) == (message is not None)
    if message is not None:
        assert re.match(message.format(path=re.escape(str(path))), caplog.messages[0])


def test_the_thickness_of_a_single_slice_may_be_anything(caplog: pytest.LogCaptureFixture) -> None:
    check_grid((5, 6, 1), AFFINE * [1, 1, 1e4, 1], "a single slice")
    check_grid((5, 6), AFFINE * [1, 1, 1e-4, 1], "a picture")
    assert not caplog.records


def refusal(shape: list[int], affine: np.ndarray) -> str | None:
    try:
        check_grid(shape, affine, "scan.nii")
    except ImageFileError as e:
        return str(e)
    return None


@settings(max_examples=100, deadline=None)
@given(
    numbers=st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=12, max_size=12),
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=5),
)
def test_any_numbers_are_a_grid_or_refused_in_one_line(numbers: list[float], shape: list[int]) -> None:
    affine = np.vstack([np.reshape(numbers, (3, 4)), [0, 0, 0, 1]])
    with np.errstate(all="ignore"):
        message = refusal(shape, affine)
        assert message is not None or np.isfinite(np.linalg.inv(affine)).all()
    assert message is None or (message.startswith("scan.nii: ") and "\n" not in message)
