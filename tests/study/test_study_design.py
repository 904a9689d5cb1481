"""The terms that all runs share."""

import json

import pytest

from monai_unetpp.cli import make_parser
from monai_unetpp.distributed import gathered
from monai_unetpp.options import option_names
from monai_unetpp.study.design import RunOptions, StudySettings, read_config


def complete(dims=2, **given):
    return StudySettings.complete(given, dims)


def test_defaults_suit_the_number_of_axes():
    assert (complete(2).patch_size, complete(2).flip_axes) == ((128, 128), (0, 1))
    assert (complete(3).patch_size, complete(3).flip_axes) == ((64, 64, 64), (0,))
    assert (complete(2).batch_size, complete(3).batch_size) == (8, 2)


def test_a_patch_may_be_short_along_some_axes():
    assert complete(2, features=[2] * 5, patch_size=[8, 17]).patch_size == (8, 17)


def test_one_number_or_one_per_axis():
    assert complete(3, patch_size=[40]).patch_size == (40, 40, 40)
    assert complete(3, patch_size=[40, 56, 40], spacing_mm=1).spacing_mm == (1.0, 1.0, 1.0)
    assert complete(2, features=[4, 8, 8], flip_axes=[]).flip_axes == ()


def test_settings_fit_json():
    settings = complete(spacing_mm=[0.5, 0.5])
    again = json.loads(json.dumps(settings.as_dict()))
    assert complete(**again) == settings


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"steps": 3}, ValueError, r"settings must be among features, budget, .* got 'steps'"),
        ({"features": [4, 8]}, ValueError, r"features must have at least three entries, got \[4, 8\]"),
        ({"features": "16"}, ValueError, r"features must have at least three entries, got '16'"),
        ({"features": [4, 8, 8.5]}, TypeError, r"features must be a whole number, got 8\.5"),
        ({"budget": 0}, ValueError, r"budget must be 1 or more, got 0"),
        ({"budget": 1.5}, TypeError, r"budget must be a whole number"),
        ({"patch_size": [8, 8, 8]}, ValueError, r"patch_size must have one number per axis, 2, got \[8, 8, 8\]"),
        ({"spacing_mm": 0}, ValueError, r"spacing_mm must be above 0, got 0"),
        ({"learning_rate": 0}, ValueError, r"learning_rate must be above 0 and at most 1, got 0"),
        ({"learning_rate": "high"}, TypeError, r"learning_rate must be a number"),
        ({"overlap": 1}, ValueError, r"overlap must be at least 0 and at most 0\.9, got 1"),
        ({"flip_axes": [2]}, ValueError, r"flip_axes must be axes of the image, 0 to 1, got 2"),
        ({"precision": "fp16"}, ValueError, r"precision must be one of auto, fp32, bf16, got 'fp16'. Its gradients"),
        ({"precision": "half"}, ValueError, r"precision must be one of auto, fp32, bf16, got 'half'"),
        (
            {"features": [2] * 5, "patch_size": [8, 16]},
            ValueError,
            r"patch_size must be more than 16 along at least one axis for 5 features, got \[8, 16\]\. Give a larger",
        ),
    ],
)
def test_settings_that_cannot_work(given, error, message):
    with pytest.raises(error, match=message):
        complete(**given)


def test_config_files(tmp_path):
    path = tmp_path / "study.json"
    with pytest.raises(FileNotFoundError, match=r"study\.json: no such file\. config must name"):
        read_config(path)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"study\.json: cannot be read as JSON"):
        read_config(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match=r"study\.json: must hold a JSON object, got list"):
        read_config(path)


@pytest.mark.parametrize("cls", [StudySettings, RunOptions])
def test_every_field_is_an_option_of_the_command_line(cls):
    options = vars(make_parser().parse_args(["study", "--dataset_dir", "D", "-o", "O"]))
    assert set(option_names(cls)) <= set(options)
    # so that the configuration and the folder can have other defaults
    assert all(options[name] is None for name in option_names(cls))


@pytest.mark.parametrize("count", [0, 1, 7, 12])
def test_shards_do_every_run_once(count):
    parts = [RunOptions(shard=f"{k}/3").part() for k in (1, 2, 3)]
    assert sorted(run for k, n in parts for run in range(count)[k - 1 :: n]) == list(range(count))
    assert RunOptions().part() == (1, 1)


def test_processes_of_torchrun_share_the_runs(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert RunOptions().part() == (3, 4)
    with pytest.raises(ValueError, match=r"shard must not be given under torchrun, got '1/2'"):
        RunOptions(shard="1/2")


def test_a_number_of_processes_that_torchrun_did_not_start_shares_nothing(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("RANK", raising=False)
    assert RunOptions().part() == (1, 1)
    with gathered("done") as values:
        assert values == ["done"]
