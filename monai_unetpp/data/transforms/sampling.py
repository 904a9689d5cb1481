"""Evenly spaced values of an image, from which its statistics are taken. Does not import torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

#: Values that are taken of a large image, to bound memory.
_MOST_VALUES = 2**20


def sample_evenly(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """At most 2²⁰ evenly spaced values, always the same ones."""
    step = max(1, -(-values.size // _MOST_VALUES))
    # a step that divides the length of an axis would fall on few of its planes
    while any(math.gcd(step, length) > 1 for length in values.shape):
        step += 1
    return values.reshape(-1)[::step].astype(np.float64)


def sampled_median(values: npt.NDArray[Any]) -> float:
    """The median of such values, the lower one of two."""
    sample = sample_evenly(values)
    middle = (len(sample) - 1) // 2
    return float(np.partition(sample, middle)[middle])
