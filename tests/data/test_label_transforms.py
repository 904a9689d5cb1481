"""Transforms that check labels, and prepare them for metrics."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric
from monai.transforms import Compose, FgBgToIndicesd, LoadImaged, Orientationd, RandCropByPosNegLabeld

from monai_unetpp.data import CheckLabelsd, ImageFileError, OneHotLabelsd, RandCropByKnownLabeld, VolumeReader

LPS = np.diag([-1.0, -1, 1, 1])


def load(folder, label, label_affine=LPS, image_affine=LPS, after=()):
    nib.save(nib.Nifti1Image(np.arange(60, dtype=np.float32).reshape(4, 3, 5), image_affine), folder / "image.nii.gz")
    nib.save(nib.Nifti1Image(label, label_affine), folder / "label.nii.gz")
    reader = VolumeReader(allow_constant=True, labels=True)
    steps = [
        LoadImaged("image", reader=VolumeReader(), ensure_channel_first=True),
        LoadImaged("label", reader=reader, ensure_channel_first=True),
        *after,
    ]
    return Compose(steps)({key: str(folder / f"{key}.nii.gz") for key in ("image", "label")})


def cubes(values, shape=(4, 3, 5)):
    return np.resize(np.array(values, np.uint8), shape)


@pytest.mark.parametrize("moved", [np.eye(4), LPS + np.eye(4, k=3) * 2, LPS * 1.2])
def test_a_label_on_another_grid_is_refused(tmp_path, moved):
    check = CheckLabelsd("label", image_key="image", classes=2)
    with pytest.raises(ImageFileError, match=r"label\.nii\.gz: not on the grid of .*image\.nii\.gz: its corners lie"):
        check(load(tmp_path, cubes([0, 1]), moved))
    with pytest.raises(ImageFileError, match=r"label\.nii\.gz: not on the grid .* its shape is \(4, 3, 4\), not"):
        check(load(tmp_path, cubes([0, 1], (4, 3, 4))))


def test_grids_are_compared_as_the_files_have_them(tmp_path):
    """Where only one of the two has been turned since, they still lie on one grid."""
    turned = Orientationd("image", axcodes="RAS", labels=None)
    item = load(tmp_path, cubes([0, 1]), after=[turned])
    assert CheckLabelsd("label", image_key="image", classes=2)(item)["label"] is item["label"]


@pytest.mark.parametrize(
    ("values", "classes", "ignore", "found"),
    [
        ([0, 1, 2], 2, None, "0 and 1 only, got 2"),
        ([0, 1], 1, None, None),
        ([0, 2], 1, None, "0 and 1 only, got 2"),
        ([0, 1, 2], 3, None, None),
        ([0, 3], 3, 3, None),
        ([0, 3], 3, None, "0 and 1, 2 only, got 3"),
        ([0, 255], 3, 255, None),
        ([0, 10, 20], [10, 20], None, None),
        ([0, 15], [10, 20], None, "0 and 10, 20 only, got 15"),
        ([0, 2], np.int64(2), -1, "0 and -1, 1 only, got 2"),
        ([0, 20], np.array([10, 20]), None, None),
    ],
)
def test_values_without_a_class_are_refused(tmp_path, values, classes, ignore, found):
    check = CheckLabelsd("label", image_key="image", classes=classes, ignore_label=ignore)
    item = load(tmp_path, cubes(values))
    if found is None:
        check(item)
    else:
        with pytest.raises(ImageFileError, match=rf"label\.nii\.gz: the label must hold {found}\. Correct"):
            check(item)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.uint16, torch.int16, torch.float16, torch.float32])
@pytest.mark.parametrize("ignore_label", [-1, 255, 300])
def test_allowed_values_that_the_type_of_a_label_cannot_hold_allow_no_others(dtype, ignore_label):
    check = CheckLabelsd("label", image_key="image", classes=2, ignore_label=ignore_label)
    image = torch.rand(1, 2, 2)
    check({"image": image, "label": torch.tensor([[[0, 1], [1, 0]]]).to(dtype)})
    wrong = {-1: 255, 300: 44, 255: 2}[ignore_label]
    if dtype != torch.bool:
        with pytest.raises(ImageFileError, match=f"only, got {wrong}"):
            check({"image": image, "label": torch.tensor([[[0, 1], [wrong, 0]]]).to(dtype)})


def test_fractions_have_no_class():
    item = {"image": torch.rand(1, 4, 4), "label": torch.full((1, 4, 4), 0.5)}
    with pytest.raises(ImageFileError, match=r"label: the label must hold 0 and 1 only, got 0\.5"):
        CheckLabelsd("label", image_key="image", classes=2)(item)


def test_items_without_a_label_are_passed_over():
    item = {"image": torch.rand(1, 4, 4)}
    assert CheckLabelsd("label", image_key="image", classes=2, allow_missing_keys=True)(item) == item


@pytest.mark.parametrize("include_background", [True, False])
def test_metrics_of_what_is_not_ignored_are_those_of_the_rest_alone(include_background):
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 3, (1, 8, 8), generator=generator).float()
    prediction = torch.randint(0, 3, (1, 8, 8), generator=generator).float()
    partly = truth.clone()
    partly[:, :3] = 7
    metric = DiceMetric(include_background=include_background, reduction="none")
    found = OneHotLabelsd(["pred", "label"], classes=3, ignore_label=7)({"pred": prediction, "label": partly})
    rest = OneHotLabelsd(["pred", "label"], classes=3)({"pred": prediction[:, 3:], "label": truth[:, 3:]})
    values = [metric(item["pred"][None], item["label"][None]) for item in (found, rest)]
    assert torch.equal(*values)
    # whatever is predicted where nobody looked
    prediction[:, :3] = 2 - prediction[:, :3]
    again = OneHotLabelsd(["pred", "label"], classes=3, ignore_label=7)({"pred": prediction, "label": partly})
    assert torch.equal(again["pred"], found["pred"])


def crop(label, pos, ignore_label=3, count=200):
    transform = RandCropByKnownLabeld(
        ["image", "label"], "label", (1, 1), pos=pos, neg=1 - pos, num_samples=count, ignore_label=ignore_label
    ).set_random_state(0)
    item = {"image": torch.arange(label.size, dtype=torch.float32).reshape(1, *label.shape)}
    return [each["label"].item() for each in transform({**item, "label": torch.as_tensor(label[None])})]


@pytest.mark.slow
@pytest.mark.parametrize(("pos", "expected"), [(1, {1, 2}), (0, {0}), (0.5, {0, 1, 2})])
def test_crops_lie_around_voxels_that_somebody_labelled(pos, expected):
    label = np.resize(np.array([0, 1, 2, 3, 3, 3], np.float32), (6, 7))
    assert set(crop(label, pos)) == expected
    assert set(crop(label, pos, ignore_label=None)) == (expected | {3} if pos else expected)


def test_a_value_to_ignore_that_the_type_of_a_label_cannot_hold_is_no_other_value():
    label = np.resize(np.array([0, 1, 44, 44], np.uint8), (6, 7))
    assert set(crop(label, 1, ignore_label=300)) == {1, 44}
    item = {"label": torch.as_tensor(label[None] // 22)}
    assert OneHotLabelsd("label", classes=3, ignore_label=258)(item)["label"].sum() == label.size


def test_without_voxels_to_ignore_crops_are_those_of_monai():
    label = np.resize(np.array([0, 1, 2], np.uint8), (6, 7))
    options = {"spatial_size": (3, 2), "pos": 3, "num_samples": 20, "allow_smaller": True}
    item = {"image": torch.rand(1, 6, 7), "label": torch.as_tensor(label[None])}
    ours = RandCropByKnownLabeld(["image", "label"], "label", **options, ignore_label=7).set_random_state(1)(item)
    monais = RandCropByPosNegLabeld(["image", "label"], "label", **options).set_random_state(1)(item)
    for one, other in zip(ours, monais, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])


@pytest.mark.parametrize("given", [[0, 1, 2, 3], [3]])
def test_given_places_are_drawn_only_where_somebody_labelled(given):
    label = torch.tensor([given * 3] * 6, dtype=torch.float32)[None]
    keys = {"fg_indices_key": "label_fg_indices", "bg_indices_key": "label_bg_indices"}
    crop = RandCropByKnownLabeld("label", "label", (1, 1), num_samples=60, ignore_label=3, **keys).set_random_state(0)
    item = FgBgToIndicesd("label")({"label": label})
    assert {each["label"].item() for each in crop(item)} == ({0, 1, 2} if 0 in given else {3})


def test_where_all_is_to_be_ignored_crops_lie_anywhere():
    assert set(crop(np.full((3, 4), 3, np.float32), 0.5)) == {3}
