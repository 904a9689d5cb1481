"""What each part of the recipe brings: variants, their plans, what is scored where, and the table."""

import dataclasses
import functools
import json
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from disc_images import write_disc_images
from tiny_planning import TINY, slow_machine

from benchmarks import recipe, recipe_variants
from benchmarks.recipe import Result, format_results, main, plan_variant, run_variant
from benchmarks.recipe_variants import CHOICES, VARIANTS, RandomPatchSizes, Variant
from monai_unetpp.bundles.json_files import read_object
from monai_unetpp.metrics import FOREGROUND
from monai_unetpp.planning import load_plan
from monai_unetpp.planning.values import check_one, parse_settings
from monai_unetpp.training_run.fitting import Fitted

BASE = {"L1": {"a": 0.5, "b": 0.7}, "L2": {"a": 0.6, "b": 0.8}}
BETTER = {"L1": {"a": 0.6, "b": 0.8}, "L2": {"a": 0.7, "b": 0.8}}
#: What variants look at in a plan.
PLAN = {
    "strides": [[2, 2], [2, 2], [2, 2]],
    "kernel_size": [[3, 3]] * 4,
    "features": [4, 4, 4, 4],
    "batch_size": 2,
    "patch_size": [64, 80],
    "window_shape": [64, 80],
    "rotate90": False,
    "learning_rate": 0.002,
}


@pytest.fixture
def planned(monkeypatch):
    """The plan that variants find, of images of 88 x 160 pixels at most."""
    plan = dict(PLAN)
    monkeypatch.setattr(recipe_variants, "load_plan", lambda bundle: plan)
    monkeypatch.setattr(recipe_variants, "whole_window", lambda bundle: [88, 160])
    return plan


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_sets_values_that_a_plan_has(name, planned, tmp_path):
    derived = {key: derive(tmp_path) for key, derive in VARIANTS[name].derived.items()}
    for key, value in parse_settings({**VARIANTS[name].values, **derived}).items():
        check_one(key, value, 2)


def test_each_level_weighs_half_of_the_next(planned, tmp_path):
    assert VARIANTS["each level weighs half of the next"].derived["level_weights"](tmp_path) == [0.25, 0.5, 1]


def test_patches_of_random_size_are_half_as_long_again_but_no_longer_than_images(planned, tmp_path):
    derived = VARIANTS["instance norm, random patch sizes"].derived
    assert derived["patch_size"](tmp_path) == [88, 120]
    assert derived["window_shape"](tmp_path) == [64, 80]
    # what is turned by 90 degrees stays square
    planned.update(patch_size=[64, 64], rotate90=True)
    assert derived["patch_size"](tmp_path) == [88, 88]


def test_the_patches_of_a_step_are_cut_around_their_centre_to_sizes_that_come_again():
    cut, pixels = RandomPatchSizes([4, 8], seed=3), torch.arange(24 * 32).reshape(1, 1, 24, 32)

    def size_at(step):
        engine = SimpleNamespace(state=SimpleNamespace(iteration=step, batch={"image": pixels, "label": pixels}))
        cut(engine)
        image, label = engine.state.batch.values()
        assert torch.equal(image, label)
        height, width = image.shape[2:]
        assert image[0, 0, 0, 0] == (24 - height) // 2 * 32 + (32 - width) // 2
        return height, width

    found = [size_at(step) for step in range(30)]
    assert {height for height, _ in found} == {8, 12, 16, 20, 24}
    assert {width for _, width in found} == {16, 24, 32}
    # an interrupted training goes on with the same sizes
    assert size_at(10) == found[10]


def test_what_depends_on_the_plan_is_planned_after_it(tmp_path, monkeypatch):
    asked = []

    def plan(dataset_dir, folder, settings):
        asked.append((folder.name, settings))
        (folder / "configs").mkdir(parents=True, exist_ok=True)
        (folder / "configs" / "train.json").write_text('{"steps": 5}')

    monkeypatch.setattr(recipe, "plan", plan)
    derived = {"batch_size": lambda folder: len(folder.name)}
    variant = Variant({"steps": 5, "batch_size": 1}, derived, lambda content: content.update(a=1))
    plan_variant(tmp_path, tmp_path / "bundle", variant)
    assert asked == [("first", {"steps": 5, "batch_size": 1}), ("planned", {"steps": 5, "batch_size": 5})]
    assert json.loads((tmp_path / "bundle" / "configs" / "train.json").read_text()) == {"steps": 5, "a": 1}
    # what is planned stays as it is
    plan_variant(tmp_path, tmp_path / "bundle", Variant({"steps": 6}))
    assert len(asked) == 2


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
    other = tmp_path / "altered"
    other.mkdir()
    (other / "dataset.json").write_text(json.dumps({"validation": [{"image": "v.nii", "label": "l.nii"}]}))
    result = run_variant(tmp_path, work, Variant({"steps": 7}), also=[other])
    assert trained[0]["steps"] == 7
    assert (len(result.dice["L1"]), len(result.training["L1"]), result.whole) == (2, 2, None)
    assert all(value == pytest.approx(0.6) for value in result.dice["L1"].values())
    assert all("training" in case for case in result.training["L1"])
    assert list(result.also["altered"]["L1"]) == [str(other / "v.nii")]


@pytest.fixture
def trained_bundles(tmp_path, monkeypatch):
    """What runs a variant for six steps on tiny images: four to train on, four unseen ones, two of each subject."""
    data = tmp_path / "data"
    data.mkdir()
    write_disc_images(data, training=4, validation=4)
    content = read_object(data / "dataset.json")
    for number, case in enumerate(content["validation"]):
        case["subject"] = "ab"[number % 2]
    (data / "dataset.json").write_text(json.dumps(content))
    monkeypatch.setattr(recipe, "plan", functools.partial(recipe.plan, device="cpu", measure=slow_machine))

    def run(name, whole=False):
        own = {**TINY, **VARIANTS[name].values}
        return run_variant(data, tmp_path / "work", dataclasses.replace(VARIANTS[name], values=own), whole)

    return run


@pytest.mark.slow
def test_each_half_of_the_unseen_cases_is_scored_with_what_the_other_half_chose(trained_bundles, tmp_path, monkeypatch):
    scored, best = defaultdict(list), {}
    score_fold = recipe.score_fold

    def score(bundle, cases, folder, values):
        scored[folder.name] = [case["subject"] for case in cases if "subject" in case]
        best[folder.name] = torch.load(folder / "model.pt", weights_only=True)
        return score_fold(bundle, cases, folder, values)

    monkeypatch.setattr(recipe, "score_fold", score)
    result = trained_bundles("best on other unseen cases, not last")
    assert {len(cases) for cases in (*result.dice.values(), *result.training.values())} == {4}
    train = read_object(tmp_path / "work" / "bundle" / "configs" / "train.json")
    assert [handler["_target_"] for handler in train["train"]["handlers"][:2]] == ["ValidationHandler"] * 2
    # subjects are not torn apart
    assert [len(set(scored[f"unseen_{number}"])) for number in (1, 2)] == [1, 1]
    assert set(scored["unseen_1"]) != set(scored["unseen_2"])
    training = tmp_path / "work" / "training"
    for number, name in enumerate(CHOICES, start=1):
        chosen = torch.load(training / name / "model.pt", weights_only=True)
        assert all(torch.equal(chosen[key], value) for key, value in best[f"unseen_{number}"].items())


def test_who_chooses_is_not_who_is_scored(tmp_path, monkeypatch):
    cases = [{"image": f"{subject}.nii", "label": "l.nii"} for subject in "abcd"]
    given = {}
    monkeypatch.setattr(recipe, "load_plan", lambda bundle: {"steps": 7})
    monkeypatch.setattr(recipe, "fit", lambda *given_, **named: given.update(given_[2]))
    recipe._fit(tmp_path, {}, [cases[:1], cases[1:]])
    assert [[case["image"] for case in each] for each in given["choosing"]] == [
        ["b.nii", "c.nii", "d.nii"],
        ["a.nii"],
    ]
    assert all(case["truth"] == "l.nii" and "label" not in case for each in given["choosing"] for case in each)


@pytest.mark.slow
def test_the_weights_of_folds_are_averaged(trained_bundles, tmp_path):
    result = trained_bundles("mean of the weights of three folds")
    assert {len(cases) for cases in result.dice.values()} == {4}
    work = tmp_path / "work"
    folds = [torch.load(work / f"fold_{number}" / "model.pt", weights_only=True) for number in (1, 2, 3)]
    mean = torch.load(work / "training" / "model.pt", weights_only=True)
    assert not torch.equal(*(next(iter(fold.values())) for fold in folds[:2]))
    for key, value in mean.items():
        if value.is_floating_point():
            assert torch.allclose(value, torch.stack([fold[key] for fold in folds]).mean(0), atol=1e-6), key


@pytest.mark.slow
def test_patches_of_random_size_are_trained_on_and_scored_in_the_usual_windows(trained_bundles, tmp_path, monkeypatch):
    drawn, cut = [], RandomPatchSizes.__call__

    def record(self, engine):
        cut(self, engine)
        drawn.append(tuple(engine.state.batch["image"].shape[2:]))

    monkeypatch.setattr(RandomPatchSizes, "__call__", record)
    result = trained_bundles("instance norm, random patch sizes", whole=True)
    made = load_plan(tmp_path / "work" / "bundle")
    assert (made["patch_size"], made["window_shape"], made["norm"]) == ([24, 24], [24, 24], "instance")
    assert (len(drawn), len(set(drawn)) > 1) == (6, True)
    assert result.whole is not None
    assert len(result.case_s) == 2


def test_the_table_holds_means_and_paired_differences():
    results = {"recipe": Result(90.0, BASE, BASE, BETTER, (3.0, 2.0)), "other": Result(60.0, BETTER, None, BETTER)}
    lines = format_results(results, "discs", 7).splitlines()
    assert lines[0].startswith("`discs`, 2 unseen cases, 7 steps, ")
    assert "| recipe | 1.5 min | 0.6000 | 0.7000 |  |  | +0.0500 |" in lines
    assert "| recipe: one window - its own windows | 2.0 - 3.0 s | +0.0000 (+0.0000 to +0.0000) |" in "\n".join(lines)
    # 0.1 and 0.0 differ by their mean of 0.05, plus and minus 12.706 times 0.05
    assert (
        "| other | 1.0 min | 0.7000 | 0.7500 | +0.1000 (+0.1000 to +0.1000) | +0.0500 (-0.5853 to +0.6853) | +0.0000 |"
        in lines
    )


def test_other_data_sets_have_rows_of_their_own():
    results = {
        "recipe": Result(90.0, BASE, None, BETTER, also={"noisy": BASE}),
        "other": Result(60.0, BASE, None, BETTER, also={"noisy": BETTER}),
    }
    lines = format_results(results, "discs", 7).splitlines()
    assert "| recipe: noisy |  | 0.6000 | 0.7000 |  |  |  |" in lines
    assert any(line.startswith("| other: noisy |  | 0.7000 | 0.7500 | +0.1000 (+0.1000 ") for line in lines)


def test_all_that_was_asked_for_is_run_and_written(tmp_path, monkeypatch, capsys):
    asked = []
    result = Result(60.0, BASE, None, BASE)
    monkeypatch.setattr(recipe, "run_variant", lambda *given: asked.append(given) or result)
    arguments = [str(tmp_path), "--work", str(tmp_path / "w"), "--steps", "9", "--set", "batch_size=4", "--only"]
    names = ["recipe", "last weights, not averaged"]
    assert main([*arguments, *names, "--also", str(tmp_path), "-o", str(tmp_path / "table.md")]) == 0
    common = {"batch_size": 4, "steps": 9}
    assert asked == [
        (tmp_path, tmp_path / "w" / "recipe", Variant(common), False, [tmp_path]),
        (tmp_path, tmp_path / "w" / "last_weights_not_averaged", Variant({**common, "ema": None}), False, [tmp_path]),
    ]
    assert (tmp_path / "table.md").read_text() == capsys.readouterr().out


@pytest.mark.slow
def test_crops_can_be_moved_into_the_image_as_by_monai(trained_bundles, tmp_path):
    trained_bundles("crops moved into the image")
    augmentation = read_object(tmp_path / "work" / "bundle" / "configs" / "train.json")["train"]["augmentation"]
    crop = augmentation["transforms"][0]
    assert crop["spatial_size"] == [24, 24]
    assert "crop_size" not in crop


@pytest.mark.slow
def test_parts_of_the_strong_augmentation_can_be_left_out(trained_bundles, tmp_path):
    def chain(name):
        bundle = tmp_path / name.replace(" ", "_")
        plan_variant(tmp_path / "data", bundle, dataclasses.replace(VARIANTS[name], values=TINY))
        train = read_object(bundle / "configs" / "train.json")["train"]
        return (train[key]["transforms"] for key in ("augmentation", "late_augmentation"))

    whole, light = chain("recipe")
    less, _ = chain("rotated and scaled less")
    sharp, _ = chain("not blurred")
    assert [each for each in less if each not in whole] == [each for each in light if each not in whole]
    assert {each["_target_"] for each in whole if each not in sharp} == {
        "RandGaussianSmoothd",
        "RandSimulateLowResolutiond",
    }
