"""Structures that a usual preprocessing would flatten or cut off: small bright ones, and labels in the surround."""

import json

import nibabel as nib
import numpy as np
import pytest

from monai_unetpp.bundles import BundleConfig
from monai_unetpp.planning import Machine, TrainingPlan, load_plan, plan

TINY = {"features": [4, 8, 8], "patch_size": [16, 16, 8], "strides": [[2, 2, 1], [2, 2, 2]], "batch_size": 2}
VESSEL, RIM = (slice(10, 12), 10, 5), (slice(4, 8), slice(8, 12), slice(4, 6))


def machine(spatial_dims, device, classes):
    return Machine(4e9, 2**34, 2, "cpu")


def volume(seed=0, vessel=1000.0, rim=True):
    """A brain in a surround of 0, with a bright vessel of two voxels, and a rim of which half lies in the surround."""
    brain = (slice(6, 18), slice(6, 18), slice(2, 10))
    image, label = np.zeros((24, 24, 12), np.float32), np.zeros((24, 24, 12), np.uint8)
    image[brain], label[brain] = np.random.default_rng(seed).normal(100, 5, image[brain].shape), 1
    image[VESSEL], label[VESSEL] = vessel, 2
    if rim:
        label[RIM] = 3
    return image, label


def write(root, **options):
    entries = []
    for number in range(4):
        paths = {}
        for kind, array in zip(("image", "label"), volume(number, **options), strict=True):
            paths[kind] = f"{kind}_{number}.nii.gz"
            root.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1.0, 1.0, 1.0])), root / paths[kind])
        entries.append(paths)
    labels = {"0": "background", "1": "brain", "2": "vessel", **({"3": "rim"} if options.get("rim", True) else {})}
    content = {"modality": {"0": "T1"}, "labels": labels, "training": entries[:3], "validation": entries[3:]}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("hidden") / "data")


def transforms(bundle, name, key):
    """The transforms of a configuration by the names of their classes."""
    content = json.loads((bundle / "configs" / f"{name}.json").read_text())
    return {each["_target_"].rpartition(".")[2]: each for each in content[key]["transforms"]}


@pytest.mark.slow
def test_neither_bright_voxels_nor_labels_in_the_surround_are_lost(data, tmp_path, caplog):
    asked = []

    def noted(*arguments):
        asked.append(arguments)
        return machine(*arguments)

    made = plan(data, tmp_path / "bundle", settings=TINY, measure=noted)
    # the time of the loss depends on the number of classes
    assert asked == [(3, None, 4)]
    assert [made[name] for name in ("crop_background", "normalization")] == [False, "inside"]
    assert made["clip_percentiles"] == [0.0, 100.0]
    assert "Voxels of rim lie in the constant surround, which is kept for them. Check" in caplog.text
    text = (tmp_path / "bundle" / "docs" / "plan.md").read_text()
    assert "in it lie 50.0 % of rim." in text
    assert "Nothing is clipped above, as most of vessel is brighter than the 99.5th percentile" in text
    assert "ClearBackgroundd" not in transforms(tmp_path / "bundle", "inference", "postprocessing")
    assert "ClipIntensityPercentilesd" not in transforms(tmp_path / "bundle", "inference", "preprocessing")
    prepare = BundleConfig(tmp_path / "bundle", "train.json").parse("preprocessing")
    done = prepare({"image": str(data / "image_0.nii.gz"), "label": str(data / "label_0.nii.gz")})
    assert np.bincount(done["label"].numpy().ravel().astype(int)).tolist() == np.bincount(volume()[1].ravel()).tolist()
    inside = done["image"].numpy()[0][done["label"].numpy()[0] == 2]
    assert inside.min() > 10


@pytest.mark.slow
def test_what_is_set_by_hand_holds_and_what_it_costs_is_told(data, tmp_path, caplog):
    by_hand = {**TINY, "crop_background": True, "clip_percentiles": [0.5, 99.5]}
    made = plan(data, tmp_path / "bundle", settings=by_hand, measure=machine)
    assert made["clip_percentiles"] == [0.5, 99.5]
    assert made.reasons["crop_background"].text == "Set by hand. The rule gives: no."
    assert "Voxels of rim lie in the constant surround, where nothing will be found. Leave crop_back" in caplog.text


@pytest.mark.slow
def test_ordinary_volumes_are_prepared_as_before_there_was_a_choice(tmp_path):
    data = write(tmp_path / "data", vessel=104.0, rim=False)
    made = plan(data, tmp_path / "bundle", settings=TINY, measure=machine)
    assert made["crop_background"]
    # crops are moved into the image, away from its empty corners
    train = json.loads((tmp_path / "bundle" / "configs" / "train.json").read_text())["train"]
    for chain in ("augmentation", "late_augmentation"):
        crop = train[chain]["transforms"][0]
        assert "crop_size" not in crop
        assert all(size > patch for size, patch in zip(crop["spatial_size"], made["patch_size"], strict=True))
    clip = transforms(tmp_path / "bundle", "train", "preprocessing")["ClipIntensityPercentilesd"]
    assert (clip["lower"], clip["upper"]) == (0, 99.5)
    # plans of before had no such value
    content = load_plan(tmp_path / "bundle").as_dict()
    del content["values"]["clip_percentiles"], content["reasons"]["clip_percentiles"]
    assert TrainingPlan.from_dict(content)["clip_percentiles"] == [0.0, 99.5]
    content["values"] |= {"normalization": "volume", "crop_background": False}
    assert TrainingPlan.from_dict(content)["clip_percentiles"] == [0.5, 99.5]
