"""Pruning a bundle through its configurations, from Python, the command line and ``monai.bundle``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from bundle_runs import configs, succeed
from forked import run_forked
from json_edits import edit_json
from monai.inferers import SlidingWindowInferer
from tiny_pruning import (
    SHAPE,
    break_label,
    half_blind_network,
    intensity_network,
    make_prunable_bundle,
    prune_config,
    write_boxes,
)

from monai_unetpp import cli
from monai_unetpp.bundles import check_bundle
from monai_unetpp.bundles.training_record import LAST, TrainingRecord, save_training_record
from monai_unetpp.data import load_datalist
from monai_unetpp.data.datasets.labelled import list_cases
from monai_unetpp.data.formats.naming import image_name
from monai_unetpp.inferers import FlipInferer, NestedSlidingWindowInferer, PrecisionInferer
from monai_unetpp.pruning import from_bundle, prune_bundle, read_report, verdict, write_pruned_bundle
from monai_unetpp.pruning.doubts import doubts_of_subjects
from monai_unetpp.pruning.inference import check_inference

PLAN = prune_config()["plan"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_prunable_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def test_bundle_with_the_shipped_prune_json_passes_the_checks(bundle):
    assert check_bundle(bundle) == []


def test_the_subjects_of_a_training_are_told_of_its_own_data_set_alone(
    hippocampus_bundle, few_boxes, tmp_path, monkeypatch
):
    other_boxes = write_boxes(tmp_path / "other", 4)
    names = [case["image"] for case in load_datalist(few_boxes, "validation")]
    table, plans = tmp_path / "subjects.csv", []
    table.write_text(
        "case,subject\n" + "".join(f"{image_name([name])},p{number // 2}\n" for number, name in enumerate(names))
    )
    bundle = tmp_path / "bundle"
    shutil.copytree(hippocampus_bundle, bundle)
    edit_json(bundle / "configs" / "plan.json", dataset_dir=str(few_boxes), subjects=str(table))
    monkeypatch.setattr(from_bundle, "prune", plans.append)

    def subjects(dataset_dir, **given):
        prune_bundle(bundle, dataset_dir, tmp_path / "out", device="cpu", **given)
        data = plans[-1].data
        listed = [load_datalist(folder, "validation", **data.subject_rules(folder)) for folder in data.folders]
        return [len({each.subject for each in list_cases(cases)}) for cases in listed]

    own, other = len(names), len(load_datalist(other_boxes, "validation"))
    halved = (own + 1) // 2
    assert subjects(few_boxes) == [halved]
    assert subjects(few_boxes, confirm_dir=other_boxes) == [halved, other]
    assert subjects([few_boxes, other_boxes]) == [halved, other]
    assert not list(doubts_of_subjects(plans[-1].data))
    assert subjects(other_boxes) == [other]
    (doubt,) = doubts_of_subjects(plans[-1].data)
    assert f"of its own data set, {few_boxes}, by --subjects {table}. It is not applied to other data sets" in doubt
    assert subjects(other_boxes, confirm_dir=few_boxes) == [other, halved]
    # rules of the command are for all
    assert subjects([few_boxes, other_boxes], subject_pattern="(case)") == [1, 1]


@pytest.mark.slow
def test_prunes_as_the_configuration_says(bundle, few_boxes, tmp_path, quick):
    result = prune_bundle(bundle, few_boxes, tmp_path)
    assert (result.title, result.labels) == ("hippocampus_mri_unetpp", ("anterior", "posterior"))
    assert [point.name for point in result.points] == ["L1", "L2"]
    assert [(margin.metric, margin.value) for margin in result.rules.margins] == [("dice", 0.01), ("nsd", 0.02)]
    assert (result.rules.bootstrap_samples, result.rules.seed) == (200, 0)
    assert min(row.score.dice for row in result.rows) > 0.98
    assert verdict(result).verdict == "inconclusive"


@pytest.mark.slow
def test_cases_that_trained_other_weights_do_not_judge_them(few_boxes, tmp_path, quick):
    bundle = make_prunable_bundle(tmp_path / "bundle", half_blind_network())
    trained = tmp_path / "trained" / "model.pt"
    trained.parent.mkdir()
    torch.save(intensity_network().state_dict(), trained)
    save_training_record(trained, TrainingRecord.of(load_datalist(few_boxes, "validation"), rule=LAST))
    result = prune_bundle(bundle, few_boxes, tmp_path / "out", checkpoint=str(trained))
    assert "judging cases were used for training" in verdict(result).summary


@pytest.mark.slow
def test_settings_take_the_place_of_the_configuration(bundle, few_boxes, tmp_path, quick):
    torch.save(half_blind_network().prune("L1").state_dict(), tmp_path / "alone.pt")
    result = prune_bundle(
        bundle,
        [few_boxes],
        tmp_path / "out",
        device="cpu",
        extra=[f"L1 alone={tmp_path / 'alone.pt'}"],
        margins=["dice=0.05"],
        max_case_drop=None,
        alpha=0.025,
        budgets=["parameters=20"],
        subject_pattern="(case_0)",
    )
    assert [point.name for point in result.points] == ["L1", "L2", "L1 alone"]
    assert [(margin.metric, margin.value) for margin in result.rules.margins] == [("dice", 0.05)]
    assert (result.rules.max_case_drop, result.rules.alpha) == ({"dice": 0.2, "iou": 0.2, "nsd": 0.4}, 0.025)
    assert "parameters<=20" in [trade_off.rule for trade_off in result.trade_offs]
    assert {row.subject for row in result.rows} == {"case_0"}


@pytest.mark.slow
def test_what_users_name_is_never_read_as_configuration(bundle, few_boxes, tmp_path, quick, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bundle, "@bundle#1")
    shutil.copytree(few_boxes, "$open('ran', 'w')")
    torch.save(half_blind_network().prune("L1").state_dict(), "%alone.pt")
    result = prune_bundle(
        "@bundle#1",
        "$open('ran', 'w')",
        "@output_dir::x",
        device="cpu",
        extra=["$1/0=%alone.pt", "_target_=%alone.pt"],
        labels={"$anterior": 1, "@labels": 2},
        tolerance_mm={"$anterior": 1.0, "@labels": 1.0},
    )
    assert result.labels == ("$anterior", "@labels")
    assert [point.name for point in result.points] == ["L1", "L2", "$1/0", "_target_"]
    assert {row.dataset for row in result.rows} == {"$open('ran', 'w')"}
    assert not Path("ran").exists()
    assert Path("@output_dir::x").is_dir()


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("plan", {**PLAN, "alpha": "$1/0"}, r"prune\.json: 'plan' cannot be created from it \(ZeroDivisionError"),
        ("plan", {**PLAN, "alpha": 7}, r"prune\.json: .*alpha must"),
        ("plan", {**PLAN, "labels": "@nothing"}, r"prune\.json: 'plan' cannot .*@nothing"),
        ("plan", {"_target_": PLAN["_target_"]}, r"prune\.json: 'plan' cannot .*missing"),
        ("plan", {"_target_": "monai_unetpp.pruning.Plan"}, r"prune\.json: 'plan' cannot .*Plan"),
        ("plan", 5, r"prune\.json: plan must be a monai_unetpp\.pruning\.PruningPlan, got int"),
    ],
)
def test_a_broken_configuration_is_named(bundle, few_boxes, tmp_path, key, value, message):
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    edit_json(other / "configs" / "prune.json", **{key: value})
    with pytest.raises(ValueError, match=message):
        prune_bundle(other, few_boxes, tmp_path / "out", device="cpu")


def test_unknown_settings_are_refused(bundle, few_boxes, tmp_path):
    with pytest.raises(ValueError, match=r"settings must be fields of .*got 'margin'. Did you mean 'margins'\?"):
        prune_bundle(bundle, few_boxes, tmp_path, margin=["dice=0.1"])
    with pytest.raises(ValueError, match=r"got 'zzz'. See the bundle's prune\.json"):
        prune_bundle(bundle, few_boxes, tmp_path, zzz=1)


def test_bundle_that_cannot_be_pruned_is_refused(bundle, few_boxes, tmp_path):
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    (other / "configs" / "prune.json").write_text('{"margin": 0.01}')
    with pytest.raises(ValueError, match=r"prune\.json: must have the key 'plan'"):
        prune_bundle(other, few_boxes, tmp_path / "out")
    (other / "configs" / "prune.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"prune\.json: no such file. Only a bundle with train\.json"):
        prune_bundle(other, few_boxes, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="nobundle"):
        prune_bundle(tmp_path / "nobundle", few_boxes, tmp_path / "out")


def test_a_bundle_that_was_pruned_already_is_told_as_one(bundle, few_boxes, tmp_path):
    pruned = write_pruned_bundle(bundle, "L1", tmp_path / "pruned")
    message = rf"{pruned}: this bundle was pruned already, to level L1 of tiny, and holds no other level\. Name"
    with pytest.raises(FileNotFoundError, match=message):
        prune_bundle(pruned, few_boxes, tmp_path / "out")


def test_channels_in_another_order_than_the_bundles_are_refused(bundle, few_boxes, tmp_path):
    other, data = (Path(shutil.copytree(each, tmp_path / each.name)) for each in (bundle, few_boxes))
    edit_json(other / "configs" / "metadata.json", swap_channels)
    edit_json(data / "dataset.json", modality={"0": "T1", "1": "T2"})
    with pytest.raises(ValueError, match=r"dataset\.json: channels must .* got T1, T2; .*metadata\.json names T2, T1"):
        prune_bundle(other, data, tmp_path / "out", device="cpu")


def swap_channels(metadata):
    metadata["network_data_format"]["inputs"]["image"]["channel_def"] = {"0": "T2", "1": "T1"}


def test_errors_come_out_as_they_are(bundle, few_boxes, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere/dataset\.json: no such file") as caught:
        prune_bundle(bundle, tmp_path / "nowhere", tmp_path / "out")
    assert "Failed to instantiate" not in str(caught.value)
    # the error's own story is not turned into a circle
    assert caught.value.__cause__ is None
    with pytest.raises(FileNotFoundError, match=r"no\.pt: no such file"):
        prune_bundle(bundle, few_boxes, tmp_path / "out", checkpoint=str(tmp_path / "no.pt"))
    with pytest.raises(ValueError, match="cost must be one of"):
        prune_bundle(bundle, few_boxes, tmp_path / "out", budgets=["money=1"])
    with pytest.raises(ValueError, match="extra must be a name, '=' and a file, got 'alone'"):
        prune_bundle(bundle, few_boxes, tmp_path / "out", extra=["alone"])
    with pytest.raises(ValueError, match="device must be a name like 'cpu'"):
        prune_bundle(bundle, few_boxes, tmp_path / "out", device="abacus")


def test_problems_in_the_data_come_out_as_they_are(bundle, few_boxes, tmp_path):
    broken = Path(shutil.copytree(few_boxes, tmp_path / "broken"))
    break_label(broken)
    with pytest.raises(ValueError, match=r"cases of 'broken' must be sound(.|\n)*case_01"):
        prune_bundle(bundle, broken, tmp_path / "out")


# ---------------------------------------------------------------- command line and monai.bundle


@pytest.mark.slow
def test_command_line_ends_with_three_where_nothing_is_shown(bundle, few_boxes, tmp_path, quick, capsys):
    arguments = ["prune", "--bundle", str(bundle), "--dataset_dir", str(few_boxes), "-o", str(tmp_path / "out")]
    assert cli.main([*arguments, "--device", "cpu", "--margin", "dice=0.05", "--write", str(tmp_path / "p")]) == 3
    assert "few: Inconclusive, keep L2 for now: 3 cases" in capsys.readouterr().out
    assert not (tmp_path / "p").exists()
    assert cli.main([*arguments, "--confirm_share", "2"]) == 2
    assert "confirm_share must lie between 0 and 1" in capsys.readouterr().err


@pytest.mark.slow
def test_command_line_names_an_older_pruned_bundle(bundle, few_boxes, tmp_path, quick, capsys):
    old = write_pruned_bundle(bundle, "L1", tmp_path / "old")
    table = tmp_path / "subjects.csv"
    table.write_text("case,subject\n" + "".join(f"case_0{number},S{number}\n" for number in range(3)))
    arguments = ["prune", "--bundle", str(bundle), "--dataset_dir", str(few_boxes), "-o", str(tmp_path / "out")]
    arguments += ["--device", "cpu", "--subjects", str(table), "--alpha", "0.025", "--seed", "3"]
    assert cli.main([*arguments, "--write", str(old), "--overwrite"]) == 3
    assert f"{old} is from an earlier run and does not belong to this verdict" in capsys.readouterr().err


def test_command_line_turns_type_errors_into_one_line(bundle, few_boxes, tmp_path, capsys):
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    edit_json(other / "configs" / "prune.json", lambda content: content["network"].update(unheard_of=1))
    assert cli.main(["prune", "--bundle", str(other), "--dataset_dir", str(few_boxes), "-o", str(tmp_path / "o")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert "unheard_of" in lines[-1]
    assert not any(line.startswith("Traceback") for line in lines)


def monais_inferer(**changes):
    """That of the hippocampus bundle."""
    kept = {"overlap": 0.25, "mode": "gaussian", "padding_mode": "replicate", **changes}
    return SlidingWindowInferer([40, 56, 40], **kept)


def test_evaluated_flips_are_written_into_the_hippocampus_bundle(hippocampus_bundle):
    inferer = PrecisionInferer(FlipInferer(monais_inferer(sw_batch_size=4), [0, 1]), "bf16")
    values = check_inference(hippocampus_bundle, inferer, "cpu")
    assert values == {"precision": "bf16", "flips": [0, 1], "window_shape": [40, 56, 40]}
    kept = {"overlap": 0.25, "mode": "gaussian", "padding_mode": "replicate"}
    skipping = NestedSlidingWindowInferer([40, 56, 40], **kept, skip_constant=True)
    with pytest.raises(ValueError, match="got skip_constant False instead of True"):
        check_inference(hippocampus_bundle, skipping, "cpu")
    with pytest.raises(ValueError, match="got blending 'gaussian' instead of 'constant'"):
        check_inference(hippocampus_bundle, monais_inferer(mode="constant"), "cpu")
    with pytest.raises(ValueError, match="got padding_mode 'replicate' instead of 'constant'"):
        check_inference(hippocampus_bundle, monais_inferer(padding_mode="constant"), "cpu")


def test_a_bundle_that_smooths_is_written_as_it_was_evaluated(hippocampus_bundle, tmp_path, caplog):
    bundle = shutil.copytree(hippocampus_bundle, tmp_path / "bundle")
    inferer = monais_inferer()
    assert "smooth" not in check_inference(bundle, inferer, "cpu")
    edit_json(bundle / "configs" / "inference.json", smooth=True)
    assert check_inference(bundle, inferer, "cpu")["smooth"] is False
    assert "the pruned bundle will resample labels, as the evaluation does" in caplog.text


def test_a_window_that_is_given_is_that_of_scores_and_of_costs(bundle, few_boxes, tmp_path, monkeypatch):
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    inferer = {"_target_": "SlidingWindowInferer", "roi_size": "@window_shape"}
    windows = {"window_shape": "@window_shape", "inferer": inferer}
    path = other / "configs" / "prune.json"
    edit_json(path, lambda content: content["plan"].update(windows), window_shape=[16] * len(SHAPE))
    plans = []
    monkeypatch.setattr(from_bundle, "prune", plans.append)
    prune_bundle(other, few_boxes, tmp_path / "out", window_shape=[8] * len(SHAPE))
    (plan,) = plans
    assert list(plan.pipeline.window_shape) == list(plan.pipeline.inferer.roi_size) == [8] * len(SHAPE)


@pytest.mark.slow
def test_two_processes_agree_with_one(bundle, tmp_path):
    dataset = write_boxes(tmp_path / "boxes", 5)
    # so that the verdict can be read
    logging = Path("bundles") / "hippocampus_mri_unetpp" / "configs" / "logging.conf"
    copied = Path(shutil.copytree(bundle, tmp_path / "tiny"))
    shutil.copy(Path(__file__).parents[2] / logging, copied / "configs" / "logging.conf")

    def run(processes, output):
        options = ("--config_file", configs(copied, "train.json", "prune.json"), "--bundle_root", copied)
        options += ("--dataset_dir", dataset, "--output_dir", output)
        command = ("monai.bundle", "run", *options)
        return succeed(run_forked(*command, folder=tmp_path, processes=processes, measures_and_draws=False))

    single, double = run(1, tmp_path / "single"), run(2, tmp_path / "double")
    found = [read_report(tmp_path / name / "report.json") for name in ("single", "double")]
    assert found[0].rows == found[1].rows
    assert found[0].decisions == found[1].decisions
    assert len(found[0].rows) == 5 * 2 * 3
    assert found[0].command.startswith("python -m monai.bundle run --config_file")
    # each process kept the cases that it scored, and one of them told the verdict
    assert len(list((tmp_path / "double" / "scores" / "boxes").glob("*.json"))) == 5
    for done, times in ((single, 1), (double, 1)):
        assert (done.stdout + done.stderr).count(found[0].decisions[0].summary) == times
    assert json.loads((tmp_path / "double" / "report.json").read_text())["schema_version"]
