"""Data and options that plan and train refuse, before anything is measured or after a training has begun."""

import json
import os
import shutil
import time

import nibabel as nib
import numpy as np
import pytest
from disc_images import write_disc_images
from tiny_planning import TINY, slow_machine

from monai_unetpp import files
from monai_unetpp.bundles.training_record import TrainingRecord, save_training_record
from monai_unetpp.data import describe_data_set, load_datalist
from monai_unetpp.data.datasets import datalist, voxel_hash
from monai_unetpp.planning import bundle_writing, data_check, load_plan, plan, plan_making, take_fingerprint
from monai_unetpp.pruning import preflight
from monai_unetpp.training_run import TrainOptions, train
from monai_unetpp.training_run import run as stages
from monai_unetpp.training_run.fitting import read_fitted
from monai_unetpp.training_run.judging import check_start, tell_few_subjects
from monai_unetpp.training_run.planned import planned_bundle
from monai_unetpp.training_run.sharing import CaseTime, read_shares, share_time

SETTINGS = TINY | {"steps": 2}


@pytest.fixture
def data(tmp_path):
    """Nine images with a bright disc each: six for training."""
    (tmp_path / "discs").mkdir()
    return write_disc_images(tmp_path / "discs", training=6, validation=3, value=7)


def make_plan(data, bundle, folds=0):
    return plan(data, bundle, folds=folds, settings=SETTINGS, device="cpu", measure=slow_machine)


@pytest.fixture
def bundle(data, tmp_path):
    make_plan(data, tmp_path / "bundle")
    return tmp_path / "bundle"


def asked(data, bundle, **values):
    return TrainOptions(data, bundle, device="cpu", settings=SETTINGS, **values)


def begins(data, bundle, **values):
    found = planned_bundle(asked(data, bundle, **values), print)
    return found.minutes, found.folds, found.init


def rewrite(folder, name, change):
    path = folder / f"{name}.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)


def edit(data, change):
    path = data / "dataset.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def copy_image(source, target):
    return lambda data: shutil.copy(data / f"imagesTr/disc_{source}.nii.gz", data / f"imagesTr/disc_{target}.nii.gz")


def name_alike(data):
    """The last two cases, which validate, become T1w.nii.gz and T1w.nii."""

    def change(content):
        for moved, entry in zip(("T1w.nii.gz", "T1w.nii"), content["validation"][-2:], strict=True):
            nib.save(nib.load(data / entry["image"]), data / moved)
            entry["image"] = moved

    edit(data, change)


def test_a_device_on_which_no_verdict_can_be_measured_is_refused_before_any_work(data, tmp_path):
    with pytest.raises(ValueError, match="device must be a CPU or a CUDA device, got 'mps'"):
        train(TrainOptions(data, tmp_path / "bundle", device="mps"))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (copy_image(1, 8), r"disc_8\.nii\.gz \(validation\): the same image as .*disc_1.*, a leak between the lists"),
        (copy_image(7, 8), r"disc_8\.nii\.gz: the same image as .*disc_7.*, both in 'validation'"),
        (copy_image(1, 2), r"disc_2\.nii\.gz: the same image as .*disc_1.*, both in 'training'"),
        (name_alike, r"/T1w\.nii and .*/T1w\.nii\.gz have .* name, 'T1w'\. Rename one of them"),
        (lambda data: rewrite(data / "labelsTr", "disc_8", lambda voxels: voxels + 2), "must hold 0 and 7 only, got 2"),
        (lambda data: rewrite(data / "imagesTr", "disc_8", lambda voxels: voxels * np.nan), "NaN"),
        (
            lambda data: rewrite(data / "imagesTr", "disc_2", np.zeros_like),
            r"got 1 of 9 with a problem:\n- .*disc_2\.nii\.gz: ",
        ),
        (
            lambda data: edit(data, lambda content: content.update(validation=[])),
            "'validation' must hold cases, got no",
        ),
    ],
    ids=["leak", "twice for validation", "twice for training", "names", "value", "not finite", "constant", "empty"],
)
def test_what_a_verdict_would_refuse_is_refused_before_anything_is_done(
    spoil, message, data, bundle, tmp_path, monkeypatch
):
    spoil(data)
    monkeypatch.setattr(plan_making, "take_fingerprint", None)
    monkeypatch.setattr(stages, "time_case", None)
    for refuse in (
        lambda: make_plan(data, tmp_path / "other"),
        lambda: train(asked(data, tmp_path / "another")),
        lambda: train(asked(data, bundle)),
    ):
        with pytest.raises(ValueError, match=message):
            refuse()
    # and nothing is in the way of another attempt
    assert not (tmp_path / "other").exists()
    assert not (bundle / "training" / "time.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("planned_before", [False, True])
def test_planning_goes_on_after_an_interruption(planned_before, data, tmp_path, monkeypatch):
    folder = tmp_path / "interrupted"
    if planned_before:
        make_plan(data, folder)

    def stop(plan, fingerprint):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(bundle_writing, "plan_text", stop)
        with pytest.raises(KeyboardInterrupt):
            make_plan(data, folder)
    assert not (folder / "configs" / "plan.json").exists()
    make_plan(data, folder)
    assert load_plan(folder).name == "interrupted"


@pytest.mark.slow
def test_checking_many_cases_is_not_silent(data, tmp_path):
    lines = []
    settings = {"settings": SETTINGS, "device": "cpu", "measure": slow_machine}
    plan(data, tmp_path / "told", **settings, progress=lines.append)
    assert [line for line in lines if line.endswith("9 of 9")] == ["checking: 9 of 9"]
    assert "measuring: 6 of 6" in lines


def test_more_folds_than_subjects_are_refused_when_planning(data, tmp_path):
    def change(content):
        for entry in (*content["training"], *content["validation"]):
            entry["subject"] = "one" if "disc_1" in entry["image"] else "other"

    edit(data, change)
    with pytest.raises(ValueError, match=r"folds must not be more than subjects, got 3 for 2\. Leave them out"):
        make_plan(data, tmp_path / "bundle", folds=3)


def test_a_report_that_could_not_be_drawn_is_told_before_the_cases_are_read(data, tmp_path, monkeypatch):
    def miss():
        raise ImportError("Reports need matplotlib and jinja2")

    monkeypatch.setattr(preflight, "check_report", miss)
    with pytest.raises(ImportError, match="Reports need matplotlib and jinja2"):
        train(asked(data, tmp_path / "bundle"))
    assert not (tmp_path / "bundle").exists()


def test_data_that_passed_are_read_again_only_when_they_change(data, tmp_path, monkeypatch):
    checks = []
    monkeypatch.setattr(data_check, "check_labelled_data", lambda *_, **facts: checks.append(facts) or {})

    def check():
        data_check.check_data(data, describe_data_set(data), tmp_path / "bundle", 0)
        return len(checks)

    assert [check(), check()] == [1, 1]
    assert checks[0]["refuse_repeats"]
    os.utime(data / "imagesTr" / "disc_8.nii.gz", (1, 1))
    assert [check(), check()] == [2, 2]
    edit(data, lambda content: content["labels"].update({"8": "ring"}))
    assert check() == 3
    (tmp_path / "bundle" / data_check.CHECK_FILE).write_text("no json")
    assert check() == 4


@pytest.fixture
def check(data, tmp_path):
    """A function that checks the data for a bundle."""
    return lambda: data_check.check_data(data, describe_data_set(data), tmp_path / "bundle", 0)


@pytest.mark.slow
def test_cases_may_not_change_once_a_training_has_begun(data, tmp_path, check):
    check()
    (tmp_path / "bundle" / "training" / "fold_1").mkdir()
    (tmp_path / "bundle" / "training" / "fold_1" / "model.pt").write_text("weights")
    os.utime(data / "imagesTr" / "disc_8.nii.gz", (1, 1))
    check()
    edit(data, lambda content: content["training"].append(content["validation"].pop()))
    with pytest.raises(
        ValueError, match=r": the cases, their order, voxel sizes, label maps, lists or subjects must stay as they were"
    ):
        check()


@pytest.mark.slow
def test_voxel_sizes_may_not_change_once_a_training_has_begun(data, tmp_path, check):
    check()
    (tmp_path / "bundle" / "training" / "model.pt").touch()
    for folder in ("imagesTr", "labelsTr"):
        path = data / folder / "disc_1.nii.gz"
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([2.0, 2.0, 1.0, 1.0])), path)
    with pytest.raises(
        ValueError, match="the cases, their order, voxel sizes, label maps, lists or subjects must stay"
    ):
        check()


@pytest.mark.slow
def test_label_maps_may_not_change_once_a_training_has_begun(data, tmp_path, check):
    passed, first = tmp_path / "bundle" / data_check.CHECK_FILE, data / "labelsTr" / "disc_1.nii.gz"

    check()
    (tmp_path / "bundle" / "training" / "checkpoint_epoch=1.pt").touch()
    # the same values in another type are no change
    rewrite(data / "labelsTr", "disc_1", lambda voxels: voxels.astype(np.float32))
    check()
    kept = first.read_bytes()
    rewrite(data / "labelsTr", "disc_1", lambda voxels: np.roll(voxels, 1, axis=0))
    with pytest.raises(ValueError, match=r"or other label maps, could judge\. Give another output folder"):
        check()
    first.write_bytes(kept)
    check()
    # checks of earlier versions know no label maps
    content = json.loads(passed.read_text())
    del content["label_maps"]
    passed.write_text(json.dumps(content))
    rewrite(data / "labelsTr", "disc_1", lambda voxels: np.roll(voxels, 1, axis=0))
    check()


@pytest.mark.slow
def test_a_moved_data_set_is_followed_as_the_message_says_if_it_is_the_same(data, bundle, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "fit", stop)
    with pytest.raises(KeyboardInterrupt):
        train(asked(data, bundle))
    (bundle / "training" / "checkpoint_epoch=1.pt").touch()
    moved, path = data.rename(tmp_path / "moved"), bundle / "configs" / "plan.json"
    with pytest.raises(ValueError, match=rf"was moved, write its new absolute path into {path} as dataset_dir"):
        train(asked(moved, bundle))
    path.write_text(json.dumps({**json.loads(path.read_text()), "dataset_dir": str(moved)}))
    with pytest.raises(KeyboardInterrupt):
        train(asked(moved, bundle))
    rewrite(moved / "imagesTr", "disc_1", lambda voxels: voxels + 1)
    with pytest.raises(
        ValueError, match="the cases, their order, voxel sizes, label maps, lists or subjects must stay as they were"
    ):
        train(asked(moved, bundle))


def test_the_first_process_alone_tells_of_a_drawn_list(data, caplog, monkeypatch):
    edit(data, lambda content: content.pop("validation"))
    for rank in (1, 0):
        assert "has no 'validation' list" not in caplog.text
        monkeypatch.setattr(datalist, "rank", lambda rank=rank: rank, raising=False)
        load_datalist(data, "training")
    assert caplog.text.count("has no 'validation' list") == 1


@pytest.mark.slow
def test_subjects_in_both_lists_are_told(data, tmp_path, caplog, monkeypatch):
    def share(content):
        for key in ("training", "validation"):
            content[key][0]["subject"] = "twice"

    edit(data, share)
    data_check.check_data(data, describe_data_set(data), tmp_path / "folds", 2)
    with monkeypatch.context() as other_process:
        other_process.setattr(data_check, "rank", lambda: 1)
        data_check.check_data(data, describe_data_set(data), tmp_path / "other", 0)
    assert "in both lists" not in caplog.text
    data_check.check_data(data, describe_data_set(data), tmp_path / "bundle", 0)
    assert "1 subject with cases in both lists, training and validation (twice)" in caplog.text


def test_too_few_subjects_for_a_verdict_are_told_before_the_training():
    told = []
    cases = [{"image": f"{number:02d}.nii", "label": f"{number:02d}_label.nii"} for number in range(19)]
    tell_few_subjects(cases[:9], cases[9:], told.append)
    assert not told
    few = "for validation, fewer than the 10 that a verdict on the levels needs, so the deepest will be kept."
    tell_few_subjects(cases[:9], cases[9:11], told.append)
    tell_few_subjects(cases[:3], cases[3:4], told.append)
    assert told == [f"2 subjects {few} With --folds 3, all 11 subjects judge.", f"1 subject {few}"]


@pytest.mark.parametrize("folds", [0, 2])
def test_initial_weights_that_saw_judging_cases_are_told_before_the_training(data, tmp_path, folds):
    entries, told = load_datalist(data, "training"), []
    weights = tmp_path / "first.pt"
    weights.write_bytes(b"weights")
    save_training_record(weights, TrainingRecord.of(entries[:2], rule="last"))
    check_start(weights, entries[2:], folds, told.append)
    check_start(None, entries, folds, told.append)
    check_start(tmp_path / "gone.pt", entries, folds, told.append)
    assert told == []
    if folds:
        with pytest.raises(
            ValueError, match=rf"init must be weights that saw no case .* but 2 of {len(entries)} judging"
        ):
            check_start(weights, entries, folds, told.append)
        return
    check_start(weights, entries, folds, told.append)
    (line,) = told
    assert f"2 of {len(entries)} judging cases were used for training {weights}" in line
    assert "there will be no verdict" in line
    save_training_record(weights, TrainingRecord.of(entries[:1], entries[1:3], rule="best on validation"))
    check_start(weights, entries[1:], folds, told.append)
    assert f"2 of {len(entries) - 1} judging cases chose the weights of {weights}" in told[-1]
    assert "accuracies will be optimistic" in told[-1]


def test_black_images_are_not_taken_for_one_case(data, tmp_path):
    """Empty fields of view are all alike."""
    for name in ("disc_0", "disc_8"):
        for folder in ("imagesTr", "labelsTr"):
            rewrite(data / folder, name, np.zeros_like)
    weights = tmp_path / "first.pt"
    weights.write_bytes(b"weights")
    save_training_record(weights, TrainingRecord.of(load_datalist(data, "training")[:1], rule="last"))
    check_start(weights, load_datalist(data, "validation"), 3, pytest.fail)


def test_the_readme_names_what_was_set_for_the_loss(data, tmp_path):
    values = {**TINY, "distillation": 0.5, "level_weights": [1, 0.5], "dropout": 0.3}
    plan(data, tmp_path / "bundle", settings=values, device="cpu", measure=slow_machine)
    text = " ".join((tmp_path / "bundle" / "docs" / "README.md").read_text().split())
    assert "batch normalisation, dropout of 0.3;" in text
    assert "soft Dice at the heads, weighted L1 1, L2 0.5, with self-distillation weighted 0.5" in text


def test_images_that_passed_are_not_read_again_for_the_record_of_the_training(data, tmp_path, monkeypatch):
    entries = load_datalist(data, "training")
    expected = TrainingRecord.of(entries, rule="last")
    monkeypatch.setattr(voxel_hash, "_known", {})
    data_check.check_data(data, describe_data_set(data), tmp_path / "bundle", 0)
    monkeypatch.setattr(voxel_hash, "_voxels", None)
    assert TrainingRecord.of(entries, rule="last") == expected
    # nor in another process, which finds the check passed
    monkeypatch.setattr(voxel_hash, "_known", {})
    data_check.check_data(data, describe_data_set(data), tmp_path / "bundle", 0)
    assert TrainingRecord.of(entries, rule="last") == expected
    os.utime(entries[0]["image"], (1, 1))
    with pytest.raises(TypeError):
        TrainingRecord.of(entries, rule="last")


def test_subjects_that_are_given_count_before_the_plan_is_made(data, tmp_path):
    """By their names all cases are of one subject, who could not be split."""
    folder = tmp_path / "plain"
    for kind, source in (("images", "imagesTr"), ("labels", "labelsTr")):
        (folder / kind).mkdir(parents=True)
        for number in range(4):
            shutil.copy(data / source / f"disc_{number}.nii.gz", folder / kind / f"sub-1_run-{number}.nii.gz")
    with pytest.raises(ValueError, match="of the subject 'sub-1' cannot be split"):
        make_plan(folder, tmp_path / "bundle")
    rules = {"subject_pattern": "(run-[0-9])"}
    made = plan(folder, tmp_path / "bundle", settings=SETTINGS, device="cpu", measure=slow_machine, **rules)
    assert made.labels == {"label_7": 7}
    assert take_fingerprint(folder, **rules).labels == {"label_7": 7}


@pytest.mark.slow
def test_a_value_that_only_cases_drawn_for_validation_have_is_a_label(data, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "plain"
    shutil.copytree(data / "imagesTr", folder / "images")
    shutil.copytree(data / "labelsTr", folder / "labels")
    name = load_datalist(folder, "validation")[0]["label"].split("/")[-1].removesuffix(".nii.gz")
    rewrite(folder / "labels", name, lambda voxels: voxels + (np.indices(voxels.shape)[0] < 2).astype(np.uint8))
    assert describe_data_set(folder).labels == {"label_1": 1, "label_7": 7}
    monkeypatch.setattr(stages._Run, "judge", lambda self, folds: None)
    monkeypatch.setattr(stages._Run, "finish", lambda self, fitted, result: fitted)
    make_plan(folder, tmp_path / "bundle")
    assert load_plan(tmp_path / "bundle").labels == {"label_1": 1, "label_7": 7}
    assert "'label_1' (1)" in caplog.text
    # the looks at cases for validation read it as well
    assert train(asked(folder, tmp_path / "bundle")).steps == 2


@pytest.mark.slow
def test_a_training_that_began_goes_on_with_its_own_minutes_folds_and_weights(data, bundle, tmp_path):
    weights = tmp_path / "weights.pt"
    weights.touch()
    started, case = time.monotonic(), CaseTime(0.1)
    path, facts = bundle / "training" / "time.json", {"started": started, "case": case, "cases": 9, "levels": 2}
    share_time(path, 20, folds=3, init=str(weights), **facts)
    # as long as nothing is trained, it may begin otherwise
    assert begins(data, bundle, minutes=60) == (60.0, 3, str(weights))
    (bundle / "training" / "fold_1").mkdir()
    (bundle / "training" / "fold_1" / "checkpoint_epoch=1.pt").touch()
    for given in ({}, {"minutes": 20}, {"folds": 3, "init": os.path.relpath(weights)}):
        assert begins(data, bundle, **given) == (20.0, 3, str(weights))
    (tmp_path / "others.pt").touch()
    for given, message in (
        ({"minutes": 60}, "its training began with minutes 20, got 60. Leave minutes out"),
        ({"folds": 0}, "its training began with folds 3, got 0. Leave folds out"),
        ({"init": str(tmp_path / "others.pt")}, f"its training began with init {weights}, got {tmp_path}/others.pt."),
    ):
        with pytest.raises(ValueError, match="began with") as refusal:
            train(asked(data, bundle, **given))
        assert message in str(refusal.value)
        assert "use another folder" in str(refusal.value)
        assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_what_a_training_begins_with_is_kept_until_after_its_end(data, bundle, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "fit", stop)
    with pytest.raises(KeyboardInterrupt):
        train(asked(data, bundle, minutes=5))
    assert begins(data, bundle) == (5.0, 0, None)
    # what divided the time is not measured again once something is saved
    (bundle / "training" / "checkpoint_epoch=1.pt").touch()
    monkeypatch.setattr(stages, "time_case", None)
    with pytest.raises(KeyboardInterrupt):
        train(asked(data, bundle, minutes=5))
    outcome = {"verdict": "keep", "level": "L2", "summary": "Keep L2.", "steps": 2, "left_out": []}
    (bundle / "training" / "outcome.json").write_text(json.dumps(outcome))
    for folder, name in (("models", "model.pt"), ("pruning", "report.html")):
        (bundle / folder).mkdir(exist_ok=True)
        (bundle / folder / name).touch()
    assert train(asked(data, bundle, minutes=5)).level == "L2"
    with pytest.raises(ValueError, match="its training began with minutes 5, got 60"):
        train(asked(data, bundle, minutes=60))


@pytest.mark.parametrize("text", ["{", "[]", '{"steps": "many"}'])
def test_a_damaged_file_of_a_training_is_named(text, tmp_path):
    for name in ("training/model.pt", "models/model.pt", "pruning/report.html"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    reads = {
        "training.json": lambda: read_fitted(tmp_path / "training"),
        "time.json": lambda: read_shares(tmp_path / "training" / "time.json"),
        "outcome.json": lambda: stages._read_outcome(tmp_path),
    }
    for name, read in reads.items():
        (tmp_path / "training" / name).write_text(text)
        with pytest.raises(ValueError, match=rf"^\S+/training/{name}\b"):
            read()


@pytest.mark.slow
@pytest.mark.parametrize("left", ["checkpoint_epoch=3.pt", "fold_1/checkpoint_epoch=3.pt", "model.pt"])
def test_a_plan_whose_training_has_saved_something_is_not_replaced(data, bundle, left):
    # these are from before
    assert (bundle / "training" / "fingerprint_cache.json").is_file()
    make_plan(data, bundle)
    (bundle / "training" / "fold_1").mkdir()
    (bundle / "training" / left).touch()
    before = (bundle / "configs" / "plan.json").read_bytes()
    with pytest.raises(FileExistsError, match=r"is a bundle with weights or a training\. Give another folder"):
        make_plan(data, bundle)
    assert (bundle / "configs" / "plan.json").read_bytes() == before


def begin_training(bundle):
    facts = {"started": time.monotonic(), "case": CaseTime(0.1), "cases": 9, "levels": 2, "init": None}
    share_time(bundle / "training" / "time.json", 20, folds=0, **facts)
    (bundle / "training" / "checkpoint_epoch=1.pt").touch()


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"7": "ring"}, {"9": "ignore"}])
def test_names_of_labels_may_not_change_after_planning(data, bundle, change):
    begin_training(bundle)
    edit(data, lambda content: content["labels"].update(change))
    with pytest.raises(
        ValueError, match=r"dataset\.json: labels must stay as they were .* planned \(disc: 7\)\. Restore"
    ):
        train(asked(data, bundle))


@pytest.mark.slow
def test_the_order_of_channels_may_not_change_after_planning(tmp_path):
    data, bundle = tmp_path / "discs", tmp_path / "bundle"
    data.mkdir()
    write_disc_images(data, training=6, validation=3, value=7)
    for path in data.glob("imagesTr/*.nii.gz"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.stack([image.get_fdata()] * 2, -1), image.affine), path)
    edit(data, lambda content: content.update(channel_names={"0": "T1", "1": "T2"}, modality=None))
    make_plan(data, bundle)
    begin_training(bundle)
    edit(data, lambda content: content.update(channel_names={"0": "T2", "1": "T1"}))
    with pytest.raises(ValueError, match=r"dataset\.json: channels must be in the order of the network's, got T2, T1"):
        train(asked(data, bundle))


@pytest.mark.slow
def test_a_value_that_cannot_be_is_refused_before_any_case_is_read(data, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_making, "check_data", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(ValueError, match="ema must be above 0 and below 1, got 0"):
        plan(data, tmp_path / "bundle", settings=["ema=0"], device="cpu", measure=slow_machine)


@pytest.mark.slow
def test_a_training_of_another_command_is_not_continued(data, bundle):
    (bundle / "training" / "checkpoint_epoch=1.pt").touch()
    with pytest.raises(FileExistsError, match=r"/training: has a training of another command, such as monai\.bundle"):
        train(asked(data, bundle))


@pytest.mark.slow
def test_a_plan_whose_training_has_saved_nothing_is_replaced(data, bundle):
    (bundle / "training" / "time.json").write_text("of the first attempt")
    make_plan(data, bundle, folds=3)
    # nothing of the first attempt limits the next one
    assert begins(data, bundle, minutes=30) == (30.0, 3, None)


@pytest.mark.slow
def test_a_folder_in_which_another_process_plans_or_trains_is_refused(data, bundle, tmp_path, monkeypatch):
    """Such as a job that was started twice: each would go on from the checkpoints of the other."""
    monkeypatch.setattr(files, "_PATIENCE_S", 0.0)
    before = (bundle / "configs" / "plan.json").stat().st_mtime_ns
    (tmp_path / "new" / "training").mkdir(parents=True)
    for folder, do in ((bundle, train), (bundle, make_plan), (tmp_path / "new", train), (tmp_path / "new", make_plan)):
        with (
            files.claimed(folder / "training", "trains"),
            pytest.raises(BlockingIOError, match=r"/training: another process plans or trains there\. Wait until it"),
        ):
            do(asked(data, folder)) if do is train else do(data, folder)
    assert (bundle / "configs" / "plan.json").stat().st_mtime_ns == before
    assert not (bundle / "training" / "time.json").exists()
    # what the refused ones leave is not in the way
    make_plan(data, tmp_path / "new")
