"""Single slices that stand in space, sagittal, coronal or oblique, in networks for images."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_builder import Grid, slice_dataset, write
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, LoadImaged, Orientationd, Spacingd
from scipy.spatial.transform import Rotation

from monai_unetpp.data import (
    BlockwiseSpacingd,
    ImageFileError,
    SegmentationSaveImaged,
    VolumeReader,
    compare_geometry,
    read_geometry,
)
from monai_unetpp.data.datasets.case_check import check_case, read_image
from monai_unetpp.data.datasets.labelled import LabelledCase
from monai_unetpp.data.formats.grid import transform_affine
from monai_unetpp.data.formats.reader import read_label_map

ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "tilted by 45 degrees": (1, 0, 0, 0, 0.5**0.5, -(0.5**0.5)),
}
STEPS = {
    "in blocks": BlockwiseSpacingd("image", (2.0, 2.0)),
    "nearest": BlockwiseSpacingd("image", (2.0, 2.0), mode="nearest"),
    "splines": BlockwiseSpacingd("image", (2.0, 2.0), mode=3),
    "to the axes of the world": BlockwiseSpacingd("image", (2.0, 2.0), diagonal=True),
    "MONAI's": Spacingd("image", (2.0, 2.0)),
    "orientation": Orientationd("image", "RA", labels=None),
}


def loader(*steps: object) -> Compose:
    return Compose([LoadImaged("image", reader=VolumeReader(2), ensure_channel_first=True), *steps])


def dicom_slice(folder: Path, orientation: tuple[float, ...]) -> Path:
    pixels = np.random.default_rng(0).integers(0, 2000, (16, 14)).astype(np.int16)
    return write(folder / "slice.dcm", slice_dataset(pixels, 0, Grid(orientation, (1.0, 1.5))))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_transform_takes_a_slice_that_stands_in_space(tmp_path: Path, orientation: str, step: str) -> None:
    file, transform = dicom_slice(tmp_path, ORIENTATIONS[orientation]), loader(STEPS[step])
    item = transform({"image": str(file)})
    back = Invertd("pred", transform, orig_keys="image")({"pred": item["image"].clone(), "image": item["image"]})
    assert back["pred"].shape == (1, 14, 16)
    if step not in ("orientation", "MONAI's"):
        # columns of 1.5 mm, rows of 1 mm; MONAI's grid depends on how numbers round
        assert item["image"].shape == (1, 11, 8)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_standing_slice_is_resampled_as_one_that_lies(tmp_path: Path, axis: int, step: str) -> None:
    voxels = np.random.default_rng(1).random((14, 16), dtype=np.float32)
    sizes = [1.5, 1.0]
    nib.save(nib.Nifti1Image(voxels[..., None], np.diag([*sizes, 3, 1])), tmp_path / "lying.nii")
    sizes.insert(axis, 3.0)
    nib.save(nib.Nifti1Image(np.expand_dims(voxels, axis), np.diag([*sizes, 1])), tmp_path / "standing.nii")
    lying, standing = (
        loader(STEPS[step])({"image": str(tmp_path / f"{n}.nii")})["image"] for n in ("lying", "standing")
    )
    np.testing.assert_array_equal(np.asarray(lying), np.asarray(standing))


@settings(max_examples=40, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-4, 4)] * 3),
    sizes=st.tuples(*[st.floats(0.2, 6)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
)
def test_laid_flat_a_slice_keeps_its_voxel_sizes_and_distances(angles, sizes, origin) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = Rotation.from_rotvec(angles).as_matrix() * sizes, origin
    flat = transform_affine(affine, 2)
    np.testing.assert_allclose(flat[2, :2], 0, atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(flat[:2, :2], axis=0), sizes[:2])
    np.testing.assert_allclose(flat[:3].T @ flat[:3], affine[:3].T @ affine[:3], atol=1e-6)


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2]])
def test_a_slice_that_lies_stays_as_it_is(order: list[int]) -> None:
    affine = np.diag([1.5, -1.0, 3.0, 1.0])[:, [*order, 3]]
    affine[:3, 3] = -7, 5, 2
    np.testing.assert_array_equal(transform_affine(affine, 2), affine)


def test_image_and_label_at_45_degrees_are_laid_flat_alike_however_headers_round() -> None:
    turn = Rotation.from_rotvec([np.pi / 4, 0, 0]).as_matrix()
    exact = np.eye(4)
    exact[:3, :3] = turn * [1.0, 1.5, 2.0]
    for rounding in (np.float32, np.float16):
        np.testing.assert_allclose(
            transform_affine(exact.astype(rounding).astype(float), 2), transform_affine(exact, 2), atol=1e-2
        )


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_result_of_a_standing_slice_lies_on_its_own_grid(tmp_path: Path, orientation: str) -> None:
    file = dicom_slice(tmp_path, ORIENTATIONS[orientation])
    transform = loader(STEPS["orientation"], STEPS["nearest"])
    item = transform({"image": str(file)})
    item["pred"] = MetaTensor((item["image"] > 1000).float(), meta=item["image"].meta)
    item = Invertd("pred", transform, orig_keys="image", nearest_interp=True)(item)
    saved = SegmentationSaveImaged("pred", tmp_path / "results")(item)["pred"].meta["saved_to"]
    assert compare_geometry(read_geometry(file), read_geometry(saved)) is None
    assert 0 < nib.load(saved).get_fdata().mean() < 1


def test_channels_in_different_planes_are_not_taken_for_one_grid(tmp_path: Path) -> None:
    files = []
    for name in ("axial", "coronal"):
        (tmp_path / name).mkdir()
        files.append(str(dicom_slice(tmp_path / name, ORIENTATIONS[name])))
        nib.save(_as_nifti(Path(files[-1])), f"{tmp_path}/{name}.nii")
    with pytest.raises(Exception, match="applying transform") as raised:
        loader()({"image": [str(tmp_path / "axial.nii"), str(tmp_path / "coronal.nii")]})
    assert "not on the grid of" in str(raised.value.__cause__)


def _as_nifti(file: Path) -> nib.Nifti1Image:
    reader = VolumeReader((2, 3))
    array, metadata = reader.get_data(reader.read(file))
    return nib.Nifti1Image(array.reshape(14, 16, 1), metadata["original_affine"])


def test_the_place_of_a_label_map_of_a_standing_slice_is_that_in_space(tmp_path: Path) -> None:
    file = dicom_slice(tmp_path, ORIENTATIONS["sagittal"])
    label = read_label_map(file, 2)
    np.testing.assert_allclose(label.affine, read_geometry(file).affine)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_label_map_of_a_standing_slice_is_read_by_the_rule_for_images(tmp_path: Path, axis: int) -> None:
    values = np.random.default_rng(2).integers(0, 3, (14, 16)).astype(np.uint8)
    affine = np.diag([1.5, 1.0, 3.0, 1.0])
    for name, voxels in (("image", values + np.float32(0.5)), ("label", values)):
        nib.save(nib.Nifti1Image(np.expand_dims(voxels, axis), affine), tmp_path / f"{name}.nii")
    label = read_label_map(tmp_path / "label.nii", 2)
    np.testing.assert_array_equal(label.data, values)
    case = LabelledCase("a", "a", (tmp_path / "image.nii",), tmp_path / "label.nii")
    np.testing.assert_array_equal(read_image(case, 2).data, values[None] + np.float32(0.5))
    assert check_case(case, spatial_dims=2) == check_case(case, spatial_dims=2, in_channels=1)
    assert check_case(case, spatial_dims=2).problem is None


def test_channels_of_a_standing_slice_lie_behind_its_axes(tmp_path: Path) -> None:
    voxels = np.random.default_rng(3).random((1, 14, 16, 2), dtype=np.float32)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "image.nii")
    case = LabelledCase("a", "a", (tmp_path / "image.nii",), tmp_path / "label.nii")
    np.testing.assert_array_equal(read_image(case, 2).data, np.moveaxis(voxels[0], -1, 0))


@pytest.mark.parametrize(("shape", "dims"), [((14, 16, 2), 2), ((14,), 3), ((14, 16, 1, 3), 3)])
def test_label_maps_of_another_number_of_axes_are_refused(tmp_path: Path, shape: tuple[int, ...], dims: int) -> None:
    nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), np.eye(4)), tmp_path / "label.nii")
    with pytest.raises(ImageFileError, match=rf"label.nii: the label must be {dims}D, got shape \(14"):
        read_label_map(tmp_path / "label.nii", dims)
