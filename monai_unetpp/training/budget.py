"""Progress of a training by steps and by time, and a learning rate schedule and a loss that follow it."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.optimizers import WarmupCosineSchedule
from torch import nn

from monai_unetpp.distributed import process_count

#: Largest share of the minutes that the preparation can take.
_MOST_PREPARING = 0.9


class TrainingBudget:
    """Ends a training in time, whatever the speed of the machine, and tracks its progress.

    The progress is the share of the steps done or, if minutes are given, of the time used, whichever is larger. Its
    state is the time used so far, so that a resumed training has the rest of it, and by how many processes. Time for
    preparing cases before the first step can be taken off the minutes, see :meth:`count_preparation`. With several
    processes, the clock of the first one counts for all, and all end after the same step.

    Args:
        steps: the largest number of steps.
        minutes: the time for training; None for no limit, which makes a training exactly repeatable.

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
        self._first_seconds = 0.0
        self._prepared = 0.0
        self._before = 0.0
        self._started = 0.0
        self._engine: Engine | None = None
        self._processes: list[int] = []

    @property
    def processes(self) -> list[int]:
        """How many processes have trained, one number after the other where it changed between sessions."""
        now = process_count()
        return self._processes if self._processes[-1:] == [now] else [*self._processes, now]

    def attach(self, engine: Engine) -> None:
        """End the trainer ``engine``; attach before handlers that change the learning rate or save."""
        self._engine = engine
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._end)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Record the time at the end of a step, and end the training if the time is up."""
        self.seconds = self._agreed(self._before + time.monotonic() - self._started)
        if engine.state.iteration == 1:
            self._first_seconds = self.seconds
        self._end(engine)

    def count_preparation(self, seconds: float) -> None:
        """Take the time for preparing cases off the minutes; call it before the training starts.

        A tenth of the minutes is left in any case. A resumed training keeps what its first session took, whatever is
        given here.

        Args:
            seconds: how long the preparation took.
        """
        if self.minutes is not None:
            self._prepared = min(seconds, _MOST_PREPARING * 60 * self.minutes)

    def position(self, step: int) -> float:
        """The progress of the training after a step, on a scale from 0 to :attr:`steps`.

        Args:
            step: number of steps done.
        """
        return max(float(step), self._position_after(self.seconds))

    @property
    def first_position(self) -> float:
        """Progress by the time of the first step, on the scale of :meth:`position`."""
        return self._position_after(self._first_seconds)

    def _position_after(self, seconds: float) -> float:
        return 0.0 if self.minutes is None else self.steps * seconds / (60 * self.minutes - self._prepared)

    def is_late(self, late_share: float, step: int | None = None) -> bool:
        """Whether a step is in the last part of the training.

        Args:
            late_share: the last part, as a share of the training.
            step: number of steps before it; by default the trainer's current step is meant, and without a trainer
                none is late.
        """
        if step is None:
            if self._engine is None:
                return False
            step = self._engine.state.iteration - 1
        return self.position(step) >= (1 - late_share) * self.steps

    def remaining_s(self, step: int) -> float:
        """Estimated seconds that are left, at the speed so far."""
        share = min(1.0, self.position(step) / self.steps)
        return self.seconds * (1 - share) / share if share > 0 else float("nan")

    @property
    def left_s(self) -> float:
        """Seconds that are left of the minutes; infinite without them."""
        return math.inf if self.minutes is None else 60 * self.minutes - self._prepared - self.seconds

    def state_dict(self) -> dict[str, Any]:
        """The time used so far, for the first step, and for preparation, and the numbers of processes."""
        times = {"seconds": self.seconds, "first_step": self._first_seconds, "prepared": self._prepared}
        return {**times, "processes": self.processes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state from :meth:`state_dict`."""
        self.seconds = self._before = state_dict["seconds"]
        self._first_seconds = state_dict.get("first_step", 0.0)
        self._prepared = state_dict.get("prepared", 0.0)
        self._processes = list(state_dict.get("processes", ()))

    def _start(self) -> None:
        self._prepared = self._agreed(self._prepared)
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

    Without minutes it is the same, step by step. With minutes, the learning rate begins to rise after the first step,
    however long that takes.

    Args:
        optimizer: the optimizer whose learning rate to set.
        budget: tracks the progress. It must be among the trainer's handlers, before the one of this schedule.
        warmup_share: share of the budget in which the learning rate rises.
        warmup_multiplier: the initial factor of the learning rate.
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
        position = self.budget.position(step)
        # a first step that compiles the network may take as long as the learning rate is to rise
        since_first = max(step, position - self.budget.first_position)
        factor: float = super().lr_lambda(since_first if since_first < self.warmup_steps else position)
        return factor

    def state_dict(self) -> dict[str, Any]:
        """The state of the schedule; the budget has its own."""
        state: dict[str, Any] = super().state_dict()
        state.pop("budget", None)
        return state


class LateLoss(nn.Module):
    """One loss for most of a training, another for its end.

    Class weights help rare classes to be learned early, but would shift the borders between classes if kept to the end.

    Args:
        early: the loss at first; it takes ``(prediction, target)``.
        late: the loss at the end.
        budget: tracks the progress; it must be attached to the trainer.
        late_share: share of the training at its end with the late loss.

    Raises:
        ValueError: ``late_share`` is not between 0 and 1.

    Example:
        >>> from monai.losses import DiceCELoss
        >>> weights = torch.tensor([0.5, 0.5, 2.0])
        >>> loss = LateLoss(DiceCELoss(weight=weights), DiceCELoss(), TrainingBudget(1000), late_share=0.25)
    """

    def __init__(self, early: nn.Module, late: nn.Module, budget: TrainingBudget, late_share: float) -> None:
        super().__init__()
        if not 0 <= late_share <= 1:
            raise ValueError(f"late_share must be 0 to 1, got {late_share}. Correct it.")
        self.early = early
        self.late = late
        self.budget = budget
        self.late_share = late_share

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The early or late loss of ``input`` against ``target``."""
        loss = self.late if self.budget.is_late(self.late_share) else self.early
        value: torch.Tensor = loss(input, target)
        return value
