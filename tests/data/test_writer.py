"""The whole way of a voxel: read, oriented, resampled, segmented, inverted, written, and back in its place."""

from __future__ import annotations

import itertools
import logging
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged, SaveImaged

from monai_unetpp.data import ImageFileError, SegmentationSaveImaged, VolumeReader, find_cases, write_volume
from monai_unetpp.data import writer as writer_module

SHAPE = (12, 14, 16)
CONFIG = {
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {
                "_target_": "LoadImaged",
                "keys": "image",
                "ensure_channel_first": True,
                "reader": {"_target_": "monai_unetpp.data.VolumeReader"},
            },
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 1.0], "mode": "bilinear"},
        ],
    },
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image",
                "nearest_interp": True,
            },
            {"_target_": "monai_unetpp.data.SegmentationSaveImaged", "keys": "pred", "output_dir": "@output_dir"},
        ],
    },
}


@pytest.fixture
def segment(tmp_path: Path):
    """A function that sends a file through the chain, with a threshold as the network."""
    parser = ConfigParser({**CONFIG, "output_dir": str(tmp_path / "out")})
    preprocessing: Compose = parser.get_parsed_content("preprocessing")
    postprocessing: Compose = parser.get_parsed_content("postprocessing")

    def run(path: Path) -> nib.Nifti1Image:
        (case,) = find_cases(path)
        data = preprocessing(case)
        image = data["image"]
        data["pred"] = torch.cat([torch.full_like(image, 0.5), image])
        result = postprocessing(data)
        return nib.load(result["pred"].meta["saved_to"])

    return run


def cube_at(corner: tuple[int, int, int], shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, tuple[int, ...]]:
    """Zeros with a cube of three voxels' edge in a corner, and the index of its middle."""
    voxels = np.zeros(shape, np.int16)
    middle = tuple(1 if end == 0 else length - 2 for end, length in zip(corner, shape, strict=True))
    voxels[tuple(slice(m - 1, m + 2) for m in middle)] = 1
    return voxels, middle


def check_result(result: nib.Nifti1Image, source: Path, voxels: np.ndarray, middle: tuple[int, ...]) -> None:
    original = nib.load(source)
    assert_same_grid(result, original)
    labels = np.asarray(result.dataobj)
    assert set(np.unique(labels)) == {0, 1}
    assert labels[middle] == 1
    # what resampling may cost: less than a voxel around the cube, and none of it elsewhere
    distance = np.abs(np.argwhere(labels) - middle).max(axis=1)
    assert distance.max() <= 2
    painted, found = (
        nib.affines.apply_affine(image.affine, np.argwhere(array).mean(axis=0))
        for image, array in ((original, voxels), (result, labels))
    )
    spacing = np.linalg.norm(original.affine[:3, :3], axis=0)
    assert np.linalg.norm(painted - found) < spacing.max()


def assert_same_grid(result: nib.Nifti1Image, original: nib.Nifti1Image) -> None:
    assert result.shape == original.shape
    np.testing.assert_array_equal(result.affine, original.affine)
    for field in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d"):
        np.testing.assert_array_equal(result.header[field], original.header[field], err_msg=field)
    for field in ("qoffset_x", "qoffset_y", "qoffset_z", "pixdim", "dim", "xyzt_units"):
        np.testing.assert_array_equal(result.header[field], original.header[field], err_msg=field)
    assert np.issubdtype(result.get_data_dtype(), np.integer)


@pytest.mark.parametrize("change", ["rewritten", "removed"])
def test_an_image_that_changes_while_it_is_in_work_gets_no_result(tmp_path: Path, change: str) -> None:
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(cube_at((0, 0, 0))[0], np.eye(4)), path)
    read = LoadImaged("pred", reader=VolumeReader(), ensure_channel_first=True)({"pred": str(path), "case": "scan"})
    save = SegmentationSaveImaged("pred", tmp_path / "out")
    assert Path(save(dict(read))["pred"].meta["saved_to"]).is_file()
    if change == "removed":
        path.unlink()
    else:
        nib.save(nib.Nifti1Image(cube_at((1, 1, 1))[0], np.diag([-1.0, 1, 1, 1])), path)
        os.utime(path, ns=(1, 1))
    with pytest.raises(ImageFileError, match=r"scan\.nii\.gz: was (changed|removed) while it was in work"):
        save(dict(read))


AXIS_ORDERS = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize(("order", "flips"), AXIS_ORDERS)
def test_all_axis_orders_with_anisotropic_voxels(tmp_path: Path, segment, order, flips) -> None:
    axes = np.zeros((3, 3))
    for axis, (to, sign, spacing) in enumerate(zip(order, flips, (0.7, 1.0, 2.5), strict=True)):
        axes[to, axis] = sign * spacing
    affine = nib.affines.from_matvec(axes, (-10.5, 20.25, 3.0))
    corner = (order[0] % 2, order[1] % 2, (flips[0] + 1) // 2)
    voxels, middle = cube_at(corner)
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "a.nii.gz")
    check_result(segment(tmp_path / "a.nii.gz"), tmp_path / "a.nii.gz", voxels, middle)


@pytest.mark.parametrize(("order", "flips"), AXIS_ORDERS)
def test_single_voxel_of_one_mm_is_exact(tmp_path: Path, segment, order, flips) -> None:
    axes = np.zeros((3, 3))
    for axis, (to, sign) in enumerate(zip(order, flips, strict=True)):
        axes[to, axis] = sign
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[-1, 0, -1] = 1
    nib.save(nib.Nifti1Image(voxels, nib.affines.from_matvec(axes, (5, 6, 7))), tmp_path / "a.nii")
    np.testing.assert_array_equal(np.asarray(segment(tmp_path / "a.nii").dataobj), voxels)


def rotation(*angles: float) -> np.ndarray:
    return nib.eulerangles.euler2mat(*angles)


OBLIQUE = {
    "slightly oblique": rotation(0.05, -0.08, 0.03) @ np.diag([1.0, 1.2, 2.0]),
    "oblique": rotation(0.4, -0.3, 0.6) @ np.diag([0.9, 0.9, 3.0]),
    "near 45 degrees": rotation(0.78, 0.77, -0.79) @ np.diag([1.0, 1.0, 1.0]),
    "oblique and flipped": rotation(2.5, 0.2, -1.4) @ np.diag([-1.1, 0.8, 1.7]),
    "small shear": np.array([[1.0, 1e-3, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]),
    "large shear": np.array([[1.0, 0.25, 0.0], [0.0, 1.0, 0.1], [0.0, 0.0, 1.5]]),
}


@pytest.mark.parametrize("corner", [(0, 0, 0), (1, 1, 1), (1, 0, 1)])
@pytest.mark.parametrize("name", OBLIQUE)
def test_oblique_and_sheared(tmp_path: Path, segment, name: str, corner: tuple[int, int, int]) -> None:
    voxels, middle = cube_at(corner)
    image = nib.Nifti1Image(voxels, nib.affines.from_matvec(OBLIQUE[name], (30, -20, 10)))
    nib.save(image, tmp_path / "a.nii.gz")
    check_result(segment(tmp_path / "a.nii.gz"), tmp_path / "a.nii.gz", voxels, middle)


@pytest.mark.parametrize("unit", ["mm", "unknown", "micron"])
@pytest.mark.parametrize(("sform_code", "qform_code"), [(0, 0), (0, 1), (1, 0), (1, 1), (2, 3), (4, 1)])
def test_codes_pixdim_and_units_are_kept(
    tmp_path: Path, segment, sform_code: int, qform_code: int, unit: str, caplog: pytest.LogCaptureFixture
) -> None:
    voxels, middle = cube_at((1, 0, 1))
    image = nib.Nifti1Image(voxels, None)
    # sform, qform and pixdim each say something else
    image.set_qform(nib.affines.from_matvec(rotation(0.1, 0.2, 0.3) @ np.diag([-1.0, 1.0, 2.0]), (1, 2, 3)), qform_code)
    image.set_sform(nib.affines.from_matvec(rotation(-0.2, 0.1, 0.0) @ np.diag([1.3, 1.1, 1.0]), (7, 8, 9)), sform_code)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii.gz")
    with caplog.at_level(logging.CRITICAL):
        result = segment(tmp_path / "a.nii.gz")
    check_result(result, tmp_path / "a.nii.gz", voxels, middle)


@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair])
@pytest.mark.parametrize("endianness", ["<", ">"])
def test_other_containers(tmp_path: Path, segment, image_class: type, endianness: str) -> None:
    voxels, middle = cube_at((0, 1, 0))
    affine = nib.affines.from_matvec(rotation(0.2, 0.1, 0.3) @ np.diag([1.0, 1.2, 1.5]), (3, 4, 5))
    image = image_class(voxels[..., None], affine, image_class.header_class(endianness=endianness))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"of the image"))
    image.header["cal_max"] = 7
    path = tmp_path / ("a.hdr" if image_class is nib.Nifti1Pair else "a.nii.gz")
    nib.save(image, path)
    result = segment(path)
    assert result.shape == (*SHAPE, 1)
    assert result.header.endianness == "<"
    assert isinstance(result, nib.Nifti2Image if image_class is nib.Nifti2Image else nib.Nifti1Image)
    assert np.asarray(result.dataobj)[(*middle, 0)] == 1
    np.testing.assert_array_equal(result.affine, nib.load(path).affine)
    assert not result.header.extensions
    assert result.header["cal_max"] == 0


def test_scaled_input_gives_unscaled_labels(tmp_path: Path, segment) -> None:
    voxels, middle = cube_at((0, 0, 0))
    nib.save(nib.Nifti1Image(voxels * 0.75, np.eye(4), dtype=np.int16), tmp_path / "a.nii")
    assert nib.load(tmp_path / "a.nii").dataobj.slope != 1
    check_result(segment(tmp_path / "a.nii"), tmp_path / "a.nii", voxels, middle)


@pytest.mark.parametrize("name", ["patient.7", "patient.nii", "patient.tif"])
def test_dicom_series_there_and_back(
    name: str, tmp_path: Path, segment, write_series, series_affine: np.ndarray
) -> None:
    voxels, middle = cube_at((1, 1, 0))
    folder = write_series(tmp_path / name, voxels)
    result = segment(folder)
    assert Path(result.get_filename()).name == f"{name}_seg.nii.gz"
    array, _ = VolumeReader().get_data((folder,))
    np.testing.assert_array_equal(array, voxels)
    labels = np.asarray(result.dataobj)
    assert labels.shape == voxels.shape
    assert labels[middle] == 1
    assert np.abs(np.argwhere(labels) - middle).max() <= 2
    np.testing.assert_allclose(result.affine, series_affine, atol=1e-5)
    for name in ("sform", "qform"):
        assert result.header[f"{name}_code"] == 1
    np.testing.assert_allclose(result.get_qform(), series_affine, atol=1e-4)
    assert result.header.get_xyzt_units()[0] == "mm"


# the writer by itself


def label_map(path: Path, values: np.ndarray, **meta: object) -> MetaTensor:
    affine = np.eye(4)
    content = {"filename_or_obj": str(path), "original_affine": affine, **meta}
    return MetaTensor(torch.as_tensor(values), affine=torch.as_tensor(affine), meta=content)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    nib.save(nib.Nifti1Image(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.eye(4)), tmp_path / "a.nii.gz")
    return tmp_path / "a.nii.gz"


@pytest.mark.parametrize(("greatest", "dtype"), [(3, np.uint8), (255, np.uint8), (256, np.uint16), (70000, np.int32)])
def test_smallest_type(tmp_path: Path, source: Path, greatest: int, dtype: type) -> None:
    values = np.zeros((1, 2, 3, 4), np.float32)
    values[0, 1, 1, 1] = greatest
    save = SegmentationSaveImaged("pred", output_dir=tmp_path / "deep" / "out", output_postfix="labels")
    result = save({"pred": label_map(source, values), "case": "patient 1"})
    path = tmp_path / "deep" / "out" / "patient 1_labels.nii.gz"
    assert result["pred"].meta["saved_to"] == str(path)
    assert nib.load(path).get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), values[0])


def test_two_axes(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.arange(6, dtype=np.uint8).reshape(2, 3), np.eye(4)), tmp_path / "flat.nii")
    SegmentationSaveImaged("pred", tmp_path)({"pred": label_map(tmp_path / "flat.nii", np.ones((1, 2, 3)))})
    assert nib.load(tmp_path / "flat_seg.nii.gz").shape == (2, 3)


def test_hosts_recognise_it() -> None:
    assert isinstance(SegmentationSaveImaged("pred"), SaveImaged)
    assert "SaveImage" in SegmentationSaveImaged.__name__


def test_missing_keys(source: Path) -> None:
    assert SegmentationSaveImaged("pred", allow_missing_keys=True)({}) == {}
    with pytest.raises(KeyError, match="pred"):
        SegmentationSaveImaged("pred")({})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 2, 3, 4)), r"pred must have one channel of labels, got shape \(2, 2, 3, 4\)\. Use AsDiscreted"),
        (np.full((1, 2, 3, 4), 0.25), r"pred must hold labels 0, 1, 2, \.\.\., got values from 0\.25 to 0\.25"),
        (np.full((1, 2, 3, 4), -1), r"pred must hold labels 0, 1, 2, \.\.\., got values from -1 to -1"),
        (np.zeros((1, 2, 3, 5)), r"array must have the shape of .*a\.nii\.gz, \(2, 3, 4\), got \(2, 3, 5\)"),
    ],
)
def test_bad_label_maps(tmp_path: Path, source: Path, values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationSaveImaged("pred", tmp_path / "out")({"pred": label_map(source, values)})
    assert not (tmp_path / "out").exists()


def test_label_map_that_was_not_inverted(tmp_path: Path, source: Path) -> None:
    pred = label_map(source, np.zeros((1, 2, 3, 4)))
    pred.affine = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
    with pytest.raises(
        ValueError, match=r"pred must be on the grid of .*a\.nii\.gz: its corners lie .*Use Invertd first"
    ):
        SegmentationSaveImaged("pred", tmp_path)({"pred": pred})


def test_label_map_without_metadata() -> None:
    with pytest.raises(TypeError, match="pred must be a MetaTensor that names its input, got Tensor"):
        SegmentationSaveImaged("pred")({"pred": torch.zeros(1, 2, 3, 4)})


def test_source_that_went_away(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match=r"gone\.nii: no such file"):
        write_volume(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.uint8), tmp_path / "gone.nii", np.eye(4))


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out" / "a.nii.gz"
    write_volume(target, np.ones((2, 3, 4), np.uint8), source, np.eye(4))
    before = target.read_bytes()

    def interrupted(image: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(writer_module.nibabel, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_volume(target, np.zeros((2, 3, 4), np.uint8), source, np.eye(4))
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["a.nii.gz"]


@pytest.mark.parametrize("name", OBLIQUE)
def test_results_of_other_formats_lie_in_simpleitk_where_nibabel_puts_them(tmp_path: Path, name: str) -> None:
    affine = nib.affines.from_matvec(OBLIQUE[name], (30, -20, 10))
    (tmp_path / "a.nrrd").touch()
    path = tmp_path / "a_seg.nii.gz"
    write_volume(path, np.zeros(SHAPE, np.uint8), tmp_path / "a.nrrd", affine)
    header = nib.load(path).header
    np.testing.assert_allclose(header.get_sform(), affine, rtol=1e-6)
    assert header["sform_code"] == 1
    if name == "large shear":  # no grid of SimpleITK
        assert header["qform_code"] == 0
        with pytest.raises(RuntimeError, match="orthonormal"):
            SimpleITK.ReadImage(str(path))
    else:
        assert header["qform_code"] == 1
        corner = np.array(SHAPE) - 1
        found = SimpleITK.ReadImage(str(path)).TransformIndexToPhysicalPoint(corner.tolist())
        expected = nib.affines.apply_affine(affine, corner) * (-1, -1, 1)
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_maps_of_real_numbers(tmp_path: Path, source: Path) -> None:
    values = np.random.default_rng(0).random((2, 3, 4), dtype=np.float32)
    write_volume(tmp_path / "entropy.nii.gz", values, source, np.eye(4))
    image = nib.load(tmp_path / "entropy.nii.gz")
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(image.dataobj), values)
