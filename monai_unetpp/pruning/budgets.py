"""What a level may cost: budgets as users give them. Importing this module does not import torch."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple


class Cost(NamedTuple):
    """What a cost is, in words, and its unit."""

    words: str
    unit: str


COST_KEYS: dict[str, Cost] = {
    "latency_ms": Cost("time per volume", "ms"),
    "window_latency_ms": Cost("time per window", "ms"),
    "parameters": Cost("size of the network", "parameters"),
    "memory_mb": Cost("peak memory", "MB"),
    "flops": Cost("operations per window", "operations"),
    "checkpoint_mb": Cost("size of the weights", "MB"),
    "energy_j": Cost("energy per volume", "J"),
}
"""What can be traded against accuracy, by key; less is always better.

Times and energy are medians, the time per volume is what a user waits, and a MB has 10^6 bytes.
"""


@dataclasses.dataclass(frozen=True)
class Budget:
    """The most that an operating point may cost."""

    key: str
    value: float

    def __post_init__(self) -> None:
        if self.key not in COST_KEYS:
            raise ValueError(f"cost must be one of {', '.join(COST_KEYS)}, got {self.key!r}.")
        if not (math.isfinite(self.value) and self.value > 0):
            raise ValueError(f"budget must be positive, got {self.value} for {self.key}.")

    def __str__(self) -> str:
        return f"{self.key}<={self.value:.12g}"

    @property
    def in_words(self) -> str:
        """Such as ``"time per volume of at most 50 ms"``."""
        return f"{COST_KEYS[self.key].words} of at most {self.value:.12g} {COST_KEYS[self.key].unit}"


def parse_budget(text: str) -> Budget:
    """A budget from a text such as ``"latency_ms=50"``; for the keys see :data:`COST_KEYS`.

    Example:
        >>> parse_budget("parameters=2e6")
        Budget(key='parameters', value=2000000.0)
    """
    return Budget(*name_and_value(text, "budget", "latency_ms=50"))


def name_and_value(text: str, argument: str, example: str) -> tuple[str, float]:
    """The name and the number of a text such as ``"dice=0.01"``.

    The name of the argument and an example are for the message.
    """
    name, equals, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not equals or not name or not math.isfinite(value):
        raise ValueError(f"{argument} must be a name, '=' and a number, got {text!r}. Write it like {example}.")
    return name.strip(), value
