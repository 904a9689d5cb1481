"""What a level may cost: budgets as users give them. Importing this module does not import torch."""

from __future__ import annotations

import dataclasses
import math

__all__ = ["COST_KEYS", "Budget", "check_cost_key", "parse_budget"]

COST_KEYS: dict[str, str] = {
    "latency_ms": "median milliseconds per whole volume, the time a user waits",
    "window_latency_ms": "median milliseconds per window",
    "parameters": "number of parameters",
    "memory_mb": "peak memory for one volume in MB of 10^6 bytes",
    "flops": "floating-point operations per window",
    "checkpoint_mb": "size of the weights as a file in MB of 10^6 bytes",
    "energy_j": "median joules per whole volume, if the machine reports them",
}
"""What can be traded against accuracy; less is always better."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """The most that an operating point may cost.

    Attributes:
        key: one of :data:`COST_KEYS`.
        value: the limit, positive, in the unit of the key.
    """

    key: str
    value: float

    def __post_init__(self) -> None:
        check_cost_key(self.key)
        if not (math.isfinite(self.value) and self.value > 0):
            raise ValueError(f"budget must be positive, got {self.value} for {self.key}.")

    def __str__(self) -> str:
        return f"{self.key}<={self.value:.12g}"


def parse_budget(text: str) -> Budget:
    """A budget from its text on the command line.

    Args:
        text: ``"latency_ms=50"``; for the keys see :data:`COST_KEYS`.

    Raises:
        ValueError: another form, an unknown key, or a value that is not a positive number.

    Example:
        >>> parse_budget("parameters=2e6")
        Budget(key='parameters', value=2000000.0)
    """
    name, equals, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not equals or math.isnan(value):
        raise ValueError(f"budget must be a name, '=' and a number, got {text!r}. Write it like latency_ms=50.")
    return Budget(name.strip(), value)


def check_cost_key(key: str) -> str:
    """``key`` if it is one of :data:`COST_KEYS`.

    Raises:
        ValueError: it is not.
    """
    if key not in COST_KEYS:
        raise ValueError(f"cost must be one of {', '.join(COST_KEYS)}, got {key!r}.")
    return key
