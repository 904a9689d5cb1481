"""The data of a study: what is found out from it."""

import dataclasses
import json
import shutil

import pytest

from monai_unetpp.study.data_set import find_study_cases


def test_axes_channels_and_labels_are_found(discs_dir):
    cases = find_study_cases(discs_dir)
    assert (cases.name, cases.spatial_dims, cases.in_channels, cases.labels) == ("Discs", 2, 1, {"disc": 1})
    assert (cases.out_channels, len(cases.training), len(cases.validation)) == (2, 5, 3)
    assert cases.as_dict()["validation"] == ["disc_5", "disc_6", "disc_7"]


def test_the_bundle_of_a_study_is_told_numbers_only(discs_dir):
    cases = dataclasses.replace(find_study_cases(discs_dir), labels={"$b": 7, "@a": 3, "%same": 7})
    assert cases.network_data() == {
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 3,
        "label_values": [3, 7],
        "ignore_label": None,
    }


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({"0": "background", "1": "front", "2": "back"}, {"front": 1, "back": 2}),
        ({"background": 0, "back": 2, "front": 1}, {"back": 2, "front": 1}),
        (None, None),
        (["disc"], None),
        ({"0": "background"}, None),
        ({"disc": "one"}, None),
    ],
)
def test_labels_of_either_form(discs_dir, tmp_path, labels, found):
    root = shutil.copytree(discs_dir, tmp_path / "data")
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "labels": labels}))
    if found is None:
        with pytest.raises(ValueError, match=r"dataset\.json: labels must map values to names .* Write it like"):
            find_study_cases(root)
    else:
        assert find_study_cases(root).labels == found
