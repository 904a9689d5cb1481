"""A whole training, from labelled images to an evaluated and documented bundle, stage by stage."""

from __future__ import annotations

import dataclasses
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from monai_unetpp.bundles import WEIGHTS_FILE
from monai_unetpp.bundles.training_record import RECORD_FILE
from monai_unetpp.data import load_datalist
from monai_unetpp.data.datasets.labelled import list_cases
from monai_unetpp.data.formats.source_files import file_identity
from monai_unetpp.devices import resolve_device
from monai_unetpp.distributed import by_first, local_device, process_group, rank
from monai_unetpp.errors import counted
from monai_unetpp.files import claimed, read_json_object, write_json
from monai_unetpp.guard import FINGERPRINT_FILE
from monai_unetpp.measuring.environment import measuring_device
from monai_unetpp.plain_values import from_plain
from monai_unetpp.planning import Fingerprint
from monai_unetpp.planning.bundle_writing import TIME_FILE
from monai_unetpp.planning.data_check import check_data, check_names
from monai_unetpp.progress import Progress, counting, teller
from monai_unetpp.pruning import preflight, verdict
from monai_unetpp.pruning.results import PruningResult
from monai_unetpp.pruning.scoring.levels import Scores
from monai_unetpp.reporting.numbers import percent
from monai_unetpp.training_run.documenting import document, install_weights
from monai_unetpp.training_run.fitting import Fitted, fit, read_fitted
from monai_unetpp.training_run.judging import (
    check_start,
    check_targets,
    cut_bundle,
    fold_dir,
    judge_bundle,
    score_fold,
    split_folds,
    tell_few_subjects,
    thin_folds,
)
from monai_unetpp.training_run.planned import Planned, check_kept, planned_bundle
from monai_unetpp.training_run.sharing import TimeShares, kept_shares, share_time
from monai_unetpp.training_run.timing import time_case
from monai_unetpp.training_run.train_options import TrainOptions

logger = logging.getLogger(__name__)

_Entries = Sequence[Mapping[str, Any]]

#: Seconds between two checkpoints: the most that an interruption can cost, plus a step or two.
_CHECKPOINT_S = 30.0
#: Steps between checks whether a checkpoint is due: one, as a step can take many seconds.
_STEPS_BETWEEN = 1
#: More steps than any training that ends by time.
_ENDLESS = 10**7
#: Approximate number of evaluations of the validation cases in a training, and most seconds between two.
_LOOKS, _LONGEST_S = 20, 300.0
#: Most validation cases to look at while training.
_OBSERVED = 3


@dataclasses.dataclass(frozen=True)
class TrainingOutcome:
    """The outcome of a whole training.

    Attributes:
        bundle: folder of the trained bundle.
        pruned: folder of the pruned bundle; None if the verdict is not to prune.
        report: the report of the verdict.
        verdict: ``"prune"``, ``"keep"`` or ``"inconclusive"``.
        level: the level to use.
        summary: the verdict in one sentence.
        steps: number of steps of the final training.
        left_out: cases that could not be scored, with reasons.
    """

    bundle: Path
    pruned: Path | None
    report: Path
    verdict: str
    level: str
    summary: str
    steps: int
    left_out: tuple[str, ...] = ()


def train(options: TrainOptions, *, progress: Progress = False) -> TrainingOutcome:
    """Plan if there is no plan, train, decide between the levels, and write report, pruned bundle and documentation.

    After an interruption, the same call continues: a training loses at most a minute, and finished stages and scored
    cases are not repeated. The same holds where weights, report or pruned bundle are lost.
    Under ``torchrun`` all processes train together, and share the cases to score.

    Args:
        options: the data, the bundle and the limits.
        progress: True shows progress on standard error; a function is called with each line.

    Returns:
        The paths of the results, and the verdict.

    Raises:
        FileNotFoundError: no such data set, or no such initial weights.
        ValueError: data with problems, all named; values that cannot work, or other ones than the training began with.
        FileExistsError: another bundle where the pruned one may have to be written, or weights without their training.
        ImportError: the packages that draw the report are not installed.
        BlockingIOError: another process plans or trains in the same folder.
        MemoryError: memory ran out while training.
        RuntimeError: the loss became infinite or not a number, or torch failed otherwise.
    """
    started = time.monotonic()
    # before the cases are read, which can take long; the verdict needs both
    preflight.check_report()
    device = None if options.device is None else measuring_device(resolve_device(options.device))
    with process_group(device):
        tell = teller(progress if rank() == 0 else False, logger)
        planned = planned_bundle(options, tell)
        finished = _read_outcome(planned.bundle)
        if finished is not None:
            _check_cases(planned, tell)
            tell(f"{planned.bundle}: already trained and evaluated.")
            return finished
        check_kept(planned.bundle)
        check_targets(planned.bundle)
        with _alone(planned.bundle):
            # another process may have planned anew, or trained, before this one had the folder
            planned = planned.reread(options)
            run = _Run.of(options, planned, started, tell)
            folds = run.cross_fit()
            fitted = run.fit_final()
            run.check_unchanged(fitted)
            run.install(fitted)
            result = run.judge(folds)
            return run.finish(fitted, result)


@contextmanager
def _alone(bundle: Path) -> Iterator[None]:
    """Keep trainings by other programs out of a bundle; under ``torchrun`` the first process does it for all."""
    if rank() > 0:
        yield
        return
    (bundle / "training").mkdir(parents=True, exist_ok=True)
    with claimed(bundle / "training", "plans or trains"):
        yield


@dataclasses.dataclass(frozen=True)
class _Run:
    """The data shared by the stages."""

    planned: Planned
    values: dict[str, Any]
    training: _Entries
    validation: _Entries
    shares: TimeShares
    tell: Callable[[str], None]

    @classmethod
    def of(cls, options: TrainOptions, planned: Planned, started: float, tell: Callable[[str], None]) -> _Run:
        """Check and list the cases, and divide the time."""
        folder = planned.bundle / "training"
        subjects = planned.plan.subject_rules
        _check_cases(planned, tell)
        device = local_device(None if options.device is None else resolve_device(options.device))
        values = {"dataset_dir": str(planned.dataset_dir), "device": device}
        training = load_datalist(planned.dataset_dir, "training", folder, **subjects)
        validation = load_datalist(planned.dataset_dir, "validation", folder, **subjects)
        judging = [*training, *validation] if planned.folds else validation
        check_start(planned.init, judging, planned.folds, tell)
        if not planned.folds:
            tell_few_subjects(training, validation, tell)
        shares = by_first(
            lambda: kept_shares(planned.bundle / TIME_FILE) or _share_time(planned, judging, training, values, started)
        )
        run = cls(planned, values, training, validation, shares, tell)
        if run.unscored:
            tell(run.unscored)
        return run

    @property
    def bundle(self) -> Path:
        """The folder of the bundle."""
        return self.planned.bundle

    @property
    def final_cases(self) -> _Entries:
        """The training cases of the final network: with cross-fitting from both lists, else from the training list."""
        return self._usable(self._listed, self.shares.final)[0]

    @property
    def _listed(self) -> _Entries:
        return [*self.training, *self.validation] if self.planned.folds else self.training

    @property
    def _folds(self) -> list[list[Mapping[str, Any]]]:
        return split_folds(self._listed, self.planned.folds)

    @property
    def judging(self) -> list[list[Mapping[str, Any]]]:
        """The cases to score: of each fold, or without folds of the validation list alone."""
        crossed = self.planned.folds
        folds, listed = (self._folds, self._listed) if crossed else ([self.validation], self.validation)
        return thin_folds(folds, listed, self.shares.scored or len(listed))

    @property
    def unscored(self) -> str:
        """How many cases are not scored and why, as a sentence; empty where all are."""
        listed = self._listed if self.planned.folds else self.validation
        left = len(listed) - sum(map(len, self.judging))
        if not left:
            return ""
        are, them = ("is", "it") if left == 1 else ("are", "them")
        remedy = "monai-unetpp prune scores all of them."
        if self.planned.folds:
            remedy = f"To score {them}, train in another folder with more --minutes."
        return f"{left} of {counted(len(listed), 'case')} {are} not scored, for lack of time. {remedy}"

    def _usable(self, listed: _Entries, minutes: float) -> tuple[_Entries, float]:
        """The cases that a training of some minutes uses, and the share of them that is kept in memory."""
        plan = self.planned.plan
        if self.planned.steps is not None or "cache_rate" in plan.by_hand:
            return listed, plan["cache_rate"]
        # as many at once as in train.json
        workers = max(1, min(4, plan["num_workers"]))
        facts = {"cache_rate": plan["cache_rate"], "batch_size": plan["batch_size"], "workers": workers}
        labels = [self._labels.get(id(entry), frozenset()) for entry in listed]
        return self.shares.usable(listed, minutes, **facts, labels=labels)

    @cached_property
    def _labels(self) -> dict[int, frozenset[str]]:
        """Names of the labels that each listed case has, as far as the plan measured them."""
        path = self.bundle / FINGERPRINT_FILE
        measured = Fingerprint.read(path).cases if path.is_file() else ()
        if len(measured) != len(self._listed):
            return {}
        return {
            id(entry): frozenset(name for name, voxels in case.voxels.items() if voxels)
            for entry, case in zip(self._listed, measured, strict=True)
        }

    def _fit(
        self, name: str, folder: Path, listed: _Entries, minutes: float, held_out: _Entries | None = None
    ) -> Fitted:
        """Train on those of the listed cases that can be used, and look at some that are held out, or that validate."""
        cases, cache_rate = self._usable(listed, minutes)
        finished = read_fitted(folder) is not None
        if len(cases) < len(listed) and not finished:
            self.tell(
                f"{name}: {len(cases)} of {len(listed)} cases are used, as more would take too much of the "
                f"{minutes:.1f} minutes, or of the memory."
            )
        if "cache_rate" not in self.planned.plan.by_hand:
            now = self.shares.cached(len(cases))
            if now < cache_rate and not finished:
                self.tell(
                    f"{name}: only {percent(now)} of the cases fit into the memory that is free now; the others are "
                    "prepared again for every patch, which takes long. Close other programs, and run the command again."
                )
            cache_rate = min(cache_rate, now)
        observed = 0 if held_out is None and self.planned.folds else _OBSERVED
        values = {**self._training_values(minutes, observed), "cache_rate": cache_rate}
        return fit(self.bundle, folder, values, self.tell, name=name, cases=cases, observed=held_out)

    def cross_fit(self) -> list[Scores]:
        """For each fold, train on all others and score this one."""
        if not self.planned.folds:
            return []
        folds, scores = self._folds, []
        for number, (held_out, scored) in enumerate(zip(folds, self.judging, strict=True), start=1):
            rest = [entry for fold in folds if fold is not held_out for entry in fold]
            folder = fold_dir(self.bundle, number)
            name = f"fold {number} of {len(folds)}"
            self._fit(name, folder, rest, self.shares.fold, held_out)
            with counting(self.tell, f"{name}: scoring") as count:
                scores.append(score_fold(self.bundle, scored, folder, self.values, count))
        return scores

    def fit_final(self) -> Fitted:
        """Train the final network."""
        return self._fit("training", self.bundle / "training", self._listed, self.shares.final)

    def check_unchanged(self, fitted: Fitted) -> None:
        """Refuse files that were changed meanwhile: they would be judged on, and recorded as those trained on."""
        try:
            _check_cases(self.planned, logger.debug)
        except ValueError:
            # the record may have been made of the changed files; the next run makes it anew
            if rank() == 0:
                (fitted.folder / RECORD_FILE).unlink(missing_ok=True)
            raise

    def install(self, fitted: Fitted) -> None:
        """Copy the weights into the bundle, and record their origin."""

        def install() -> None:
            # where files of a finished bundle were lost, it is not finished until they are written again
            _outcome_path(self.bundle).unlink(missing_ok=True)
            install_weights(self.bundle, fitted, self.final_cases, self.planned.init)
            document(self.bundle, fitted, len(self.final_cases), self.planned.folds)

        by_first(install)

    def judge(self, folds: list[Scores]) -> PruningResult:
        """Decide between the levels, and write the report."""
        self.tell("comparing the levels")
        fields = {**self.shares.measuring, "unscored": self.unscored}
        if self.unscored and not folds:
            fields["only"] = tuple(case.name for case in list_cases(self.judging[0]))
        return judge_bundle(self.bundle, folds, fields, self.values, self.tell)

    def finish(self, fitted: Fitted, result: PruningResult) -> TrainingOutcome:
        """Document the results, and write the pruned bundle."""
        final = verdict(result)

        def write() -> None:
            document(self.bundle, fitted, len(self.final_cases), self.planned.folds, result)
            cut_bundle(self.bundle, result, self.values)

        by_first(write)
        outcome = TrainingOutcome(
            bundle=self.bundle,
            pruned=_pruned(self.bundle, final.verdict, final.level),
            report=_report_path(self.bundle),
            verdict=final.verdict,
            level=final.level,
            summary=final.summary,
            steps=fitted.steps,
            left_out=tuple(f"{problem.case}: {problem.reason}" for problem in result.problems),
        )
        if rank() == 0:
            _write_outcome(outcome)
        return outcome

    def _training_values(self, minutes: float, observed: int) -> dict[str, Any]:
        by_time = self.planned.steps is None
        return {
            **self.values,
            "init": self.planned.init,
            # done once for all trainings, by stricter rules
            "check_data": False,
            "steps": _ENDLESS if by_time else self.planned.steps,
            "minutes": minutes if by_time else None,
            "checkpoint_steps": _STEPS_BETWEEN,
            "checkpoint_seconds": min(_CHECKPOINT_S, 6 * minutes) if by_time else _CHECKPOINT_S,
            "observed_cases": self.shares.observed(observed, minutes),
            "observed_seconds": min(60 * minutes / _LOOKS, _LONGEST_S) if by_time else _LONGEST_S,
        }


def _check_cases(planned: Planned, tell: Callable[[str], None]) -> None:
    plan = planned.plan
    check_names(planned.dataset_dir, plan, planned.bundle)
    check_data(planned.dataset_dir, plan, planned.bundle, planned.folds, tell, **plan.subject_rules)


def _share_time(
    planned: Planned, judging: _Entries, training: _Entries, values: Mapping[str, Any], started: float
) -> TimeShares:
    """Time a case of each list, and divide the time of a training that has saved nothing yet."""
    (judged, judged_size), (trained, trained_size) = _typical(judging), _typical(training)
    case, levels = time_case(planned.bundle, judged, values, trained)
    return share_time(
        planned.bundle / TIME_FILE,
        planned.minutes,
        started=started,
        case=case.times(judged_size, trained_size),
        cases=len(judging),
        levels=levels,
        folds=planned.folds,
        init=planned.init,
        by_steps=planned.steps is not None,
    )


def _typical(entries: _Entries) -> tuple[Mapping[str, Any], float]:
    """The case whose image is of median size, by its files, and the mean size of all in relation to this one."""

    def size(entry: Mapping[str, Any]) -> int:
        image = entry["image"]
        files = [image] if isinstance(image, str) else image
        return sum(bytes_ for file in files for _, bytes_, _ in file_identity(Path(file)))

    sizes = {number: size(entry) for number, entry in enumerate(entries)}
    typical = sorted(sizes, key=sizes.__getitem__)[len(entries) // 2]
    return entries[typical], max(1.0, statistics.fmean(sizes.values()) / max(sizes[typical], 1))


def _outcome_path(bundle: Path) -> Path:
    return bundle / "training" / "outcome.json"


def _write_outcome(outcome: TrainingOutcome) -> None:
    content = dataclasses.asdict(outcome)
    for name in ("bundle", "pruned", "report"):
        del content[name]
    write_json(_outcome_path(outcome.bundle), content, indent=1)


def _read_outcome(bundle: Path) -> TrainingOutcome | None:
    """The outcome of a finished training; None if any of its results is missing."""
    path, report = _outcome_path(bundle), _report_path(bundle)
    if not (path.is_file() and report.is_file() and (bundle / WEIGHTS_FILE).is_file()):
        return None
    content = read_json_object(path, "Delete it, and run the same command again: the verdict is written anew.")
    found = from_plain(TrainingOutcome, {**content, "bundle": bundle, "pruned": None, "report": report}, str(path))
    pruned = _pruned(bundle, found.verdict, found.level)
    if pruned is not None and not (pruned / WEIGHTS_FILE).is_file():
        return None
    return dataclasses.replace(found, pruned=pruned)


def _report_path(bundle: Path) -> Path:
    return bundle / "pruning" / "report.html"


def _pruned(bundle: Path, verdict: str, level: str) -> Path | None:
    return bundle.with_name(f"{bundle.name}_{level}") if verdict == "prune" else None
