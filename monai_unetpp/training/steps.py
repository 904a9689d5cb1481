"""Handlers for trainings that count steps, not epochs: a curve by step, and the weights after the last step."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_unetpp.distributed import rank, unwrapped
from monai_unetpp.files import write_text
from monai_unetpp.spreadsheet import format_csv
from monai_unetpp.training.recording import ModelSaver

logger = logging.getLogger(__name__)


class StepCurve:
    """Write the loss of every step to a CSV file, comparable between networks with one and with several heads.

    It has a state, so that a checkpoint has the curve up to its step; the file is written after each epoch. MONAI's
    ``SupervisedTrainer`` must have ``decollate=False``, so that its output is that of the whole batch.

    Args:
        path: the CSV file, with the columns ``step``, ``loss`` (of the deepest head), ``learning_rate`` and ``seconds``
            (since the start).
        loss: takes the prediction of one head and the target, such as :class:`~monai_unetpp.NestedDeepSupervisionLoss`.
        optimizer: the optimizer whose learning rate to record.
        interval_s: least seconds between two writes of the file, which is always written at the end. Under ``torchrun``
            only the first process writes it.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        optimizer: torch.optim.Optimizer,
        interval_s: float = 0.0,
    ) -> None:
        self.interval_s = interval_s
        self._written = 0.0
        self.path = Path(path)
        self.loss = loss
        self.optimizer = optimizer
        self._rows: list[list[float]] = []
        self._last = 0.0

    def attach(self, engine: Engine) -> None:
        """Follow the trainer ``engine``; attach before handlers that change the learning rate or save."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write_now_and_then)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def __call__(self, engine: Engine) -> None:
        """Record the step that ended.

        Raises:
            RuntimeError: its loss is infinite or not a number.
            TypeError: the trainer takes batches apart.
        """
        output: Any = engine.state.output
        if not isinstance(output, Mapping):
            raise TypeError(
                "the trainer's output must be a dict of the whole batch for StepCurve, got "
                f"{type(output).__name__}. Give the trainer decollate=False."
            )
        total, heads = float(output["loss"].detach()), output["pred"]
        value = total
        if not isinstance(heads, torch.Tensor):
            with torch.no_grad():
                value = float(self.loss(heads[0], output["label"]))
        if not (math.isfinite(value) and math.isfinite(total)):
            raise RuntimeError(f"the loss became {total} at step {engine.state.iteration}. Give a lower learning_rate.")
        now = time.perf_counter()
        before = self._rows[-1][2] if self._rows else 0.0
        self._rows.append([value, self.optimizer.param_groups[0]["lr"], before + now - self._last])
        self._last = now

    @property
    def losses(self) -> list[float]:
        """The loss of every step so far."""
        return [row[0] for row in self._rows]

    def recent_loss(self, count: int) -> float:
        """Mean loss of the last ``count`` steps; NaN before the first."""
        values = [row[0] for row in self._rows[-count:]]
        return sum(values) / len(values) if values else math.nan

    def state_dict(self) -> dict[str, Any]:
        """All steps so far."""
        return {"rows": [list(row) for row in self._rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state from :meth:`state_dict`."""
        self._rows = [list(row) for row in state_dict["rows"]]

    def _start(self) -> None:
        self._last = time.perf_counter()

    def _write_now_and_then(self) -> None:
        if time.monotonic() - self._written >= self.interval_s:
            self._write()
            self._written = time.monotonic()

    def _write(self) -> None:
        if rank() > 0:
            return
        rows = (
            [step, f"{value:.6f}", f"{rate:.6g}", f"{seconds:.2f}"]
            for step, (value, rate, seconds) in enumerate(self._rows, start=1)
        )
        write_text(self.path, format_csv(["step", "loss", "learning_rate", "seconds"], rows))


class LastModelSaver(ModelSaver):
    """Keep the weights after the last step, for trainings without model selection, and record their cases beside them.

    They are written only when training is complete. The arguments are those of :class:`ModelSaver`.
    """

    def attach(self, engine: Engine) -> None:
        """Save at the end of the trainer ``engine``."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save the weights in the default memory format."""
        if rank() > 0:
            return
        weights = unwrapped(self.network).state_dict()
        for key, value in weights.items():
            weights[key] = value.contiguous()
        self._save(weights)
