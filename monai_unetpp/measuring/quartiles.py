"""Median and quartiles of repeated measurements."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

__all__ = ["Quartiles"]


@dataclasses.dataclass(frozen=True)
class Quartiles:
    """Median and quartiles of repeated measurements, and their number."""

    median: float
    lower: float
    upper: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        """Median and quartiles of ``values``, one or more."""
        lower, median, upper = (float(value) for value in np.percentile(values, [25, 50, 75]))
        return cls(median=median, lower=lower, upper=upper, count=len(values))

    @classmethod
    def of_ratios(cls, values: Sequence[float], references: Sequence[float]) -> Quartiles:
        """Median and quartiles of each value divided by the reference from the same round.

        Raises:
            ValueError: the numbers of references and values differ.
        """
        return cls.of([value / reference for value, reference in zip(values, references, strict=True)])

    def times(self, factor: float) -> Quartiles:
        """The same measurements multiplied by ``factor``, above 0."""
        return Quartiles(self.median * factor, self.lower * factor, self.upper * factor, self.count)

    def text(self, form: str, unit: str = "") -> str:
        """Median and quartiles in the format ``form``, such as ``"1.20 s (1.15 to 1.31)"`` for ``".2f"``."""
        return f"{self.median:{form}}{unit} ({self.lower:{form}} to {self.upper:{form}})"
