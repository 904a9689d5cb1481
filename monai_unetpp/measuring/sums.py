"""Sums of numbers by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

_Number = TypeVar("_Number", int, float)


def summed(parts: Iterable[Mapping[str, _Number]]) -> dict[str, _Number]:
    """Sum numbers by name, in the order of first occurrence.

    Unlike with :class:`collections.Counter`, names with the sum 0 are kept.

    Example:
        >>> summed([{"L1": 2, "L2": 0}, {"L1": 1}])
        {'L1': 3, 'L2': 0}
    """
    total: dict[str, _Number] = {}
    for part in parts:
        for name, number in part.items():
            total[name] = total[name] + number if name in total else number
    return total
