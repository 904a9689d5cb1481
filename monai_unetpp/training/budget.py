"""How much of a training is done, by steps and by time, and a learning rate that has come down when it ends."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.optimizers import WarmupCosineSchedule

__all__ = ["BudgetedCosineSchedule", "TrainingBudget"]


class TrainingBudget:
    """Ends a training in time, whatever the speed of the machine, and knows how much of it is done.

    What is done is the larger of two shares: that of the steps and, where minutes are given, that of the time. Its
    state is the time used so far, so that a resumed training has the rest of it. Where several processes train
    together, the clock of the first one counts for all, and all end after the same step.

    Args:
        steps: after how many steps training ends at the latest.
        minutes: after how much time; None for none, and then a training can be repeated exactly.

    Raises:
        ValueError: fewer than one step, or no time.
    """

    def __init__(self, steps: int, minutes: float | None = None) -> None:
        if steps < 1:
            raise ValueError(f"steps must be 1 or more, got {steps}. Give minutes to end a training by time.")
        if minutes is not None and not minutes > 0:
            raise ValueError(f"minutes must be above 0, got {minutes}. Leave them out to train by steps alone.")
        self.steps = steps
        self.minutes = minutes
        self.seconds = 0.0
        self._before = 0.0
        self._started = 0.0
        self._engine: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """End the trainer ``engine``; attach before what changes the learning rate and what saves."""
        self._engine = engine
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._end)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Note the time at the end of a step, and end the training if it is over."""
        self.seconds = self._agreed(self._before + time.monotonic() - self._started)
        self._end(engine)

    def position(self, step: int) -> float:
        """How far a training is after a step, in steps of one that takes all of :attr:`steps`.

        Args:
            step: number of steps done.
        """
        return step if self.minutes is None else max(float(step), self.steps * self.seconds / (60 * self.minutes))

    def is_late(self, late_share: float) -> bool:
        """Whether the step that is being taken is in the last part of the training; never before a trainer is known.

        Args:
            late_share: how large that part is, as a share of the whole.
        """
        if self._engine is None:
            return False
        return self.position(self._engine.state.iteration - 1) >= (1 - late_share) * self.steps

    def remaining_s(self, step: int) -> float:
        """Seconds that are left, as the speed has been so far."""
        share = min(1.0, self.position(step) / self.steps)
        return self.seconds * (1 - share) / share if share > 0 else float("nan")

    def state_dict(self) -> dict[str, Any]:
        """The time used so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.seconds = self._before = state_dict["seconds"]

    def _start(self) -> None:
        self._started = time.monotonic()

    def _end(self, engine: Engine) -> None:
        if self.minutes is not None and self.position(engine.state.iteration) >= self.steps:
            engine.terminate()

    def _agreed(self, seconds: float) -> float:
        if self.minutes is None or not (dist.is_available() and dist.is_initialized()):
            return seconds
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        told = torch.tensor(seconds, dtype=torch.float64, device=device)
        dist.broadcast(told, src=0)
        return float(told)


class BudgetedCosineSchedule(WarmupCosineSchedule):
    """MONAI's ``WarmupCosineSchedule``, at the pace of a :class:`TrainingBudget`.

    Without minutes it is the same, step by step.

    Args:
        optimizer: whose learning rate to set.
        budget: how much is done. It must be among the trainer's handlers, before the one of this schedule.
        warmup_share: share of the budget in which the learning rate rises.
        warmup_multiplier: with what factor it begins.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        budget: TrainingBudget,
        warmup_share: float = 0.05,
        warmup_multiplier: float = 0.1,
    ) -> None:
        self.budget = budget
        warmup = round(warmup_share * budget.steps)
        super().__init__(optimizer, warmup, t_total=budget.steps, warmup_multiplier=warmup_multiplier)

    def lr_lambda(self, step: int) -> float:
        """The factor of the learning rate after ``step`` steps."""
        factor: float = super().lr_lambda(self.budget.position(step))
        return factor

    def state_dict(self) -> dict[str, Any]:
        """How far it is; the budget has a state of its own."""
        state: dict[str, Any] = super().state_dict()
        state.pop("budget", None)
        return state
