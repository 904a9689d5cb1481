"""Time several tasks in turns, so that noise of the machine affects all of them equally."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch

from monai_unetpp.devices import synchronize

logger = logging.getLogger(__name__)

_Key = TypeVar("_Key", bound=Hashable)
_T = TypeVar("_T")


def shuffled_rounds(keys: Iterable[_Key], rounds: int, seed: int = 0) -> Iterator[tuple[_Key, ...]]:
    """Yield all keys once per round, each time in a new order, because tasks affect the caches of the next."""
    order, shuffle = list(keys), random.Random(seed).shuffle
    for _ in range(rounds):
        shuffle(order)
        yield tuple(order)


def time_rounds(
    tasks: Mapping[_Key, Callable[[], Any]],
    *,
    repeats: int,
    warm_up: int = 0,
    device: torch.device | str = "cpu",
    seed: int = 0,
    name: str = "Timing",
) -> dict[_Key, list[float]]:
    """Measure the seconds of every task, one number per measured round, in the order of the rounds.

    The rounds of ``warm_up`` come first and do not count.
    """
    device = torch.device(device)
    seconds: dict[_Key, list[float]] = {key: [] for key in tasks}
    for number, order in enumerate(shuffled_rounds(tasks, warm_up + repeats, seed)):
        for key in order:
            _, elapsed = time_task(tasks[key], device)
            if number >= warm_up:
                seconds[key].append(elapsed)
        logger.info("%s: round %d of %d.", name, number + 1, warm_up + repeats)
    return seconds


def time_task(task: Callable[[], _T], device: torch.device) -> tuple[_T, float]:
    """The result of a task, and its seconds; a GPU is synchronized before and after."""
    synchronize(device)
    start = time.perf_counter()
    result = task()
    synchronize(device)
    return result, time.perf_counter() - start
