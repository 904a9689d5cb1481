"""From a data set to a bundle that only lacks its weights, and what MONAI makes of it."""

import dataclasses
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_runs import configs, missing_properties, run_here
from fingerprints import fingerprint
from monai.transforms import RandLambdad
from PIL import Image

from monai_unetpp.bundles import BundleConfig, TrainingRecord, check_bundle, label_names, load_network
from monai_unetpp.cli import main
from monai_unetpp.data import load_datalist
from monai_unetpp.planning import Fingerprint, Machine, TrainingPlan, load_plan, plan, write_readme
from monai_unetpp.planning.documents import plan_text, readme_text
from monai_unetpp.planning.plan_making import make_plan
from monai_unetpp.planning.plan_options import PlanOptions
from monai_unetpp.pruning.exposure import record_of
from monai_unetpp.segmentation import segment_files

#: Signs of MONAI's configurations in names that users give.
HOSTILE = "$1 a#b::c @seed"
TINY = {"features": [4, 8, 8], "patch_size": [16, 16, 8], "strides": [[2, 2, 1], [2, 2, 2]], "batch_size": 2}


def machine(spatial_dims, device, classes):
    return Machine(4e9, 2**34, 2, "cpu")


def write_data_set(root, save, labels, shape, channels, modality, count=4):
    """Cases with two boxes, the first of which has the lowest label value and the second the highest."""
    generator, entries = np.random.default_rng(0), []
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        label = np.zeros(shape, np.uint8)
        label[tuple(slice(edge // 8, edge // 2) for edge in shape)] = min(labels.values())
        label[tuple(slice(edge // 2, 7 * edge // 8) for edge in shape)] = max(labels.values())
        image = 100.0 * (label > 0) + 100 * (label == max(labels.values())) + generator.normal(20, 5, shape)
        image = image if channels == 1 else np.stack([image, generator.normal(size=shape)], axis=-1)
        entries.append(
            {key: save(root, f"{key}sTr", number, array) for key, array in {"image": image, "label": label}.items()}
        )
    names = {str(value): name for name, value in labels.items()}
    content = {"modality": modality, "labels": {"0": "background", **names}, "training": entries}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def save_volume(root, folder, number, array):
    affine = np.diag([-1.0, 1.0, 5.0, 1.0])
    kind = np.float32 if folder == "imagesTr" else np.uint8
    nib.save(nib.Nifti1Image(array.astype(kind), affine), root / folder / f"case_{number}.nii.gz")
    return f"./{folder}/case_{number}.nii.gz"


def save_picture(root, folder, number, array):
    Image.fromarray(np.clip(array, 0, 255).astype(np.uint8).T).save(root / folder / f"case_{number}.png")
    return f"./{folder}/case_{number}.png"


@pytest.fixture(scope="module")
def thick_dir(tmp_path_factory):
    """Two channels, thick slices, labels of any values with hostile names, in a folder with one."""
    root = tmp_path_factory.mktemp("data") / HOSTILE
    labels = {HOSTILE: 10, "other": 250}
    return write_data_set(root, save_volume, labels, (32, 28, 12), 2, {"0": "T1", "1": "T2"})


@pytest.fixture(scope="module")
def thick_bundle(thick_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "thick"
    plan(thick_dir, folder, minutes=1, settings=TINY, measure=machine)
    return folder


@pytest.mark.slow
def test_a_bundle_lacks_nothing_but_weights(thick_bundle):
    assert check_bundle(thick_bundle) == ["models/model.pt: missing."]


@pytest.mark.slow
def test_monai_finds_all_properties_of_the_training(thick_bundle, tmp_path):
    # inference needs weights; the plan knows the data set
    assert missing_properties(thick_bundle, "train", output_dir=tmp_path) == []


def test_the_same_data_and_machine_give_the_same_bundle(thick_dir, thick_bundle, tmp_path):
    again = tmp_path / "thick"
    plan(thick_dir, again, minutes=1, settings=TINY, measure=machine)
    written = [path.relative_to(thick_bundle) for path in thick_bundle.rglob("*") if path.is_file()]
    differing = [path for path in written if (again / path).read_bytes() != (thick_bundle / path).read_bytes()]
    assert [path for path in differing if path.parts[0] != "training"] == []


def test_texts_of_users_are_read_as_they_are(thick_dir, thick_bundle):
    config = BundleConfig(thick_bundle, "train.json", "prune.json")
    assert config.parse("dataset_dir") == str(thick_dir)
    assert config.parse("planned").labels == {HOSTILE: 10, "other": 250}
    assert label_names(thick_bundle) == {10: f"label {HOSTILE}", 250: "other"}
    for name in ("train", "inference", "evaluate", "prune", "finetune", "multi_gpu_train"):
        assert "a#b" not in (thick_bundle / "configs" / f"{name}.json").read_text()


def test_a_bundle_that_is_passed_on_names_no_case_and_no_folder_of_its_maker(thick_dir, thick_bundle, tmp_path):
    cases = Fingerprint.read(thick_bundle / "configs" / "fingerprint.json").cases
    assert [case.subject for case in cases] == ["subject_1", "subject_2", "subject_3"]
    for name in ("plan.md", "README.md"):
        assert str(thick_dir.parent) not in (thick_bundle / "docs" / name).read_text()
    content = json.loads((thick_bundle / "configs" / "plan.json").read_text())
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "plan.json").write_text(json.dumps(content | {"dataset_dir": "data"}))
    assert load_plan(tmp_path).dataset_dir == str(tmp_path / "data")


def test_the_plan_says_what_was_set_by_hand_and_why_the_rest_is_as_it_is(thick_bundle):
    made = load_plan(thick_bundle)
    assert set(made.by_hand) == set(TINY)
    assert made == TrainingPlan.from_dict(made.as_dict())
    text = (thick_bundle / "docs" / "plan.md").read_text()
    assert "| `batch_size` | 2 | Set by hand. " in text
    # a rule that builds on values set by hand is asked without the one that it is compared with
    assert "| `features` | 4, 8, 8 | Set by hand. The rule gives: " in text
    assert "| `flip_axes` | 0 | Bodies are nearly symmetric" in text
    assert "4 training cases" not in text
    assert "3 training cases of 3 subjects" in text
    assert "Validation: 1 case of 1 subject (drawn from 4 cases), not used for planning or training." in text
    assert "(s)" not in text
    assert "<td>Set by hand. " in made._repr_html_()
    # thick slices are turned in their plane alone
    train = json.loads((thick_bundle / "configs" / "train.json").read_text())["train"]
    early, late = (train[name]["transforms"] for name in ("augmentation", "late_augmentation"))
    affine = [next(each for each in chain if each["_target_"] == "RandAffined") for chain in (early, late)]
    # at the end patches are varied lightly
    assert [each["rotate_range"] for each in affine] == [[0.05, 0.05, 0.4], [0.05, 0.05, 0.26]]
    assert "RandGaussianSmoothd" in [each["_target_"] for each in early]
    assert "RandGaussianSmoothd" not in [each["_target_"] for each in late]


@pytest.mark.slow
def test_monai_trains_evaluates_and_segments_with_it(thick_dir, thick_bundle, tmp_path):
    bundle = shutil.copytree(thick_bundle, tmp_path / "bundle")
    common = ("--bundle_root", bundle)
    steps = ("--steps", 2, "--checkpoint_steps", 2, "--minutes", "None")
    run_here("run", "--config_file", configs(bundle, "train.json"), *common, "--output_dir", tmp_path / "out", *steps)
    (bundle / "models").mkdir()
    for name in ("model.pt", "training_record.json"):
        shutil.copy(tmp_path / "out" / name, bundle / "models")
    assert check_bundle(bundle) == []
    # prune knows the cases of these weights, as after the command train
    record = record_of(load_network(bundle / "models" / "model.pt"), bundle)
    cases = load_datalist(thick_dir, "training")
    assert record == TrainingRecord.of(cases, rule="last, averaged")
    evaluation = ("--config_file", configs(bundle, "train.json", "evaluate.json"), *common)
    run_here("run", *evaluation, "--output_dir", tmp_path / "scores")
    assert len((tmp_path / "scores" / "val_mean_dice_raw.csv").read_text().splitlines()) == 2
    summary = segment_files(thick_dir, tmp_path / "labels", bundle, runtime="torch", level="L1", list_key="training")
    assert summary.failures == ()
    labels = np.asarray(nib.load(summary.cases[0].output).dataobj)
    assert set(np.unique(labels)) <= {0, 10, 250}
    with pytest.raises(FileExistsError, match=r"is a bundle with weights or a training\. Give another folder"):
        plan(thick_dir, bundle, minutes=1, settings=TINY, measure=machine)


@pytest.mark.slow
def test_windows_beyond_an_image_hold_what_patches_held_there(thick_bundle, tmp_path):
    root = write_data_set(tmp_path / "cells", save_picture, {"cell": 1}, (48, 40), 1, {"0": "microscopy"})
    plan(root, tmp_path / "flat", minutes=1, settings={"features": [2, 4, 4]}, measure=machine)
    for bundle, mode in ((thick_bundle, "replicate"), (tmp_path / "flat", "reflect")):
        train, inference = (json.loads((bundle / "configs" / f"{n}.json").read_text()) for n in ("train", "inference"))
        inferer = inference["inferer"].get("inferer", inference["inferer"])
        assert inferer["padding_mode"] == train["validate"]["inferer"]["padding_mode"] == mode


@pytest.mark.slow
def test_pictures_get_a_bundle_that_reads_them(tmp_path, monkeypatch, capsys):
    root = write_data_set(tmp_path / "cells", save_picture, {"cell": 1}, (48, 40), 1, {"0": "microscopy"})
    monkeypatch.setattr("monai_unetpp.planning.plan_making.plan.__defaults__", (60.0, 0, *[None] * 5, False, machine))
    assert main(["plan", str(root), "-o", str(tmp_path / "bundle"), "--set", "features=4,8,8"]) == 0
    printed = capsys.readouterr().out
    assert "features" in printed
    assert "Nothing was trained." in printed
    assert check_bundle(tmp_path / "bundle") == ["models/model.pt: missing."]
    inference = json.loads((tmp_path / "bundle" / "configs" / "inference.json").read_text())
    assert inference["dataset"]["data"]["pictures"]
    # one file per channel is one case
    assert inference["dataset"]["data"]["channels"] == "@network_def#in_channels"
    assert inference["inferer"]["_target_"] == "monai_unetpp.inferers.SlicewiseInferer"
    # for hosts that read images themselves
    assert inference["preprocessing"]["transforms"][1]["_target_"] == "EnsureChannelFirstd"
    assert "network" not in inference


def test_switches_that_were_set_by_hand_are_described(tmp_path):
    root = write_data_set(tmp_path / "cells", save_picture, {"cell": 7}, (48, 40), 1, {"0": "microscopy"})
    switches = {"invert_bright_background": True, "crop_background": True}
    settings = {"features": [2, 4, 4], "normalization": "volume", **switches}
    plan(root, tmp_path / "bundle", settings=settings, measure=machine)
    readme = (tmp_path / "bundle" / "docs" / "README.md").read_text()
    assert "\n- A constant surround is set to 0, cropped away, and background in the result.\n" in readme
    assert "\n- Images with a bright background are inverted, so that all look alike.\n" in readme
    assert "- Set by hand" not in readme


@pytest.mark.slow
def test_images_can_be_scaled_bent_and_split_into_objects(tmp_path):
    root = write_data_set(tmp_path / "cells", save_picture, {"cell": 7}, (48, 40), 1, {"0": "microscopy"})
    bundle = tmp_path / "bundle"
    settings = {"features": [2, 4, 4], "normalization": "unit", "clip_percentiles": [0, 99.9], "gamma": 0.5}
    plan(root, bundle, settings=settings, measure=machine)
    inference, image = BundleConfig(bundle, "inference.json"), root / "imagesTr" / "case_0.png"
    prepared = inference.parse("preprocessing")({"image": str(image)})["image"]
    pixels = np.asarray(Image.open(image)).T.astype(float)
    low, high = np.percentile(pixels, (0, 99.9))
    expected = np.clip((pixels - low) / (high - low), 0, 1) ** 0.5
    np.testing.assert_allclose(prepared[0].numpy(), expected, atol=1e-4)
    # nearly black, so that its percentiles are equal
    sparse = tmp_path / "sparse.png"
    Image.fromarray(np.pad(np.full((1, 2), 200, np.uint8), 40)).save(sparse)
    prepared = inference.parse("preprocessing")({"image": str(sparse)})["image"]
    assert prepared.unique().tolist() == pytest.approx([0, 1])
    readme = (bundle / "docs" / "README.md").read_text()
    steps = ("Each image is scaled to 0 to 1.", "clipped to the percentiles 0 and 99.9", "raised to the power of 0.5.")
    assert [readme.index(step) for step in steps] == sorted(readme.index(step) for step in steps)
    assert "With `--instances`" in readme
    network = inference.parse("network_def")
    (bundle / "models").mkdir()
    torch.save({"state_dict": network.state_dict(), "config": network.config}, bundle / "models" / "model.pt")
    options = {"bundle": bundle, "device": "cpu", "runtime": "torch"}
    plain = segment_files(image, tmp_path / "plain", **options).cases[0]
    numbered = segment_files(image, tmp_path / "numbered", **options, instances=True).cases[0]
    found, numbers = (np.asarray(Image.open(case.output)) for case in (plain, numbered))
    assert set(np.unique(found)) <= {0, 7}
    assert numbers.max() == numbered.instances


@pytest.mark.slow
@pytest.mark.parametrize(("normalization", "inverted"), [("unit", [1.0, 0.75, 0.0]), ("volume", [0.0, -0.25, -1.0])])
def test_some_patches_are_inverted_where_images_are(tmp_path, normalization, inverted):
    root = write_data_set(tmp_path / "cells", save_picture, {"cell": 1}, (48, 40), 1, {"0": "microscopy"})
    settings = {"features": [2, 4, 4], "normalization": normalization, "invert_bright_background": True}
    plan(root, tmp_path / "bundle", settings=settings, measure=machine)
    train = BundleConfig(tmp_path / "bundle", "train.json")
    for chain in ("augmentation", "late_augmentation"):
        invert = next(step for step in train.parse(f"train#{chain}").transforms if isinstance(step, RandLambdad))
        share = sum(torch.equal(invert({"image": torch.ones(1)})["image"], torch.ones(1)) for _ in range(1000)) / 1000
        assert 0.9 < share < 0.99
        invert.prob = 1.0
        assert invert({"image": torch.tensor([0.0, 0.25, 1.0])})["image"].tolist() == inverted
    assert "one patch in twenty inverted" in (tmp_path / "bundle" / "docs" / "README.md").read_text()
    plain = {**settings, "augmentation": "none"}
    plan(root, tmp_path / "plain", settings=plain, measure=machine)
    steps = BundleConfig(tmp_path / "plain", "train.json").parse("train#augmentation").transforms
    assert not any(isinstance(step, RandLambdad) for step in steps)
    assert "patch in twenty" not in (tmp_path / "plain" / "docs" / "README.md").read_text()


@pytest.mark.slow
def test_pictures_whose_surround_is_cropped_get_results_on_their_own_grid(tmp_path):
    root = write_data_set(tmp_path / "cells", save_picture, {"cell": 1}, (48, 40), 1, {"0": "microscopy"})
    settings = {"features": [2, 4, 4], "crop_background": True}
    plan(root, tmp_path / "bundle", settings=settings, measure=machine)
    padded = tmp_path / "padded.png"
    Image.fromarray(np.pad(np.asarray(Image.open(root / "imagesTr" / "case_0.png")), 20)).save(padded)
    train = BundleConfig(tmp_path / "bundle", "train.json")
    image = train.parse("preprocessing")({"image": str(padded)})["image"]
    assert image.shape[1] < 88
    found = train.parse("postprocessing")({"image": image, "pred": torch.cat([-image, image])})["pred"]
    assert found.shape == (1, 88, 80)
    assert found[:, 20:-20, 20:-20].any()
    assert not found[:, :20].any()


def test_an_image_without_a_scale_of_its_own_is_not_bent(thick_dir, tmp_path):
    settings = {**TINY, "normalization": "inside", "gamma": 0.5}
    with pytest.raises(ValueError, match=r"gamma must be 1 for the normalization 'inside', got 0\.5\. Leave it out"):
        plan(thick_dir, tmp_path / "bundle", settings=settings, measure=machine)


@pytest.mark.slow
def test_rare_kinds_of_images_are_drawn_more_often_by_the_bundle_also_from_other_lists(tmp_path):
    root = write_data_set(tmp_path / "cells", save_picture, {"cell": 1}, (48, 40), 1, {"0": "microscopy"}, count=14)
    entries = json.loads((root / "dataset.json").read_text())["training"]
    for entry in entries[:3]:
        with Image.open(root / entry["image"]) as picture:
            inverted = Image.fromarray(255 - np.asarray(picture))
        inverted.save(root / entry["image"])
    content = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps({**content, "validation": entries[-2:], "training": entries[:-2]}))
    settings = {"features": [4, 8, 8], "patch_size": [16, 16]}

    def weights_of(folder, cases=None):
        config = BundleConfig(tmp_path / folder, "train.json")
        if cases is not None:
            config["train#cases#data"] = cases
        return config.parse("train#weights")

    plan(root, tmp_path / "both", minutes=1, settings=settings, measure=machine)
    assert load_plan(tmp_path / "both")["rare_kind_factor"] == 5.0
    # 3 bright cases and 9 dark ones
    assert np.divide(weights_of("both"), 9**-0.5) == pytest.approx([3**0.5] * 3 + [1] * 9)
    folded = load_datalist(root, "training")[2:] + load_datalist(root, "validation")
    assert np.divide(weights_of("both", folded), 11**-0.5) == pytest.approx([11**0.5] + [1] * 11)
    text = (tmp_path / "both" / "docs" / "plan.md").read_text()
    size = "48 x 40 pixels, "
    assert (
        f"- 2 kinds of images: {size}dark background (9 cases); {size}bright background (3 cases, each drawn 1.7 "
        "times as often)."
    ) in text
    plan(root, tmp_path / "alike", minutes=1, settings={**settings, "rare_kind_factor": 1}, measure=machine)
    assert weights_of("alike") is None
    (root / "dataset.json").write_text(json.dumps({**content, "validation": entries[-2:], "training": entries[3:-2]}))
    plan(root, tmp_path / "one", minutes=1, settings=settings, measure=machine)
    assert load_plan(tmp_path / "one")["rare_kind_factor"] == 1.0
    assert weights_of("one") is None
    assert "kinds of images:" not in (tmp_path / "one" / "docs" / "plan.md").read_text()


@pytest.mark.slow
def test_values_that_do_not_go_together_leave_nothing_behind(thick_dir, tmp_path, capsys):
    folder = tmp_path / "bundle"
    with pytest.raises(ValueError, match="class_ratios must have 3 numbers"):
        plan(thick_dir, folder, settings=["class_ratios=[1,1]"], measure=machine)
    with pytest.raises(ValueError, match="class_weights must have 3 numbers"):
        plan(thick_dir, folder, settings=["class_weights=[1,1]"], measure=machine)
    with pytest.raises(ValueError, match=r"window_shape must leave 2 voxels or more .*, got \[1, 1, 1\]"):
        plan(thick_dir, folder, settings={**TINY, "window_shape": [1, 1, 1]}, measure=machine)
    with pytest.raises(ValueError, match="level_weights must have 2 numbers, one per level with the shallowest first"):
        plan(thick_dir, folder, settings={**TINY, "level_weights": [1]}, measure=machine)
    assert not (folder / "configs").exists()
    # and another attempt is free to go
    plan(thick_dir, folder, settings=TINY, measure=machine)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("weeks")
    assert main(["plan", str(thick_dir), "-o", str(tmp_path / "mine")]) == 2
    assert "the bundle is to be made there, but it exists" in capsys.readouterr().err


def made_by_hand(data, **settings):
    """A plan without a data set."""
    return make_plan(data, PlanOptions("data", "bundle", settings=settings), machine(3, None, 2), "two cases")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flip_axes", "flips"])
def test_it_is_told_where_mirroring_confuses_left_and_right(name, caplog):
    sided = fingerprint(labels={"left x": 1, "right x": 2}, left_right=(("left x", "right x"),))
    made_by_hand(sided, **{name: [1, 2]}, **TINY)
    made_by_hand(fingerprint(), **{name: [0]}, **TINY)
    assert not caplog.text
    assert made_by_hand(sided, **{name: 0}, **TINY)[name] == [0]
    (told,) = caplog.messages
    assert told.startswith(f"{name}: mirroring axis 0 swaps left and right")
    assert "left x from right x. Leave this axis out" in told
    caplog.clear()
    made_by_hand(fingerprint(labels={"left x": 1}), **{name: 0}, **TINY)
    assert "cannot tell left x from the other side. Leave this axis out" in caplog.text


def test_it_is_told_where_files_as_stored_mix_their_axes(caplog):
    thick = fingerprint(spacings=((1.0, 1.0, 5.0),) * 4)
    made_by_hand(thick, orientation=None, **TINY)
    assert "orientation" not in caplog.text
    turned = dataclasses.replace(thick.cases[0], stored_axes=(2, 1, 0), name="turned")
    made_by_hand(dataclasses.replace(thick, cases=(*thick.cases, turned)), orientation=None, **TINY)
    assert "orientation=none: thick slices lie along axis 0 of 1 case, axis 2 of 4 cases, and no axis" in caplog.text


@pytest.mark.slow
def test_values_set_by_hand_that_change_nothing_are_told(caplog):
    tiny = {**TINY, "crop_background": False}
    made_by_hand(fingerprint(), bias_field=True, clip_percentiles=[1, 99], orientation=None, **tiny)
    made_by_hand(fingerprint(), augmentation="none", bias_field=False, **tiny)
    made_by_hand(fingerprint(modality="CT"), clip_percentiles=[1, 99], **tiny)
    assert not caplog.text
    made_by_hand(fingerprint(), augmentation="none", bias_field=True, **tiny)
    given = {"normalization": "range", "intensity_range": [0, 100, 15, 20]}
    made_by_hand(fingerprint(), clip_percentiles=[1, 99], **given, **tiny)
    made_by_hand(fingerprint(shape=(64, 64)), orientation="RAS", features=[4, 8, 8], patch_size=[16, 16])
    assert caplog.messages == [
        "bias_field has no effect without augmentation. Leave it out.",
        "clip_percentiles has no effect beside intensity_range. Leave it out.",
        "orientation has no effect in 2D. Leave it out.",
    ]


@pytest.mark.parametrize(
    ("ignored", "told"),
    [
        ((0, 0), " are ignored.\n"),
        (
            (0, 131_072),
            ": 25 % of all, in 1 of 2 cases. The sizes of labels in these cases are unknown, so `segment` com",
        ),
        (
            (250_000,),
            ": 95.4 % of all, in 1 of 1 case. The sizes of labels in these cases are unknown, so `segment` com",
        ),
    ],
)
def test_it_is_told_how_much_nobody_labelled(ignored, told):
    data = dataclasses.replace(fingerprint(ignored=ignored), ignore_label=3)
    made = made_by_hand(data, **TINY)
    for text in (plan_text(made, data), readme_text(made, data)):
        assert f" Voxels with the label 3 are ignored{told.removeprefix(' are ignored')}" in text
        assert ("compares results with the others only.\n" in text) == (ignored == (0, 131_072))
        assert ("compares no sizes of results with them.\n" in text) == (ignored == (250_000,))


@pytest.mark.parametrize(("spacing_mm", "shape"), [(1e-9, "6.3e"), (0.001, "63001 x 63001 x 63001")])
def test_a_grid_that_no_memory_holds_is_refused(spacing_mm, shape):
    with pytest.raises(
        ValueError, match=rf"spacing_mm must leave images .* at which an image would have {shape}.* Give larger"
    ):
        made_by_hand(fingerprint(), spacing_mm=spacing_mm)
    flat = fingerprint(shape=(64, 64), spacings=((1.0, 1.0),))
    with pytest.raises(ValueError, match="at most 65534 voxels long"):
        made_by_hand(flat, spacing_mm=[0.0009, 16])


def test_a_grid_on_which_hardly_anything_is_left_is_refused():
    with pytest.raises(
        ValueError, match=r"spacing_mm must leave something of .* 64 x 64 x 64 voxels would have 1 x 1 x 1"
    ):
        made_by_hand(fingerprint(), spacing_mm=1e9)


def test_steps_that_are_set_by_hand_end_a_training_alone(thick_dir, thick_bundle, tmp_path):
    plan(thick_dir, tmp_path / "bundle", minutes=1, settings={**TINY, "steps": 7}, measure=machine)
    bundles = (thick_bundle, tmp_path / "bundle")
    timed, by_hand = (BundleConfig(bundle, "train.json").parse("minutes") for bundle in bundles)
    assert timed > 0
    assert by_hand is None


def test_dropout_and_the_weights_of_the_levels_reach_the_training(thick_dir, tmp_path):
    folder = tmp_path / "bundle"
    plan(thick_dir, folder, settings={**TINY, "dropout": 0.25, "level_weights": [0.5, 1]}, measure=machine)
    config = BundleConfig(folder, "train.json")
    assert config.parse("network_def").config["dropout"] == 0.25
    assert config.parse("loss").level_weights == {"L1": 0.5, "L2": 1.0}
    # plans of before had none of these
    content = load_plan(folder).as_dict()
    for name in ("dropout", "level_weights", "rare_kind_factor"):
        del content["values"][name], content["reasons"][name]
    read = TrainingPlan.from_dict(content)
    assert (read["dropout"], read["rare_kind_factor"]) == (0.0, 1.0)


@pytest.mark.slow
def test_subjects_that_are_given_are_those_of_this_data_set_alone(thick_dir, tmp_path):
    folder, table = tmp_path / "bundle", tmp_path / "subjects.csv"
    table.write_text("case,subject\ncase_0,a\ncase_1,a\ncase_2,a\ncase_3,b\n")
    plan(thick_dir, folder, settings=TINY, subjects=table, measure=machine)
    made = load_plan(folder)
    # subject a has three of the four cases
    assert made.validation == "1 case of 1 subject (drawn from 4 cases)"
    assert "of 1 subject (by `subjects.csv`)" in (folder / "docs" / "plan.md").read_text()
    config = BundleConfig(folder, "train.json")
    kept = {case["subject"] for case in config.parse("train#cases").data}
    assert len(kept) == 1
    assert config.parse("subjects") == str(table)
    assert (made.subjects_for([thick_dir]), made.subject_pattern_for(thick_dir)) == (str(table), None)
    assert made.subjects_for([thick_dir, tmp_path]) == str(table)
    assert made.subjects_for(tmp_path) is None
    # rules by hand are for all data sets
    assert made.dataset_of(str(table), None) == made.dataset_of(None, None) == str(thick_dir)
    assert made.dataset_of(None, "(.*)") is None
    config = BundleConfig(folder, "train.json")
    config["dataset_dir"] = str(tmp_path)
    assert config.parse("subjects") is None


def test_the_readme_is_written_anew_with_what_was_reached(thick_bundle):
    before = (thick_bundle / "docs" / "README.md").read_text()
    assert "has not been trained yet" in before
    assert "strong augmentation, light in the last 25 % of the training; mirrored along axis 0;" in before
    assert "(s)" not in before
    licence = "Hearts of sheep, scanned in 2024.\n\nLicence: CC0.\n\n- Please cite us."
    to_fill_in = next(line for line in before.splitlines() if line.startswith("**Licence of the data:**"))
    filled_in = before.replace(to_fill_in, licence)
    (thick_bundle / "docs" / "README.md").write_text(filled_in)
    after = write_readme(
        thick_bundle, training="Trained for a minute.", performance="#### Scores\n\nDice 0.9"
    ).read_text()
    assert f"\n\n{licence}\n\n### Preprocessing" in after
    # as while the levels are compared
    trained = write_readme(thick_bundle, training="Trained for a minute.").read_text()
    assert "has not been trained yet" not in trained
    assert "The levels have not been compared yet: run `monai-unetpp train`" in trained
    # without one it is to be filled in
    (thick_bundle / "docs" / "README.md").unlink()
    assert f"\n\n{to_fill_in}\n\n### Preprocessing" in write_readme(thick_bundle).read_text()
    assert "has not been trained yet" not in after
    assert "Trained for a minute." in after
    assert "\n\n\n" not in before + after
    assert "#### Scores" in after
    (thick_bundle / "docs" / "README.md").write_text(before)


def augmenting_steps(bundle):
    """The transforms of a plan's augmentation by name, of which none changes anything."""
    steps = BundleConfig(bundle, "train.json").parse("train#augmentation").transforms
    for step in steps:
        if hasattr(step, "prob"):
            step.prob = 0.0
    return {type(step).__name__: step for step in steps}


@pytest.mark.slow
def test_lower_resolution_moves_no_image_against_its_label(thick_bundle):
    lower = augmenting_steps(thick_bundle)["RandSimulateLowResolutiond"]
    lower.prob = 1.0
    lower.set_random_state(0)
    ramp = torch.arange(40.0)[None, :, None, None].expand(1, 40, 8, 8).clone()
    moved = [float((lower({"image": ramp.clone()})["image"] - ramp)[0, 8:-8].mean()) for _ in range(20)]
    assert np.abs(moved).max() < 0.15


@pytest.mark.slow
def test_patches_of_images_shorter_than_a_crop_are_interpolated_only_where_they_are_turned(tmp_path):
    root = tmp_path / "stripped"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(3):
        brain = np.zeros((21, 23, 19), np.float32)
        brain[4:-4, 4:-4, 4:-4] = np.random.default_rng(number).uniform(50, 90, (13, 15, 11))
        nib.save(nib.Nifti1Image(brain, np.eye(4)), root / "images" / f"{number}.nii.gz")
        nib.save(nib.Nifti1Image((brain > 0).astype(np.uint8), np.eye(4)), root / "labels" / f"{number}.nii.gz")
    settings = {**TINY, "patch_size": [16, 16, 16], "strides": [[2, 2, 2]] * 2, "crop_background": True}
    plan(root, tmp_path / "bundle", minutes=1, settings=settings, measure=machine)
    steps = augmenting_steps(tmp_path / "bundle")
    prepared = BundleConfig(tmp_path / "bundle", "train.json").parse("train#preprocessing")(
        load_datalist(root, "training")[0]
    )
    # along each axis the image is longer than a patch by an odd number of voxels, and shorter than a crop
    assert all(16 < length < 24 and length % 2 for length in prepared["image"].shape[1:])
    ramp = torch.arange(float(prepared["image"].shape[1]))[None, :, None, None].expand(prepared["image"].shape).clone()
    (patch,) = steps["RandCropByPresentClassesd"]({**prepared, "image": ramp, "label": ramp.clone()})
    for name in ("RandGaussianSmoothd", "SpatialPadd", "RandAffined"):
        patch = steps[name](patch)
    for values in (patch["image"], patch["label"]):
        along = values[0, :, 8, 8]
        assert along.shape == (16,)
        torch.testing.assert_close(along, along[0] + torch.arange(16.0))
