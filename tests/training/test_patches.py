"""Training patches by number, cut and changed as the template of a bundle says."""

import pytest
import torch
from monai.transforms import Compose

from monai_unetpp.bundles import BundleConfig
from monai_unetpp.training import TEMPLATE, NumberedPatches, RemainingPatches


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


def test_augmentation_leaves_the_kept_cases_alone(cases):
    before = [{key: value.clone() for key, value in case.items()} for case in cases]
    dataset = patches(cases)
    for number in range(len(dataset)):
        dataset[number]["image"].mul_(0)
    for case, kept in zip(cases, before, strict=True):
        assert torch.equal(case["image"], kept["image"])
        assert torch.equal(case["label"], kept["label"])


def test_each_pass_sees_every_case_once():
    dataset = NumberedPatches([{"image": torch.tensor(number)} for number in range(5)], Compose([]), 0, 15)
    order = [int(dataset[number]["image"]) for number in range(15)]
    turns = [order[start : start + 5] for start in (0, 5, 10)]
    assert all(sorted(turn) == [0, 1, 2, 3, 4] for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1


def test_patches_go_on_at_the_step_of_the_trainer():
    sampler = RemainingPatches(12, batch_size=3)
    assert list(sampler) == list(range(12))
    sampler.attach(type("Engine", (), {"state": type("State", (), {"iteration": 2})}))
    assert list(sampler) == [6, 7, 8, 9, 10, 11]
