"""Names of labels and channels in a data set and in a network."""

from __future__ import annotations

import json

import pytest

from monai_unetpp.data.datasets.label_names import LabelNames
from monai_unetpp.data.datasets.network_names import (
    NetworkNames,
    check_channel_order,
    check_ignored,
    check_label_values,
    find_channel_names,
)


@pytest.mark.parametrize(
    ("found", "labels"),
    [
        (None, {"a": [1]}),
        ({"a": 1, "b": 2}, {"A": [1], "B": [2]}),
        ({"b": 1}, {"a": [1]}),  # another name
        ({"fluid": 44}, {"fluid": [24, 44]}),  # one class of several values
        ({"A": 3, "a": 1}, {"a": [1]}),
        ({"a": 2}, {}),
    ],
)
def test_names_of_labels_that_agree(found, labels):
    check_label_values("d", None if found is None else LabelNames(found), labels)


def test_names_of_labels_that_stand_for_other_values():
    names = LabelNames({"B": 1, "A": 2})
    with pytest.raises(ValueError, match=r"^x/dataset\.json: labels must .* got 2 for 'A' instead of 1\. Give it"):
        check_label_values("x/dataset.json", names, {"a": [1], "b": [2]})
    with pytest.raises(ValueError, match=r"got 2 for 'A' instead of 24, 44\. Give it"):
        check_label_values("x/dataset.json", names, {"a": [44, 24]})


def test_what_is_ignored_has_no_value_of_a_label():
    check_ignored("d", LabelNames({"a": 1}, 3), {"a": [1]})
    check_ignored("d", LabelNames({"a": 1}), {"a": [1]})
    check_ignored("d", None, {"a": [1]})
    with pytest.raises(ValueError, match=r"d: labels must give 'ignore' a value .* got 2, which is 'b' to the network"):
        check_ignored("d", LabelNames({"a": 1}, 2), {"a": [1], "b": [2]})


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], ["T1", "T2"]),
        (["T2", "T1"], []),
        (["MRI"], ["T1-weighted MRI"]),
        (["T1", "T2"], ["t1", "T2"]),
        (["T1", "zscore", "noNorm"], ["T1", "noNorm", "zscore"]),  # nnU-Net's names of normalizations
        (["T1w", "T2w"], ["T1", "T2"]),
        (["T2", "T1", "FLAIR"], ["T1", "T2"]),
        (["1", "0"], ["0", "1"]),
    ],
)
def test_channels_that_may_be_in_order_are_taken_in_silence(found, expected, caplog):
    check_channel_order("d", found, NetworkNames("metadata.json", {}, expected))
    assert caplog.text == ""


def test_channels_in_another_order_are_refused():
    names = NetworkNames("b/metadata.json", {}, ["T1", "T2", "FLAIR"])
    with pytest.raises(
        ValueError, match=r"^d: channels must be .* got t2, T1, FLAIR; b/metadata\.json names T1, T2, FL"
    ):
        check_channel_order("d", ["t2", "T1", "FLAIR"], names)


@pytest.mark.parametrize(("found", "expected"), [("ab", "ba"), (["noNorm", "T1"], ["T1", "noNorm"])])
def test_two_channels_in_another_order_are_refused(found, expected):
    with pytest.raises(ValueError, match=r"^d: channels must be in the order of the network's"):
        check_channel_order("d", found, NetworkNames("m", {}, expected))


def test_some_channels_in_another_place_are_told_once(caplog):
    names = NetworkNames("b/metadata.json", {}, ["T1", "T2", "FLAIR"])
    for _ in range(2):
        check_channel_order("told once", ["T2", "T1", "TIRM"], names)
    (record,) = caplog.records
    assert record.getMessage().startswith("told once: the channels are T2, T1, TIRM; b/metadata.json names T1, T2, FL")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"channel_names": {"1": "T2", "0": "T1"}}, ["T1", "T2"]),
        ({"modality": {"10": "k", "9": "j"}}, ["j", "k"]),
        ({"modality": "CT"}, ["CT"]),
        ({"modality": ["T1", "T2"]}, ["T1", "T2"]),
        ({"modality": 5}, []),
        ({}, []),
    ],
)
def test_channels_are_named_in_several_forms(tmp_path, content, names):
    assert find_channel_names(tmp_path) == []
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert find_channel_names(tmp_path) == names
