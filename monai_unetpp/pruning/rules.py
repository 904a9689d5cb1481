"""The rules of a verdict: margins, limits, error level and budgets, fixed before any case is scored.

Importing this module does not import torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from monai_unetpp.metrics.definitions import METRICS, check_metric
from monai_unetpp.options import option


class Cost(NamedTuple):
    """What a cost is, in words, and its unit."""

    words: str
    unit: str


COST_KEYS: dict[str, Cost] = {
    "latency_ms": Cost("time per volume", "ms"),
    "window_latency_ms": Cost("time per window", "ms"),
    "parameters": Cost("size of the network", "parameters"),
    "memory_mb": Cost("peak memory", "MB"),
    "flops": Cost("operations per window", "operations"),
    "checkpoint_mb": Cost("size of the weights", "MB"),
    "energy_j": Cost("energy per volume", "J"),
}
"""What can be traded against accuracy, by key; less is always better.

Times and energy are medians, the time per volume is what a user waits, and a MB has 10^6 bytes.
"""


@dataclasses.dataclass(frozen=True)
class Budget:
    """The most that an operating point may cost."""

    key: str
    value: float

    def __post_init__(self) -> None:
        if self.key not in COST_KEYS:
            raise ValueError(f"cost must be one of {', '.join(COST_KEYS)}, got {self.key!r}.")
        if not (math.isfinite(self.value) and self.value > 0):
            raise ValueError(f"budget must be positive, got {self.value} for {self.key}.")

    def __str__(self) -> str:
        return f"{self.key}<={self.value:.12g}"

    @property
    def in_words(self) -> str:
        """Such as ``"time per volume of at most 50 ms"``."""
        return f"{COST_KEYS[self.key].words} of at most {self.value:.12g} {COST_KEYS[self.key].unit}"


@dataclasses.dataclass(frozen=True)
class Margin:
    """The largest mean loss that still counts as equal, to be fixed before looking at results.

    Attributes:
        metric: ``"dice"``, ``"iou"``, ``"nsd"`` (larger is better) or ``"hd95_mm"`` (smaller is better).
        value: the margin, positive, in the metric's unit.
        labels: names of the guarded labels; None for every label separately.

    Raises:
        ValueError: an unknown metric, a value out of range, or no labels.
    """

    metric: str
    value: float
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_metric(self.metric)
        if not (math.isfinite(self.value) and self.value > 0):
            raise ValueError(
                f"margin must be positive, got {self.value} for {self.metric}. It is the largest mean loss to accept."
            )
        if METRICS[self.metric].larger_is_better and self.value >= 1:
            raise ValueError(
                f"margin must be below 1, got {self.value:g} for {self.metric}: no level could lose more. Take 0.01."
            )
        if self.labels is not None and (not self.labels or isinstance(self.labels, str)):
            raise ValueError(f"labels must be names of labels or None for all, got {self.labels!r}.")

    def __str__(self) -> str:
        labels = "" if self.labels is None else f":{','.join(self.labels)}"
        return f"{self.metric}{labels}={self.value:g}"


DEFAULT_MARGINS: tuple[Margin, ...] = tuple(
    Margin(metric.key, metric.margin) for metric in METRICS.values() if metric.margin is not None
)
"""Guarded by default: Dice and normalised surface Dice of every label."""

DEFAULT_MAX_CASE_DROP: Mapping[str, float] = {
    metric.key: metric.case_drop for metric in METRICS.values() if metric.case_drop is not None
}
"""The largest drops of a single case, twenty times the default margins."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """The rules of a verdict.

    Margins and limits may be strings, as on the command line; they are stored as :class:`Margin` and as a dict.

    Attributes:
        margins: what to guard; a margin with labels takes precedence over one without.
        max_case_drop: the size of a large drop of a single case, for guarded labels and metrics; large drops are
            weighed against large gains. A dict holds all limits; strings such as ``"dice=0.2"`` change single limits
            and leave the others at their defaults.
        min_reference: the lowest mean Dice of a guarded label at the deepest level; below it no level can pass, since a
            broken level is no reference.
        alpha: one-sided error level, above 0 and below 0.5.
        bootstrap_samples: resamples of the bootstrap.
        seed: of the bootstrap, of the split by ``confirm_share`` and of the measurements. The same rules and scores
            always give the same verdict.
        budgets: such as ``"latency_ms=50"``: also pick the cheapest level within all of them that
            is shown to be as good as the most accurate one there.
        utility_weight: accuracy that the full cost of the most expensive level is worth; also pick the level with the
            highest utility.

    Raises:
        ValueError: a value out of range, an unknown metric, or a limit given twice.
    """

    margins: tuple[Margin, ...] = option(
        DEFAULT_MARGINS,
        flags=("--margin",),
        action="append",
        metavar="METRIC[:LABEL]=VALUE",
        help="largest mean loss that still counts as equal; repeatable; margins that are given replace all defaults "
        f"({', '.join(map(str, DEFAULT_MARGINS))})",
    )
    max_case_drop: dict[str, float] = option(
        None,
        action="append",
        metavar="METRIC=VALUE",
        help="smallest drop of a single case that counts as large; repeatable; other metrics keep their default "
        "(dice=0.2, iou=0.2 and nsd=0.4)",
    )
    min_reference: float = option(
        0.5,
        type=float,
        metavar="DICE",
        help="lowest mean Dice of a guarded label at the deepest level; below it no level can pass",
    )
    alpha: float = option(0.05, type=float, metavar="ALPHA", help="one-sided error level")
    bootstrap_samples: int = 9999
    seed: int = option(0, type=int, metavar="SEED", help="seed of the bootstrap and of the split by --confirm_share")
    budgets: tuple[str, ...] = option(
        (),
        flags=("--budget",),
        action="append",
        metavar="COST=VALUE",
        help="also pick the cheapest level that costs no more than this and is as good as the most accurate level that "
        "does; COST is latency_ms (whole volume), window_latency_ms, parameters, memory_mb, flops, checkpoint_mb or "
        "energy_j; repeatable",
    )
    utility_weight: float | None = option(
        None, type=float, metavar="W", help="also pick by accuracy minus W times the relative latency"
    )

    def __post_init__(self) -> None:
        # scipy is slow to import
        from monai_unetpp.pruning.statistics import check_alpha

        margins = DEFAULT_MARGINS if self.margins is None else as_list(self.margins)
        kept = tuple(each if isinstance(each, Margin) else parse_margin(each) for each in margins)
        if not kept:
            raise ValueError("margins must name one metric or more, got none. Leave it out for Dice 0.01 and NSD 0.02.")
        _check_repeated(kept)
        object.__setattr__(self, "margins", kept)
        object.__setattr__(self, "max_case_drop", _limits(self.max_case_drop))
        object.__setattr__(self, "budgets", tuple(as_list(self.budgets or ())))
        check_alpha(self.alpha)
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}. Give another number.")
        if not 0 <= self.min_reference < 1:
            raise ValueError(
                f"min_reference must be 0 or more and below 1, got {self.min_reference}. 0.5 is the default."
            )
        if self.bootstrap_samples < 100:
            raise ValueError(f"bootstrap_samples must be 100 or more, got {self.bootstrap_samples}. Take 9999.")
        for budget in self.budgets:
            parse_budget(budget)
        weight = self.utility_weight
        if weight is not None and not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"utility_weight must be 0 or more, got {weight}. 0.02 is two points of Dice.")

    def margin_of(self, metric: str, label: str) -> float | None:
        """The margin of a metric and label; None if nothing guards it."""
        fitting = [each for each in self.margins if each.metric == metric and (not each.labels or label in each.labels)]
        return min(fitting, key=lambda each: each.labels is None).value if fitting else None

    def check_labels(self, known: Sequence[str]) -> None:
        """Refuse margins for labels other than the ``known`` ones.

        Raises:
            ValueError: there is one.
        """
        unknown = next((name for margin in self.margins for name in margin.labels or () if name not in known), None)
        if unknown is not None:
            meant = [name for name in known if name.casefold() == unknown.casefold()]
            remedy = f"Write {meant[0]!r}." if meant else "Correct the name."
            raise ValueError(f"margins must name labels among {', '.join(known)}, got {unknown!r}. {remedy}")


def as_list(given: str | Sequence[Any]) -> Sequence[Any]:
    """``given`` as a list, with a single string as its only entry."""
    return [given] if isinstance(given, str) else given


def parse_budget(text: str) -> Budget:
    """A budget from a text such as ``"latency_ms=50"``; for the keys see :data:`COST_KEYS`.

    Example:
        >>> parse_budget("parameters=2e6")
        Budget(key='parameters', value=2000000.0)
    """
    return Budget(*name_and_value(text, "budget", "latency_ms=50"))


def name_and_value(text: str, argument: str, example: str) -> tuple[str, float]:
    """The name and the number of a text such as ``"dice=0.01"``; argument and example are for the message."""
    name, equals, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not equals or not name or not math.isfinite(value):
        raise ValueError(f"{argument} must be a name, '=' and a number, got {text!r}. Write it like {example}.")
    return name.strip(), value


def parse_margin(text: str) -> Margin:
    """A margin from its text: ``"dice=0.01"`` for every label, ``"dice:Anterior,Posterior=0.02"`` for some.

    Example:
        >>> parse_margin("nsd:Anterior=0.02")
        Margin(metric='nsd', value=0.02, labels=('Anterior',))
    """
    name, value = name_and_value(text, "margin", "dice=0.01 or dice:Anterior=0.02")
    metric, colon, names = name.partition(":")
    labels = tuple(label.strip() for label in names.split(",")) if colon else None
    if labels is not None and not all(labels):
        raise ValueError(f"margin must name labels after the colon, got {text!r}. Write it like dice:Anterior=0.02.")
    return Margin(metric.strip(), value, labels)


def _limits(given: Mapping[str, float] | str | Sequence[str] | None) -> dict[str, float]:
    if isinstance(given, Mapping):
        limits = dict(given)
    else:
        pairs = [name_and_value(text, "max_case_drop", "dice=0.1") for text in as_list(given or ())]
        metrics = [metric for metric, _ in pairs]
        repeated = next((metric for metric in metrics if metrics.count(metric) > 1), None)
        if repeated is not None:
            raise ValueError(f"max_case_drop must name a metric once, got {repeated!r} twice. Give one limit for it.")
        limits = {**DEFAULT_MAX_CASE_DROP, **dict(pairs)}
    for metric, limit in limits.items():
        check_metric(metric)
        if not limit > 0:
            raise ValueError(f"max_case_drop must be positive, got {limit} for {metric}. Give a positive number.")
    return limits


def _check_repeated(margins: Sequence[Margin]) -> None:
    guarded: set[tuple[str, str | None]] = set()
    for margin in margins:
        for label in margin.labels or (None,):
            if (margin.metric, label) in guarded:
                of = "" if label is None else f" of {label!r}"
                raise ValueError(f"margins must guard {margin.metric}{of} once, got two margins. Give one for it.")
            guarded.add((margin.metric, label))
