"""What the nuclei bundle does beyond the others: pictures, slices and objects."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_runs import configs, run_command, run_here, succeed, training_in_processes
from PIL import Image

from monai_unetpp import NestedUNet
from monai_unetpp.bundles import read_network_def

SMALL = ["--window_shape", "[32,32]", "--precision", "fp32", "--features", "[4,8,8,8,8]"]
QUICK = [
    *("--steps", "2", "--batch_size", "2", "--num_workers", "0", "--compile", "False", "--patch_size", "[32,32]"),
    *SMALL,
]


@pytest.fixture(scope="module")
def checkpoint(nuclei_bundle, tmp_path_factory):
    """A small network of the bundle's kind that was not trained."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    network = NestedUNet(**{**read_network_def(nuclei_bundle), "features": (4, 8, 8, 8, 8)})
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def pictures(nuclei_dir, tmp_path):
    """One scene as NIfTI, PNG and TIFF, grey and in colours, an image of one pixel, a volume, and a broken file."""
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.asarray(nib.load(nuclei_dir / "imagesTr" / "cells_5.nii.gz").dataobj)
    nib.save(nib.Nifti1Image(pixels, np.diag([0.5, 0.5, 1, 1])), folder / "a.nii.gz")
    Image.fromarray(pixels.T).save(folder / "b.png")
    Image.fromarray(pixels.T.astype(np.uint16) * 256).save(folder / "c.tif")
    Image.fromarray(np.stack([pixels.T] * 3, axis=-1)).save(folder / "d.png")
    Image.fromarray(pixels.T[:1, :1]).save(folder / "one.png")
    nib.save(nib.Nifti1Image(np.stack([pixels, pixels[::-1]], axis=0), np.eye(4)), folder / "volume.nii.gz")
    (folder / "broken.png").write_text("no picture")
    return folder


def infer(bundle, checkpoint, *options):
    run_here(
        *("run", "--config_file", bundle / "configs" / "inference.json", "--bundle_root", bundle),
        *("--checkpoint", checkpoint, *SMALL, "--runtime", "torch", *options),
    )


@pytest.mark.slow
def test_every_kind_of_file_gives_labels_of_its_kind(nuclei_bundle, checkpoint, pictures, tmp_path, caplog, capfd):
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        infer(nuclei_bundle, checkpoint, "--input", pictures, "--output_dir", out, "--slice_axis", "0")
    assert stopped.value.code == 1
    assert "broken.png: damaged, or not of the format" in caplog.text + capfd.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [
        *("a_seg.nii.gz", "b_seg.png", "c_seg.tif", "d_seg.png", "one_seg.png", "volume_seg.nii.gz")
    ]
    first = nib.load(out / "a_seg.nii.gz")
    np.testing.assert_array_equal(first.affine, np.diag([0.5, 0.5, 1, 1]))
    labels = np.asarray(first.dataobj)
    assert labels.shape == (40, 36)
    assert set(np.unique(labels)) <= {0, 1}
    for name in ("b_seg.png", "c_seg.tif", "d_seg.png"):
        # one scene, one result; interpolated percentiles of other types may differ in the last bit
        assert np.mean(labels != np.asarray(Image.open(out / name)).T) < 0.01
    assert Image.open(out / "one_seg.png").size == (1, 1)
    slices = np.asarray(nib.load(out / "volume_seg.nii.gz").dataobj)
    assert slices.shape == (2, 40, 36)
    assert np.mean(slices[0] != labels) < 0.01


@pytest.mark.slow
def test_objects_are_numbered(nuclei_bundle, checkpoint, pictures, tmp_path):
    for name, options in (("plain", []), ("objects", ["--instances", "True", "--min_instance_size", "3"])):
        out = tmp_path / name
        file = pictures / "b.png"
        infer(nuclei_bundle, checkpoint, "--input", file, "--output_dir", out, *options)
    plain, objects = (np.asarray(Image.open(tmp_path / name / "b_seg.png")) for name in ("plain", "objects"))
    assert not objects[plain == 0].any()
    assert set(np.unique(objects)) - {0} == set(range(1, int(objects.max()) + 1))


@pytest.mark.slow
def test_train_and_evaluate(nuclei_bundle, nuclei_dir, tmp_path):
    out = tmp_path / "training"
    common = ["--bundle_root", nuclei_bundle, "--dataset_dir", nuclei_dir]
    run_here("run", "--config_file", configs(nuclei_bundle, "train.json"), *common, "--output_dir", out, *QUICK)
    with (out / "curve.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2"]
    assert NestedUNet.from_checkpoint(out / "model.pt").levels == ("L1", "L2", "L3", "L4")
    run_here(
        *("run", "--config_file", configs(nuclei_bundle, "train.json", "evaluate.json"), *common),
        *("--output_dir", tmp_path / "evaluation", "--checkpoint", out / "model.pt", *SMALL),
    )
    with (tmp_path / "evaluation" / "val_mean_dice_raw.csv").open() as file:
        cases = list(csv.DictReader(file))
    assert [Path(case["filename"]).name for case in cases] == ["cells_4.nii.gz", "cells_5.nii.gz"]


@pytest.mark.slow
def test_two_processes_train_together(nuclei_bundle, nuclei_dir, tmp_path):
    out = tmp_path / "training"
    succeed(run_command(tmp_path, *training_in_processes(nuclei_bundle, nuclei_dir, out, *QUICK), processes=2))
    assert NestedUNet.from_checkpoint(out / "model.pt").levels == ("L1", "L2", "L3", "L4")
