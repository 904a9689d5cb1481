"""Segmenting case after case: what fails is named, what follows is done."""

from __future__ import annotations

import gzip
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor, ThreadDataLoader, list_data_collate
from monai.engines import SupervisedEvaluator
from monai.handlers import MeanDice, StatsHandler, from_engine
from monai.inferers import Inferer, SimpleInferer
from monai.transforms import AsDiscreted, Compose, Flipd, Lambdad, SaveImaged

from monai_unetpp.data import BlockwiseSpacingd, CaseDataset, find_cases
from monai_unetpp.engines import CaseEvaluator, CaseFailure, count_voxels

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
    "f_constant": "all voxels have the value 0",
    "g_flat": r"must be a volume with three axes, got shape (6, 5)",
    "h_series": r"must be a volume with three axes, got shape (6, 5, 4, 3)",
    "i_network": "inference failed with RuntimeError: a negative voxel",
}

LOADERS = [
    {"_target_": "ThreadDataLoader", "dataset": "@dataset", "batch_size": 1},
    {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
    {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 1},
]


@pytest.mark.slow
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


def test_metrics_are_not_computed_where_all_cases_failed() -> None:
    evaluator = evaluate(
        (-1, -1),
        postprocessing=Lambdad("pred", first_class),
        key_val_metric={"dice": MeanDice(output_transform=from_engine(["pred", "label"]))},
        val_handlers=[StatsHandler(iteration_log=False)],
    )
    assert (len(evaluator.failures), evaluator.completed, evaluator.state.metrics) == (2, [], {})
    with pytest.raises(SystemExit):
        evaluator.exit_if_failed()


def test_metrics_are_those_of_the_run_whichever_cases_complete() -> None:
    """Also of a case that is still being written at the end, and not those of the run before."""
    evaluator = evaluate(
        (-1, 0),
        postprocessing=Compose([Lambdad("pred", first_class), Saver()]),
        key_val_metric={"dice": MeanDice(output_transform=from_engine(["pred", "label"]))},
    )
    assert evaluator.state.metrics == {"dice": pytest.approx(1.0)}
    ended: list[Engine] = []
    evaluator.add_event_handler(Events.EPOCH_COMPLETED, ended.append)
    evaluator.data_loader.dataset.data = items(-1, -1)
    evaluator.run()
    assert (evaluator.state.metrics, len(ended)) == ({}, 1)


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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loader_that_dies_does_not_begin_again() -> None:
    def collate(batch: Any) -> Any:
        if batch[0]["case"] == "case 2":
            raise RuntimeError("no memory for this one")
        return list_data_collate(batch)

    loader = ThreadDataLoader(Dataset(items(0, 0, 0, 0)), batch_size=1, collate_fn=collate)
    evaluator = CaseEvaluator("cpu", loader, Threshold())
    with pytest.raises(RuntimeError, match=r"val_data_loader must yield 4 cases, got 2\. .* with .*CaseDataset"):
        evaluator.run()
    assert [done.case for done in evaluator.completed] == ["case 0", "case 1"]


def test_exit_only_after_failures() -> None:
    evaluate((0,)).exit_if_failed()
    with pytest.raises(SystemExit, match="1"):
        evaluate((-1,)).exit_if_failed()


@pytest.mark.parametrize("profile", [False, True])
def test_results_tell_what_surround_was_found(tmp_path: Path, profile: bool) -> None:
    save(tmp_path / "scans" / "a.nii.gz", (4, 4, 4))
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((6, 5, 4)), AFFINE), tmp_path / "scans" / "b.nii.gz")
    parser = ConfigParser(config(tmp_path / "scans", tmp_path / "out"))
    parser["preprocessing"]["transforms"].append({"_target_": "monai_unetpp.data.LevelSurroundd", "keys": "image"})
    evaluator = parser.get_parsed_content("evaluator")
    evaluator.profile = profile
    evaluator.run()
    surrounds = [done.surround for done in evaluator.completed]
    # at 1 mm the second axis has 7 voxels
    assert surrounds[0] is not None
    assert surrounds[0]["value"] == 0
    assert 0.5 < surrounds[0]["share"] < 1
    assert surrounds[1] is None


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


def test_items_of_a_data_set_without_a_file_are_prepared_or_fail_alone() -> None:
    image = MetaTensor(torch.ones(1, 4, 4))
    dataset = CaseDataset([{"image": image}, {"case": "empty"}], Lambdad("image", lambda values: values + 1))
    assert torch.equal(dataset[0]["image"], image + 1)
    assert (dataset[1]["case"], dataset[1]["file"]) == ("empty", "empty")
    assert "image" in dataset[1]["failure"]


# saving while the network is at the next case


class Saver(SaveImaged):
    """Keeps what it is given instead of writing it, after waiting for something."""

    def __init__(self, wait_for: Callable[[str], Any] = lambda case: None) -> None:
        super().__init__("pred", output_dir="unused")
        self.wait_for = wait_for
        self.log: list[str] = []
        self.data: list[dict[Any, Any]] = []
        self.threads: set[threading.Thread] = set()

    def __call__(self, data: Any) -> Any:
        self.threads.add(threading.current_thread())
        self.data.append(data)
        self.wait_for(data["case"])
        self.log.append(f"saved {data['case']}")
        data["pred"].meta["saved_to"] = f"{data['case']}.nii.gz"
        return data


class LoggedThreshold(Threshold):
    """Says when it begins with a case; may be interrupted at one."""

    def __init__(self, log: list[str], interrupted_at: int | None = None) -> None:
        super().__init__()
        self.log, self.interrupted_at, self.calls = log, interrupted_at, 0
        self.begun = [threading.Event() for _ in range(4)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        case, self.calls = self.calls, self.calls + 1
        self.begun[case].set()
        self.log.append(f"network {case}")
        if case == self.interrupted_at:
            raise KeyboardInterrupt
        return super().forward(x)


def saving_evaluator(saver: Saver, network: torch.nn.Module, *marks: float, **options: Any) -> CaseEvaluator:
    postprocessing = Compose([AsDiscreted("pred", argmax=True), saver])
    loader = DataLoader(Dataset(items(*marks)), batch_size=1)
    return CaseEvaluator("cpu", loader, network, postprocessing=postprocessing, **options)


def test_a_case_is_written_during_the_next_but_not_later() -> None:
    saver = Saver()
    network = LoggedThreshold(saver.log)
    begun: list[bool] = []

    def wait_for(case: str) -> None:
        number = int(case.split()[1])
        if number < 3:  # after the last one nothing comes
            begun.append(network.begun[number + 1].wait(20))

    saver.wait_for = wait_for
    evaluator = saving_evaluator(saver, network, 0, 0, 0, 0)
    evaluator.run()
    assert begun == [True, True, True]
    for number in range(2):
        assert saver.log.index(f"saved case {number}") < saver.log.index(f"network {number + 2}")
    assert saver.log[-1] == "saved case 3"
    assert [(r.case, r.output) for r in evaluator.completed] == [(f"case {n}", f"case {n}.nii.gz") for n in range(4)]
    assert evaluator.completed[0].volumes_ml == {1: pytest.approx(0.032)}
    assert threading.main_thread() not in saver.threads
    assert not any(thread.is_alive() for thread in saver.threads)


def test_what_waits_to_be_written_is_not_the_image() -> None:
    saver = Saver()
    saving_evaluator(saver, Threshold(), 0).run()
    ((kept,),) = ([key for key, value in data.items() if isinstance(value, torch.Tensor)] for data in saver.data)
    assert kept == "pred"


@pytest.mark.parametrize("profile", [False, True])
def test_failures_in_saving_keep_their_case_and_their_place(profile: bool) -> None:
    def fail(case: str) -> None:
        if case in ("case 0", "case 4"):
            raise OSError(f"no space for {case}")

    evaluator = saving_evaluator(Saver(fail), Threshold(), 0, -1, 0, 0, 0, profile=profile)
    evaluator.run()
    assert [r.case for r in evaluator.completed] == ["case 2", "case 3"]
    assert [(f.case, f.reason) for f in evaluator.failures] == [
        ("case 0", "post-processing failed with OSError: no space for case 0"),
        ("case 1", "inference failed with RuntimeError: a negative voxel"),
        ("case 4", "post-processing failed with OSError: no space for case 4"),
    ]


def test_an_interruption_lets_what_is_being_written_be_finished() -> None:
    saver = Saver(lambda case: time.sleep(0.2))
    evaluator = saving_evaluator(saver, LoggedThreshold(saver.log, interrupted_at=1), 0, 0)
    with pytest.raises(KeyboardInterrupt):
        evaluator.run()
    assert saver.log[-1] == "saved case 0"
    assert [r.output for r in evaluator.completed] == ["case 0.nii.gz"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_transform_that_saves_need_not_be_in_a_compose(wrapped: bool) -> None:
    saver = Saver()
    postprocessing = Compose([Compose([saver])]) if wrapped else saver
    evaluator = evaluate((0, 0), postprocessing=postprocessing)
    assert saver.log == ["saved case 0", "saved case 1"]
    assert len(evaluator.completed) == 2


def test_the_network_is_loaded_once_for_many_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Threshold] = []
    original = Threshold.__init__

    def counted(self: Threshold) -> None:
        original(self)
        built.append(self)

    monkeypatch.setattr(Threshold, "__init__", counted)
    for name in "abc":
        save(tmp_path / "scans" / f"{name}.nii")
    evaluator = ConfigParser(config(tmp_path / "scans", tmp_path / "out")).get_parsed_content("evaluator")
    evaluator.run()
    assert (len(built), len(evaluator.completed)) == (1, 3)


# where the time goes


@pytest.mark.slow
def test_stages_explain_the_time_of_a_case(tmp_path: Path, mixed: Path) -> None:
    plain, profiled = (
        ConfigParser(config(mixed, tmp_path / name)).get_parsed_content("evaluator") for name in ("plain", "profiled")
    )
    profiled.profile = True
    before = profiled.data_loader, profiled.inferer, profiled.data_loader.dataset.transform
    for evaluator in (plain, profiled):
        evaluator.run()
    assert [f.case for f in profiled.failures] == [f.case for f in plain.failures] == list(REASONS)
    assert [r.case for r in profiled.completed] == ["a", "e", "z"]
    assert all(r.stages == {} for r in plain.completed)
    stages = {"load", "resample", "network", "argmax", "inversion", "save", "volumes", "other"}
    for ours, other in zip(profiled.completed, plain.completed, strict=True):
        assert set(ours.stages) == stages
        assert all(seconds >= 0 for seconds in ours.stages.values())
        assert sum(ours.stages.values()) == pytest.approx(ours.seconds, rel=0.3)
        assert ours.volumes_ml == other.volumes_ml
        written = [np.asarray(nib.load(str(result.output)).dataobj) for result in (ours, other)]
        assert np.array_equal(*written)
    assert (profiled.data_loader, profiled.inferer, profiled.data_loader.dataset.transform) == before
    profiled.profile = False
    profiled.run()
    assert all(r.stages == {} for r in profiled.completed)


class SlowInferer(Inferer):
    """Measures itself."""

    timer = None

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        if self.timer is not None:
            with self.timer.stage("windows"):
                time.sleep(0.2)
        return network(inputs)


def test_profiling_asks_inferers_that_measure_themselves_and_uses_one_thread() -> None:
    saver, inferer = Saver(lambda case: time.sleep(0.1)), SlowInferer()
    evaluator = saving_evaluator(saver, Threshold(), 0, 0, inferer=inferer, profile=True)
    evaluator.run()
    assert inferer.timer is None
    assert saver.threads == {threading.main_thread()}
    for result in evaluator.completed:
        assert set(result.stages) == {"windows", "argmax", "save", "volumes", "other"}
        assert 0.2 <= result.stages["windows"] < result.seconds
        assert 0.1 <= result.stages["save"] < result.seconds


def test_loading_in_a_thread_is_measured_too() -> None:
    transform = Compose([Flipd("image", 0), Lambdad("image", lambda x: (time.sleep(0.1), x)[1])])
    loader = ThreadDataLoader(Dataset(items(0, 0), transform), batch_size=1)
    evaluator = CaseEvaluator("cpu", loader, Threshold(), inferer=SimpleInferer(), profile=True)
    evaluator.run()
    for result in evaluator.completed:
        assert set(result.stages) == {"resample", "preprocessing", "network", "volumes", "other"}
        assert 0.1 <= result.stages["preprocessing"] < result.seconds


@pytest.mark.parametrize(
    ("transform", "stage"),
    [
        (Compose([BlockwiseSpacingd("image", pixdim=2.0)]), "resample"),
        (Compose([Flipd("image", 0), Flipd("image", 1)], lazy=True), "preprocessing"),
    ],
    ids=["our resampling", "lazy transforms as one"],
)
def test_transforms_are_measured_as_what_they_are(transform: Compose, stage: str) -> None:
    loader = DataLoader(Dataset(items(0), transform), batch_size=1, collate_fn=list_data_collate)
    evaluator = CaseEvaluator("cpu", loader, Threshold(), profile=True)
    evaluator.run()
    assert set(evaluator.completed[0].stages) == {stage, "network", "volumes", "other"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_only_labels_come_back(tmp_path: Path) -> None:
    content = config(save(tmp_path / "scans" / "a.nii"), tmp_path / "out")
    content["preprocessing"]["transforms"].insert(1, {"_target_": "EnsureTyped", "keys": "image", "device": "cuda:0"})
    content["evaluator"]["device"] = "cuda:0"
    content["network_def"] = {"_target_": "torch.nn.Module.cuda", "self": content["network_def"]}
    devices: list[str] = []
    watch = Lambdad("pred", lambda x: (devices.append(x.device.type), x)[1])
    parser = ConfigParser(content)
    evaluator = parser.get_parsed_content("evaluator")
    chain = evaluator._postprocessing
    chain.transforms = tuple(each for transform in chain.transforms for each in (watch, transform, watch))
    evaluator.run()
    assert devices == ["cuda"] * 4
    assert np.asarray(nib.load(evaluator.completed[0].output).dataobj).sum() == 8


@pytest.mark.parametrize(
    ("values", "counted"),
    [
        (np.array([0, 1, 1, 300], np.uint16), {1: 2, 300: 1}),
        (np.array([0.0, 2.0], np.float32), {2: 1}),
        (np.array([0.0, np.inf], np.float32), {}),
        (np.array([0.0, 0.5], np.float32), {}),
        (np.array([0, 2**33]), {2**33: 1}),
        (np.array([0, -1]), {}),
        (np.zeros(0, np.uint8), {}),
    ],
)
def test_labels_of_any_type_are_counted_and_other_maps_are_not(values, counted):
    assert count_voxels(MetaTensor(torch.from_numpy(values)[None, None, None])) == counted
