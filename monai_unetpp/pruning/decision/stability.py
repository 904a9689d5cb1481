"""The stability of a verdict under resampling, and the subjects needed for a joint power."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monai_unetpp.pruning.decision.samples import FAIL, PASS, PointSamples
from monai_unetpp.pruning.results import Stability
from monai_unetpp.pruning.rules import Rules
from monai_unetpp.pruning.statistics import MIN_SUBJECTS, FloatArray

__all__ = ["INCONCLUSIVE", "RESAMPLES", "joint_subjects_needed", "stability_of", "without_difference"]

INCONCLUSIVE = "inconclusive"
"""Stands in for a level without a verdict."""

RESAMPLES = 1000
_MOST_SUBJECTS = 100_000
_POWER_SAMPLES = 300


def stability_of(
    tested: Sequence[PointSamples], levels: Sequence[str], subjects: Sequence[str], rules: Rules, dataset: str
) -> Stability:
    """How often other samples of the subjects give each verdict.

    Args:
        tested: the levels below the deepest, deepest first.
        levels: names of all levels, shallowest first.
        subjects: names of the subjects, in the order of the samples.
        rules: as for the verdict.
        dataset: name of the data set.
    """
    count, rng = len(subjects), np.random.default_rng(rules.seed)
    chosen = rng.random((RESAMPLES, count)).argsort(axis=1) < count // 2
    halves = chosen.astype(np.float64)
    without = 1.0 - np.eye(count)
    names = [levels[-1 - passed] for passed in range(len(levels))]

    def verdicts(weights: FloatArray) -> list[str]:
        return [INCONCLUSIVE if code < 0 else names[code] for code in _passed(tested, weights, rules)]

    own = verdicts(np.ones((1, count)))[0]
    left_out = verdicts(without)
    return Stability(
        dataset=dataset,
        subjects=count,
        halves=_shares(verdicts(halves), names),
        # the mean of a half with every subject counted twice varies like that of a new sample of full size
        new_samples=_shares(verdicts(halves * (count / (count // 2))), names) if count > 1 else {},
        leave_one_out=_shares(left_out, names),
        turning=tuple(subject for subject, each in zip(subjects, left_out, strict=True) if each != own),
    )


def joint_subjects_needed(
    samples: PointSamples, rules: Rules, alpha: float, no_difference: bool, power: float = 0.8
) -> int | None:
    """The number of subjects with which all tests at a point pass together.

    Samples of that size are drawn from the observed subjects, which keeps the correlation of metrics and labels.

    Args:
        samples: of the point.
        rules: as for the verdict.
        alpha: level of the bounds.
        no_difference: whether to assume no true difference, instead of the observed one.
        power: share of the samples that must pass.

    Returns:
        The number; None if it cannot be found in this way or is above 100,000.
    """
    if samples.held or not samples.guards:
        return None
    supposed = without_difference(samples) if no_difference else _without_gain(samples)
    count = len(samples.guards[0].differences)

    def share(subjects: int) -> float:
        rng = np.random.default_rng([rules.seed, 1])
        weights = rng.multinomial(subjects, np.full(count, 1 / count), size=_POWER_SAMPLES).astype(np.float64)
        return float((supposed.states(weights, alpha, rules.alpha) == PASS).mean())

    low, high = MIN_SUBJECTS - 1, MIN_SUBJECTS
    while share(high) < power:
        low, high = high, 2 * high
        if high > _MOST_SUBJECTS:
            return None
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if share(middle) >= power else (middle, high)
    return high


def without_difference(samples: PointSamples) -> PointSamples:
    """The same spread without a true difference: means of 0, and as many large gains as drops."""
    guards = tuple(
        dataclasses.replace(
            guard,
            differences=guard.differences - np.nanmean(guard.differences),
            found=None if guard.found is None else guard.found - np.nanmean(guard.found),
            drops=_balanced(guard.drops),
        )
        for guard in samples.guards
    )
    misses = tuple(dataclasses.replace(miss, signs=_balanced(miss.signs)) for miss in samples.misses)
    return dataclasses.replace(samples, guards=guards, misses=misses)


def _without_gain(samples: PointSamples) -> PointSamples:
    """The observed differences, with mean gains set to 0."""
    guards = tuple(
        dataclasses.replace(
            guard,
            differences=guard.differences - max(float(np.nanmean(guard.differences)), 0.0),
            found=None if guard.found is None else guard.found - max(float(np.nanmean(guard.found)), 0.0),
        )
        for guard in samples.guards
    )
    return dataclasses.replace(samples, guards=guards)


def _balanced(signs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The signs alternating, so that both directions are equally frequent."""
    balanced: NDArray[np.int64] = signs.copy()
    at = np.flatnonzero(signs)
    # a single one stays a drop, so that the subjects that its test needs are counted
    balanced[at] = np.where(np.arange(len(at)) % 2, 1, -1)
    return balanced


def _passed(tested: Sequence[PointSamples], weights: FloatArray, rules: Rules) -> NDArray[np.int64]:
    """How many levels pass in sequence in each sample; -1 without a verdict."""
    codes: NDArray[np.int64] = np.array([each.states(weights, rules.alpha, rules.alpha) for each in tested])
    passed: NDArray[np.int64] = np.cumprod(codes == PASS, axis=0).sum(axis=0)
    none = (weights.sum(axis=1) < MIN_SUBJECTS) | ((passed == 0) & (codes[0] != FAIL))
    verdicts: NDArray[np.int64] = np.where(none, -1, passed)
    return verdicts


def _shares(verdicts: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    """The share of each verdict that occurs, shallowest level first and inconclusive last."""
    shares = {name: verdicts.count(name) / len(verdicts) for name in (*reversed(names), INCONCLUSIVE)}
    return {name: share for name, share in shares.items() if share > 0}
