"""How often the decision accepts what it should not, and what it should: the tables of ``docs/pruning/STATISTICS.md``.

Run ``python -m benchmarks.simulate`` to print them, with ``--into docs/pruning/STATISTICS.md`` to renew them there.
Differences are drawn in units of their standard deviation with mean 0; a true drop equal to the margin is then the
case ``ratio * sample - 1`` in units of the margin, where ``ratio`` is the standard deviation over the margin.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy import special, stats

from benchmarks.command import run_command
from monai_unetpp.files import write_text
from monai_unetpp.pruning.decision.samples import FAIL, GuardSample, PointSamples, is_excess, is_excess_excluded
from monai_unetpp.pruning.statistics import (
    MIN_SUBJECTS,
    POWER,
    FloatArray,
    bound_alpha,
    is_non_inferior,
    skewness_corrected_t,
    standardised,
    subjects_needed,
)
from monai_unetpp.reporting.markdown import format_table

RATIOS: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
"""Standard deviations in units of the margin."""

_BEGIN, _END = "<!-- simulated tables: begin -->", "<!-- simulated tables: end -->"


@dataclasses.dataclass(frozen=True)
class Shape:
    """A distribution of differences with mean 0 and standard deviation 1.

    Attributes:
        name: what it is, in words.
        skewness: its third standardised moment.
        draw: takes a generator and a shape.
    """

    name: str
    skewness: float
    draw: Callable[[np.random.Generator, tuple[int, ...]], FloatArray]


def _gamma(k: float) -> Shape:
    def draw(rng: np.random.Generator, size: tuple[int, ...]) -> FloatArray:
        values: FloatArray = (k - rng.gamma(k, size=size)) / math.sqrt(k)
        return values

    return Shape(f"reversed gamma, k = {k:g}", -2 / math.sqrt(k), draw)


def _lognormal(sigma: float) -> Shape:
    w = math.exp(sigma**2)

    def draw(rng: np.random.Generator, size: tuple[int, ...]) -> FloatArray:
        values: FloatArray = (math.sqrt(w) - np.exp(sigma * rng.normal(size=size))) / math.sqrt(w * (w - 1))
        return values

    return Shape(f"reversed lognormal, sigma = {sigma:g}", -(w + 2) * math.sqrt(w - 1), draw)


def _drops(rate: float, size_sd: float) -> Shape:
    """Normal differences of which a share drops by ``size_sd`` of their standard deviations."""
    variance = 1 + rate * (1 - rate) * size_sd**2
    third = -rate * (1 - rate) * (1 - 2 * rate) * size_sd**3

    def draw(rng: np.random.Generator, size: tuple[int, ...]) -> FloatArray:
        values: FloatArray = rng.normal(size=size) - size_sd * (rng.random(size) < rate) + rate * size_sd
        return values / math.sqrt(variance)

    return Shape(f"{100 * rate:g} % drop by {size_sd:g} SD", third / variance**1.5, draw)


MODERATE_SHAPES: tuple[Shape, ...] = (
    Shape("normal", 0.0, lambda rng, size: rng.normal(size=size)),
    _gamma(4),
    _gamma(2),
    _gamma(1),
    _lognormal(0.5),
    _drops(0.2, 3),
    _drops(0.1, 3),
    _drops(0.1, 4),
    _drops(0.1, 5),
)
"""Normal and moderately left-skewed differences, for which the level holds."""

HEAVY_SHAPES: tuple[Shape, ...] = (
    _lognormal(1.0),
    _drops(0.1, 10),
    _drops(0.05, 5),
    _drops(0.05, 10),
    _drops(0.02, 10),
    _drops(0.02, 20),
)
"""Rare very large drops, which small samples often do not hold at all."""


def bca_lower_bounds(samples: FloatArray, alpha: float, bootstrap_samples: int, seed: int) -> FloatArray:
    """What ``scipy.stats.bootstrap`` gives as lower BCa bounds of the mean, for many samples at once.

    The resamples are those of scipy with the same seed; means of resamples are one matrix product with the counts. The
    samples ``(R, n)`` are standardised, none of them constant.
    """
    n = samples.shape[1]
    drawn = np.random.default_rng(seed).integers(0, n, (bootstrap_samples, n))
    counts = np.zeros((n, bootstrap_samples))
    np.add.at(counts, (drawn, np.arange(bootstrap_samples)[:, None]), 1.0)
    bounds = np.empty(len(samples))
    step = max(1, 4_000_000 // bootstrap_samples)
    for start in range(0, len(samples), step):
        part = samples[start : start + step]
        resampled = np.round(part @ counts / n, 10)
        mean = np.round(part.mean(axis=1, keepdims=True), 10)
        below = ((resampled < mean).mean(axis=1) + (resampled <= mean).mean(axis=1)) / 2
        bias = stats.norm.ppf(below)
        centred = part - part.mean(axis=1, keepdims=True)
        acceleration = (centred**3).sum(axis=1) / (6 * ((centred**2).sum(axis=1)) ** 1.5)
        shifted = bias + stats.norm.ppf(alpha)
        position = stats.norm.cdf(bias + shifted / (1 - acceleration * shifted)) * (bootstrap_samples - 1)
        resampled.sort(axis=1)
        lower = np.floor(position).astype(int)
        upper = np.minimum(lower + 1, bootstrap_samples - 1)
        rows = np.arange(len(part))
        share = position - lower
        bounds[start : start + step] = resampled[rows, lower] * (1 - share) + resampled[rows, upper] * share
    return bounds


def lower_bounds(
    samples: FloatArray, *, alpha: float = 0.05, bootstrap_samples: int = 2000, seed: int = 0
) -> FloatArray:
    """The lower bounds of :func:`~monai_unetpp.pruning.statistics.mean_bounds` for many samples ``(R, n)`` at once."""
    level = bound_alpha(samples.shape[1], alpha)
    bounds = skewness_corrected_t(samples, level)
    if samples.shape[1] >= MIN_SUBJECTS:
        z, mean, sd = standardised(np.sort(samples, axis=1))  # as mean_bounds does
        varying = sd > 0
        bca = mean[varying] + sd[varying] * bca_lower_bounds(z[varying], level, bootstrap_samples, seed)
        bounds[varying] = np.minimum(bounds[varying], bca)
    return bounds


def acceptance(
    shape: Shape,
    subjects: int,
    *,
    drop: float = 1.0,
    ratios: Sequence[float] = RATIOS,
    repetitions: int = 4000,
    alpha: float = 0.05,
    bootstrap_samples: int = 2000,
    seed: int = 0,
) -> dict[float, float]:
    """The share of samples that the rule accepts, by standard deviation in units of the margin.

    Args:
        shape: distribution of the differences.
        subjects: size of a sample.
        drop: the true one, in units of the margin.
        ratios: the standard deviations.
        repetitions: number of samples.
        alpha: one-sided error level.
        bootstrap_samples: resamples of the bootstrap.
        seed: of the samples and, apart from them, of the bootstrap.
    """
    samples = shape.draw(np.random.default_rng([seed, subjects]), (repetitions, subjects))
    lower = lower_bounds(samples, alpha=alpha, bootstrap_samples=bootstrap_samples, seed=seed)
    mean = samples.mean(axis=1)
    options: dict[str, Any] = {"subjects": subjects, "margin": 1.0, "alpha": alpha}
    return {
        ratio: float(np.mean(is_non_inferior(ratio * lower - drop, ratio * mean - drop, **options))) for ratio in ratios
    }


def _methods(samples: FloatArray, alpha: float, bootstrap_samples: int, seed: int) -> list[float]:
    """Share of bounds above the true mean 0 by plain t, BCa, skewness-corrected t, and the lower of the last two."""
    n = samples.shape[1]
    z, mean, sd = standardised(samples)
    plain = mean - float(stats.t.ppf(1 - alpha, n - 1)) * sd / math.sqrt(n)
    bca = mean + sd * bca_lower_bounds(z, alpha, bootstrap_samples, seed)
    corrected = skewness_corrected_t(samples, alpha)
    return [float(np.mean(bound > 0)) for bound in (plain, bca, corrected, np.minimum(bca, corrected))]


def _bounds_table(repetitions: int, bootstrap_samples: int, seed: int, alpha: float) -> list[str]:
    rows = []
    for shape in MODERATE_SHAPES:
        cells = []
        for subjects in (10, 30, 100):
            samples = shape.draw(np.random.default_rng([seed, subjects]), (repetitions, subjects))
            cells += [f"{share:.3f}" for share in _methods(samples, alpha, bootstrap_samples, seed)]
        rows.append([shape.name, *cells])
    names = ("t", "BCa", "corrected t", "lower of both")
    header = ["differences", *(f"{name}, {n}" for n in (10, 30, 100) for name in names)]
    return ["### Bounds alone: share above the true mean, by number of subjects", format_table(header, rows)]


def _levels_table(repetitions: int, bootstrap_samples: int, seed: int, alpha: float) -> list[str]:
    """Where the stricter level of few subjects comes from."""
    divisors = (1, 2, 5, 10, 20)
    rows = []
    for shape in (*MODERATE_SHAPES[:2], MODERATE_SHAPES[3], *MODERATE_SHAPES[-2:]):
        samples = shape.draw(np.random.default_rng([seed, MIN_SUBJECTS]), (repetitions, MIN_SUBJECTS))
        shares = [_methods(samples, alpha / divisor, bootstrap_samples, seed)[-1] for divisor in divisors]
        rows.append([shape.name, *(f"{share:.3f}" for share in shares)])
    header = ["differences", *(f"{100 * (1 - alpha / divisor):.4g} %" for divisor in divisors)]
    return [
        "### Ten subjects: share of bounds above the true mean, by the level they are set at",
        format_table(header, rows),
    ]


def _rule_tables(**options: Any) -> list[str]:
    sizes = (10, 12, 15, 20, 24, 25, 27, 30, 60, 100)
    parts = []
    for title, shapes in (
        ("normal and moderately left-skewed differences", MODERATE_SHAPES),
        ("rare very large drops", HEAVY_SHAPES),
    ):
        rows = []
        for shape in shapes:
            shares = [acceptance(shape, subjects, **options) for subjects in sizes]
            rows.append([shape.name, f"{shape.skewness:.1f}", *(f"{max(share.values()):.3f}" for share in shares)])
        parts += [
            f"### The rule at a true drop equal to the margin: {title}",
            "Share of samples accepted, by number of subjects; the highest over standard deviations of "
            f"{', '.join(f'{ratio:g}' for ratio in RATIOS)} margins.",
            format_table(["differences", "skewness", *(str(n) for n in sizes)], rows),
        ]
    return parts


def sample_size(sd: float, margin: float, *, alpha: float = 0.05) -> int:
    """The textbook number of pairs for a non-inferiority test when there is no true difference.

    ``n = ((z_alpha + z_beta) * sd / margin) ** 2`` at a power of :data:`POWER`, rounded up. For a margin of 0.01 and a
    one-sided 5 %: 25, 56 and 155 pairs for a standard deviation of 0.02, 0.03 and 0.05. See Ahn et al. 2013,
    doi 10.1148/radiol.12120725; see :func:`subjects_needed` for the rule of this package.
    """
    z = float(special.ndtri(1 - alpha) + special.ndtri(POWER))
    return max(1, math.ceil((z * sd / margin) ** 2))


def _power_table(alpha: float, **options: Any) -> list[str]:
    rows = []
    for ratio in (0.5, 1.0, 1.5, 2.0, 3.0, 5.0):
        cells = []
        for size in (sample_size(ratio, 1.0, alpha=alpha), subjects_needed(ratio, 1.0, alpha=alpha) or MIN_SUBJECTS):
            share = acceptance(MODERATE_SHAPES[0], size, drop=0.0, ratios=(ratio,), alpha=alpha, **options)
            cells += [str(size), f"{share[ratio]:.3f}"]
        rows.append([f"{ratio:g}", *cells])
    header = ["SD / margin", "textbook n", "accepted", "n of the rule", "accepted"]
    return ["### The rule without a true difference: power", format_table(header, rows)]


def unseen_table() -> list[str]:
    """How often a sample holds none of the large drops that a share of all subjects has: (1 - rate)^n."""
    sizes = (10, 17, 25, 30, 60, 100, 150, 300)
    rows = [[f"{100 * rate:g} %", *(f"{(1 - rate) ** n:.2f}" for n in sizes)] for rate in (0.01, 0.02, 0.05, 0.1)]
    header = ["subjects with a large drop", *(str(n) for n in sizes)]
    return ["### Samples without a single large drop, by number of subjects", format_table(header, rows)]


def count_rates(
    worse: float, better: float, subjects: int, *, repetitions: int = 4000, alpha: float = 0.05, seed: int = 0
) -> tuple[float, float]:
    """How often counts of large drops and gains are refused, and how often they are accepted, by their true shares."""
    rng = np.random.default_rng([seed, subjects])
    counts = rng.multinomial(subjects, [worse, better, 1 - worse - better], size=repetitions)
    refused = is_excess(counts[:, 0], counts[:, 1], alpha)
    accepted = is_excess_excluded(counts[:, 0], counts[:, 1], subjects, alpha) & ~refused
    return float(np.mean(refused)), float(np.mean(accepted))


def _counts_table(repetitions: int, seed: int, alpha: float) -> list[str]:
    sizes = (30, 60, 110, 160, 400, 1000)
    rows = []
    for better in (0.0, 0.005, 0.02, 0.05):
        for worse in (better, better + 0.05):
            cells = [count_rates(worse, better, n, repetitions=repetitions, alpha=alpha, seed=seed) for n in sizes]
            shares = (f"{refused:.3f} / {accepted:.3f}" for refused, accepted in cells)
            rows.append([f"{100 * worse:g} %", f"{100 * better:g} %", *shares])
    return [
        "### Large drops and gains, or misses of either level: share of samples refused / accepted",
        "As the only test of a level. Refusing is wrong where both shares are equal, accepting where the first exceeds "
        "the second by 5 %. A sample without a single drop is accepted, and is left to the room for unseen drops.",
        format_table(["with a large drop", "with a large gain", *(str(n) for n in sizes)], rows),
    ]


def failing_rate(labels: int, subjects: int, *, repetitions: int = 500, alpha: float = 0.05, seed: int = 0) -> float:
    """How often a level fails that is as good as the deepest, by number of labels with one guarded metric each.

    The labels are independent, with normal differences whose standard deviation is three margins. Of each, 2 % of the
    subjects have a large drop, and 2 % a large gain.
    """
    rng = np.random.default_rng([seed, labels, subjects])
    everybody, failed = np.ones((1, subjects)), 0
    for _ in range(repetitions):
        differences = 3 * rng.normal(size=(labels, subjects))
        large = rng.choice([-1, 0, 1], p=[0.02, 0.96, 0.02], size=(labels, subjects))
        guards = tuple(
            GuardSample("dice", str(label), 1.0, (), differences[label], None, large[label]) for label in range(labels)
        )
        failed += int(PointSamples("L1", guards, (), held=False).states(everybody, alpha, alpha)[0] == FAIL)
    return failed / repetitions


def _failing_table(repetitions: int, seed: int, alpha: float) -> list[str]:
    sizes, samples = (30, 60, 100, 400), max(repetitions // 8, 1)
    rows = [
        [str(labels), *(f"{failing_rate(labels, n, repetitions=samples, alpha=alpha, seed=seed):.3f}" for n in sizes)]
        for labels in (1, 5, 20, 80)
    ]
    return [
        "### A level as good as the deepest: share of samples in which it fails, by number of subjects",
        f"{samples} samples each. Normal differences with a standard deviation of three margins; of each label, 2 % of "
        "the subjects have a large drop and 2 % a large gain.",
        format_table(["labels", *(str(n) for n in sizes)], rows),
    ]


def tables(repetitions: int = 4000, bootstrap_samples: int = 2000, seed: int = 0, alpha: float = 0.05) -> str:
    """All tables, as Markdown, with the versions and the date of the run."""
    error = math.sqrt(alpha * (1 - alpha) / repetitions)
    options: dict[str, Any] = {"repetitions": repetitions, "seed": seed, "alpha": alpha}
    bootstrap = {**options, "bootstrap_samples": bootstrap_samples}
    parts = [
        f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"{datetime.date.today().isoformat()}; {repetitions} samples each, {bootstrap_samples} resamples, seed {seed}, "
        f"one-sided alpha {alpha:g}, so that {alpha:g} is seen as {alpha - 3 * error:.3f} to {alpha + 3 * error:.3f} "
        "(three standard errors).",
        *_bounds_table(**bootstrap),
        *_levels_table(**bootstrap),
        *_rule_tables(**bootstrap),
        *unseen_table(),
        *_counts_table(**options),
        *_failing_table(**options),
        *_power_table(**bootstrap),
    ]
    return "\n\n".join(parts)


def _renew(path: Path, text: str) -> None:
    document = path.read_text(encoding="utf-8")
    before, begin, rest = document.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{path}: must hold the lines {_BEGIN} and {_END}. Add them where the tables belong.")
    write_text(path, f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or renew them in a document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=4000, help="samples for each entry")
    parser.add_argument("--bootstrap-samples", type=int, default=2000, help="resamples of the bootstrap")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--into", type=Path, help="a Markdown file whose tables to renew, instead of printing them")
    return run_command(parser, arguments, _simulate)


def _simulate(repetitions: int, bootstrap_samples: int, seed: int, into: Path | None) -> Iterator[str]:
    if repetitions < 1 or bootstrap_samples < 100:
        raise ValueError("--repetitions must be 1 or more and --bootstrap-samples 100 or more.")
    text = tables(repetitions, bootstrap_samples, seed)
    if into is None:
        yield text
    else:
        _renew(into, text)


if __name__ == "__main__":
    raise SystemExit(main())
