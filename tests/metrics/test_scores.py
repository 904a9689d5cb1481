from __future__ import annotations

import dataclasses
import math
import warnings
from typing import ClassVar

import numpy as np
import pytest
import SimpleITK
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from monai_unetpp.metrics import FOREGROUND, RULES, CaseScorer, score_case, scores, spacing_of_affine
from monai_unetpp.metrics.scores import EMPTY_RULES, check_tolerances, scored_labels

SPACING = (1.0, 2.0, 3.0)
ONE = {"cube": 1}


def cube(shape=(10, 10, 10), corner=(2, 2, 2), size=4, value=1):
    volume = np.zeros(shape, dtype=np.uint8)
    volume[tuple(slice(at, at + size) for at in corner[: len(shape)])] = value
    return volume


def blobs(shape, seed, share=0.5):
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.2)
    return smooth > np.quantile(smooth, 1 - share)


def score(prediction, truth, spacing=SPACING, tolerance=1.0):
    return score_case(prediction, truth, spacing, ONE, {"cube": tolerance})["cube"]


class TestByHand:
    def test_perfect(self):
        result = score(cube(), cube())
        assert (result.state, result.dice, result.iou, result.hd95_mm, result.nsd) == ("ok", 1.0, 1.0, 0.0, 1.0)
        assert result.volume_difference_ml == 0.0
        # 64 voxels of 6 mm3
        assert result.truth_ml == pytest.approx(0.384)

    @pytest.mark.parametrize(("axis", "step_mm"), list(enumerate(SPACING)))
    def test_shift_by_one_voxel_counts_in_mm_of_its_axis(self, axis, step_mm):
        result = score(np.roll(cube(), 1, axis), cube())
        assert result.dice == pytest.approx(0.75)
        assert result.iou == pytest.approx(0.6)
        # a face of 16 of the 56 boundary voxels is a step away: more than 5 %
        assert result.hd95_mm == pytest.approx(step_mm)

    @pytest.mark.parametrize("far", range(5))
    def test_hd95_is_a_number_where_the_percentile_is_one_of_the_distances(self, far):
        # of 21 voxels on a line, the 95th percentile is the second largest distance, without interpolation
        truth, prediction = np.zeros((2, 60, 60), np.uint8)
        truth[5, 5:26] = prediction[5, 5 : 26 - far] = 1
        for number in range(far):
            prediction[10 + 9 * number, 40] = 1
        found = score(prediction, truth, (1.0, 1.0)).hd95_mm
        distances = [
            ndimage.distance_transform_edt(1 - a)[b == 1] for a, b in ((truth, prediction), (prediction, truth))
        ]
        assert found == pytest.approx(max(np.percentile(each, 95) for each in distances))

    def test_hd95_leaves_out_the_worst_five_percent(self):
        # 44 boundary pixels of the square and 1 stray one, 2.2 %: both percentiles fall on the square
        truth = cube((32, 32), (2, 2), 12)
        prediction = truth.copy()
        prediction[28, 28] = 1
        assert score(prediction, truth, (1.0, 1.0)).hd95_mm == 0.0

    def test_surface_dice_in_2d(self):
        truth = cube((10, 10))
        result = score(np.roll(truth, 1, 1), truth, (1.0, 3.0), tolerance=1.0)
        # Outline of a 4 x 4 square: two sides of 3 x 3 mm, two of 3 x 1 mm, four cut corners of sqrt(10) / 2 mm.
        # After a shift by 3 mm the long sides stay but for one corner each; of the near short side, the two elements
        # next to a long side lie within 1 mm, the middle one does not; the far short side does not.
        assert result.nsd == pytest.approx((20 + math.sqrt(10)) / (24 + 2 * math.sqrt(10)))
        assert result.hd95_mm == pytest.approx(3.0)

    def test_distance_equal_to_the_tolerance_is_within_it_in_spite_of_float32_affines(self):
        step = float(np.float32(0.7)) * (1 + 5e-7)
        truth = cube((10, 10))
        assert score(np.roll(truth, 1, 1), truth, (step, step), tolerance=0.7).nsd == 1.0
        assert score(np.roll(truth, 1, 1), truth, (step, step), tolerance=0.69).nsd < 1.0

    def test_volumes_in_ml(self):
        result = score(cube(size=5), cube(size=4))
        assert result.prediction_ml == pytest.approx(0.750)
        assert result.volume_difference_ml == pytest.approx(0.366)

    def test_single_slice_is_scored_in_its_plane(self):
        flat, shifted = cube((10, 10)), np.roll(cube((10, 10)), 1, 1)
        volume = score(shifted[:, :, None], flat[:, :, None], (1.0, 3.0, 5.0))
        plane = score(shifted, flat, (1.0, 3.0))
        assert (volume.dice, volume.hd95_mm, volume.nsd) == (plane.dice, plane.hd95_mm, plane.nsd)
        assert volume.truth_ml == pytest.approx(5 * plane.truth_ml)


class TestEmpty:
    diagonal_mm = math.sqrt(10**2 + 20**2 + 30**2)

    @pytest.mark.parametrize(("state", "found", "true"), [("missed", 0, 0.384), ("false_positive", 0.384, 0)])
    def test_one_empty(self, state, found, true):
        result = score(*(cube() if ml else np.zeros((10, 10, 10), int) for ml in (found, true)))
        assert (result.state, result.dice, result.iou, result.nsd) == (state, 0.0, 0.0, 0.0)
        assert result.hd95_mm == pytest.approx(self.diagonal_mm)
        assert (result.prediction_ml, result.truth_ml) == pytest.approx((found, true))
        assert result.volume_difference_ml == pytest.approx(found - true)

    def test_both_empty(self):
        result = score(np.zeros((10, 10, 10), int), np.zeros((10, 10, 10), int))
        assert result == scores.LabelScore("both_empty", None, None, None, None, 0.0, 0.0, 0.0)

    @pytest.mark.parametrize("fill", [0, 1])
    @pytest.mark.parametrize("shape", [(1, 1, 1), (5, 1, 1), (4, 4, 4), (1, 6), (3, 3)])
    def test_nothing_is_nan(self, shape, fill):
        volume = np.full(shape, fill)
        for other in (volume, 1 - volume):
            numbers = dataclasses.astuple(score(volume, other, SPACING[: len(shape)]))[1:]
            assert all(number is None or math.isfinite(number) for number in numbers)

    def test_no_warnings(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            score(cube(), cube())
            score(np.zeros((10, 10, 10), int), cube())

    def test_rules_are_told(self):
        assert set(EMPTY_RULES) == {"missed", "false_positive", "both_empty"}
        assert all(text in RULES for text in EMPTY_RULES.values())
        assert "HD95 = diagonal" in RULES


class TestAgainstOthers:
    @pytest.mark.parametrize("seed", range(3))
    def test_overlap_is_that_of_simpleitk(self, seed):
        prediction, truth = blobs((9, 10, 11), seed), blobs((9, 10, 11), seed + 100)
        overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
        overlap.Execute(*(SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in (truth, prediction)))
        result = score(prediction, truth)
        assert result.dice == pytest.approx(overlap.GetDiceCoefficient(1))
        assert result.iou == pytest.approx(overlap.GetJaccardCoefficient(1))

    @pytest.mark.parametrize("axis", range(3))
    def test_distance_is_that_of_simpleitk_where_the_percentile_is_the_maximum(self, axis):
        prediction, truth = np.roll(cube(), 2, axis), cube()
        images = [SimpleITK.GetImageFromArray(mask.transpose()) for mask in (prediction, truth)]
        for image in images:
            image.SetSpacing(SPACING)
        hausdorff = SimpleITK.HausdorffDistanceImageFilter()
        hausdorff.Execute(*images)
        assert score(prediction, truth).hd95_mm == pytest.approx(hausdorff.GetHausdorffDistance())

    @pytest.mark.parametrize("seed", range(3))
    def test_hd95_is_that_of_distance_maps_of_simpleitk(self, seed):
        masks = [np.pad(blobs((8, 9, 10), seed + offset, 0.2), 1) for offset in (0, 100)]
        contours = []
        for mask in masks:
            image = SimpleITK.GetImageFromArray(mask.astype(np.uint8).transpose())
            image.SetSpacing(SPACING)
            contours.append(SimpleITK.BinaryContour(image))
        directed = []
        for source, target in (contours, contours[::-1]):
            distances = SimpleITK.SignedMaurerDistanceMap(target, squaredDistance=False, useImageSpacing=True)
            # inside thick parts of the contour the map is negative
            values = SimpleITK.GetArrayFromImage(distances).clip(0)
            directed.append(np.percentile(values[SimpleITK.GetArrayFromImage(source) > 0], 95))
        assert score(*masks).hd95_mm == pytest.approx(max(directed), rel=1e-5)

    @pytest.mark.parametrize("shape", [(9, 10, 11), (14, 17)])
    @pytest.mark.parametrize("seed", range(4))
    def test_surfaces_are_those_of_monai(self, shape, seed):
        # half of the voxels: every neighbourhood occurs, also at the image's border
        rough = np.random.default_rng(seed).random((2, *shape)) < 0.5
        smooth = np.stack([blobs(shape, seed), blobs(shape, seed + 100)])
        for prediction, truth in (rough, smooth):
            batch = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]
            spacing = SPACING[: len(shape)]
            hausdorff = compute_hausdorff_distance(*batch, include_background=True, percentile=95, spacing=spacing)
            surface = compute_surface_dice(*batch, [1.0], include_background=True, spacing=spacing, use_subvoxels=True)
            result = score(prediction, truth, spacing)
            assert result.hd95_mm == pytest.approx(hausdorff.item(), rel=1e-5)
            assert result.nsd == pytest.approx(surface.item(), rel=1e-5)

    def test_result_does_not_depend_on_empty_space(self):
        prediction, truth = blobs((8, 8, 8), 1, 0.1), blobs((8, 8, 8), 2, 0.1)
        near, far = score(prediction, truth), score(np.pad(prediction, 7), np.pad(truth, 7))
        assert dataclasses.astuple(near) == dataclasses.astuple(far)


def test_missing_half_of_the_cases_ranks_below_a_stray_blob_in_half():
    truth = cube((24, 24, 24), (4, 4, 4), 8)
    blob = truth.copy()
    blob[18:20, 18:20, 18:20] = 1
    almost = truth.copy()
    almost[4] = 0
    models = {
        "misses half": [np.zeros_like(truth)] * 5 + [truth] * 5,
        "stray blobs": [blob] * 5 + [almost] * 5,
    }
    means = {}
    for name, predictions in models.items():
        results = [score(prediction, truth) for prediction in predictions]
        means[name] = {metric: np.mean([getattr(r, metric) for r in results]) for metric in ("dice", "hd95_mm", "nsd")}
    worse, better = means["misses half"], means["stray blobs"]
    assert worse["dice"] < better["dice"]
    assert worse["nsd"] < better["nsd"]
    assert worse["hd95_mm"] > better["hd95_mm"]


def test_scorer_that_is_used_again_scores_as_a_new_one():
    truth, labels, tolerance_mm = 2 * blobs((9, 8, 7), 1, 0.2), {"two": 2, "one": 1}, {"two": 1.0, "one": 1.0}
    truth[0] = 1
    scorer = CaseScorer(truth, SPACING, labels, tolerance_mm)
    for prediction in (truth, np.zeros_like(truth), np.roll(truth, 1, axis=1), 2 * blobs((9, 8, 7), 2, 0.5)):
        assert scorer.score(prediction) == score_case(prediction, truth, SPACING, labels, tolerance_mm)
    with pytest.raises(ValueError, match=r"must be 2D or 3D and have the same shape, got \(9, 8\) and \(9, 8, 7\)"):
        scorer.score(truth[..., 0])
    with pytest.raises(ValueError, match=r"truth must be 2D or 3D and not empty, got shape \(3,\)"):
        CaseScorer(np.ones(3, int), (1.0,), labels, tolerance_mm)


def test_structures_far_apart():
    far = score(cube((30, 10, 10), (1, 2, 2)), cube((30, 10, 10), (25, 2, 2)))
    assert (far.state, far.dice, far.iou, far.nsd) == ("ok", 0.0, 0.0, 0.0)
    assert far.hd95_mm == 24.0


class TestLabels:
    labels: ClassVar = {"second": 2, "first": 1}
    tolerance: ClassVar = {"first": 1.0, "second": 3.0}

    def test_each_label_and_the_foreground(self):
        truth = cube() + cube(corner=(2, 2, 6), value=2, size=3)
        found = score_case(truth, truth, SPACING, self.labels, self.tolerance)
        assert tuple(found) == scored_labels(self.labels) == ("second", "first", FOREGROUND)
        assert found[FOREGROUND].truth_ml == pytest.approx((64 + 27) * 6 / 1000)

    def test_confused_labels_count_as_foreground_only(self):
        found = score_case(cube(value=2), cube(value=1), SPACING, self.labels, self.tolerance)
        assert found[FOREGROUND].dice == 1.0
        assert (found["first"].state, found["second"].state) == ("missed", "false_positive")

    def test_single_label_has_no_foreground(self):
        assert tuple(score_case(cube(), cube(), SPACING, ONE, {"cube": 1.0})) == ("cube",)

    def test_values_without_a_name_are_background_in_a_prediction(self):
        assert score(cube(value=9), cube()).state == "missed"

    def test_tolerance_of_the_foreground(self):
        assert check_tolerances(self.tolerance, self.labels)[FOREGROUND] == 1.0
        assert check_tolerances({**self.tolerance, FOREGROUND: 5.0}, self.labels)[FOREGROUND] == 5.0
        truth, shifted = cube(), np.roll(cube(), 1, axis=1)
        near = score_case(shifted, truth, SPACING, self.labels, self.tolerance)[FOREGROUND]
        far = score_case(shifted, truth, SPACING, self.labels, {**self.tolerance, FOREGROUND: 2.0})[FOREGROUND]
        assert near.nsd < far.nsd == 1.0


class TestIgnored:
    """Voxels that nobody labelled."""

    def test_what_is_predicted_there_makes_no_difference(self):
        truth = blobs((12, 12, 12), 0).astype(np.uint8)
        truth[:4] = 9
        first, second = (blobs((12, 12, 12), seed).astype(np.uint8) for seed in (1, 2))
        second[4:] = first[4:]
        scorer = CaseScorer(truth, SPACING, {"blob": 1}, {"blob": 1.0}, ignore_label=9)
        assert scorer.score(first) == scorer.score(second)

    def test_overlap_is_that_of_the_rest(self):
        truth = blobs((12, 12, 12), 0).astype(np.uint8)
        prediction = blobs((12, 12, 12), 1).astype(np.uint8)
        rest = score_case(prediction[4:], truth[4:], SPACING, {"blob": 1}, {"blob": 1.0})["blob"]
        truth[:4] = 9
        found = score_case(prediction, truth, SPACING, {"blob": 1}, {"blob": 1.0}, ignore_label=9)["blob"]
        for name in ("state", "dice", "iou", "hd95_mm", "volume_difference_ml", "prediction_ml", "truth_ml"):
            assert getattr(found, name) == getattr(rest, name)

    def test_a_structure_in_what_is_ignored_alone_is_nowhere(self):
        truth, prediction = np.full((6, 6), 9), np.ones((6, 6), int)
        found = score_case(prediction, truth, (1.0, 1.0), {"blob": 1}, {"blob": 1.0}, ignore_label=9)["blob"]
        assert (found.state, found.prediction_ml) == ("both_empty", 0.0)


def test_spacing_of_an_oblique_affine():
    turn = math.radians(30)
    rotation = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, -1]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(SPACING)
    assert spacing_of_affine(affine) == pytest.approx(SPACING)
    assert spacing_of_affine(affine, 2) == pytest.approx(SPACING[:2])


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"prediction": np.zeros((10, 10, 10))}, TypeError, "prediction must hold integer labels, got float64"),
        (
            {"truth": np.zeros((10, 10), int)},
            ValueError,
            r"must be 2D or 3D and have the same shape, got \(10, 10, 10\) and",
        ),
        ({"spacing_mm": (1.0, 1.0)}, ValueError, "spacing_mm must be 3 positive numbers, got"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, ValueError, "spacing_mm must be 3 positive numbers, got"),
        ({"spacing_mm": (1.0, math.nan, 1.0)}, ValueError, "spacing_mm must be 3 positive numbers, got"),
        ({"labels": ["cube"]}, TypeError, "labels must map names to integers"),
        ({"labels": {"cube": 1.0}}, TypeError, "labels must map names to integers"),
        ({"labels": {}}, ValueError, "labels must have at least one entry"),
        ({"labels": {"cube": 0}}, ValueError, "different values from 1 up"),
        ({"labels": {"cube": 1, "other": 1}}, ValueError, "different values from 1 up"),
        ({"labels": {"cube": 1, "foreground": 2}}, ValueError, "labels must not include 'foreground'"),
        ({"tolerance_mm": 1.0}, TypeError, "tolerance_mm must map names of labels to mm"),
        ({"tolerance_mm": {}}, ValueError, "tolerance_mm must have one entry for each of cube"),
        ({"tolerance_mm": {"cube": 1.0, "cub": 1.0}}, ValueError, "tolerance_mm must have one entry for each of cube"),
        ({"tolerance_mm": {"cube": -1.0}}, ValueError, "tolerance_mm of 'cube' must be a number from 0 up, got -1"),
        ({"tolerance_mm": {"cube": math.inf}}, ValueError, "tolerance_mm of 'cube' must be a number from 0 up"),
    ],
)
def test_bad_arguments(change, kind, message):
    arguments = {
        "prediction": cube(), "truth": cube(), "spacing_mm": SPACING, "labels": ONE, "tolerance_mm": {"cube": 1.0}
    }  # fmt: skip
    with pytest.raises(kind, match=message):
        score_case(**{**arguments, **change})
