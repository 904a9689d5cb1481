"""Whether the loss of a level depends on the data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from monai_unetpp.pruning.decision.samples import GuardSample, PointSamples
from monai_unetpp.pruning.decision.stability import RESAMPLES
from monai_unetpp.pruning.results import SetDifference
from monai_unetpp.pruning.statistics import FloatArray

__all__ = ["differences_between"]

_CONFIDENCE = 0.95


def differences_between(tested: Mapping[str, Sequence[PointSamples]], seed: int = 0) -> tuple[SetDifference, ...]:
    """For each pair of data sets, level and guard, the difference between the two mean differences.

    Subjects of each data set are resampled (percentile bootstrap, two-sided 95 %). One interval in twenty excludes 0 by
    chance.

    Args:
        tested: by data set, the levels below the deepest.
        seed: of the resampling.
    """
    found = []
    for first, second in combinations(tested, 2):
        others = {(each.point, guard.metric, guard.label): guard for each in tested[second] for guard in each.guards}
        for each in tested[first]:
            for guard in each.guards:
                other = others.get((each.point, guard.metric, guard.label))
                if other is not None:
                    found.append(_difference(each.point, guard, other, (first, second), seed))
    return tuple(found)


def _difference(point: str, one: GuardSample, other: GuardSample, names: tuple[str, str], seed: int) -> SetDifference:
    rng = np.random.default_rng([seed, 2])
    a, b = (sample.differences[np.isfinite(sample.differences)] for sample in (one, other))
    tail = (1 - _CONFIDENCE) / 2
    lower, upper = np.quantile(_means(a, rng) - _means(b, rng), [tail, 1 - tail])
    return SetDifference(
        point=point,
        metric=one.metric,
        label=one.label,
        first=names[0],
        second=names[1],
        difference=float(a.mean() - b.mean()),
        lower=float(lower),
        upper=float(upper),
        depends_on_set=bool(lower > 0 or upper < 0),
    )


def _means(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    weights = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=2 * RESAMPLES)
    return weights @ values / len(values)
