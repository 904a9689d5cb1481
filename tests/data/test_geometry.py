"""Grids: read from headers, compared in space."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from monai_unetpp.data import ImageFileError, ImageGeometry, check_same_geometry, compare_geometry, read_geometry

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
    with pytest.raises(ImageFileError, match="damaged, or not an image of the kind"):
        read_geometry(tmp_path / "a.nrrd")
    assert "no such file" in str(check_same_geometry(tmp_path / "a.nii", tmp_path / "b.nii"))


def test_same_grid(tmp_path: Path) -> None:
    image = save(tmp_path / "image.nii.gz")
    rounded = AFFINE + 1e-4
    rounded[3] = 0, 0, 0, 1
    assert check_same_geometry(image, save(tmp_path / "label.nii", (5, 6, 7, 1), rounded)) is None
    flat = save(tmp_path / "flat.nii", (5, 6)), save(tmp_path / "flat_label.nii", (5, 6, 1))
    assert check_same_geometry(*flat) is None


def test_another_shape(tmp_path: Path) -> None:
    image, label = save(tmp_path / "image.nii.gz"), save(tmp_path / "label.nii.gz", (5, 7, 6))
    problem = check_same_geometry(image, label)
    assert (
        problem
        == f"{label}: not on the grid of {image}: its shape is (5, 7, 6), not (5, 6, 7). Resample one to the other."
    )


def test_another_place() -> None:
    image = ImageGeometry((5, 6, 7), AFFINE)
    shifted = AFFINE.copy()
    shifted[0, 3] += 3.0
    shifted[1, 3] += 4.0
    assert compare_geometry(image, ImageGeometry((5, 6, 7), shifted)) == "its corners lie up to 5 mm away"
    assert compare_geometry(image, ImageGeometry((5, 6, 7), shifted), tolerance=5.01) is None
    turned = AFFINE.copy()
    turned[2, 2] += 0.05  # at the seventh slice 0.3 mm
    assert compare_geometry(image, ImageGeometry((5, 6, 7), turned)) == "its corners lie up to 0.3 mm away"
    flipped = AFFINE @ np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[:3, 3] += 4 * AFFINE[:3, 0]
    assert compare_geometry(image, ImageGeometry((5, 6, 7), flipped)) == "its corners lie up to 4 mm away"
