from __future__ import annotations

import dataclasses
import json
import logging
import math
from typing import ClassVar

import nibabel
import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.networks.nets import BasicUNetPlusPlus
from monai.transforms import (
    AsDiscreted,
    Compose,
    Invertd,
    LoadImaged,
    Orientationd,
    ScaleIntensityRanged,
    Spacingd,
    SpatialPadd,
)

from monai_unetpp import NestedUNet
from monai_unetpp.data.datasets.case_check import check_case
from monai_unetpp.data.datasets.labelled import LabelledCase, hash_files
from monai_unetpp.data.formats.source_files import file_identity
from monai_unetpp.inferers import NestedSlidingWindowInferer, PrecisionInferer, window_memory
from monai_unetpp.metrics import score_case
from monai_unetpp.networks.hashing import hash_network
from monai_unetpp.pruning.pipeline_text import describe_network
from monai_unetpp.pruning.results import DataProblem, OperatingPoint
from monai_unetpp.pruning.scoring.arguments import Scoring
from monai_unetpp.pruning.scoring.levels import Scores, evaluate_levels
from monai_unetpp.pruning.scoring.prediction import predict_case

LABELS = {"cube": 1}
TOLERANCE = {"cube": 1.0}
ALONE = OperatingPoint("L1 trained alone", "L1", "extra", "alone.pt")


class Thresholds(torch.nn.Module):
    """Calls a voxel cube where the image exceeds a threshold of each level."""

    levels = ("L1", "L2")
    spatial_dims = 3
    in_channels = 1

    def __init__(self, first=0.75, second=0.25):
        super().__init__()
        self.thresholds = torch.nn.Parameter(torch.tensor([first, second]))
        self.calls = 0

    def forward_levels(self, x, levels):
        self.calls += 1
        assert not self.training
        assert not torch.is_grad_enabled()
        above = {level: x - self.thresholds[self.levels.index(level)] for level in levels}
        return {level: torch.cat([-each, each], dim=1) for level, each in above.items()}

    def forward(self, x):
        return self.forward_levels(x, ["L2"])["L2"]


class Fails(Thresholds):
    """Cannot take images with voxels above 1."""

    def forward_levels(self, x, levels):
        if x.max() > 1.5:
            raise RuntimeError("too bright for me")
        return super().forward_levels(x, levels)


def affine(axes="RAS", spacing=(1.0, 1.0, 2.0), origin=(10.0, -20.0, 5.0)):
    start = nibabel.orientations.axcodes2ornt("RAS")
    turn = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(axes))
    matrix = np.diag([*spacing, 1.0]) @ nibabel.orientations.inv_ornt_aff(turn, (16, 16, 16))
    matrix[:3, 3] += origin
    return matrix


def write_case(folder, name, shape=(14, 12, 10), matrix=None, image=None, label=None, subject=None):
    """An image with a cube of 1 around a core of 0.5, and its label: L1 finds the shell, L2 all."""
    truth = np.zeros(shape, np.uint8)
    truth[tuple(slice(2, 8) for _ in shape)] = 1
    voxels = truth.astype(np.float32)
    voxels[tuple(slice(4, 6) for _ in shape)] = 0.5
    matrix = affine() if matrix is None else matrix
    paths = {"image": folder / "images" / f"{name}.nii.gz", "label": folder / "labels" / f"{name}.nii.gz"}
    for path, data in zip(paths.values(), (image, label), strict=True):
        path.parent.mkdir(exist_ok=True, parents=True)
        default = voxels if path == paths["image"] else truth
        nibabel.save(nibabel.Nifti1Image(default if data is None else data, matrix), path)
    case = {key: str(path) for key, path in paths.items()}
    return {**case, "subject": subject} if subject else case


def settings(dims=3, inferer=None, spacing=None, keys=("image",)):
    steps = [LoadImaged(keys, ensure_channel_first=True)]
    if dims == 3:
        steps.append(Orientationd(keys, axcodes="RAS", labels=None))
    if spacing:
        steps.append(Spacingd(keys, pixdim=spacing))
    preprocessing = Compose([
        *steps, ScaleIntensityRanged(keys, 0, 1, 0, 1), SpatialPadd(keys, [16] * dims)
    ])  # fmt: skip
    postprocessing = Compose(
        [AsDiscreted("pred", argmax=True), Invertd("pred", preprocessing, orig_keys="image", nearest_interp=True)]
    )
    return {
        "preprocessing": preprocessing,
        "inferer": inferer or SimpleInferer(),
        "postprocessing": postprocessing,
        "labels": LABELS,
        "tolerance_mm": TOLERANCE,
    }


def change_label(case, change):
    stored = nibabel.load(case["label"])
    nibabel.save(nibabel.Nifti1Image(change(np.asarray(stored.dataobj)), stored.affine), case["label"])


@pytest.fixture
def cases(tmp_path):
    return [write_case(tmp_path, f"sub-{i // 2}_run-{i}") for i in range(3)]


def dice(scores: Scores) -> dict[tuple[str, str], float | None]:
    return {(row.case, row.point): row.score.dice for row in scores.rows}


def test_equal_images_and_labels_that_no_case_has_are_told_once(cases, caplog):
    values = {"cube": 1, "ball": 2}
    for _ in range(2):
        evaluate_levels(
            Thresholds(), cases, **{**settings(), "labels": values, "tolerance_mm": dict.fromkeys(values, 1.0)}
        )
    told = [record.getMessage() for record in caplog.records if record.name.startswith("monai_unetpp.data")]
    first, *others = (case["image"] for case in cases)
    assert told == [
        *(f"{image}: the same image as {first}, both in 'dataset'. Leave one of them out." for image in others),
        f"dataset: none of the {len(cases)} cases to score has the label 'ball' (2), about which they say nothing.",
    ]


class TestScores:
    def test_how_to_score_may_be_given_as_an_object_and_changed_by_name(self, cases):
        how = Scoring(**settings(), levels=["L2"], dataset="cubes")
        scores = evaluate_levels(Thresholds(), cases[:1], how, dataset="other")
        assert {(row.dataset, row.point) for row in scores.rows} == {("other", "L2")}
        with pytest.raises(TypeError, match="unexpected keyword argument 'level'"):
            evaluate_levels(Thresholds(), cases[:1], how, level="L2")

    def test_every_case_point_and_label_in_order(self, cases):
        network = Thresholds().train()
        scores = evaluate_levels(network, cases, **settings(), dataset="cubes")
        # the shell lacks 8 of 216 voxels
        expected = {"L1": 2 * 208 / (208 + 216), "L2": 1.0}
        assert [(row.case, row.point) for row in scores.rows] == [
            (f"sub-{i // 2}_run-{i}", level) for i in range(3) for level in expected
        ]
        for row in scores.rows:
            assert row.score.dice == pytest.approx(expected[row.point])
            assert row.score.truth_ml == pytest.approx(0.432)
            assert (row.dataset, row.label, row.subject) == ("cubes", "cube", row.case.split("_")[0])
        assert scores.points == (OperatingPoint("L1", "L1"), OperatingPoint("L2", "L2"))
        assert [case.name for case in scores.cases] == ["sub-0_run-0", "sub-0_run-1", "sub-1_run-2"]
        assert scores.problems == ()
        assert scores.error_auroc is None
        assert network.training
        assert network.calls == 3

    def test_pooled_foreground(self, cases):
        arguments = settings() | {"labels": {"cube": 1, "other": 2}, "tolerance_mm": {"cube": 1.0, "other": 1.0}}
        rows = evaluate_levels(Thresholds(), cases[:1], **arguments).rows
        assert [row.label for row in rows] == ["cube", "other", "foreground"] * 2
        assert [row.score.state for row in rows[3:]] == ["ok", "both_empty", "ok"]

    @pytest.mark.parametrize("levels", [["L2"], ["L1"]])
    def test_only_some_levels(self, cases, levels):
        scores = evaluate_levels(Thresholds(), cases[:1], levels=levels, **settings())
        assert [row.point for row in scores.rows] == levels

    @pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR", "PIL"])
    @pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0)])
    def test_predictions_return_to_the_files_own_grid(self, tmp_path, axes, spacing):
        tilt = np.eye(4)
        tilt[:3, :3] = nibabel.eulerangles.euler2mat(0.2, 0.1, 0.0) if spacing is None else np.eye(3)
        case = write_case(tmp_path, "case", matrix=tilt @ affine(axes))
        scores = evaluate_levels(Thresholds(), [case], levels=["L2"], **settings(spacing=spacing))
        # resampled voxels may be half of the next one
        assert scores.rows[0].score.dice >= (1.0 if spacing is None else 0.85)
        assert scores.rows[0].score.truth_ml == pytest.approx(0.432)

    def test_volumes_of_tilted_slices_are_those_of_their_voxels(self, tmp_path):
        """A shear moves slices along each other, and changes no volume."""
        tilted = affine()
        tilted[1, 2] = 2.0 * np.tan(np.deg2rad(30))
        case = write_case(tmp_path, "case", matrix=tilted)
        [row] = evaluate_levels(Thresholds(), [case], levels=["L2"], **settings()).rows
        assert row.score.truth_ml == row.score.prediction_ml == pytest.approx(0.432)
        checked = check_case(LabelledCase("case", "case", (case["image"],), case["label"]))
        assert checked.volumes_ml == pytest.approx({0: 3.36 - 0.432, 1: 0.432})

    def test_two_dimensions(self, tmp_path):
        case = write_case(tmp_path, "flat", shape=(14, 12), matrix=np.diag([0.5, 0.25, 1, 1]))
        network = Thresholds()
        network.spatial_dims = 2
        row = evaluate_levels(network, [case], **settings(2)).rows[0]
        assert row.score.dice == pytest.approx(2 * 32 / (32 + 36))
        assert row.score.truth_ml == pytest.approx(36 * 0.125 / 1000)

    def test_channels_in_several_files(self, tmp_path):
        first, second = write_case(tmp_path / "a", "case"), write_case(tmp_path / "b", "case")
        network = Thresholds()
        network.in_channels = 2
        network.forward_levels = lambda x, levels: {level: torch.cat([0.5 - x[:, :1], x[:, 1:]], 1) for level in levels}
        case = first | {"image": [first["image"], second["image"]]}
        assert evaluate_levels(network, [case], **settings()).rows[0].score.dice == 1.0

    @pytest.mark.parametrize(
        "inferer",
        [
            SlidingWindowInferer((8, 8, 8), overlap=0.5, mode="gaussian"),
            PrecisionInferer(SlidingWindowInferer((8, 8, 8), sw_batch_size=4), "fp32"),
        ],
    )
    def test_sliding_windows(self, cases, inferer):
        whole = evaluate_levels(Thresholds(), cases, **settings())
        assert evaluate_levels(Thresholds(), cases, **settings(inferer=inferer)).rows == whole.rows

    def test_levels_whose_logits_do_not_fit_into_memory_together(self, cases, monkeypatch):
        torch.manual_seed(0)
        network = NestedUNet(3, 1, 2, features=(2, 4, 4))
        inferer = NestedSlidingWindowInferer((8, 8, 8), runtime="torch", precision="fp32")
        together = evaluate_levels(network, cases, **settings(inferer=inferer))
        asked = []
        infer = NestedSlidingWindowInferer.__call__

        def counted(self, *arguments):
            asked.append(self.levels)
            return infer(self, *arguments)

        monkeypatch.setattr(NestedSlidingWindowInferer, "__call__", counted)
        monkeypatch.setattr(window_memory, "free_memory_bytes", lambda device: 1)
        alone = evaluate_levels(network, cases, **settings(inferer=inferer))
        assert alone.rows == together.rows
        assert asked == ["L1", "L2"] * 3
        # uncertainty takes no further passes
        unsure = evaluate_levels(network, cases, **settings(inferer=inferer), uncertainty=True)
        assert unsure.rows == together.rows
        assert unsure.error_auroc is not None
        assert asked == ["L1", "L2"] * 6

    def test_levels_by_another_inferer_are_computed_alone_too_where_memory_is_short(self, cases, monkeypatch):
        torch.manual_seed(0)
        network = NestedUNet(3, 1, 2, features=(2, 4, 4))
        asked, forward_levels = [], network.forward_levels

        def counted(x, levels):
            asked.append(tuple(levels))
            return forward_levels(x, levels)

        monkeypatch.setattr(network, "forward_levels", counted)
        inferer = SlidingWindowInferer((8, 8, 8), sw_batch_size=64)
        together = evaluate_levels(network, cases, **settings(inferer=inferer))
        assert set(asked) == {("L1", "L2")}
        asked.clear()
        monkeypatch.setattr(window_memory, "free_memory_bytes", lambda device: 1)
        assert evaluate_levels(network, cases, **settings(inferer=inferer)).rows == together.rows
        assert set(asked) == {("L1",), ("L2",)}

    def test_processes_on_one_computer_share_its_memory(self, cases, monkeypatch):
        network = NestedUNet(3, 1, 2, features=(2, 4, 4))
        inferer = NestedSlidingWindowInferer((8, 8, 8), runtime="torch", precision="fp32")
        asked, needed = [], []
        infer, estimate = NestedSlidingWindowInferer.__call__, NestedSlidingWindowInferer.estimate_memory

        def counted(self, *arguments):
            asked.append(self.levels)
            return infer(self, *arguments)

        def estimated(self, *arguments, **options):
            found = estimate(self, *arguments, **options)
            needed.append(found.stitching_bytes)
            return found

        monkeypatch.setattr(NestedSlidingWindowInferer, "__call__", counted)
        monkeypatch.setattr(NestedSlidingWindowInferer, "estimate_memory", estimated)
        evaluate_levels(network, cases[:1], **settings(inferer=inferer))
        free = int(1.5 * needed[0])
        monkeypatch.setattr(window_memory, "free_memory_bytes", lambda device: free)
        asked.clear()
        evaluate_levels(network, cases[:1], **settings(inferer=inferer))
        assert len(asked) == 1
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        evaluate_levels(network, cases[:1], **settings(inferer=inferer))
        assert asked[1:] == ["L1", "L2"]

    @pytest.mark.slow
    def test_callable_whose_levels_share_a_tensor(self, cases):
        def network(x):
            logits = torch.cat([0.3 - x, x - 0.3], dim=1)
            return {"shallow": logits, "deep": logits}

        inferer = SlidingWindowInferer((8, 8, 8), overlap=0.5, mode="gaussian")
        scores = evaluate_levels(network, cases, levels=["shallow", "deep"], **settings(inferer=inferer))
        assert set(dice(scores).values()) == {1.0}

    @pytest.mark.slow
    def test_transforms_of_the_label_are_left_out(self, cases):
        plain = evaluate_levels(Thresholds(), cases, **settings())
        assert evaluate_levels(Thresholds(), cases, **settings(keys=("image", "label"))).rows == plain.rows

    def test_progress_and_predictions_are_handed_out(self, cases):
        steps, maps = [], {}
        arguments = settings()

        def keep(case, point, label_map, matrix):
            np.testing.assert_allclose(matrix, affine(), atol=1e-5)
            maps[case.name, point.name] = label_map

        scores = evaluate_levels(
            Thresholds(), cases, **arguments, on_prediction=keep, progress=lambda *step: steps.append(step)
        )
        assert steps == [(1, 3), (2, 3), (3, 3)]
        truth = np.asarray(nibabel.load(cases[0]["label"]).dataobj)
        for (case, point), label_map in maps.items():
            found = score_case(label_map, truth, (1, 1, 2), LABELS, TOLERANCE)["cube"]
            assert found.dice == dice(scores)[case, point]
        arguments = {key: arguments[key] for key in ("preprocessing", "inferer", "postprocessing")}
        again = predict_case(Thresholds(), scores.cases[1], **arguments)
        assert list(again) == ["L1", "L2"]
        np.testing.assert_array_equal(again["L1"], maps["sub-0_run-1", "L1"])


class TestNetworks:
    @pytest.fixture
    def net(self):
        torch.manual_seed(0)
        net = NestedUNet(spatial_dims=3, in_channels=1, out_channels=2, features=(4, 4, 8))
        for head in net.heads.values():
            torch.nn.init.normal_(head.weight)
        return net

    @pytest.mark.slow
    def test_pruned_network_as_extra_point_scores_as_its_level(self, cases, net):
        extra = {ALONE: net.prune("L1")}
        scores = evaluate_levels(net, cases, extra=extra, **settings())
        assert [point.name for point in scores.points] == ["L1", "L2", "L1 trained alone"]
        by_point = {name: [r.score for r in scores.rows if r.point == name] for name in ("L1", "L2", ALONE.name)}
        assert by_point["L1"] == by_point[ALONE.name]
        assert by_point["L1"] != by_point["L2"]
        assert len({row.score.dice for row in scores.rows}) > 1

    def test_extra_network_that_returns_a_tensor(self, cases):
        scores = evaluate_levels(
            Thresholds(), cases[:1], extra={ALONE: lambda x: torch.cat([-x, x - 1.5], 1)}, **settings()
        )
        # x - 1.5 is more than -x where x is more than 0.75
        assert scores.rows[-1].score == scores.rows[0].score != scores.rows[1].score

    @pytest.mark.slow
    def test_converted_basic_unetplusplus(self, cases):
        trained = BasicUNetPlusPlus(3, 1, 2, features=(4,) * 6, deep_supervision=True)
        scores = evaluate_levels(NestedUNet.from_basic_unetplusplus(trained), cases[:1], **settings())
        assert [row.point for row in scores.rows] == ["L1", "L2", "L3", "L4"]

    @pytest.mark.parametrize(
        ("network", "levels", "kind", "message"),
        [
            (lambda x: x, None, ValueError, "levels must be different names of levels, shallowest first, got None"),
            (lambda x: x, ["L1", "L1"], ValueError, "levels must be different names of levels"),
            (lambda x: x, "L1", ValueError, "levels must be different names of levels"),
            (Thresholds(), ["L3"], ValueError, "levels must be among L1, L2 of the network, got L3"),
            ("network", ["L1"], TypeError, "network must be callable, got str"),
            (lambda x: [x], ["L1"], TypeError, "network must return a dict of logits by level.*from_basic_unetplus"),
            (lambda x: x, ["L1", "L2"], TypeError, "network must return a dict of logits by level.*got Tensor"),
            (lambda x: {"L1": x + 1}, ["L1", "L2"], ValueError, "logits of every level.*got none for L2 but L1"),
        ],
    )
    def test_networks_that_cannot_be_scored(self, cases, network, levels, kind, message):
        with pytest.raises(kind, match=message):
            evaluate_levels(network, cases, levels=levels, **settings())

    @pytest.mark.parametrize(
        ("extra", "kind", "message"),
        [
            ({"L1 alone": Thresholds()}, TypeError, "extra must map operating points of kind 'extra' to networks"),
            ({OperatingPoint("a", "L1"): Thresholds()}, TypeError, "extra must map operating points of kind 'extra'"),
            ({OperatingPoint("L2", "L1", "extra"): Thresholds()}, ValueError, "unique names, got 'L2' again"),
            ({OperatingPoint("a", "L4", "extra"): Thresholds()}, ValueError, "levels must be among L1, L2 of the net"),
        ],
    )
    def test_bad_extra_points(self, cases, extra, kind, message):
        with pytest.raises(kind, match=message):
            evaluate_levels(Thresholds(), cases, extra=extra, **settings())

    @pytest.mark.parametrize(
        ("dataset", "kind"), [("a/b", ValueError), ("", ValueError), ("..", ValueError), (3, TypeError)]
    )
    def test_bad_name_of_the_data_set(self, cases, dataset, kind):
        with pytest.raises(kind, match="dataset must be a name"):
            evaluate_levels(Thresholds(), cases, dataset=dataset, **settings())


class TestProblems:
    @pytest.fixture
    def broken(self, tmp_path, cases):
        """One case of each kind of trouble, after three sound ones."""
        shape = (14, 12, 10)
        fraction, unknown, nan = np.zeros(shape, np.float32), np.zeros(shape, np.uint8), np.ones(shape, np.float32)
        fraction[0, 0, 0], unknown[0, 0, :2], nan[3, 3, 3] = 0.5, (7, 9), math.nan
        entries = {
            "fraction": write_case(tmp_path, "fraction", label=fraction),
            "unknown": write_case(tmp_path, "unknown", label=unknown),
            "nan": write_case(tmp_path, "nan", image=nan),
            "shape": write_case(tmp_path, "shape", label=np.zeros((14, 12, 11), np.uint8)),
            "flat": write_case(tmp_path, "flat", shape=(14, 12)),
            "series": write_case(tmp_path, "series", label=np.zeros((*shape, 3), np.uint8)),
            "channels": write_case(tmp_path, "channels", image=np.random.rand(*shape, 2).astype(np.float32)),
        }
        moved = write_case(tmp_path, "moved")
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), affine(origin=(10, -20, 6))), moved["label"])
        gone, text, cut = (write_case(tmp_path, name) for name in ("gone", "text", "cut"))
        (tmp_path / "labels" / "gone.nii.gz").unlink()
        (tmp_path / "images" / "text.nii.gz").write_text("not an image")
        whole = (tmp_path / "images" / "cut.nii.gz").read_bytes()
        (tmp_path / "images" / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
        twice = [write_case(tmp_path / folder, "twice") for folder in ("x", "y")]
        return [*cases, *entries.values(), moved, gone, text, cut, *twice]

    messages: ClassVar = {
        "fraction": "the label must hold integers, got fractions such as",
        "unknown": "the label must hold 0 and 1 only, got 7, 9",
        "nan": "voxels are NaN or infinite",
        "shape": "its shape is (14, 12, 10), not (14, 12, 11)",
        "flat": "the label must be 3D, got shape (14, 12)",
        "series": "the label must be 3D, got shape (14, 12, 10, 3)",
        "channels": "the image must have 1 channel for this network, got 2",
        "moved": "its corners lie up to",
        "gone": "no such file",
        "text": "not a NIfTI image",
        "cut": "damaged or cut off",
        "twice": "names of cases must differ, got 'twice' 2 times",
    }

    def test_all_are_named_before_any_network_work(self, broken):
        network = Thresholds()
        with pytest.raises(ValueError, match="cases of 'dataset' must be sound, got 12 of 15") as caught:
            evaluate_levels(network, broken, **settings())
        for case, message in self.messages.items():
            assert f"- dataset, {case}: " in str(caught.value)
            assert message in str(caught.value)
            assert f"{case}.nii.gz" in str(caught.value)
        assert "(--exclude_problems) to leave" in str(caught.value)
        assert network.calls == 0

    def test_left_out_with_the_flag(self, broken, caplog):
        scores = evaluate_levels(Thresholds(), broken, **settings(), exclude_problems=True)
        assert [case.name for case in scores.cases] == ["sub-0_run-0", "sub-0_run-1", "sub-1_run-2"]
        assert [problem.case for problem in scores.problems] == list(
            dict.fromkeys(case["image"].split("/")[-1].split(".")[0] for case in broken[3:])
        )
        for problem in scores.problems:
            assert isinstance(problem, DataProblem)
            assert self.messages[problem.case] in problem.reason
            assert f"{problem.case} is left out" in caplog.text

    def test_rounding_of_the_affine_is_no_mismatch(self, tmp_path):
        case = write_case(tmp_path, "case")
        label = nibabel.load(case["label"])
        nibabel.save(nibabel.Nifti1Image(np.asarray(label.dataobj), affine(origin=(10.01, -20, 5))), case["label"])
        assert evaluate_levels(Thresholds(), [case], **settings()).problems == ()

    def test_single_slice_and_trailing_axis_of_one(self, tmp_path):
        case = write_case(tmp_path, "case")
        label = np.asarray(nibabel.load(case["label"]).dataobj)
        nibabel.save(nibabel.Nifti1Image(label[..., None], affine()), case["label"])
        assert evaluate_levels(Thresholds(), [case], **settings()).rows[1].score.dice == 1.0

    def test_failed_inference_leaves_the_others(self, tmp_path, cases, caplog):
        bright = write_case(tmp_path, "bright", image=np.linspace(0, 2, 1680, dtype=np.float32).reshape(14, 12, 10))
        arguments = settings()
        scores = evaluate_levels(
            Fails(), [cases[0], bright, cases[1]], **arguments, dataset="cubes", exclude_problems=True
        )
        assert [case.name for case in scores.cases] == ["sub-0_run-0", "sub-0_run-1"]
        (problem,) = scores.problems
        assert (problem.dataset, problem.case) == ("cubes", "bright")
        assert "inference failed with RuntimeError: too bright for me" in problem.reason
        assert "could not be scored" in caplog.text

    def test_failed_inference_is_an_error_after_the_others_are_kept(self, tmp_path, cases):
        bright = write_case(tmp_path, "bright", image=np.linspace(0, 2, 1680, dtype=np.float32).reshape(14, 12, 10))
        given = settings() | {"store": tmp_path / "store", "configuration": "one", "dataset": "cubes"}
        with pytest.raises(
            ValueError, match=r"cases of 'cubes' must all be scored, got 1 failure(.|\n)*- bright: .*too"
        ):
            evaluate_levels(Fails(), [cases[0], bright, cases[1]], **given)
        kept = sorted(path.stem for path in (tmp_path / "store" / "cubes").iterdir())
        assert kept == ["sub-0_run-0", "sub-0_run-1"]

    def test_further_network_that_fails_does_not_cost_the_case(self, tmp_path, cases, caplog):
        bright = write_case(tmp_path, "bright", image=np.linspace(0, 2, 1680, dtype=np.float32).reshape(14, 12, 10))
        given = settings() | {"extra": {OperatingPoint("alone", "L2", "extra"): Fails()}}
        with pytest.raises(ValueError, match=r"- alone on bright: .*too bright for me"):
            evaluate_levels(Thresholds(), [cases[0], bright], **given)
        scores = evaluate_levels(Thresholds(), [cases[0], bright], **given, exclude_problems=True)
        assert [point.name for point in scores.points] == ["L1", "L2"]
        assert {row.case for row in scores.rows} == {"sub-0_run-0", "bright"}
        assert {row.point for row in scores.rows} == {"L1", "L2"}
        assert scores.problems == ()
        assert "alone is left out of the comparison: bright: " in caplog.text

    def test_changed_voxels_beside_a_header_are_another_content(self, tmp_path):
        header, voxels = tmp_path / "scan.mhd", tmp_path / "voxels of the scan.raw"
        header.write_text(f"NDims = 3\nElementDataFile = {voxels.name}")
        voxels.write_bytes(b"one")
        case = LabelledCase("scan", "scan", (header,), header)
        first, identity = hash_files(case.image), file_identity(header)
        voxels.write_bytes(b"other")
        assert hash_files(case.image) != first
        assert file_identity(header) != identity

    @pytest.mark.parametrize(
        ("suffix", "line"),
        [
            (".mhd", "ElementDataFile = voxels of %03d.raw 0 4 2"),
            (".nhdr", "data file: voxels of %03d.raw 0 4 2 2"),
            (".nhdr", "data file: voxels of %03d.raw 0 4 2"),
        ],
    )
    def test_changed_voxels_of_a_pattern_are_another_content(self, tmp_path, suffix, line):
        header = tmp_path / f"scan{suffix}"
        header.write_text(f"some: header\n{line}\n")
        for number in (0, 2, 4):
            (tmp_path / f"voxels of {number:03d}.raw").write_bytes(b"one")
        case = LabelledCase("scan", "scan", (header,), header)
        first, identity = hash_files(case.image), file_identity(header)
        assert len(identity) == 4
        (tmp_path / "voxels of 004.raw").write_bytes(b"other")
        assert hash_files(case.image) != first
        assert file_identity(header) != identity

    def test_nothing_left_is_an_error(self, tmp_path):
        bright = write_case(tmp_path, "bright", image=np.linspace(0, 2, 1680, dtype=np.float32).reshape(14, 12, 10))
        with pytest.raises(RuntimeError, match=r"no case of 'dataset' could be scored; the first one: bright: .*too"):
            evaluate_levels(Fails(), [bright], **settings())

    def test_prediction_on_another_grid_is_named(self, cases):
        arguments = settings() | {"postprocessing": AsDiscreted("pred", argmax=True)}
        with pytest.raises(
            RuntimeError, match=r"one label map on the image's own grid \(14, 12, 10\), got shape \(1, 16"
        ):
            evaluate_levels(Thresholds(), cases, **arguments)

    def test_logits_left_as_they_are_are_named(self, cases):
        arguments = settings()
        arguments["postprocessing"] = Invertd("pred", arguments["preprocessing"], orig_keys="image")
        with pytest.raises(RuntimeError, match="postprocessing must give one label map"):
            evaluate_levels(Thresholds(), cases, **arguments)


class TestSubjects:
    def subjects(self, cases, **arguments):
        return [
            row.subject for row in evaluate_levels(Thresholds(), cases, levels=["L2"], **settings(), **arguments).rows
        ]

    def test_pattern(self, cases):
        assert self.subjects(cases, subject_pattern=r"(sub-\d+)_") == ["sub-0", "sub-0", "sub-1"]

    def test_mapping_goes_before_the_pattern(self, cases):
        names = {"sub-0_run-0": "Ada", "sub-0_run-1": "Bo", "sub-1_run-2": "Ada"}
        assert self.subjects(cases, subjects=names, subject_pattern="(x)") == ["Ada", "Bo", "Ada"]

    def test_the_number_of_an_only_channel_may_be_left_out(self, tmp_path):
        case = write_case(tmp_path, "case_0000")
        assert self.subjects([case], subjects={"case": "Ada"}) == ["Ada"]
        assert self.subjects([case], subjects={"case": "Ada", "case_0000": "Bo"}) == ["Bo"]

    def test_own_subject_goes_first(self, tmp_path):
        case = write_case(tmp_path, "case", subject="Cy")
        assert self.subjects([case], subjects={"case": "Ada"}) == ["Cy"]

    def test_table(self, cases, tmp_path):
        (tmp_path / "subjects.csv").write_text("case,subject\nsub-0_run-0,1\nsub-0_run-1,1\nsub-1_run-2,2\n")
        assert self.subjects(cases, subjects=tmp_path / "subjects.csv") == ["1", "1", "2"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"subject_pattern": r"sub-\d+"}, "subject_pattern must have one group, got 'sub-.*' with 0"),
            ({"subject_pattern": "("}, "subject_pattern must be a regular expression"),
            ({"subject_pattern": "(patient)"}, "must match the name of every case.*does not match 'sub-0_run-0'"),
            (
                {"subjects": {"sub-0_run-0": "a"}},
                "subjects must name the subject of every case, got none for 'sub-0_run-1",
            ),
        ],
    )
    def test_bad_arguments(self, cases, arguments, message):
        with pytest.raises(ValueError, match=message):
            self.subjects(cases, **arguments)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "subjects must be a table with the column 'case', separated by commas, got an empty file"),
            (
                b"case;subject\na;b\n",
                "subjects must be a table with the column 'case', .*case;subject. Save it",
            ),
            (b"case,name\na,b,c\n", "must be a table with the column 'subject', separated by commas, got case, name"),
            (b"case,subject\n", "subjects must have a line per case, got none"),
            (b"case,subject\na,1\na ,2\n", "a case must have one subject, got '1' and '2' for 'a'"),
            ("case,subject\na,Müller\n".encode("latin-1"), r"subjects\.csv: subjects must be a CSV file in UTF-8"),
        ],
    )
    def test_bad_table(self, cases, tmp_path, content, message):
        (tmp_path / "subjects.csv").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            self.subjects(cases, subjects=tmp_path / "subjects.csv")

    @pytest.mark.parametrize(
        ("cases", "kind", "message"),
        [
            ([], ValueError, "cases must have at least one entry"),
            (["a.nii.gz"], TypeError, "cases must be a list of dicts"),
            ([{"image": "a.nii.gz"}], ValueError, "cases must have an 'image' and a 'label' each"),
        ],
    )
    def test_bad_cases(self, cases, kind, message):
        with pytest.raises(kind, match=message):
            self.subjects(cases)


class TestStore:
    @pytest.fixture
    def run(self, cases, tmp_path):
        """Evaluate with a store, and count the passes of the network."""

        def run(network=None, **changes):
            network = network or Thresholds()
            arguments = {"configuration": "settings", "store": tmp_path / "store", "dataset": "cubes"} | changes
            before = network.calls
            scores = evaluate_levels(network, cases, **settings(), **arguments)
            return scores, network.calls - before

        return run

    def test_finished_cases_are_read_back(self, run, tmp_path):
        first, passes = run()
        assert passes == 3
        again, passes = run()
        assert passes == 0
        assert again == first
        names = sorted(path.name for path in (tmp_path / "store" / "cubes").iterdir())
        assert names == ["sub-0_run-0.json", "sub-0_run-1.json", "sub-1_run-2.json"]

    @pytest.mark.slow
    def test_scores_do_not_depend_on_the_store(self, run, cases):
        assert run()[0] == evaluate_levels(Thresholds(), cases, **settings(), dataset="cubes")

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("changes", "part"),
        [
            ({"network": Thresholds(0.6)}, "weights"),
            ({"configuration": "other settings"}, "configuration"),
            ({"levels": ["L2"]}, "configuration"),
        ],
    )
    def test_what_changed_is_told_and_scored_again(self, run, changes, part, caplog):
        run()
        with caplog.at_level(logging.INFO):
            _, passes = run(**changes)
        assert passes == 3
        assert f"sub-0_run-0 (levels): {part} changed. The case is scored again." in caplog.text
        assert run(**changes)[1] == 0

    @pytest.mark.slow
    def test_another_version_scores_again(self, run, monkeypatch):
        run()
        monkeypatch.setattr("monai_unetpp.pruning.scoring.case_scores.__version__", "99.0")
        assert run()[1] == 3

    def test_changed_data_cost_only_their_case(self, run, tmp_path, caplog):
        run()
        write_case(tmp_path, "sub-0_run-1", label=np.ones((14, 12, 10), np.uint8))
        with caplog.at_level(logging.INFO):
            scores, passes = run()
        assert passes == 1
        assert "sub-0_run-1 (levels): data changed" in caplog.text
        assert dice(scores)["sub-0_run-1", "L2"] < 1.0

    def test_hash_of_a_network_is_that_of_its_weights_and_configuration(self):
        first, second = (NestedUNet(3, 1, 2, features=(4, 4)) for _ in range(2))
        assert len({hash_network(net) for net in (first, second, first.prune("L1"))}) == 3
        second.load_state_dict(first.state_dict())
        assert hash_network(second) == hash_network(first)
        assert hash_network(second.bfloat16()) != hash_network(first)
        before = hash_network(first)
        first.nodes["x_0_0"].block.conv_0.adn.N.eps = 0.5
        assert hash_network(first) != before

    def test_a_hook_costs_the_scores(self, run):
        hooked = Thresholds()
        for factor in (1, 2):
            hooked.register_forward_hook(lambda module, given, output, factor=factor: factor * output)
            assert [run(hooked)[1] for _ in range(2)] == [3, 0]

    def test_the_same_hook_before_and_after_is_not_the_same(self):
        before, after = Thresholds(), Thresholds()
        before.register_forward_pre_hook(print)
        after.register_forward_hook(print)
        assert len(set(map(describe_network, (before, after, Thresholds())))) == 3

    @pytest.mark.slow
    def test_further_checkpoint_does_not_cost_the_scores_of_the_first(self, run):
        run()
        extra = Thresholds()
        scores, passes = run(extra={ALONE: extra})
        assert (passes, extra.calls) == (0, 3)
        assert [row.point for row in scores.rows[:3]] == ["L1", "L2", ALONE.name]

    def test_interruption_keeps_what_is_finished(self, run):
        def interrupt(done, total):
            if done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(progress=interrupt)
        steps = []
        scores, passes = run(progress=lambda *step: steps.append(step))
        assert passes == 1
        assert steps[-1] == (3, 3)
        assert len(scores.rows) == 6

    @pytest.mark.slow
    @pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 0}', '{"format": 1, "networks": {"levels": {}}}'])
    def test_damaged_files_are_scored_again(self, run, tmp_path, damage, caplog):
        whole = run()[0]
        (tmp_path / "store" / "cubes" / "sub-0_run-1.json").write_text(damage)
        with caplog.at_level(logging.INFO):
            scores, passes = run()
        assert (scores, passes) == (whole, 1)
        assert "scored again" in caplog.text

    def test_record_without_a_score_is_scored_again(self, run, tmp_path):
        whole = run()[0]
        path = tmp_path / "store" / "cubes" / "sub-0_run-1.json"
        content = json.loads(path.read_text())
        record = content["networks"]["levels"]["record"]
        del record["scores"]["L1"]
        path.write_text(json.dumps(content))
        assert run() == (whole, 1)
        content["networks"]["levels"]["record"] = [record]
        path.write_text(json.dumps(content))
        assert run() == (whole, 1)

    @pytest.mark.slow
    def test_uncertainty_that_was_not_kept_is_computed(self, run, tmp_path):
        run()
        assert run(uncertainty=True)[1] == 3
        assert run(uncertainty=True)[1] == 0
        assert run(uncertainty_dir=tmp_path / "maps")[1] == 3
        (tmp_path / "maps" / "sub-0_run-0_uncertainty.nii.gz").unlink()
        assert run(uncertainty_dir=tmp_path / "maps")[1] == 1
        scores, passes = run(uncertainty_dir=tmp_path / "maps")
        assert passes == 0
        assert scores.error_auroc is None
        assert run()[0].rows == scores.rows

    def test_settings_must_be_told(self, run):
        with pytest.raises(
            ValueError, match="configuration must be a text of all settings where store is given, got ''"
        ):
            run(configuration="")

    def test_network_must_have_weights(self, cases, tmp_path):
        with pytest.raises(ValueError, match=r"network must be a torch\.nn\.Module where store is given, got function"):
            evaluate_levels(
                lambda x: x, cases, levels=["L1"], **settings(), store=tmp_path / "store", configuration="settings"
            )


class TestUncertainty:
    def test_map_lies_on_the_images_own_grid(self, tmp_path):
        case = write_case(tmp_path, "case", matrix=affine("PIL"))
        image = nibabel.load(case["image"])
        image.set_sform(image.affine, code=4)
        image.set_qform(image.affine, code=2)
        image.header.set_xyzt_units("mm", "sec")
        nibabel.save(image, case["image"])
        scores = evaluate_levels(Thresholds(), [case], **settings(), uncertainty_dir=tmp_path / "maps")
        found = nibabel.load(tmp_path / "maps" / "case_uncertainty.nii.gz")
        assert found.shape == (14, 12, 10)
        np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)
        assert (int(found.header["sform_code"]), int(found.header["qform_code"])) == (4, 2)
        assert found.header.get_xyzt_units() == ("mm", "sec")
        values = found.get_fdata()
        assert values.min() >= 0.0
        assert values.max() <= 1.0
        # softmax of (-t, t): L1 gives 0.5 - 0.75, L2 gives 0.5 - 0.25 in the core: the mean is even
        assert values[4:6, 4:6, 4:6] == pytest.approx(1.0, abs=1e-5)
        assert values[2, 2, 2] < 0.95
        assert scores.error_auroc is None

    def test_auroc_of_errors_of_the_deepest_level(self, tmp_path):
        truth = np.zeros((14, 12, 10), np.uint8)
        truth[2:8, 2:8, 2:8] = 1
        truth[4:6, 4:6, 4:6] = 0
        cases = [write_case(tmp_path, "wrong core", label=truth), write_case(tmp_path, "right core")]
        # the deepest level calls the core cube: where its label says otherwise, it is the most uncertain place
        assert evaluate_levels(Thresholds(), cases, **settings(), uncertainty=True).error_auroc == 1.0
        assert evaluate_levels(Thresholds(), cases, **settings()).error_auroc is None

    def test_interpolated_maps_stay_within_bounds(self, tmp_path):
        case = write_case(tmp_path, "case")
        evaluate_levels(Thresholds(), [case], **settings(spacing=(1, 1, 1)), uncertainty_dir=tmp_path / "maps")
        values = nibabel.load(tmp_path / "maps" / "case_uncertainty.nii.gz").get_fdata()
        assert values.shape == (14, 12, 10)
        assert 0.0 <= values.min() < values.max() <= 1.0

    def test_preprocessing_must_be_invertible(self, cases):
        arguments = settings()
        compose = arguments["preprocessing"]
        with pytest.raises(RuntimeError, match="preprocessing must be invertible, got function"):
            evaluate_levels(
                Thresholds(), cases, **(arguments | {"preprocessing": lambda data: compose(data)}), uncertainty=True
            )


def test_result_is_frozen(cases):
    scores = evaluate_levels(Thresholds(), cases[:1], **settings())
    with pytest.raises(dataclasses.FrozenInstanceError):
        scores.rows = ()


class TestIgnored:
    def test_voxels_that_nobody_labelled_count_for_nothing(self, tmp_path):
        case = write_case(tmp_path, "case")

        def only_the_core(label):
            label = np.full_like(label, 2)
            label[4:6, 4:6, 4:6] = 1
            return label

        change_label(case, only_the_core)
        with pytest.raises(ValueError, match="must hold 0 and 1 only, got 2"):
            evaluate_levels(Thresholds(), [case], **settings())
        scores = evaluate_levels(Thresholds(), [case], **settings(), ignore_label=2, uncertainty=True)
        # L1 finds nothing in the core, L2 all of it; what they find around it does not matter
        assert dice(scores) == {("case", "L1"): 0.0, ("case", "L2"): 1.0}
        assert scores.rows[0].score.state == "missed"
        assert scores.error_auroc is None

    def test_finished_cases_are_scored_again_when_it_changes(self, tmp_path, caplog):
        case = write_case(tmp_path, "case")
        given = settings() | {"store": tmp_path / "store", "configuration": "same"}
        evaluate_levels(Thresholds(), [case], **given)
        with caplog.at_level(logging.INFO):
            evaluate_levels(Thresholds(), [case], **given, ignore_label=2)
        assert "scored in" in caplog.text

    def test_scaled_labels_are_read_as_what_they_mean(self, tmp_path):
        case = write_case(tmp_path, "case")
        before = dice(evaluate_levels(Thresholds(), [case], **settings()))
        change_label(case, lambda label: label * np.float32(0.996))
        assert dice(evaluate_levels(Thresholds(), [case], **settings())) == before
