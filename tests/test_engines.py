"""Segmenting case after case: what fails is named, what follows is done."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from ignite.handlers import ProgressBar
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor, ThreadDataLoader
from monai.engines import SupervisedEvaluator
from monai.handlers import MeanDice, StatsHandler, from_engine
from monai.transforms import Lambdad

from monai_unetpp.data import CaseDataset, find_cases
from monai_unetpp.engines import CaseEvaluator, CaseFailure

AFFINE = np.diag([1.0, 2.0, 1.0, 1.0])


class Threshold(torch.nn.Module):
    """Two classes: bright voxels are label 1. Fails on images that are marked by a negative voxel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.min() < 0:
            raise RuntimeError("a negative voxel\nand more about it")
        return torch.cat([torch.full_like(x, 0.5), x * self.scale], 1)


def config(folder: Path, out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "input": str(folder),
        "output_dir": str(out),
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "LoadImaged",
                    "keys": "image",
                    "ensure_channel_first": True,
                    "reader": {"_target_": "monai_unetpp.data.VolumeReader"},
                },
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 1.0]},
            ],
        },
        "dataset": {
            "_target_": "monai_unetpp.data.CaseDataset",
            "data": {"_target_": "monai_unetpp.data.find_cases", "input": "@input", "strict": False},
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "ThreadDataLoader", "dataset": "@dataset", "batch_size": 1},
        "network_def": {"_target_": f"{__name__}.Threshold"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": True,
                },
                {"_target_": "monai_unetpp.data.SegmentationSaveImaged", "keys": "pred", "output_dir": "@output_dir"},
            ],
        },
        "evaluator": {
            "_target_": "monai_unetpp.engines.CaseEvaluator",
            "device": "cpu",
            "val_data_loader": "@dataloader",
            "network": "@network_def",
            "inferer": {"_target_": "SimpleInferer"},
            "postprocessing": "@postprocessing",
        },
        "run": ["$@evaluator.run()", "$@evaluator.exit_if_failed()"],
        **changes,
    }


def save(path: Path, shape: tuple[int, ...] = (6, 5, 4), mark: float = 0.0) -> Path:
    voxels = np.zeros(shape, np.float32)
    voxels[1:3, 1:3, 1:3] = 1
    voxels[-1, -1, -1] = mark
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, AFFINE), path)
    return path


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with good and broken files."""
    folder = tmp_path / "scans"
    save(folder / "a.nii.gz")
    (folder / "b_cut.nii.gz").parent.mkdir(exist_ok=True)
    good = nib.Nifti1Image(np.random.default_rng(0).random((16, 16, 16)), AFFINE).to_bytes()
    (folder / "b_cut.nii.gz").write_bytes(gzip.compress(good)[:9000])
    (folder / "c_text.nii.gz").write_text("not an image")
    nib.save(nib.Nifti1Image(np.full((6, 5, 4), np.nan), AFFINE), folder / "d_nan.nii.gz")
    save(folder / "e.nii", (8, 5, 6))
    nib.save(nib.Nifti1Image(np.zeros((6, 5, 4)), AFFINE), folder / "f_constant.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((6, 5)), AFFINE), folder / "g_flat.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((6, 5, 4, 3)), AFFINE), folder / "h_series.nii.gz")
    save(folder / "i_network.nii.gz", mark=-1)
    save(folder / "z.nii.gz")
    return folder


REASONS = {
    "b_cut": "damaged or cut off",
    "c_text": "not a NIfTI image",
    "d_nan": "120 of 120 voxels are NaN",
    "f_constant": "every voxel has the value 0",
    "g_flat": r"its shape is (6, 5)",
    "h_series": r"its shape is (6, 5, 4, 3)",
    "i_network": "inference failed with RuntimeError: a negative voxel",
}

LOADERS = [
    {"_target_": "ThreadDataLoader", "dataset": "@dataset", "batch_size": 1},
    {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
    {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 1},
]


@pytest.mark.parametrize("loader", LOADERS)
def test_good_cases_are_done_and_broken_ones_named(
    tmp_path: Path, mixed: Path, loader: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    evaluator = ConfigParser(config(mixed, tmp_path / "out", dataloader=loader)).get_parsed_content("evaluator")
    with caplog.at_level(logging.INFO, "monai_unetpp"):
        evaluator.run()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_seg.nii.gz", "e_seg.nii.gz", "z_seg.nii.gz"]
    assert [r.case for r in evaluator.completed] == ["a", "e", "z"]
    assert [f.case for f in evaluator.failures] == list(REASONS)
    for failure in evaluator.failures:
        assert failure.file == str(mixed / f"{failure.case}.nii.gz")
        assert failure.reason.startswith(REASONS[failure.case])
    for result in evaluator.completed:
        assert result.output == str(tmp_path / "out" / f"{result.case}_seg.nii.gz")
        assert np.asarray(nib.load(result.output).dataobj).sum() == 8
        assert result.volumes_ml == {1: pytest.approx(0.016)}  # 8 voxels of 2 mm³
        assert result.seconds > 0
    records = [record for record in caplog.records if record.name == "monai_unetpp.engines"]
    lines = [record.getMessage() for record in records if record.levelno == logging.ERROR]
    assert len(lines) == len(REASONS) + 1
    for line, (case, reason) in zip(lines, REASONS.items(), strict=False):
        assert line.startswith(f"{mixed / case}.nii.gz: {reason}")
        assert "\n" not in line
    assert not any(record.exc_info for record in records)
    assert lines[-1] == f"7 of 10 cases failed: {', '.join(REASONS)}."
    assert "3 of 10 cases segmented in" in caplog.text


def test_traceback_at_debug_level(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save(tmp_path / "scans" / "a.nii", mark=-1)
    evaluator = ConfigParser(config(path, tmp_path / "out")).get_parsed_content("evaluator")
    with caplog.at_level(logging.DEBUG, "monai_unetpp"):
        evaluator.run()
    assert [r.exc_info is not None for r in caplog.records if r.levelno == logging.DEBUG] == [True]


def test_several_inputs_with_a_missing_one(tmp_path: Path) -> None:
    paths = [str(save(tmp_path / "scans" / "a.nii")), str(tmp_path / "typo.nii")]
    content = config(tmp_path, tmp_path / "out", input=paths)
    evaluator = ConfigParser(content).get_parsed_content("evaluator")
    evaluator.run()
    assert [r.case for r in evaluator.completed] == ["a"]
    assert evaluator.failures == [CaseFailure("typo", paths[1], "no such file or folder. Check the path.")]


def test_a_file_that_goes_away_before_its_turn(tmp_path: Path) -> None:
    path = save(tmp_path / "scans" / "a.nii")
    evaluator = ConfigParser(config(path, tmp_path / "out")).get_parsed_content("evaluator")
    path.unlink()
    evaluator.run()
    assert evaluator.failures == [CaseFailure("a", str(path), "no such file. Check the path.")]


def test_results_that_cannot_be_written(tmp_path: Path, mixed: Path) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    evaluator = ConfigParser(config(mixed / "a.nii.gz", tmp_path / "out")).get_parsed_content("evaluator")
    evaluator.run()
    (failure,) = evaluator.failures
    assert failure.reason.startswith("post-processing failed with FileExistsError: ")
    assert not evaluator.completed


def test_a_second_run_starts_anew(tmp_path: Path, mixed: Path) -> None:
    evaluator = ConfigParser(config(mixed, tmp_path / "out")).get_parsed_content("evaluator")
    evaluator.run()
    first = evaluator.failures
    evaluator.run()
    assert evaluator.failures == first
    assert len(evaluator.completed) == 3


def test_bundle_run_ends_with_exit_code(tmp_path: Path, mixed: Path) -> None:
    for name, file, code in (("bad", mixed, 1), ("good", mixed / "a.nii.gz", None)):
        path = tmp_path / f"{name}.json"
        ConfigParser.export_config_file(config(file, tmp_path / "out"), str(path))
        if code is None:
            monai.bundle.run(config_file=str(path))
        else:
            with pytest.raises(SystemExit) as caught:
                monai.bundle.run(config_file=str(path))
            assert caught.value.code == code
    assert (tmp_path / "out" / "z_seg.nii.gz").is_file()


# as an evaluator like any other


def items(*marks: float) -> list[dict[str, Any]]:
    result = []
    for index, mark in enumerate(marks):
        image = torch.zeros(1, 4, 4, 4)
        image[:, :2] = 1
        image[0, -1, -1, -1] = mark
        meta = {"filename_or_obj": f"{index}.nii"}
        result.append({"image": MetaTensor(image, meta=meta), "label": (image > 0.5).float(), "case": f"case {index}"})
    return result


def evaluate(marks: tuple[float, ...], **options: Any) -> CaseEvaluator:
    loader = DataLoader(Dataset(items(*marks)), batch_size=1)
    evaluator = CaseEvaluator("cpu", loader, Threshold(), **options)
    evaluator.run()
    return evaluator


def first_class(data: torch.Tensor) -> torch.Tensor:
    return (data[1:] > data[:1]).float()


@pytest.mark.parametrize("marks", [(0, 0), (0, -1, 0), (-1, 0, -1)])
def test_metrics_and_handlers_see_completed_cases_only(marks: tuple[float, ...]) -> None:
    seen: list[int] = []
    evaluator = CaseEvaluator(
        torch.device("cpu"),
        DataLoader(Dataset(items(*marks)), batch_size=1),
        Threshold(),
        postprocessing=Lambdad("pred", first_class),
        key_val_metric={"dice": MeanDice(output_transform=from_engine(["pred", "label"]))},
        val_handlers=[StatsHandler(iteration_log=False)],
    )
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(len(engine.state.output)))
    every_second: list[int] = []
    evaluator.add_event_handler(
        Events.ITERATION_COMPLETED(every=2), lambda engine: every_second.append(engine.state.iteration)
    )
    evaluator.run()
    assert evaluator.state.metrics["dice"] == pytest.approx(1.0)
    good = [index for index, mark in enumerate(marks, 1) if mark == 0]
    assert seen == [1] * len(good)
    assert every_second == [index for index in good if index % 2 == 0]
    assert [r.file for r in evaluator.completed] == [f"{index - 1}.nii" for index in good]
    assert all(r.output is None for r in evaluator.completed)


def test_progress_bar_counts_failed_cases_too() -> None:
    evaluator = CaseEvaluator("cpu", DataLoader(Dataset(items(0, -1, -1)), batch_size=1), Threshold())
    bar = ProgressBar(file=None, disable=False)
    bar.attach(evaluator)
    counts: list[int] = []
    evaluator.add_event_handler(Events.EPOCH_COMPLETED, lambda: counts.append(0))
    positions: list[int] = []
    update = bar._reset

    def reset(pbar_total: int) -> None:
        update(pbar_total)
        original = bar.pbar.update
        bar.pbar.update = lambda n=1: (original(n), positions.append(bar.pbar.n))[0]

    bar._reset = reset
    evaluator.run()
    assert positions == [1, 2, 3]


def test_same_results_as_monais_evaluator() -> None:
    outputs: list[list[torch.Tensor]] = []
    for evaluator_class in (SupervisedEvaluator, CaseEvaluator):
        collected: list[torch.Tensor] = []
        evaluator = evaluator_class(torch.device("cpu"), DataLoader(Dataset(items(0, 0.25)), batch_size=1), Threshold())
        evaluator.add_event_handler(
            Events.ITERATION_COMPLETED, lambda engine, to=collected: to.append(engine.state.output[0]["pred"])
        )
        evaluator.run()
        outputs.append(collected)
    for theirs, ours in zip(*outputs, strict=True):
        torch.testing.assert_close(torch.as_tensor(theirs), torch.as_tensor(ours))


@pytest.mark.parametrize("decollate", [True, False])
def test_volumes_need_a_label_map(decollate: bool) -> None:
    assert evaluate((0,), decollate=decollate).completed[0].volumes_ml == {}
    result = evaluate((0,), postprocessing=Lambdad("pred", first_class)).completed[0]
    assert result.volumes_ml == {1: pytest.approx(0.032)}


def test_own_iteration_update_is_guarded_too() -> None:
    def update(engine: Any, batchdata: Any) -> dict[str, Any]:
        if batchdata["case"] == ["case 1"]:
            raise ValueError("one of us")
        return {"pred": batchdata["image"]}

    evaluator = evaluate((0, 0, 0), iteration_update=update)
    assert [r.case for r in evaluator.completed] == ["case 0", "case 2"]
    assert evaluator.failures == [CaseFailure("case 1", "1.nii", "inference failed with ValueError: one of us")]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_interruptions_are_not_swallowed(interruption: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    def update(engine: Any, batchdata: Any) -> Callable[..., Any]:
        if batchdata["case"] == ["case 1"]:
            raise interruption
        return {"pred": batchdata["image"]}

    evaluator = CaseEvaluator(
        "cpu", DataLoader(Dataset(items(0, 0, 0)), batch_size=1), Threshold(), iteration_update=update
    )
    with caplog.at_level(logging.INFO, "monai_unetpp"), pytest.raises(interruption):
        evaluator.run()
    assert [r.case for r in evaluator.completed] == ["case 0"]
    assert "1 of 1 cases segmented" in caplog.text


def test_batches_are_refused() -> None:
    loader = DataLoader(Dataset(items(0, 0)), batch_size=2)
    with pytest.raises(ValueError, match="val_data_loader must have batch_size 1, got 2"):
        CaseEvaluator("cpu", loader, Threshold())


def test_exit_only_after_failures() -> None:
    evaluate((0,)).exit_if_failed()
    with pytest.raises(SystemExit, match="1"):
        evaluate((-1,)).exit_if_failed()


def test_dataset_hands_on_failures(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii")

    def fail(item: Any) -> Any:
        raise OSError("disk on fire\nand smoke")

    dataset = CaseDataset(
        [*find_cases(path), {"image": str(path)}, {"image": "b.nii", "case": "b", "failure": "gone"}], fail
    )
    expected = {"case": "a", "file": str(path), "failure": "OSError: disk on fire"}
    assert [dataset[index] for index in range(3)] == [
        expected,
        expected,
        {"case": "b", "file": "b.nii", "failure": "gone"},
    ]
    batches = list(ThreadDataLoader(dataset, batch_size=1))
    assert batches[0] == {key: [value] for key, value in expected.items()}
    assert CaseDataset(find_cases(path), lambda item: item)[0]["case"] == "a"
    assert len(dataset[:2]) == 2
