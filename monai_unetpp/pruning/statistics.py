"""One-sided bounds of a mean paired difference, and how many subjects a verdict needs.

Paired differences between two levels are often left-skewed: most cases hardly change, a few drop. With few subjects,
the sample may not contain any drop, and every interval based on the sample alone is too narrow. The rule here was
chosen by simulation (``STATISTICS.md`` of the pruning guide, written by ``python -m benchmarks.simulate``):

* the bound is the lower of the BCa bootstrap and a t bound with Hall's correction for skewness, so that the level holds
  for normal and moderately skewed differences;
* with fewer than :data:`FULL_SUBJECTS` subjects the level of the bound falls from ``alpha`` to a tenth of it with ten
  (:func:`bound_alpha`);
* the mean must leave room for drops that are too rare to show in so few subjects (:func:`least_mean`);
* with fewer than :data:`MIN_SUBJECTS` subjects nothing is concluded.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

__all__ = [
    "FULL_SUBJECTS",
    "MIN_SUBJECTS",
    "POWER",
    "MeanBounds",
    "bound_alpha",
    "check_alpha",
    "corrected_quantile",
    "is_non_inferior",
    "least_mean",
    "least_subjects",
    "mean_bounds",
    "skewness_corrected_t",
    "standardised",
    "subject_means",
    "subjects_needed",
    "unseen_rate",
]

FloatArray = NDArray[np.float64]
Numbers = float | FloatArray

MIN_SUBJECTS = 10
"""With fewer subjects every verdict is inconclusive."""

FULL_SUBJECTS = 30
"""From this many subjects on, the level of the bound is ``alpha`` itself."""

POWER = 0.8
"""The probability of passing without a true difference, for which numbers of subjects are given."""

_UNSEEN_DROP = 5.0
_LARGEST_WIDENING = 2.0
_LARGEST_SAMPLE = 10_000_000


@dataclasses.dataclass(frozen=True)
class MeanBounds:
    """Mean of a sample with one-sided bounds.

    Attributes:
        mean: mean of the sample.
        sd: standard deviation (``n - 1``).
        lower: lower confidence bound of the mean.
        upper: upper confidence bound of the mean, at the same one-sided level.
        method: the method of the lower bound, ``"bca"`` or ``"t"``.
    """

    mean: float
    sd: float
    lower: float
    upper: float
    method: Literal["bca", "t"]


def check_alpha(alpha: float) -> float:
    """``alpha`` if it is a one-sided error level.

    Raises:
        ValueError: it is not between 0 and 0.5.
    """
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must lie between 0 and 0.5, got {alpha}. Common one-sided levels are 0.05 and 0.025.")
    return alpha


def bound_alpha(subjects: Numbers, alpha: float) -> Any:
    """The one-sided level of the bound: ``alpha``, or less with few subjects, down to a tenth of it with ten.

    Args:
        subjects: number of subjects; an array gives an array.
        alpha: one-sided error level.
    """
    return alpha * 10.0 ** -_shortage(subjects)


def _shortage(subjects: Numbers) -> Any:
    """The lack of subjects: 0 from :data:`FULL_SUBJECTS` on, 1 with :data:`MIN_SUBJECTS`, and linear in between."""
    short = np.maximum(FULL_SUBJECTS - np.asarray(subjects, dtype=np.float64), 0) / (FULL_SUBJECTS - MIN_SUBJECTS)
    return short if short.ndim else float(short)


def unseen_rate(subjects: Numbers, alpha: float = 0.05) -> Any:
    """The share of all subjects that may behave differently although none in the sample does.

    The exact form of the rule of three: with confidence ``1 - alpha``, what none of ``subjects`` shows is rarer than
    ``1 - alpha ** (1 / subjects)`` (26 % for 10 subjects, 9.5 % for 30, 3 % for 100).
    """
    return 1 - alpha ** (1 / subjects)


def least_mean(subjects: Numbers, margin: float, alpha: float = 0.05) -> Any:
    """The mean difference that must be exceeded to leave room for drops that the sample may not show.

    If drops of five margins (up to six with fewer than :data:`FULL_SUBJECTS` subjects) occurred at the highest rate
    that the sample cannot exclude, the mean should still be above ``-margin``. Five margins cost hardly any power at
    the textbook sample sizes; larger drops are left to the limit on single cases.

    Args:
        subjects: number of subjects; an array gives an array.
        margin: the non-inferiority margin.
        alpha: one-sided error level.
    """
    return margin * (unseen_rate(subjects, alpha) * (_UNSEEN_DROP + _shortage(subjects)) - 1)


def is_non_inferior(lower: Numbers, mean: Numbers, *, subjects: Numbers, margin: float, alpha: float = 0.05) -> Any:
    """Whether a sample shows that the mean loss is smaller than ``margin``.

    Args:
        lower: lower bound from :func:`mean_bounds`; an array is judged element by element.
        mean: mean difference, negative where worse.
        subjects: size of the sample, or of each.
        margin: the non-inferiority margin.
        alpha: one-sided error level.

    Returns:
        A bool, or an array of them.
    """
    room = np.asarray(mean) > least_mean(subjects, margin, alpha)
    accepted = (np.asarray(lower) > -margin) & room & (np.asarray(subjects) >= MIN_SUBJECTS)
    return accepted if accepted.ndim else bool(accepted)


def standardised(samples: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Samples along the last axis, standardised, with their means and standard deviations.

    A sample that is constant up to rounding (for metrics of about 1) becomes zeros, with a standard deviation of
    exactly 0.
    """
    mean = samples.mean(axis=-1, keepdims=True)
    sd = samples.std(axis=-1, ddof=1, keepdims=True)
    scale = np.maximum(np.abs(samples).max(axis=-1, keepdims=True), 1.0)
    sd = np.where(sd <= 1e-12 * scale, 0.0, sd)
    z = np.where(sd > 0, samples - mean, 0.0) / np.where(sd > 0, sd, 1.0)
    return z, mean[..., 0], sd[..., 0]


def skewness_corrected_t(samples: FloatArray, alpha: float = 0.05) -> FloatArray:
    """Lower t bounds of the mean, widened where the sample is skewed to the left.

    Hall's cubic transformation of the t statistic (1992, doi 10.1111/j.2517-6161.1992.tb01872.x) with the quantile
    of t instead of that of the normal distribution, so that a sample without skewness gets the ordinary bound. So does
    a sample that is skewed to the right. Small samples underestimate skewness, hence the estimate ``G`` is replaced by
    ``G (1 + |G| / 2)``. The distance from the mean to the bound at most doubles, about as in the exact binomial bound
    if a single subject drops and all others are equal.

    Args:
        samples: ``(..., n)``, ``n`` at least 3 for a correction, 2 for a bound.
        alpha: one-sided error level.

    Returns:
        ``(...)`` bounds.
    """
    n = samples.shape[-1]
    z, mean, sd = standardised(samples)
    bounds: FloatArray = mean - corrected_quantile((z**3).sum(axis=-1) / n, n, alpha) * sd / math.sqrt(n)
    return bounds


def corrected_quantile(third: FloatArray, subjects: Numbers, alpha: float | FloatArray) -> FloatArray:
    """The distance from the mean to the bound of :func:`skewness_corrected_t`, in standard errors.

    Args:
        third: third moments of standardised samples (with the standard deviation of ``n - 1``).
        subjects: sizes of the samples, 2 or more.
        alpha: one-sided error levels.
    """
    n = np.asarray(subjects, dtype=np.float64)
    quantile = special.stdtrit(n - 1, 1 - alpha)
    skewness = np.minimum(third * n**2 / ((n - 1) * np.maximum(n - 2, 1)), 0.0) * (n > 2)
    u = -skewness * (1 - skewness / 2) / np.sqrt(n)
    # beyond this value the transformation is no longer monotone
    u = np.minimum(u, 3 * (np.sqrt(quantile**2 + 0.75) - quantile))
    positive = np.where(u > 1e-9, u, 1.0)
    hall = 3 / positive * (1 - np.cbrt(1 - positive * (quantile + positive / 6)))
    distance: FloatArray = np.where(u > 1e-9, np.clip(hall, quantile, _LARGEST_WIDENING * quantile), quantile)
    return distance


def _rounded_mean(samples: FloatArray, axis: int = -1) -> Any:
    # Means of resamples with few distinct values often equal the sample's mean. Without rounding, the order of
    # summation would decide whether they do, and change the bias correction of BCa.
    return np.round(np.mean(samples, axis=axis), 10)


def _bca(sample: FloatArray, alpha: float, bootstrap_samples: int, seed: int) -> tuple[float, float]:
    result = stats.bootstrap(
        (sample,),
        _rounded_mean,
        vectorized=True,
        axis=-1,
        n_resamples=bootstrap_samples,
        batch=max(1, 20_000_000 // sample.size),
        confidence_level=1 - 2 * alpha,
        method="BCa",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def mean_bounds(
    differences: Sequence[float] | FloatArray, *, alpha: float = 0.05, bootstrap_samples: int = 9999, seed: int = 0
) -> MeanBounds:
    """One-sided bounds of the mean of independent paired differences.

    Each bound is the wider one of ``scipy.stats.bootstrap`` with BCa (from :data:`MIN_SUBJECTS` differences on) and
    :func:`skewness_corrected_t`, at the level of :func:`bound_alpha`. Equal differences give bounds equal to the mean.
    The order of the differences does not matter.

    Args:
        differences: one per subject, at least two.
        alpha: one-sided error level.
        bootstrap_samples: number of resamples, 100 or more.
        seed: of the resampling.

    Raises:
        ValueError: fewer than two differences, non-finite values, or an invalid level or number of resamples.

    Example:
        >>> mean_bounds([-0.01, 0.01] * 20, bootstrap_samples=999).lower > -0.01
        True
    """
    check_alpha(alpha)
    if bootstrap_samples < 100:
        raise ValueError(f"bootstrap_samples must be 100 or more, got {bootstrap_samples}. 9999 is a good number.")
    x = np.asarray(differences, dtype=np.float64)
    if x.ndim != 1 or x.size < 2:
        raise ValueError(f"differences must be two numbers or more, got shape {x.shape}. Score more subjects.")
    if not np.isfinite(x).all():
        raise ValueError(f"differences must be finite, got {x[~np.isfinite(x)][0]}. Score the case again.")
    level = bound_alpha(x.size, alpha)
    z, mean, sd = standardised(np.sort(x))  # resamples are drawn by place
    if sd == 0:
        return MeanBounds(float(mean), 0.0, float(mean), float(mean), "t")
    lower, upper = float(skewness_corrected_t(z, level)), -float(skewness_corrected_t(-z, level))
    method: Literal["bca", "t"] = "t"
    if x.size >= MIN_SUBJECTS:
        bca_lower, bca_upper = _bca(z, level, bootstrap_samples, seed)
        if bca_lower < lower:
            lower, method = bca_lower, "bca"
        upper = max(upper, bca_upper)
    return MeanBounds(float(mean), float(sd), float(mean + sd * lower), float(mean + sd * upper), method)


def subject_means(values: Sequence[float] | FloatArray, subjects: Sequence[str]) -> FloatArray:
    """The mean of each subject's values, subjects in the order of their first value.

    Cases of one subject are not independent, so subjects are resampled and counted, with equal weights.
    """
    grouped: dict[str, list[float]] = {}
    for value, subject in zip(values, subjects, strict=True):
        grouped.setdefault(subject, []).append(value)
    return np.array([np.mean(group) for group in grouped.values()], dtype=np.float64)


def _power(n: int, sd: float, margin: float, alpha: float, error: float) -> float:
    """The probability that the rule passes with ``n`` subjects if there is no true difference."""
    room = -least_mean(n, margin, error)
    if sd == 0 or margin / sd > 30:
        return float(room > 0)
    distance = margin * math.sqrt(n) / sd
    if n > 1000:
        bound = special.ndtr(distance - special.ndtri(1 - alpha))
    elif distance > 30:
        bound = 1.0
    else:
        level = bound_alpha(n, alpha)
        bound = 1 - special.nctdtr(n - 1, distance, special.stdtrit(n - 1, 1 - level))
    return float(min(bound, special.ndtr(room * math.sqrt(n) / sd)))


def subjects_needed(sd: float, margin: float, *, alpha: float = 0.05, error: float | None = None) -> int | None:
    """The subjects that the rule of this package needs: the textbook number with its corrections.

    The quantile of t adds about two subjects, and the stricter rule for few subjects makes 16 the minimum; skewness is
    ignored. For a standard deviation of 0.02, 0.03 and 0.05 and a margin of 0.01: 29, 58 and 156.

    Args:
        sd: standard deviation of the paired differences.
        margin: the non-inferiority margin, positive, in the same unit.
        alpha: one-sided error level of the bound.
        error: that of the whole test, for the room for unseen drops, if the bound is corrected for several tests.

    Returns:
        The smallest such number; None if ten million are not enough.
    """
    of_test = alpha if error is None else error

    def power(n: int) -> float:
        return _power(n, sd, margin, alpha, of_test)

    for n in range(MIN_SUBJECTS, FULL_SUBJECTS):
        if power(n) >= POWER:
            return n
    return least_subjects(power, FULL_SUBJECTS, most=_LARGEST_SAMPLE, parts=_LARGEST_SAMPLE)


def least_subjects(power: Callable[[int], float], start: int, most: int, parts: int) -> int | None:
    """The smallest number of subjects with a power of :data:`POWER`, found by doubling and bisection.

    Args:
        power: by the number of subjects, which it grows with.
        start: the smallest number to consider.
        most: the largest number to double to.
        parts: the number may be too large by one of so many parts of itself.

    Returns:
        The number; None if ``most`` are not enough.
    """
    low, high = start - 1, start
    while power(high) < POWER:
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > max(1, low // parts):
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high
