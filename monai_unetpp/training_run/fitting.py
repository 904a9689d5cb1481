"""Training a bundle's network with its own ``train.json``."""

from __future__ import annotations

import dataclasses
import gc
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch.nn.parallel import DistributedDataParallel

from monai_unetpp.bundles import BundleConfig
from monai_unetpp.distributed import by_first, process_count, rank, release
from monai_unetpp.errors import counted
from monai_unetpp.files import read_json_object, write_json
from monai_unetpp.measuring.memory import is_out_of_memory
from monai_unetpp.plain_values import from_plain
from monai_unetpp.training.acceleration import return_freed_memory

_SUMMARY = "training.json"
_WEIGHTS = "model.pt"
#: Seconds between two lines about the progress.
_TOLD_S = 10.0


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A completed training.

    Attributes:
        folder: contains ``model.pt``, ``curve.csv``, ``training.png`` and, if cases were observed, ``levels.csv``.
        steps: with this number as ``steps``, not minutes, and as many processes a training is exactly repeatable.
        seconds: their time, over all sessions.
        loss: mean over the last steps.
        averaged: whether the weights are the moving average.
        transfer: the weights taken from elsewhere, in words; None if training started from random ones.
        processes: how many trained together, by ``torchrun``.
        earlier_processes: other numbers of them in sessions before; the training is then not repeatable.
    """

    folder: Path
    steps: int
    seconds: float
    loss: float
    averaged: bool
    transfer: str | None = None
    processes: int = 1
    earlier_processes: tuple[int, ...] = ()

    @property
    def weights(self) -> Path:
        """The file of the weights."""
        return self.folder / _WEIGHTS


def read_fitted(folder: Path) -> Fitted | None:
    """The completed training in a folder; None if there is none."""
    if not ((folder / _WEIGHTS).is_file() and (folder / _SUMMARY).is_file()):
        return None
    content = read_json_object(folder / _SUMMARY, "Restore it, or train in another folder.")
    return from_plain(Fitted, {**content, "folder": folder}, str(folder / _SUMMARY))


@contextmanager
def _freeing_memory() -> Iterator[None]:
    """Free what a training held. Trainers refer to themselves: their cases would stay while others train or judge."""
    try:
        yield
    finally:
        gc.collect()
        return_freed_memory()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@_freeing_memory()
def fit(
    bundle: Path,
    folder: Path,
    values: Mapping[str, Any],
    tell: Callable[[str], None],
    *,
    name: str,
    cases: Sequence[Mapping[str, Any]] | None = None,
    observed: Sequence[Mapping[str, Any]] | None = None,
) -> Fitted:
    """Train the network of a bundle, resuming after an interruption. Under ``torchrun`` all processes train.

    ``folder`` receives checkpoints, curves and weights; ``values`` are for keys of ``train.json``, such as ``minutes``.
    ``tell`` is called with lines of ``name``, step, loss and remaining time. ``cases`` are trained on instead of the
    training list, and the first of ``observed`` are observed instead of the validation list.
    """
    finished = read_fitted(folder)
    if finished is not None:
        tell(f"{name}: done before, {counted(finished.steps, 'step')}")
        return finished
    init = values.get("init")
    if init is not None and not Path(init).exists():
        raise FileNotFoundError(
            f"{init}: no such file, but the training of {bundle} began with these weights. Put them back to continue "
            "it, or use another folder."
        )
    config = _configure(bundle, {**values, "output_dir": str(folder)}, cases, observed)
    began = time.monotonic()
    config.parse("initialize")
    config.parse("data_check")
    trainer = config.parse("train#trainer")
    # the cases that are kept in memory are prepared by now
    config.parse("pace").count_preparation(time.monotonic() - began)
    if rank() == 0:
        _tell_progress(trainer, config, tell, name)
    _run(config, name)
    transfer, network = config.parse("transfer"), config.parse("network")
    fitted = Fitted(
        folder=folder,
        steps=int(trainer.state.iteration),
        seconds=round(config.parse("pace").seconds, 1),
        loss=config.parse("train#curve").recent_loss(50),
        averaged=config.parse("ema") is not None,
        transfer=None if transfer is None else str(transfer),
        processes=process_count(),
        earlier_processes=tuple(config.parse("pace").processes[:-1]),
    )
    if isinstance(network, DistributedDataParallel):
        release(network)
    return by_first(lambda: _finished(fitted))


def _configure(
    bundle: Path,
    values: Mapping[str, Any],
    cases: Sequence[Mapping[str, Any]] | None,
    observed: Sequence[Mapping[str, Any]] | None,
) -> BundleConfig:
    names = ["train.json"] + (["multi_gpu_train.json"] if process_count() > 1 else [])
    config = BundleConfig(bundle, *names, values=values)
    if cases is not None:
        # tuples are one value to the configuration, which takes minutes to go through a list of many cases
        config["train#cases#data"] = tuple(cases)
    config["train#levels#loss_alone"] = True
    if observed is not None:
        config["train#levels#cases#cases"] = tuple(observed)
    return config


def _run(config: BundleConfig, name: str) -> None:
    """Train, with the name of the training in errors."""
    try:
        config.run()
    except (MemoryError, RuntimeError) as e:
        if not is_out_of_memory(e):
            raise RuntimeError(f"{name}: {_in_words(e)}") from e
        size = " x ".join(map(str, config.parse("patch_size")))
        raise MemoryError(
            f"{name}: memory ran out with {config.parse('batch_size')} patches of {size} per batch. Close other "
            "programs and run the same command again, or plan in another folder with a smaller --set patch_size."
        ) from e


def _in_words(error: Exception) -> str:
    """The message of an error; what a worker process says of a file, without the traceback that torch makes of it."""
    found = re.search(r"^\S+\.ImageFileError: (.+)$", str(error), re.MULTILINE)
    return str(error) if found is None else found[1]


def _tell_progress(trainer: Engine, config: BundleConfig, tell: Callable[[str], None], name: str) -> None:
    pace, curve = config.parse("pace"), config.parse("train#curve")
    told = time.monotonic()

    def tell_step(engine: Engine) -> None:
        nonlocal told
        if time.monotonic() - told < _TOLD_S:
            return
        told = time.monotonic()
        step = engine.state.iteration
        left = _clock(pace.remaining_s(step))
        tell(f"{name}: step {step}, loss {curve.recent_loss(50):.3f}, {_clock(pace.seconds)} elapsed, {left} left")

    trainer.add_event_handler(Events.ITERATION_COMPLETED, tell_step)


def _finished(fitted: Fitted) -> Fitted:
    """Write down that the training is complete, and remove its checkpoints."""
    content = dataclasses.asdict(fitted)
    del content["folder"]
    write_json(fitted.folder / _SUMMARY, content, indent=1)
    for path in fitted.folder.glob("checkpoint_*.pt*"):
        path.unlink()
    return fitted


def _clock(seconds: float) -> str:
    """Minutes and seconds, such as ``"3:05"``."""
    if seconds != seconds:
        return "?"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
