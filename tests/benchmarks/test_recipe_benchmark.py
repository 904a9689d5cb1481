"""What each part of the recipe brings: variants, their plans, what is scored where, and the table."""

import json
from types import SimpleNamespace

import pytest

from benchmarks import recipe
from benchmarks.recipe import VARIANTS, Result, format_results, halve, main, plan_variant, run_variant
from monai_unetpp.metrics import FOREGROUND
from monai_unetpp.planning.values import check_one, parse_settings
from monai_unetpp.training_run.fitting import Fitted

BASE = {"L1": {"a": 0.5, "b": 0.7}, "L2": {"a": 0.6, "b": 0.8}}
BETTER = {"L1": {"a": 0.6, "b": 0.8}, "L2": {"a": 0.7, "b": 0.8}}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_sets_values_that_a_plan_has(name):
    given = {key: value(3) if callable(value) else value for key, value in VARIANTS[name].items()}
    for key, value in parse_settings(given).items():
        check_one(key, value, 2)


def test_each_level_weighs_half_of_the_next():
    assert halve(3) == [0.25, 0.5, 1]


def test_what_depends_on_the_levels_is_planned_after_them(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(recipe, "plan", lambda *given, settings: asked.append((given, settings)) or {"strides": [2, 2]})
    plan_variant(tmp_path, tmp_path / "bundle", {"steps": 5, "level_weights": halve})
    assert asked == [
        ((tmp_path, tmp_path / "levels"), {"steps": 5}),
        ((tmp_path, tmp_path / "bundle"), {"steps": 5, "level_weights": [0.5, 1]}),
    ]
    plan_variant(tmp_path, tmp_path / "plain", {"steps": 5})
    assert len(asked) == 3
    # what is planned stays as it is
    (tmp_path / "plain").mkdir()
    plan_variant(tmp_path, tmp_path / "plain", {"steps": 6})
    assert len(asked) == 3


def test_a_variant_is_scored_on_unseen_and_on_as_many_seen_cases(tmp_path, monkeypatch):
    entries = {
        key: [{"image": f"{key}{n}.nii", "label": "l.nii"} for n in range(count)]
        for key, count in (("training", 4), ("validation", 2))
    }
    (tmp_path / "dataset.json").write_text(json.dumps(entries))
    work = tmp_path / "work"
    (work / "training").mkdir(parents=True)
    (work / "bundle").mkdir()
    (work / "training" / "model.pt").write_text("weights")
    monkeypatch.setattr(recipe, "load_plan", lambda bundle: {"steps": 7})
    trained = []
    monkeypatch.setattr(
        recipe,
        "fit",
        lambda bundle, folder, values, tell, name: trained.append(values) or Fitted(folder, 7, 60.0, 0.1, True),
    )

    def score(bundle, cases, folder, values):
        assert (folder / "model.pt").read_text() == "weights"
        labels = ((FOREGROUND, 0.0), ("one", 0.4), ("two", 0.8), ("none", None))
        rows = [
            SimpleNamespace(point="L1", case=case["image"], label=label, score=SimpleNamespace(dice=dice))
            for case in cases
            for label, dice in labels
        ]
        return SimpleNamespace(rows=rows)

    monkeypatch.setattr(recipe, "score_fold", score)
    result = run_variant(tmp_path, work, {"steps": 7}, whole=False)
    assert trained[0]["steps"] == 7
    assert (len(result.dice["L1"]), len(result.training["L1"]), result.whole) == (2, 2, None)
    assert all(value == pytest.approx(0.6) for value in result.dice["L1"].values())
    assert all("training" in case for case in result.training["L1"])


def test_the_table_holds_means_and_paired_differences():
    results = {"recipe": Result(90.0, BASE, BASE, BETTER), "other": Result(60.0, BETTER, None, BETTER)}
    lines = format_results(results, "discs", 7).splitlines()
    assert lines[0].startswith("`discs`, 2 unseen cases, 7 steps, ")
    assert "| recipe | 1.5 min | 0.6000 | 0.7000 |  |  | +0.0500 |" in lines
    assert "| recipe: one window - its own windows |  | +0.0000 (+0.0000 to +0.0000) |" in "\n".join(lines)
    # 0.1 and 0.0 differ by their mean of 0.05, plus and minus 12.706 times 0.05
    assert (
        "| other | 1.0 min | 0.7000 | 0.7500 | +0.1000 (+0.1000 to +0.1000) | +0.0500 (-0.5853 to +0.6853) | +0.0000 |"
        in lines
    )


def test_all_that_was_asked_for_is_run_and_written(tmp_path, monkeypatch, capsys):
    asked = []
    result = Result(60.0, BASE, None, BASE)
    monkeypatch.setattr(recipe, "run_variant", lambda *given: asked.append(given) or result)
    arguments = [str(tmp_path), "--work", str(tmp_path / "w"), "--steps", "9", "--set", "batch_size=4", "--only"]
    names = ["recipe", "last weights, not averaged"]
    assert main([*arguments, *names, "-o", str(tmp_path / "table.md")]) == 0
    common = {"batch_size": 4, "steps": 9}
    assert asked == [
        (tmp_path, tmp_path / "w" / "recipe", common, False),
        (tmp_path, tmp_path / "w" / "last_weights_not_averaged", {**common, "ema": None}, False),
    ]
    assert (tmp_path / "table.md").read_text() == capsys.readouterr().out
