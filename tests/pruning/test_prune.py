"""The whole path: score, cost, decide, explain, write."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import json
import logging
import shutil
import sys
from pathlib import Path

import monai.transforms
import nibabel
import numpy as np
import pytest
import torch
from forked import measure_briefly, run_forked
from json_edits import edit_json
from monai.bundle import ConfigParser
from monai.transforms import AsDiscreted, Compose, Lambdad, Spacingd
from tiny_pruning import (
    LABELS,
    SHAPE,
    break_label,
    half_blind_network,
    intensity_network,
    make_pipeline,
    make_prunable_bundle,
    write_boxes,
)
from tiny_pruning import prune_boxes as run

from monai_unetpp import NestedUNet, files
from monai_unetpp.bundles import check_bundle, load_network
from monai_unetpp.data import load_datalist
from monai_unetpp.pruning import (
    evaluation,
    evaluation_stages,
    preflight,
    read_report,
    verdict,
    write_pruned_bundle,
)
from monai_unetpp.pruning.confirmation import confirming_cases, draw_subjects
from monai_unetpp.pruning.decision import join
from monai_unetpp.pruning.pipeline_text import describe_settings
from monai_unetpp.pruning.plan import EvaluationData
from monai_unetpp.pruning.report import worst_cases
from monai_unetpp.pruning.results import OperatingPoint
from monai_unetpp.pruning.rules import Margin, Rules
from monai_unetpp.pruning.summary import shown_loser

COMMAND = "monai-unetpp prune --dataset_dir boxes"
REPORT_FILES = {"report.html", "report.json", "per_case.csv", "summary.md"}


@pytest.fixture(scope="module")
def other_boxes(tmp_path_factory):
    return write_boxes(tmp_path_factory.mktemp("other") / "other", 20, seed=2)


@pytest.fixture(scope="module")
def complete(tmp_path_factory, boxes):
    """One run with everything that can be asked for."""
    root = tmp_path_factory.mktemp("complete")
    bundle = make_prunable_bundle(root / "bundle")
    alone = root / "alone.pt"
    torch.save(half_blind_network().prune("L1").state_dict(), alone)
    stale = root / "out" / "uncertainty" / "boxes" / "removed_uncertainty.nii.gz"
    stale.parent.mkdir(parents=True)
    stale.touch()
    with pytest.MonkeyPatch.context() as patch:
        measure_briefly(patch)
        patch.setattr("sys.argv", ["/usr/bin/monai-unetpp", *COMMAND.split()[1:]])
        patch.setattr(sys.modules["__main__"], "__spec__", None)  # also under python -m pytest
        result = run(
            load_network(bundle / "models" / "model.pt"),
            boxes,
            root / "out",
            extra={"L1 trained alone": alone},
            budgets=["parameters=5000"],
            utility_weight=0.02,
            save_uncertainty=True,
            bundle=bundle,
            write=root / "written" / "pruned",
        )
    return root, result


# ---------------------------------------------------------------- the whole path


@pytest.mark.slow
def test_writes_all_files_of_the_report(complete):
    root, result = complete
    assert {path.name for path in (root / "out").iterdir()} >= REPORT_FILES
    assert read_report(root / "out" / "report.json") == result
    text = result.decisions[0].summary
    assert text in (root / "out" / "report.html").read_text().replace("&#39;", "'")
    assert text in (root / "out" / "summary.md").read_text().replace("\\", "")
    with (root / "out" / "per_case.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(result.rows) == 20 * 3 * 3


@pytest.mark.slow
def test_prunes_where_the_shallow_level_is_as_good(complete):
    _, result = complete
    final = verdict(result)
    assert (final.verdict, final.level, final.cases, final.optimistic) == ("prune", "L1", 20, True)
    dice = {point: [r.score.dice for r in result.rows if r.point == point] for point in ("L1", "L2")}
    assert min(dice["L1"]) > 0.98
    assert min(dice["L2"]) > 0.98


def test_further_checkpoint_is_a_row_of_its_own(complete):
    _, result = complete
    extra = result.points[-1]
    assert (extra.name, extra.level, extra.kind, extra.checkpoint) == ("L1 trained alone", "L1", "extra", "alone.pt")
    assert {r.score.state for r in result.rows if r.point == extra.name} == {"missed"}
    assert result.costs[extra.name].parameters == result.costs["L1"].parameters
    # it is compared, and changes no verdict
    assert {c.state for c in verdict(result).comparisons if c.point == extra.name} == {"fail"}


def test_costs_are_of_pruned_networks(complete):
    root, result = complete
    for level in ("L1", "L2"):
        pruned = NestedUNet.from_checkpoint(root / "bundle" / "models" / "model.pt", level)
        assert result.costs[level].parameters == sum(p.numel() for p in pruned.parameters())
        assert result.costs[level].self_check.equal
    assert result.costs["L1"].checkpoint_bytes == (root / "written" / "pruned" / "models" / "model.pt").stat().st_size
    assert result.costs["L1"].parameters < 5000 < result.costs["L2"].parameters


def test_budgets_and_utility_pick_a_level(complete):
    _, result = complete
    picked = {trade_off.rule: trade_off.points for trade_off in result.trade_offs}
    assert picked["parameters<=5000"] == ("L1",)
    assert any(rule.startswith("utility") for rule in picked)
    assert sum(rule.startswith("pareto") for rule in picked) == 4


def test_uncertainty_maps_lie_on_the_images_grid(complete, boxes):
    root, result = complete
    paths = sorted((root / "out" / "uncertainty" / "boxes").iterdir())
    assert [path.name for path in paths][:2] == ["case_00_uncertainty.nii.gz", "case_01_uncertainty.nii.gz"]
    assert len(paths) == 20
    found, image = nibabel.load(paths[0]), nibabel.load(boxes / "imagesTr" / "case_00.nii.gz")
    np.testing.assert_array_equal(found.affine, image.affine)
    assert 0 <= found.get_fdata().min() < found.get_fdata().max() <= 1
    assert 0.5 < result.error_auroc <= 1


def test_pictures_of_the_worst_cases_are_in_the_report(complete):
    root, result = complete
    assert len(result.overlays) == 4
    assert all((root / "out" / path).stat().st_size > 1000 for path in result.overlays)


def test_written_bundle_is_the_scored_level(complete):
    root, _ = complete
    written = root / "written" / "pruned"
    assert check_bundle(written) == []
    pruned, full = load_network(written / "models" / "model.pt"), load_network(root / "bundle" / "models" / "model.pt")
    x = torch.randn(1, 1, *SHAPE)
    with torch.no_grad():
        assert torch.equal(pruned(x), full.forward_levels(x, ["L1"])["L1"])
    origin = json.loads((written / "configs" / "metadata.json").read_text())["pruned_from"]
    assert (origin["verdict"], origin["level"]) == ("prune", "L1")


def test_the_command_is_told(complete):
    _, result = complete
    assert result.command == COMMAND


# ---------------------------------------------------------------- verdicts


@pytest.mark.slow
def test_fewer_than_ten_cases_are_inconclusive(tmp_path, decathlon_dir, quick, caplog):
    bundle = make_prunable_bundle(tmp_path / "bundle")
    result = run(intensity_network(), decathlon_dir, tmp_path / "out", bundle=bundle, write=tmp_path / "pruned")
    assert verdict(result).verdict == "inconclusive"
    assert "2 cases are fewer than the 10 subjects" in verdict(result).summary
    # no bundle, and no exception
    assert not (tmp_path / "pruned").exists()
    assert "No pruned bundle was written" in caplog.text


@pytest.mark.slow
def test_keeps_the_deepest_where_the_shallow_level_is_blind(tmp_path, boxes, quick, monkeypatch):
    titles = []
    monkeypatch.setattr(worst_cases, "save_overlay", lambda *args, **_: titles.append(args[6]))
    final = verdict(run(half_blind_network(), boxes, tmp_path))
    assert (final.verdict, final.level) == ("keep", "L2")
    assert "L1 fails: anterior is missed" in final.summary
    # the refused level is shown
    assert len(titles) == 4
    assert all("0.000 at L1" in title for title in titles)


@pytest.mark.slow
def test_pictures_show_no_errors_where_the_truth_is_unknown(tmp_path, few_boxes, quick, monkeypatch):
    partial, drawn = Path(shutil.copytree(few_boxes, tmp_path / "partial")), []
    edit_json(partial / "dataset.json", labels={"background": 0, **LABELS, "ignore": 3})
    for path in (partial / "labelsTr").iterdir():
        label = nibabel.load(path)
        voxels = np.asarray(label.dataobj)
        nibabel.save(nibabel.Nifti1Image(np.where(voxels == 2, np.uint8(3), voxels), label.affine), path)
    monkeypatch.setattr(worst_cases, "save_overlay", lambda _, *masks, **__: drawn.extend(masks[:3]))
    run(half_blind_network(), partial, tmp_path / "out")
    assert len(drawn) == 9
    assert all(set(np.unique(mask)) <= {0, 1} for mask in drawn)


@pytest.mark.slow
def test_logs_the_verdict(tmp_path, few_boxes, quick, caplog):
    caplog.set_level("INFO", "monai_unetpp")
    result = run(intensity_network(), few_boxes, tmp_path)
    assert verdict(result).summary in caplog.text
    assert str(tmp_path / "report.html") in caplog.text


@pytest.mark.slow
def test_two_data_sets_give_a_verdict_each_and_one_for_all(tmp_path, boxes, few_boxes, quick):
    result = run(intensity_network(), [boxes, few_boxes], tmp_path)
    assert [(d.dataset, d.verdict) for d in result.decisions] == [
        ("boxes", "prune"),
        ("few", "inconclusive"),
        ("all", "inconclusive"),
    ]
    assert verdict(result) == result.decisions[-1]
    assert {row.dataset for row in result.rows} == {"boxes", "few"}


@pytest.mark.slow
def test_confirms_on_another_data_set(tmp_path, boxes, other_boxes, quick):
    result = run(intensity_network(), boxes, tmp_path, confirm_dir=other_boxes)
    assert [(d.dataset, d.role, d.verdict, d.optimistic) for d in result.decisions] == [
        ("boxes", "choose", "prune", True),
        ("other", "confirm", "prune", False),
    ]
    assert verdict(result) == result.decisions[-1]


@pytest.mark.slow
def test_does_not_confirm_on_too_few_cases(tmp_path, boxes, few_boxes, quick):
    result = run(intensity_network(), boxes, tmp_path, confirm_dir=few_boxes)
    final = verdict(result)
    assert (final.dataset, final.role, final.verdict, final.level) == ("few", "confirm", "inconclusive", "L2")


@pytest.mark.slow
def test_nothing_is_confirmed_where_nothing_was_chosen(tmp_path, boxes, few_boxes, quick):
    result = run(half_blind_network(), boxes, tmp_path, confirm_dir=few_boxes)
    assert [(d.role, d.verdict) for d in result.decisions] == [("choose", "keep")]


@pytest.mark.slow
def test_confirm_share_is_the_share_that_confirms(tmp_path, boxes, quick):
    result = run(intensity_network(), boxes, tmp_path, confirm_share=0.1)
    assert len(result.confirming) == 2
    assert [(d.role, d.cases, d.verdict) for d in result.decisions] == [
        ("choose", 18, "prune"),
        ("confirm", 2, "inconclusive"),
    ]


@pytest.mark.slow
def test_the_choice_must_be_confirmed_on_every_data_set(tmp_path, boxes, other_boxes, quick, monkeypatch):
    # nine in ten cases choose; both data sets have two left, which are too few
    result = run(intensity_network(), [boxes, other_boxes], tmp_path, confirm_share=0.1)
    assert [(d.dataset, d.role) for d in result.decisions] == [
        ("boxes", "choose"),
        ("other", "choose"),
        ("all", "choose"),
        ("boxes", "confirm"),
        ("other", "confirm"),
        ("all", "confirm"),
    ]
    final = verdict(result)
    assert final == result.decisions[-1]
    assert (final.verdict, final.level, final.cases, final.optimistic) == ("inconclusive", "L2", 4, False)
    assert "not confirmed on boxes, other" in final.summary


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("prune", "prune"), ("prune", "Prune to L1, confirmed on each of 2 data sets (a, b).")),
        (("prune", "keep"), ("keep", "Keep L2: the chosen level fails on b.")),
        (("inconclusive", "keep"), ("keep", "Keep L2: the chosen level fails on b.")),
    ],
)
def test_one_data_set_can_stop_the_confirmation(complete, verdicts, expected):
    template = verdict(complete[1])
    decisions = [
        dataclasses.replace(
            template, dataset=name, role="confirm", verdict=each, level="L1" if each == "prune" else "L2"
        )
        for name, each in zip("ab", verdicts, strict=True)
    ]
    joint = join(decisions)
    assert (joint.verdict, joint.summary) == expected
    assert (joint.dataset, joint.cases) == ("all", 40)


@pytest.mark.slow
def test_settings_of_the_rule_are_kept(tmp_path, few_boxes, quick):
    margins = [Margin("dice", 0.05, ("anterior",)), "nsd=0.1"]
    result = run(intensity_network(), few_boxes, tmp_path, margins=margins, max_case_drop=["dice=0.5"], alpha=0.025)
    assert result.rules.margins == (Margin("dice", 0.05, ("anterior",)), Margin("nsd", 0.1))
    assert (result.rules.max_case_drop, result.rules.alpha, result.rules.bootstrap_samples) == (
        {"dice": 0.5, "iou": 0.2, "nsd": 0.4},
        0.025,
        200,
    )
    assert {(c.metric, c.label) for c in result.decisions[0].comparisons} == {
        ("dice", "anterior"),
        ("nsd", "anterior"),
        ("nsd", "posterior"),
    }


# ---------------------------------------------------------------- going on after an interruption


@pytest.mark.slow
def test_second_run_scores_nothing_again(tmp_path, few_boxes, quick, scored):
    first = run(intensity_network(), few_boxes, tmp_path)
    assert len(scored) == 3
    assert run(intensity_network(), few_boxes, tmp_path).rows == first.rows
    assert len(scored) == 3
    run(intensity_network(), few_boxes, tmp_path, **make_pipeline(overlap=0.5))
    assert len(scored) == 6
    # other weights with the same settings
    run(half_blind_network(), few_boxes, tmp_path, **make_pipeline(overlap=0.5))
    assert len(scored) == 9


def test_another_process_has_the_folder(tmp_path, few_boxes, scored, monkeypatch):
    monkeypatch.setattr(files, "_PATIENCE_S", 0.0)
    (tmp_path / "out").mkdir()
    with (
        files.claimed(tmp_path / "out", "evaluates"),
        pytest.raises(BlockingIOError, match="out: another process evaluates there"),
    ):
        run(half_blind_network(), few_boxes, tmp_path / "out")
    assert not scored


@pytest.mark.slow
def test_rules_of_the_evaluation_that_this_one_waited_for_are_told(tmp_path, few_boxes, without_page, monkeypatch):
    run(intensity_network(), few_boxes, tmp_path / "other")

    @contextlib.contextmanager
    def claimed_late(folder, doing):
        shutil.copy(tmp_path / "other" / "report.json", folder)
        yield

    monkeypatch.setattr(evaluation, "claimed", claimed_late)
    settings = run(intensity_network(), few_boxes, tmp_path / "out", margins="dice=0.1").settings
    assert settings["earlier rules"].startswith("margins dice=0.01, nsd=0.02")


@pytest.mark.slow
def test_two_processes_evaluate_as_one(tmp_path, few_boxes):
    bundle = make_prunable_bundle(tmp_path / "bundle")
    found = []
    for processes in (2, 1):
        out = tmp_path / f"by_{processes}"
        command = ("prune", "--dataset_dir", few_boxes, "--bundle", bundle, "-o", out)
        done = run_forked("monai_unetpp", *command, folder=tmp_path, processes=processes, measures_and_draws=False)
        # too few cases for a verdict, which has no exit code of its own under torchrun
        assert done.returncode == (3 if processes == 1 else 0), done.stderr
        found.append(read_report(out / "report.json"))
    assert found[0].rows == found[1].rows
    assert len(found[0].rows) == 3 * 2 * 3


@pytest.mark.slow
def test_interruption_keeps_finished_cases(tmp_path, few_boxes, quick, scored):
    lines = []

    def interrupt(line):
        lines.append(line)
        if len(lines) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(intensity_network(), few_boxes, tmp_path, progress=interrupt)
    assert [line.rpartition(": ")[2] for line in lines] == ["1 of 3", "2 of 3"]
    assert [name for name, _ in scored] == ["case_00", "case_01"]
    result = run(intensity_network(), few_boxes, tmp_path)
    assert [name for name, _ in scored] == ["case_00", "case_01", "case_02"]
    assert len({row.case for row in result.rows}) == 3


@pytest.mark.slow
def test_what_goes_on_after_scoring_is_told(tmp_path, few_boxes, quick):
    lines = []
    run(intensity_network(), few_boxes, tmp_path, progress=lines.append)
    after = lines[[line.endswith("3 of 3") for line in lines].index(True) + 1 :]
    order = [
        "deciding: comparing",
        "deciding: repeating",
        "measuring the costs of L1, L2",
        "drawing",
        "writing the report",
    ]
    assert len(after) == len(order)
    assert all(line.startswith(start) for line, start in zip(after, order, strict=True))


@pytest.mark.slow
def test_further_checkpoint_does_not_cost_the_scores_of_the_first(tmp_path, few_boxes, quick, scored):
    run(intensity_network(), few_boxes, tmp_path)
    torch.save(half_blind_network().state_dict(), tmp_path / "full.pt")
    result = run(intensity_network(), few_boxes, tmp_path, extra={"blind": tmp_path / "full.pt"})
    assert len(scored) == 6
    # of a checkpoint with several levels the deepest counts
    assert result.points[-1].level == "L2"


# ---------------------------------------------------------------- refused before any network work


@pytest.fixture
def no_network_work(monkeypatch):
    # the first time its weights are made, it runs
    intensity_network()

    def fail(*_, **__):
        raise AssertionError("a network was run")

    monkeypatch.setattr(NestedUNet, "_forward", fail)


def test_problems_in_any_data_set_stop_before_the_first_is_scored(tmp_path, few_boxes, no_network_work):
    broken = write_boxes(tmp_path / "broken", 3, seed=9)
    break_label(broken)
    with pytest.raises(ValueError, match=r"cases of 'broken' must be sound, got 1 of 3(.|\n)*got 7"):
        run(intensity_network(), broken, tmp_path / "out")
    with pytest.raises(ValueError, match=r"all data sets must be sound, got 1 of 6(.|\n)*- broken, case_01: .*got 7"):
        run(intensity_network(), [few_boxes, broken], tmp_path / "out")
    with pytest.raises(ValueError, match="- broken, case_01"):
        run(intensity_network(), few_boxes, tmp_path / "out", confirm_dir=broken)


def test_cases_of_one_name_are_refused_with_their_files(tmp_path, few_boxes, no_network_work):
    twice = Path(shutil.copytree(few_boxes, tmp_path / "twice"))
    nibabel.save(nibabel.load(twice / "imagesTr" / "case_00.nii.gz"), twice / "imagesTr" / "case_00.nii")
    again = {"image": "./imagesTr/case_00.nii", "label": "./labelsTr/case_00.nii.gz"}
    edit_json(twice / "dataset.json", lambda content: content["validation"].append(again))
    with pytest.raises(ValueError, match=r"case_00\.nii\.gz.*case_00\.nii: names of cases must differ, got 'case_00'"):
        run(intensity_network(), twice, tmp_path / "out")


@pytest.mark.slow
def test_problems_are_left_out_with_the_flag(tmp_path, few_boxes, quick):
    broken = write_boxes(tmp_path / "broken", 3, seed=9)
    break_label(broken)
    result = run(intensity_network(), [few_boxes, broken], tmp_path / "out", exclude_problems=True)
    assert [(problem.dataset, problem.case) for problem in result.problems] == [("broken", "case_01")]
    assert len({(row.dataset, row.case) for row in result.rows}) == 5


def test_data_sets_must_have_different_names(tmp_path, few_boxes, no_network_work):
    same = Path(shutil.copytree(few_boxes, tmp_path / "b" / "few"))
    with pytest.raises(ValueError, match=r"folders of different names, got 'few' twice\. Rename one"):
        run(intensity_network(), [few_boxes, same], tmp_path / "out")
    with pytest.raises(ValueError, match="got 'few' twice"):
        run(intensity_network(), few_boxes, tmp_path / "out", confirm_dir=few_boxes)
    all_cases = Path(shutil.copytree(few_boxes, tmp_path / "all"))
    with pytest.raises(ValueError, match="must not be called 'all' where there are several"):
        run(intensity_network(), [few_boxes, all_cases], tmp_path / "out")
    with pytest.raises(ValueError, match="dataset_dir must name one data set or more, got none"):
        run(intensity_network(), [], tmp_path / "out")


def test_missing_data_set_stops_at_once(tmp_path, few_boxes, no_network_work):
    with pytest.raises(FileNotFoundError, match=r"nowhere/dataset\.json: no such file"):
        run(intensity_network(), [few_boxes, tmp_path / "nowhere"], tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"confirm_dir": "x", "confirm_share": 0.5}, "confirm_dir and confirm_share exclude each other"),
        ({"confirm_share": 1.0}, r"confirm_share must lie between 0 and 1, got 1\.0"),
        ({"margins": ["dice:Anterior=0.1"]}, r"got 'Anterior'\. Write 'anterior'\."),
        ({"margins": ["dice:tail=0.1"]}, "margins must name labels among anterior, posterior.*, got 'tail'"),
        ({"margins": []}, "margins must name one metric or more"),
        ({"margins": ["dice"]}, "margin must be a name, '=' and a number"),
        ({"max_case_drop": ["dice=-1"]}, "max_case_drop must be positive"),
        ({"budgets": ["money=3"]}, "cost must be one of"),
        ({"utility_weight": -0.1}, r"utility_weight must be 0 or more, got -0\.1"),
        ({"alpha": 0.7}, r"alpha must lie between 0 and 0\.5"),
        ({"bootstrap_samples": 10}, "bootstrap_samples must be 100 or more, got 10"),
        ({"repeats": 0}, "repeats must be 1 or more, got 0"),
        ({"warm_up": -1}, "warm_up must be 0 or more, got -1"),
        ({"window_shape": "auto"}, "window_shape must have 3 sizes of 1 or more, .* got 'auto'"),
        ({"window_shape": (16, 16, -1)}, r"window_shape must have 3 sizes of 1 or more, .* got \(16, 16, -1\)"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"device": "meta"}, "device must be a CPU or a CUDA device, got 'meta'"),
        ({"write": "x"}, "bundle must name the bundle to prune when write is given"),
    ],
)
def test_bad_settings_stop_at_once(tmp_path, few_boxes, no_network_work, settings, message):
    with pytest.raises(ValueError, match=message):
        run(intensity_network(), few_boxes, tmp_path, **settings)


def test_networks_that_cannot_be_pruned_are_refused(tmp_path, few_boxes):
    with pytest.raises(TypeError, match=r"network must be a NestedUNet, got Conv3d\. Convert a BasicUNetPlusPlus"):
        run(torch.nn.Conv3d(1, 3, 1), few_boxes, tmp_path)
    with pytest.raises(ValueError, match="network must have two levels or more, got L1 only"):
        run(intensity_network().prune("L1"), few_boxes, tmp_path)


def test_write_must_be_possible(tmp_path, few_boxes, no_network_work):
    bundle = make_prunable_bundle(tmp_path / "bundle")
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match=r"there: exists already\. Give another folder"):
        run(intensity_network(), few_boxes, tmp_path / "out", bundle=bundle, write=tmp_path / "there")
    # the pruned bundle is cut out of the bundle's own weights, which are not those that would be judged
    with pytest.raises(
        ValueError, match=r"evaluated weights are not the bundle's own, got weights other than .*model\.pt"
    ):
        run(half_blind_network(), few_boxes, tmp_path / "out", bundle=bundle, write=tmp_path / "pruned")


@pytest.mark.slow
def test_weights_that_were_replaced_meanwhile_are_not_pruned(tmp_path, boxes, quick):
    bundle = make_prunable_bundle(tmp_path / "bundle")

    def replace(line):
        if line.startswith("deciding"):
            torch.save(half_blind_network().state_dict(), bundle / "models" / "model.pt")

    network = load_network(bundle / "models" / "model.pt")
    with pytest.raises(ValueError, match="got weights other than"):
        run(network, boxes, tmp_path / "out", bundle=bundle, write=tmp_path / "pruned", progress=replace)
    assert not (tmp_path / "pruned").exists()


def test_missing_extra_stops_at_once(tmp_path, few_boxes, no_network_work, monkeypatch):
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda name: None if name == "matplotlib" else object())
    with pytest.raises(ImportError, match=r'Reports need matplotlib: pip install .*\[report\]"'):
        run(intensity_network(), few_boxes, tmp_path)


def copied(source: Path, target: Path, cases: int | None = None) -> Path:
    folder = Path(shutil.copytree(source, target))
    edit_json(folder / "dataset.json", lambda content: content.update(validation=content["validation"][:cases]))
    return folder


def test_limits_of_a_case_are_merged_over_the_defaults():
    assert Rules(max_case_drop="nsd=0.1").max_case_drop == {"dice": 0.2, "iou": 0.2, "nsd": 0.1}
    assert Rules(max_case_drop=["hd95_mm=5"]).max_case_drop == {"dice": 0.2, "iou": 0.2, "nsd": 0.4, "hd95_mm": 5.0}
    # a dict holds all of them
    assert Rules(max_case_drop={"hd95_mm": 5}).max_case_drop == {"hd95_mm": 5}
    with pytest.raises(ValueError, match="max_case_drop must name a metric once, got 'dice' twice"):
        Rules(max_case_drop=["dice=0.1", "dice=0.2"])


def test_a_bare_text_is_one_setting(tmp_path, few_boxes, quick):
    result = run(
        intensity_network(), few_boxes, tmp_path, margins="dice=0.02", max_case_drop="dice=0.3", budgets="parameters=9"
    )
    assert (result.rules.margins, result.rules.max_case_drop["dice"]) == ((Margin("dice", 0.02),), 0.3)
    assert "parameters<=9" in [trade_off.rule for trade_off in result.trade_offs]


def test_confirming_cases_must_be_others(tmp_path, few_boxes, other_boxes, no_network_work):
    again = copied(few_boxes, tmp_path / "again", 1)
    with pytest.raises(ValueError, match=r"- again, case_00: .*the same image as .*\(few\); they would"):
        run(intensity_network(), few_boxes, tmp_path / "out", confirm_dir=again)
    with pytest.raises(ValueError, match=r"case_00 \(other\): the same subject, 'case_00', as case_00 \(few\)"):
        run(intensity_network(), few_boxes, tmp_path / "out", confirm_dir=other_boxes, subject_pattern="(case_..)")


def test_a_subject_in_several_data_sets_is_on_one_side(few_boxes, other_boxes):
    folders = (few_boxes, other_boxes)
    told = {folder.name: load_datalist(folder, "validation", subject_pattern="(case_..)") for folder in folders}
    kept = confirming_cases(told, EvaluationData(folders, confirm_share=0.5), 1)
    shared = {"case_00", "case_01", "case_02"}
    assert {name for dataset, name in kept if dataset == "few"} == {
        name for dataset, name in kept if dataset == "other" and name in shared
    }
    assert len(kept) > 10
    # names alone are no subjects: each data set is split by itself
    data = {folder.name: load_datalist(folder, "validation") for folder in folders}
    alone = confirming_cases(data, EvaluationData(folders, confirm_share=0.5), 1)
    assert sorted(sum(dataset == name for dataset, _ in alone) for name in data) == [1, 10]


def test_a_name_that_tells_the_subject_alone_is_known_on_both_sides():
    def listed(folder, names):
        return [{"image": f"/{folder}/images/{name}.nii", "label": f"/{folder}/labels/{name}.nii"} for name in names]

    bare = {name: listed(name, [f"patient{number}" for number in range(4)]) for name in "AB"}
    with pytest.raises(ValueError, match=r"- patient0 \(B\): the same subject, 'patient0', as patient0 \(A\)"):
        confirming_cases(bare, EvaluationData(("/A",), confirm_dir="/B"))
    scans = {"A": listed("A", [f"patient{number}{end}" for number in range(6) for end in ("", "_b")]), "B": bare["B"]}
    for seed in range(5):
        kept = confirming_cases(scans, EvaluationData(("/A", "/B"), confirm_share=0.5), seed)
        assert all((("A", f"patient{number}") in kept) == (("A", f"patient{number}_b") in kept) for number in range(6))


def test_confirm_share_needs_two_subjects(tmp_path, few_boxes, no_network_work):
    one = copied(few_boxes, tmp_path / "one", 1)
    with pytest.raises(ValueError, match="confirm_share must have two subjects or more to split, got one in one"):
        run(intensity_network(), one, tmp_path / "out", confirm_share=0.5)


def test_further_checkpoint_must_fit_the_network(tmp_path, few_boxes, no_network_work):
    config = {**intensity_network().config, "out_channels": 5}
    torch.save(NestedUNet(**config).state_dict(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"extra must have the out_channels of the network, 3, got 5 for 'other'"):
        run(intensity_network(), few_boxes, tmp_path / "out", extra={"other": tmp_path / "other.pt"})


def test_what_cannot_be_written_is_refused_first(tmp_path, few_boxes, no_network_work):
    bundle = make_prunable_bundle(tmp_path / "bundle")

    def write(target, **settings):
        run(intensity_network(), few_boxes, tmp_path / "w" / "out", bundle=bundle, write=target, **settings)

    with pytest.raises(ValueError, match="target must lie outside of the bundle"):
        write(bundle / "pruned")
    with pytest.raises(ValueError, match="write must not hold output_dir"):
        write(tmp_path / "w")
    (tmp_path / "thesis").mkdir()
    with pytest.raises(FileExistsError, match="thesis: is no bundle, so it is not replaced"):
        write(tmp_path / "thesis", overwrite=True)
    with pytest.raises(
        ValueError, match=r"segments differently from the evaluation, got overlap 0\.25 instead of 0\.5"
    ):
        write(tmp_path / "pruned", **make_pipeline(overlap=0.5))
    (bundle / "docs" / "data_license.txt").unlink()
    with pytest.raises(ValueError, match=r"must pass the checks.*data_license\.txt"):
        write(tmp_path / "pruned")


@pytest.mark.slow
def test_settings_and_earlier_rules_are_told(tmp_path, few_boxes, without_page):
    first = run(intensity_network(), few_boxes, tmp_path)
    assert first.settings == {
        "window": "16x16x16",
        "overlap of windows": "0.25",
        "blending of windows": "constant",
        "flips along axes": "none",
        "precision": "fp32",
        "list of cases": "validation",
        "runs per latency": "1",
    }
    # how costs are measured is no rule
    again = run(intensity_network(), few_boxes, tmp_path, repeats=2, volume_share=0.5)
    assert "earlier rules" not in again.settings
    later = run(intensity_network(), few_boxes, tmp_path, margins="dice=0.1").settings
    assert later["earlier rules"].startswith("margins dice=0.01, nsd=0.02; alpha 0.05; largest drops dice=0.2")


@pytest.mark.slow
def test_a_lower_least_dice_of_the_reference_leaves_a_trace(tmp_path, few_boxes, without_page):
    run(intensity_network(), few_boxes, tmp_path)
    later = run(intensity_network(), few_boxes, tmp_path, min_reference=0.2).settings
    assert "least Dice of the deepest level 0.5" in later["earlier rules"]


@pytest.mark.slow
def test_another_seed_leaves_a_trace(tmp_path, few_boxes, without_page):
    run(intensity_network(), few_boxes, tmp_path)
    assert run(intensity_network(), few_boxes, tmp_path, seed=1).settings["earlier rules"].endswith("; seed 0")


@pytest.mark.slow
def test_another_tolerance_leaves_a_trace(tmp_path, few_boxes, without_page):
    run(intensity_network(), few_boxes, tmp_path)
    later = run(intensity_network(), few_boxes, tmp_path, tolerance_mm=dict.fromkeys(LABELS, 6.0)).settings
    assert later["earlier rules"].endswith("; tolerances anterior=1, posterior=1, foreground=1")
    # that of the foreground alone, which a margin may guard
    alone = {**dict.fromkeys(LABELS, 6.0), "foreground": 7.0}
    last = run(intensity_network(), few_boxes, tmp_path, tolerance_mm=alone).settings
    assert last["earlier rules"].endswith("; tolerances anterior=6, posterior=6, foreground=6")


@pytest.mark.slow
def test_other_subjects_leave_a_trace(tmp_path, few_boxes, without_page):
    pairs = {"case_00": "a", "case_01": "a", "case_02": "b"}
    run(intensity_network(), few_boxes, tmp_path, subjects=pairs)
    same = {case: f"subject {subject}" for case, subject in pairs.items()}
    assert "earlier rules" not in run(intensity_network(), few_boxes, tmp_path, subjects=same).settings
    later = run(intensity_network(), few_boxes, tmp_path).settings
    assert later["earlier rules"].endswith("; 3 cases of 2 subjects")


@pytest.mark.slow
def test_cases_that_are_added_after_a_verdict_leave_a_trace(tmp_path, few_boxes, without_page):
    run(intensity_network(), few_boxes, tmp_path, only=("case_00", "case_01"))
    later = run(intensity_network(), few_boxes, tmp_path).settings
    assert later["earlier rules"].endswith("; 2 cases of 2 subjects")
    # another data set beside them is judged by itself
    other = shutil.copytree(few_boxes, tmp_path / "other")
    for path in other.glob("imagesTr/*"):
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(image.get_fdata() + 1, image.affine), path)
    run(intensity_network(), few_boxes, tmp_path / "alone")
    assert "earlier rules" not in run(intensity_network(), [few_boxes, other], tmp_path / "alone").settings
    # which withheld the verdict
    later = run(intensity_network(), few_boxes, tmp_path / "alone").settings
    assert later["earlier rules"].endswith("; 6 cases of 3 subjects in few, other")


@pytest.mark.slow
def test_rules_for_other_cases_are_none_that_came_before(tmp_path, few_boxes, without_page):
    run(intensity_network(), few_boxes, tmp_path)
    others = shutil.copytree(few_boxes, tmp_path / "others")
    assert "earlier rules" not in run(intensity_network(), others, tmp_path, margins="dice=0.1").settings


@pytest.mark.slow
def test_a_choice_whose_confirming_cases_all_have_problems_is_none(tmp_path, quick):
    boxes = write_boxes(tmp_path / "boxes", 20)
    held_out = draw_subjects([f"case_{number:02d}" for number in range(20)], 0.05, 0)
    for name in held_out:
        path = boxes / "labelsTr" / f"{name}.nii.gz"
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.full(image.shape, 7, np.uint8), image.affine), path)
    options = {"confirm_share": 0.05, "exclude_problems": True}
    with pytest.raises(ValueError, match="confirming cases must be scored, got none of boxes: all have problems"):
        run(intensity_network(), boxes, tmp_path / "out", **options)


def test_a_wrong_training_list_is_refused_before_any_case_is_scored(tmp_path, few_boxes, scored):
    with pytest.raises(ValueError, match="training_cases"):
        run(intensity_network(), few_boxes, tmp_path, training_list="training_cases")
    assert scored == []


@pytest.fixture
def broken_training(tmp_path, few_boxes):
    """Two judging cases, and a training list of the others, of which one has a label that nobody named."""
    folder = shutil.copytree(few_boxes, tmp_path / "broken")
    break_label(folder)
    listed = json.loads((folder / "dataset.json").read_text())["training"]
    edit_json(folder / "dataset.json", training=listed[1:], validation=listed[:1])
    return folder


def test_training_cases_with_problems_are_refused_before_any_case_is_scored(tmp_path, broken_training, scored):
    with pytest.raises(
        ValueError, match=r"(?s)training_list 'training' must be sound, got 1 of 2 .* broken, case_01: "
    ):
        run(intensity_network(), broken_training, tmp_path / "out", training_list="training")
    content = json.loads((broken_training / "dataset.json").read_text())
    edit_json(broken_training / "dataset.json", training=content["training"][:1])
    with pytest.raises(ValueError, match=r"(?s)got 1 of 1 with a problem:.*\nCorrect them, leave out the list\.$"):
        run(
            intensity_network(),
            broken_training,
            tmp_path / "out",
            training_list="training",
            exclude_problems=True,
        )
    assert scored == []


def test_training_cases_that_are_left_out_are_told(tmp_path, broken_training, quick):
    given = {"training_list": "training", "exclude_problems": True}
    result = run(intensity_network(), broken_training, tmp_path / "out", **given)
    assert [(problem.case, problem.reason[:24]) for problem in result.problems] == [
        ("case_01", "in the list 'training': ")
    ]
    assert result.training_gap


def test_a_training_case_on_which_the_network_fails_is_told_as_one(tmp_path, few_boxes, quick, monkeypatch):
    evaluate = evaluation_stages.evaluate_levels

    def failing(network, entries, scoring):
        if "training_scores" in str(scoring.store):
            raise ValueError("broken")
        return evaluate(network, entries, scoring)

    monkeypatch.setattr(evaluation_stages, "evaluate_levels", failing)
    with pytest.raises(ValueError, match=r"training_list must name cases .* got a failure in 'training': broken"):
        run(intensity_network(), few_boxes, tmp_path, training_list="training")


def test_names_of_labels_that_stand_for_other_values_are_refused(tmp_path, few_boxes, scored):
    folder = shutil.copytree(few_boxes, tmp_path / "swapped")
    edit_json(folder / "dataset.json", labels={"0": "background", "1": "Posterior", "2": "Anterior"})
    with pytest.raises(ValueError, match=r"dataset\.json: labels must .* got 2 for 'Anterior' instead of 1\. Give it"):
        run(intensity_network(), [few_boxes, folder], tmp_path / "out")
    assert scored == []


@pytest.mark.parametrize(
    "labels", [{"Anterior": 1, "tail": 2}, {"left": 1, "right": 2}, {"ANTERIOR": 3, "anterior": 1}]
)
def test_other_names_of_labels_are_taken(tmp_path, few_boxes, quick, labels):
    folder = shutil.copytree(few_boxes, tmp_path / "renamed")
    edit_json(folder / "dataset.json", labels=labels)
    assert len(run(intensity_network(), folder, tmp_path / "out").rows) == 18


def test_logits_that_are_not_finite_have_no_score(tmp_path, few_boxes, quick):
    network = intensity_network()
    with torch.no_grad():
        next(iter(network.heads.values())).bias.fill_(float("nan"))
    with pytest.raises(RuntimeError, match=r"no case .* network must give finite logits, got NaN or infinity"):
        run(network, few_boxes, tmp_path)


def test_energy_is_no_budget_where_the_machine_does_not_tell_it(tmp_path, few_boxes, quick, monkeypatch):
    monkeypatch.setattr(evaluation_stages, "find_counter", lambda _: None)
    with pytest.raises(ValueError, match="budget must not limit energy_j here"):
        run(intensity_network(), few_boxes, tmp_path, budgets="energy_j=5")


@pytest.mark.slow
def test_an_older_pruned_bundle_is_said_not_to_belong(tmp_path, few_boxes, quick, caplog):
    bundle = make_prunable_bundle(tmp_path / "bundle")
    old = write_pruned_bundle(bundle, "L1", tmp_path / "old")
    run(intensity_network(), few_boxes, tmp_path / "out", bundle=bundle, write=old, overwrite=True)
    assert f"{old} is from an earlier run and does not belong to this verdict" in caplog.text


def test_the_level_that_failed_is_shown(complete):
    points = tuple(OperatingPoint(level, level) for level in ("L1", "L2", "L3", "L4"))
    chosen = dataclasses.replace(verdict(complete[1]), role="choose", level="L1")
    failed = dataclasses.replace(chosen, role="confirm", verdict="keep", level="L4")
    refused = dataclasses.replace(chosen, verdict="keep", level="L4")
    shown = {(chosen, failed): "L1", (chosen,): "L1", (refused,): "L3"}
    for decisions, level in shown.items():
        assert shown_loser(dataclasses.replace(complete[1], points=points, decisions=decisions)).name == level


# ---------------------------------------------------------------- settings as text


def test_settings_are_the_same_text_for_separately_built_pipelines():
    first, second = describe_settings(make_pipeline()), describe_settings(make_pipeline())
    assert first == second
    assert " at 0x" not in first


SETTINGS = """[
    {"a", "b", "c", "d"},
    monai.transforms.Lambda(lambda x: x in {"e", "f", "g"}),
    functools.partial(int, base=3),
    monai.transforms.Spacingd("image", pixdim=(1, 1, 2)),
]"""


@pytest.mark.slow
def test_settings_are_the_same_text_in_a_process_of_its_own(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import functools, monai.transforms\n"
        "from monai_unetpp.pruning.pipeline_text import describe_settings\n"
        f"print(describe_settings({SETTINGS}), hash('text'), sep='\\n')"
    )
    done = run_forked(program, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    described, hashed = done.stdout.splitlines()
    # sets have another order there
    assert int(hashed) != hash("text")
    assert described == describe_settings(eval(SETTINGS, {"functools": functools, "monai": monai}))


def scale(x, factor):
    return x * factor


def from_config(gain):
    """A transform whose expression refers to a value of the configuration."""
    transform = {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x * @gain"}
    parser = ConfigParser({"gain": gain, "unused": object(), "transform": transform})
    return parser.get_parsed_content("transform")


def of_module(gain):
    """A function that refers to a global value."""
    namespace = {"GAIN": gain, "__name__": "settings", "logging": logging}
    exec("def inner(x):\n    return x * GAIN\ndef outer(x):\n    logging.debug(x)\n    return inner(x)", namespace)
    return namespace["outer"]


class Gain(torch.nn.Module):
    """What it does is neither in its weights nor in its printed form."""

    def __init__(self, gain):
        super().__init__()
        self.gain = gain


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (make_pipeline(), make_pipeline(overlap=0.5)),
        (Spacingd("image", pixdim=(1, 1, 1)), Spacingd("image", pixdim=(1, 1, 2))),
        (AsDiscreted("pred", argmax=True), AsDiscreted("pred", threshold=0.5)),
        (Lambdad("image", lambda x: x > 1), Lambdad("image", lambda x: x > 2)),
        (Lambdad("image", lambda x: x.max()), Lambdad("image", lambda x: x.min())),
        (functools.partial(scale, factor=1), functools.partial(scale, factor=2)),
        (torch.float16, torch.float32),
        (np.float32(1), np.float32(2)),
        (Compose([], lazy=True), Compose([], lazy=False)),
        (torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)),
        ({1, 2}, {1, 3}),
        (Path("a"), Path("b")),
        (from_config(1.0), from_config(-1.0)),
        (of_module(1.0), of_module(-1.0)),
        (Gain(1.0), Gain(-1.0)),
        (torch.nn.Sequential(Gain(1.0)), torch.nn.Sequential(Gain(-1.0))),
    ],
)
def test_changed_settings_are_another_text(one, other):
    assert describe_settings(one) != describe_settings(other)


@pytest.mark.parametrize("make", [from_config, of_module, Gain])
def test_what_settings_refer_to_is_the_same_text_each_time(make):
    assert describe_settings(make(1.0)) == describe_settings(make(1.0))


def test_settings_are_the_same_text_after_use(few_boxes):
    pipeline = make_pipeline()
    before = describe_settings(pipeline)
    pipeline["preprocessing"](load_datalist(few_boxes, "validation")[0])
    assert describe_settings(pipeline) == before


def test_settings_may_refer_to_themselves():
    value: list = [1]
    value.append(value)
    assert json.loads(describe_settings(value)) == [1, "the same object again"]


def test_some_cases_can_be_scored_with_small_volumes_and_no_pictures(few_boxes, tmp_path, quick):
    told = "1 of 3 cases was not scored."
    names = ("case_00", "case_02")
    limits = {"only": names, "unscored": told, "volume_share": 0.3, "pictures": 0}
    result = run(intensity_network(), few_boxes, tmp_path, window_shape=(4, 4, 4), **limits)
    assert {row.case for row in result.rows} == set(names)
    assert result.settings["cases not scored"] == told
    assert told in result.doubts
    assert result.overlays == ()
    (measured,) = {cost.volume_shape for cost in result.costs.values()}
    assert np.prod(measured) == pytest.approx(0.3 * np.prod(SHAPE), rel=0.25)
    with pytest.raises(ValueError, match="volume_share must lie above 0 and up to 1, got 0"):
        run(intensity_network(), few_boxes, tmp_path, volume_share=0)
