"""Wall time by stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from monai_unetpp.devices import synchronize

__all__ = ["StageTimer", "timed"]


class StageTimer:
    """Sums wall time by stage; several threads may share one timer.

    Stages may be nested: the time of the inner one does not count for the outer one, so the stages of a thread add up
    to the time spent in them.

    Args:
        device: device of the stages; a GPU is synchronized at their borders, which costs a little time.

    Example:
        >>> timer = StageTimer()
        >>> with timer.stage("network"):
        ...     pass
        >>> sorted(timer.seconds)
        ['network']
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()
        self._open = threading.local()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block, or of a function that this decorates, for stage ``name``."""
        inner: list[float] = self._open.__dict__.setdefault("inner", [])
        synchronize(self.device)
        inner.append(0.0)
        started = time.perf_counter()
        try:
            yield
        finally:
            synchronize(self.device)
            passed = time.perf_counter() - started
            own = passed - inner.pop()
            if inner:
                inner[-1] += passed
            with self._lock:
                self.seconds[name] = self.seconds.get(name, 0.0) + own

    def reset(self) -> None:
        """Forget all times."""
        with self._lock:
            self.seconds.clear()


def timed(timer: StageTimer | None, stage: str) -> AbstractContextManager[None]:
    """Count the time of the block for ``stage``, if there is a timer."""
    return nullcontext() if timer is None else timer.stage(stage)
