"""The terms that all runs share."""

import dataclasses
import json

import pytest

from monai_unetpp.study import StudySettings
from monai_unetpp.study.cases import find_study_cases
from monai_unetpp.study.settings import claim_folder, compare_folder, read_config, read_stored


def complete(dims=2, **given):
    return StudySettings.complete(given, dims, "cpu")


def test_defaults_suit_the_number_of_axes():
    assert (complete(2).patch_size, complete(2).flip_axes) == ((128, 128), (0, 1))
    assert (complete(3).patch_size, complete(3).flip_axes) == ((64, 64, 64), (0,))
    # the meaning of "auto" is part of the terms
    assert complete().precision in ("fp32", "bf16")


def test_a_patch_may_be_short_along_some_axes():
    assert complete(2, features=[2] * 5, patch_size=[8, 17]).patch_size == (8, 17)


def test_one_number_or_one_per_axis():
    assert complete(3, patch_size=[40]).patch_size == (40, 40, 40)
    assert complete(3, patch_size=[40, 56, 40], spacing_mm=1).spacing_mm == (1.0, 1.0, 1.0)
    assert complete(2, features=[4, 8, 8], flip_axes=[]).flip_axes == ()


def test_settings_fit_json():
    settings = complete(spacing_mm=[0.5, 0.5])
    again = json.loads(json.dumps(settings.as_dict()))
    assert StudySettings.complete(again, 2, "cpu") == settings


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"steps": 3}, ValueError, r"settings must be among features, budget, .* got 'steps'"),
        ({"features": [4, 8]}, ValueError, r"features must have at least three entries, got \[4, 8\]"),
        ({"features": "16"}, TypeError, r"features must be a whole number, or several, got '16'"),
        ({"budget": 0}, ValueError, r"budget must be 1 or more, got \[0\]"),
        ({"budget": 1.5}, TypeError, r"budget must be a whole number"),
        ({"patch_size": [8, 8, 8]}, ValueError, r"patch_size must have 1 or 2 entries .* got \[8, 8, 8\]"),
        ({"spacing_mm": 0}, ValueError, r"spacing_mm must be positive, got 0"),
        ({"learning_rate": 0}, ValueError, r"learning_rate must be positive, got 0"),
        ({"learning_rate": "high"}, TypeError, r"learning_rate must be a number"),
        ({"overlap": 1}, ValueError, r"overlap must lie between 0 and 1, got 1"),
        ({"flip_axes": [2]}, ValueError, r"flip_axes must be axes of the image, 0 to 1, got 2"),
        ({"precision": "fp16"}, ValueError, r"precision must be one of auto, fp32, bf16, got 'fp16'. Its gradients"),
        ({"precision": "half"}, ValueError, r"precision must be one of auto, fp32, bf16, got 'half'"),
        (
            {"features": [2] * 5, "patch_size": [8, 16]},
            ValueError,
            r"patch_size must be more than 16 along one axis at least for 5 features, got \[8, 16\]\. Give a larger",
        ),
    ],
)
def test_settings_that_cannot_work(given, error, message):
    with pytest.raises(error, match=message):
        complete(**given)


def test_a_folder_holds_runs_of_one_setting(discs_dir, tmp_path):
    cases = find_study_cases(discs_dir)
    settings = complete(budget=5)
    fingerprint = claim_folder(tmp_path, settings, cases)
    assert claim_folder(tmp_path, settings, cases) == fingerprint
    with pytest.raises(ValueError, match=r"got .* with others: budget was 5 and is 6\. Give the settings"):
        claim_folder(tmp_path, complete(budget=6), cases)
    fewer = dataclasses.replace(cases, validation=cases.validation[1:])
    with pytest.raises(ValueError, match=r"its cases or labels are not those of dataset_dir"):
        claim_folder(tmp_path, settings, fewer)
    assert claim_folder(tmp_path / "other", complete(budget=6), cases) != fingerprint
    with pytest.raises(ValueError, match=r"its cases or labels are not those of dataset_dir"):
        read_stored(tmp_path, fewer)
    assert read_stored(tmp_path, cases) == settings.as_dict()
    assert read_stored(tmp_path / "new", fewer) == {}
    assert compare_folder(tmp_path / "new", settings, cases) == fingerprint
    assert not (tmp_path / "new").exists()
    (tmp_path / "settings.json").write_text("[]")
    with pytest.raises(ValueError, match=r"settings\.json: cannot be read .* Take another output_dir"):
        claim_folder(tmp_path, settings, cases)


def test_config_files(tmp_path):
    path = tmp_path / "study.json"
    with pytest.raises(FileNotFoundError, match=r"study\.json: no such file\. config must name"):
        read_config(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"study\.json: cannot be read as JSON"):
        read_config(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"study\.json: must hold an object of settings, got \[1\]"):
        read_config(path)
