"""A whole study: do the runs that are left, one after the other, then write the report."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch

from monai_unetpp.data import check_labelled_data, describe_failure
from monai_unetpp.devices import resolve_device, resolve_precision
from monai_unetpp.distributed import gathered, own_device
from monai_unetpp.files import claimed, write_json, write_text
from monai_unetpp.measuring.environment import describe_environment, measuring_device
from monai_unetpp.networks import NestedUNet
from monai_unetpp.options import option_names
from monai_unetpp.plain_values import to_plain
from monai_unetpp.planning.sides import sided
from monai_unetpp.progress import Progress, teller
from monai_unetpp.reporting.figures import check_drawing
from monai_unetpp.study.accuracy_table import RunResult, format_study, summarise
from monai_unetpp.study.costs import Latencies, cut_network, measure_latencies, network_size, read_latencies
from monai_unetpp.study.data_set import StudyCases, find_study_cases
from monai_unetpp.study.design import RunOptions, StudySettings, flip_axes_with_sides, read_config
from monai_unetpp.study.single_run import score_network, train_network
from monai_unetpp.study.study_figures import draw_accuracy, draw_learning_curves
from monai_unetpp.study.study_folder import State, StudyFolder, read_curve
from monai_unetpp.study.variants import (
    REFERENCE,
    WIDE,
    StudyRow,
    StudyVariant,
    choose_names,
    count_parameters,
    list_rows,
    list_variants,
    match_wide_features,
    variant_names,
)

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """One training with one seed.

    Attributes:
        variant: the network.
        seed: of weights and patches.
        folder: where its checkpoints, curve, weights and result are.
        parameters: of the network in training, with all heads.
        state: ``"finished"``, ``"failed"`` (tried again the next time), ``"interrupted"`` or ``"open"``.
    """

    variant: StudyVariant
    seed: int
    folder: Path
    parameters: int
    state: State

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{self.variant.name}, seed {self.seed}"


@dataclasses.dataclass(frozen=True)
class StudyOutcome:
    """The state of a study.

    Attributes:
        runs: all requested runs, also those of other processes.
        failures: failed runs and why, of this process; under ``torchrun``, of all its processes.
        report: ``study.md``; None if this process has not written it. Under ``torchrun`` the first one does.
    """

    runs: tuple[StudyRun, ...]
    failures: tuple[str, ...] = ()
    report: Path | None = None


def run_study(
    dataset_dir: str | PathLike[str],
    output_dir: str | PathLike[str],
    *,
    config: str | PathLike[str] | None = None,
    device: str | None = None,
    subjects: str | PathLike[str] | None = None,
    subject_pattern: str | None = None,
    report_only: bool = False,
    list_only: bool = False,
    progress: Progress = False,
    **options: Any,
) -> StudyOutcome:
    """Train and compare the networks of the UNet++ paper on equal terms: same data, patches, loss, schedule, steps.

    The networks are U-Nets of every depth, a wide U-Net with the parameters of UNet++, U-Net^e, and UNet+ and UNet++
    with and without deep supervision. UNet++ cut to each level is compared with the same level trained alone. Each
    network and seed is a run in its own folder. The same call continues an interrupted study with the same result as
    without the interruption: it loses at most the steps since the last checkpoint, and repeats no finished run. A
    failed run does not stop the others.

    Args:
        dataset_dir: folder with ``dataset.json`` in Decathlon form, 2D or 3D. Networks are trained on its
            ``training`` list and scored on its ``validation`` list, with the weights after the last step.
        output_dir: folder of the study, for runs with the same settings. It receives ``study.md``, ``study.json``,
            ``accuracy.png`` and ``curves.png`` on all finished runs in it.
        config: JSON file with ``variants``, ``seeds`` and settings by name; arguments override it.
        device: such as ``"cpu"``; by default a GPU if there is one.
        subjects: CSV file with the columns ``case`` and ``subject``: cases of a subject stay together where a
            validation list is drawn, and count once in the intervals.
        subject_pattern: regular expression with one group that finds the subject in the case's name.
        report_only: train nothing, only report the finished runs.
        list_only: only look up the state of the runs.
        progress: True shows progress on standard error, a function is called with each line of it.
        **options: fields of :class:`~monai_unetpp.study.design.RunOptions`, such as ``variants=["unet++*"]``, and of
            :class:`~monai_unetpp.study.design.StudySettings`. A missing setting is taken from ``output_dir``, else
            the default. Under ``torchrun`` the processes share the runs by rank and wait for each other at the end.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: an invalid argument, cases with problems, or an ``output_dir`` with runs of other settings or cases.
        FileNotFoundError: no such data set or configuration.
        BlockingIOError: another study does one of the runs in the same folder.
        ImportError: matplotlib is not installed.
    """
    runs, given = _asked(config, options)
    cases = find_study_cases(dataset_dir, subjects=subjects, subject_pattern=subject_pattern)
    folder = StudyFolder(Path(output_dir))
    chosen = own_device(None if device is None else measuring_device(resolve_device(device)))
    settings = _completed(given, folder, cases, chosen)
    study = _Study(folder, cases, settings, runs, chosen, teller(progress, logger))
    plan = [(variant, seed) for seed in runs.seeds for variant in study.variants()]
    if list_only:
        study.folder.compare_settings(study.settings)
        return StudyOutcome(study.states(plan))
    study.folder.compare(study.settings, study.cases)
    check_drawing()
    k, n = runs.part()
    with gathered([] if report_only else study.do(plan[k - 1 :: n])) as failures:
        states = study.states(plan)
        due = report_only or study.is_done(states)
        report = study.report() if due and (k == 1 or runs.shard is not None) else None
    return StudyOutcome(states, tuple(itertools.chain(*failures)), report)


def _asked(config: str | PathLike[str] | None, options: Mapping[str, Any]) -> tuple[RunOptions, dict[str, Any]]:
    """Which runs, and the settings; ``options`` override ``config``."""
    content = {} if config is None else read_config(config)
    given = {name: value for name, value in options.items() if value is not None}
    listed = {name: content.pop(name, None) for name in ("variants", "seeds")}
    asked = {name: given.pop(name) for name in option_names(RunOptions) if name in given}
    runs = {name: value for name, value in {**listed, **asked}.items() if value is not None}
    return RunOptions(**runs), {**content, **given}


def _completed(given: Mapping[str, Any], folder: StudyFolder, cases: StudyCases, device: torch.device) -> StudySettings:
    """The given settings, else those of the folder, else the defaults; and what precision "auto" means here."""
    chosen = {**folder.read_settings(cases), **given}
    if chosen.get("flip_axes") is None and (sides := sided(cases.labels)):
        logger.warning("Patches are not flipped along axis 0, as labels are of one side, such as %s.", sides[0])
        chosen["flip_axes"] = flip_axes_with_sides(cases.spatial_dims)
    settings = StudySettings.complete(chosen, cases.spatial_dims)
    precision = resolve_precision(settings.precision, device)
    return dataclasses.replace(settings, spatial_dims=cases.spatial_dims, precision=precision)


@dataclasses.dataclass(frozen=True)
class _Study:
    """What all runs share."""

    folder: StudyFolder
    cases: StudyCases
    settings: StudySettings
    options: RunOptions
    device: torch.device
    tell: Callable[[str], None]
    prepared: dict[str, Any] = dataclasses.field(default_factory=dict)

    def variants(self) -> tuple[StudyVariant, ...]:
        """The requested networks; an impossible wide U-Net is left out, or refused if it is named."""
        features, patterns = self.settings.features, self.options.variants
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

    @functools.cached_property
    def _fingerprint(self) -> str:
        return self.folder.compare(self.settings, self.cases)

    def _rows(self) -> list[StudyRow]:
        """The rows of the table, without the wide U-Net if there is none."""
        rows = list_rows(self.settings.features)
        return [row for row in rows if row.variant != WIDE or not isinstance(self._wide_features, ValueError)]

    def states(self, plan: Sequence[tuple[StudyVariant, int]]) -> tuple[StudyRun, ...]:
        data = self.cases
        return tuple(
            StudyRun(
                variant,
                seed,
                self.folder.run(variant.name, seed),
                count_parameters(variant.config(data.spatial_dims, data.in_channels, data.out_channels)),
                self.folder.state(variant.name, seed),
            )
            for variant, seed in plan
        )

    def do(self, plan: Sequence[tuple[StudyVariant, int]]) -> list[str]:
        """Do the runs that are not finished, and return which failed and why."""
        failures: list[str] = []
        waiting = [run for run in self.states(plan) if run.state != "finished"]
        if waiting:
            cases = self.cases
            self.tell(f"checking {len(cases.training) + len(cases.validation)} cases")
            check_labelled_data(
                cases.folder,
                spatial_dims=cases.spatial_dims,
                in_channels=cases.in_channels,
                **cases.subject_rules,
            )
            self.folder.claim(self.settings, self.cases)
        for number, run in enumerate(waiting, start=1):
            self.tell(f"{run.name}: run {number} of {len(waiting)}, {run.parameters / 1e6:.3f} M parameters")
            run.folder.mkdir(parents=True, exist_ok=True)
            with claimed(run.folder, "trains"):
                # another study may have finished it meanwhile
                if self.folder.state(run.variant.name, run.seed) != "finished":
                    failures += self._try_run(run)
        return failures

    def _try_run(self, run: StudyRun) -> list[str]:
        """Do a run, and return why it failed, if it did."""
        path = run.folder / "failure.txt"
        try:
            path.unlink(missing_ok=True)
            self._do_run(run)
        except Exception as e:
            logger.debug("%s failed", run.name, exc_info=True)
            write_text(path, traceback.format_exc())
            failure = f"{run.name}: {describe_failure(e)}"
            self.tell(f"failed: {failure}")
            return [failure]
        return []

    def is_done(self, states: Sequence[StudyRun]) -> bool:
        """Whether no run is left and at least one has finished."""
        left = sum(run.state not in ("finished", "failed") for run in states)
        if left:
            self.tell(f"{left} runs of other processes are left; the process that finishes last writes the report.")
        return not left and any(run.state == "finished" for run in states)

    def report(self) -> Path:
        """Write the report on all finished runs of the folder."""
        rows = self._rows()
        results = list(self.folder.read_results(self._fingerprint))
        folder = self.folder.path
        if not results:
            raise ValueError(f"output_dir must hold a finished run, got {folder} without one. Train first.")
        measured, known = self._latencies(rows, results), self.cases.as_dict()
        content = summarise(
            rows, results, measured.rows, self.settings, known, measured.environment, self.cases.subjects
        )
        write_json(folder / "study.json", content, indent=1)
        draw_accuracy(content, folder / "accuracy.png")
        draw_learning_curves(content, folder / "curves.png")
        path = folder / "study.md"
        write_text(path, format_study(content))
        return path

    def _do_run(self, run: StudyRun) -> None:
        values = self._values(run)
        if not self.prepared:
            self.tell(f"preparing {len(self.cases.training)} training cases")
        # the first run takes the list that was checked and is in settings.json
        data = self.prepared or {"train#cases#data": self.cases.training}
        cases = train_network(
            self.folder.bundle,
            {**values, **data},
            tell=lambda line: self.tell(f"{run.name}: {line}"),
        )
        if cases is not None:
            self.prepared["train#cases"] = cases
        levels = list(dict.fromkeys(row.level for row in self._rows() if row.variant == run.variant.name))
        self.tell(f"{run.name}: scoring {len(self.cases.validation)} cases")
        network, scores = score_network(self.folder.bundle, values, levels, self.cases, self.settings)
        result = RunResult(
            variant=run.variant.name,
            seed=run.seed,
            config=network.config,
            fingerprint=self._fingerprint,
            training_seconds=read_curve(run.folder)[-1]["seconds"],
            environment=dataclasses.asdict(describe_environment(self.device, self.settings.precision)),
            sizes={level: network_size(network, level, self.settings.patch_size) for level in levels},
            scores=scores,
            curve=[],
        )
        self.folder.write_result(result)

    def _values(self, run: StudyRun) -> dict[str, Any]:
        """The values of the bundle's configuration that this run sets."""
        return {
            "dataset_dir": fspath(self.cases.folder),
            "output_dir": fspath(run.folder),
            "device": self.device,
            "seed": run.seed,
            "variant": run.variant.variant,
            "features": run.variant.features,
            "deep_supervision": run.variant.deep_supervision,
            "num_workers": self.options.num_workers,
            "cache_rate": self.options.cache_rate,
            "check_data": False,  # already done for all runs
            "record_cases": False,  # settings.json names them
        }

    def _latencies(self, rows: Sequence[StudyRow], results: Sequence[RunResult]) -> Latencies:
        """The latencies on disk if they are of the same networks and machine, else measured now."""
        configs = {result.variant: result.config for result in results}
        present = [row for row in rows if row.variant in configs]
        environment = describe_environment(self.device, self.settings.precision)
        path = self.folder.path / "latency.json"
        if known := read_latencies(path, [row.name for row in present], environment):
            return known
        self.tell(f"measuring the latency of {len(present)} networks")
        networks = {row.name: cut_network(NestedUNet(**configs[row.variant]), row.level) for row in present}
        measured = measure_latencies(
            networks,
            self.cases.in_channels,
            self.settings.patch_size,
            reference=REFERENCE if REFERENCE in networks else None,
            device=self.device,
            precision=self.settings.precision,
        )
        write_json(path, to_plain(Latencies(environment, measured)), indent=1)
        return Latencies(environment, measured)
