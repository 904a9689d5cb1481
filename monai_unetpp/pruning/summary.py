"""Figures from a pruning result: average scores, relative costs, worst cases, and the levels and decisions to show."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Collection, Sequence
from typing import get_args

from monai_unetpp.metrics import FOREGROUND, METRICS
from monai_unetpp.metrics.scores import State
from monai_unetpp.pruning.results import Decision, OperatingPoint, PointCost, PruningResult, ScoreRow

ALL = "all"
_WORST_CASES = 5


@dataclasses.dataclass(frozen=True)
class MetricSummary:
    """Mean and standard deviation of a metric over the cases that have it; None if there are none."""

    mean: float | None
    sd: float | None
    cases: int


@dataclasses.dataclass(frozen=True)
class AccuracySummary:
    """The accuracy of one operating point on one label of one data set (``"all"``: all together)."""

    dataset: str
    point: str
    label: str
    cases: int
    ok: int
    missed: int
    false_positive: int
    both_empty: int
    metrics: dict[str, MetricSummary]


@dataclasses.dataclass(frozen=True)
class RelativeCost:
    """The cost of an operating point relative to the deepest level; None if either was not measured."""

    point: str
    window_speed_up: float | None
    volume_speed_up: float | None
    parameter_share: float | None
    memory_share: float | None


@dataclasses.dataclass(frozen=True)
class WorstCase:
    """The Dice of a label of a case at the chosen (or refused) level and at the deepest."""

    dataset: str
    case: str
    label: str
    deepest_dice: float
    chosen_dice: float
    difference: float


@dataclasses.dataclass(frozen=True)
class Summary:
    """The figures that the report adds to the result; in ``report.json`` under ``"summary"``."""

    accuracy: tuple[AccuracySummary, ...]
    costs: tuple[RelativeCost, ...]
    worst_cases: tuple[WorstCase, ...]
    grid: tuple[AccuracySummary, ...] = ()

    def of(self, dataset: str, point: str, label: str) -> AccuracySummary | None:
        """The summary of one label, or None if nothing was scored."""
        return next((a for a in self.accuracy if (a.dataset, a.point, a.label) == (dataset, point, label)), None)


def data_sets(result: PruningResult) -> tuple[str, ...]:
    """Names of the data sets in the order of the rows, after ``"all"`` if there are several."""
    names = tuple(dict.fromkeys(row.dataset for row in result.rows))
    return (ALL, *names) if len(names) > 1 else names


def shown_labels(result: PruningResult) -> tuple[str, ...]:
    """The labels in order, then the pooled foreground; a single label is its own foreground."""
    scored = {row.label for row in result.rows}
    labels = [label for label in result.labels if label in scored]
    extra = sorted(scored - set(labels))
    return tuple(labels + (extra if len(labels) != 1 else [name for name in extra if name != FOREGROUND]))


def deepest_point(result: PruningResult) -> OperatingPoint:
    """The deepest level of the evaluated network, with which all other points are compared."""
    return next(point for point in reversed(result.points) if point.kind == "embedded")


def ordered_decisions(result: PruningResult) -> tuple[Decision, ...]:
    """The decisions, the most important first: a confirmation before a choice, all data sets before one."""
    return tuple(sorted(result.decisions, key=lambda d: (d.role != "confirm", d.dataset != ALL)))


def verdict(result: PruningResult) -> Decision:
    """The final decision: the confirmation if there is one, else the choice; on all data sets if several.

    Raises:
        ValueError: there is no decision.
    """
    if not result.decisions:
        raise ValueError("result.decisions must hold at least one decision, got none. Decide before reporting.")
    return ordered_decisions(result)[0]


def is_confirmed(result: PruningResult) -> bool:
    """Whether other cases than those that chose the level give the final decision, whatever it is."""
    return verdict(result).role == "confirm"


def chosen_point(result: PruningResult) -> OperatingPoint | None:
    """The operating point named by the final decision."""
    level = verdict(result).level
    return next((p for p in result.points if p.kind == "embedded" and level in (p.name, p.level)), None)


def shown_loser(result: PruningResult) -> OperatingPoint | None:
    """The level whose worst cases are shown; None if there is only one.

    It is the chosen level, or the one that failed: in its confirmation, or else the first one tested.
    """
    embedded = [point for point in result.points if point.kind == "embedded"]
    if len(embedded) < 2:
        return None
    final, deepest = verdict(result), embedded[-1]
    tried = [each.level for each in result.decisions if each.role == "choose" and each.verdict == "prune"]
    # where the choice was withdrawn, its confirmation still tells which level it was
    tried = tried or [each.point for made in result.decisions if made.role == "confirm" for each in made.comparisons]
    if final.level not in (deepest.name, deepest.level):
        shown = final.level
    else:
        shown = tried[-1] if final.role == "confirm" and tried else embedded[-2].level
    return next(point for point in embedded if shown in (point.name, point.level))


def point_role(point: OperatingPoint, result: PruningResult) -> str:
    """The role of a point in this report, in words."""
    if point.kind == "extra":
        return "further checkpoint"
    pick = "chosen" if verdict(result).verdict == "prune" else "kept"
    owners = ((pick, chosen_point(result)), ("deepest", deepest_point(result)))
    roles = [role for role, owner in owners if owner == point]
    return ", ".join(roles) or "cut out of the full network"


def judged_rows(result: PruningResult, decision: Decision | None) -> list[ScoreRow]:
    """The scores of the cases that a decision is about: those that chose the level, or those that only confirm it."""
    confirms = decision is not None and decision.role == "confirm"
    asked = ALL if decision is None else decision.dataset
    return [
        row
        for row in result.rows
        if asked in (ALL, row.dataset) and ((row.dataset, row.case) in result.confirming) == confirms
    ]


def summarise(result: PruningResult) -> Summary:
    """Average scores, costs relative to the deepest level, and the worst cases of the chosen one."""
    deepest, grid = deepest_point(result), result.grid
    reference = result.costs.get(deepest.name)
    costs = tuple(_relative_cost(p.name, result.costs.get(p.name), reference) for p in result.points)
    at_settings = () if grid is None else _accuracy(dataclasses.replace(result, points=grid.points, rows=grid.rows))
    return Summary(_accuracy(result), costs, _worst_cases(result), at_settings)


def _accuracy(result: PruningResult) -> tuple[AccuracySummary, ...]:
    groups: dict[tuple[str, str, str], list[ScoreRow]] = {}
    names = data_sets(result)
    for row in result.rows:
        for dataset in (row.dataset, ALL) if ALL in names else (row.dataset,):
            groups.setdefault((dataset, row.point, row.label), []).append(row)
    labels = (*result.labels, *sorted({row.label for row in result.rows} - set(result.labels)))
    order = [(dataset, point.name, label) for dataset in names for point in result.points for label in labels]
    return tuple(_summarise_group(*key, groups[key]) for key in order if key in groups)


def _summarise_group(dataset: str, point: str, label: str, rows: Sequence[ScoreRow]) -> AccuracySummary:
    states = Counter(row.score.state for row in rows)
    scored = [row.score for row in rows if row.score.state != "both_empty"]
    values: dict[str, list[float]] = {
        key: [float(value) for value in (getattr(score, key) for score in scored) if value is not None]
        for key in METRICS
    }
    return AccuracySummary(
        dataset=dataset,
        point=point,
        label=label,
        cases=len(rows),
        **{state: states[state] for state in get_args(State)},
        metrics={key: _mean_and_sd(numbers) for key, numbers in values.items()},
    )


def _mean_and_sd(values: Sequence[float]) -> MetricSummary:
    return MetricSummary(
        mean=statistics.fmean(values) if values else None,
        sd=statistics.stdev(values) if len(values) > 1 else None,
        cases=len(values),
    )


def _relative_cost(point: str, cost: PointCost | None, reference: PointCost | None) -> RelativeCost:
    if cost is None or reference is None:
        return RelativeCost(point, None, None, None, None)
    return RelativeCost(
        point,
        window_speed_up=_ratio(reference.window_latency_s.median, cost.window_latency_s.median),
        volume_speed_up=_ratio(reference.volume_latency_s.median, cost.volume_latency_s.median),
        parameter_share=_ratio(cost.parameters, reference.parameters),
        memory_share=_ratio(cost.peak_memory_bytes, reference.peak_memory_bytes),
    )


def _ratio(value: float, reference: float) -> float | None:
    return value / reference if reference > 0 else None


def _worst_cases(result: PruningResult) -> tuple[WorstCase, ...]:
    chosen = shown_loser(result)
    if chosen is None:
        return ()
    labels = set(shown_labels(result)) - {FOREGROUND} or {FOREGROUND}
    losses = losses_of_cases(result.rows, labels, chosen.name, deepest_point(result).name)
    return tuple(loss for loss in losses[:_WORST_CASES] if loss.difference < 0)


def losses_of_cases(rows: Sequence[ScoreRow], labels: Collection[str], chosen: str, deepest: str) -> list[WorstCase]:
    """The difference in Dice between two levels of every label of every case, the largest loss first.

    Labels that are absent in the truth and at both levels are left out.
    """
    dice: dict[tuple[str, str, str], dict[str, float | None]] = {}
    for row in rows:
        if row.label in labels and row.point in (chosen, deepest):
            dice.setdefault((row.dataset, row.case, row.label), {})[row.point] = row.score.dice
    losses = []
    for key, values in dice.items():
        if {chosen, deepest} == values.keys() and set(values.values()) != {None}:
            # a correctly empty prediction has no score and counts as perfect
            less, most = (1.0 if value is None else value for value in (values[chosen], values[deepest]))
            losses.append(WorstCase(*key, most, less, less - most))
    return sorted(losses, key=lambda loss: loss.difference)
