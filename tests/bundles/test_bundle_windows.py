"""Windows and levels of every bundle: what is evaluated is what runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_unetpp import planning
from monai_unetpp.bundles import BundleConfig
from monai_unetpp.bundles.json_files import default_level
from monai_unetpp.inferers.precision import resolve_precision
from monai_unetpp.pruning import write_pruned_bundle
from monai_unetpp.pruning.inference import check_inference
from monai_unetpp.segmentation_options import SegmentationOptions

NAMES = (
    "brain_tissue_mri_unetpp",
    "fetal_brain_mri_unetpp",
    "head_mri_unetpp",
    "hippocampus_mri_unetpp",
    "nuclei_microscopy_unetpp",
)


def config_of(bundle, name):
    return json.loads((bundle / "configs" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(params=NAMES)
def shipped(request, hippocampus_bundle):
    return hippocampus_bundle.parent / request.param


def validation_inferer(bundle, **changes):
    """The inferer that scoring uses, with other values at the top of the configuration."""
    config = BundleConfig(bundle, "train.json", "prune.json")
    for key, value in changes.items():
        config[key] = value
    return config.parse("validate#inferer")


def test_the_window_has_one_name_in_training_and_inference(shipped):
    train, inference, prune = (config_of(shipped, name) for name in ("train", "inference", "prune"))
    assert train["window_shape"] == inference["window_shape"]
    assert "patch_size" in train
    assert "patch_size" not in inference
    assert prune["plan"]["window_shape"] == "@window_shape"
    assert "@patch_size" not in json.dumps(train["validate"])


def test_windows_beyond_an_image_hold_what_patches_held_there(shipped):
    inferer = BundleConfig(shipped, "inference.json").parse("inferer")
    inferer = getattr(inferer, "inferer", inferer)
    assert inferer.padding_mode == validation_inferer(shipped).padding_mode
    # only the patches of the head bundle are filled with 0
    filled = {"head_mri_unetpp": "constant", "nuclei_microscopy_unetpp": "reflect"}
    assert inferer.padding_mode == filled.get(shipped.name, "replicate")


@pytest.mark.slow
def test_the_level_that_runs_by_default_is_the_one_that_is_evaluated(shipped):
    run, evaluated = (BundleConfig(shipped, *files) for files in (["inference.json"], ["train.json", "evaluate.json"]))
    assert evaluated.parse("level") == run.parse("level") == default_level(shipped)
    assert evaluated.parse("network").levels == run.parse("evaluator#network").levels
    # training begins with all levels
    assert config_of(shipped, "train")["level"] is None


@pytest.mark.slow
def test_a_bundle_evaluated_with_another_window_can_be_written(shipped, tmp_path):
    window = [size - 16 for size in config_of(shipped, "train")["window_shape"]]
    precision, flips = (config_of(shipped, "prune")[key] for key in ("precision", "flips"))
    inferer = validation_inferer(shipped, window_shape=window)
    inference = check_inference(shipped, inferer, "cpu")
    # labels are resampled, not probabilities
    smooth = {"smooth": False} if config_of(shipped, "inference").get("smooth") else {}
    how = {"precision": resolve_precision(precision, "cpu"), "flips": flips, "window_shape": window}
    assert inference == how | smooth
    written = write_pruned_bundle(shipped, "L1", tmp_path / "pruned", inference=inference)
    assert config_of(written, "inference")["window_shape"] == window
    evaluate = config_of(written, "evaluate")
    assert evaluate["window_shape"] == window
    assert "patch_size" not in evaluate


def test_depth_can_be_chosen_for_each_window(shipped):
    config = BundleConfig(shipped, "inference.json")
    assert config.parse("inferer") is not None
    config["adaptive_tolerance"] = 0.03
    inferer = config.parse("inferer")
    assert getattr(inferer, "inferer", inferer).adaptive_tolerance == 0.03


def test_windows_that_are_empty_can_be_skipped_and_are_not_by_default(shipped):
    config = BundleConfig(shipped, "inference.json")
    (template,) = Path(planning.__file__).parent.glob("template/configs/inference.json")
    assert json.loads(template.read_text(encoding="utf-8"))["skip_constant"] is config.parse("skip_constant") is False
    for key, value in SegmentationOptions("image.nii", "out", skip_constant=True).settings().items():
        config[key] = value
    inferer = config.parse("inferer")
    assert getattr(inferer, "inferer", inferer).skip_constant is True
