"""The stability of a verdict under resampling and between data sets, and the subjects needed for a joint power."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from monai_unetpp.pruning.decision.samples import FAIL, PASS, GuardSample, PointSamples
from monai_unetpp.pruning.results import SetDifference, Stability
from monai_unetpp.pruning.rules import Rules
from monai_unetpp.pruning.statistics import MIN_SUBJECTS, FloatArray, least_subjects

_INCONCLUSIVE = "inconclusive"
"""Stands in for a level without a verdict."""

_RESAMPLES = 1000
#: Subjects left out at once, each in a sample of its own.
_LEFT_OUT_AT_ONCE = 1000
_CONFIDENCE = 0.95
#: Less is rounding.
_CONSTANT = 1e-9
_IntArray = NDArray[np.int64]
_MOST_SUBJECTS = 100_000
_POWER_SAMPLES = 300


@dataclasses.dataclass(frozen=True)
class SampledVerdicts:
    """The verdicts on samples of subjects, as the number of levels that pass; 0 is *keep*, -1 no verdict.

    Attributes:
        own: the verdict on all of them.
        halves: ``(samples,)`` on random halves.
        new_samples: ``(samples,)`` on the same with every subject counted twice: the mean of such a sample varies like
            that of a new sample of full size.
        left_out: ``(subjects,)`` without each subject.
    """

    subjects: tuple[str, ...]
    own: int
    halves: _IntArray
    new_samples: _IntArray
    left_out: _IntArray


def sample_verdicts(tested: Sequence[PointSamples], subjects: Sequence[str], rules: Rules) -> SampledVerdicts:
    """The verdicts that other samples of the subjects of one data set give.

    The tested levels are those below the deepest, deepest first.
    """
    count, rng = len(subjects), np.random.default_rng(rules.seed)
    halves = (rng.random((_RESAMPLES, count)).argsort(axis=1) < count // 2).astype(np.float64)
    doubled = halves * (count / max(count // 2, 1))
    return SampledVerdicts(
        tuple(subjects),
        int(_passed(tested, np.ones((1, count)), rules)[0]),
        _passed(tested, halves, rules),
        _passed(tested, doubled, rules),
        np.concatenate([_passed(tested, weights, rules) for weights in _without_each(count)]),
    )


def _without_each(count: int) -> Iterator[FloatArray]:
    """The samples that lack one subject, some at a time, as all of very many subjects need too much memory."""
    for left_out in np.array_split(np.arange(count), math.ceil(count / _LEFT_OUT_AT_ONCE)):
        yield np.where(np.arange(count) == left_out[:, None], 0.0, 1.0)


def join_verdicts(sampled: Mapping[str, SampledVerdicts]) -> SampledVerdicts:
    """The verdicts on several data sets together: to keep if one is, none if one has none, else the deepest level."""
    parts = list(sampled.values())
    own = [each.own for each in parts]
    left_out = [_joint([*own[:number], each.left_out, *own[number + 1 :]]) for number, each in enumerate(parts)]
    return SampledVerdicts(
        tuple(f"{name}: {subject}" for name, each in sampled.items() for subject in each.subjects),
        int(_joint(own)),
        _joint([each.halves for each in parts]),
        _joint([each.new_samples for each in parts]),
        np.concatenate(left_out),
    )


def stability_of(sampled: SampledVerdicts, levels: Sequence[str], dataset: str) -> Stability:
    """How often other samples of the subjects give each verdict."""
    # by the number of levels that pass, shallowest level first and inconclusive last
    names = {len(levels) - 1 - number: level for number, level in enumerate(levels)} | {-1: _INCONCLUSIVE}

    def shares(codes: _IntArray) -> dict[str, float]:
        return {name: share for code, name in names.items() if (share := float(np.mean(codes == code)))}

    return Stability(
        dataset=dataset,
        subjects=len(sampled.subjects),
        halves=shares(sampled.halves),
        new_samples=shares(sampled.new_samples),
        leave_one_out=shares(sampled.left_out),
        turning=tuple(np.array(sampled.subjects, dtype=object)[sampled.left_out != sampled.own]),
    )


def _joint(codes: Sequence[_IntArray | int]) -> _IntArray:
    each = np.array(np.broadcast_arrays(*codes))
    return np.where((each == 0).any(axis=0), 0, each.min(axis=0))


def differences_between(tested: Mapping[str, Sequence[PointSamples]]) -> tuple[SetDifference, ...]:
    """For each pair of data sets, level and guard, the difference between the two mean differences.

    The interval is that of Welch's t test, two-sided 95 %: one in twenty excludes 0 by chance. Subjects of one name in
    two data sets count as different ones, as names such as ``case_01`` recur. Data sets of too few subjects for a
    verdict are not compared.
    """
    found = []
    for first, second in combinations(tested, 2):
        others = {(each.point, guard.metric, guard.label): guard for each in tested[second] for guard in each.guards}
        for each in tested[first]:
            for guard in each.guards:
                other = others.get((each.point, guard.metric, guard.label))
                if other is not None and min(guard.subjects, other.subjects) >= MIN_SUBJECTS:
                    found.append(_difference(each.point, guard, other, (first, second)))
    return tuple(found)


def _difference(point: str, one: GuardSample, other: GuardSample, names: tuple[str, str]) -> SetDifference:
    a, b = (sample.differences[np.isfinite(sample.differences)] for sample in (one, other))
    difference = float(a.mean() - b.mean())
    lower = upper = difference
    if max(np.ptp(a), np.ptp(b)) > _CONSTANT:
        lower, upper = stats.ttest_ind(a, b, equal_var=False).confidence_interval(_CONFIDENCE)
    return SetDifference(
        point=point,
        metric=one.metric,
        label=one.label,
        first=names[0],
        second=names[1],
        difference=difference,
        lower=float(lower),
        upper=float(upper),
        depends_on_set=bool(lower > _CONSTANT or upper < -_CONSTANT),
    )


def joint_subjects_needed(samples: PointSamples, rules: Rules, alpha: float, no_difference: bool) -> int | None:
    """The number of subjects with which all tests at a point pass together at a power of ``POWER``.

    Samples of that size are drawn from the observed subjects, which keeps the correlation of metrics and labels. With
    ``no_difference`` no true difference is assumed, else the observed one. None if it is unknown or above 100,000.
    """
    if samples.held or not samples.guards:
        return None
    supposed = _supposed(samples, no_difference)
    count = len(samples.guards[0].differences)

    def share(subjects: int) -> float:
        rng = np.random.default_rng([rules.seed, 1])
        weights = rng.multinomial(subjects, np.full(count, 1 / count), size=_POWER_SAMPLES).astype(np.float64)
        return float((supposed.states(weights, alpha, rules.alpha) == PASS).mean())

    return least_subjects(share, MIN_SUBJECTS, most=_MOST_SUBJECTS, parts=100)


def _supposed(samples: PointSamples, no_difference: bool) -> PointSamples:
    """The same spread without a true difference (means of 0, as many large gains as drops), or without mean gains."""

    def shifted(values: FloatArray) -> FloatArray:
        known = values[np.isfinite(values)]
        if no_difference:
            return values - known.mean() if known.size else values
        return values - max(float(np.nanmean(values)), 0.0)

    guards = tuple(
        dataclasses.replace(
            guard,
            differences=shifted(guard.differences),
            found=None if guard.found is None else shifted(guard.found),
            drops=_balanced(guard.drops) if no_difference else guard.drops,
        )
        for guard in samples.guards
    )
    misses = samples.misses
    if no_difference:
        misses = tuple(dataclasses.replace(miss, signs=_balanced(miss.signs)) for miss in misses)
    return dataclasses.replace(samples, guards=guards, misses=misses)


def _balanced(signs: _IntArray) -> _IntArray:
    """The signs alternating, so that both directions are equally frequent."""
    balanced: _IntArray = signs.copy()
    at = np.flatnonzero(signs)
    # a single one stays a drop, so that the subjects that its test needs are counted
    balanced[at] = np.where(np.arange(len(at)) % 2, 1, -1)
    return balanced


def _passed(tested: Sequence[PointSamples], weights: FloatArray, rules: Rules) -> _IntArray:
    """How many levels pass in sequence in each sample; -1 without a verdict."""
    codes = np.array([each.states(weights, rules.alpha, rules.alpha) for each in tested])
    passed = np.cumprod(codes == PASS, axis=0).sum(axis=0)
    none = (weights.sum(axis=1) < MIN_SUBJECTS) | ((passed == 0) & (codes[0] != FAIL))
    return np.where(none, -1, passed)
