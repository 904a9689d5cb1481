"""Where segmentations fail: scores by kind of image, the worst cases, and the files that are written."""

import dataclasses
import json
import os
import re
import shutil
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.metrics.meaniou import compute_iou
from monai.networks.utils import one_hot
from PIL import Image

from monai_unetpp import cli
from monai_unetpp.data import ImageKind, write_volume
from monai_unetpp.failures import ExaminedCase, find_failures
from monai_unetpp.failures.examined_cases import CaseArrays, choose_labels, score_arrays
from monai_unetpp.failures.kinds import kinds_of
from monai_unetpp.failures.sheet import error_window
from monai_unetpp.reporting.markdown import escape
from monai_unetpp.results.colour_tables import slicer_table


def save(path, array, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


def image_of(label, bright=False):
    image = 20 + 100 * (label > 0).astype(np.uint8)
    return 255 - image if bright else image


@pytest.fixture
def cells(tmp_path):
    """Four images of 20 x 30 pixels, the last bright, and a smaller one; with segmentations of which two are wrong."""
    root = tmp_path / "cells"
    label = np.zeros((20, 30), np.uint8)
    label[2:12, 3:13] = 1  # 100 pixels
    half, none = label.copy(), np.zeros_like(label)
    half[2:7, 3:13] = 0
    half[15:20, 20:25] = 1  # 50 right, 50 missed, 25 false positive
    made = {
        "good": (label, label, False),
        "half": (label, half, False),
        "empty": (none, none, False),
        "bright": (label, none, True),
        "small": (label[:14, :20], label[:14, :20], False),
    }
    entries = []
    for name, (truth, found, bright) in made.items():
        save(root / "imagesTr" / f"{name}.nii.gz", image_of(truth, bright))
        save(root / "labelsTr" / f"{name}.nii.gz", truth)
        save(tmp_path / "seg" / f"{name}_seg.nii.gz", found)
        entries.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    content = {"name": "Cells", "labels": {"0": "background", "1": "nucleus"}, "training": entries[:2]}
    (root / "dataset.json").write_text(json.dumps({**content, "validation": entries}))
    return root


@pytest.fixture
def volumes(decathlon_dir, tmp_path):
    """The two validation volumes of the data set with their labels as segmentations; the last has 16 voxels wrong."""
    shutil.copytree(decathlon_dir, tmp_path / "volumes")
    for name in ("case_4", "case_5"):
        label = nib.load(decathlon_dir / "labelsTr" / f"{name}.nii.gz")
        found = np.asarray(label.dataobj).copy()
        if name == "case_5":
            found[4:6, 4:12, 7] = 2  # was 1
        source = decathlon_dir / "imagesTr" / f"{name}.nii.gz"
        write_volume(tmp_path / "seg" / f"{name}_seg.nii.gz", found, source, label.affine)
    return tmp_path / "volumes"


@pytest.fixture
def edit_dataset(cells):
    """A function that changes entries of ``dataset.json``; None removes one."""

    def edit(**changes):
        path = cells / "dataset.json"
        content = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return edit


def by_name(report):
    return {case.case: case for case in report.cases}


@pytest.mark.slow
def test_figures_by_hand(cells, tmp_path):
    report = find_failures(cells, tmp_path / "out", tmp_path / "seg")
    half = by_name(report)["half"].score
    assert (half.missed_voxels, half.false_positive_voxels, half.confused_voxels) == (50, 25, 0)
    assert (half.truth_voxels, half.segmentation_voxels) == (100, 75)
    assert half.foreground_iou == pytest.approx(50 / 125)
    assert half.dice == pytest.approx(100 / 175)
    # 600 pixels, of which 475 are background in both and 550 in one of them
    assert half.background_iou == pytest.approx(475 / 550)
    assert half.mean_iou == pytest.approx((50 / 125 + 475 / 550) / 2)
    good = by_name(report)["good"].score
    assert (good.foreground_iou, good.dice, good.mean_iou) == (1, 1, 1)


@pytest.mark.slow
def test_missed_and_empty(cells, tmp_path):
    cases = by_name(find_failures(cells, tmp_path / "out", tmp_path / "seg"))
    missed, empty = cases["bright"].score, cases["empty"].score
    assert (missed.foreground_iou, missed.dice, missed.background_iou) == (0, 0, 500 / 600)
    assert missed.mean_iou == pytest.approx(250 / 600)
    assert missed.labels["nucleus"].state == "missed"
    assert (empty.foreground_iou, empty.dice, empty.mean_iou) == (None, None, 1)


@pytest.mark.slow
def test_kinds_and_ranks(cells, tmp_path):
    report = find_failures(cells, tmp_path / "out", tmp_path / "seg")
    assert report.ranked_by == "foreground_iou"
    size = {"pixels": "20 \N{MULTIPLICATION SIGN} 30"}
    bright, dark, small = report.kinds
    assert (bright.kind, bright.cases, bright.worst_case) == ({**size, "background": "bright"}, 1, "bright")
    assert (dark.kind, dark.cases, dark.worst_case) == ({**size, "background": "dark"}, 3, "half")
    # the empty one is left out of the mean
    assert dark.foreground_iou == pytest.approx({"mean": (1 + 0.4) / 2, "least": 0.4})
    assert dark.mean_iou["mean"] == pytest.approx((1 + 1 + by_name(report)["half"].score.mean_iou) / 3)
    assert (small.cases, small.worst_case, small.foreground_iou) == (1, None, {"mean": 1, "least": 1})
    assert report.overall.cases == 5
    assert report.overall.foreground_iou == pytest.approx({"mean": 2.4 / 4, "least": 0})
    assert report.worst == ("bright", "half"), "cases without errors are not among the worst"
    assert find_failures(cells, tmp_path / "out", tmp_path / "seg", worst=1).worst == ("bright",)


def test_a_validation_list_is_drawn_by_the_subjects_that_are_given(cells, tmp_path, edit_dataset):
    edit_dataset(training=json.loads((cells / "dataset.json").read_text())["validation"], validation=None)
    table = tmp_path / "subjects.csv"
    table.write_text("case,subject\ngood,a\nhalf,a\nempty,b\nbright,b\nsmall,b\n")
    arguments = ["--segmentations", str(tmp_path / "seg"), "-o", str(tmp_path / "out"), "--subjects", str(table)]
    assert cli.main(["failures", str(cells), *arguments]) == 0
    cases = json.loads((tmp_path / "out" / "failures.json").read_text())["cases"]
    assert {case["case"] for case in cases} == {"good", "half"}


@pytest.mark.slow
def test_the_files(cells, tmp_path):
    out = tmp_path / "out"
    report = find_failures(cells, out, tmp_path / "seg")
    assert sorted(path.name for path in out.iterdir()) == ["failures.json", "failures.md", "failures.png"]
    content = json.loads((out / "failures.json").read_text())
    assert content == json.loads(json.dumps(report.as_dict()))
    cases = {case["case"]: case for case in content["cases"]}
    assert cases["bright"]["kind"] == report.kinds[0].kind
    assert (cases["bright"]["shape"], cases["bright"]["background"]) == ([20, 30], "bright")
    assert cases["half"]["labels"]["nucleus"]["iou"] == cases["half"]["foreground_iou"]
    assert cases["empty"]["foreground_iou"] is None
    assert {"monai-unetpp", "monai", "numpy"} <= set(content["environment"]["versions"])
    assert re.match(r"\d{4}-\d\d-\d\dT", content["environment"]["date"])

    text = (out / "failures.md").read_text()
    size = "20 \N{MULTIPLICATION SIGN} 30"
    assert "Cells, list `validation`: 5 cases" in text
    assert f"| {size} | dark | 3 | 0.700 | 0.400 | 0.877 | 0.632 | half |" in text
    assert f"| half | {size} | dark | 0.400 | 0.571 | 0.632 | 50.0 % | 33.3 % |" in text
    # nothing was segmented: no share of it can be false positive
    assert f"| bright | {size} | bright | 0.000 | 0.000 | 0.417 | 100.0 % | n/a |" in text
    assert "](failures.png)" in text

    with Image.open(out / "failures.png") as picture:
        assert picture.info["Title"] == "Cells: worst cases"
        assert "half (20" in picture.info["Description"]
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    # sky blue and orange, the contours of truth and segmentation
    for colour in ((0x56, 0xB4, 0xE9), (0xE6, 0x9F, 0x00)):
        assert (np.abs(pixels - colour).max(axis=1) < 3).sum() > 100


@pytest.mark.slow
def test_several_labels(volumes, tmp_path):
    report = find_failures(volumes, tmp_path / "out", tmp_path / "seg")
    assert report.labels == {"anterior": 1, "posterior": 2}
    assert report.ranked_by == "mean_iou", "the pooled foreground does not show labels that were mistaken"
    score = by_name(report)["case_5"].score
    assert (score.foreground_iou, score.confused_voxels, score.missed_voxels) == (1, 16, 0)
    # of 288 voxels each (6 x 8 x 6)
    assert score.labels["anterior"].iou == pytest.approx(272 / 288)
    assert score.labels["posterior"].iou == pytest.approx(288 / 304)
    assert score.mean_iou == pytest.approx((1 + 272 / 288 + 288 / 304) / 3)
    assert report.worst == ("case_5",)
    assert [(kind.kind, kind.cases) for kind in report.kinds] == [({"largest voxel edge": "2 mm"}, 2)]
    text = (tmp_path / "out" / "failures.md").read_text()
    assert "| wrong label | IoU anterior | IoU posterior |" in text
    assert "| case\\_5 | 2 mm | 1.000 | 1.000 | 0.964 | 0.0 % | 0.0 % | 2.8 % | 0.944 | 0.947 |" in text
    with Image.open(tmp_path / "out" / "failures.png") as picture:
        assert picture.size[0] > picture.size[1] > 300


@pytest.mark.slow
def test_one_of_several_labels(volumes, tmp_path):
    report = find_failures(volumes, tmp_path / "out", tmp_path / "seg", labels=["posterior"])
    score = by_name(report)["case_5"].score
    assert (report.labels, report.ranked_by) == ({"posterior": 2}, "foreground_iou")
    assert (score.false_positive_voxels, score.confused_voxels) == (16, 0), "the other label is background"
    assert score.foreground_iou == pytest.approx(288 / 304)


@pytest.mark.parametrize("seed", range(3))
def test_mean_iou_is_monais_with_background(seed):
    """Where the truth has every class, both are the same number."""
    generator = np.random.default_rng(seed)
    truth, found = generator.integers(0, 3, (2, 6, 7), dtype=np.uint8)
    score = score_arrays(CaseArrays(truth, truth, found, (1.0, 1.0)), {"a": 1, "b": 2})
    classes = [one_hot(torch.from_numpy(each)[None, None].long(), 3) for each in (found, truth)]
    assert score.mean_iou == pytest.approx(float(compute_iou(*classes).mean()))


def test_volumes_are_those_of_the_voxels():
    truth = np.ones((3, 4), np.uint8)
    score = score_arrays(CaseArrays(truth, truth, truth, (1.0, 1.0), voxel_ml=0.5), {"a": 1})
    assert score.labels["a"].truth_ml == 6


def test_mean_iou_leaves_out_what_is_nowhere():
    truth = np.ones((3, 4), np.uint8)
    score = score_arrays(CaseArrays(truth, truth, truth, (1.0, 1.0)), {"a": 1, "b": 2})
    assert (score.mean_iou, score.background_iou, score.labels["b"].state) == (1, None, "both_empty")


@pytest.mark.slow
def test_only_counts(cells, tmp_path):
    out = tmp_path / "out"
    find_failures(cells, out, tmp_path / "seg")
    report = find_failures(cells, out)
    assert sorted(path.name for path in out.iterdir()) == ["failures.json", "failures.md"], "an old picture is gone"
    size = "20 \N{MULTIPLICATION SIGN} 30"
    text = (out / "failures.md").read_text()
    assert text.startswith("# Kinds of images\n")
    rows = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    assert [row.split(" | ") for row in rows] == [
        ["pixels", "background", "cases"],
        ["---", "---", "---:"],
        [size, "dark", "3"],
        [size, "bright", "1"],
        ["14 \N{MULTIPLICATION SIGN} 20", "dark", "1"],
        ["all", "", "5"],
    ]
    assert report.worst == ()
    content = json.loads((out / "failures.json").read_text())
    assert "foreground_iou" not in content["cases"][0]
    training = find_failures(cells, out, list_key="training")
    assert (training.list_key, [case.case for case in training.cases]) == ("training", ["good", "half"])


def test_nothing_is_wrong(cells, tmp_path):
    shutil.copy(tmp_path / "seg" / "good_seg.nii.gz", tmp_path / "seg" / "half_seg.nii.gz")
    report = find_failures(cells, tmp_path / "out", tmp_path / "seg", list_key="training")
    assert (report.worst, report.overall.worst_case) == ((), None)
    assert not (tmp_path / "out" / "failures.png").exists()
    assert "failures.png" not in (tmp_path / "out" / "failures.md").read_text()


def test_the_worst_of_each_kind_is_drawn_before_others(cells, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "monai_unetpp.failures.failures.save_sheet", lambda path, cases, *_: drawn.append([each.case for each in cases])
    )
    # now three dark ones of one size are worse than the small one
    for name in ("good", "empty"):
        shutil.copy(tmp_path / "seg" / "half_seg.nii.gz", tmp_path / "seg" / f"{name}_seg.nii.gz")
    small = np.zeros((14, 20), np.uint8)
    small[2:12, 3:12] = 1
    save(tmp_path / "seg" / "small_seg.nii.gz", small)
    report = find_failures(cells, tmp_path / "out", tmp_path / "seg", worst=4)
    assert report.worst == ("empty", "bright", "good", "half")
    assert drawn == [["empty", "bright", "good", "small"]]
    # no more fit into the picture
    monkeypatch.setattr("monai_unetpp.failures.failures.MOST_PICTURES", 4)
    find_failures(cells, tmp_path / "out", tmp_path / "seg", worst=40)
    assert drawn[1] == drawn[0]


def test_pictures(cells, tmp_path, edit_dataset):
    """PNG and TIFF: images, labels and segmentations, with axes as in photographs."""
    entries = []
    for name, suffix in (("good", "png"), ("half", "tif")):
        truth, image = (np.asarray(nib.load(cells / f / f"{name}.nii.gz").dataobj) for f in ("labelsTr", "imagesTr"))
        found = np.asarray(nib.load(tmp_path / "seg" / f"{name}_seg.nii.gz").dataobj)
        (tmp_path / "seg" / f"{name}_seg.nii.gz").unlink()
        for path, array in (
            (cells / f"{name}.{suffix}", image),
            (cells / f"{name}_label.{suffix}", truth),
            (tmp_path / "seg" / f"{name}_seg.{suffix}", found),
        ):
            Image.fromarray(np.ascontiguousarray(array.T)).save(path)
        entries.append({"image": f"{name}.{suffix}", "label": f"{name}_label.{suffix}"})
    edit_dataset(validation=entries)
    report = find_failures(cells, tmp_path / "out", tmp_path / "seg")
    assert report.failures == {}
    assert by_name(report)["half"].score.foreground_iou == pytest.approx(50 / 125)
    assert by_name(report)["good"].image_kind == ImageKind((20, 30), "dark")


@pytest.mark.slow
def test_numbered_objects(cells, tmp_path):
    path = tmp_path / "seg" / "half_seg.nii.gz"
    numbered = np.asarray(nib.load(path).dataobj).copy()
    numbered[15:] *= 7
    save(path, numbered)
    report = find_failures(cells, tmp_path / "out", tmp_path / "seg")
    assert report.failures == {
        "half": f"{path}: the segmentation must hold 0 and 1 only, got 7. Segment with a network for these labels, or "
        "give instances if objects are numbered."
    }
    report = find_failures(cells, tmp_path / "out", tmp_path / "seg", instances=True)
    assert by_name(report)["half"].score.foreground_iou == pytest.approx(50 / 125)
    assert report.labels == {"nucleus": 1}


def test_names_beside_the_segmentations_that_have_other_values_are_told(cells, tmp_path, caplog, edit_dataset):
    edit_dataset(labels={"0": "background", "1": "Cell nucleus", "2": "wall"})
    table = tmp_path / "seg" / "labels.ctbl"
    for names, told in (({1: "cell nucleus", 2: "wall"}, 0), ({1: "wall", 2: "cell nucleus"}, 1), ({2: "other"}, 0)):
        caplog.clear()
        table.write_text(slicer_table(names), encoding="utf-8")
        find_failures(cells, tmp_path / "out", tmp_path / "seg")
        lines = [record.getMessage() for record in caplog.records if "labels.ctbl" in record.getMessage()]
        assert len(lines) == told
        assert (
            lines[:1]
            == [
                f"{table}: 'Cell nucleus' has the value 2, but 1 in {cells / 'dataset.json'}: different structures are "
                "compared. Give it one value."
            ][:told]
        )
    table.write_bytes(b"\xff\n1")
    find_failures(cells, tmp_path / "out", tmp_path / "seg")


@pytest.mark.slow
def test_without_names_of_labels_all_above_0_is_one(cells, tmp_path, edit_dataset):
    edit_dataset(labels=None)
    report = find_failures(cells, tmp_path / "out", tmp_path / "seg")
    assert report.labels == {"foreground": 1}
    assert by_name(report)["half"].score.foreground_iou == pytest.approx(50 / 125)


def test_broken_and_missing_files_cost_one_case_each(cells, tmp_path):
    seg, labels, images = tmp_path / "seg", cells / "labelsTr", cells / "imagesTr"
    (seg / "good_seg.nii.gz").unlink()
    (seg / "half_seg.nii.gz").write_text("no image")
    save(seg / "empty_seg.nii.gz", np.zeros((20, 31), np.uint8))
    shutil.copy(seg / "small_seg.nii.gz", seg / "small_seg.png")
    report = find_failures(cells, tmp_path / "out", seg)
    assert [case.case for case in report.cases] == ["bright"]
    assert set(report.failures) == {"good", "half", "empty", "small"}
    assert report.failures["good"] == (
        f"{seg / 'good_seg.nii.gz'}: no such file, nor one that ends in .png or .tif. Segment {images / 'good.nii.gz'}."
    )
    assert "half_seg.nii.gz: not a NIfTI image" in report.failures["half"]
    assert report.failures["empty"] == (
        f"{seg / 'empty_seg.nii.gz'}: not on the grid of {labels / 'empty.nii.gz'}: its shape is (20, 31), not "
        "(20, 30). Pair the right files, or resample one to the other."
    )
    assert report.failures["small"] == (
        f"{seg / 'small_seg.nii.gz'}: small_seg.png exists too. Remove the one that should not be scored."
    )
    text = (tmp_path / "out" / "failures.md").read_text()
    assert "5 cases" in text
    assert "4 of them left out" in text
    assert f"- {escape(report.failures['empty'])}" in text


def test_images_and_labels_are_checked_too(cells, tmp_path):
    save(cells / "imagesTr" / "good.nii.gz", np.zeros((20, 30), np.uint8), np.diag([1, 1, 1, 1]) + np.eye(4, k=3) * 9)
    save(cells / "labelsTr" / "half.nii.gz", np.full((20, 30), 3, np.uint8))
    report = find_failures(cells, tmp_path / "out")
    assert set(report.failures) == {"good", "half"}
    assert re.search(r"good\.nii\.gz: not on the grid of .*: its corners lie up to 9 mm away", report.failures["good"])
    assert "half.nii.gz: the label must hold 0 and 1 only, got 3" in report.failures["half"]


def test_when_no_case_is_left(cells, tmp_path):
    (tmp_path / "nothing").mkdir()
    report = find_failures(cells, tmp_path / "out", tmp_path / "nothing")
    assert (report.cases, report.kinds, len(report.failures)) == ((), (), 5)
    assert "5 of them left out" in (tmp_path / "out" / "failures.md").read_text()


def test_all_cases_are_like_the_first(cells, tmp_path):
    save(cells / "labelsTr" / "half.nii.gz", np.zeros((20, 30, 4), np.uint8))
    assert "half.nii.gz: the label must be 2D, got shape" in find_failures(cells, tmp_path / "out").failures["half"]


@pytest.mark.slow
def test_channels_and_voxels_outside_of_the_scan(volumes, tmp_path):
    """A fourth axis holds channels, of which the first is looked at; voxels that are NaN do no harm."""
    path = volumes / "imagesTr" / "case_5.nii.gz"
    image = nib.load(path)
    voxels = np.stack([np.asarray(image.dataobj)] * 2, axis=-1)
    voxels[0] = np.nan
    save(path, voxels, image.affine)
    report = find_failures(volumes, tmp_path / "out", tmp_path / "seg")
    assert report.failures == {}
    assert (tmp_path / "out" / "failures.png").is_file()


def case_of(name, shape, spacing, background="dark"):
    return ExaminedCase(name, "i", "l", None, ImageKind(shape, background), spacing, None)


def test_volumes_are_sorted_by_their_coarsest_axis():
    edges = {"a": 1.0, "b": 1.24, "c": 0.72, "d": 5.0, "e": 4.8, "f": 12.0, "g": 2.5, "h": 2.49999997, "i": 2.5000001}
    cases = [case_of(name, (9, 9, number + 1), (0.5, 0.5, edge)) for number, (name, edge) in enumerate(edges.items())]
    found = {name: kind["largest voxel edge"] for name, kind in kinds_of(cases).items()}
    expected = {"a": "1 mm", "b": "1 mm", "c": "0.7 mm", "d": "5 mm", "e": "5 mm", "f": "10 mm"}
    assert found == expected | dict.fromkeys("ghi", "3 mm")


def test_images_of_many_shapes_are_sorted_by_background_only():
    cases = [case_of(str(n), (n, 9), (1, 1), "bright" if n % 2 else "dark") for n in range(1, 22)]
    assert len({str(kind) for kind in kinds_of(cases[:20]).values()}) == 20
    assert kinds_of(cases)["1"] == {"background": "bright"}
    assert len({str(kind) for kind in kinds_of(cases).values()}) == 2


def test_the_window_holds_the_errors():
    truth = np.zeros((500, 400), np.uint8)
    truth[::20, ::20] = 1
    found = truth.copy()
    found[430:450, 310:330] = 1
    rows, columns = error_window(truth, found)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (128, 128)
    assert rows.start <= 430
    assert rows.stop >= 450
    assert columns.start <= 310
    assert columns.stop >= 330


def test_the_window_shows_borders_of_what_is_wrong_everywhere():
    found = np.zeros((400, 400), np.uint8)
    found[:, :300] = 1
    rows, columns = error_window(np.zeros_like(found), found)
    assert 0 < found[rows, columns].mean() < 1


@pytest.mark.parametrize(("shape", "expected"), [((30, 50), (30, 50)), ((400, 300), (48, 48)), ((400, 20), (48, 20))])
def test_the_window_of_something_small(shape, expected):
    truth = np.zeros(shape, np.uint8)
    truth[-5:, -5:] = 1
    rows, columns = error_window(truth, np.zeros_like(truth))
    assert (rows.stop - rows.start, columns.stop - columns.start) == expected
    assert (rows.stop, columns.stop) == shape


@pytest.mark.slow
def test_a_large_image_is_cropped_and_drawn(cells, tmp_path, edit_dataset):
    label = np.zeros((300, 200), np.uint8)
    label[250:270, 150:160] = 1
    save(cells / "imagesTr" / "good.nii.gz", image_of(label, bright=True))
    save(cells / "labelsTr" / "good.nii.gz", label)
    save(tmp_path / "seg" / "good_seg.nii.gz", np.roll(label, 5, axis=0))
    find_failures(cells, tmp_path / "out", tmp_path / "seg", list_key="training")
    with Image.open(tmp_path / "out" / "failures.png") as picture:
        assert "good (300" in picture.info["Description"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"worst": 0}, ValueError, r"worst must be at least 1, got 0\. Give the number"),
        ({"worst": 2.5}, TypeError, r"worst must be a whole number, got 2\.5"),
        ({"worst": True}, TypeError, "worst must be a whole number, got True"),
        ({"labels": ["tumour"]}, ValueError, r"labels must be among nucleus, got 'tumour'\. Correct the name"),
        ({"labels": "nucleus"}, TypeError, r"labels must be a list of names, got 'nucleus'\. Write \['nucleus'\]"),
        (
            {"segmentations": "no_such_folder"},
            FileNotFoundError,
            r"no_such_folder: no such folder\. segmentations must",
        ),
        (
            {"list_key": "test"},
            ValueError,
            r"dataset\.json: must have the list 'test', got training, validation\. Add it",
        ),
    ],
)
def test_bad_arguments(cells, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        find_failures(cells, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_data(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dataset\.json: no such file\. Name a folder with dataset"):
        find_failures(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("labels", [["nucleus"], {"0": "background"}, {"nucleus": "one"}, {"-1": "nucleus"}])
def test_labels_that_cannot_be_read(cells, edit_dataset, labels):
    edit_dataset(labels=labels)
    with pytest.raises(ValueError, match=r"dataset\.json: labels must map values to names .*, got .*\. Write it like"):
        choose_labels(cells)


def test_labels_either_way_round(cells, edit_dataset):
    edit_dataset(labels={"background": 0, "nucleus": 1, "debris": 4})
    chosen = choose_labels(cells, ["debris"])
    assert dataclasses.astuple(chosen) == ({"debris": 4}, (1, 4), None)
    with pytest.raises(ValueError, match="instances must be left out for data with several labels, got nucleus"):
        choose_labels(cells, instances=True)


def test_two_cases_of_one_name(cells, tmp_path, edit_dataset):
    files = ("good.nii.gz", "good.nii")
    entries = [{"image": f"./imagesTr/{each}", "label": "./labelsTr/good.nii.gz"} for each in files]
    edit_dataset(validation=entries)
    with pytest.raises(ValueError, match=r"good\.nii.*: names of cases must differ, got 'good' 2 times\. Rename"):
        find_failures(cells, tmp_path / "out")


def test_without_matplotlib(cells, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install .*\[report\]"'):
        find_failures(cells, tmp_path / "out", tmp_path / "seg")
    assert len(find_failures(cells, tmp_path / "out").cases) == 5, "counting needs no picture"


def run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    return (code, *capsys.readouterr())


@pytest.mark.slow
def test_names_that_no_font_shows_are_drawn_and_told_in_escapes(cells, tmp_path, edit_dataset, capsys):
    name = os.fsdecode(b"b\xe9n\nd")
    try:
        for path in (cells / "imagesTr", cells / "labelsTr", tmp_path / "seg"):
            (file,) = path.glob("bright*")
            file.rename(path / file.name.replace("bright", name))
    except OSError as e:
        pytest.skip(f"the file system refuses such names ({e.strerror})")
    entry = {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
    edit_dataset(validation=[entry])
    arguments = ("failures", cells, "-o", tmp_path / "out", "--segmentations", tmp_path / "seg")
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    assert "Worst cases: b\\udce9n\\nd\n" in out
    assert {"failures.json", "failures.md", "failures.png"} == {path.name for path in (tmp_path / "out").iterdir()}


def test_an_output_that_is_a_file_is_refused_before_any_case_is_read(cells, tmp_path, capsys):
    (tmp_path / "out").touch()
    code, _, err = run(capsys, "failures", cells, "-o", tmp_path / "out", "--segmentations", tmp_path / "seg")
    assert code == 2
    assert err.startswith("monai-unetpp: output_dir must be a folder that can be written to, got")


@pytest.mark.slow
def test_the_command(cells, tmp_path, capsys):
    common = ("failures", "--dataset_dir", cells, "-o", tmp_path / "out")
    code, out, err = run(capsys, *common, "--segmentations", tmp_path / "seg", "--worst", 1)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split("  ")[0] == "pixels"
    assert lines[-3].split()[:2] == ["all", "5"]
    assert lines[-2:] == ["Worst cases: bright", f"Report: {tmp_path / 'out' / 'failures.md'}"]

    (tmp_path / "seg" / "half_seg.nii.gz").unlink()
    code, _, err = run(capsys, *common, "--segmentations", tmp_path / "seg")
    assert code == 1
    assert len(err.splitlines()) == 2
    assert err.endswith("monai-unetpp: 1 of 5 cases failed; the others are in the report.\n")

    code, out, _ = run(capsys, *common, "--list_key", "training")
    assert code == 0
    assert out.splitlines()[2].split()[-2:] == ["dark", "2"]

    (tmp_path / "nothing").mkdir()
    code, out, err = run(capsys, *common, "--segmentations", tmp_path / "nothing")
    assert (code, len(out.splitlines())) == (1, 1)
    assert err.endswith("monai-unetpp: 5 of 5 cases failed; no case is left.\n")

    code, _, err = run(capsys, *common, "--label", "tumour")
    assert code == 2
    assert err.startswith("monai-unetpp: labels must be among nucleus, got 'tumour'")


@pytest.mark.slow
def test_what_is_to_be_ignored_counts_for_nothing(cells, tmp_path, edit_dataset):
    edit_dataset(labels={"background": 0, "nucleus": 1, "ignore": 2})
    path = cells / "labelsTr" / "half.nii.gz"
    label = np.asarray(nib.load(path).dataobj).copy()
    label[7:, :] = 2  # below are all 25 false positive pixels and 50 of 100 true ones, which were missed
    save(path, label)
    half = by_name(find_failures(cells, tmp_path / "out", tmp_path / "seg"))["half"].score
    assert (half.missed_voxels, half.false_positive_voxels, half.truth_voxels) == (50, 0, 50)
    assert (half.foreground_iou, half.dice) == (0.0, 0.0)
    assert half.background_iou == pytest.approx((7 * 30 - 50) / (7 * 30))
    save(path, np.full_like(label, 2))
    failures = find_failures(cells, tmp_path / "out", tmp_path / "seg").failures
    assert "half.nii.gz: every voxel is to be ignored, so nothing can be scored" in failures["half"]
    with pytest.raises(ValueError, match="labels must not have 'ignore' where objects are numbered, got 2"):
        find_failures(cells, tmp_path / "out", tmp_path / "seg", instances=True)


@pytest.mark.slow
def test_scaled_labels_are_read_as_what_they_mean(cells, tmp_path):
    path = cells / "labelsTr" / "half.nii.gz"
    before = by_name(find_failures(cells, tmp_path / "out", tmp_path / "seg"))["half"].score
    save(path, np.asarray(nib.load(path).dataobj) * np.float32(0.996))
    assert by_name(find_failures(cells, tmp_path / "out", tmp_path / "seg"))["half"].score == before


@pytest.mark.slow
def test_equal_images_and_labels_that_no_case_has_are_told(cells, tmp_path, caplog):
    content = json.loads((cells / "dataset.json").read_text())
    content["labels"]["2"] = "wall"
    (cells / "dataset.json").write_text(json.dumps(content))
    find_failures(cells, tmp_path / "out", tmp_path / "seg")
    lines = [record.getMessage() for record in caplog.records]
    images = cells / "imagesTr"
    assert f"{images}/half.nii.gz: the same image as {images}/good.nii.gz, both in 'validation'." in lines[0]
    assert f"{cells}/labelsTr/empty.nii.gz: the label has no foreground." in lines[1]
    assert f"{cells}/dataset.json: no case of 'validation' has the label 'wall' (2)." in lines[2]
    assert len(lines) == 3
