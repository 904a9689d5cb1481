"""Training patches by number, cut and changed as the template of a bundle says."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    ClassesToIndicesd,
    Compose,
    RandCoarseDropoutd,
    RandCropByLabelClassesd,
    RandFlipd,
    RandSpatialCropd,
    RandSpatialCropSamplesd,
)
from torch.utils.data import DataLoader

from monai_unetpp.bundles import BundleConfig
from monai_unetpp.training import (
    TEMPLATE,
    LateNumber,
    NumberedPatches,
    RandCropByPresentClassesd,
    RemainingPatches,
    TrainingBudget,
)


@pytest.fixture
def cases():
    """Five images with noise and a square each."""
    generator = torch.Generator().manual_seed(0)
    label = torch.zeros(1, 24, 24)
    label[:, 8:16, 6:14] = 1
    return [{"image": torch.rand(1, 24, 24, generator=generator), "label": label.clone()} for _ in range(5)]


def patches(cases, seed=0):
    values = {"patch_size": [16, 16], "steps": 20, "checkpoint_steps": 10, "batch_size": 2, "seed": seed}
    config = BundleConfig(TEMPLATE, "train.json")
    for key, value in {**values, "train#cases": tuple(cases)}.items():
        config[key] = value
    return config.parse("train#dataset")


@pytest.mark.slow
def test_a_patch_depends_on_seed_and_number_only(cases):
    first, again, other = patches(cases), patches(cases), patches(cases, seed=1)
    assert len(first) == 40
    forward = [first[number] for number in range(12)]
    backward = [again[number] for number in reversed(range(12))][::-1]
    for one, same in zip(forward, backward, strict=True):
        assert torch.equal(one["image"], same["image"])
        assert torch.equal(one["label"], same["label"])
        assert one["image"].shape == one["label"].shape == (1, 16, 16)
    assert not all(torch.equal(one["image"], other[number]["image"]) for number, one in enumerate(forward))
    # the same case is never cut twice in the same way
    assert not torch.equal(forward[0]["image"], first[5]["image"])


@pytest.mark.slow
def test_augmentation_leaves_the_kept_cases_alone(cases):
    before = [{key: value.clone() for key, value in case.items()} for case in cases]
    dataset = patches(cases)
    for number in range(len(dataset)):
        dataset[number]["image"].mul_(0)
    for case, kept in zip(cases, before, strict=True):
        assert torch.equal(case["image"], kept["image"])
        assert torch.equal(case["label"], kept["label"])


_CROPS = {
    "cut last": lambda change: [change, RandSpatialCropd("image", (8, 8), random_size=False)],
    "cut first": lambda change: [RandSpatialCropd("image", (8, 8), random_size=False), change],
    "several cut first": lambda change: [RandSpatialCropSamplesd("image", (8, 8), 1, random_size=False), change],
}


@pytest.mark.parametrize("order", _CROPS)
@pytest.mark.parametrize(
    "change",
    [
        RandCoarseDropoutd("image", holes=3, spatial_size=3, fill_value=0, prob=1),
        RandFlipd("image", spatial_axis=0, prob=0.5),
    ],
    ids=["dropout", "flip"],
)
def test_transforms_that_work_in_place_leave_the_cases_as_they_are(change, order):
    cases = [{"image": MetaTensor(torch.ones(1, 16, 16))} for _ in range(2)]
    dataset = NumberedPatches(cases, Compose(_CROPS[order](change)), seed=0, length=100)
    first = dataset[3]["image"]
    for number in range(30):
        dataset[number]
    assert torch.equal(dataset[3]["image"].as_tensor(), first.as_tensor())
    assert len(dataset[3]["image"].applied_operations) == len(first.applied_operations)
    assert all(case["image"].min() == 1 and not case["image"].applied_operations for case in cases)


def test_each_pass_sees_every_case_once():
    dataset = NumberedPatches([{"image": torch.tensor(number)} for number in range(5)], Compose([]), 0, 15)
    order = [int(dataset[number]["image"]) for number in range(15)]
    turns = [order[start : start + 5] for start in (0, 5, 10)]
    assert all(sorted(turn) == [0, 1, 2, 3, 4] for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1


def drawn_cases(weights, length, start=0):
    cases = [{"image": torch.tensor(number)} for number in range(5)]
    dataset = NumberedPatches(cases, Compose([]), 0, length, weights=weights)
    return [int(dataset[number]["image"]) for number in range(start, length)]


@pytest.mark.slow
def test_cases_are_drawn_by_weight_and_each_in_every_pass():
    # with the least weight as one case, a pass has 9.3, rounded up to 10
    weights = [0.1, 0.1, 0.1, 0.13, 0.5]
    order = drawn_cases(weights, 4000)
    passes = [order[start : start + 10] for start in range(0, 4000, 10)]
    counts = np.array([np.bincount(one, minlength=5) for one in passes])
    expected = 10 * np.array(weights) / sum(weights)
    assert (np.abs(counts - expected) < 1).all()
    assert counts.min() == 1
    assert counts.mean(axis=0) == pytest.approx(expected, rel=0.05)
    assert len({tuple(one) for one in passes}) > 350
    # which case comes depends on the number alone
    assert drawn_cases(weights, 4000, start=3333) == order[3333:]


def test_equal_weights_are_as_none():
    assert drawn_cases([0.3] * 5, 40) == drawn_cases(None, 40)


@pytest.mark.parametrize("weights", [[1.0] * 4, [1, 1, 0, 1, 1]])
def test_weights_are_one_per_case_and_above_0(weights):
    with pytest.raises(ValueError, match="weights must be a number above 0 for each of the 5 cases, got"):
        drawn_cases(weights, 10)


def test_patches_go_on_at_the_step_of_the_trainer():
    sampler = RemainingPatches(12, batch_size=3)
    assert list(sampler) == list(range(12))
    sampler.attach(type("Engine", (), {"state": type("State", (), {"iteration": 2})}))
    assert list(sampler) == [6, 7, 8, 9, 10, 11]


class Marked(Compose):
    """An augmentation that writes its name into the patch."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def __call__(self, case):
        return {**case, "by": self.name}


@pytest.mark.parametrize("workers", [0, 1])
def test_the_end_of_a_training_has_an_augmentation_of_its_own(workers):
    dataset = NumberedPatches([{"image": torch.zeros(1)}], Marked("early"), 0, 12, Marked("late"))
    sampler = RemainingPatches(12, 3, TrainingBudget(4), late_share=0.5)
    loader = DataLoader(dataset, batch_size=3, sampler=sampler, num_workers=workers)
    assert [batch["by"][0] for batch in loader] == ["early", "early", "late", "late"]
    alike = NumberedPatches([{"image": torch.zeros(1)}], Marked("early"), 0, 12)
    assert {alike[number]["by"] for number in sampler} == {"early"}


def test_the_clock_tells_when_the_end_of_a_training_begins():
    budget = TrainingBudget(1000, minutes=1)
    numbers = iter(RemainingPatches(3000, 3, budget, late_share=0.25))
    assert not isinstance(next(numbers), LateNumber)
    budget.seconds = 46
    assert isinstance(next(numbers), LateNumber)


@pytest.mark.parametrize("arguments", [(None, 0.5), (TrainingBudget(4), 1.5)])
def test_a_share_that_cannot_be_is_refused(arguments):
    with pytest.raises(ValueError, match="late_share must be 0 to 1, and 0 without a budget"):
        RemainingPatches(12, 3, *arguments)


def drawn(kind, label, ratios):
    """The labels at the centres of patches that are drawn by the classes 0 and 1."""
    crop = kind("label", "label", (1, 1), ratios, 2, 50, indices_key="label_cls_indices", warn=False)
    item = ClassesToIndicesd("label", num_classes=2)({"label": torch.as_tensor(label)[None]})
    return [patch["label"].item() for patch in crop.set_random_state(0)(item)]


def test_patches_of_a_case_without_any_class_to_draw_lie_anywhere():
    ignored, empty = torch.full((4, 4), 2.0), torch.zeros(4, 4)
    with pytest.raises(ValueError, match="NaN"):
        drawn(RandCropByLabelClassesd, ignored, [1, 3])
    assert set(drawn(RandCropByPresentClassesd, ignored, [1, 3])) == {2}
    assert set(drawn(RandCropByPresentClassesd, empty, [0, 1])) == {0}
    # others are those of MONAI
    mixed = torch.tensor([[0.0, 1.0], [2.0, 2.0]])
    found = drawn(RandCropByPresentClassesd, mixed, [1, 3])
    assert found == drawn(RandCropByLabelClassesd, mixed, [1, 3])
    assert set(found) == {0, 1}


def test_a_case_without_indices_is_drawn_from_by_all_ratios():
    crop = RandCropByPresentClassesd("label", "label", (1, 1), [0, 1, 1], 3, 50, indices_key="places", warn=False)
    crop.set_random_state(0)({"label": torch.tensor([[[0.0, 1.0]]]), "places": [[0], [1], []]})
    found = crop({"label": torch.tensor([[[1.0, 2.0]]])})
    assert {patch["label"].item() for patch in found} == {1, 2}


@pytest.mark.slow
def test_the_share_of_background_is_the_same_in_cases_that_lack_classes():
    label = torch.zeros(1, 8, 8)
    label[0, 0, 0] = 7
    crop = RandCropByPresentClassesd(
        "label", "label", (1, 1), [5.0, *[1.0] * 20], 21, 600, indices_key="label_cls_indices", warn=False
    )
    item = ClassesToIndicesd("label", num_classes=21)({"label": label})
    found = [patch["label"].item() for patch in crop.set_random_state(0)(item)]
    assert 0.75 < np.mean(np.array(found) == 7) < 0.9


@pytest.mark.parametrize("size", [40, 20, 10])
@pytest.mark.parametrize("padding_mode", ["reflection", "border"])
def test_patches_reach_the_border_of_an_image_and_keep_their_centre(size, padding_mode):
    """The middle of each crop is the patch that MONAI would cut; around it lies the image, or what fills it up."""
    image = torch.arange(size * 12.0).reshape(1, size, 12) + 1
    label = torch.zeros(1, size, 12)
    label[0, :2] = 1
    items = {"image": image, "label": label, "name": ["a"]}
    places = ClassesToIndicesd("label", num_classes=2)(items)
    arguments = (("image", "label"), "label", (16, 8), [0, 1], 2, 20)
    options = {"indices_key": "label_cls_indices", "allow_smaller": True, "warn": False}
    crop = RandCropByPresentClassesd(*arguments, crop_size=(24, 12), padding_mode=padding_mode, **options)
    patches = RandCropByLabelClassesd(*arguments, **options).set_random_state(0)(dict(places))
    crops = crop.set_random_state(0)(dict(places))
    assert len(crops) == 20
    for found, patch in zip(crops, patches, strict=True):
        assert found["image"].shape == found["label"].shape == (1, 24, 12)
        assert found["name"] == ["a"]
        assert found["label"][0, 4:20].any()
        # image and label are moved alike
        assert torch.equal(found["label"] == 1, found["image"] <= 24)
        if size >= 16:
            assert torch.equal(found["image"][0, 4:20, 2:10], patch["image"][0])


@pytest.mark.parametrize("shape", [(20, 12), (20, 12, 9)])
def test_crops_know_where_they_lie(shape):
    affine = np.diag([2.0, 3, 4, 1])
    affine[:3, 3] = (10, 20, 30)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    image = MetaTensor(torch.as_tensor(places, dtype=torch.float32), affine=affine)
    label = MetaTensor((image.as_tensor()[:1] == 19).float(), affine=affine)
    crop = RandCropByPresentClassesd(
        ("image", "label"), "label", (4,) * len(shape), [0, 1], 2, 9, indices_key="places", crop_size=(6,) * len(shape)
    )
    size = int(np.prod(shape))
    item = {"image": image, "label": label, "places": [np.arange(size), np.flatnonzero(label.numpy())]}
    plain = {**item, "image": image.as_tensor(), "label": label.as_tensor()}
    found = crop.set_random_state(0)(dict(item))
    for number, (patch, bare) in enumerate(zip(found, crop.set_random_state(0)(plain), strict=True)):
        middle = (3,) * len(shape)
        place = np.zeros(3)
        place[: len(shape)] = patch["image"][(slice(None), *middle)]
        for cut in (patch["image"], patch["label"]):
            world = cut.affine.numpy() @ (*middle, *[0] * (3 - len(shape)), 1)
            np.testing.assert_allclose(world[: len(shape)], (affine @ (*place, 1))[: len(shape)])
            assert cut.meta["patch_index"] == number
        assert torch.equal(patch["image"].as_tensor(), bare["image"])
    assert np.array_equal(image.affine, affine)


def test_fillings_that_are_not_known_are_refused():
    with pytest.raises(ValueError, match="padding_mode must be 'reflection' or 'border', got 'zeros'"):
        RandCropByPresentClassesd("label", "label", (1, 1), [1, 1], 2, padding_mode="zeros")
