"""Grids that are made coarser where patches would show too little, as far as labels allow."""

import dataclasses
import math

import nibabel as nib
import numpy as np
from fingerprints import fingerprint

from monai_unetpp.planning import take_fingerprint
from monai_unetpp.planning.coarsening import best_dice, choose_coarser_spacing
from monai_unetpp.planning.data_rules import Choice

CT = {"shape": (512, 512, 130), "spacings": ((0.75, 0.75, 3.0),), "modality": "CT"}
#: Boxes of 80 x 80 x 20 voxels, 60 mm long, and of 6 x 6 x 2.
ORGAN = {"labels": {"organ": 1}, "voxels": {"organ": 128_000}, "faces": {"organ": (3200, 3200, 12_800)}}
USUAL = Choice([0.75, 0.75, 3.0], "The median.")
LESION = {"labels": {"lesion": 1}, "voxels": {"lesion": 72}, "faces": {"lesion": (24, 24, 72)}}


def patch_at(voxels):
    """A function that affords patches of so many voxels, as isotropic in mm as they can be."""

    def found(spacing):
        spacing = spacing or (0.75, 0.75, 3.0)
        shape = [round(n * own / mm) for n, own, mm in zip(CT["shape"], (0.75, 0.75, 3.0), spacing, strict=True)]
        edge = (voxels * math.prod(spacing)) ** (1 / 3)
        return shape, [max(1, round(edge / mm)) for mm in spacing]

    return found


def test_large_organs_are_segmented_on_a_grid_of_which_a_patch_shows_enough():
    choice = choose_coarser_spacing(fingerprint(**CT, **ORGAN), USUAL, patch_at(32_000))
    assert choice.value == [3.0, 3.0, 3.0]
    assert "instead of" in choice.reason
    assert "0.75 x 0.75 x 3 mm" in choice.reason


def test_grids_become_only_as_coarse_as_labels_allow():
    thin = {**ORGAN, "faces": {"organ": (12_000, 12_000, 20_000)}}
    choice = choose_coarser_spacing(fingerprint(**CT, **thin), USUAL, patch_at(32_000))
    assert choice.value == [2.25, 2.25, 3.0]


def test_small_structures_keep_their_grid():
    assert choose_coarser_spacing(fingerprint(**CT, **LESION), USUAL, patch_at(32_000)) is USUAL


def test_one_small_label_among_many_large_ones_keeps_its_grid():
    """The mean over the labels would allow it."""
    names = [f"organ {number}" for number in range(9)]
    each = {"labels": {}, "voxels": {}, "faces": {}}
    for number, name in enumerate([*names, "gland"], start=1):
        of = LESION if name == "gland" else ORGAN
        each["labels"][name] = number
        each["voxels"][name], each["faces"][name] = next(iter(of["voxels"].values())), next(iter(of["faces"].values()))
    choice = choose_coarser_spacing(fingerprint(**CT, **each), USUAL, patch_at(32_000))
    dice = best_dice(fingerprint(**CT, **each), [3.0] * 3)
    assert sum(dice.values()) / len(dice) > 0.92
    assert choice.value != [3.0, 3.0, 3.0]
    assert " for gland." in choice.reason


def test_labels_that_allow_no_coarser_grid_are_named():
    thin = {**ORGAN, "faces": {"organ": (120_000, 120_000, 128_000)}}
    choice = choose_coarser_spacing(fingerprint(**CT, **thin), USUAL, patch_at(320))
    assert choice.value == USUAL.value
    assert choice.reason.startswith("The median. A patch that time and memory allow shows 0.0011 % of an image, but a")
    assert choice.reason.endswith(" for organ.")


def test_patches_that_show_enough_keep_the_grid():
    assert choose_coarser_spacing(fingerprint(**CT, **ORGAN), USUAL, patch_at(3_000_000)) is USUAL


def test_data_without_any_labelled_voxel_keep_the_grid():
    empty = {"labels": {"organ": 1}, "voxels": {"organ": 0}, "faces": {"organ": (0, 0, 0)}}
    assert choose_coarser_spacing(fingerprint(**CT, **empty), USUAL, patch_at(32_000)) is USUAL


def test_a_coarser_grid_of_pictures_says_that_volumes_cannot_be_segmented():
    pictures = fingerprint(
        shape=(2000, 2000),
        spacings=((1.0, 1.0),),
        labels={"nest": 1},
        voxels={"nest": 90_000},
        faces={"nest": (600, 600)},
    )

    def affords(spacing):
        return [2000 / (spacing or (1.0,))[0]] * 2, [64, 64]

    choice = choose_coarser_spacing(pictures, Choice(None, "Pixels."), affords)
    assert choice.value[0] > 1
    assert "Volumes cannot be segmented slice by slice then." in choice.reason


def test_older_fingerprints_keep_the_grid():
    known = {"labels": {"organ": 1}, "voxels": {"organ": 128_000}}
    assert choose_coarser_spacing(fingerprint(**CT, **known), USUAL, patch_at(32_000)) is USUAL


def test_surfaces_that_ignored_voxels_cut_keep_the_grid_which_is_told():
    """Of slices with unlabelled ones between them, faces and volume are not those of the organ."""
    sparse = {**CT, **ORGAN, "ignored": (27_000_000,), "cut": ({"organ": 0.8},)}
    choice = choose_coarser_spacing(fingerprint(**sparse), USUAL, patch_at(32_000))
    assert (choice.value, choice.source) == (USUAL.value, USUAL.source)
    assert choice.reason == (
        "The median. Whether a coarser grid would cost too much is unknown: in no case can the extent of organ be "
        "measured, as more than 5 % of the surface borders on ignored voxels."
    )
    # also where parts as small as those slices would count as seen
    sparse |= {"voxels": {"organ": 27}, "faces": {"organ": (2, 2, 2)}}
    assert "ignored voxels" in choose_coarser_spacing(fingerprint(**sparse), USUAL, patch_at(32_000)).reason


def test_surfaces_count_of_the_cases_that_ignored_voxels_hardly_touch():
    mixed = {**CT, **ORGAN, "ignored": (0, 27_000_000, 100), "cut": ({}, {"organ": 0.8}, {"organ": 0.04})}
    data = fingerprint(**mixed)
    assert choose_coarser_spacing(data, USUAL, patch_at(32_000)).value == [3.0, 3.0, 3.0]
    slices = dataclasses.replace(data.cases[1], voxels={"organ": 50}, faces={"organ": (1, 1, 0)}, parts={"organ": 9})
    data = dataclasses.replace(data, cases=(data.cases[0], slices, data.cases[2]))
    assert choose_coarser_spacing(data, USUAL, patch_at(32_000)).value == [3.0, 3.0, 3.0]
    assert best_dice(data, [3.0] * 3) == best_dice(fingerprint(**CT, **ORGAN), [3.0] * 3)


def test_the_best_dice_is_near_that_of_labels_on_the_coarser_grid(tmp_path):
    """A ball of 30 voxels: measured by resampling it to twice and four times its voxel size, and back."""
    places = np.indices((64, 60, 56)) - np.array([30.3, 29.1, 27.7])[:, None, None, None]
    ball = (np.sqrt((places**2).sum(axis=0)) < 15).astype(np.uint8)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        for folder, voxels in (("images", ball * 50.0 + places[0]), ("labels", ball)):
            # axes turned: the first is S
            affine = np.array([[0, 0, 1.0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
            nib.save(nib.Nifti1Image(voxels.astype(np.float32), affine), tmp_path / folder / f"{number}.nii.gz")
    taken = take_fingerprint(tmp_path)
    [name] = taken.labels
    spans = [np.count_nonzero(np.diff(ball.astype(int), axis=axis)) for axis in (2, 1, 0)]
    assert list(taken.cases[0].faces[name]) == spans
    for factor in (2, 4):
        found = best_dice(taken, [float(factor)] * 3)[name]
        nearest = np.repeat(ball[factor // 2 :: factor], factor, axis=0)
        nearest = np.repeat(nearest[:, factor // 2 :: factor], factor, axis=1)
        nearest = np.repeat(nearest[:, :, factor // 2 :: factor], factor, axis=2)[:64, :60, :56]
        same = 2 * np.logical_and(nearest, ball).sum() / (nearest.sum() + ball.sum())
        assert same - 0.06 < found < same + 0.01
    assert best_dice(taken, [1.0] * 3) == {name: 1}
