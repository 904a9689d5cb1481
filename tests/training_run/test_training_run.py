"""Whole trainings: planned, trained, judged and documented; interrupted, cross-fitted, refused."""

import importlib
import time

import pytest
import torch
from disc_images import write_disc_images

from monai_unetpp import NestedUNet, cli
from monai_unetpp.bundles import check_bundle, read_metadata, read_training_record
from monai_unetpp.planning import Machine, plan
from monai_unetpp.training import NumberedPatches
from monai_unetpp.training_run import TrainOptions, train
from monai_unetpp.training_run import run as stages
from monai_unetpp.training_run.judging import split_folds
from monai_unetpp.training_run.planned import planned_bundle
from monai_unetpp.training_run.sharing import share_time

TINY = {
    "features": [2, 4, 4],
    "strides": [[2, 2], [2, 2]],
    "kernel_size": [[3, 3]] * 3,
    "patch_size": [16, 16],
    "window_shape": [24, 24],
    "batch_size": 2,
    "steps": 6,
    "num_workers": 0,
}


def slow_machine(spatial_dims, device):
    return Machine.of(operations_per_s=1e10, memory_bytes=2**30, cores=2, device="cpu")


@pytest.fixture(scope="module")
def discs_dir(tmp_path_factory):
    """Nine images with a bright disc each: six for training."""
    return write_disc_images(tmp_path_factory.mktemp("discs"), training=6, validation=3, value=7)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """No process of its own for the memory, and few draws for the bounds."""
    monkeypatch.setattr(importlib.import_module("monai_unetpp.pruning.cost"), "_peak_memory", lambda *_: 1_000_000)


@pytest.fixture
def planned(discs_dir, tmp_path):
    """A function that plans a bundle by its name."""

    def make(name, folds=0):
        plan(discs_dir, tmp_path / name, folds=folds, settings=TINY, device="cpu", measure=slow_machine)
        return tmp_path / name

    return make


def options(dataset_dir, bundle, **values):
    return TrainOptions(dataset_dir, bundle, device="cpu", **values)


def weights(bundle):
    return torch.load(bundle / "models" / "model.pt", weights_only=True)


def test_a_training_ends_in_a_bundle_that_passes_the_checks(discs_dir, planned, monkeypatch, capsys):
    bundle, lines = planned("whole"), []
    outcome = train(options(discs_dir, bundle, minutes=5), progress=lines.append)
    # three cases are too few for any verdict
    assert (outcome.verdict, outcome.level, outcome.steps, outcome.pruned) == ("inconclusive", "L2", 6, None)
    assert check_bundle(bundle) == []
    assert outcome.report.is_file()
    record = read_training_record(bundle)
    assert (record.rule, record.selecting) == ("last, averaged", {})
    assert sorted(record.training) == [f"disc_{number}" for number in range(6)]
    readme = (bundle / "docs" / "README.md").read_text()
    assert "Trained on 6 cases, by 6 step(s)" in readme
    assert "| L1 | disc |" in readme
    assert set(read_metadata(bundle)["eval_metrics"]) == {"mean_dice_L1", "mean_dice_L2"}
    assert not list((bundle / "training").glob("checkpoint_*"))
    assert "judging the levels" in lines
    assert lines[-1] == "writing the report ..."
    # what is done is not repeated
    monkeypatch.setattr(stages, "fit", None)
    assert train(options(discs_dir, bundle)) == outcome
    assert cli.main(["train", str(discs_dir), "-o", str(bundle)]) == 3
    assert f"Report: {outcome.report}" in capsys.readouterr().out


def test_a_training_goes_on_where_it_was_interrupted(discs_dir, planned, monkeypatch, capsys):
    one, other = planned("one"), planned("other")
    monkeypatch.setattr(stages._Run, "judge", lambda self, folds: None)
    monkeypatch.setattr(stages._Run, "finish", lambda self, fitted, result: fitted)
    monkeypatch.setattr(stages, "_STEPS_BETWEEN", 2)
    monkeypatch.setattr(stages, "_CHECKPOINT_S", 0.0)
    with pytest.MonkeyPatch.context() as patched:
        original = NumberedPatches.__getitem__

        def stop(self, index):
            if index == 9:
                raise KeyboardInterrupt
            return original(self, index)

        patched.setattr(NumberedPatches, "__getitem__", stop)
        assert cli.main(["train", str(discs_dir), "-o", str(one), "--device", "cpu"]) == 130
    assert "interrupted. The same command continues from there: monai-unetpp" in capsys.readouterr().err
    assert list((one / "training").glob("checkpoint_*"))
    fitted = train(options(discs_dir, one))
    assert fitted.steps == train(options(discs_dir, other)).steps == 6
    found = weights(one), weights(other)
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_folds_let_every_case_judge(discs_dir, planned):
    bundle = planned("folds", folds=3)
    outcome = train(options(discs_dir, bundle, init=None))
    table = (bundle / "pruning" / "per_case.csv").read_text()
    assert all(f"disc_{number}," in table for number in range(9))
    assert len(read_training_record(bundle).training) == 9
    assert "3 networks were trained on parts of the cases" in (bundle / "docs" / "README.md").read_text()
    assert outcome.steps == 6
    assert check_bundle(bundle) == []
    # the pictures are of what the folds' networks saw
    assert list((bundle / "docs").glob("worst_*.png"))


def test_weights_to_begin_with_are_named_in_the_readme(discs_dir, planned, monkeypatch, tmp_path):
    path = tmp_path / "before.pt"
    torch.save(NestedUNet(2, 1, 5, features=(2, 4, 4), norm="batch").state_dict(), path)
    bundle = planned("begun")
    monkeypatch.setattr(stages._Run, "judge", lambda self, folds: None)
    monkeypatch.setattr(stages._Run, "finish", lambda self, fitted, result: fitted)
    fitted = train(options(discs_dir, bundle, init=str(path)))
    assert "fresh: L1, L2" in fitted.transfer
    assert "It began with weights from" in (bundle / "docs" / "README.md").read_text()


def test_a_bundle_that_was_planned_otherwise_is_refused(discs_dir, planned, tmp_path):
    bundle = planned("planned")
    with pytest.raises(ValueError, match=r"was planned for .*discs.*, got .*\. Take another folder"):
        train(options(tmp_path, bundle))
    with pytest.raises(ValueError, match=r"was planned with batch_size=2, got 4\. Take another folder"):
        train(options(discs_dir, bundle, settings=("batch_size=4",)))
    with pytest.raises(ValueError, match=r"patch_size=\[16, 16\], got 8\. Take another folder"):
        train(options(discs_dir, bundle, settings=("patch_size=8",)))


def test_values_set_by_hand_are_compared_as_the_plan_reads_them(discs_dir, planned):
    told = []
    given = options(discs_dir, planned("same"), settings=("patch_size=16", "strides=[2,2]", "overlap=0.25"))
    assert planned_bundle(given, told.append).steps == 6
    assert told[-1].endswith("planned before.")


def test_what_the_verdict_needs_is_kept_back(tmp_path, caplog):
    def shares(name, minutes, case_s=1.0, folds=0):
        told = {"started": time.monotonic(), "case_s": case_s, "cases": 30, "levels": 3, "folds": folds}
        return share_time(tmp_path / name, minutes, **told)

    plain = shares("plain", 60)
    # 30 cases, the report, three levels, and twelve rounds of two passes, with a reserve, and the start
    assert plain.verdict == pytest.approx((15 + 1.25 * (30 + 25 + 36 + 24)) / 60)
    assert plain.final + plain.verdict == pytest.approx(60, abs=0.1)
    assert (plain.fold, plain.repeats) == (0, 10)
    assert shares("plain", 5) == plain
    crossed = shares("crossed", 60, folds=3)
    assert crossed.final + 3 * crossed.fold + crossed.verdict == pytest.approx(60, abs=0.1)
    assert 3 * crossed.fold == pytest.approx(0.6 * (crossed.final + 3 * crossed.fold))
    slow = shares("slow", 10, case_s=20)
    assert (slow.verdict, slow.repeats) == (5, 1)
    assert "longer than the 5 that 10 minutes leave for it" in caplog.text


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
