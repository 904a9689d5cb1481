"""The labels of a data set and their names."""

from __future__ import annotations

import json

import pytest

from monai_unetpp.data import find_ignore_label
from monai_unetpp.data.datasets.label_names import POOLED, LabelNames, name_values, read_label_names
from monai_unetpp.metrics import FOREGROUND


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "front", "2": "back"},
        {"background": 0, "front": 1, "back": 2},
        {"background": "0", "front": "1", "back": "2"},
        {"front": 1, "back": 2},
    ],
)
def test_either_way_round(labels):
    assert read_label_names("d", labels) == LabelNames({"front": 1, "back": 2})


@pytest.mark.parametrize("labels", [{"background": 0, "tumour": 1, "ignore": 2}, {"1": "tumour", "2": "ignore"}])
def test_ignore_is_no_label(labels):
    names = read_label_names("d", labels)
    assert (names.foreground, names.ignore, names.values) == ({"tumour": 1}, 2, (1, 2))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"whole": [1, 2], "core": [2]}, r"labels must have one value each, got \[1, 2\] for 'whole'. Regions of"),
        ({"0": ["background"]}, r"labels must have one value each"),
        ({"liver": 0, "background": 1}, r"labels must give the background the value 0, got 1"),
        ({"1": "Background", "2": "liver"}, r"labels must give the background the value 0, got 1"),
        ({"tumour": 2, "ignore": 1}, r"labels must give 'ignore' the highest value, got 1 with labels up to 2"),
        ({"background": 0, "ignore": 1}, r"labels must map values to names with at least one above 0"),
        ({"1": "foreground", "2": "rim"}, r"labels must not include 'foreground' if there are several"),
        ({"front": 1, "back": 1}, r"labels must give every name and every value once"),
        ({"1": "liver", "2": "liver"}, r"labels must give every name and every value once"),
        ({"liver": True}, r"labels must map values to names"),
        ({"liver": 1.5}, r"labels must map values to names"),
        ({"liver": -1}, r"labels must map values to names"),
        ({"liver": 2**24 + 1}, r"labels must have values up to 16777216, got 16777217\. Number them from 1 up, also"),
        ({"312782546": "visual area"}, r"labels must have values up to 16777216, got 312782546"),
        ({"liver": "1" * 5000}, r"labels must map values to names"),
        ({"1": " "}, r"labels must give every value a name, got ' ' for 1"),
        ({"1": None}, r"labels must map values to names"),
        ({"1": {"liver": 1}}, r"labels must map values to names"),
        ({}, r"labels must map values to names with at least one above 0, got \{\}"),
        (["liver"], r"labels must map values to names"),
        (None, r"labels must map values to names"),
    ],
)
def test_what_cannot_be_understood_is_refused(labels, message):
    with pytest.raises(ValueError, match=rf"^dataset\.json: {message}"):
        read_label_names("dataset.json", labels)


def test_values_are_named_as_far_as_float32_tells_them_apart():
    assert name_values("d", {0, 2**24}) == LabelNames({"label_16777216": 2**24})
    assert read_label_names("d", {"large": 2**24}) == LabelNames({"large": 2**24})
    with pytest.raises(ValueError, match=r"^d: labels must have values up to 16777216, got 16777220\. Number them"):
        name_values("d", {0, 1, 2**24 + 4})


def test_the_value_to_ignore_for_configurations(tmp_path):
    assert find_ignore_label(tmp_path) is None
    path = tmp_path / "dataset.json"
    for content, expected in (
        ({}, None),
        ({"labels": {"a": 1}}, None),
        ({"labels": {"a": 1, "ignore": 255}}, 255),
    ):
        path.write_text(json.dumps(content))
        assert find_ignore_label(tmp_path) == expected


def test_all_labels_together_have_one_name_in_the_house():
    assert POOLED == FOREGROUND
    assert read_label_names("d", {"1": "foreground"}).foreground == {"foreground": 1}
