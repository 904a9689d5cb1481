"""The record of which cases a bundle's weights come from."""

import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_unetpp import training
from monai_unetpp.bundles import BundleConfig, find_bundle
from monai_unetpp.bundles.training_record import (
    BEST_ON_VALIDATION,
    LAST_AVERAGED,
    TrainingRecord,
    find_training_record,
    put_training_record,
    read_training_record,
    save_training_record,
    warn_of_known_cases,
    write_training_record,
)
from monai_unetpp.data.datasets.voxel_hash import hash_voxels


@pytest.fixture
def files(tmp_path):
    """The same two channels in one file and in two, another format, and other voxels."""
    voxels = np.arange(4 * 5 * 6 * 2, dtype=np.int16).reshape(4, 5, 6, 2)
    affine = np.diag([1, 2, 3, 1])

    def save(name, data, affine=affine):
        nib.save(nib.Nifti1Image(data, affine), tmp_path / name)
        return tmp_path / name

    return {
        "both": save("both.nii.gz", voxels),
        "first": save("first_0000.nii.gz", voxels[..., 0]),
        "second": save("first_0001.nii.gz", voxels[..., 1]),
        "float": save("other.nii", voxels[..., 0].astype(np.float32), np.eye(4)),
        "changed": save("changed.nii.gz", voxels[..., 0] + 500),
    }


def test_voxels_have_one_hash_whatever_their_file(files, tmp_path):
    assert hash_voxels(files["first"]) == hash_voxels(str(files["float"]))
    assert hash_voxels(files["both"]) == hash_voxels([files["first"], files["second"]])
    assert hash_voxels(nib.load(files["first"]).get_fdata()) == hash_voxels([files["first"]])
    assert len({hash_voxels(files[name]) for name in ("both", "first", "second", "changed")}) == 4
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "b.tif")
    assert hash_voxels(tmp_path / "a.png") == hash_voxels(tmp_path / "b.tif") == hash_voxels(pixels.T)


def test_a_record_is_kept_in_the_metadata(files, tmp_path):
    path = tmp_path / "bundle" / "configs" / "metadata.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"version": "0.1.0"}))
    assert read_training_record(tmp_path / "bundle") is None
    case = {"image": str(files["first"]), "label": "a.nii.gz"}
    written = write_training_record(tmp_path / "bundle", training=[case], rule=LAST_AVERAGED)
    assert read_training_record(tmp_path / "bundle") == written
    assert json.loads(path.read_text())["version"] == "0.1.0"
    assert (written.rule, list(written.training), written.selecting) == ("last, averaged", ["first_0000"], {})
    assert written.role_of(hash_voxels(files["float"])) == "training"
    assert written.role_of(hash_voxels(files["changed"])) is None


def test_cases_of_earlier_weights_are_added_once_under_names_of_their_own():
    own = TrainingRecord({"a": "1", "b": "2"}, {}, "last")
    earlier = TrainingRecord({"a": "3", "c": "2"}, {"d": "4", "e": "1"}, "best on validation")
    rule = "best on validation, then last"
    assert own.after(earlier) == TrainingRecord({"a": "1", "b": "2", "a (earlier)": "3"}, {"d": "4"}, rule)


@pytest.mark.parametrize("folder_of_training", ["training", "finetuning"])
def test_a_record_is_that_of_these_very_weights(tmp_path, folder_of_training):
    metadata = tmp_path / "configs" / "metadata.json"
    for folder in ("configs", "models", folder_of_training):
        (tmp_path / folder).mkdir()
    before, after = (TrainingRecord({name: "1"}, {}, "last") for name in ("before", "after"))
    metadata.write_text(json.dumps({"version": "0.1.0"}))
    put_training_record(tmp_path, before)
    weights, trained = tmp_path / "models" / "model.pt", tmp_path / folder_of_training / "model.pt"
    assert find_training_record(weights) is None
    weights.write_bytes(b"before")
    trained.write_bytes(b"after")
    save_training_record(trained, after)
    assert find_training_record(weights) == before
    assert find_training_record(trained) == after
    # the weights of the training are put into the bundle
    weights.write_bytes(b"after")
    assert find_training_record(weights) == after
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "sha256": {"models/model.pt": "0" * 64}}))
    weights.write_bytes(b"unknown")
    assert find_training_record(weights) is None


@pytest.mark.parametrize("wrong", [[], {"rule": "last"}, {"rule": "last", "training": [], "selecting": {}}])
def test_a_record_of_another_form_is_refused(tmp_path, wrong):
    path = tmp_path / "configs" / "metadata.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"training_record": wrong}))
    with pytest.raises(ValueError, match=r"metadata\.json: training_record must have training and selecting"):
        read_training_record(tmp_path)


@pytest.mark.parametrize(
    "name",
    [f"{name}_unetpp" for name in ("brain_tissue_mri", "fetal_brain_mri", "hippocampus_mri", "nuclei_microscopy")],
)
def test_trainings_of_shipped_bundles_record_their_cases_as_planned_ones_do(name):
    templates = Path(training.__file__).parent / "template" / "configs"
    planned, shipped = (
        json.loads((folder / "train.json").read_text(encoding="utf-8"))
        for folder in (templates, find_bundle(name) / "configs")
    )
    savers = [content["train"]["handlers"][-1] for content in (planned, shipped)]
    assert savers[0]["_target_"] == "monai_unetpp.training.LastModelSaver"
    assert savers[0] == savers[1]
    assert all(planned[key] == shipped[key] for key in ("record_cases", "started_from"))


@pytest.mark.parametrize(("interval", "selecting", "rule"), [(1, ["validate"], "best on validation"), (99, [], "last")])
def test_trainings_in_epochs_record_their_cases_and_those_that_selected(head_bundle, interval, selecting, rule):
    config = BundleConfig(head_bundle, "train.json", "finetune.json")
    config["val_interval"] = interval
    config["network"], config["ema"] = None, SimpleNamespace(averaged=None)
    for part in ("train", "validate"):
        config[f"{part}#dataset"] = SimpleNamespace(data=[part])
    saver = config.parse("validate#best_model")
    assert (saver.cases, saver.selecting) == (["train"], selecting)
    assert saver.rule.startswith(rule)
    assert Path(saver.started_from) == head_bundle / "models" / "model.pt"


def test_an_evaluation_tells_which_of_its_cases_are_known(files, tmp_path, caplog):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    cases = [{"image": [str(files[name])], "truth": "label"} for name in ("first", "second", "changed")]
    warn_of_known_cases(weights, cases)
    assert not caplog.messages
    first, second = (hash_voxels(files[name]) for name in ("first", "second"))
    save_training_record(weights, TrainingRecord({"a": first, "b": second}, {"c": "other"}, LAST_AVERAGED))
    warn_of_known_cases(weights, cases)
    assert caplog.messages == [
        f"{weights}: 2 of 3 cases were used for training, so their scores are optimistic. "
        "Score cases that took no part."
    ]
    caplog.clear()
    save_training_record(weights, TrainingRecord({}, {"a": first}, LAST_AVERAGED))
    warn_of_known_cases(weights, cases[1:])
    assert not caplog.messages
    warn_of_known_cases(weights, cases)
    assert "1 of 3 cases were used to choose the weights" in caplog.text


def test_images_of_one_value_are_no_known_cases(tmp_path, caplog):
    """All empty fields of view are alike."""
    cases = []
    for name in "ab":
        for kind in ("image", "label"):
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{name}_{kind}.png")
        cases.append({kind: str(tmp_path / f"{name}_{kind}.png") for kind in ("image", "label")})
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    record = TrainingRecord.of(cases[:1], rule=LAST_AVERAGED)
    assert record.role_of(hash_voxels(tmp_path / "b_image.png")) == "training"
    save_training_record(weights, record)
    warn_of_known_cases(weights, cases[1:])
    assert not caplog.messages


def test_a_case_that_trained_and_selected_trained():
    """Also if it selected as it is, and trained with other directions of its axes, which have a hash of their own."""
    record = TrainingRecord({"a": "1:axes"}, {"b": "2:axes"}, BEST_ON_VALIDATION)
    assert record.role_of("2:axes") == "training"
    assert record.role_of("2") == "selecting"
    assert record.role_of("3") is None
