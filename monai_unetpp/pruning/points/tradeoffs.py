"""Operating points picked by rules other than non-inferiority: fronts, budgets, utility."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import numpy as np

from monai_unetpp.metrics.definitions import check_metric
from monai_unetpp.pruning.decision import compare_points, passing_points
from monai_unetpp.pruning.pairing import PairedScores, list_data_sets
from monai_unetpp.pruning.results import AdaptiveDepth, PointCost, ScoreRow, TradeOff
from monai_unetpp.pruning.rules import COST_KEYS, Budget, Rules, parse_budget
from monai_unetpp.pruning.statistics import FloatArray
from monai_unetpp.reporting.numbers import rough_percent

_SAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class ResampledAccuracy:
    """The accuracy of points in resamples of the subjects.

    Attributes:
        points: names of the points.
        means: ``(samples, points)``, as by :func:`mean_accuracy`; NaN where no case of a sample has a label.
        of_labels: ``(samples, points, labels)``, the mean of each label over data sets; NaN where no case of a sample
            has the label.
    """

    points: tuple[str, ...]
    means: FloatArray
    of_labels: FloatArray

    def among(self, points: Sequence[str]) -> ResampledAccuracy:
        """The same of some points, in their order."""
        at = [self.points.index(point) for point in points]
        return ResampledAccuracy(tuple(points), self.means[:, at], self.of_labels[:, at])


def cost_value(cost: PointCost, key: str) -> float:
    """The cost ``key`` of ``COST_KEYS``, in its unit."""
    if key == "energy_j":
        if cost.volume_energy_j is None:
            raise ValueError("energy_j is not reported by this machine (RAPL or NVML). Take another cost.")
        return cost.volume_energy_j.median
    values = {
        "latency_ms": cost.volume_latency_s.median * 1e3,
        "window_latency_ms": cost.window_latency_s.median * 1e3,
        "parameters": float(cost.parameters),
        "memory_mb": cost.peak_memory_bytes / 1e6,
        "flops": float(cost.flops_per_window),
        "checkpoint_mb": cost.checkpoint_bytes / 1e6,
    }
    return values[key]


def times_of_depths(adaptive: AdaptiveDepth | None, costs: Mapping[str, PointCost]) -> dict[str, PointCost]:
    """The costs of depths chosen per window, of which only the time per volume is their own.

    It is that of the deepest level times the ratio that was measured on real cases.
    """
    deepest = costs.get(adaptive.reference) if adaptive is not None else None
    if adaptive is None or deepest is None:
        return {}
    whole = deepest.volume_latency_s.median
    return {
        point.name: dataclasses.replace(
            deepest, point=point.name, volume_latency_s=point.time_ratio.times(whole), volume_energy_j=None
        )
        for point in adaptive.points
    }


def with_labels(rows: Sequence[ScoreRow]) -> tuple[ScoreRow, ...]:
    """The scores on the data sets with a case that has a label."""
    known = {row.dataset for row in rows if row.score.state in ("ok", "missed")}
    return tuple(row for row in rows if row.dataset in known)


def mean_accuracy(rows: Sequence[ScoreRow], points: Sequence[str], metric: str = "dice") -> dict[str, float]:
    """The accuracy of each point: the mean over data sets of the mean over labels of the mean over cases.

    All labels have the same weight, and so do all data sets. A case without a label in the truth and in all predictions
    is left out for that label; if only some points rightly predict nothing, these count as perfect. The pooled
    foreground counts only if there is no other label.
    """
    if check_metric(metric) == "hd95_mm":
        raise ValueError("metric must be one where larger is better, got 'hd95_mm'. Use dice, iou or nsd.")
    by_dataset: list[dict[str, float]] = []
    for dataset in list_data_sets(rows):
        paired = PairedScores.from_rows(rows, points, dataset)
        present = {label: cases for label in paired.labels if (cases := paired.cases_with(label, points))}
        if not present:
            raise ValueError(f"rows must hold a case with a label, got none in data set {dataset!r}.")
        of_labels = {
            point: [
                fmean(paired.value(point, label, case, metric) for case in cases) for label, cases in present.items()
            ]
            for point in points
        }
        by_dataset.append({point: fmean(means) for point, means in of_labels.items()})
    return {point: fmean(accuracies[point] for accuracies in by_dataset) for point in points}


def accuracy_of_each(rows: Sequence[ScoreRow], points: Sequence[str], metric: str = "dice") -> dict[str, float]:
    """The :func:`mean_accuracy` of each point alone, on the data sets that have labels; empty if none has.

    A case in which a point rightly finds nothing is left out for this point, whatever the others find there: it does
    not count as perfect.
    """
    known = with_labels(rows)
    alone = {point: [row for row in known if row.point == point] for point in points}
    return {point: mean_accuracy(own, [point], metric)[point] for point, own in alone.items() if own}


def pareto_front(
    accuracy: Mapping[str, float],
    costs: Mapping[str, PointCost],
    keys: Sequence[str] = ("latency_ms",),
    resampled: ResampledAccuracy | None = None,
) -> TradeOff:
    """The points that no other beats by being at least as accurate and cheap, and better in one; most accurate first.

    ``resampled``, of at least the same points, tells how often each is on the front.
    """
    table = _cost_table(accuracy, costs, keys)

    def dominates(a: str, b: str) -> bool:
        pairs = [(-accuracy[a], -accuracy[b]), *zip(table[a], table[b], strict=True)]
        return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)

    dominated = {name: [other for other in accuracy if dominates(other, name)] for name in accuracy}
    front = [name for name in sorted(accuracy, key=lambda n: (-accuracy[n], table[n])) if not dominated[name]]
    beaten = [f"{name} is beaten by {others[0]}" for name, others in dominated.items() if others]
    reason = f"{', '.join(beaten)}." if beaten else "Every point is on the front."
    shares = {} if resampled is None else _front_shares(table, resampled.among(list(table)).means[..., None])
    if shares:
        reason += f" On the front in resamples of the subjects: {_often(shares)}."
    return TradeOff(f"pareto accuracy/{'+'.join(keys)}", tuple(front), reason, shares)


def front_of_labels(costs: Mapping[str, PointCost], resampled: ResampledAccuracy, keys: Sequence[str]) -> TradeOff:
    """The points that at least half of the samples have on the front of the accuracy of every label and all costs."""
    table = _cost_table(costs, costs, keys)
    of_labels = resampled.among(list(table)).of_labels
    shares = _front_shares(table, of_labels)
    front = [name for name, share in shares.items() if share >= 0.5]
    rule = f"A point is picked if it is on the front in at least half of {len(of_labels)} resamples of the subjects"
    reason = f"{rule}: {_often(shares)}."
    return TradeOff(f"pareto accuracy of each label/{'+'.join(keys)}", tuple(front), reason, shares)


def _often(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} in {rough_percent(share)}" for name, share in shares.items())


def resampled_accuracy(rows: Sequence[ScoreRow], points: Sequence[str], seed: int = 0) -> ResampledAccuracy:
    """The mean Dice of each point in 1,000 resamples of the subjects (with replacement, each data set by itself)."""
    rng = np.random.default_rng([seed, 3])
    by_dataset = [
        _resampled(PairedScores.from_rows(rows, points, dataset), points, rng)
        for dataset in dict.fromkeys(row.dataset for row in rows)
    ]
    labels = dict.fromkeys(label for each in by_dataset for label in each)
    of_labels = [_known_mean([each[label] for each in by_dataset if label in each]) for label in labels]
    # as mean_accuracy does: of the labels of a data set, then of the data sets
    means = _known_mean([_known_mean(list(each.values())) for each in by_dataset])
    return ResampledAccuracy(tuple(points), means, np.stack(of_labels, axis=2))


def _resampled(paired: PairedScores, points: Sequence[str], rng: np.random.Generator) -> dict[str, FloatArray]:
    """The mean Dice ``(samples, points)`` of each label of a data set; NaN where no case of a sample has it."""
    count = len(paired.subject_numbers)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=_SAMPLES).astype(np.float64)
    by_label = {}
    for label in paired.labels:
        cases = paired.cases_with(label, points)
        values = np.array([[paired.value(point, label, case, "dice") for point in points] for case in cases])
        drawn = weights[:, paired.subject_index(cases)]
        total = drawn.sum(axis=1, keepdims=True)
        means = drawn @ values.reshape(len(cases), len(points)) / np.maximum(total, 1)
        by_label[label] = np.where(total > 0, means, np.nan)
    return by_label


def _known_mean(arrays: Sequence[FloatArray]) -> FloatArray:
    """The mean of the arrays where they are numbers; NaN where none is."""
    stacked = np.stack(arrays)
    known = np.isfinite(stacked).sum(axis=0)
    return np.where(known > 0, np.nansum(stacked, axis=0) / np.maximum(known, 1), np.nan)


def _front_shares(table: Mapping[str, Sequence[float]], resampled: FloatArray) -> dict[str, float]:
    """How often each point is on the front of accuracies ``(samples, points, goals)`` and fixed costs."""
    fixed = -np.array(list(table.values()), dtype=np.float64)
    # a label that no case has favours no point, and where no case has any, nothing is known
    known = np.nan_to_num(resampled[np.isfinite(resampled).any(axis=(1, 2))], nan=0.0)
    goals = np.concatenate([known, np.broadcast_to(fixed, (len(known), *fixed.shape))], axis=2)
    shares = {}
    for number, name in enumerate(table):
        own = goals[:, number : number + 1]
        beaten = np.all(goals >= own, axis=2) & np.any(goals > own, axis=2)
        shares[name] = float(np.mean(~np.any(beaten, axis=1)))
    return shares


def picked_levels(
    levels: Sequence[str], costs: Mapping[str, PointCost], rows: Sequence[ScoreRow], rules: Rules
) -> list[TradeOff]:
    """The level within the budgets of the ``rules`` and the one of the highest utility, where they ask for them.

    Accuracies rest on the rows of the ``levels`` alone: false positives of other points would let cases without the
    label count for all levels.
    """
    if not rules.budgets and rules.utility_weight is None:
        return []
    known, picked = with_labels([row for row in rows if row.point in levels]), []
    if not known:
        return []
    accuracy = mean_accuracy(known, levels)
    if rules.budgets:
        limits = [parse_budget(budget) for budget in rules.budgets]
        picked.append(within_budget(accuracy, costs, limits, rows, rules))
    if rules.utility_weight is not None:
        picked.append(by_utility(accuracy, costs, rules.utility_weight))
    return picked


def within_budget(
    accuracy: Mapping[str, float],
    costs: Mapping[str, PointCost],
    limits: Sequence[Budget],
    rows: Sequence[ScoreRow] = (),
    rules: Rules | None = None,
) -> TradeOff:
    """The cheapest point within all budgets that is shown to be as good as the most accurate one there.

    The cheapest is that by the first budget, then the fastest. Without ``rows``, or if none is shown to be as good, it
    is the most accurate point itself. No point is picked where every one costs more.
    """
    keys = [limit.key for limit in limits]
    table = _cost_table(accuracy, costs, keys)
    rule = " and ".join(map(str, limits))
    allowed = [
        name for name in accuracy if all(value <= limit.value for value, limit in zip(table[name], limits, strict=True))
    ]
    if not allowed:
        least = _amounts(keys, [min(column) for column in zip(*table.values(), strict=True)])
        return TradeOff(rule, (), f"No point is within the budget: the least that any needs is {least}.")

    def price(name: str) -> tuple[float, float]:
        return table[name][0], cost_value(costs[name], "latency_ms")

    best = min(allowed, key=lambda name: (-accuracy[name], *price(name)))
    equal: list[str] = []
    if rows and rules is not None and len(allowed) > 1:
        equal = passing_points(compare_points([row for row in rows if row.point in allowed], allowed, best, rules))
    chosen = min([best, *equal], key=price)
    found = f"accuracy {accuracy[chosen]:.4f} for {_amounts(keys, table[chosen])}"
    if chosen == best:
        reason = f"{chosen} is the most accurate within the budget: {found}."
    else:
        reason = (
            f"{chosen} is the cheapest within the budget that is shown to be not worse than {best}, the most accurate "
            f"there ({accuracy[best]:.4f}), by more than the margins: {found}."
        )
    return TradeOff(rule, (chosen,), reason)


def by_utility(accuracy: Mapping[str, float], costs: Mapping[str, PointCost], weight: float) -> TradeOff:
    """The point with the highest utility: accuracy minus ``weight`` times its share of the longest time per volume.

    A weight of 0.02 means that saving all of the time is worth 0.02 of accuracy. Among equal points, the faster is
    picked.
    """
    table = _cost_table(accuracy, costs, ["latency_ms"])
    highest = max(value for (value,) in table.values())
    relative = {name: table[name][0] / highest if highest > 0 else 0.0 for name in accuracy}
    utility = {name: accuracy[name] - weight * relative[name] for name in accuracy}
    chosen = min(accuracy, key=lambda name: (-utility[name], relative[name]))
    reason = (
        f"{chosen} has the highest utility, {utility[chosen]:.4f}: accuracy {accuracy[chosen]:.4f} minus "
        f"{weight:g} times {relative[chosen]:.3f}, its time per volume relative to the slowest point."
    )
    return TradeOff(f"utility accuracy-{weight:g}*latency_ms", (chosen,), reason)


def _cost_table(
    names: Iterable[str], costs: Mapping[str, PointCost], keys: Sequence[str]
) -> dict[str, tuple[float, ...]]:
    return {name: tuple(cost_value(costs[name], key) for key in keys) for name in names}


def _amounts(keys: Sequence[str], values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g} {COST_KEYS[key].unit}" for key, value in zip(keys, values, strict=True))
