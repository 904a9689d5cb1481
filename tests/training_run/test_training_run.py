"""Whole trainings: planned, trained, judged and documented; interrupted, cross-fitted, refused."""

import dataclasses
import functools
import gc
import hashlib
import json
import math
import os
import re
import shutil
import sys
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import pytest
import torch
from disc_images import write_disc_images
from forked import draw_nothing, measure_briefly
from json_edits import edit_json
from monai.data import CacheDataset
from tiny_planning import TINY, slow_machine

from monai_unetpp import NestedUNet, cli
from monai_unetpp.bundles import check_bundle, load_network, read_metadata, read_training_record
from monai_unetpp.bundles.training_record import TrainingRecord, find_training_record
from monai_unetpp.data import load_datalist
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.metrics import LabelScore
from monai_unetpp.planning import Fingerprint, load_plan, plan
from monai_unetpp.planning.plan_making import plan_checked
from monai_unetpp.pruning import evaluate_levels, prune_bundle
from monai_unetpp.pruning.scoring.case_scores import CaseEvaluation
from monai_unetpp.training import LastModelSaver, NumberedPatches, TrainingBudget
from monai_unetpp.training_run import TrainOptions, timing, train
from monai_unetpp.training_run import run as stages
from monai_unetpp.training_run.documenting import document
from monai_unetpp.training_run.fitting import _configure, fit, read_fitted
from monai_unetpp.training_run.judging import check_target, fold_dir, pruning_plan, split_folds, spread_cases
from monai_unetpp.training_run.planned import planned_bundle
from monai_unetpp.training_run.sharing import CaseTime, TimeShares, kept_shares, share_time


@pytest.fixture(scope="module")
def discs_dir(tmp_path_factory):
    """Nine images with a bright disc each: six for training."""
    return write_disc_images(tmp_path_factory.mktemp("discs"), training=6, validation=3, value=7)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """No process of its own for the memory, no page, pictures without anything, no garbage collected."""
    measure_briefly(monkeypatch)
    draw_nothing(monkeypatch)
    monkeypatch.setattr("monai_unetpp.training.observing.draw_training", lambda *given: given[2].write_bytes(b""))
    monkeypatch.setattr("monai_unetpp.training_run.fitting.gc", SimpleNamespace(collect=lambda: None))


@pytest.fixture
def planned(discs_dir, tmp_path):
    """A function that plans a bundle by its name."""

    def make(name, folds=0, **settings):
        plan(discs_dir, tmp_path / name, folds=folds, settings={**TINY, **settings}, device="cpu", measure=slow_machine)
        return tmp_path / name

    return make


def options(dataset_dir, bundle, **values):
    return TrainOptions(dataset_dir, bundle, device="cpu", **values)


def weights(bundle):
    return torch.load(bundle / "models" / "model.pt", weights_only=True)


def assert_told_what_it_holds(bundle, dataset_dir):
    """What the bundle holds of the data is where ``data_license.txt`` says, and nowhere else."""
    told = (bundle / "docs" / "data_license.txt").read_text()
    files = {path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    outside = {name: content for name, content in files.items() if not name.startswith(("pruning/", "training/"))}
    pictures = {name for name in outside if name.endswith(".png")} - {"docs/training.png"}
    # the README names the worst cases, if any case is worse at a shallower level
    named = {name for name, content in outside.items() if re.search(rb"disc_\d", content)} - pictures
    assert named | {"docs/README.md"} == {"configs/metadata.json", "docs/README.md"}
    assert {name for name, content in outside.items() if bytes(dataset_dir) in content} == {"configs/plan.json"}
    assert all(
        place in told for place in (*named, "docs/README.md", "configs/plan.json", "the folders pruning, training")
    )
    assert pictures
    assert all(re.fullmatch(r"docs/worst_\d+\.png", name) for name in pictures)
    assert "docs/worst_*.png" in told


@pytest.mark.slow
def test_a_training_ends_in_a_bundle_that_passes_the_checks(discs_dir, planned, monkeypatch, capsys):
    # compiled in the same way but for the C++ compiler, which takes most of a minute
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    bundle, lines = planned("whole", compile=True), []
    outcome = train(options(discs_dir, bundle, minutes=5), progress=lines.append)
    # three cases are too few for any verdict
    assert (outcome.verdict, outcome.level, outcome.steps, outcome.pruned) == ("inconclusive", "L2", 6, None)
    assert check_bundle(bundle) == []
    assert outcome.report.is_file()
    record = read_training_record(bundle)
    assert (record.rule, record.selecting) == ("last, averaged", {})
    assert sorted(record.training) == [f"disc_{number}" for number in range(6)]
    readme = (bundle / "docs" / "README.md").read_text()
    assert "Trained on 6 cases for 6 steps in" in readme
    assert "| L1 | disc |" in readme
    assert set(read_metadata(bundle)["eval_metrics"]) == {"mean_dice_L1", "mean_dice_L2"}
    assert not list((bundle / "training").glob("checkpoint_*"))
    assert_told_what_it_holds(bundle, discs_dir)
    assert "comparing the levels" in lines
    assert lines[-1] == "writing the report ..."
    # what is done is not repeated
    monkeypatch.setattr(stages, "fit", None)
    assert train(options(discs_dir, bundle)) == outcome
    assert cli.main(["train", str(discs_dir), "-o", str(bundle)]) == 3
    assert f"Report: {outcome.report}" in capsys.readouterr().out


@pytest.mark.parametrize(("processes", "told"), [("1", "to continue: monai-unetpp"), ("2", "to continue.\n")])
def test_an_interruption_tells_how_to_continue(processes, told, discs_dir, tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", processes)
    monkeypatch.setattr("monai_unetpp.training_run.train", interrupt)
    assert cli.main(["train", str(discs_dir), "-o", str(tmp_path / "b")]) == 130
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_a_training_goes_on_where_it_was_interrupted(discs_dir, planned, monkeypatch, capsys):
    one, other = planned("one"), planned("other")
    monkeypatch.setattr(stages._Run, "judge", lambda self, folds: None)
    monkeypatch.setattr(stages._Run, "finish", lambda self, fitted, result: fitted)
    monkeypatch.setattr(stages, "_CHECKPOINT_S", 0.0)
    with pytest.MonkeyPatch.context() as patched:
        original = NumberedPatches.__getitem__

        def stop(self, index):
            if index == 9:
                raise KeyboardInterrupt
            return original(self, index)

        patched.setattr(NumberedPatches, "__getitem__", stop)
        assert cli.main(["train", str(discs_dir), "-o", str(one), "--device", "cpu"]) == 130
    assert "interrupted. Run the same command again to continue: monai-unetpp" in capsys.readouterr().err
    # nothing is lost but the step that was interrupted, the fifth
    assert (one / "training" / "checkpoint_epoch=4.pt").is_file()
    fitted = train(options(discs_dir, one))
    assert fitted.steps == train(options(discs_dir, other)).steps == 6
    found = weights(one), weights(other)
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


@pytest.mark.slow
def test_folds_let_every_case_judge(discs_dir, planned, monkeypatch):
    bundle, looked_at = planned("folds", folds=3), []

    def noting(*args, cases, observed=None, **others):
        looked_at.append((cases, observed))
        return fit(*args, cases=cases, observed=observed, **others)

    monkeypatch.setattr(stages, "fit", noting)
    # a look at the end of each epoch
    monkeypatch.setattr(stages, "_LONGEST_S", 0)
    outcome = train(options(discs_dir, bundle, init=None))
    table = (bundle / "pruning" / "per_case.csv").read_text()
    assert all(f"disc_{number}," in table for number in range(9))
    # what each fold gave can be judged again
    folds = [fold_dir(bundle, number) for number in (1, 2, 3)]
    assert [len((folder / "per_case.csv").read_text().splitlines()) > 1 for folder in folds] == [True] * 3
    assert all((folder / "levels.csv").is_file() for folder in folds)
    assert all(observed and not any(case in cases for case in observed) for cases, observed in looked_at[:3])
    assert looked_at[3][1] is None
    assert len(read_training_record(bundle).training) == 9
    # another training that starts from the weights of a fold must not be judged by its cases
    assert [len(find_training_record(folder / "model.pt").training) for folder in folds] == [6, 6, 6]
    readme = (bundle / "docs" / "README.md").read_text()
    assert "3 networks were trained on parts of the cases" in readme
    assert "**These figures are of other networks, not of this one.** Each case of" in readme
    assert "eval_metrics" not in read_metadata(bundle)
    assert "(the data set's own list), trained on too, and in these figures." in readme
    assert "![Training loss](training.png)" in readme
    summary = (bundle / "pruning" / "summary.md").read_text()
    assert "The network of the bundle was trained on 9 of these 9 cases" in summary
    assert "No judging case trained" not in summary
    assert outcome.steps == 6
    assert check_bundle(bundle) == []
    # the pictures are of what the folds' networks saw
    assert list((bundle / "docs").glob("worst_*.png"))
    # a fold that was trained otherwise is told
    assert "Processes that trained them together" not in readme
    edit_json(folds[1] / "training.json", lambda content: content.update(processes=2, earlier_processes=[1]))
    document(bundle, read_fitted(bundle / "training"), cases=9, folds=3)
    told = (bundle / "docs" / "README.md").read_text()
    assert "each with batches of its own: 1 for fold 1, 1 then 2 for fold 2, 1 for fold 3." in told


def test_a_copy_that_could_be_in_another_fold_is_refused_before_the_training(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    write_disc_images(root, training=4, validation=2)
    plan(root, tmp_path / "bundle", folds=3, settings=TINY, device="cpu", measure=slow_machine)
    shutil.copy(root / "imagesTr" / "disc_0.nii.gz", root / "imagesTr" / "disc_5.nii.gz")
    shutil.copy(root / "labelsTr" / "disc_0.nii.gz", root / "labelsTr" / "disc_5.nii.gz")
    with pytest.raises(ValueError, match=r"disc_5\.nii\.gz.* the same image as .*disc_0\.nii\.gz"):
        train(options(root, tmp_path / "bundle"))
    assert not list(tmp_path.rglob("model.pt"))


_SAME = LabelScore("ok", 0.9, 0.8, 1.0, 0.9, 0.0, 1.0, 1.0)


def _all_alike(network, entries, scoring, same=_SAME):
    scores = evaluate_levels(network, entries, scoring)
    return dataclasses.replace(scores, rows=tuple(dataclasses.replace(row, score=same) for row in scores.rows))


@pytest.mark.slow
def test_a_training_ends_also_where_no_judging_case_has_a_label(discs_dir, planned, monkeypatch):
    bundle, nothing = planned("empty", steps=1), LabelScore("both_empty", None, None, None, None, 0.0, 0.0, 0.0)
    rightly_nothing = functools.partial(_all_alike, same=nothing)
    monkeypatch.setattr("monai_unetpp.pruning.evaluation_stages.evaluate_levels", rightly_nothing)
    assert train(options(discs_dir, bundle)).verdict == "inconclusive"
    assert "eval_metrics" not in read_metadata(bundle)


@pytest.mark.slow
def test_a_verdict_to_prune_ends_in_a_pruned_bundle_which_replaces_no_other(tmp_path, monkeypatch):
    root, bundle = tmp_path / "data", tmp_path / "whole"
    root.mkdir()
    write_disc_images(root, training=2, validation=20)
    plan(root, bundle, settings=TINY | {"steps": 1}, device="cpu", measure=slow_machine)
    monkeypatch.setattr("monai_unetpp.pruning.evaluation_stages.evaluate_levels", _all_alike)
    in_the_way = tmp_path / "whole_L1"
    in_the_way.mkdir()
    with pytest.raises(FileExistsError, match=r"whole_L1: exists and was not cut out of this training"):
        train(options(root, bundle))
    in_the_way.rmdir()
    outcome = train(options(root, bundle))
    assert (outcome.verdict, outcome.level, outcome.pruned) == ("prune", "L1", in_the_way)
    assert check_bundle(in_the_way) == []
    assert read_metadata(in_the_way)["pruned_from"]["name"] == "whole"
    assert list(load_network(in_the_way / "models" / "model.pt").levels) == ["L1"]
    # an interrupted run may write its own again, but not that of another training
    assert check_target(bundle, "L1") == in_the_way
    (bundle / "models" / "model.pt").write_bytes(b"other weights")
    with pytest.raises(FileExistsError, match="Move it away, or take another folder"):
        check_target(bundle, "L1")


@pytest.mark.slow
@pytest.mark.parametrize("folds", [0, 3])
def test_a_case_that_cannot_be_scored_is_left_out_and_told(discs_dir, planned, monkeypatch, folds):
    score = CaseEvaluation.score_source

    def score_most(self, case, source):
        return "there is not enough memory" if case.name == "disc_7" else score(self, case, source)

    monkeypatch.setattr(CaseEvaluation, "score_source", score_most)
    bundle = planned("most", folds=folds, steps=1)
    outcome = train(options(discs_dir, bundle))
    assert outcome.left_out == ("disc_7: there is not enough memory",)
    assert (outcome.verdict, outcome.report.is_file()) == ("inconclusive", True)
    assert weights(bundle)


def test_a_bundle_beside_which_nothing_can_be_written_is_refused_before_the_training(discs_dir, planned, monkeypatch):
    bundle = planned("alone")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != bundle.parent)
    with pytest.raises(PermissionError, match=r"is read-only, but a pruned bundle may have to be written there"):
        train(options(discs_dir, bundle))


@pytest.mark.slow
def test_a_finished_bundle_gets_lost_files_again_and_is_of_the_same_cases(tmp_path, monkeypatch):
    root, bundle, lines = tmp_path / "data", tmp_path / "whole", []
    root.mkdir()
    write_disc_images(root, training=2, validation=20)
    plan(root, bundle, settings=TINY | {"steps": 1}, device="cpu", measure=slow_machine)
    monkeypatch.setattr("monai_unetpp.pruning.evaluation_stages.evaluate_levels", _all_alike)
    outcome = train(options(root, bundle))
    assert outcome.verdict == "prune"
    before = {path: path.read_bytes() for path in (bundle / "models" / "model.pt", outcome.pruned / "models/model.pt")}
    metadata = read_metadata(bundle)
    for lost in (bundle / "models" / "model.pt", bundle / "pruning", outcome.pruned):
        shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
        assert train(options(root, bundle), progress=lines.append) == outcome
        assert lines[-1] == "writing the report ..."
        assert {path: path.read_bytes() for path in before} == before
        assert outcome.report.is_file()
        assert read_metadata(bundle) == metadata
    assert lines.count("training: done before, 1 step") == 3
    # what was filled in stays, and nothing is trained again over good weights
    (outcome.pruned / "docs" / "data_license.txt").write_text("CC0")
    shutil.rmtree(bundle / "pruning")
    (bundle / "training" / "model.pt").unlink()
    with pytest.raises(FileExistsError, match=r"Copy the weights there, so that other lost files are made again"):
        train(options(root, bundle))
    shutil.copyfile(bundle / "models" / "model.pt", bundle / "training" / "model.pt")
    assert train(options(root, bundle)) == outcome
    assert (outcome.pruned / "docs" / "data_license.txt").read_text() == "CC0"
    # nothing is read as long as no file has changed
    with monkeypatch.context() as patched:
        patched.setattr("monai_unetpp.planning.data_check.check_labelled_data", None)
        assert train(options(root, bundle)) == outcome
    content = json.loads((root / "dataset.json").read_text())
    content["validation"].append(content["training"].pop())
    (root / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match="the cases, their order, voxel sizes, label maps, lists or subjects must stay as they were"
    ):
        train(options(root, bundle))


@pytest.mark.slow
def test_what_was_recorded_of_files_changed_while_training_is_not_kept(discs_dir, planned, tmp_path, monkeypatch):
    root = shutil.copytree(discs_dir, tmp_path / "data")
    bundle = tmp_path / "bundle"
    before = TrainingRecord.of(load_datalist(root, "training"), rule="last").training
    image = Path(load_datalist(root, "training")[0]["image"])
    kept = image.read_bytes()

    def changed(*given, _save=LastModelSaver._save):
        volume = nib.load(image)
        nib.save(nib.Nifti1Image(volume.get_fdata()[:, ::-1].copy(), volume.affine), image)
        _save(*given)

    monkeypatch.setattr(LastModelSaver, "_save", changed)
    plan(root, bundle, settings={**TINY, "steps": 1}, device="cpu", measure=slow_machine)
    with pytest.raises(ValueError, match="must stay as they were"):
        train(options(root, bundle))
    image.write_bytes(kept)
    train(options(root, bundle))
    assert read_training_record(bundle).training == before


@pytest.mark.slow
def test_weights_to_begin_with_are_named_in_the_readme(discs_dir, planned, monkeypatch, tmp_path):
    path = tmp_path / "before.pt"
    torch.save(NestedUNet(2, 1, 5, features=(2, 4, 4), norm="batch").state_dict(), path)
    bundle = planned("begun")
    monkeypatch.setattr(stages._Run, "judge", lambda self, folds: None)
    monkeypatch.setattr(stages._Run, "finish", lambda self, fitted, result: fitted)
    moved = path.with_name("moved.pt")
    with monkeypatch.context() as patched:
        patched.setattr(stages, "check_start", lambda *_: path.rename(moved))
        with pytest.raises(FileNotFoundError, match=r"before\.pt: no such file, but the training of .* began with"):
            train(options(discs_dir, bundle, init=str(path)))
    moved.rename(path)
    fitted = train(options(discs_dir, bundle, init=str(path)))
    assert "fresh: L1, L2" in fitted.transfer
    # a finished training does not need them
    path.unlink()
    assert train(options(discs_dir, bundle)) == fitted
    assert "It started from weights from" in (bundle / "docs" / "README.md").read_text()


def test_a_bundle_that_was_planned_otherwise_is_refused(discs_dir, planned, tmp_path):
    bundle = planned("planned")
    with pytest.raises(ValueError, match=r"was planned for .*discs.*, got .*\. Use another folder"):
        train(options(tmp_path, bundle))
    with pytest.raises(ValueError, match=r"was planned with batch_size=2, got 4\. Use another folder"):
        train(options(discs_dir, bundle, settings=("batch_size=4",)))
    with pytest.raises(ValueError, match=r"patch_size=\[16, 16\], got 8\. Use another folder"):
        train(options(discs_dir, bundle, settings=("patch_size=8",)))


def test_weights_whose_training_was_removed_are_not_replaced(discs_dir, planned):
    """As ``data_license.txt`` tells to remove it before the bundle is passed on."""
    bundle = planned("finished")
    (bundle / "models").mkdir()
    (bundle / "models" / "model.pt").write_bytes(b"of a long training")
    with pytest.raises(FileExistsError, match=r"finished: has weights, but not the training that made them"):
        train(options(discs_dir, bundle))
    # nor are those of a fine-tuning that were put there
    (bundle / "training").mkdir(exist_ok=True)
    (bundle / "training" / "model.pt").write_bytes(b"of the training before")
    with pytest.raises(FileExistsError, match=r"finished: has weights, but not the training that made them"):
        train(options(discs_dir, bundle))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 7, r"/plan\.json: has steps 7, but .*/train\.json 6\. Undo .* with --set steps=\.\.\.$"),
        ("learning_rate", 0.5, r"has learning_rate 0\.5, but "),
        ("augmentation", "none", r"/plan\.json: its values were edited, .* with --set NAME=\.\.\.$"),
        ("tolerance_mm", 9, r"/plan\.json: its values were edited"),
        ("level_weights", [1, 0.5], r"has level_weights L1: 1, L2: 0\.5, but .*train\.json none\."),
    ],
)
def test_a_plan_that_was_edited_is_refused(discs_dir, planned, name, value, message):
    bundle = planned("edited")
    path = bundle / "configs" / "plan.json"
    content = json.loads(path.read_text())
    content["values"][name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        train(options(discs_dir, bundle))


def test_a_plan_that_another_tool_wrote_with_the_same_values_is_followed(discs_dir, planned):
    """As some write 1.0 as 1, which means the same."""
    bundle, told = planned("rewritten"), []
    path = bundle / "configs" / "plan.json"
    content = json.loads(
        path.read_text(), parse_float=lambda text: int(float(text)) if float(text) % 1 == 0 else float(text)
    )
    path.write_text(json.dumps(content, separators=(",", ":")))
    assert planned_bundle(options(discs_dir, bundle), told.append).steps == 6


def test_a_plan_of_an_earlier_version_without_values_added_since_is_followed(discs_dir, planned):
    bundle, told = planned("earlier"), []
    path = bundle / "configs" / "plan.json"
    content = json.loads(path.read_text())
    for part in ("values", "reasons"):
        del content[part]["orientation"]
    content["values_sha256"] = hashlib.sha256(json.dumps(content["values"], sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(content))
    assert planned_bundle(options(discs_dir, bundle), told.append).steps == 6
    edited = {**content, "values": {**content["values"], "augmentation": "none"}}
    path.write_text(json.dumps(edited))
    with pytest.raises(ValueError, match="its values were edited"):
        train(options(discs_dir, bundle))


def test_values_set_by_hand_are_compared_as_the_plan_reads_them(discs_dir, planned):
    told = []
    given = options(discs_dir, planned("same"), settings=("patch_size=16", "strides=[2,2]"))
    assert planned_bundle(given, told.append).steps == 6
    assert told[-1].endswith("already planned.")


@pytest.mark.slow
def test_other_minutes_are_planned_for_anew_with_the_same_values_by_hand(discs_dir, tmp_path, monkeypatch):
    slowly = functools.partial(plan_checked, measure=slow_machine)
    monkeypatch.setattr("monai_unetpp.training_run.planned.plan_checked", slowly)
    bundle, told = tmp_path / "bundle", []
    plan(discs_dir, bundle, settings={"batch_size": 3}, device="cpu", measure=slow_machine)
    large = planned_bundle(options(discs_dir, bundle), told.append).plan
    assert told[-1].endswith("already planned.")
    small = planned_bundle(options(discs_dir, bundle, minutes=2), told.append).plan
    assert any(line.endswith("is planned anew. Values set by hand are kept.") for line in told)
    assert (large.minutes, small.minutes) == (60, 2)
    assert small["steps"] < large["steps"]
    assert large["batch_size"] == small["batch_size"] == 3
    assert load_plan(bundle).minutes == 2
    assert planned_bundle(options(discs_dir, bundle, minutes=2.1), told.append).plan.minutes == 2


@pytest.mark.slow
def test_what_another_process_planned_while_this_one_waited_for_the_folder_is_not_followed(
    discs_dir, tmp_path, monkeypatch
):
    bundle, alone = tmp_path / "bundle", stages._alone
    plan(discs_dir, bundle, minutes=20, settings=TINY, device="cpu", measure=slow_machine)

    def planned_first(folder):
        plan(discs_dir, folder, minutes=60, settings=TINY, device="cpu", measure=slow_machine)
        return alone(folder)

    monkeypatch.setattr(stages, "_alone", planned_first)
    with pytest.raises(BlockingIOError, match=r"bundle: another process has planned it otherwise meanwhile\. Run the"):
        train(options(discs_dir, bundle, minutes=20))


@pytest.mark.slow
def test_a_plan_is_made_anew_for_other_cases_and_for_values_of_its_own_that_are_now_set_by_hand(
    discs_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "monai_unetpp.training_run.planned.plan_checked", functools.partial(plan_checked, measure=slow_machine)
    )
    data, bundle, told = shutil.copytree(discs_dir, tmp_path / "discs"), tmp_path / "bundle", []
    plan(data, bundle, settings=TINY, device="cpu", measure=slow_machine)
    assert planned_bundle(options(data, bundle), told.append).plan["overlap"] == 0.25
    assert told[-1].endswith("already planned.")
    by_hand = planned_bundle(options(data, bundle, settings=["overlap=0.25"]), told.append).plan
    assert set(by_hand.by_hand) == {*TINY, "overlap"}
    assert any("was planned with fewer values set by hand, and is planned anew" in line for line in told)
    edit_json(data / "dataset.json", lambda content: content["training"].pop())
    told.clear()
    assert set(planned_bundle(options(data, bundle), told.append).plan.by_hand) == {*TINY, "overlap"}
    assert any("was planned for other cases, and is planned anew" in line for line in told)
    assert len(Fingerprint.read(bundle / "configs" / "fingerprint.json").cases) == 5
    edit_json(data / "dataset.json", lambda content: content["validation"].pop())
    assert planned_bundle(options(data, bundle), told.append).plan.validation.startswith("2 cases")
    assert planned_bundle(options(data, bundle), told.append).plan.validation.startswith("2 cases")
    assert told[-1].endswith("already planned.")
    # with folds all cases are trained on, whatever the time of each training
    assert planned_bundle(options(data, bundle, folds=3), told.append).plan.folds == 3
    assert any("was planned for other minutes or folds, and is planned anew" in line for line in told)
    assert len(Fingerprint.read(bundle / "configs" / "fingerprint.json").cases) == 7


@pytest.mark.slow
def test_the_weights_and_subjects_of_a_plan_hold_for_its_training(discs_dir, tmp_path):
    first, second, bundle, table = (tmp_path / name for name in ("first.pt", "second.pt", "bundle", "subjects.csv"))
    for path in (first, second):
        torch.save(NestedUNet(2, 1, 2, features=(2, 4, 4), norm="instance").state_dict(), path)
    table.write_text("case,subject\n" + "".join(f"disc_{n},{n // 3}\n" for n in range(9)))
    plan(discs_dir, bundle, settings=TINY, device="cpu", init=first, subjects=table, measure=slow_machine)
    content = json.loads((bundle / "configs" / "plan.json").read_text())
    paths = {name for name, value in {**content, **content["start"]}.items() if str(value).startswith(os.sep)}
    assert paths == {"dataset_dir", "subjects", "source"}
    assert "in the place of dataset_dir, subjects and source in" in (bundle / "docs" / "data_license.txt").read_text()
    found = planned_bundle(options(discs_dir, bundle), print)
    assert found.init == str(first)
    cases = load_datalist(discs_dir, "training", **found.plan.subject_rules)
    assert [case["subject"] for case in cases] == list("000111")
    assert len(split_folds(cases, 2)) == 2
    # what scores the cases knows them too
    network = NestedUNet(2, 1, 2, features=(2, 4, 4))
    judged = pruning_plan(bundle, dataset_dir=str(discs_dir), network=network, device="cpu")
    assert judged.data.subjects == str(table)
    with pytest.raises(ValueError, match=r"was planned with init .*first\.pt, got .*second\.pt\. Take another folder"):
        planned_bundle(options(discs_dir, bundle, init=str(second)), print)
    with pytest.raises(ValueError, match=r"was planned with subject_pattern none, got \(\.\)\. Take another folder"):
        planned_bundle(options(discs_dir, bundle, subject_pattern="(.)"), print)
    # a data set that was moved with its table
    with pytest.raises(ValueError, match="as dataset_dir, and that of its table of subjects as subjects"):
        planned_bundle(options(tmp_path, bundle), print)
    moved = table.rename(tmp_path / "moved.csv")
    with pytest.raises(ValueError, match=r"was moved, write its new absolute path into configs/plan\.json"):
        planned_bundle(options(discs_dir, bundle, subjects=moved), print)
    path = bundle / "configs" / "plan.json"
    path.write_text(json.dumps({**content, "subjects": str(moved)}))
    assert planned_bundle(options(discs_dir, bundle, subjects=moved), print).plan.subjects == str(moved)


@pytest.mark.slow
def test_preparing_the_cases_counts_as_training(discs_dir, planned, tmp_path, monkeypatch):
    """With a clock that only the preparation moves on."""
    now = [0.0]
    monkeypatch.setattr("monai_unetpp.training_run.fitting.time", SimpleNamespace(monotonic=lambda: now[0]))
    prepare = CacheDataset.set_data

    def slowly(self, data):
        now[0] += 60.0
        prepare(self, data)

    monkeypatch.setattr(CacheDataset, "set_data", slowly)
    counted = []
    monkeypatch.setattr(TrainingBudget, "count_preparation", lambda self, seconds: counted.append(seconds))
    values = {"dataset_dir": str(discs_dir), "device": torch.device("cpu"), "check_data": False, "minutes": 5}
    fit(planned("slow"), tmp_path / "fit", values | {"steps": 2}, print, name="training")
    assert counted == [60.0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
            MemoryError,
            r"^fold 1: memory ran out with 2 patches of 16 x 16 per batch\. Close other programs and run the same",
        ),
        (
            RuntimeError("the loss became nan at step 3. Give a lower learning_rate."),
            RuntimeError,
            r"^fold 1: the loss became nan at step 3\. Give a lower learning_rate\.$",
        ),
        (
            RuntimeError(
                "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
                "monai_unetpp.data.formats.image_errors.ImageFileError: a.nii: no such file. Check the path.\n\n"
                "RuntimeError: applying transform <LoadImaged object at 0x7f>\n"
            ),
            RuntimeError,
            r"^fold 1: a\.nii: no such file\. Check the path\.$",
        ),
    ],
)
def test_what_goes_wrong_in_a_training_is_not_put_down_to_the_configuration(
    error, kind, message, discs_dir, planned, tmp_path, monkeypatch
):
    def fail(self, index):
        raise error

    monkeypatch.setattr(NumberedPatches, "__getitem__", fail)
    values = {"dataset_dir": str(discs_dir), "device": torch.device("cpu"), "check_data": False}
    with pytest.raises(kind, match=message):
        fit(planned("failing"), tmp_path / "fit", values, print, name="fold 1")


def test_the_configuration_does_not_go_through_the_cases(discs_dir, planned):
    """MONAI would take minutes for many of them."""
    cases = load_datalist(discs_dir, "training")
    config = _configure(planned("many"), {}, cases, cases)
    for key in ("train#cases#data", "train#levels#cases#cases"):
        assert config.parse(key)[0] is cases[0]


@pytest.mark.slow
def test_the_cases_of_a_training_do_not_stay_in_memory(discs_dir, planned, tmp_path, monkeypatch):
    """They may be a quarter of the memory, and the next fold prepares its own."""
    prepare, held = CacheDataset.set_data, []

    def noting(self, data):
        prepare(self, data)
        held.append(weakref.ref(self))

    monkeypatch.setattr(CacheDataset, "set_data", noting)
    monkeypatch.setattr("monai_unetpp.training_run.fitting.gc", gc)
    values = {"dataset_dir": str(discs_dir), "device": torch.device("cpu"), "check_data": False}
    fit(planned("light"), tmp_path / "fit", values | {"steps": 2}, print, name="training")
    assert held
    assert not any(each() for each in held)


def test_what_the_verdict_needs_is_kept_back(tmp_path, caplog, monkeypatch):
    def shares(name, minutes, case_s=1.0, folds=0, used_s=0.0, **others):
        told = {"started": time.monotonic() - used_s, "case": CaseTime(case_s, **others), "cases": 30}
        return share_time(tmp_path / name, minutes, **told, levels=3, folds=folds)

    plain = shares("plain", 60)
    # the report, and the memory of three levels: in forks of one process, or in a process each
    least_s = 8 + (10 + 3 * 3 if sys.platform == "linux" else 3 * 12)
    # with an hour there is time to allow for a busy machine
    fixed_s = 2.25 * least_s
    # 30 cases, four pictures, and 13 rounds of two passes, with a reserve, and the start
    assert plain.verdict == pytest.approx((15 + 1.25 * (30 + 4 + fixed_s + 26)) / 60)
    assert plain.final + plain.verdict == pytest.approx(60, abs=0.1)
    assert (plain.fold, plain.repeats) == (0, 10)
    # what has not begun yet gets the whole time when it is started again, and keeps its schedule from then on
    later = shares("plain", 50)
    assert later.final < plain.final
    assert kept_shares(tmp_path / "plain") is None
    (tmp_path / "fold_1").mkdir()
    (tmp_path / "fold_1" / "checkpoint_epoch=1.pt").touch()
    assert kept_shares(tmp_path / "plain") == later
    # reading a case and comparing it with the truth can take longer than the network
    assert shares("compared", 60, scoring=9.0).verdict == pytest.approx((15 + 1.25 * (300 + 40 + fixed_s + 26)) / 60)
    # all of them are checked before
    assert shares("checked", 60, checking=2.0).verdict == pytest.approx((15 + 1.25 * (90 + 4 + fixed_s + 26)) / 60)
    crossed = shares("crossed", 60, folds=3)
    assert crossed.final + 3 * crossed.fold + crossed.verdict == pytest.approx(60, abs=0.1)
    assert 3 * crossed.fold == pytest.approx(0.6 * (crossed.final + 3 * crossed.fold))
    # the process with the most cases is waited for
    monkeypatch.setattr("monai_unetpp.training_run.sharing.process_count", lambda: 16)
    assert shares("shared", 60).verdict == pytest.approx((15 + 1.25 * (2 + 4 + fixed_s + 26)) / 60)
    monkeypatch.undo()
    # and cases are looked at as long as all of them take a twentieth of the training
    assert [plain.observed(3, minutes) for minutes in (60, 1, 0.7, 0.3)] == [3, 3, 2, 0]
    assert not caplog.text
    late = shares("late", 10, used_s=480)
    told = f"took 8 of the 10 minutes, which leaves {late.final:.1f} for training. To train for longer, interrupt it"
    assert told in caplog.text


def test_short_trainings_allow_for_a_busy_machine_only_if_it_is_busy_now(tmp_path):
    def fixed_s(minutes, slowdown=1.0):
        shares = share_time(
            tmp_path / f"{minutes}.json",
            minutes,
            started=time.monotonic(),
            case=CaseTime(0.0, slowdown=slowdown),
            cases=30,
            levels=3,
            folds=0,
        )
        return (60 * shares.verdict - 15 * max(1.0, slowdown / 2)) / 1.25

    times = [fixed_s(minutes) for minutes in (3, 5, 10, 20, 60)]
    assert times == sorted(times)
    assert times[0] == pytest.approx(times[-1] / 2.25)
    assert times[-1] == pytest.approx(times[-2], rel=0.3)
    assert fixed_s(5, slowdown=1.5) == pytest.approx(times[1])
    assert [fixed_s(minutes, slowdown=6.0) for minutes in (5, 60)] == pytest.approx([3 * times[0]] * 2)


def test_a_verdict_scores_as_many_cases_as_fit_its_share_of_the_time(tmp_path, caplog):
    def shares(minutes, case, cases, used_s=0.0, folds=0, **others):
        found = share_time(
            tmp_path / "time.json",
            minutes,
            started=time.monotonic() - used_s,
            case=case,
            cases=cases,
            levels=3,
            folds=folds,
            **others,
        )
        assert found.final + folds * found.fold + found.verdict <= minutes - used_s / 60 + 0.01
        return found

    whole = shares(60, CaseTime(1.0), 30)
    assert (whole.scored, whole.warm_up, whole.pictures, whole.volume_share) == (0, 2, 4, 1.0)
    # all cases fit without pictures, warm-up and whole volumes
    hurried = shares(20, CaseTime(40.0), 3)
    assert (hurried.scored, hurried.repeats, hurried.warm_up, hurried.pictures) == (0, 1, 0, 0)
    assert 0.5 < hurried.volume_share < 1
    # 0.3 of the time for 100 cases of 20 s
    some = shares(30, CaseTime(10.0, 8.0, 0.0, 2.0), 100)
    assert 10 < some.scored < 30
    assert some.verdict <= 0.3 * 30
    assert shares(60, CaseTime(10.0, 8.0, 0.0, 2.0), 100).scored > 2 * some.scored
    assert shares(60, CaseTime(10.0, 8.0, 0.0, 2.0), 100, folds=3).scored
    assert not caplog.text
    # what planning took is no longer there
    late = shares(20, CaseTime(122.0, 30.0, 8.0, 6.0), 13, used_s=240)
    assert (late.scored, late.repeats) == (1, 1)
    assert late.final > 5
    assert late.volume_share < 0.2
    # steps that are set by hand leave as much time as it takes to score all
    by_steps = shares(20, CaseTime(122.0, 30.0, 8.0, 6.0), 13, used_s=240, by_steps=True)
    assert (by_steps.scored, by_steps.volume_share) == (0, late.volume_share)
    assert not caplog.text
    # where report and start alone take more than the share, cases that cost almost nothing are scored all the same
    cheap = CaseTime(0.06, 0.01, 0.0, 0.01)
    for minutes, used_s, folds in ((3, 25, 0), (5, 160, 3)):
        assert shares(minutes, cheap, 30, used_s=used_s, folds=folds).scored == 0
    assert 1 < shares(3, CaseTime(2.0), 30, used_s=25).scored < 30
    # one case, of each fold, is scored in any case
    assert [shares(1, CaseTime(100.0), 9, folds=folds).scored for folds in (0, 3)] == [1, 3]
    assert "The verdict will take about" in caplog.text


def test_cases_that_judge_are_spread_over_whole_subjects():
    entries = [
        {"image": f"{subject}_{n}.nii.gz", "label": "x", "subject": subject}
        for subject, count in zip("abcdefgh", (2, 1, 1, 2, 1, 1, 2, 2), strict=True)
        for n in range(count)
    ]
    assert spread_cases(entries, 12) == spread_cases(entries, 99) == entries
    found = spread_cases(entries, 6)
    assert [entry["subject"] for entry in found] == ["a", "a", "c", "e", "g", "g"]
    # none is scored by halves, unless there is time for no more
    assert [entry["subject"] for entry in spread_cases(entries, 3)] == ["a", "a", "e"]
    assert spread_cases(entries, 1) == entries[:1]


@pytest.mark.slow
def test_a_verdict_on_some_cases_says_so_and_a_later_one_takes_all(discs_dir, planned, monkeypatch):
    bundle, lines = planned("some"), []
    _limit(monkeypatch, scored=2, warm_up=0, pictures=1)
    outcome = train(options(discs_dir, bundle), progress=lines.append)
    told = "1 of 3 cases is not scored, for lack of time. monai-unetpp prune scores all of them."
    assert told in lines
    assert told in (bundle / "docs" / "README.md").read_text()
    assert told in (bundle / "pruning" / "summary.md").read_text()
    assert "disc_8" not in (bundle / "pruning" / "per_case.csv").read_text()
    assert outcome.verdict == "inconclusive"
    assert len(list((bundle / "docs").glob("worst_*.png"))) <= 1
    again = prune_bundle(bundle, discs_dir, bundle / "all", device="cpu")
    assert len({row.case for row in again.rows}) == 3
    assert "cases not scored" not in again.settings


@pytest.mark.slow
def test_folds_with_little_time_score_some_cases_of_each(discs_dir, planned, monkeypatch):
    bundle, lines = planned("few", folds=3), []
    _limit(monkeypatch, scored=4, warm_up=0, pictures=1)
    train(options(discs_dir, bundle, init=None), progress=lines.append)
    (told,) = (line for line in lines if "not scored" in line)
    scored = [(fold_dir(bundle, number) / "per_case.csv").read_text() for number in (1, 2, 3)]
    names = [{line.split(",")[1] for line in text.splitlines()[1:]} for text in scored]
    assert all(names)
    count = 9 - sum(map(len, names))
    assert 0 < count <= 5
    assert told.startswith(f"{count} of 9 cases are not scored, for lack of time. To score them, train")
    assert told in (bundle / "docs" / "README.md").read_text()


def _limit(monkeypatch, **changes):
    """Let trainings share their time otherwise."""
    real = stages.share_time

    def share(path, *arguments, **told):
        shares = dataclasses.replace(real(path, *arguments, **told), **changes)
        path.write_text(json.dumps(dataclasses.asdict(shares)))
        return shares

    monkeypatch.setattr(stages, "share_time", share)


@pytest.mark.slow
def test_the_time_of_a_case_has_all_that_scoring_and_training_do_with_it(discs_dir, planned, monkeypatch):
    waited = []
    monkeypatch.setattr(timing, "synchronize", lambda device: waited.append(device.type))
    entry = load_datalist(discs_dir, "training")[0]
    values = {"dataset_dir": str(discs_dir), "device": torch.device("cpu")}
    found, levels = timing.time_case(planned("timed"), entry, values)
    assert levels == 2
    assert min(dataclasses.astuple(found)) > 0
    assert 1 <= found.slowdown <= 8
    # an image of four bytes a pixel, a label of one, and the place of each pixel of eight
    assert found.prepared_bytes >= (4 + 1 + 8) * math.prod(nib.load(entry["image"]).shape)
    # a GPU is still at work when a call returns
    assert set(waited) == {"cpu"}
    # a processor that works for others half of the time
    worked, real = time.thread_time(), time.thread_time
    monkeypatch.setattr(timing.time, "thread_time", lambda: worked + (real() - worked) / 100)
    assert timing.time_case(planned("timed"), entry, values)[0].slowdown == 8


def test_the_case_that_is_timed_is_of_median_size_in_voxels(tmp_path):
    for name, header, voxels in (("small", 300, 1), ("median", 100, 1000), ("large", 200, 2000)):
        (tmp_path / f"{name}.raw").write_bytes(bytes(voxels))
        (tmp_path / f"{name}.mhd").write_text(f"NDims = 3\nElementDataFile = {name}.raw".ljust(header))
    entries = [{"image": str(tmp_path / f"{name}.mhd")} for name in ("small", "median", "large")]
    typical, mean_size = stages._typical(entries)
    assert typical == entries[1]
    # 1100 bytes; the mean of 301, 1100 and 2200
    assert mean_size == pytest.approx(3601 / 3300)
    taken = CaseTime(1.0, 2.0, 3.0, 4.0, 5, 6.0).times(2.0, 3.0)
    assert taken == CaseTime(2.0, 4.0, 9.0, 8.0, 15, 6.0)


def test_a_few_windows_of_a_large_image_are_timed():
    inferer = NestedSlidingWindowInferer(roi_size=(16, 8), overlap=0.5)
    part, times = timing._part(torch.zeros(1, 64, 32), inferer)
    # 7 x 7 windows in all, 3 x 1 in the part
    assert (part.shape, times) == ((1, 32, 8), 49 / 3)
    part, times = timing._part(torch.zeros(1, 12, 7), inferer)
    assert (part.shape, times) == ((1, 12, 7), 1.0)


def test_a_training_uses_as_many_cases_as_it_can_prepare():
    cases = list(range(100))
    shares = TimeShares(final=10, fold=0, verdict=1, repeats=1, case_s=1.0, prepare_s=6.0)

    def usable(minutes=10.0, cache_rate=1.0, workers=1, batch_size=2):
        return shares.usable(cases, minutes, cache_rate=cache_rate, workers=workers, batch_size=batch_size)

    # for 300 seconds, one case after the other, or three at once that hinder each other
    assert usable() == (cases[::2], 1.0)
    assert usable(workers=3) == (cases, 1.0)
    assert usable(minutes=0.01) == ([0, 25, 50, 75], 1.0)
    # 1500 steps of two patches, of which three in four would be prepared anew, take 1500 * 1.5 * 6 seconds
    assert usable(minutes=300, cache_rate=0.25) == (cases, 0.25)
    assert usable(minutes=200, cache_rate=0.25) == (cases[::4], 1.0)
    # memory holds two of the fewest cases that are used
    assert usable(minutes=1, cache_rate=0.02) == ([0, 25, 50, 75], 0.5)
    # what was free is less than what the plan supposes, and a fifth of it is left for what is free later
    tight = dataclasses.replace(shares, case_bytes=10, cache_bytes=250)
    facts = {"cache_rate": 0.5, "workers": 1, "batch_size": 2}
    assert tight.usable(cases, 100, **facts) == (cases[::5], 1.0)


def test_cases_that_are_left_out_take_no_label_with_them():
    cases = list(range(100))
    labels = [
        {"organ", *(["lesion"] if number in (1, 3, 97) else []), *(["stone"] * (number == 50))} for number in cases
    ]
    labels[31] = set()
    shares = TimeShares(final=10, fold=0, verdict=1, repeats=1, case_s=1.0, prepare_s=6.0)
    facts = {"cache_rate": 1.0, "workers": 1, "batch_size": 2, "labels": labels}
    assert shares.usable(cases, 10, **facts)[0] == [0, 1, 2, 3, *cases[4::2]]
    assert shares.usable(cases, 1, **facts) == ([0, 1, 3, 20, 40, 50, 60, 80], 1.0)
    # as many as there are, even where all of the places are needed
    labels = [{f"label {number}"} for number in range(6)]
    assert shares.usable(list(range(6)), 0.01, **(facts | {"labels": labels}))[0] == list(range(6))


def test_the_cache_takes_half_of_the_free_memory_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr("monai_unetpp.training_run.sharing.available_bytes", lambda: 2000)
    case = CaseTime(1.0, prepared_bytes=10)
    found = share_time(tmp_path / "time.json", 60, started=time.monotonic(), case=case, cases=3, levels=3, folds=0)
    assert (found.case_bytes, found.cache_bytes) == (10, 1000)
    assert [found.cached(count) for count in (50, 100, 200)] == [1.0, 1.0, 0.5]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert found.cached(100) == 0.5
    monkeypatch.setattr("monai_unetpp.training_run.sharing.available_bytes", lambda: None)
    assert found.cached(10**6) == 1.0


def test_it_is_told_how_many_cases_a_training_uses(tmp_path, monkeypatch):
    class Plan(dict):
        by_hand = ()

    plan = Plan(cache_rate=1.0, num_workers=0, batch_size=2)
    planned = SimpleNamespace(bundle=tmp_path, steps=None, folds=0, plan=plan, init=None)
    shares = TimeShares(final=10, fold=0, verdict=1, repeats=1, case_s=1.0, prepare_s=6.0)
    entries = [{"image": f"{number}.nii.gz", "label": "x"} for number in range(100)]
    lines, taken = [], []
    monkeypatch.setattr(stages, "fit", lambda *_, cases, **__: taken.extend(cases))
    run = stages._Run(planned, {}, entries, [], shares, lines.append)
    run.fit_final()
    assert taken == run.final_cases == entries[::2]
    assert lines == [
        "training: 50 of 100 cases are used, as more would take too much of the 10.0 minutes, or of the memory."
    ]
    # what is set by hand is done, however long it takes
    plan.by_hand = ("cache_rate",)
    assert run.final_cases == entries
    plan.by_hand, planned.steps = (), 5
    assert run.final_cases == entries


def test_folds_keep_subjects_together():
    entries = [
        {"image": f"{subject}_{n}.nii.gz", "label": "x", "subject": subject}
        for subject, count in zip("abcd", (3, 1, 1, 2), strict=True)
        for n in range(count)
    ]
    folds = split_folds(entries, 3)
    assert sorted(map(len, folds)) == [2, 2, 3]
    assert sorted(entry["image"] for fold in folds for entry in fold) == [entry["image"] for entry in entries]
    homes = [{entry["subject"] for entry in fold} for fold in folds]
    assert sum(map(len, homes)) == 4
    with pytest.raises(ValueError, match="folds must not be more than subjects, got 5 for 4"):
        split_folds(entries, 5)
