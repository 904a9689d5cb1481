"""Operating points picked by other rules than non-inferiority: fronts, budgets, utility."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from monai_unetpp.metrics.definitions import check_metric
from monai_unetpp.pruning.budgets import Budget, check_cost_key
from monai_unetpp.pruning.pairing import PairedScores
from monai_unetpp.pruning.results import PointCost, ScoreRow, TradeOff

__all__ = [
    "by_utility",
    "cost_value",
    "mean_accuracy",
    "pareto_front",
    "within_budget",
]


def cost_value(cost: PointCost, key: str) -> float:
    """What ``cost`` says about ``key``, in the key's unit.

    Raises:
        ValueError: an unknown key.
    """
    values = {
        "latency_ms": cost.volume_latency_s.median * 1e3,
        "window_latency_ms": cost.window_latency_s.median * 1e3,
        "parameters": float(cost.parameters),
        "memory_mb": cost.peak_memory_bytes / 1e6,
        "flops": float(cost.flops_per_window),
        "checkpoint_mb": cost.checkpoint_bytes / 1e6,
    }
    return values[check_cost_key(key)]


def mean_accuracy(rows: Sequence[ScoreRow], points: Sequence[str], metric: str = "dice") -> dict[str, float]:
    """The accuracy of each point: the mean over data sets of the mean over labels of the mean over cases.

    Labels weigh the same whatever their size, as do data sets. A case in which a label is absent from the truth and
    from the predictions of all points is left out for that label; where only some points rightly predict
    nothing, these count as perfect. The pooled foreground counts only where there is no other label.

    Args:
        rows: scores of all points.
        points: names of the points, each scored on every case.
        metric: ``"dice"``, ``"iou"`` or ``"nsd"``.

    Raises:
        ValueError: another metric, no rows, rows that are not pairs, or no case with any label.
    """
    if check_metric(metric) == "hd95_mm":
        raise ValueError("metric must be one where larger is better, got 'hd95_mm'. Use dice, iou or nsd.")
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    if not datasets:
        raise ValueError("rows must hold scores, got none.")
    by_dataset: list[dict[str, float]] = []
    for dataset in datasets:
        paired = PairedScores.from_rows(rows, points, dataset)
        present = {label: cases for label in paired.labels if (cases := paired.cases_with(label, points))}
        if not present:
            raise ValueError(f"rows must hold a case with a label, got none in data set {dataset!r}.")
        by_dataset.append(
            {
                point: _mean(
                    [
                        _mean([paired.value(point, label, case, metric) for case in cases])
                        for label, cases in present.items()
                    ]
                )
                for point in points
            }
        )
    return {point: _mean([accuracies[point] for accuracies in by_dataset]) for point in points}


def pareto_front(
    accuracy: Mapping[str, float], costs: Mapping[str, PointCost], keys: Sequence[str] = ("latency_ms",)
) -> TradeOff:
    """The points that no other point beats: none is as accurate and as cheap, and better in one of the two.

    Args:
        accuracy: by name of the point, larger is better.
        costs: by name of the point, for every point in ``accuracy``.
        keys: the costs that count, one or several together.

    Returns:
        The front, most accurate point first.

    Raises:
        ValueError: no points, a point without cost, or an unknown key.
    """
    if not keys:
        raise ValueError("keys must name one cost or more, got none.")
    table = _cost_table(accuracy, costs, keys)

    def dominates(a: str, b: str) -> bool:
        pairs = [(-accuracy[a], -accuracy[b]), *zip(table[a], table[b], strict=True)]
        return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)

    dominated = {name: [other for other in accuracy if dominates(other, name)] for name in accuracy}
    front = [name for name in sorted(accuracy, key=lambda n: (-accuracy[n], table[n])) if not dominated[name]]
    beaten = [f"{name} is beaten by {others[0]}" for name, others in dominated.items() if others]
    what = ", ".join(keys)
    reason = f"No point is at least as accurate and as cheap in {what} as {' or '.join(front)}"
    reason += f"; {', '.join(beaten)}." if beaten else "; every point is on the front."
    return TradeOff(f"pareto accuracy/{'+'.join(keys)}", tuple(front), reason)


def within_budget(
    accuracy: Mapping[str, float], costs: Mapping[str, PointCost], budgets: Budget | Sequence[Budget]
) -> TradeOff:
    """The most accurate point that keeps within every budget; of equally accurate ones the fastest.

    Args:
        accuracy: by name of the point, larger is better.
        costs: by name of the point, for every point in ``accuracy``.
        budgets: one or several, all of which hold.

    Returns:
        One point, or none where every point costs more.

    Raises:
        ValueError: no points, no budget, or a point without cost.
    """
    limits = [budgets] if isinstance(budgets, Budget) else list(budgets)
    if not limits:
        raise ValueError("budgets must name one limit or more, got none.")
    keys = [limit.key for limit in limits]
    table = _cost_table(accuracy, costs, keys)
    rule = " and ".join(str(limit) for limit in limits)
    allowed = [
        name for name in accuracy if all(value <= limit.value for value, limit in zip(table[name], limits, strict=True))
    ]
    if not allowed:
        least = [
            f"{min(column):.6g} {key}" for key, column in zip(keys, zip(*table.values(), strict=True), strict=True)
        ]
        return TradeOff(rule, (), f"No point is within {rule}; the least that any of them needs is {', '.join(least)}.")
    chosen = min(allowed, key=lambda name: (-accuracy[name], cost_value(costs[name], "latency_ms")))
    needs = ", ".join(f"{value:.6g} {key}" for key, value in zip(keys, table[chosen], strict=True))
    reason = (
        f"{chosen} is the most accurate of the {len(allowed)} point(s) within {rule}: accuracy "
        f"{accuracy[chosen]:.4f} for {needs}."
    )
    return TradeOff(rule, (chosen,), reason)


def by_utility(
    accuracy: Mapping[str, float], costs: Mapping[str, PointCost], weight: float, key: str = "latency_ms"
) -> TradeOff:
    """The point with the highest utility: accuracy minus ``weight`` times its share of the highest cost.

    A weight of 0.02 says that going from the full cost to nothing is worth 0.02 of accuracy. Of equal points the
    cheaper is picked.

    Args:
        accuracy: by name of the point, larger is better.
        costs: by name of the point, for every point in ``accuracy``.
        weight: accuracy that the cost of the most expensive point is worth, 0 or more.
        key: the cost that counts.

    Raises:
        ValueError: no points, a point without cost, an unknown key, or a negative weight.
    """
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"weight must be 0 or more, got {weight}.")
    table = _cost_table(accuracy, costs, [key])
    highest = max(value for (value,) in table.values())
    relative = {name: table[name][0] / highest if highest > 0 else 0.0 for name in accuracy}
    utility = {name: accuracy[name] - weight * relative[name] for name in accuracy}
    chosen = min(accuracy, key=lambda name: (-utility[name], relative[name]))
    reason = (
        f"{chosen} has the highest utility, {utility[chosen]:.4f}: accuracy {accuracy[chosen]:.4f} minus "
        f"{weight:g} times {relative[chosen]:.3f}, its {key} relative to the most expensive point."
    )
    return TradeOff(f"utility accuracy-{weight:g}*{key}", (chosen,), reason)


def _cost_table(
    accuracy: Mapping[str, float], costs: Mapping[str, PointCost], keys: Sequence[str]
) -> dict[str, tuple[float, ...]]:
    if not accuracy:
        raise ValueError("accuracy must name one point or more, got none.")
    for name, value in accuracy.items():
        if name not in costs:
            raise ValueError(f"costs must hold every point, got none for {name!r}. Measure it first.")
        if not math.isfinite(value):
            raise ValueError(f"accuracy must be finite, got {value} for {name!r}.")
    return {name: tuple(cost_value(costs[name], key) for key in keys) for name in accuracy}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
