"""The data of a study: what is found out from it."""

import dataclasses
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from monai_unetpp.bundles import BundleConfig
from monai_unetpp.cli import main
from monai_unetpp.study.data_set import find_study_cases
from monai_unetpp.training import TEMPLATE


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


def test_what_is_to_be_ignored_is_the_class_after_the_last(discs_dir, tmp_path):
    root = shutil.copytree(discs_dir, tmp_path / "data")
    path = root / "dataset.json"
    content = json.loads(path.read_text()) | {"labels": {"background": 0, "disc": 1, "ignore": 200}}
    path.write_text(json.dumps(content))
    cases = find_study_cases(root)
    assert (cases.labels, cases.out_channels, cases.ignore_label) == ({"disc": 1}, 2, 200)
    config = BundleConfig(TEMPLATE, "train.json")
    for key, value in {**cases.network_data(), "patch_size": [16, 16]}.items():
        config[key] = value
    preprocessing = config.parse("train#preprocessing")
    file = root / cases.training[0]["label"]
    label = np.asarray(nib.load(file).dataobj).copy()
    label[:8] = 200
    nib.save(nib.Nifti1Image(label, np.eye(4)), file)
    prepared = preprocessing(cases.training[0])["label"]
    assert prepared.unique().tolist() == [0, 1, 2]
    assert int((prepared == 2).sum()) == int((label == 200).sum())
    label[:8] = 199
    nib.save(nib.Nifti1Image(label, np.eye(4)), file)
    with pytest.raises(RuntimeError, match=r"applying transform .*CheckLabelsd"):
        preprocessing(cases.training[0])


def test_cases_of_a_subject_are_either_trained_on_or_scored(discs_dir, tmp_path, capsys):
    root, table = shutil.copytree(discs_dir, tmp_path / "data"), tmp_path / "subjects.csv"
    content = json.loads((root / "dataset.json").read_text())
    content["training"] += content.pop("validation")
    (root / "dataset.json").write_text(json.dumps(content))
    table.write_text("case,subject\n" + "".join(f"disc_{number},{number // 2}\n" for number in range(8)))
    cases = find_study_cases(root, subjects=table)
    assert (len(cases.training), len(cases.validation)) == (6, 2)
    (subject,) = set(cases.subjects.values())
    assert subject not in {case["subject"] for case in cases.training}
    options = ["--list", "--variants", "unet_L1", "--features", "2", "4", "4"]
    assert main(["study", str(root), "-o", str(tmp_path / "study"), "--subjects", str(table), *options]) == 0
    assert "unet_L1" in capsys.readouterr().out


def test_cases_of_one_name_are_refused_before_they_are_scored(discs_dir, tmp_path):
    root = shutil.copytree(discs_dir, tmp_path / "data")
    content = json.loads((root / "dataset.json").read_text())
    content["validation"].append({**content["validation"][0], "image": "imagesTr/disc_5.nii"})
    (root / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"imagesTr/disc_5\.nii: names of cases must differ, got 'disc_5' 2 times"):
        find_study_cases(root)
