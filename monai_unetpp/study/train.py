"""Training one network of a study: the same for all but for the network itself."""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.losses import DiceCELoss
from monai.optimizers import WarmupCosineSchedule
from monai.utils import set_determinism
from torch import nn
from torch.utils.data import DataLoader

from monai_unetpp.files import atomic_path, write_text
from monai_unetpp.handlers import TrainingCheckpoint
from monai_unetpp.inferers import PrecisionInferer
from monai_unetpp.losses import NestedDeepSupervisionLoss
from monai_unetpp.networks import NestedUNet
from monai_unetpp.study.cases import NumberedPatches, RemainingPatches, StudyCases, make_augmentation
from monai_unetpp.study.settings import StudySettings

__all__ = ["CURVE_FILE", "WEIGHTS_FILE", "LossCurve", "train_network"]

logger = logging.getLogger(__name__)

CURVE_FILE = "curve.csv"
"""Loss of the deepest head, learning rate and seconds so far, by step."""

WEIGHTS_FILE = "model.pt"
"""Weights after the last step."""

_WARM_UP_SHARE = 0.05
_WEIGHT_DECAY = 1e-4


def train_network(
    config: Mapping[str, Any],
    prepared: Callable[[], Sequence[Mapping[str, Any]]],
    cases: StudyCases,
    settings: StudySettings,
    folder: Path,
    *,
    seed: int,
    device: torch.device,
    num_workers: int = 0,
    on_progress: Callable[[int, float], None] | None = None,
) -> NestedUNet:
    """Train a network for the budget, from where it was interrupted if it was.

    Args:
        config: arguments of :class:`~monai_unetpp.NestedUNet`.
        prepared: gives the prepared training cases; not called if training is complete.
        cases: the data set.
        settings: the terms of the study.
        folder: of the run, for checkpoints, :data:`CURVE_FILE` and, when complete, :data:`WEIGHTS_FILE`.
        seed: of the weights and the patches. Patches are the same for all networks with one seed.
        device: where to train.
        num_workers: processes that draw patches; 0 draws them in this one.
        on_progress: called with the step and the mean loss of the last steps at every checkpoint.

    Returns:
        The network with the weights after the last step: none are selected.

    Raises:
        RuntimeError: the loss became infinite or not a number.
    """
    weights = folder / WEIGHTS_FILE
    if weights.is_file():
        return NestedUNet.from_checkpoint(weights, map_location=device)
    set_determinism(seed)
    network = NestedUNet(**config).to(device)
    trainer, curve = _make_trainer(network, prepared(), cases, settings, folder, seed, device, num_workers)
    if on_progress is not None:
        trainer.add_event_handler(
            Events.EPOCH_COMPLETED, lambda: on_progress(curve.steps, curve.recent_loss(settings.checkpoint_steps))
        )
    trainer.run()
    curve.write()
    with atomic_path(weights) as temporary:
        torch.save(network.state_dict(), temporary)
    for path in folder.glob("checkpoint_*.pt"):
        path.unlink()
    return network


def _make_trainer(
    network: NestedUNet,
    prepared: Sequence[Mapping[str, Any]],
    cases: StudyCases,
    settings: StudySettings,
    folder: Path,
    seed: int,
    device: torch.device,
    num_workers: int,
) -> tuple[SupervisedTrainer, LossCurve]:
    steps, part = settings.budget, settings.checkpoint_steps
    sampler = RemainingPatches(math.ceil(steps / part) * part * settings.batch_size, settings.batch_size)
    loader = DataLoader(
        NumberedPatches(prepared, make_augmentation(cases, settings), seed, sampler.length),
        batch_size=settings.batch_size,
        sampler=sampler,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=_WEIGHT_DECAY)
    warm_up = round(_WARM_UP_SHARE * steps)
    schedule: Any = WarmupCosineSchedule(optimizer, warmup_steps=warm_up, t_total=steps, warmup_multiplier=0.1)
    loss = _FirstValueKept(DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True))
    curve = LossCurve(folder / CURVE_FILE, loss, optimizer)
    # an epoch of the engine is what lies between two checkpoints; the data know no epochs
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=math.ceil(steps / part),
        epoch_length=part,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=NestedDeepSupervisionLoss(loss, ignore_label=cases.ignored_class),
        inferer=PrecisionInferer(precision=settings.precision),
        decollate=False,
        train_handlers=[
            curve,
            LrScheduleHandler(schedule, print_lr=False, epoch_level=False),
            TrainingCheckpoint(
                folder,
                {"network": network, "optimizer": optimizer, "lr_scheduler": schedule, "curve": curve},
                map_location=device,
            ),
        ],
    )
    if steps % part:
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=steps), lambda engine: engine.terminate())
    sampler.engine = trainer
    return trainer, curve


class _FirstValueKept(nn.Module):
    """A loss that keeps its first value since it was last asked: in a training step, that of the deepest head."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        self._first: torch.Tensor | None = None

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = self.loss(prediction, target)
        if self._first is None:
            self._first = value.detach()
        return value

    def take(self) -> float:
        """The value, which is then forgotten."""
        value, self._first = self._first, None
        return math.nan if value is None else float(value)


class LossCurve:
    """Keep the loss of every step, comparable between networks with one head and with several.

    It has a state, so that a checkpoint holds the curve up to its own step; the CSV file is written with each.

    Args:
        path: the CSV file, with the columns ``step``, ``loss``, ``learning_rate`` and ``seconds``.
        loss: gives the loss of the deepest head.
        optimizer: whose learning rate to note.
    """

    def __init__(self, path: Path, loss: _FirstValueKept, optimizer: torch.optim.Optimizer) -> None:
        self.path = path
        self.loss = loss
        self.optimizer = optimizer
        self._rows: list[list[float]] = []
        self._last = 0.0

    @property
    def steps(self) -> int:
        """Steps so far."""
        return len(self._rows)

    def attach(self, engine: Engine) -> None:
        """Follow the trainer ``engine``; attach before what changes the learning rate and what saves."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def __call__(self, engine: Engine) -> None:
        """Note the step that ended.

        Raises:
            RuntimeError: its loss is infinite or not a number.
        """
        output: Any = engine.state.output
        value, total = self.loss.take(), float(output["loss"].detach())
        if not (math.isfinite(value) and math.isfinite(total)):
            raise RuntimeError(f"the loss became {total} at step {engine.state.iteration}. Give a lower learning_rate.")
        now = time.perf_counter()
        before = self._rows[-1][2] if self._rows else 0.0
        self._rows.append([value, self.optimizer.param_groups[0]["lr"], before + now - self._last])
        self._last = now

    def recent_loss(self, count: int) -> float:
        """Mean loss of the last ``count`` steps."""
        values = [row[0] for row in self._rows[-count:]]
        return sum(values) / len(values) if values else math.nan

    def write(self) -> None:
        """Write the CSV file."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["step", "loss", "learning_rate", "seconds"])
        for step, (value, rate, seconds) in enumerate(self._rows, start=1):
            writer.writerow([step, f"{value:.6f}", f"{rate:.6g}", f"{seconds:.2f}"])
        write_text(self.path, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        """All steps so far."""
        return {"rows": [list(row) for row in self._rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._rows = [list(row) for row in state_dict["rows"]]

    def _start(self) -> None:
        self._last = time.perf_counter()
