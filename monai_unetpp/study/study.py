"""A whole study: which runs are left, doing them one after the other, and the report when all are done."""

from __future__ import annotations

import csv
import dataclasses
import functools
import itertools
import json
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from monai.data import CacheDataset

from monai_unetpp.data import check_labelled_data, describe_failure
from monai_unetpp.devices import resolve_device
from monai_unetpp.distributed import gathered, local_device
from monai_unetpp.files import write_text
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning.cost import describe_environment
from monai_unetpp.pruning.plots import new_figure
from monai_unetpp.pruning.results import Environment, Quartiles
from monai_unetpp.study.cases import StudyCases, find_study_cases, make_training_preprocessing
from monai_unetpp.study.costs import RowLatency, cut_network, measure_latencies, network_size
from monai_unetpp.study.evaluate import score_network
from monai_unetpp.study.plots import draw_accuracy, draw_learning_curves
from monai_unetpp.study.runs import (
    REFERENCE,
    WIDE,
    StudyRow,
    StudyVariant,
    assign_shard,
    choose_names,
    count_parameters,
    list_rows,
    list_variants,
    match_wide_features,
    variant_names,
)
from monai_unetpp.study.settings import StudySettings, claim_folder, compare_folder, read_config, read_stored
from monai_unetpp.study.table import RunResult, format_study, summarise
from monai_unetpp.study.train import CURVE_FILE, WEIGHTS_FILE, train_network

__all__ = ["StudyOutcome", "StudyRun", "run_study"]

logger = logging.getLogger(__name__)

State = Literal["finished", "failed", "interrupted", "open"]

_RESULT_FILE = "result.json"
_FAILURE_FILE = "failure.txt"
_LATENCY_FILE = "latency.json"


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """One training with one seed.

    Attributes:
        variant: the network.
        seed: of weights and patches.
        folder: where its checkpoints, curve, weights and result are.
        parameters: of the network in training, with all of its heads.
        state: ``"finished"``, ``"failed"`` (tried again the next time), ``"interrupted"`` or ``"open"``.
    """

    variant: StudyVariant
    seed: int
    folder: Path
    parameters: int
    state: State

    @property
    def name(self) -> str:
        """As in messages."""
        return f"{self.variant.name}, seed {self.seed}"


@dataclasses.dataclass(frozen=True)
class StudyOutcome:
    """How a study stands.

    Attributes:
        runs: all that were asked for, also those of other processes.
        failures: run and reason of what failed in this process; under ``torchrun`` in all of its processes.
        report: ``study.md``; None if this process has not written it. Under ``torchrun`` the first one does.
    """

    runs: tuple[StudyRun, ...]
    failures: tuple[str, ...] = ()
    report: Path | None = None


def run_study(
    dataset_dir: str | PathLike[str],
    output_dir: str | PathLike[str],
    *,
    variants: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    config: str | PathLike[str] | None = None,
    shard: str | None = None,
    device: str | None = None,
    num_workers: int = 0,
    cache_rate: float = 1.0,
    report_only: bool = False,
    list_only: bool = False,
    on_message: Callable[[str], None] | None = None,
    **settings: Any,
) -> StudyOutcome:
    """Train and compare the networks of the UNet++ paper on equal terms: same data, patches, loss, schedule, steps.

    U-Nets of every depth, a wide U-Net with the parameters of UNet++, U-Net^e, UNet+ and UNet++ with and without deep
    supervision, and UNet++ cut to each level against the same level trained alone. Every seed and network is a run
    with a folder of its own. The same call goes on where it was interrupted, loses no more than the steps since the
    last checkpoint, gives what it would have given without the interruption, and repeats nothing that is finished.

    Args:
        dataset_dir: folder with ``dataset.json`` in Decathlon form, 2D or 3D. Networks are trained on its
            ``training`` list and scored on its ``validation`` list, with the weights after the last step.
        output_dir: folder of the study, for runs of one setting only. It receives ``study.md``, ``study.json``,
            ``accuracy.png`` and ``curves.png`` over all finished runs in it.
        variants: names or patterns such as ``"unet++*"`` of what to train; all by default.
        seeds: one training of each network per seed; ``[0]`` by default.
        config: JSON file with ``variants``, ``seeds`` and ``settings`` by their names; arguments go first.
        shard: ``"K/N"`` to do every N-th run from the K-th on, so that N processes share the work. Under ``torchrun``
            the processes share it by rank, and each GPU does runs of its own; they wait for each other at the end.
        device: such as ``"cpu"``; by default a GPU if there is one.
        num_workers: processes that draw patches.
        cache_rate: share of the prepared training cases that is kept in memory.
        report_only: train nothing, and report what is finished.
        list_only: do nothing but look at the state of the runs.
        on_message: called with one line about what is going on.
        settings: see :class:`~monai_unetpp.study.settings.StudySettings`. What is not given is as in ``output_dir``,
            else the default.

    Returns:
        The state of all runs, and what failed. A run that fails does not keep the others from being done.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument that cannot work, cases with problems, or an ``output_dir`` with runs of
            other settings or cases.
        FileNotFoundError: no such data set or configuration.
        ImportError: matplotlib is missing; the message holds the command that installs it.
    """
    folder = Path(output_dir)
    given = {} if config is None else read_config(config)
    patterns = given.pop("variants", None) if variants is None else variants
    numbers = given.pop("seeds", None) if seeds is None else seeds
    explicit = {**given, **{name: value for name, value in settings.items() if value is not None}}
    _check_names("variants", patterns)
    chosen_device = _device(device)
    cases = find_study_cases(dataset_dir)
    complete = StudySettings.complete(
        {**read_stored(folder, cases), **explicit}, cases.spatial_dims, str(chosen_device)
    )
    _check_numbers(numbers, num_workers, cache_rate)
    share = _shard(shard)
    study = _Study(
        folder=folder,
        cases=cases,
        settings=complete,
        fingerprint="" if list_only else compare_folder(folder, complete, cases),
        device=chosen_device,
        num_workers=num_workers,
        cache_rate=cache_rate,
        tell=on_message or logger.info,
    )
    chosen = study.variants(patterns)
    plan = [(variant, seed) for seed in ([0] if numbers is None else numbers) for variant in chosen]
    if list_only:
        return StudyOutcome(study.states(plan))
    with new_figure(1, 1):
        pass  # matplotlib is needed at the end: better to miss it now than after hours
    mine = [] if report_only else study.do([plan[number] for number in assign_shard(len(plan), share)])
    with gathered(mine) as failures:
        states = study.states(plan)
        left = [run.name for run in states if run.state not in ("finished", "failed")]
        report = None
        if report_only or not (left or all(run.state == "failed" for run in states)):
            report = study.report() if share[0] == 1 or shard is not None else None
        elif left:
            study.tell(
                f"{len(left)} runs of other processes are left; the process that finishes last writes the report."
            )
    return StudyOutcome(states, tuple(itertools.chain(*failures)), report)


@dataclasses.dataclass(frozen=True)
class _Study:
    """All that the runs share."""

    folder: Path
    cases: StudyCases
    settings: StudySettings
    fingerprint: str
    device: torch.device
    num_workers: int
    cache_rate: float
    tell: Callable[[str], None]

    def variants(self, patterns: Sequence[str] | None) -> tuple[StudyVariant, ...]:
        """The networks that are asked for; without the wide one where there is none, unless it is named."""
        features = self.settings.features
        names = choose_names(variant_names(features), patterns)
        wide = None
        if WIDE in names:
            if isinstance(self._wide_features, ValueError):
                if patterns is not None and WIDE in patterns:
                    raise self._wide_features
                self.tell(f"{WIDE} is left out: {self._wide_features}")
            else:
                wide = self._wide_features
        return tuple(each for each in list_variants(features, wide) if each.name in names)

    @functools.cached_property
    def _wide_features(self) -> tuple[int, ...] | ValueError:
        """Features of the wide U-Net, or why there is none."""
        try:
            return match_wide_features(
                self.settings.features,
                spatial_dims=self.cases.spatial_dims,
                in_channels=self.cases.in_channels,
                out_channels=self.cases.out_channels,
            )
        except ValueError as e:
            return e

    def _rows(self) -> list[StudyRow]:
        """Of the table; without the wide U-Net where there is none."""
        rows = list_rows(self.settings.features)
        return [row for row in rows if row.variant != WIDE or not isinstance(self._wide_features, ValueError)]

    def states(self, plan: Sequence[tuple[StudyVariant, int]]) -> tuple[StudyRun, ...]:
        return tuple(
            StudyRun(variant, seed, folder, count_parameters(self._config(variant)), _state(folder))
            for variant, seed in plan
            for folder in [self._run_folder(variant, seed)]
        )

    def do(self, plan: Sequence[tuple[StudyVariant, int]]) -> list[str]:
        """Do what is not finished, and return what failed and why."""
        failures = []
        waiting = [run for run in self.states(plan) if run.state != "finished"]
        if waiting:
            self._check_cases()
            claim_folder(self.folder, self.settings, self.cases)
        for number, run in enumerate(waiting, start=1):
            self.tell(f"{run.name}: run {number} of {len(waiting)}, {run.parameters / 1e6:.3f} M parameters")
            try:
                (run.folder / _FAILURE_FILE).unlink(missing_ok=True)
                self._do_run(run)
            except Exception as e:
                logger.debug("%s failed", run.name, exc_info=True)
                write_text(run.folder / _FAILURE_FILE, traceback.format_exc())
                failures.append(f"{run.name}: {describe_failure(e)}")
                self.tell(f"failed: {failures[-1]}")
        return failures

    def report(self) -> Path:
        """Write the report over all finished runs of the folder."""
        rows = self._rows()
        results = list(self._results())
        if not results:
            raise ValueError(f"output_dir must hold a finished run, got {self.folder} without one. Train first.")
        latencies, environment = self._latencies(rows, results)
        content = summarise(rows, results, latencies, self.settings, self.cases.as_dict(), environment)
        write_text(self.folder / "study.json", json.dumps(content, indent=1) + "\n")
        draw_accuracy(content, self.folder / "accuracy.png")
        draw_learning_curves(content, self.folder / "curves.png")
        path = self.folder / "study.md"
        write_text(path, format_study(content))
        return path

    @functools.cached_property
    def _prepared(self) -> Any:
        """The prepared training cases by number; read when the first run needs them."""
        self.tell(f"preparing {len(self.cases.training)} training cases")
        return CacheDataset(
            list(self.cases.training),
            make_training_preprocessing(self.cases, self.settings),
            cache_rate=self.cache_rate,
            progress=False,
        )

    def _do_run(self, run: StudyRun) -> None:
        config = self._config(run.variant)
        network = train_network(
            config,
            lambda: self._prepared,
            self.cases,
            self.settings,
            run.folder,
            seed=run.seed,
            device=self.device,
            num_workers=self.num_workers,
            on_progress=lambda step, loss: self.tell(
                f"{run.name}: step {step} of {self.settings.budget}, loss {loss:.4f}"
            ),
        ).eval()
        rows = list_rows(self.settings.features)
        levels = list(dict.fromkeys(row.level for row in rows if row.variant == run.variant.name))
        self.tell(f"{run.name}: scoring {len(self.cases.validation)} cases")
        scores = score_network(
            network, levels, self.cases, self.settings, device=self.device, store=run.folder / "cases"
        )
        result = RunResult(
            variant=run.variant.name,
            seed=run.seed,
            config=network.config,
            fingerprint=self.fingerprint,
            training_seconds=_read_curve(run.folder)[-1]["seconds"],
            environment=dataclasses.asdict(describe_environment(self.device, self.settings.precision)),
            sizes={level: network_size(network, level, self.settings.patch_size) for level in levels},
            scores=scores,
            curve=[],
        )
        content = {name: value for name, value in dataclasses.asdict(result).items() if name != "curve"}
        write_text(run.folder / _RESULT_FILE, json.dumps(content, indent=1) + "\n")

    def _results(self) -> Iterator[RunResult]:
        for path in sorted(self.folder.glob(f"runs/*/*/{_RESULT_FILE}")):
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["fingerprint"] != self.fingerprint:
                raise ValueError(
                    f"{path}: must be a run of the settings and cases of this study, got one of others. Take it out "
                    "of the folder."
                )
            yield RunResult(**content, curve=[row["loss"] for row in _read_curve(path.parent)])

    def _latencies(
        self, rows: Sequence[StudyRow], results: Sequence[RunResult]
    ) -> tuple[dict[str, RowLatency], Environment]:
        """Those on disk if they are of the same networks on the same machine, else measured now."""
        configs = {result.variant: result.config for result in results}
        present = [row for row in rows if row.variant in configs]
        environment = describe_environment(self.device, self.settings.precision)
        path = self.folder / _LATENCY_FILE
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            before = Environment(**content["environment"])
            known = {name: _latency(each) for name, each in content["rows"].items()}
            same = (before.device, before.threads, before.precision) == (
                environment.device,
                environment.threads,
                environment.precision,
            )
            if same and list(known) == [row.name for row in present]:
                return known, before
        self.tell(f"measuring the latency of {len(present)} networks")
        networks = {row.name: cut_network(NestedUNet(**configs[row.variant]), row.level) for row in present}
        latencies = measure_latencies(
            networks,
            self.cases.in_channels,
            self.settings.patch_size,
            reference=REFERENCE if REFERENCE in networks else None,
            device=self.device,
            precision=self.settings.precision,
        )
        measured = {name: dataclasses.asdict(each) for name, each in latencies.items()}
        content = {"environment": dataclasses.asdict(environment), "rows": measured}
        write_text(path, json.dumps(content, indent=1) + "\n")
        return latencies, environment

    def _check_cases(self) -> None:
        """Refuse cases that could not be trained on or scored, before hours of training."""
        self.tell(f"checking {len(self.cases.training) + len(self.cases.validation)} cases")
        check_labelled_data(self.cases.folder, spatial_dims=self.cases.spatial_dims, in_channels=self.cases.in_channels)

    def _config(self, variant: StudyVariant) -> dict[str, Any]:
        return variant.config(self.cases.spatial_dims, self.cases.in_channels, self.cases.out_channels)

    def _run_folder(self, variant: StudyVariant, seed: int) -> Path:
        return self.folder / "runs" / variant.name / f"seed_{seed}"


def _state(folder: Path) -> State:
    if (folder / _RESULT_FILE).is_file():
        return "finished"
    if (folder / _FAILURE_FILE).is_file():
        return "failed"
    begun = (folder / WEIGHTS_FILE).is_file() or any(folder.glob("checkpoint_*.pt"))
    return "interrupted" if begun else "open"


def _read_curve(folder: Path) -> list[dict[str, float]]:
    with (folder / CURVE_FILE).open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _latency(content: Mapping[str, Any]) -> RowLatency:
    ratio = content["ratio"]
    return RowLatency(Quartiles(**content["seconds"]), None if ratio is None else Quartiles(**ratio))


def _device(name: str | None) -> torch.device:
    return local_device() if name is None and "LOCAL_RANK" in os.environ else resolve_device(name)


def _shard(shard: str | None) -> tuple[int, int]:
    """K and N of ``"K/N"``; those of torchrun where it started this process."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if shard is None:
        return int(os.environ.get("RANK", "0")) + 1, processes
    if processes > 1:
        raise ValueError(f"shard must not be given under torchrun, got {shard!r}. Its processes share the runs.")
    parts = shard.split("/")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"shard must be K/N, got {shard!r}. For two processes give 1/2 and 2/2.")
    assign_shard(0, (int(parts[0]), int(parts[1])))
    return int(parts[0]), int(parts[1])


def _check_names(name: str, value: Any) -> None:
    texts = isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(each, str) for each in value)
    if value is not None and not (texts and value):
        raise TypeError(f"{name} must be a list of names, got {value!r}. Write ['unet_L4', 'unet++*'].")


def _check_numbers(seeds: Any, num_workers: Any, cache_rate: Any) -> None:
    listed = [0] if seeds is None else seeds
    whole = isinstance(listed, Sequence) and all(isinstance(each, int) and each >= 0 for each in listed)
    if not whole or not listed or len(set(listed)) < len(listed):
        raise ValueError(f"seeds must be different whole numbers from 0 up, got {seeds!r}. Write 0 1 2.")
    if not isinstance(num_workers, int) or num_workers < 0:
        raise ValueError(f"num_workers must be 0 or more, got {num_workers!r}. 0 draws patches in this process.")
    if not 0 <= cache_rate <= 1:
        raise ValueError(f"cache_rate must lie between 0 and 1, got {cache_rate!r}. 1 keeps all cases in memory.")
