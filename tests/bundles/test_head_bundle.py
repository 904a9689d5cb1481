"""The tables of the head bundle: FreeSurfer's numbers, classes and their names."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from monai_unetpp.bundles import BundleConfig
from monai_unetpp.data import describe_failure

CONFIGS = Path(__file__).parents[2] / "bundles" / "head_mri_unetpp" / "configs"


def read(name):
    return json.loads((CONFIGS / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def train():
    return read("train.json")


@pytest.fixture(scope="module")
def names():
    return read("metadata.json")["network_data_format"]["outputs"]["pred"]["channel_def"]


def test_every_number_has_one_class_and_every_class_a_number_and_a_name(train, names):
    values, classes = train["label_values"], train["classes"]
    assert len(values) == len(classes) == len(set(values))
    count = train["network_def"]["out_channels"]
    assert set(classes) == set(range(count))
    assert list(names) == [str(number) for number in range(count)]
    assert all(classes[values.index(value)] == 0 for value in train["surround"])


def test_the_two_sides_of_a_pair_are_the_left_and_the_right_of_one_structure(train, names):
    class_of = dict(zip(train["label_values"], train["classes"], strict=True))
    for left, right in train["sides"]:
        one, other = names[str(class_of[left])], names[str(class_of[right])]
        assert one.startswith("left ")
        assert other == one.replace("left ", "right ")
    sided = {class_of[value] for pair in train["sides"] for value in pair}
    assert {names[str(number)] for number in set(class_of.values()) - sided} == {
        "background",
        "third ventricle",
        "fourth ventricle",
        "brain stem",
        "fluid",
    }


def test_training_and_inference_have_one_network_grid_and_scale_of_intensities(train):
    inference = read("inference.json")
    for key in ("network_def", "spacing_mm", "window_shape", "image"):
        assert train[key] == inference[key]
    assert inference["preprocessing"]["transforms"][-1] == train["normalize"]
    assert train["preprocessing"]["transforms"][-1] == "@normalize"


def write_case(folder, name, values):
    """An image with a bright box for each value, and its label map."""
    label = np.zeros((40, 48, 40), np.int16)
    for number, value in enumerate(values):
        label[3 + 8 * number : 9 + 8 * number, 10:25, 10:25] = value
    image = (label * 2 + np.random.default_rng(0).normal(300, 9, label.shape)).astype(np.int16)
    entry = {key: str(folder / f"{name}_{key}.nii.gz") for key in ("image", "label")}
    for key, voxels in (("image", image), ("label", label)):
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), entry[key])
    return entry


def parse(folder, *names):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.json") for name in ("train", *names)])
    parser.update({"bundle_root": str(CONFIGS.parent), "dataset_dir": str(folder), "output_dir": str(folder / "out")})
    return parser


@pytest.mark.parametrize("epochs", [10, 30])
def test_a_training_of_any_length_ends_with_the_weights_after_its_last_epoch(epochs):
    config = BundleConfig(CONFIGS.parent, "train.json")
    config["epochs"] = epochs
    assert config.parse("val_interval") == epochs


def test_the_moving_average_does_not_warm_up_again_after_an_interruption():
    config, network = BundleConfig(CONFIGS.parent, "train.json"), torch.nn.Linear(1, 1)
    config["network"] = network
    average, engine = config.parse("ema"), Engine(lambda engine, _: network.weight.data.fill_(engine.state.iteration))
    average.attach(engine)
    engine.load_state_dict({"iteration": 3000, "epoch_length": 3001, "max_epochs": 1})
    network.weight.data.zero_()
    average.load_state_dict(network.state_dict())
    engine.run(range(3001), max_epochs=1)
    assert average.averaged.weight.item() == pytest.approx(0.003 * 3001)


def test_numbers_become_classes_and_unknown_ones_are_refused(train, tmp_path):
    preprocessing = parse(tmp_path).get_parsed_content("preprocessing")
    label = preprocessing(write_case(tmp_path, "good", [17, 53, 24]))["label"]
    class_of = dict(zip(train["label_values"], train["classes"], strict=True))
    assert set(label.unique().tolist()) == {0, class_of[17], class_of[53], class_of[24]}
    with pytest.raises(RuntimeError) as caught:
        preprocessing(write_case(tmp_path, "bad", [17, 99]))
    assert "bad_label.nii.gz: the label must hold 0 and 2, 3, 4" in describe_failure(caught.value)


@pytest.mark.parametrize("names", [(), ("finetune",), ("evaluate",)])
def test_data_are_checked_before_any_work(tmp_path, names):
    cases = {"training": [write_case(tmp_path, "good", [17])], "validation": [write_case(tmp_path, "bad", [99])]}
    (tmp_path / "dataset.json").write_text(json.dumps(cases))
    with pytest.raises(RuntimeError, match="check_labelled_data") as caught:
        parse(tmp_path, *names).get_parsed_content("run#0")
    assert "bad_label.nii.gz: the label must hold 0 and" in str(caught.value.__cause__)


def test_names_must_have_numbers_of_their_class(tmp_path):
    case = write_case(tmp_path, "good", [17, 53])
    for labels, is_wrong in (
        ({"Left hippocampus": 17, "right hippocampus": 53}, False),
        ({"fluid": 85}, False),
        ({"Left-Hippocampus": 17, "hippocampus": 53}, False),
        ({"left hippocampus": 53, "right hippocampus": 17}, True),
    ):
        content = {"labels": labels, "training": [case], "validation": [case]}
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        parser = parse(tmp_path, "evaluate")
        if not is_wrong:
            parser.get_parsed_content("data_check")
            continue
        with pytest.raises(RuntimeError, match="check_labelled_data") as caught:
            parser.get_parsed_content("data_check")
        assert "got 53 for 'left hippocampus' instead of 17. Give it" in str(caught.value.__cause__)


def test_air_is_cropped_away_also_of_integers_which_hosts_hand_over():
    transforms = ConfigParser(read("inference.json")).get_parsed_content("preprocessing").transforms
    [crop] = [transform for transform in transforms if type(transform).__name__ == "CropForegroundd"]
    image = torch.full((1, 20, 20, 20), 3, dtype=torch.int32)
    image[:, 5:15, 6:15, 7:15] = 400
    assert crop({"image": MetaTensor(image)})["image"].shape == (1, 14, 13, 12)
