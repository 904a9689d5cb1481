"""The tables of the head bundle: FreeSurfer's numbers, classes and their names."""

import json
from pathlib import Path

import pytest

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
