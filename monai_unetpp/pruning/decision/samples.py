"""The data tested at one operating point, subject by subject, as arrays that can be resampled."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from monai_unetpp.pruning.pairing import PairedScores
from monai_unetpp.pruning.statistics import MIN_SUBJECTS, FloatArray, bound_alpha, corrected_quantile, is_non_inferior

FAIL, OPEN, PASS = 0, 1, 2
"""States as numbers: the lowest of several wins."""

MOST_WORSE = 0.05
"""The largest share of subjects with a large drop, beyond those with a large gain, that is accepted."""

_Counts = int | NDArray[Any]
_Numbers = float | FloatArray
_IntArray = NDArray[np.int64]
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class GuardSample:
    """A guarded metric of a label at a point, against the reference.

    Attributes:
        differences: ``(subjects,)`` mean difference of each subject, negative where worse; NaN without a comparison.
        found: the same on the cases that have the label and where both find it; None if these are all cases. Neither
            misses nor false positives of the reference may make up for a loss there.
        drops: ``(subjects,)`` -1 where more cases drop by more than the limit than gain as much, 1 where fewer do, 0
            otherwise.
        values: ``(2, cases)`` the metric at the point and at the reference, signed so that larger is better.
    """

    metric: str
    label: str
    margin: float
    cases: tuple[str, ...]
    differences: FloatArray
    found: FloatArray | None
    drops: _IntArray
    values: FloatArray = dataclasses.field(default_factory=lambda: np.zeros((2, 0)))

    @classmethod
    def of(
        cls, paired: PairedScores, guard: tuple[str, str, float], point: str, reference: str, limit: float | None
    ) -> GuardSample:
        """Collect a guard's differences; ``limit`` is the largest drop of a single case, if any."""
        metric, label, margin = guard
        cases = paired.comparable_cases(label, point, reference)
        index, count = paired.subject_index(cases), len(paired.subject_numbers)
        names = (point, reference)
        values = np.array([[paired.goodness(name, label, case, metric) for case in cases] for name in names])
        differences = values[0] - values[1]
        states = [{paired.scores[name, label, case].state for name in names} for case in cases]
        seen = np.array([each == {"ok"} for each in states], dtype=bool)
        least = np.inf if limit is None else limit + _ROUNDING
        return cls(
            metric,
            label,
            margin,
            cases,
            _means(differences, index, count),
            None if seen.all() else _means(differences[seen], index[seen], count),
            _signs(index[differences < -least], index[differences > least], count),
            values,
        )

    @property
    def subjects(self) -> int:
        """How many subjects can be compared."""
        return int(np.isfinite(self.differences).sum())

    def states(self, weights: FloatArray, alpha: float, error: float, failing: FloatArray) -> _IntArray:
        """The state in each of many samples of the subjects.

        Only the t bound with correction for skewness is used, which is almost always the lower of the two bounds.

        ``weights``, ``(samples, subjects)``, tell how often each subject is in a sample. Bounds are at ``alpha``, the
        whole test is at ``error``, and ``failing``, ``(samples,)``, is the level of a sign test as one of several.
        """
        parts = [self.differences] if self.found is None else [self.differences, self.found]
        state = np.minimum.reduce([_mean_states(part, weights, self.margin, alpha, error) for part in parts])
        counts = weights @ ~np.isnan(self.differences)
        state = np.minimum(state, _count_states(self.drops, weights, counts, error, failing))
        return np.where(counts < MIN_SUBJECTS, OPEN, state)


@dataclasses.dataclass(frozen=True)
class MissSample:
    """Structures that the point or the reference misses completely.

    Attributes:
        cases: the cases in which the point misses it and the reference does not.
        signs: ``(subjects,)`` -1 where only the point misses it in more cases than only the reference does, 1 where in
            fewer, 0 otherwise.
        present: ``(subjects,)`` whether a case of the subject has it.
    """

    label: str
    cases: tuple[str, ...]
    signs: _IntArray
    present: NDArray[np.bool_]

    @classmethod
    def of(cls, paired: PairedScores, label: str, point: str, reference: str) -> MissSample:
        """Collect the misses of both."""
        count = len(paired.subject_numbers)
        lost, won = (paired.newly_missed(*pair, label) for pair in ((point, reference), (reference, point)))
        signs = _signs(paired.subject_index(lost), paired.subject_index(won), count)
        having = [case for case in paired.subjects if paired.scores[reference, label, case].state in ("ok", "missed")]
        return cls(label, lost, signs, np.isin(np.arange(count), paired.subject_index(having)))

    def states(self, weights: FloatArray, error: float, failing: FloatArray) -> _IntArray:
        """The state in each of many samples; see :meth:`GuardSample.states`."""
        return _count_states(self.signs, weights, weights @ self.present, error, failing)


@dataclasses.dataclass(frozen=True)
class PointSamples:
    """Everything tested at one point.

    Attributes:
        held: whether a guarded label cannot pass, because it cannot be tested or the deepest level is no reference.
        unfit: labels for which the deepest level is no reference; they neither pass nor fail.
    """

    point: str
    guards: tuple[GuardSample, ...]
    misses: tuple[MissSample, ...]
    held: bool
    unfit: frozenset[str] = frozenset()

    def states(self, weights: FloatArray, alpha: float, error: float) -> _IntArray:
        """The state of the point in each of many samples; see :meth:`GuardSample.states`."""
        guards, misses = self._judged()
        failing = self.sign_test_alpha(weights, error)
        parts = [guard.states(weights, alpha, error, failing) for guard in guards]
        parts += [miss.states(weights, error, failing) for miss in misses]
        state: _IntArray = np.minimum.reduce([*parts, np.full(len(weights), OPEN if self.held else PASS)])
        return state

    def sign_test_alpha(self, weights: FloatArray, error: float) -> FloatArray:
        """``(samples,)`` the level of each sign test, so that all of them together have the error level ``error``."""
        guards, misses = self._judged()
        signs = [*(guard.drops for guard in guards), *(miss.signs for miss in misses)]
        counts = np.array([weights @ (each != 0) for each in signs]).reshape(len(signs), len(weights))
        return sign_test_alpha(counts, error)

    def _judged(self) -> tuple[list[GuardSample], list[MissSample]]:
        """What can fail."""
        return (
            [guard for guard in self.guards if guard.label not in self.unfit],
            [miss for miss in self.misses if miss.label not in self.unfit],
        )


def mean_state(
    lower: _Numbers, upper: _Numbers, mean: _Numbers, *, subjects: _Numbers, margin: float, error: float
) -> _IntArray:
    """Whether a mean difference passes, fails or stays open by its bounds; arrays are judged element by element."""
    passed = is_non_inferior(lower, mean, subjects=subjects, margin=margin, alpha=error)
    return np.where(np.asarray(upper) < -margin - _ROUNDING, FAIL, np.where(passed, PASS, OPEN))


def _mean_states(values: FloatArray, weights: FloatArray, margin: float, alpha: float, error: float) -> _IntArray:
    known = ~np.isnan(values)
    if not known.any():
        return np.full(len(weights), OPEN)
    shift = float(values[known].mean())
    x = np.where(known, values - shift, 0.0)
    n = np.maximum(weights @ known, 2.0)
    first, second, third = (weights @ x**power / n for power in (1, 2, 3))
    variance = np.maximum(second - first**2, 0.0) * n / (n - 1)
    sd = np.sqrt(np.where(variance <= 1e-24, 0.0, variance))
    moment = np.where(sd > 0, third - 3 * first * second + 2 * first**3, 0.0) / np.where(sd > 0, sd, 1.0) ** 3
    level, mean = bound_alpha(n, alpha), first + shift
    lower = mean - corrected_quantile(moment, n, level) * sd / np.sqrt(n)
    upper = mean + corrected_quantile(-moment, n, level) * sd / np.sqrt(n)
    state = mean_state(lower, upper, mean, subjects=n, margin=margin, error=error)
    return np.where(n < MIN_SUBJECTS, OPEN, state)


def count_state(worse: Any, better: Any, subjects: Any, *, error: float, failing: Any) -> _IntArray:
    """Whether counts of subjects pass, fail or stay open; arrays are judged element by element.

    What fails at level ``error``, as the only test, does not pass; ``failing`` is the level of the sign test as one of
    several.
    """
    passed = is_excess_excluded(worse, better, subjects, error) & ~np.asarray(is_excess(worse, better, error))
    return np.where(is_excess(worse, better, failing), FAIL, np.where(passed, PASS, OPEN))


def _count_states(
    signs: _IntArray, weights: FloatArray, subjects: FloatArray, error: float, failing: FloatArray
) -> _IntArray:
    return count_state(weights @ (signs < 0), weights @ (signs > 0), subjects, error=error, failing=failing)


def _means(values: FloatArray, index: _IntArray, count: int) -> FloatArray:
    """Mean of each subject's values; NaN where there are none."""
    cases = np.bincount(index, minlength=count)
    sums = np.bincount(index, values, minlength=count)
    return np.where(cases > 0, sums / np.maximum(cases, 1), np.nan)


def _signs(worse: _IntArray, better: _IntArray, count: int) -> _IntArray:
    """The sign of each subject's balance, from the subjects of its worse and better cases."""
    signs: _IntArray = np.sign(np.bincount(better, minlength=count) - np.bincount(worse, minlength=count))
    return signs


# With enough cases, some case crosses any limit by chance. So large drops are weighed against gains of the same size,
# and structures that only the shallower level misses against those that only the deepest misses.
def sign_test_alpha(counts: NDArray[Any], alpha: float) -> NDArray[np.float64]:
    """``(samples,)`` levels of a sign test, so that any of several finds an excess by chance at ``alpha`` at most.

    Bonferroni's correction as Tarone refined it (1990, https://doi.org/10.2307/2531456): tests of so few subjects that
    they cannot find anything at the corrected level do not count. ``counts``, ``(tests, samples)``, are the subjects
    that are much worse or much better.

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
