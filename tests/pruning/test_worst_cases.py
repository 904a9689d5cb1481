"""Which cases are drawn beside the verdict: those that lose most at the level that is shown."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest
from PIL import Image
from tiny_pruning import LABELS, SHAPE, intensity_network, make_pipeline, write_boxes

from monai_unetpp import NestedUNet
from monai_unetpp.data import load_datalist
from monai_unetpp.data.datasets.labelled import LabelledCase
from monai_unetpp.data.formats.reader import read_label_map
from monai_unetpp.metrics import LabelScore
from monai_unetpp.pruning import evaluate_levels
from monai_unetpp.pruning.plan import EvaluatedNetwork
from monai_unetpp.pruning.report.worst_cases import save_worst_cases
from monai_unetpp.pruning.results import OperatingPoint, ScoreRow
from monai_unetpp.pruning.scoring.levels import Scores
from monai_unetpp.pruning.summary import losses_of_cases

LOSSES = {"case_01": 0.1, "case_02": 0.6, "case_04": 0.3, "case_05": 0.05}


@pytest.fixture(scope="module")
def evaluated():
    tolerance_mm = dict.fromkeys(LABELS, 1.0)
    return EvaluatedNetwork(
        intensity_network(), **make_pipeline(), labels=LABELS, tolerance_mm=tolerance_mm, window_shape=SHAPE
    )


@pytest.fixture(scope="module")
def scores(evaluated, tmp_path_factory):
    """Six cases that both levels segment without an error."""
    root = write_boxes(tmp_path_factory.mktemp("data") / "boxes", 6)
    names = ("preprocessing", "inferer", "postprocessing", "labels", "tolerance_mm")
    settings = {name: getattr(evaluated, name) for name in names}
    return evaluate_levels(evaluated.network, load_datalist(root, "validation"), dataset="boxes", **settings)


def lose(scores, losses, label="posterior"):
    """The same scores, but with a lower Dice of one label at L1 in some cases."""

    def changed(row):
        if (row.point, row.label) != ("L1", label):
            return row
        dice = row.score.dice - losses.get(row.case, 0.0)
        return dataclasses.replace(row, score=dataclasses.replace(row.score, dice=dice))

    return dataclasses.replace(scores, rows=tuple(map(changed, scores.rows)))


def test_labels_absent_everywhere_lose_nothing():
    absent = LabelScore("both_empty", None, None, None, None, 0.0, 0.0, 0.0)
    invented = dataclasses.replace(absent, state="false_positive", dice=0.0, prediction_ml=1.0)
    found = {("L1", "a"): absent, ("L2", "a"): absent, ("L1", "b"): absent, ("L2", "b"): invented}
    rows = [ScoreRow("boxes", "case", "case", point, label, score) for (point, label), score in found.items()]
    (gain,) = losses_of_cases(rows, ("a", "b"), "L1", "L2")
    assert (gain.label, gain.chosen_dice, gain.deepest_dice) == ("b", 1.0, 0.0)


@pytest.mark.slow
def test_the_cases_that_lose_most_are_drawn_the_worst_first(tmp_path, evaluated, scores):
    found = save_worst_cases(tmp_path, evaluated, "L1", [lose(scores, LOSSES)])
    assert found == tuple(f"overlays/boxes/case_0{number}.png" for number in (2, 4, 1, 5))
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")} == set(found)


@pytest.mark.slow
def test_a_label_that_gains_hides_no_loss_of_another(tmp_path, evaluated, scores):
    mixed = lose(lose(scores, LOSSES), dict.fromkeys(LOSSES, -1.0), label="anterior")
    assert save_worst_cases(tmp_path, evaluated, "L1", [mixed])[0] == "overlays/boxes/case_02.png"


@pytest.mark.slow
def test_cases_of_several_data_sets_are_compared_with_each_other(tmp_path, evaluated, scores):
    worse = lose(scores, {"case_00": 0.4})
    other = dataclasses.replace(worse, rows=tuple(dataclasses.replace(row, dataset="other") for row in worse.rows))
    found = save_worst_cases(tmp_path, evaluated, "L1", [lose(scores, LOSSES), other])
    assert found[:3] == ("overlays/boxes/case_02.png", "overlays/other/case_00.png", "overlays/boxes/case_04.png")


def named(scores, dataset, case):
    """The first case alone, under other names."""
    (first, *_), rows = scores.cases, [row for row in scores.rows if row.case == scores.cases[0].name]
    rows = tuple(dataclasses.replace(row, dataset=dataset, case=case) for row in rows)
    return dataclasses.replace(scores, rows=rows, cases=(dataclasses.replace(first, name=case),))


@pytest.mark.slow
def test_every_case_has_a_picture_of_its_own(tmp_path, evaluated, scores):
    names = [("a", "b_c"), ("a_b", "c"), ("a" * 250, "c" * 250)]
    sets = [lose(named(scores, *each), {each[1]: 0.5}) for each in names]
    found = save_worst_cases(tmp_path, evaluated, "L1", sets)
    titles = {path: Image.open(tmp_path / path).text["Title"] for path in found}
    assert {path: title.split(":")[0] for path, title in titles.items()} == {
        f"overlays/{dataset}/{case}.png": f"{case} ({dataset})" for dataset, case in names
    }


@pytest.mark.slow
def test_a_name_that_is_no_text_is_drawn_escaped(tmp_path, evaluated, tmp_path_factory):
    """As names in Latin-1 in old archives are: not UTF-8."""
    root = write_boxes(tmp_path_factory.mktemp("latin") / "boxes", 1)
    (entry,) = load_datalist(root, "validation")
    names = ("preprocessing", "inferer", "postprocessing", "labels", "tolerance_mm")
    settings = {name: getattr(evaluated, name) for name in names}
    named = {**entry, "case": "m\udcfcller"}
    scores = lose(evaluate_levels(evaluated.network, [named], dataset="boxes", **settings), {"m\udcfcller": 0.5})
    (drawn,) = save_worst_cases(tmp_path, evaluated, "L1", [scores])
    with Image.open(tmp_path / drawn) as picture:
        assert r"m\udcfcller (boxes)" in picture.info["Title"]


def test_a_picture_that_cannot_be_written_is_told_and_costs_nothing_else(tmp_path, evaluated, scores, caplog):
    (tmp_path / "overlays" / "boxes" / "case_04.png").mkdir(parents=True)
    assert save_worst_cases(tmp_path, evaluated, "L1", [lose(scores, LOSSES)]) == ("overlays/boxes/case_02.png",)
    assert "case_04 (boxes) and of what follows it are left out: [Errno" in caplog.text


def test_the_scale_bar_of_a_picture_counts_pixels(tmp_path, evaluated, monkeypatch):
    pixels = np.zeros((12, 10), np.uint8)
    pixels[3:8, 3:7] = 1
    for name in ("image", "label"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    case = LabelledCase("a", "a", (tmp_path / "image.png",), tmp_path / "label.png")
    dice = {"L1": 0.8, "L2": 0.9}
    rows = tuple(
        ScoreRow("set", "a", "a", level, "anterior", LabelScore("ok", found, found, 1.0, found, 0.0, 1.0, 1.0))
        for level, found in dice.items()
    )
    module, told = importlib.import_module("monai_unetpp.pruning.report.worst_cases"), {}
    truth = read_label_map(case.label, 2).data
    monkeypatch.setattr(module, "predict_case", lambda *_, levels, **__: dict.fromkeys(levels, truth))
    monkeypatch.setattr(module, "save_overlay", lambda *_, **options: told.update(options))
    flat = dataclasses.replace(evaluated, network=NestedUNet(2, 1, 3, features=(2, 2, 2)).eval())
    scores = Scores(tuple(OperatingPoint(level, level) for level in dice), rows, (), (case,))
    assert save_worst_cases(tmp_path, flat, "L1", [scores]) == ("overlays/set/a.png",)
    assert (told["unit"], told["orientation"]) == ("pixels", None)
