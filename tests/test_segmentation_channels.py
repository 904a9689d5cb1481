"""Segmenting images of several channels, in one file or in one file each."""

from __future__ import annotations

import json
import shutil

import nibabel
import numpy as np
import pytest
import torch
from json_edits import edit_json
from monai.data import MetaTensor

from monai_unetpp import NestedUNet
from monai_unetpp import segment as segment_one
from monai_unetpp.data import find_cases
from monai_unetpp.results import hash_image
from monai_unetpp.segmentation import segment_files as segment

AFFINE = np.array([[1.0, 0, 0, -3], [0, 1.2, 0, 4], [0, 0, 1.5, 5], [0, 0, 0, 1]])
SHAPE = (14, 15, 16)
NETWORK = {"spatial_dims": 3, "in_channels": 2, "out_channels": 3, "features": [2, 4]}


@pytest.fixture(scope="module")
def bundle(hippocampus_bundle, tmp_path_factory):
    """The hippocampus bundle with a tiny network of two channels, which says so where it reads."""
    folder = tmp_path_factory.mktemp("bundle") / "two"
    (folder / "models").mkdir(parents=True)
    shutil.copytree(hippocampus_bundle / "configs", folder / "configs")
    torch.manual_seed(0)
    torch.save(NestedUNet(**NETWORK).state_dict(), folder / "models" / "model.pt")

    def say_channels(content):
        for reads in (content["dataset"]["data"], content["preprocessing"]["transforms"][0]["reader"]):
            reads["channels"] = "@network_def#in_channels"

    network_def = {"_target_": "monai_unetpp.NestedUNet", **NETWORK}
    edit_json(folder / "configs" / "inference.json", say_channels, level=None, network_def=network_def)
    edit_json(folder / "configs" / "metadata.json", lambda content: content.pop("sha256"))
    return folder


def test_four_axes_and_one_file_per_channel_give_the_same_on_the_grid_of_the_image(bundle, tmp_path, caplog):
    voxels = np.random.default_rng(0).normal(100, 20, (*SHAPE, 2)).astype(np.float32)
    (tmp_path / "in").mkdir()
    nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), tmp_path / "in" / "whole.nii.gz")
    for channel in (0, 1):
        image = nibabel.Nifti1Image(voxels[..., channel], AFFINE)
        nibabel.save(image, tmp_path / "in" / f"split_{channel:04d}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(voxels[..., 0], AFFINE), tmp_path / "in" / "single.nii.gz")
    nibabel.save(nibabel.Nifti1Image(voxels[..., 0], AFFINE), tmp_path / "in" / "lacking_0001.nii.gz")
    summary = segment(tmp_path / "in", tmp_path / "out", bundle, device="cpu", runtime="torch")
    assert [case.case for case in summary.cases] == ["split", "whole"]
    split, whole = (nibabel.load(case.output) for case in summary.cases)
    assert split.shape == whole.shape == SHAPE
    assert np.array_equal(split.dataobj, whole.dataobj)
    assert np.allclose(split.affine, AFFINE)
    assert np.allclose(whole.affine, AFFINE)
    lacking, single = summary.failures
    assert "the case 'lacking' must have a file for each of the network's 2 channels, 0000 to 0001, got lack" in lacking
    assert "must be NIfTI with 2 channels on its last axis, got shape (14, 15, 16). Convert it, or give a" in single


@pytest.fixture
def split(tmp_path):
    """The files of a case of two channels."""
    voxels = np.random.default_rng(0).normal(100, 20, (*SHAPE, 2)).astype(np.float32)
    (tmp_path / "in").mkdir()
    paths = [tmp_path / "in" / f"split_{channel:04d}.nii.gz" for channel in (0, 1)]
    for channel, path in enumerate(paths):
        nibabel.save(nibabel.Nifti1Image(voxels[..., channel], AFFINE), path)
    return paths


@pytest.mark.slow
def test_another_second_channel_is_another_image(bundle, split, tmp_path):
    def skipped():
        options = {"device": "cpu", "runtime": "torch", "skip_existing": True}
        return segment(tmp_path / "in", tmp_path / "out", bundle, **options).skipped

    assert [skipped(), skipped()] == [0, 1]
    (run,) = json.loads((tmp_path / "out" / "run.json").read_text())["runs"]
    assert run["cases"][0]["sha256"] == hash_image(*split)
    changed = nibabel.load(split[1])
    nibabel.save(nibabel.Nifti1Image(changed.get_fdata() + 1, AFFINE), split[1])
    assert [skipped(), skipped()] == [0, 1]
    # swapped, they are another image, too
    first, second = (path.read_bytes() for path in split)
    split[0].write_bytes(second)
    split[1].write_bytes(first)
    assert skipped() == 0


def test_one_image_gives_its_first_channel_beside_the_labels(bundle, split, tmp_path):
    channels = np.stack([nibabel.load(path).get_fdata(dtype=np.float32) for path in split], axis=-1)
    nibabel.save(nibabel.Nifti1Image(channels, AFFINE), tmp_path / "whole.nii.gz")
    options = {"bundle": bundle, "device": "cpu", "runtime": "torch"}
    of_folder, of_file = (segment_one(tmp_path / name, **options) for name in ("in", "whole.nii.gz"))
    assert np.array_equal(of_folder.array, of_file.array)
    for found in (of_folder, of_file):
        assert found.array.shape == SHAPE
        np.testing.assert_allclose(found.image, channels[..., 0])


def test_a_tensor_of_all_channels_is_the_image(bundle, split, tmp_path):
    channels = np.stack([nibabel.load(path).get_fdata(dtype=np.float32) for path in split])
    options = {"bundle": bundle, "device": "cpu", "runtime": "torch"}
    of_tensor = segment_one(MetaTensor(torch.as_tensor(channels), affine=torch.as_tensor(AFFINE)), **options)
    of_folder = segment_one(tmp_path / "in", **options)
    np.testing.assert_array_equal(of_tensor.array, of_folder.array)
    np.testing.assert_array_equal(of_tensor.image, channels[0])
    np.testing.assert_allclose(of_tensor.affine, AFFINE)
    with pytest.raises(ValueError, match=r"^image must have the shape \(2, H, W\[, D\]\) .*, got \(3, 14, 15, 16\)"):
        segment_one(MetaTensor(torch.ones(3, *SHAPE)), **options)


def test_a_thin_image_of_two_channels_keeps_its_voxels(bundle, tmp_path):
    voxels = np.random.default_rng(0).normal(100, 20, (1, 1, 7, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), tmp_path / "thin.nii")
    found = segment_one(tmp_path / "thin.nii", bundle, device="cpu", runtime="torch")
    assert found.array.shape == (1, 1, 7)
    np.testing.assert_array_equal(found.image, voxels[..., 0])


def test_a_broken_file_among_those_with_all_channels_keeps_no_other_from_being_a_case(tmp_path):
    for number in range(1, 4):
        nibabel.save(nibabel.Nifti1Image(np.ones((6, 6, 6, 2)), np.eye(4)), tmp_path / f"brats_{number:04d}.nii.gz")
    (tmp_path / "brats_0002.nii.gz").write_bytes(b"broken")
    cases = find_cases(tmp_path, strict=False, channels=2)
    assert [case["case"] for case in cases] == ["brats_0001", "brats_0002", "brats_0003"]
    # an image that lacks channels makes them one case, which fails
    nibabel.save(nibabel.Nifti1Image(np.ones((6, 6, 6)), np.eye(4)), tmp_path / "brats_0000.nii.gz")
    assert [case["case"] for case in find_cases(tmp_path, strict=False, channels=2)] == ["brats"]


def test_warnings_about_any_channel_are_those_of_the_case(bundle, split, tmp_path):
    strange = nibabel.Nifti1Image(nibabel.load(split[1]).get_fdata(), AFFINE)
    strange.set_sform(AFFINE, 1)
    strange.set_qform(np.diag([3.0, 3, 3, 1]) @ AFFINE, 1)
    nibabel.save(strange, split[1])
    (done,) = segment(tmp_path / "in", tmp_path / "out", bundle, device="cpu", runtime="torch").cases
    assert any(line.startswith(f"{split[1]}: its pixdim") for line in done.warnings)
