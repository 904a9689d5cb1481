"""The brain-tissue bundle's own configurations: crops around the brain, patches by class, whole volumes."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from bundle_runs import configs, run_here
from monai.bundle import ConfigParser
from scipy.ndimage import gaussian_filter

QUICK = ["--steps", "2", "--num_workers", "0", "--compile", "False", "--precision", "fp32"]


def make_brain(seed):
    """A ball of white matter in a shell of grey matter with fluid inside, on a background of zeros, and its labels."""
    generator = np.random.default_rng(seed)
    distance = np.linalg.norm(np.indices((40, 44, 36)) - np.array([20, 22, 18])[:, None, None, None], axis=0)
    labels = np.select([distance < 4, distance < 10, distance < 14], [1, 3, 2], 0).astype(np.uint8)
    intensities = np.array([0, 300, 700, 1000.0])[labels]
    image = gaussian_filter(intensities, 0.5) + generator.normal(0, 20, labels.shape)
    return np.where(distance < 15, np.maximum(image, 1), 0).astype(np.int16), labels


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    root = tmp_path_factory.mktemp("brains")
    names = []
    for index in range(3):
        names.append({})
        for kind, voxels in zip(("image", "label"), make_brain(index), strict=True):
            folder = root / f"{kind}sTr"
            folder.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, np.diag([-1, 1, 1, 1.0])), folder / f"brain_{index}.nii.gz")
            names[-1][kind] = f"./{kind}sTr/brain_{index}.nii.gz"
    (root / "dataset.json").write_text(json.dumps({"training": names[:2], "validation": names[2:]}), encoding="utf-8")
    return root


@pytest.mark.slow
def test_train_and_evaluate(brain_bundle, brains, tmp_path):
    out = tmp_path / "out"
    common = ["--bundle_root", brain_bundle, "--dataset_dir", brains, "--output_dir", out]
    shapes = ["--patch_size", "[32,32,32]", "--window_shape", "[32,32,32]"]
    run_here("run", "--config_file", configs(brain_bundle, "train.json"), *common, *shapes, *QUICK)
    with (out / "curve.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 2
    run_here(
        *("run", "--config_file", configs(brain_bundle, "train.json", "evaluate.json"), *common, *shapes),
        *("--checkpoint", out / "model.pt", "--level", "L1", "--precision", "fp32"),
    )
    assert (out / "val_mean_dice_summary.csv").is_file()


@pytest.mark.slow
def test_inference_on_the_grid_of_the_input(brain_bundle, brains, tmp_path):
    """With the trained weights: three tissues in a ball are no brain, but what is empty must stay so."""
    run_here(
        *("run", "--config_file", brain_bundle / "configs" / "inference.json", "--bundle_root", brain_bundle),
        *("--input", brains / "imagesTr" / "brain_0.nii.gz", "--output_dir", tmp_path / "out", "--level", "L1"),
        *("--runtime", "torch", "--precision", "fp32", "--window_shape", "[32,32,32]"),
    )
    segmentation = nib.load(tmp_path / "out" / "brain_0_seg.nii.gz")
    image = nib.load(brains / "imagesTr" / "brain_0.nii.gz")
    labels = np.asarray(segmentation.dataobj)
    assert labels.shape == image.shape
    assert np.array_equal(segmentation.affine, image.affine)
    assert labels.max() <= 3
    outside = gaussian_filter((np.asarray(image.dataobj) > 0).astype(float), 2) < 0.001
    assert outside.sum() > 10_000
    assert (labels[outside] == 0).mean() > 0.95


def test_validation_sees_what_inference_sees(brain_bundle):
    train, inference = ConfigParser(), ConfigParser()
    train.read_config(str(brain_bundle / "configs" / "train.json"))
    inference.read_config(str(brain_bundle / "configs" / "inference.json"))
    assert train["window_shape"] == inference["window_shape"]
    assert train["overlap"] == inference["overlap"]
    crop = [item for item in inference["preprocessing"]["transforms"] if item["_target_"].endswith("CropBackgroundd")]
    trained = [item for item in train["preprocessing"]["transforms"] if item["_target_"].endswith("CropBackgroundd")]
    assert crop[0]["margin"] == trained[0]["margin"]
    for each in (train, inference):
        kinds = [item["_target_"].split(".")[-1] for item in each["preprocessing"]["transforms"]]
        assert kinds.index("LevelSurroundd") < kinds.index("BlockwiseSpacingd") < kinds.index("CropBackgroundd")
