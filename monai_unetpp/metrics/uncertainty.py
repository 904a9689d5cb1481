"""Measure where the levels of a network disagree, and whether this predicts its errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import mannwhitneyu

#: Most voxels that are ranked.
_MOST_RANKED = 10_000_000


def disagreement(logits_by_level: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Entropy of the levels' mean class probabilities per voxel: 0 is certain, 1 is undecided.

    Probabilities are the softmax over the classes; for a single output channel, the sigmoid and its complement. The
    natural logarithm is divided by that of the number of classes.

    Args:
        logits_by_level: logits ``(B, C, H, W[, D])`` of each level, all of the same shape. A single level gives the
            entropy of its own probabilities.

    Returns:
        ``(B, 1, H, W[, D])`` in float32, 0 to 1.

    Raises:
        ValueError: there is no level, or shapes differ.

    Example:
        >>> import torch
        >>> sure = torch.tensor([10.0, -10.0]).reshape(1, 2, 1, 1)
        >>> disagreement({"L1": sure, "L2": sure}).round(decimals=2).item()
        0.0
        >>> disagreement({"L1": sure, "L2": -sure}).round(decimals=2).item()
        1.0
    """
    found = Disagreement()
    for logits in logits_by_level.values():
        found.add(logits)
    return found.entropy()


class Disagreement:
    """:func:`disagreement` of levels that come one after the other, without keeping their logits."""

    def __init__(self) -> None:
        self._sum: torch.Tensor | None = None
        self._shapes: list[list[int]] = []

    def add(self, logits: torch.Tensor) -> None:
        """Count the logits ``(B, C, H, W[, D])`` of one more level."""
        self._shapes.append(list(logits.shape))
        if self._sum is None:
            self._sum = _probabilities(logits.float())
        elif self._shapes[-1] == self._shapes[0]:
            self._sum += _probabilities(logits.float())

    def entropy(self) -> torch.Tensor:
        """The entropy ``(B, 1, H, W[, D])`` of the levels so far, with errors as for :func:`disagreement`."""
        if self._sum is None or any(shape != self._shapes[0] for shape in self._shapes):
            raise ValueError(
                f"logits_by_level must hold logits of the same shape for at least one level, got {self._shapes}. Pass "
                "the result of forward_levels."
            )
        mean = self._sum / len(self._shapes)
        entropy: torch.Tensor = torch.special.entr(mean).sum(dim=1, keepdim=True) / math.log(mean.shape[1])
        return entropy.clamp(0.0, 1.0)


def error_auroc(uncertainty: npt.ArrayLike, error: npt.ArrayLike) -> float | None:
    """How well uncertainty predicts errors: the chance that a wrong voxel is more uncertain than a correct one.

    Args:
        uncertainty: a number per voxel, larger if less certain.
        error: whether the voxel is wrong, of the same shape.

    Returns:
        Area under the ROC curve, with ties counted half. 0.5 is chance, 1 is perfect. None if no voxel or every voxel
        is wrong. Of more than 10 million voxels, evenly spaced ones are taken.

    Raises:
        ValueError: shapes differ.

    Example:
        >>> error_auroc([0.1, 0.2, 0.9, 0.3], [False, False, True, True])
        1.0
    """
    values, wrong = np.asarray(uncertainty), np.asarray(error, dtype=bool)
    if values.shape != wrong.shape:
        raise ValueError(
            f"uncertainty and error must have the same shape, got {values.shape} and {wrong.shape}. Bring both to the "
            "label's grid."
        )
    # ranks take many bytes each
    step = -(-values.size // _MOST_RANKED)
    values, wrong = values.reshape(-1)[::step], wrong.reshape(-1)[::step]
    positives: npt.NDArray[Any] = values[wrong]
    negatives: npt.NDArray[Any] = values[~wrong]
    if not positives.size or not negatives.size:
        return None
    statistic = mannwhitneyu(positives, negatives, method="asymptotic").statistic
    return float(statistic) / (positives.size * negatives.size)


def _probabilities(logits: torch.Tensor) -> torch.Tensor:
    if logits.shape[1] > 1:
        return logits.softmax(dim=1)
    foreground = logits.sigmoid()
    return torch.cat([1 - foreground, foreground], dim=1)
