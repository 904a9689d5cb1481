"""The data of a study: what is found out from it, and the patches of training."""

import dataclasses
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import CacheDataset
from monai.transforms import Compose

from monai_unetpp.study import StudySettings
from monai_unetpp.study.cases import (
    NumberedPatches,
    RemainingPatches,
    find_study_cases,
    make_augmentation,
    make_training_preprocessing,
)


@pytest.fixture(scope="module")
def settings():
    return StudySettings.complete({"features": [2, 4, 4], "patch_size": 16}, 2, "cpu")


@pytest.fixture(scope="module")
def prepared(discs_dir, settings):
    cases = find_study_cases(discs_dir)
    return CacheDataset(list(cases.training), make_training_preprocessing(cases, settings), progress=False)


def patches(prepared, discs_dir, settings, seed=0):
    return NumberedPatches(prepared, make_augmentation(find_study_cases(discs_dir), settings), seed, 40)


def test_axes_channels_and_labels_are_found(discs_dir):
    cases = find_study_cases(discs_dir)
    assert (cases.name, cases.spatial_dims, cases.in_channels, cases.labels) == ("Discs", 2, 1, {"disc": 1})
    assert (cases.out_channels, len(cases.training), len(cases.validation)) == (2, 5, 3)
    assert cases.as_dict()["validation"] == ["disc_5", "disc_6", "disc_7"]


def test_many_classes_are_not_wrapped(discs_dir, settings):
    # values 10, 20, ... 3000 become classes 1 to 300, of which uint8 could not hold the last ones
    cases = dataclasses.replace(find_study_cases(discs_dir), labels={str(n): 10 * n for n in range(1, 301)})
    assert (cases.out_channels, cases.label_dtype) == (301, torch.int16)
    mapped = Compose(make_training_preprocessing(cases, settings).transforms[-3:])
    label = torch.tensor([10, 2560, 3000, 0] * 64).reshape(1, 16, 16)
    found = mapped({"image": torch.zeros(1, 16, 16), "label": label})["label"]
    assert found.dtype == torch.int16
    assert found.flatten()[:4].tolist() == [1, 256, 300, 0]
    assert find_study_cases(discs_dir).label_dtype == torch.uint8


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


def test_a_patch_depends_on_seed_and_number_only(prepared, discs_dir, settings):
    first, again = (patches(prepared, discs_dir, settings) for _ in range(2))
    forward = [first[number] for number in range(12)]
    backward = [again[number] for number in reversed(range(12))][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["label"], other["label"])
        assert one["image"].shape == one["label"].shape == (1, 16, 16)
    other_seed = patches(prepared, discs_dir, settings, seed=1)
    assert not all(torch.equal(one["image"], other_seed[number]["image"]) for number, one in enumerate(forward))
    # the same case is never cut twice in the same way
    assert not torch.equal(forward[0]["image"], first[5]["image"])


def test_augmentation_leaves_the_kept_cases_alone(prepared, discs_dir, settings):
    before = [{key: case[key].clone() for key in ("image", "label")} for case in prepared]
    dataset = patches(prepared, discs_dir, settings)
    for number in range(len(dataset)):
        dataset[number]["image"].mul_(0)
    for case, kept in zip(prepared, before, strict=True):
        assert torch.equal(case["image"], kept["image"])
        assert torch.equal(case["label"], kept["label"])


def test_each_pass_sees_every_case_once(discs_dir, settings):
    cases = [{"image": torch.full((1, 16, 16), float(number)), "label": torch.ones(1, 16, 16)} for number in range(5)]

    class Identity:
        def set_random_state(self, seed):
            pass

        def __call__(self, case):
            return case

    dataset = NumberedPatches(cases, Identity(), 0, 15)
    order = [int(dataset[number]["image"][0, 0, 0]) for number in range(15)]
    turns = [order[start : start + 5] for start in (0, 5, 10)]
    assert all(sorted(turn) == [0, 1, 2, 3, 4] for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1


def test_patches_go_on_at_the_step_of_the_trainer():
    sampler = RemainingPatches(12, batch_size=3)
    assert list(sampler) == list(range(12))
    sampler.engine = type("Engine", (), {"state": type("State", (), {"iteration": 2})})
    assert list(sampler) == [6, 7, 8, 9, 10, 11]


def test_what_is_to_be_ignored_is_the_class_after_the_last(discs_dir, settings, tmp_path):
    root = shutil.copytree(discs_dir, tmp_path / "data")
    path = root / "dataset.json"
    content = json.loads(path.read_text()) | {"labels": {"background": 0, "disc": 1, "ignore": 200}}
    path.write_text(json.dumps(content))
    cases = find_study_cases(root)
    assert (cases.labels, cases.out_channels, cases.ignore_label, cases.ignored_class) == ({"disc": 1}, 2, 200, 2)
    file = root / cases.training[0]["label"]
    label = np.asarray(nib.load(file).dataobj).copy()
    label[:8] = 200
    nib.save(nib.Nifti1Image(label, np.eye(4)), file)
    prepared = make_training_preprocessing(cases, settings)(cases.training[0])["label"]
    assert prepared.unique().tolist() == [0, 1, 2]
    assert int((prepared == 2).sum()) == int((label == 200).sum())
    label[:8] = 199
    nib.save(nib.Nifti1Image(label, np.eye(4)), file)
    with pytest.raises(RuntimeError, match=r"applying transform .*CheckLabelsd"):
        make_training_preprocessing(cases, settings)(cases.training[0])
