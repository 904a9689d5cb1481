"""How a pruning report writes metrics, bounds, times and names, so that all files agree."""

from __future__ import annotations

import math
from collections.abc import Sequence

from monai_unetpp.errors import counted
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.metrics import METRICS
from monai_unetpp.pruning.results import Comparison
from monai_unetpp.pruning.rules import COST_KEYS, parse_budget
from monai_unetpp.pruning.statistics import FULL_SUBJECTS, MIN_SUBJECTS, bound_alpha
from monai_unetpp.pruning.summary import ALL, MetricSummary
from monai_unetpp.reporting.numbers import decimal, percent, significant
from monai_unetpp.reporting.tables import Tone

_TIMES = "\N{MULTIPLICATION SIGN}"

STATE_TONES: dict[str, Tone] = {"pass": "good", "fail": "bad", "inconclusive": "unsure"}
"""Tone by the state of a comparison."""


def rule_in_words(rule: str) -> str:
    """A rule of a trade-off from ``report.json``, in words.

    Example:
        >>> rule_in_words("pareto accuracy/latency_ms+memory_mb")
        'Pareto front: accuracy against time per volume and peak memory'
    """
    front, _, costs = rule.partition("/")
    if front.startswith("pareto"):
        goals = front.removeprefix("pareto").strip()
        against = " and ".join(COST_KEYS[key].words for key in costs.split("+") if key)
        return "Pareto front" + (f": {goals} against {against}" if goals and against else "")
    if rule.startswith("utility accuracy-"):
        weight, _, key = rule.removeprefix("utility accuracy-").partition("*")
        return f"Utility: accuracy minus {weight} times the relative {COST_KEYS[key].words}"
    limits = (parse_budget(limit.replace("<=", "=")) for limit in rule.split(" and "))
    return f"Budget: {' and '.join(limit.in_words for limit in limits)}"


def capitalised(text: str) -> str:
    """``text`` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def format_metric(key: str, value: float) -> str:
    """A value of a metric with its standard decimals, without its unit; lengths and volumes may be tiny."""
    metric = METRICS[key]
    return decimal(value, metric.decimals) if metric.unit else f"{value:.{metric.decimals}f}"


def format_difference(key: str, value: float) -> str:
    """A difference of a metric, always signed."""
    return "not finite" if math.isnan(value) else f"{value:+.{METRICS[key].difference_decimals}f}"


def few_subjects(count: int) -> str:
    """Says that so many subjects are too few for any verdict, without a full stop."""
    are = "is" if count == 1 else "are"
    return f"{counted(count, 'subject')} {are} fewer than the {MIN_SUBJECTS} that any verdict needs"


def confidence(alpha: float) -> str:
    """``1 - alpha`` in percent."""
    text = percent(1 - alpha, ".4g")
    # as many digits as tell it from certainty
    return percent(1 - alpha, f".{2 + math.ceil(-math.log10(alpha))}g") if text == "100 %" else text


def interval_note(alpha: float, comparisons: Sequence[Comparison]) -> str:
    """A note on the intervals of these comparisons."""
    levels = sorted({bound_alpha(c.clusters, alpha) for c in comparisons}, reverse=True)
    fewest = min((c.clusters for c in comparisons), default=FULL_SUBJECTS)
    few = f" (up to {confidence(levels[-1])} with only {fewest} subjects)" if len(levels) > 1 else ""
    bound = confidence(levels[0])
    return (
        "Differences are level minus deepest, signed so that negative is worse at the level; subjects have equal "
        f"weights. In brackets: the one-sided {bound} lower and upper bounds of the mean difference{few}, together an "
        f"interval of {confidence(2 * levels[0])}. Only the lower bound lets a level pass."
    )


def mean_and_sd(key: str, summary: MetricSummary) -> str | None:
    """Mean ± standard deviation of a metric; None if no case has it."""
    if summary.mean is None:
        return None
    mean = format_metric(key, summary.mean)
    return mean if summary.sd is None else f"{mean} ± {format_metric(key, summary.sd)}"


def interval(comparison: Comparison) -> str:
    """A mean difference with its two bounds in brackets."""
    key = comparison.metric
    lower, upper = (format_difference(key, bound) for bound in (comparison.lower_bound, comparison.upper_bound))
    return f"{format_difference(key, comparison.mean_difference)} ({lower} to {upper})"


def quartiles(time: Quartiles, scale: float) -> str:
    """Median and quartiles times ``scale``."""
    median, lower, upper = (significant(value * scale) for value in (time.median, time.lower, time.upper))
    return f"{median} ({lower} to {upper})"


def speed_up(value: float | None) -> str | None:
    """How many times as fast; None if unknown."""
    return None if value is None else f"{significant(value, 2 if value < 10 else 3)}{_TIMES}"


def quoted(name: str) -> str:
    """A name in quotation marks."""
    return f"“{name}”"


def data_set_in_words(dataset: str) -> str:
    """The name of a data set, or words for all of them."""
    return "all data sets together" if dataset == ALL else dataset


def named_data_set(dataset: str) -> str:
    """A data set in a sentence."""
    return data_set_in_words(dataset) if dataset == ALL else quoted(dataset)


def part_in_words(role: str) -> str:
    """After the name of a data set that was split: what these cases are for; empty for one that was not."""
    clause = role_in_words(role)
    return f", cases{clause}" if clause else ""


def role_in_words(role: str) -> str:
    """After the cases of a data set that was split: what they are for; empty for one that was not."""
    return "" if role == "choose and report" else f" that {role} the level"
