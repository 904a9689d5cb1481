"""Values of a plan that are set by hand."""

from pathlib import Path

import pytest

from monai_unetpp.planning.plan_options import PlanOptions
from monai_unetpp.planning.values import check_one, parse_settings


def test_settings_are_json_or_plain_text_and_never_configuration():
    texts = ["batch_size=4", "norm=instance", "spacing_mm=null", "flips=[0,1]", "augmentation=$print(1)"]
    expected = {"batch_size": 4, "norm": "instance", "spacing_mm": None, "flips": [0, 1], "augmentation": "$print(1)"}
    assert parse_settings(texts) == expected
    assert parse_settings(["features=4,8, 16", "class_weights=0.5,1"]) == {
        "features": [4, 8, 16],
        "class_weights": [0.5, 1],
    }
    with pytest.raises(ValueError, match=r"augmentation must be one of none, light, strong, got '\$print\(1\)'"):
        check_one("augmentation", "$print(1)", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_size", "must be a name, '=' and a value, got 'batch_size'"),
        ("batchsize=4", "a plan has no value 'batchsize'. Did you mean 'batch_size'"),
        ("zzz=4", "a plan has no value 'zzz'. Known values: orientation, spacing_mm, "),
    ],
)
def test_settings_that_there_are_not_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_settings([text])


def test_a_setting_is_given_once():
    with pytest.raises(ValueError, match="batch_size must be set once, got 4 and 5"):
        parse_settings(["batch_size=4", "batch_size=5"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_size", 0, "batch_size must be 1 or more, got 0"),
        ("batch_size", True, "batch_size must be a whole number, got True"),
        ("batch_size", "@seed", "batch_size must be a whole number, got '@seed'"),
        ("learning_rate", "$1", r"learning_rate must be a number, got '\$1'"),
        ("learning_rate", 0, "learning_rate must be above 0 and at most 1, got 0"),
        ("learning_rate", 1e9, "learning_rate must be above 0 and at most 1, got"),
        ("weight_decay", 2, "weight_decay must be at least 0 and at most 1, got 2"),
        ("gamma", 1e9, "gamma must be above 0 and at most 10, got"),
        ("overlap", 0.999, r"overlap must be at least 0 and at most 0\.9, got 0\.999"),
        ("distillation", 1e9, "distillation must be at least 0 and at most 100, got"),
        ("num_workers", 100000, r"^num_workers must be at most 256, got 100000\. Give a smaller number\.$"),
        ("class_weights", [1e30, 1], r"every entry of class_weights must be at least 0 and at most 1e\+06, got 1e\+30"),
        ("patch_size", [64, 64], "patch_size must have one number per axis, 3"),
        ("patch_size", "64", "patch_size must be a list, got '64'"),
        ("flips", "x", r"flips must be a list, got 'x'\. Write it like flips=0,1\.$"),
        ("flips", 0.5, r"every entry of flips must be a whole number, got 0\.5\. Write each like 1\.$"),
        (
            "spacing_mm",
            [1, 1, [1]],
            r"entry of spacing_mm must be a number, got \[1\]\. Write each like 0\.5, or",
        ),
        ("strides", [[2, 2, "x"]], r"^every entry of strides must be a whole number, got 'x'\. Write each like 1\.$"),
        ("strides", ["x"], r"^every entry of strides must be a list, got 'x'\. Write each like 2,2,2\.$"),
        ("patch_size", "x", r"^patch_size must be a list, got 'x'\. Write it like patch_size=32,32,32\.$"),
        (
            "spacing_mm",
            "x",
            r"got 'x'\. Write it like spacing_mm=1\.5,1\.5,1\.5, or spacing_mm=none\.$",
        ),
        ("intensity_range", 3, r"Write it like intensity_range=\[-100,300,60,40\]\.$"),
        ("clip_percentiles", 3, r"Write it like clip_percentiles=0.5,99.5\.$"),
        ("rare_kind_factor", "x", r"Write it like rare_kind_factor=2\.?"),
        ("ema", False, r"^ema must be a number, got False\. Write it like ema=0\.5, or ema=none\.$"),
        ("steps", 0.5, r"^steps must be a whole number, got 0\.5\. Write it like steps=1\.$"),
        ("strides", [], r"^strides must have 2 to 4 entries, for 2 to 4 levels, got 0\. Give as many\.$"),
        ("strides", [2], "^strides must have 2 to 4 entries, for 2 to 4 levels, got 1"),
        ("strides", 2, r"^strides must be a list, got 2\. Write it like strides=\[2,2\]\.$"),
        ("kernel_size", [3, 3], "^kernel_size must have 3 to 5 entries, for 2 to 4 levels, got 2"),
        ("kernel_size", 3, r"^kernel_size must be a list, got 3\. Write it like kernel_size=\[3,3,3\]\.$"),
        ("flip_axes", [3], "flip_axes must be axes of the image, 0 to 2, got 3"),
        ("features", [8] * 6, "features must have 3 to 5 entries"),
        ("norm", "group", r'norm must be one of batch, instance, \["instance", {"affine": true}\], got'),
        ("dropout", 1, "dropout must be at least 0 and below 1, got 1"),
        ("bias_field", 1, "bias_field must be true or false, got 1"),
        ("intensity_range", [5, 1, 0, 1], "intensity_range must be the lowest and the highest intensity"),
        ("clip_percentiles", [99.5, 0.5], "clip_percentiles must be a lower and a higher percentile, 0 to 100, got"),
        ("clip_percentiles", [0, 101], "every entry of clip_percentiles must be at least 0 and at most 100, got 101"),
        ("clip_percentiles", 99, "clip_percentiles must be a list, got 99"),
        ("class_ratios", [0, 0], "class_ratios must have a number above 0"),
        ("class_weights", 2, "class_weights must be a list, got 2"),
        ("class_weights", [0, 1], r"class_weights must be above 0, got \[0, 1\]: patches with such a class alone"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(name, value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        check_one(name, value, 3)


def test_one_number_stands_for_all_axes():
    assert check_one("patch_size", 64, 3) == [64, 64, 64]
    assert check_one("strides", [2, [2, 2, 1]], 3) == [[2, 2, 2], [2, 2, 1]]


def test_one_axis_needs_no_list():
    assert check_one("flips", 0, 2) == check_one("flips", [0], 2) == [0]
    with pytest.raises(ValueError, match="flip_axes must be axes of the image, 0 to 1, got 2"):
        check_one("flip_axes", 2, 2)


def test_no_value_is_given_by_the_word_that_plans_have_for_it():
    assert [check_one(name, "none", 3) for name in ("spacing_mm", "ema", "class_weights", "intensity_range")] == [
        None
    ] * 4
    assert [check_one(name, "none", 3) for name in ("flip_axes", "flips", "augmentation")] == [[], [], "none"]


def test_limits_are_checked():
    with pytest.raises(ValueError, match="minutes must be a number above 0, got 0"):
        PlanOptions("data", "bundle", minutes=0)
    with pytest.raises(ValueError, match="folds must be one of 0, 3, 5, got 4"):
        PlanOptions("data", "bundle", folds=4)


def test_a_bundle_cannot_start_from_itself(tmp_path, monkeypatch):
    """Also where another bundle has its name: once it is there, the name means this one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"init must not be the folder of the new bundle, hippocampus\. Give another"):
        PlanOptions("data", "hippocampus", init="hippocampus")
    assert PlanOptions("data", "out/hippocampus", init="hippocampus").init == "hippocampus"


def test_the_folder_of_a_bundle_has_a_name(tmp_path, monkeypatch):
    """The pruned one is named after it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inner").mkdir()
    assert [PlanOptions("data", folder).output_dir for folder in (".", "inner/..", "b")] == [
        tmp_path,
        tmp_path,
        Path("b"),
    ]
