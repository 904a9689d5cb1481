"""Training images drawn from label maps alone."""

import pytest
import torch
from monai.data import MetaTensor

from monai_unetpp.data.synthesis import (
    RandDeformLabelsd,
    RandLabelsToImaged,
    RandMirrorLabelsd,
    RandStripSurroundd,
    RandThickSlicesd,
)


@pytest.fixture
def head():
    """A head of 12 voxels an edge: brain 2 (left, low indices) and 41 (right) in fluid 24 in skin 507, in air."""
    label = torch.zeros(1, 12, 12, 12, dtype=torch.int16)
    label[:, 1:11, 1:11, 1:11] = 507
    label[:, 2:10, 2:10, 2:10] = 24
    label[:, 3:6, 4:8, 4:8] = 2
    label[:, 6:9, 4:8, 4:8] = 41
    return {"label": MetaTensor(label, affine=torch.diag(torch.tensor([2.0, 2, 3, 1])))}


def mean_of(item, value):
    return float(item["image"][item["label"] == value].mean())


def test_each_label_gets_a_mean_and_a_deviation_of_its_own_and_paired_sides_the_same(head):
    draw = RandLabelsToImaged("label", alike=[[2, 41]], deviation=(0, 0), dark_prob=1.0).set_random_state(1)
    drawn = draw(head)
    assert mean_of(drawn, 2) == mean_of(drawn, 41)
    assert len({round(mean_of(drawn, value), 4) for value in (0, 2, 24, 507)}) == 4
    assert not drawn["image"][head["label"] == 0].any(), "air is black"
    assert drawn["image"].shape == head["label"].shape
    assert torch.equal(drawn["image"].affine, head["label"].affine)
    assert torch.equal(drawn["label"], head["label"])


def test_intensities_stay_in_the_ranges_given_and_are_noisy(head):
    draw = RandLabelsToImaged("label", mean=(3.0, 4.0), deviation=(0.1, 0.1), dark_prob=0.0).set_random_state(0)
    drawn = draw(head)
    assert all(2.8 < mean_of(drawn, value) < 4.2 for value in (0, 24, 507))
    assert 0.08 < float(drawn["image"][head["label"] == 507].std()) < 0.12


def test_labels_with_a_range_of_their_own_look_alike_in_all_images(head):
    draw = RandLabelsToImaged(
        "label", alike=[[2, 41]], deviation=(0, 0), dark_prob=0.0, means=[([2, 41], (0.7, 0.9)), ([24], (0.0, 0.1))]
    ).set_random_state(0)
    drawn = [draw(head) for _ in range(8)]
    for value, low, high in ((2, 0.7, 0.9), (24, 0.0, 0.1)):
        means = [mean_of(item, value) for item in drawn]
        assert low <= min(means) < max(means) <= high
    assert all(mean_of(item, 2) == mean_of(item, 41) for item in drawn)
    others = [mean_of(item, 507) for item in drawn]
    assert max(others) - min(others) > 0.3


def test_an_image_is_drawn_anew_each_time_and_again_with_the_same_seed(head):
    draw = RandLabelsToImaged("label")
    first, second = (draw.set_random_state(seed)(head)["image"] for seed in (5, 5))
    assert torch.equal(first, second)
    assert not torch.equal(first, draw(head)["image"])


def test_mirroring_swaps_sides_so_that_left_stays_on_the_left(head):
    head["label"][0, 3, 4, 4] = 17
    mirrored = RandMirrorLabelsd("label", "label", pairs=[[2, 41], [17, 53]], prob=1.0)(head)["label"]
    assert int(mirrored[0, 8, 4, 4]) == 53
    rest = mirrored.clone()
    rest[0, 8, 4, 4], head["label"][0, 3, 4, 4] = 41, 2
    assert torch.equal(rest, head["label"]), "a symmetric head stays as it is"
    assert torch.equal(mirrored.affine, head["label"].affine)
    assert mirrored.dtype == torch.int16


def test_images_are_mirrored_with_their_labels_and_only_as_often_as_asked(head):
    item = {**head, "image": torch.arange(12.0).reshape(1, 12, 1, 1).expand(1, 12, 12, 12)}
    mirrored = RandMirrorLabelsd(["image", "label"], "label", pairs=[[2, 41]], prob=1.0)(item)
    assert mirrored["image"][0, :, 0, 0].tolist() == list(range(11, -1, -1))
    never = RandMirrorLabelsd(["image", "label"], "label", pairs=[[2, 41]], prob=0.0)(item)
    assert torch.equal(never["image"], item["image"])


@pytest.mark.parametrize("margin", [0, 1])
def test_stripping_leaves_the_brain_and_what_is_within_the_margin(head, margin):
    stripped = RandStripSurroundd("label", surround=[24, 507], prob=1.0, margin=(margin, margin))(head)["label"]
    kept = (slice(None), slice(3 - margin, 9 + margin), *(slice(4 - margin, 8 + margin),) * 2)
    assert torch.equal(stripped[kept], head["label"][kept])
    stripped[kept] = 0
    assert not stripped.any()


def test_nothing_is_stripped_where_the_dice_say_no(head):
    assert torch.equal(RandStripSurroundd("label", surround=[24], prob=0.0)(head)["label"], head["label"])


def test_slices_of_whole_voxels_are_averages():
    image = torch.zeros(1, 6, 6, 6)
    image[0, 0, 0, 0] = 1.0
    thick = RandThickSlicesd("image", prob=1.0, thickness=(6, 6))({"image": image})["image"]
    assert sorted(thick.flatten().tolist())[-6:] == pytest.approx([1 / 6] * 6)
    assert float(thick.sum()) == pytest.approx(1.0)


def test_slices_are_thick_along_one_axis_which_varies():
    image = torch.rand(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    thicken = RandThickSlicesd("image", prob=1.0, thickness=(8, 8)).set_random_state(0)
    axes = set()
    for _ in range(20):
        thick = thicken({"image": image})["image"]
        flat = [axis for axis in (1, 2, 3) if float(thick.std(dim=axis).max()) < 1e-6]
        assert len(flat) == 1
        axes.update(flat)
    assert axes == {1, 2, 3}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandLabelsToImaged("label", mean=(1, 0)), "mean must be a range"),
        (lambda: RandLabelsToImaged("label", means=[([2], (1, 0))]), "means must be a range"),
        (lambda: RandLabelsToImaged("label", alike=[[2, 41], [41]]), "alike must name each label once"),
        (lambda: RandMirrorLabelsd("label", "label", pairs=[[2, 41], [2, 3]]), "pairs must be of two labels each"),
        (lambda: RandMirrorLabelsd("label", "label", pairs=[[2]]), "pairs must be of two labels each"),
        (lambda: RandStripSurroundd("label", surround=[1], margin=(2, 1)), "margin must be a range"),
        (lambda: RandThickSlicesd("image", thickness=(0.5, 2)), "thickness must be a range"),
    ],
)
def test_arguments_that_cannot_work_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def deform(**given):
    """What deforms to the head's own size, and does nothing unless told to."""
    still = {"scale": (1, 1), "displacement": (0, 0)}
    return RandDeformLabelsd("label", (12, 12, 12), **{**still, **given}).set_random_state(0)


def test_without_ranges_a_deformation_leaves_the_labels_as_they_are(head):
    assert torch.equal(deform()(head)["label"].as_tensor(), head["label"].as_tensor())


def test_a_deformed_map_has_the_size_and_the_voxels_asked_for(head):
    halved = RandDeformLabelsd("label", (6, 6, 6), scale=(2, 2), displacement=(0, 0))(head)["label"]
    assert (halved.shape, halved.dtype) == ((1, 6, 6, 6), torch.int16)
    for value, voxels in ((2, 96), (41, 96)):
        assert int((halved == value).sum()) * 8 == pytest.approx(voxels, rel=0.7)
    left, right = ((halved[0] == value).nonzero()[:, 0].float().mean() for value in (2, 41))
    assert left < right


@pytest.mark.parametrize(
    "given", [{"displacement": (1.0, 1.0)}, {"rotate": 0.5}, {"translate": (3, 3, 3)}, {"shear": 0.5}]
)
def test_each_range_moves_labels_and_makes_none_anew(head, given):
    moving = deform(**given)
    moved, again = moving(head)["label"], moving(head)["label"]
    assert not torch.equal(moved.as_tensor(), head["label"].as_tensor())
    assert not torch.equal(moved.as_tensor(), again.as_tensor()), "drawn anew for every item"
    assert set(moved.unique().tolist()) <= {0, 2, 24, 41, 507}


def test_one_seed_gives_one_deformation(head):
    ranges = {"rotate": 0.3, "translate": (2, 2, 2), "displacement": (1.0, 1.0)}
    assert torch.equal(deform(**ranges)(head)["label"].as_tensor(), deform(**ranges)(head)["label"].as_tensor())


@pytest.mark.parametrize(
    ("given", "message"),
    [({"scale": (2, 1)}, "scale must be a range"), ({"control_points": (1, 4)}, "control_points must be 2 or more")],
)
def test_ranges_of_a_deformation_are_checked(given, message):
    with pytest.raises(ValueError, match=message):
        deform(**given)
