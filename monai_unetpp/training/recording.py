"""Training handlers that MONAI and ignite lack: exact resuming, and curves as CSV."""

from __future__ import annotations

import contextlib
import csv
import logging
import math
import os
import pickle
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from ignite.utils import manual_seed
from monai.handlers import CheckpointLoader
from monai.transforms import Randomizable
from monai.utils import CommonKeys, get_seed
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset

from monai_unetpp.bundles.training_record import BEST_ON_VALIDATION, LAST, TrainingRecord, save_training_record
from monai_unetpp.distributed import unwrapped
from monai_unetpp.errors import counted
from monai_unetpp.files import atomic_path, write_text
from monai_unetpp.seeds import mix_seeds
from monai_unetpp.spreadsheet import format_csv

logger = logging.getLogger(__name__)

#: Number of checkpoints to keep: the last, and the one before in case the last is damaged.
_KEPT = 2
#: Entry of a checkpoint: which images the training is on.
_CASES = "training_images"
#: Entries of a schedule's state that are progress or functions; all others are settings.
_PROGRESS = ("last_epoch", "_step_count", "_last_lr", "_is_initial", "_get_lr_called_within_step", "lr_lambdas")


class ModelSaver:
    """Writes weights, and records beside them the cases behind them.

    The record, ``training_record.json``, lets ``prune`` refuse training cases as judging ones. A case that cannot be
    read again is told, and leaves the weights without a record.

    Args:
        network: the network whose weights to write, possibly wrapped for distributed training.
        path: the file to write, atomically: a state dict that includes the network's configuration. Under ``torchrun``
            only the first process writes it.
        cases: the training cases, as from ``load_datalist``; None records nothing.
        rule: which weights these are, for the record.
        started_from: the bundle or checkpoint whose weights the training started from; if their cases are known, they
            are recorded as well.
    """

    def __init__(
        self,
        network: nn.Module,
        path: str | PathLike[str],
        cases: Sequence[Mapping[str, Any]] | None = None,
        rule: str = LAST,
        started_from: str | PathLike[str] | None = None,
    ) -> None:
        self.network = network
        self.path = Path(path)
        self.cases = cases
        self.rule = rule
        self.started_from = started_from

    def _save(self, weights: Mapping[str, Any], selecting: Sequence[Mapping[str, Any]] = ()) -> None:
        with atomic_path(self.path) as temporary:
            torch.save(weights, temporary)
        if self.cases is None:
            return
        try:
            record = TrainingRecord.of(self.cases, selecting, rule=self.rule, started_from=self.started_from)
            save_training_record(self.path, record)
        except (OSError, ValueError) as e:
            logger.warning("%s: the training cases were not recorded (%s).", self.path, e)


class BestModelSaver(ModelSaver):
    """Keep the weights of the best validation so far, even if training is interrupted and resumed.

    MONAI's ``CheckpointSaver`` forgets the best metric when training resumes, and may then overwrite the best model
    with a worse one. This handler has a state that can be saved and restored with the trainer's.

    The arguments are those of :class:`ModelSaver`, and ``selecting``, the cases of the validation, unless there is only
    one.

    Attach it to the evaluator; it follows the evaluator's key metric, larger is better. In distributed training, batch
    norms have statistics of each process until the next step: with ``SyncBatchNorm`` the metric is exactly that of the
    weights that are kept, which are those of the first process.
    """

    def __init__(
        self,
        network: nn.Module,
        path: str | PathLike[str],
        cases: Sequence[Mapping[str, Any]] | None = None,
        selecting: Sequence[Mapping[str, Any]] = (),
        rule: str = BEST_ON_VALIDATION,
        started_from: str | PathLike[str] | None = None,
    ) -> None:
        super().__init__(network, path, cases, rule, started_from)
        self.selecting = selecting
        self.best_metric: float | None = None
        self.best_epoch = 0

    def attach(self, engine: Engine) -> None:
        """Compare and save at the end of every validation of ``engine``."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save the weights if the key metric is the best so far."""
        name: str = engine.state.key_metric_name  # type: ignore[attr-defined]  # MONAI's engines have it
        metric = float(engine.state.metrics[name])
        if math.isnan(metric):
            logger.warning("%s is not a number at epoch %d; the best model is kept.", name, engine.state.epoch)
            return
        if self.best_metric is not None and metric <= self.best_metric:
            return
        self.best_metric, self.best_epoch = metric, engine.state.epoch
        if idist.get_rank() > 0:
            return
        self._save(unwrapped(self.network).state_dict(), self.selecting)
        logger.info("Best %s so far: %.4f at epoch %d.", name, metric, self.best_epoch)

    def state_dict(self) -> dict[str, Any]:
        """The best metric and its epoch."""
        return {"best_metric": self.best_metric, "best_epoch": self.best_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.best_metric = state_dict["best_metric"]
        self.best_epoch = state_dict["best_epoch"]


class TrainingCheckpoint:
    """Save the complete state of the training after every epoch, and resume from it.

    MONAI's ``CheckpointSaver`` saves neither the trainer itself nor after some time, and forgets the files of earlier
    runs. This handler also finds the newest epoch, and uses the one before if its file is damaged. Schedules that are
    functions of the epoch (``LambdaLR`` and subclasses, such as MONAI's ``WarmupCosineSchedule``) keep their current
    settings, so that a training resumed with more epochs follows the longer schedule.

    Every epoch starts with its own random seed, in this process and, with
    :class:`monai_unetpp.data.SeededCacheDataset`, in those that load data, so that an interrupted training gives the
    same result. Partial checkpoints of a killed training are removed by the next one.

    A training goes on with its own cases only, else a record of them would be wrong: where the trainer's data set holds
    dictionaries with the paths of images, a ValueError is raised if they are others than those of the checkpoint. Moved
    folders are the same.

    Args:
        folder: folder of the last two ``checkpoint_epoch=N.pt`` files.
        save_dict: what to save besides the trainer (network, optimizer, schedule, ...), by name. The trainer's gradient
            scaler is saved too, if it has one.
        save_interval: epochs between two checkpoints.
        interval_s: least seconds between two checkpoints, for epochs of few steps.
        seed: combined with the number of an epoch into the epoch's seed; by default the seed given to
            ``monai.utils.set_determinism``. Without any, nothing is seeded, and a resumed training differs.
        map_location: where to put tensors when loading; see ``torch.load``.

    Attach it after all other handlers, so that the checkpoint includes what they do at the end of an epoch.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        save_dict: dict[str, Any],
        save_interval: int = 1,
        seed: int | None = None,
        map_location: Any = None,
        interval_s: float = 0.0,
    ) -> None:
        self.interval_s = interval_s
        self.folder = Path(folder)
        self.save_dict = save_dict
        self.save_interval = save_interval
        self.seed = seed
        self.map_location = map_location
        self._saved = time.monotonic()

    def attach(self, engine: Engine) -> None:
        """Save and resume the trainer ``engine``."""
        everything = {**self.save_dict, "trainer": engine}
        if getattr(engine, "amp", False):
            everything["scaler"] = _scaler_of(engine)
        engine.add_event_handler(Events.STARTED, self._resume, everything)
        engine.add_event_handler(Events.EPOCH_STARTED, self._seed_epoch)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._seed_step)
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.save_interval), self._save, everything)

    def _save(self, engine: Engine, save_dict: dict[str, Any]) -> None:
        if time.monotonic() - self._saved < self.interval_s:
            return
        states: dict[str, Any] = {name: unwrapped(each).state_dict() for name, each in save_dict.items()}
        with atomic_path(self.folder / f"checkpoint_epoch={engine.state.epoch}.pt") as temporary:
            torch.save(states | {_CASES: _image_names(engine)}, temporary)
        self._saved = time.monotonic()
        for path in self._found()[:-_KEPT]:
            path.unlink()

    def _resume(self, engine: Engine, load_dict: dict[str, Any]) -> None:
        unreadable = []
        for path in reversed(self._found()):
            try:
                saved = torch.load(path, map_location="cpu", weights_only=True)
            except (EOFError, KeyError, OSError, RuntimeError, ValueError, pickle.UnpicklingError) as e:
                logger.warning(
                    "%s cannot be read (%r), and gets the suffix .damaged; trying the checkpoint before it.", path, e
                )
                unreadable.append(path)
                continue
            _check_cases(path, saved.get(_CASES), _image_names(engine))
            _check_length(path, saved.get("trainer") or {}, engine)
            with _keep_settings([value for value in load_dict.values() if isinstance(value, LambdaLR)]):
                CheckpointLoader(str(path), load_dict, map_location=self.map_location)(engine)
            logger.info("Training continues after epoch %d, from %s.", engine.state.epoch, path)
            break
        if idist.get_rank() == 0:
            # else they would be the latest ones, for which good ones are removed
            for path in unreadable:
                path.replace(f"{path}.damaged")

    def _seed_epoch(self, engine: Engine) -> None:
        """Seed the sampler and the random transforms of an epoch."""
        seed = self._mixed_seed(engine.state.epoch)
        loader: Any = getattr(engine, "data_loader", None)
        if seed is None or loader is None:
            return
        manual_seed(seed)
        sampler: Any = getattr(loader, "sampler", None)
        if hasattr(sampler, "generator"):
            # its own generator, as starting workers would change the numbers drawn from the process
            sampler.generator = torch.Generator().manual_seed(seed)
        dataset: Any = getattr(loader, "dataset", None)
        transform = getattr(dataset, "transform", None)
        if hasattr(dataset, "set_seed"):
            dataset.set_seed(seed)
        elif isinstance(transform, Randomizable):
            # transforms in this process have their own random state
            transform.set_random_state(seed)

    def _seed_step(self, engine: Engine) -> None:
        """Seed the network's own random numbers, such as dropout."""
        seed = self._mixed_seed(engine.state.epoch, engine.state.iteration)
        if seed is not None:
            manual_seed(seed)

    def _mixed_seed(self, *numbers: int) -> int | None:
        base = get_seed() if self.seed is None else self.seed
        return None if base is None else mix_seeds(base, idist.get_rank(), *numbers)

    def _found(self) -> list[Path]:
        """The checkpoints in the folder, oldest epoch first."""
        named = [(re.fullmatch(r"checkpoint_epoch=(\d+)\.pt", path.name), path) for path in self.folder.glob("*.pt")]
        return [path for _, path in sorted((int(match[1]), path) for match, path in named if match)]


def _image_names(engine: Engine) -> list[str] | None:
    """The images of the trainer's cases, relative to the folder that holds all of them; None if there are no paths."""
    cases: Any = getattr(getattr(engine, "data_loader", None), "dataset", None)
    while isinstance(cases, Dataset) and hasattr(cases, "data"):
        cases = cases.data
    if not isinstance(cases, Sequence) or not all(isinstance(case, Mapping) for case in cases):
        return None
    paths = [path for case in cases for path in _paths(case.get(CommonKeys.IMAGE))]
    if not paths:
        return None
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return sorted(Path(os.path.relpath(path, common)).as_posix() for path in paths)


def _paths(value: Any) -> list[str]:
    """One path, or one for each channel, as absolute ones."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [os.path.abspath(each) for each in values if isinstance(each, (str, PathLike))]


def _check_cases(path: Path, before: list[str] | None, now: list[str] | None) -> None:
    differing = sorted(set(before or ()) ^ set(now or ()))
    if before is None or now is None or not differing:
        return
    raise ValueError(
        f"{path}: comes from a training on other cases: {counted(len(differing), 'image')} more or fewer, such as "
        f"{differing[0]}. Give another output folder to train on these cases, or the cases of before to go on."
    )


def _check_length(path: Path, before: Mapping[str, int], engine: Engine) -> None:
    """Refuse to go on where fewer epochs are asked for than are done, such as longer ones."""
    steps, length = before.get("iteration", 0), before.get("epoch_length") or 1
    most = engine.state.max_epochs
    if most is not None and steps // length > most:
        done = counted(steps, "step")
        raise ValueError(
            f"{path}: its training has done {done} in epochs of {length}, and {counted(most, 'epoch')} of "
            f"{engine.state.epoch_length} were asked for. Go on with epochs of {length} (checkpoint_steps in a bundle) "
            f"and at least {done}, or give another output folder."
        )


def _scaler_of(trainer: Any) -> Any:
    """The state of the gradient scaler of a MONAI trainer, which creates a new one for every run."""
    return SimpleNamespace(
        state_dict=lambda: trainer.scaler.state_dict(),
        load_state_dict=lambda state: trainer.scaler.load_state_dict(state),
    )


@contextlib.contextmanager
def _keep_settings(schedules: Sequence[LambdaLR]) -> Iterator[None]:
    """Let schedules load only their progress, and set the learning rates that follow from it."""
    settings = [
        {name: value for name, value in schedule.state_dict().items() if name not in _PROGRESS}
        for schedule in schedules
    ]
    yield
    for schedule, given in zip(schedules, settings, strict=True):
        vars(schedule).update(given)
        rates = [
            base * factor(schedule.last_epoch)
            for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
        ]
        schedule._last_lr = rates
        for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


class CurveWriter:
    """Write learning rate, mean training loss and validation metrics of every epoch to a CSV file.

    Rows of earlier runs in the same file are kept up to the epoch from which training continues.

    Args:
        path: the CSV file, written atomically.
        evaluator: the validation engine; its scalar metrics become columns, empty for epochs without validation.
        optimizer: the optimizer whose learning rate to record.
    """

    def __init__(
        self, path: str | PathLike[str], evaluator: Engine | None = None, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        self.path = Path(path)
        self.evaluator = evaluator
        self.optimizer = optimizer
        self._losses: list[float] = []
        self._validated = False

    def attach(self, engine: Engine) -> None:
        """Follow the trainer ``engine``; attach after the handler that validates."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self._note_validation)

    def __call__(self, engine: Engine) -> None:
        """Add the row of the epoch that ended."""
        row: dict[str, Any] = {"epoch": engine.state.epoch}
        if self.optimizer is not None:
            row["learning_rate"] = f"{self.optimizer.param_groups[0]['lr']:.6g}"
        if self._losses:
            row["train_loss"] = f"{sum(self._losses) / len(self._losses):.6f}"
        if self.evaluator is not None and self._validated:
            row |= {k: f"{v:.6f}" for k, v in self.evaluator.state.metrics.items() if isinstance(v, float)}
        self._losses, self._validated = [], False
        if idist.get_rank() == 0:
            self._write(row)

    def _note_loss(self, engine: Engine) -> None:
        output: Any = engine.state.output
        # MONAI's engines return a list of one dict if they have split the batch
        first: Any = output[0] if isinstance(output, list) else output
        self._losses.append(float(first["loss"]))

    def _note_validation(self, engine: Engine) -> None:
        self._validated = True

    def _write(self, row: dict[str, Any]) -> None:
        rows: list[dict[str, Any]] = []
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [old for old in csv.DictReader(file) if int(old["epoch"]) < row["epoch"]]
        rows.append(row)
        columns = list(dict.fromkeys(key for each in rows for key in each))
        write_text(self.path, format_csv(columns, ([each.get(key, "") for key in columns] for each in rows)))
