"""Out-of-fold scores of several folds judge the levels together."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from forked import draw_nothing
from tiny_pruning import (
    LABELS,
    SHAPE,
    fake_costs,
    half_blind_network,
    intensity_network,
    make_pipeline,
    make_prunable_bundle,
)

from monai_unetpp.bundles import read_metadata, write_training_record
from monai_unetpp.bundles.training_record import LAST
from monai_unetpp.data import load_datalist
from monai_unetpp.files import write_text
from monai_unetpp.metrics import LabelScore
from monai_unetpp.pruning import (
    PruningPlan,
    evaluate_levels,
    evaluation_stages,
    judge,
    prune,
    verdict,
    write_pruned_bundle,
)
from monai_unetpp.pruning.report.opening import trust_sentences
from monai_unetpp.pruning.scoring.folds import check_truth, fold_lists, format_scores, join_folds, read_folds
from monai_unetpp.pruning.scoring.levels import Scores

TOLERANCE = dict.fromkeys(LABELS, 1.0)


@pytest.fixture(scope="module")
def folds(boxes) -> list[Scores]:
    entries = load_datalist(boxes, "training")
    how = {**make_pipeline(), "labels": LABELS, "tolerance_mm": TOLERANCE, "dataset": "boxes"}
    return [evaluate_levels(intensity_network(), entries[start::2], **how) for start in range(2)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(evaluation_stages, "measure_costs", fake_costs)


def plan_of(boxes: Path, folder: Path, **changes) -> PruningPlan:
    fields = {
        **make_pipeline(),
        "network": half_blind_network(),
        "labels": LABELS,
        "tolerance_mm": TOLERANCE,
        "window_shape": SHAPE,
        "dataset_dir": boxes,
        "output_dir": folder,
        "list_key": "training",
        "bootstrap_samples": 200,
        "progress": False,
    }
    return PruningPlan.of(**fields | changes)


@pytest.mark.slow
def test_the_networks_of_the_folds_are_judged_and_not_the_final_one(tmp_path, boxes, folds, monkeypatch) -> None:
    result = judge(folds, plan_of(boxes, tmp_path, pictures=1))
    final = verdict(result)
    # the network of the plan is blind at L1; it is measured, not scored
    assert (final.verdict, final.level, final.subjects) == ("prune", "L1", 20)
    assert set(result.costs) == {"L1", "L2"}
    assert (tmp_path / "report.html").is_file()
    assert result.settings["list of cases"] == "out of fold, 2 networks"
    assert "scores" not in result.settings
    sentences = trust_sentences(result)
    assert any("was not trained on its subject, if the given scores are those of folds" in each for each in sentences)
    assert not any("does not say" in sentence for sentence in sentences)
    draw_nothing(monkeypatch)
    known = judge(folds, plan_of(boxes, tmp_path / "known", pictures=0), networks=[intensity_network()] * 2)
    told = "Each case of boxes was scored by a network that was not trained on its subject."
    assert told in trust_sentences(known)


@pytest.mark.slow
def test_a_verdict_stands_though_the_final_network_was_trained_on_all_cases(
    tmp_path, boxes, folds, without_page
) -> None:
    bundle = make_prunable_bundle(tmp_path / "bundle", half_blind_network())
    write_training_record(bundle, training=load_datalist(boxes, "training"), rule=LAST)
    result = judge(folds, plan_of(boxes, tmp_path / "out", bundle=bundle))
    assert verdict(result).verdict == "prune"
    # what other networks scored is nothing that the pruned one achieved
    pruned = write_pruned_bundle(bundle, "L1", tmp_path / "pruned", result=dataclasses.replace(result, costs={}))
    assert "eval_metrics" not in read_metadata(pruned)
    assert read_metadata(pruned)["pruned_from"]["out_of_fold"] is True
    assert "figures are of other networks" in (pruned / "docs" / "README.md").read_text(encoding="utf-8")
    assert [(each.cases, each.training, each.out_of_fold) for each in result.exposures] == [(20, 20, True)]
    sentences = trust_sentences(result)
    assert "No judging case trained the network or chose its weights." not in sentences
    assert any("The network of the bundle was trained on 20 of these 20 cases" in sentence for sentence in sentences)


@pytest.mark.slow
def test_tables_on_disk_are_the_same_as_scores_in_memory(tmp_path, boxes, folds, without_page) -> None:
    tables = [tmp_path / f"fold_{number}.csv" for number in range(2)]
    for table, fold in zip(tables, folds, strict=True):
        write_text(table, format_scores(fold.rows, TOLERANCE))
    # the cases of both folds are in both lists
    entries, halves = load_datalist(boxes, "training"), tmp_path / "boxes"
    halves.mkdir()
    content = {"training": entries[:10], "validation": entries[10:]}
    (halves / "dataset.json").write_text(json.dumps(content, default=str))
    result = prune(plan_of(halves, tmp_path / "out", scores=tables, list_key="validation"))
    assert not any("no table of scores" in doubt for doubt in result.doubts)
    in_memory = judge(folds, plan_of(halves, tmp_path / "in_memory", list_key="validation"))
    assert not any("have other cases in its list" in doubt for doubt in (*result.doubts, *in_memory.doubts))
    assert result.rows == join_folds(folds, "boxes").rows
    assert "do not say how images were segmented" in result.settings["scores"]
    # which networks these tables are of is not known
    trusted = "was not trained on its subject, if the given scores are those of folds, which was not checked."
    assert any(sentence.endswith(trusted) for sentence in trust_sentences(result))


@pytest.mark.slow
def test_cases_in_no_table_are_told(tmp_path, boxes, folds, without_page, caplog) -> None:
    tables = tables_of(tmp_path, folds, lambda row: None if row.case in ("case_00", "case_01", "case_17") else row)
    entries, parts = load_datalist(boxes, "training"), tmp_path / "boxes"
    parts.mkdir()
    # no case of the third list was scored
    content = {"training": entries[:16], "validation": entries[16:], "later": entries[:2]}
    (parts / "dataset.json").write_text(json.dumps(content, default=str))
    result = prune(plan_of(parts, tmp_path / "out", scores=tables, list_key="later"))
    told = (
        "2 of 16 cases of the list 'training' and 1 of 4 cases of the list 'validation' are in no table of scores: the "
        "verdict is without them. Give the tables of all folds."
    )
    assert told in result.doubts
    assert told in caplog.text
    assert told in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8").replace("\\", "")


@pytest.mark.slow
def test_tables_of_several_data_sets_are_refused_and_a_renamed_one_is_not(tmp_path, boxes, folds) -> None:
    entries = load_datalist(boxes, "training")
    renamed = tables_of(tmp_path, folds, lambda row: dataclasses.replace(row, dataset="before"))
    read = read_folds(renamed, entries, ["L1", "L2"], "boxes", TOLERANCE)
    assert {row.dataset for fold in read for row in fold.rows} == {"boxes"}
    for other in ({"case_03"}, {case.name for case in folds[1].cases}):
        mixed = tables_of(
            tmp_path, folds, lambda row, other=other: dataclasses.replace(row, dataset=f"set {row.case in other}")
        )
        with pytest.raises(ValueError, match=r"must be of one data set, got 'set False' in .*, 'set True' in .*1\.csv"):
            read_folds(mixed, entries, ["L1", "L2"], "boxes", TOLERANCE)


def test_tables_without_subjects_have_those_that_names_tell(tmp_path, folds) -> None:
    names = {case.name: f"sub-{int(case.name[-2:]) // 2}_scan{case.name[-1]}" for fold in folds for case in fold.cases}
    entries = [{"image": f"{name}.nii.gz", "label": f"{name}_seg.nii.gz"} for name in names.values()]
    tables = tables_of(tmp_path, folds, lambda row: dataclasses.replace(row, case=names[row.case], subject=""))
    read = read_folds(tables, entries, ["L1", "L2"], "boxes", TOLERANCE)
    assert {row.subject for fold in read for row in fold.rows} == {name.split("_")[0] for name in names.values()}
    with pytest.raises(ValueError, match="folds must share no subject"):
        join_folds(read, "boxes")


@pytest.mark.parametrize("points", [("L1", "L2"), ("L2",)])
def test_scores_against_other_labels_are_refused(tmp_path, boxes, folds, points) -> None:
    tables = tables_of(
        tmp_path,
        folds,
        lambda row: (
            dataclasses.replace(row, score=dataclasses.replace(row.score, truth_ml=0.1))
            if (row.case, row.label) == ("case_02", "posterior") and row.point in points
            else row
        ),
    )
    message = rf"of the cases of 'boxes', got 0\.1 ml as the true volume of posterior in case_02 at {points[0]}, where"
    with pytest.raises(ValueError, match=message):
        prune(plan_of(boxes, tmp_path / "out", scores=tables))


def test_subjects_that_are_given_replace_those_of_the_tables(tmp_path, boxes, folds) -> None:
    tables = [tmp_path / f"fold_{number}.csv" for number in range(2)]
    rows = [row for fold in folds for row in fold.rows]
    for number, table in enumerate(tables):
        of_fold = (row for row in rows if row.case.startswith(f"case_{number}"))
        write_text(table, format_scores(of_fold, TOLERANCE))
    read = read_folds(
        tables, fold_lists(boxes, "training", subject_pattern="case_(.)")["training"], ["L1", "L2"], "boxes", TOLERANCE
    )
    assert [{row.subject for row in fold.rows} for fold in read] == [{"0"}, {"1"}]
    assert [{case.subject for case in fold.cases} for fold in read] == [{"0"}, {"1"}]
    own = read_folds(tables, fold_lists(boxes, "training")["training"], ["L1", "L2"], "boxes", TOLERANCE)
    assert all(row.subject == row.case for fold in own for row in fold.rows)
    # each of these folds has cases of both subjects
    for table, fold in zip(tables, folds, strict=True):
        write_text(table, format_scores(fold.rows, TOLERANCE))
    with pytest.raises(ValueError, match="folds must share no subject, got '0' in folds 0 and 1"):
        prune(plan_of(boxes, tmp_path / "out", scores=tables, subject_pattern="case_(.)"))


@pytest.mark.parametrize("exclude_problems", [False, True])
def test_a_copy_of_an_image_in_another_fold_is_refused(tmp_path, boxes, folds, exclude_problems) -> None:
    original, other = folds[0].cases[0], folds[1].cases[0]
    shutil.copy(original.image[0], tmp_path / "copy.nii.gz")
    copy = dataclasses.replace(other, image=(tmp_path / "copy.nii.gz",), label=original.label)
    copied = dataclasses.replace(folds[1], cases=(copy, *folds[1].cases[1:]))
    message = r"(?s)folds must be sound, got 1 of 20 .*- boxes, case_01: .* the same image .* exclude_problems does not"
    with pytest.raises(ValueError, match=message):
        judge([folds[0], copied], plan_of(boxes, tmp_path / "out", exclude_problems=exclude_problems))


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        ("state", "fine", "line 2: state must be one of ok, missed, false_positive, both_empty, got 'fine'. Write"),
        ("dice", "", "line 2: dice must be a number in the state 'ok', got nothing"),
        ("nsd", "nan", "line 2: nsd must be a finite number, got 'nan'"),
        ("nsd", "good", "line 2: nsd must be a finite number, got 'good'"),
        ("dice", "87.3", "line 2: dice must be between 0 and 1, got 87.3"),
        ("nsd", "-0.1", "line 2: nsd must be between 0 and 1, got -0.1"),
        ("hd95_mm", "-1", "line 2: hd95_mm must be at least 0, got -1"),
        ("truth_ml", "-1", "line 2: truth_ml must be at least 0, got -1"),
        ("state", "missed", "line 2: (dice|iou) must be 0 in the state 'missed', got"),
        ("state", "both_empty", "line 2: (prediction|truth)_ml must be 0 in the state 'both_empty', got"),
        ("iou", "0.01", r"line 2: iou must be 1 with a Dice of 1, got 0\.01\. Write"),
        (
            "prediction_ml",
            "0",
            r"line 2: prediction_ml must be above 0 in the state 'ok' with a Dice of 1, got 0\. Write",
        ),
        ("truth_ml", "0.000", "line 2: truth_ml must be above 0 in the state 'ok'"),
    ],
)
def test_scores_that_cannot_be_are_refused(tmp_path, boxes, folds, column, text, message) -> None:
    table = tmp_path / "fold.csv"
    write_text(table, format_scores(folds[0].rows, TOLERANCE))
    with table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    lines[0][column] = text
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    with pytest.raises(ValueError, match=message):
        read_folds([table, table], load_datalist(boxes, "training"), ["L1", "L2"], "boxes", TOLERANCE)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (
            LabelScore("missed", 0.0, 0.0, 9.0, 0.0, 0.0, 1.7, 1.7),
            "prediction_ml must be 0 in the state 'missed', got 1.7",
        ),
        (LabelScore("missed", 0.0, 0.0, 9.0, 0.5, -1.7, 0.0, 1.7), "nsd must be 0 in the state 'missed', got 0.5"),
        (LabelScore("false_positive", 0.0, 0.0, 9.0, 0.0, 0.0, 1.7, 1.7), "truth_ml must be 0 in the state 'false_pos"),
    ],
)
def test_states_that_contradict_the_figures_are_refused(tmp_path, boxes, folds, score, message) -> None:
    tables = tables_of(tmp_path, folds, lambda row: dataclasses.replace(row, score=score))
    with pytest.raises(ValueError, match=message):
        read_folds(tables, load_datalist(boxes, "training"), ["L1", "L2"], "boxes", TOLERANCE)


@pytest.mark.parametrize(
    "score",
    [
        # of a voxel or two, or rounded
        LabelScore("ok", 0.667, 0.5, 1.0, 1.0, 0.0, 0.0, 0.0),
        LabelScore("ok", 0.0, 0.0, 50.0, 0.0, -1.7, 0.0, 1.7),
        LabelScore("ok", 0.95, 0.9, 1.0, 1.0, 0.0, 1.7, 1.7),
        LabelScore("false_positive", 0.0, 0.0, 50.0, 0.0, 0.0, 0.0, 0.0),
        LabelScore("missed", 0.0, 0.0, 50.0, 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_what_rounding_explains_is_read(tmp_path, boxes, folds, score) -> None:
    tables = tables_of(tmp_path, folds, lambda row: dataclasses.replace(row, score=score))
    read = read_folds(tables, load_datalist(boxes, "training"), ["L1", "L2"], "boxes", TOLERANCE)
    assert {row.score for fold in read for row in fold.rows} == {score}


@pytest.mark.parametrize(("state", "volume", "told"), [("missed", 0.0, "0"), ("false_positive", 1.7, "1.7")])
def test_states_that_contradict_the_label_map_are_refused(folds, state, volume, told) -> None:
    score = LabelScore(state, 0.0, 0.0, 9.0, 0.0, 0.0, 1.7, volume)
    row = dataclasses.replace(folds[0].rows[0], label="anterior", score=score)
    scores = dataclasses.replace(folds[0], rows=(row,))
    message = rf"of the cases of 'boxes', got {state!r} for anterior in case_00 at L1, where its label has {told} ml"
    with pytest.raises(ValueError, match=message):
        check_truth(scores, {row.case: {1: volume}}, LABELS, "boxes")


def test_a_table_of_a_spreadsheet_is_read_and_others_are_refused_by_name(tmp_path, boxes, folds) -> None:
    entries, table, other = load_datalist(boxes, "training"), tmp_path / "fold.csv", tmp_path / "other.csv"
    write_text(other, format_scores(folds[1].rows, TOLERANCE))
    text = format_scores((dataclasses.replace(row, subject="") for row in folds[0].rows), TOLERANCE)
    table.write_text(text, encoding="utf-8-sig")
    read = read_folds([table, other], entries, ["L1", "L2"], "boxes", TOLERANCE)[0]
    # without a subject, each case is its own
    assert {row.subject for row in read.rows} == {case.name for case in folds[0].cases}
    table.write_bytes(text.replace("ok", "\xfc").encode("latin-1"))
    with pytest.raises(ValueError, match=r"fold\.csv: scores must be a CSV file in UTF-8, got other bytes"):
        read_folds([table, other], entries, ["L1", "L2"], "boxes", TOLERANCE)
    table.write_text(text.splitlines()[0] + "\n")
    with pytest.raises(ValueError, match=r"fold\.csv: must hold scores of L1, L2, got none"):
        read_folds([table, other], entries, ["L1", "L2"], "boxes", TOLERANCE)


def test_tables_of_other_tolerances_are_refused(tmp_path, boxes, folds, caplog):
    tables = tables_of(tmp_path, folds)
    entries = load_datalist(boxes, "training")
    wider = dict.fromkeys(LABELS, 6.0)
    with pytest.raises(
        ValueError, match=r"fold_0.csv, line 2: the surface Dice of anterior must have .* 6 mm, got 1 mm"
    ):
        read_folds(tables, entries, ["L1", "L2"], "boxes", wider)
    assert not caplog.text
    # those of earlier versions do not tell
    for table in tables:
        with table.open(newline="") as file:
            rows = [row[:-1] for row in csv.reader(file)]
        with table.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    assert read_folds(tables, entries, ["L1", "L2"], "boxes", wider)[0].rows == folds[0].rows
    assert caplog.text.count("does not say at which tolerances its surface Dice was computed") == 2


def tables_of(folder: Path, folds, change=lambda row: row) -> list[Path]:
    """Tables of the folds with changed rows; those for which ``change`` gives None are left out."""
    tables = [folder / f"fold_{number}.csv" for number in range(2)]
    for table, fold in zip(tables, folds, strict=True):
        write_text(table, format_scores(filter(None, map(change, fold.rows)), TOLERANCE))
    return tables


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda row: None if row.label == "posterior" else row, "anterior, foreground"),
        (
            lambda row: dataclasses.replace(row, label="liver") if row.label == "posterior" else row,
            "anterior, liver, foreground",
        ),
        (lambda row: row if row.label == "foreground" else None, "foreground"),
        (lambda row: row if row.point == "L2" else None, "none"),
    ],
)
def test_scores_with_other_labels_give_no_verdict(tmp_path, boxes, folds, change, found) -> None:
    tables = tables_of(tmp_path, folds, change)
    message = f"scores must cover the labels anterior, posterior, foreground, got {found} for case_00 at L1. Score"
    with pytest.raises(ValueError, match=message):
        prune(plan_of(boxes, tmp_path / "out", scores=tables))


@pytest.mark.slow
def test_empty_cells_of_what_is_nowhere_are_volumes_of_0(tmp_path, boxes, folds, without_page) -> None:
    nowhere = LabelScore("both_empty", None, None, None, None, None, None, None)
    lacking, changed = shutil.copytree(boxes, tmp_path / "boxes"), {"case_00", "case_01"}
    for case in changed:
        path = lacking / "labelsTr" / f"{case}.nii.gz"
        label = nibabel.load(path)
        voxels = np.asarray(label.dataobj)
        nibabel.save(nibabel.Nifti1Image(voxels * (voxels == 1), label.affine), path)
    anterior = {row.case: row.score for fold in folds for row in fold.rows if row.label == "anterior"}
    scores = {"anterior": anterior, "posterior": dict.fromkeys(changed, nowhere), "foreground": anterior}
    tables = tables_of(
        tmp_path,
        folds,
        lambda row: dataclasses.replace(row, score=scores[row.label][row.case]) if row.case in changed else row,
    )
    result = prune(plan_of(lacking, tmp_path / "out", scores=tables))
    volumes = {
        (row.score.truth_ml, row.score.prediction_ml, row.score.volume_difference_ml)
        for row in result.rows
        if row.score.state == "both_empty"
    }
    assert volumes == {(0.0, 0.0, 0.0)}


def test_what_does_not_go_together_is_refused(tmp_path, boxes, folds) -> None:
    with pytest.raises(ValueError, match="folds must share no subject, got 'case_00' in folds 0 and 1"):
        join_folds([folds[0], folds[0]], "boxes")
    with pytest.raises(ValueError, match="folds must hold scores, got none"):
        join_folds([], "boxes")
    other = dataclasses.replace(folds[1], points=folds[1].points[:1])
    with pytest.raises(ValueError, match="folds must be scored at the same points"):
        join_folds([folds[0], other], "boxes")
    with pytest.raises(ValueError, match="folds must be of the data set 'others', got boxes"):
        join_folds(folds, "others")
    for again in ({"extra": {"alone": "alone.pt"}}, {"save_uncertainty": True}):
        with pytest.raises(ValueError, match="scores must be given without settings, extra, save_uncertainty"):
            judge(folds, plan_of(boxes, tmp_path, **again))
    table = tmp_path / "fold.csv"
    table.write_text("case,dice\na,1\n")
    with pytest.raises(ValueError, match="scores must be a table with the column 'dataset'"):
        prune(plan_of(boxes, tmp_path, scores=[table, table]))
    with pytest.raises(ValueError, match="scores must be the tables of two or more folds, got"):
        prune(plan_of(boxes, tmp_path, scores=table))
    write_text(table, format_scores(folds[0].rows, TOLERANCE))
    entries = load_datalist(boxes, "training")
    twice = [*entries, {**entries[0], "image": tmp_path / "case_00.nii.gz"}]
    with pytest.raises(ValueError, match=r"fold\.csv: has scores of 'case_00', but .* and .* have this name. Rename"):
        read_folds([table, table], twice, ["L1", "L2"], "boxes", TOLERANCE)
