"""Large drops of single subjects and missed structures, counted in both directions.

With enough cases, some case crosses any limit by chance. So drops are weighed against gains of the same size, and
structures that only the shallower level misses against those that only the deepest misses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

MOST_WORSE = 0.05
"""The largest share of subjects with a large drop, beyond those with a large gain, that is accepted."""

_Counts = int | NDArray[Any]


def sign_test_alpha(counts: NDArray[Any], alpha: float) -> NDArray[np.float64]:
    """The level of each of several sign tests, so that any of them finds an excess by chance at ``alpha`` at most.

    Bonferroni's correction as Tarone refined it (1990, https://doi.org/10.2307/2531456): tests of so few subjects that
    they cannot find anything at the corrected level do not count.

    Args:
        counts: ``(tests, samples)``, subjects that are much worse or much better.
        alpha: one-sided error level of all tests together.

    Returns:
        ``(samples,)`` levels: ``alpha`` divided by the number of tests that count.

    Example:
        >>> (0.05 / sign_test_alpha(np.array([[5, 6], [0, 8]]), 0.05)).round(6)
        array([1., 2.])
    """
    level = np.full(counts.shape[1], alpha)
    smallest = 0.5 ** counts.astype(np.float64)
    for number in range(len(counts), 0, -1):
        level = np.where((smallest <= alpha / number).sum(axis=0) <= number, alpha / number, level)
    return level


def is_excess(worse: _Counts, better: _Counts, alpha: Any = 0.05) -> Any:
    """Whether an exact sign test shows more worse subjects than better ones.

    Arrays, also of levels, give a result for each.

    Example:
        >>> is_excess(4, 0), is_excess(5, 0)
        (False, True)
    """
    worse, both = np.asarray(worse, dtype=np.float64), np.asarray(worse, dtype=np.float64) + np.asarray(better)
    # P(X >= worse) for X ~ Binomial(both, 1/2), which is 1 where nobody is worse
    tail = np.where(worse > 0, special.betainc(np.maximum(worse, 1), both - worse + 1, 0.5), 1.0)
    return _plain(tail <= alpha)


def is_excess_excluded(worse: _Counts, better: _Counts, subjects: _Counts, alpha: float = 0.05) -> Any:
    """Whether the worse subjects exceed the better ones by less than :data:`MOST_WORSE` of all.

    Tango's score test of the difference of paired proportions (1998, doi
    10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B) with a continuity correction. If no subject is
    worse there is nothing to test: :func:`~monai_unetpp.pruning.statistics.least_mean` allows for unseen drops.

    Example:
        >>> is_excess_excluded(1, 0, 30), is_excess_excluded(1, 20, 30), is_excess_excluded(1, 0, 110)
        (False, True, True)
    """
    b, c, n = (np.asarray(each, dtype=np.float64) for each in (worse, better, subjects))
    linear = (2 * n - b + c) * MOST_WORSE - b - c
    # the share of better subjects, estimated for a difference exactly at its limit
    share = (np.sqrt(linear**2 + 8 * n * c * MOST_WORSE * (1 - MOST_WORSE)) - linear) / np.maximum(4 * n, 1)
    spread = np.sqrt(n * (2 * share + MOST_WORSE * (1 - MOST_WORSE)))
    z = (b - c + 0.5 - n * MOST_WORSE) / np.maximum(spread, 1e-12)
    return _plain((b == 0) | (z <= -special.ndtri(1 - alpha)))


def _plain(values: NDArray[np.bool_]) -> Any:
    return values if values.ndim else bool(values)
