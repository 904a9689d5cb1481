"""The numbers of a pruning report, each worked out and worded once, so that every file says the same.

``report.html``, ``summary.md`` and the plots take their figures from here. Nothing in this module decides or measures:
it averages the scores of a :class:`~monai_unetpp.pruning.results.PruningResult`, sets its costs in proportion, and
puts both into words.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from monai_unetpp.pruning.pairing import BOTH_INVENT
from monai_unetpp.pruning.results import (
    Comparison,
    Decision,
    OperatingGrid,
    OperatingPoint,
    PointCost,
    PointOutcome,
    PruningResult,
    Quartiles,
    ScoreRow,
)
from monai_unetpp.pruning.statistics import FEW_SUBJECTS, bound_alpha, unseen_rate

__all__ = [
    "ALL",
    "DECISION_RULE",
    "EARLIER_RULES",
    "GRID_RULE",
    "METRICS",
    "PAPER_CLAIM",
    "AccuracySummary",
    "MetricSummary",
    "RelativeCost",
    "ScoreColumn",
    "Summary",
    "Table",
    "TableCell",
    "WorstCase",
    "accuracy_table",
    "blank",
    "chosen_point",
    "claims_table",
    "comparisons_table",
    "cost_table",
    "data_sets",
    "deepest_point",
    "environment_table",
    "format_difference",
    "format_metric",
    "glance_table",
    "grid_networks_table",
    "grid_state",
    "grid_table",
    "headline",
    "interval_note",
    "ordered_decisions",
    "point_role",
    "points_under_test",
    "problems_table",
    "settings_table",
    "shown_labels",
    "shown_loser",
    "significant",
    "summarise",
    "trade_offs_table",
    "verdicts_table",
    "worst_cases_table",
]

ALL = "all"
FOREGROUND = "foreground"
_MEGA = 1e6
_GIGA = 1e9
_GLANCE_LABELS = 4
_WORST_CASES = 5
# tables may break a mean from its spread, but neither of them in two
_NBSP = "\N{NO-BREAK SPACE}"
_MINUS = "\N{MINUS SIGN}"
_TIMES = "\N{MULTIPLICATION SIGN}"
_DASH = "\N{EN DASH}"

Tone = Literal["", "good", "bad", "unsure", "muted"]


@dataclasses.dataclass(frozen=True)
class ScoreColumn:
    """How a metric is called and written: its unit, and decimals of a value and of a difference."""

    key: str
    name: str
    unit: str
    decimals: int
    difference_decimals: int

    @property
    def heading(self) -> str:
        """Name and unit, such as ``"HD95 (mm)"``."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


METRICS: dict[str, ScoreColumn] = {
    metric.key: metric
    for metric in (
        ScoreColumn("dice", "Dice", "", 3, 4),
        ScoreColumn("iou", "IoU", "", 3, 4),
        ScoreColumn("nsd", "NSD", "", 3, 4),
        ScoreColumn("hd95_mm", "HD95", "mm", 2, 2),
        ScoreColumn("volume_difference_ml", "Volume difference", "ml", 2, 3),
    )
}

EARLIER_RULES = "earlier rules"
"""The entry of ``result.settings`` that says by which other rules the same cases were judged before."""

DECISION_RULE = (
    "Levels are tried in a fixed order from deep to shallow, and the first that does not pass stops the search: what "
    "lies beyond it is described, not tested. A level passes where, for every guarded metric and label, the one-sided "
    "lower confidence bound of its mean difference from the deepest level stays above minus the margin (see the rules "
    "of this run), with room left for rare large drops that so few subjects cannot exclude; where it misses no "
    "structure that the deepest level finds; and where no single case drops too far."
)

GRID_RULE = (
    "Every level was run at every setting and is compared, case by case, with the reference: the deepest level as the "
    "bundle runs it. Margins and limits are those of the verdict above, which these comparisons do not change. They "
    "have no fixed order and are many, so the level of their bounds is corrected by Holm's procedure: the chance that "
    "any point passes which is worse by a margin stays at alpha. The choice of a point is optimistic all the same, as "
    "the same cases choose it and give its figures: confirm it on others."
)

# Time and IoU are averages of arXiv:1807.10165; 75.6 % is 1 - 2,204,961 / 9,041,601, its network as NestedUNet has it.
PAPER_CLAIM = (
    "arXiv:1807.10165 reports for UNet++ L3 against L4, on average, 32.2 % less inference time and 0.6 points of IoU "
    "lost, and that pruning further costs significant accuracy; the abstract of arXiv:1912.05074 speaks of significant "
    "speed-up with only modest degradation. Parameters are counted on the papers' 2D network (2.20 M of 9.04 M). Data, "
    "network and hardware differ from those here: compare orders of magnitude only."
)


@dataclasses.dataclass(frozen=True)
class MetricSummary:
    """Mean and standard deviation of a metric over the cases that have it; None where there is no such case."""

    mean: float | None
    sd: float | None
    cases: int


@dataclasses.dataclass(frozen=True)
class AccuracySummary:
    """How one operating point did on one label of one data set (``"all"``: of all together)."""

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
    """The cost of an operating point in proportion to the deepest level; None where either was not measured.

    Attributes:
        point: name of the operating point.
        window_speed_up: how many times faster a window is segmented.
        volume_speed_up: how many times faster a whole volume is segmented.
        parameter_share: parameters, 1 for the deepest level.
        memory_share: peak memory, 1 for the deepest level.
    """

    point: str
    window_speed_up: float | None
    volume_speed_up: float | None
    parameter_share: float | None
    memory_share: float | None


@dataclasses.dataclass(frozen=True)
class WorstCase:
    """One label of a case on which the chosen level (or the one refused) does worse than the deepest, by Dice."""

    dataset: str
    case: str
    label: str
    deepest_dice: float
    chosen_dice: float
    difference: float


@dataclasses.dataclass(frozen=True)
class Summary:
    """Everything that the report adds to the result; ``report.json`` holds it under ``"summary"``."""

    accuracy: tuple[AccuracySummary, ...]
    costs: tuple[RelativeCost, ...]
    worst_cases: tuple[WorstCase, ...]
    grid: tuple[AccuracySummary, ...] = ()

    def of(self, dataset: str, point: str, label: str) -> AccuracySummary | None:
        """The summary of one label, or None if nothing was scored."""
        return next((a for a in self.accuracy if (a.dataset, a.point, a.label) == (dataset, point, label)), None)


@dataclasses.dataclass(frozen=True)
class TableCell:
    """One cell of a table: its text, and a tone that goes with (never replaces) the words."""

    text: str
    tone: Tone = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for any medium.

    Attributes:
        caption: what the table shows.
        columns: headings; the first column names the row.
        rows: cells, as many as columns.
        numeric: whether a column holds numbers (aligned to the right).
        marked: numbers of the rows to stand out.
        notes: sentences below the table.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    numeric: tuple[bool, ...]
    marked: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


# ---------------------------------------------------------------- what the result is about


def data_sets(result: PruningResult) -> tuple[str, ...]:
    """Names of the data sets, as first met; where there are several, ``"all"`` goes before them."""
    names = tuple(dict.fromkeys(row.dataset for row in result.rows))
    return (ALL, *names) if len(names) > 1 else names


def shown_labels(result: PruningResult) -> tuple[str, ...]:
    """The labels in order, then the pooled foreground; a single label is its own foreground."""
    found = {row.label for row in result.rows}
    labels = [label for label in result.labels if label in found]
    extra = sorted(found - set(labels))
    return tuple(labels + (extra if len(labels) != 1 else [name for name in extra if name != FOREGROUND]))


def deepest_point(result: PruningResult) -> OperatingPoint | None:
    """The deepest level of the evaluated network: what every other point is compared with."""
    return next((p for p in reversed(result.points) if p.kind == "embedded"), None)


def ordered_decisions(result: PruningResult) -> tuple[Decision, ...]:
    """The decisions, the weightiest first: a confirmation before a choice, all data sets before one."""
    return tuple(sorted(result.decisions, key=lambda d: (d.role != "confirm", d.dataset != ALL)))


def headline(result: PruningResult) -> Decision:
    """The decision that has the last word: see :func:`ordered_decisions`.

    Raises:
        ValueError: there is no decision.
    """
    if not result.decisions:
        raise ValueError("result.decisions must hold at least one decision, got none. Decide before reporting.")
    return ordered_decisions(result)[0]


def chosen_point(result: PruningResult) -> OperatingPoint | None:
    """The operating point that the headline decision names."""
    level = headline(result).level
    return next((p for p in result.points if p.kind == "embedded" and level in (p.name, p.level)), None)


def shown_loser(result: PruningResult) -> OperatingPoint | None:
    """The level whose worst cases are shown: the chosen one or, where none was accepted, the next to the deepest."""
    chosen, deepest = chosen_point(result), deepest_point(result)
    if chosen != deepest:
        return chosen
    shallower = [p for p in result.points if p.kind == "embedded" and p != deepest]
    return shallower[-1] if shallower else None


def points_under_test(result: PruningResult, decision: Decision) -> frozenset[str]:
    """Names of the points that took part in ``decision``; its other comparisons only describe.

    These are the levels down to the one that it names, and the next, which stopped it. A confirmation compares
    nothing but what it tests.
    """
    embedded = [p for p in result.points if p.kind == "embedded"]
    chosen = next((i for i, p in enumerate(embedded) if decision.level in (p.name, p.level)), 0)
    first = 0 if decision.role == "confirm" else max(chosen - 1, 0)
    return frozenset(p.name for p in embedded[first:])


def point_role(point: OperatingPoint, result: PruningResult) -> str:
    """What a point is in this report, in words."""
    if point.kind == "extra":
        return "further checkpoint"
    pick = "chosen" if headline(result).verdict == "prune" else "kept"
    owners = ((pick, chosen_point(result)), ("deepest", deepest_point(result)))
    roles = [role for role, owner in owners if owner == point]
    return ", ".join(roles) or "cut out of the full network"


# ---------------------------------------------------------------- aggregation


def summarise(result: PruningResult) -> Summary:
    """Averages of the scores, costs in proportion to the deepest level, and the worst cases of the chosen one."""
    return Summary(_accuracy(result), _relative_costs(result), _worst_cases(result), _grid_accuracy(result))


def _grid_accuracy(result: PruningResult) -> tuple[AccuracySummary, ...]:
    if result.grid is None:
        return ()
    return _accuracy(dataclasses.replace(result, points=result.grid.points, rows=result.grid.rows))


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
        ok=states["ok"],
        missed=states["missed"],
        false_positive=states["false_positive"],
        both_empty=states["both_empty"],
        metrics={key: _mean_and_sd(numbers) for key, numbers in values.items()},
    )


def _mean_and_sd(values: Sequence[float]) -> MetricSummary:
    return MetricSummary(
        mean=statistics.fmean(values) if values else None,
        sd=statistics.stdev(values) if len(values) > 1 else None,
        cases=len(values),
    )


def _relative_costs(result: PruningResult) -> tuple[RelativeCost, ...]:
    deepest = deepest_point(result)
    reference = result.costs.get(deepest.name) if deepest else None
    return tuple(_relative_cost(p.name, result.costs.get(p.name), reference) for p in result.points)


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
    chosen, deepest = shown_loser(result), deepest_point(result)
    if chosen is None or deepest is None:
        return ()
    labels = set(shown_labels(result)) - {FOREGROUND} or {FOREGROUND}
    dice = {
        (row.dataset, row.case, row.label, row.point): row.score.dice
        for row in result.rows
        if row.score.dice is not None and row.label in labels
    }
    found = []
    for (dataset, case, label, point), value in dice.items():
        reference = dice.get((dataset, case, label, deepest.name))
        if point == chosen.name and reference is not None and value < reference:
            found.append(WorstCase(dataset, case, label, reference, value, value - reference))
    return tuple(sorted(found, key=lambda worst: worst.difference)[:_WORST_CASES])


# ---------------------------------------------------------------- numbers in words


def blank(text: str | None) -> TableCell:
    """A cell of ``text``, or a dash."""
    return TableCell(text) if text else TableCell(_DASH, "muted")


def _minus(text: str) -> str:
    return text.replace("-", _MINUS)


def format_metric(key: str, value: float) -> str:
    """A value of a metric with the decimals that all files use, without its unit."""
    return _minus(f"{value:.{METRICS[key].decimals}f}")


def format_difference(key: str, value: float) -> str:
    """A difference of a metric, always signed."""
    return "not finite" if math.isnan(value) else _minus(f"{value:+.{METRICS[key].difference_decimals}f}")


def significant(value: float, digits: int = 3) -> str:
    """``value`` to ``digits`` significant digits, never in scientific notation: 0.01234 gives ``"0.0123"``."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else _minus(str(value))
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return _minus(f"{rounded:.{max(decimals, 0)}f}")


def _percent(share: float, decimals: int = 0) -> str:
    return _minus(f"{100 * share:.{decimals}f}{_NBSP}%")


def _confidence(alpha: float) -> str:
    return f"{100 * (1 - alpha):g}{_NBSP}%"


def interval_note(alpha: float, comparisons: Sequence[Comparison]) -> str:
    """What the intervals of these comparisons are."""
    levels = sorted({bound_alpha(c.clusters, alpha) for c in comparisons}, reverse=True)
    few = f" ({_confidence(levels[-1])} with fewer than {FEW_SUBJECTS} subjects)" if len(levels) > 1 else ""
    bound = _confidence(levels[0])
    return (
        "Differences are level minus deepest, signed so that negative is worse at the level; subjects weigh the same. "
        f"In brackets: one-sided {bound} lower bound to one-sided {bound} upper bound of the mean difference{few}, "
        f"together an interval of {_confidence(2 * levels[0])}. Only the lower bound can let a level pass."
    )


def _mean_sd(key: str, summary: MetricSummary) -> TableCell:
    if summary.mean is None:
        return blank(None)
    mean = format_metric(key, summary.mean)
    return TableCell(mean if summary.sd is None else f"{mean} ±{_NBSP}{format_metric(key, summary.sd)}")


def _interval(comparison: Comparison) -> str:
    key = comparison.metric
    lower, upper = (format_difference(key, bound) for bound in (comparison.lower_bound, comparison.upper_bound))
    return f"{format_difference(key, comparison.mean_difference)} ({lower},{_NBSP}{upper})"


def _time_unit(seconds: Iterable[float]) -> tuple[str, float]:
    return ("ms", 1e3) if max(seconds, default=1.0) < 1 else ("s", 1.0)


def _quartiles(time: Quartiles, scale: float) -> str:
    median, lower, upper = (significant(value * scale) for value in (time.median, time.lower, time.upper))
    return f"{median} ({lower}{_NBSP}to{_NBSP}{upper})"


def _speed_up(value: float | None) -> TableCell:
    return blank(None if value is None else f"{significant(value, 2 if value < 10 else 3)}{_TIMES}")


def _shape(shape: Sequence[int]) -> str:
    return f" {_TIMES} ".join(str(size) for size in shape)


def _table(
    caption: str,
    columns: Sequence[tuple[str, bool]],
    rows: Iterable[Sequence[TableCell]],
    marked: Sequence[int] = (),
    notes: Iterable[str] = (),
) -> Table:
    return Table(
        caption,
        tuple(name for name, _ in columns),
        tuple(tuple(row) for row in rows),
        tuple(numeric for _, numeric in columns),
        tuple(marked),
        tuple(note for note in notes if note),
    )


# ---------------------------------------------------------------- tables

_VERDICT: dict[str, tuple[str, Tone]] = {
    "prune": (f"Prune to{_NBSP}{{level}}", "good"),
    "keep": (f"Keep{_NBSP}{{level}}", "bad"),
    "inconclusive": ("Inconclusive", "unsure"),
}
_STATE: dict[str, Tone] = {"pass": "good", "fail": "bad", "inconclusive": "unsure"}


def verdict_cell(decision: Decision) -> TableCell:
    """The verdict in two or three words."""
    text, tone = _VERDICT[decision.verdict]
    return TableCell(text.format(level=decision.level), tone)


def verdicts_table(result: PruningResult) -> Table:
    """One row per data set, and one for all."""
    rows = [
        (
            TableCell(d.dataset),
            verdict_cell(d),
            TableCell(str(d.cases)),
            TableCell(str(d.subjects)),
            TableCell(d.role),
            TableCell("yes" if d.optimistic else "no", "unsure" if d.optimistic else ""),
            blank(None if d.cases_needed is None else str(d.cases_needed)),
            TableCell(d.summary),
        )
        for d in ordered_decisions(result)
    ]
    columns = [
        ("Data set", False),
        ("Verdict", False),
        ("Cases", True),
        ("Subjects", True),
        ("Cases used to", False),
        ("Optimistic", False),
        ("Subjects needed", True),
        ("In words", False),
    ]
    return _table(
        "The verdict on each data set",
        columns,
        rows,
        notes=[
            "Optimistic: whether the same cases chose the level and give its figures; it says nothing about what "
            "selected the weights."
        ],
    )


def glance_table(result: PruningResult, summary: Summary) -> Table:
    """The levels in one view: accuracy of all cases together beside cost and speed-up."""
    dataset = data_sets(result)[0]
    labels = shown_labels(result)
    if len(labels) > _GLANCE_LABELS and FOREGROUND in labels:
        labels = (FOREGROUND,)
    unit, scale = _time_unit(cost.volume_latency_s.median for cost in result.costs.values())
    costed = bool(result.costs)
    relative = {cost.point: cost for cost in summary.costs}
    rows = []
    for point in result.points:
        cells = [TableCell(point.name), TableCell(point_role(point, result))]
        for label in labels:
            accuracy = summary.of(dataset, point.name, label)
            cells.append(_mean_sd("dice", accuracy.metrics["dice"]) if accuracy else blank(None))
        cost = result.costs.get(point.name)
        if costed:
            cells += [
                blank(significant(cost.volume_latency_s.median * scale) if cost else None),
                _speed_up(relative[point.name].volume_speed_up),
                blank(significant(cost.parameters / _MEGA) if cost else None),
                blank(significant(cost.peak_memory_bytes / _MEGA) if cost else None),
            ]
        rows.append(cells)
    columns = [("Level", False), ("Role", False), *((f"Dice, {label}", True) for label in labels)]
    if costed:
        columns += [
            (f"Time per volume ({unit})", True),
            ("Speed-up", True),
            ("Parameters (M)", True),
            ("Peak memory (MB)", True),
        ]
    chosen = chosen_point(result)
    return _table(
        "The levels at a glance",
        columns,
        rows,
        marked=[i for i, point in enumerate(result.points) if point == chosen],
        notes=[
            f"Dice: mean ± standard deviation over the cases of {_quoted(dataset)}."
            if dataset != ALL
            else "Dice: mean ± standard deviation over the cases of all data sets.",
            "Speed-up: median time per volume of the deepest level divided by that of the level." if costed else "",
        ],
    )


def _quoted(name: str) -> str:
    return f"“{name}”"


def accuracy_table(result: PruningResult, summary: Summary, dataset: str) -> Table:
    """Scores, states and the difference from the deepest level for every level and label of one data set."""
    chosen = chosen_point(result)
    # cases of one data set that were split have two decisions, neither of which belongs to the means of all cases
    decisions = [d for d in result.decisions if d.dataset == dataset]
    compared = {(c.point, c.label, c.metric): c for d in decisions[:1] for c in d.comparisons if len(decisions) == 1}
    # one metric's interval fits beside the means; the others stand with the comparisons
    guarded = [key for key in METRICS if any(metric == key for _, _, metric in compared)][:1]
    rows: list[list[TableCell]] = []
    marked: list[int] = []
    for point in result.points:
        for label in shown_labels(result):
            accuracy = summary.of(dataset, point.name, label)
            if accuracy is None:
                continue
            if point == chosen:
                marked.append(len(rows))
            cells = [TableCell(point.name), TableCell(label)]
            cells += [_mean_sd(key, accuracy.metrics[key]) for key in METRICS]
            for metric in guarded:
                found = compared.get((point.name, label, metric))
                cells.append(blank(_interval(found) if found else None))
            cells += [
                TableCell(str(accuracy.cases)),
                TableCell(str(accuracy.missed), "bad" if accuracy.missed else ""),
                TableCell(str(accuracy.false_positive), "bad" if accuracy.false_positive else ""),
                TableCell(str(accuracy.both_empty)),
            ]
            rows.append(cells)
    columns = [("Level", False), ("Label", False), *((metric.heading, True) for metric in METRICS.values())]
    columns += [(f"{METRICS[key].name} difference", True) for key in guarded]
    columns += [("Cases", True), ("Missed", True), ("False pos.", True), ("Both empty", True)]
    name = "all data sets together" if dataset == ALL else _quoted(dataset)
    tolerances = ", ".join(f"{label} {significant(mm, 2)} mm" for label, mm in result.tolerance_mm.items())
    return _table(
        f"Accuracy on {name}",
        columns,
        rows,
        marked,
        notes=[
            "Mean ± standard deviation over cases; cases where truth and prediction are both empty are counted and "
            "left out, at each level by itself: where a level invents a structure that another rightly does not find, "
            "their means are over different cases.",
            f"NSD: normalised surface Dice at a tolerance of {tolerances}." if tolerances else "",
            "Missed: truth, but no prediction. False pos.: prediction, but no truth.",
            interval_note(result.rules.alpha, list(compared.values())) if guarded else "",
        ],
    )


def comparisons_table(result: PruningResult, decision: Decision) -> Table:
    """Every guarded metric of every level: what was tested, and how it came out."""
    rows = []
    tested = points_under_test(result, decision)
    for c in decision.comparisons:
        cases = str(c.cases) if c.clusters == c.cases else f"{c.cases} ({c.clusters}{_NBSP}subjects)"
        worst = f"{format_difference(c.metric, c.worst_difference)} ({c.worst_case})" if c.worst_case else None
        rows.append(
            (
                TableCell(c.point),
                TableCell(METRICS[c.metric].heading),
                TableCell(c.label),
                TableCell(cases),
                TableCell(format_metric(c.metric, c.mean_reference)),
                TableCell(format_metric(c.metric, c.mean_point)),
                TableCell(_interval(c)),
                TableCell(f"{c.margin:g}"),
                blank(worst),
                TableCell({"bca": "BCa"}.get(c.method, c.method)),
                TableCell(c.state, _STATE[c.state])
                if c.point in tested
                else TableCell(f"{c.state} (not tested: {_untested(result, c.point)})", "muted"),
                blank(None if c.cases_needed is None else str(c.cases_needed)),
            )
        )
    columns = [
        ("Level", False),
        ("Metric", False),
        ("Label", False),
        ("Cases", True),
        ("Mean, deepest", True),
        ("Mean, level", True),
        ("Mean difference", True),
        ("Margin", True),
        ("Worst case", True),
        ("Bound by", False),
        ("Result", False),
        ("Subjects needed", True),
    ]
    name = "all data sets together" if decision.dataset == ALL else _quoted(decision.dataset)
    part = "" if decision.role == "choose and report" else f", cases that {decision.role}"
    said = " ".join(decision.blockers)
    return _table(
        f"Non-inferiority on {name}{part}",
        columns,
        rows,
        notes=[
            interval_note(result.rules.alpha, decision.comparisons),
            "Bound by: BCa is the bias-corrected and accelerated bootstrap, t is Student's t corrected for skewness; "
            "the lower of the two bounds counts, with few subjects that of t.",
            "A comparison passes where the lower bound lies above minus the margin and the mean leaves room for rare "
            "large drops that so few subjects cannot exclude. It fails where the upper bound lies below minus the "
            "margin or a single case drops too far. Otherwise it is inconclusive.",
            "Not tested: the order of the levels is fixed and the first that does not pass ends the test; further "
            "checkpoints are no candidates. Such rows are descriptive and never count for the verdict."
            if any(c.point not in tested for c in decision.comparisons)
            else "",
            _unseen_note(decision, tested, result.rules.alpha),
            "Cases: those with something to compare. Left out are cases where neither the truth nor either prediction "
            "has the label, and cases where the truth lacks it and both find it.",
            "Subjects needed: for each comparison alone, 80 % power, if level and deepest were truly equal; counted in "
            "subjects that have the label.",
            *(
                f"{c.point}: {c.reason}"
                for c in decision.comparisons
                if (c.state != "pass" or BOTH_INVENT in c.reason) and c.reason not in said
            ),
        ],
    )


def _untested(result: PruningResult, point: str) -> str:
    extra = any(p.name == point and p.kind == "extra" for p in result.points)
    return "further checkpoint" if extra else "after the stop"


def _unseen_note(decision: Decision, tested: frozenset[str], alpha: float) -> str:
    """What a pass on so many subjects cannot exclude; nothing where the verdict is another."""
    subjects = [c.clusters for c in decision.comparisons if c.point in tested and c.state == "pass"]
    if decision.verdict != "prune" or not subjects:
        return ""
    least = min(subjects)
    return (
        f"A pass does not exclude that some subjects fare worse: {least} subjects without a large drop leave open, "
        f"with {_confidence(alpha)} confidence, that up to {_percent(unseen_rate(least, alpha), 1)} of all subjects "
        "have one."
    )


def cost_table(result: PruningResult, summary: Summary) -> Table | None:
    """What each point costs; None where no cost was measured."""
    if not result.costs:
        return None
    costs = result.costs
    window_unit, window_scale = _time_unit(cost.window_latency_s.median for cost in costs.values())
    volume_unit, volume_scale = _time_unit(cost.volume_latency_s.median for cost in costs.values())
    rows = []
    relative = {cost.point: cost for cost in summary.costs}
    for point in result.points:
        cost = costs.get(point.name)
        if cost is None:
            rows.append((TableCell(point.name), *([blank(None)] * 9)))
            continue
        share = relative[point.name].parameter_share
        parameters = significant(cost.parameters / _MEGA) + ("" if share is None else f" ({_percent(share, 1)})")
        check = cost.self_check
        rows.append(
            (
                TableCell(point.name),
                TableCell(parameters),
                TableCell(significant(cost.flops_per_window / _GIGA)),
                TableCell(significant(cost.checkpoint_bytes / _MEGA)),
                TableCell(_quartiles(cost.window_latency_s, window_scale)),
                TableCell(_quartiles(cost.volume_latency_s, volume_scale)),
                _speed_up(relative[point.name].window_speed_up),
                _speed_up(relative[point.name].volume_speed_up),
                TableCell(significant(cost.peak_memory_bytes / _MEGA)),
                blank(None)
                if check is None
                else TableCell(
                    "exact" if check.equal else f"differs by {check.max_difference:.1e}",
                    "good" if check.equal else "bad",
                ),
            )
        )
    columns = [
        ("Level", False),
        ("Parameters (M)", True),
        ("FLOPs per window (G)", True),
        ("Checkpoint (MB)", True),
        (f"Time per window ({window_unit})", True),
        (f"Time per volume ({volume_unit})", True),
        ("Speed-up, window", True),
        ("Speed-up, volume", True),
        ("Peak memory (MB)", True),
        ("Self-check", False),
    ]
    first = next(iter(costs.values()))
    chosen = chosen_point(result)
    return _table(
        "Cost of each really pruned network",
        columns,
        rows,
        marked=[i for i, point in enumerate(result.points) if point == chosen],
        notes=[
            f"Times: median (quartiles) of {first.window_latency_s.count} windows of {_shape(first.window_shape)} "
            f"voxels and {first.volume_latency_s.count} volumes of {_shape(first.volume_shape)} voxels.",
            "M: million; G: 10⁹; MB: 10⁶ bytes. A multiplication and an addition are two operations. Speed-up: against "
            "the deepest level.",
            "Time per window and FLOPs are those of one pass of the network. Time per volume and peak memory are those "
            "of segmenting a whole volume: the inferer's windows, their overlap and its flips are included.",
            "Self-check: whether the pruned network's output equals the level that was scored."
            if any(cost.self_check for cost in costs.values())
            else "",
        ],
    )


def claims_table(result: PruningResult, summary: Summary) -> Table | None:
    """What pruning saves here, beside what the papers report; None where no cost was measured."""
    deepest = deepest_point(result)
    if not result.costs or deepest is None:
        return None
    dataset = data_sets(result)[0]
    relative = {cost.point: cost for cost in summary.costs}
    rows = []
    for point in result.points:
        cost = relative[point.name]
        if point.kind == "extra" or point == deepest:
            continue
        time = None if not cost.volume_speed_up else _percent(1 - 1 / cost.volume_speed_up, 1)
        parameters = None if cost.parameter_share is None else _percent(1 - cost.parameter_share, 1)
        memory = None if cost.memory_share is None else _percent(1 - cost.memory_share, 1)
        lost = _iou_points_lost(result, summary, dataset, point.name, deepest.name)
        rows.append(
            (
                TableCell(f"{point.name} of {deepest.name}, here"),
                blank(time),
                blank(parameters),
                blank(memory),
                blank(None if lost is None else _minus(f"{lost:.1f}")),
            )
        )
    if not rows:
        return None
    rows.append(
        (
            TableCell("L3 of L4, papers"),
            TableCell(_percent(0.322, 1)),
            TableCell(_percent(0.756, 1)),
            blank(None),
            TableCell("0.6"),
        )
    )
    columns = [
        ("Network", False),
        ("Less time", True),
        ("Fewer parameters", True),
        ("Less peak memory", True),
        ("IoU points lost", True),
    ]
    return _table(
        "What pruning saves, beside the papers' claims",
        columns,
        rows,
        notes=["Time: per volume. IoU points: mean of the labels, 100 points are an IoU of 1.", PAPER_CLAIM],
    )


def _iou_points_lost(result: PruningResult, summary: Summary, dataset: str, point: str, deepest: str) -> float | None:
    losses = []
    for label in result.labels:
        here, there = summary.of(dataset, point, label), summary.of(dataset, deepest, label)
        if here and there:
            low, high = here.metrics["iou"].mean, there.metrics["iou"].mean
            if low is not None and high is not None:
                losses.append(100 * (high - low))
    return statistics.fmean(losses) if losses else None


def grid_state(grid: OperatingGrid, point: str) -> str:
    """How a point came out on all data sets: ``"reference"``, ``"pass"``, ``"fail"`` or ``"inconclusive"``."""
    states = {outcome.state for outcome in grid.outcomes if outcome.point == point}
    return next((state for state in ("fail", "inconclusive", "pass") if state in states), "reference")


def grid_table(result: PruningResult, summary: Summary) -> Table | None:
    """Every operating point of the grid, the fastest first; None where there is no grid."""
    grid = result.grid
    if grid is None:
        return None
    labels = [label for label in shown_labels(result) if label != FOREGROUND] or [FOREGROUND]
    dataset = data_sets(dataclasses.replace(result, rows=grid.rows))[0]
    means = {(each.point, each.label): each.metrics["dice"].mean for each in summary.grid if each.dataset == dataset}
    points = sorted(grid.points, key=lambda point: grid.time_ratios[point.name].median)
    unit, scale = _time_unit(cost.volume_latency_s.median for cost in grid.costs.values())
    rows, marked = [], []
    for number, point in enumerate(points):
        setting, cost, ratio = point.setting, grid.costs[point.name], grid.time_ratios[point.name]
        if setting is None:
            continue
        if point.name == (grid.recommended or grid.reference):
            marked.append(number)
        dice = [means.get((point.name, label)) for label in labels]
        rows.append(
            [
                TableCell(point.level),
                TableCell(", ".join(f"{share:g}" for share in setting.overlap)),
                TableCell(", ".join(map(str, setting.flips)) or "none"),
                TableCell(setting.precision),
                TableCell(setting.runtime),
                _grid_verdict(grid, point.name),
                *(blank(None if mean is None else format_metric("dice", mean)) for mean in dice),
                _closest_bound(grid, point.name),
                TableCell(significant(cost.volume_latency_s.median * scale)),
                TableCell(_quartiles(ratio, 1.0)),
                _speed_up(1 / ratio.median),
                blank(str(grid.front.index(point.name) + 1) if point.name in grid.front else None),
            ]
        )
    columns = [
        ("Level", False),
        ("Overlap", True),
        ("Flips", False),
        ("Precision", False),
        ("Runtime", False),
        ("Result", False),
        *((f"Dice, {label}", True) for label in labels),
        ("Bound nearest its margin", True),
        (f"Time per volume ({unit})", True),
        ("Time ratio", True),
        ("Speed-up", True),
        ("Front", True),
    ]
    first = grid.costs[grid.reference]
    return _table(
        "Operating points, the fastest first",
        columns,
        rows,
        marked,
        notes=[
            "Dice: mean over the cases that were compared. Bound nearest its margin: the lower confidence bound of a "
            "mean difference from the reference that comes nearest to minus its margin, or lies furthest beyond it, of "
            "all guarded metrics and labels.",
            f"Time ratio: time per volume divided by that of the reference in the same round, median (quartiles) of "
            f"{grid.time_ratios[grid.reference].count} rounds on a volume of {_shape(first.volume_shape)} voxels. "
            "Speed-up: one over its median.",
            "Front: number of the point in the plot, the most accurate first; no other point is both faster and more "
            "accurate (mean Dice over the labels).",
            *_grid_levels(grid, result.rules.alpha),
            *(f"Left out: {name}: {reason}" for name, reason in grid.left_out.items()),
        ],
    )


def _closest_bound(grid: OperatingGrid, point: str) -> TableCell:
    comparisons = [c for outcome in grid.outcomes if outcome.point == point for c in outcome.comparisons]
    if not comparisons:
        return blank(None)
    closest = min(comparisons, key=lambda c: c.lower_bound / c.margin)
    bound = format_difference(closest.metric, closest.lower_bound)
    return TableCell(f"{bound} ({METRICS[closest.metric].name}{_NBSP}{closest.label})")


def grid_networks_table(result: PruningResult) -> Table | None:
    """What overlap and flips do not change: time per window and memory; None where there is no grid."""
    grid = result.grid
    if grid is None:
        return None
    unit, scale = _time_unit(cost.window_latency_s.median for cost in grid.costs.values())
    rows: dict[tuple[str, str, str], tuple[TableCell, ...]] = {}
    for point in grid.points:
        if point.setting is not None:
            key, cost = (point.level, point.setting.precision, point.setting.runtime), grid.costs[point.name]
            measured = (_quartiles(cost.window_latency_s, scale), significant(cost.peak_memory_bytes / _MEGA))
            rows.setdefault(key, tuple(TableCell(text) for text in (*key, *measured)))
    columns = [("Level", False), ("Precision", False), ("Runtime", False)]
    columns += [(f"Time per window ({unit})", True), ("Peak memory (MB)", True)]
    return _table(
        "Windows and memory of the operating points",
        columns,
        [rows[key] for key in sorted(rows, key=lambda key: (key[1:], key[0]))],
        notes=[
            "These do not depend on overlap and flips, and are measured once for each level, precision and runtime. "
            "Peak memory is that of segmenting the whole volume; with a runtime that converts networks, the conversion "
            "is in it unless a converted network was kept."
        ],
    )


def _grid_verdict(grid: OperatingGrid, point: str) -> TableCell:
    state = grid_state(grid, point)
    if point == grid.recommended:
        return TableCell("pass, recommended", "good")
    return TableCell(state, _STATE.get(state, ""))


def _grid_levels(grid: OperatingGrid, alpha: float) -> list[str]:
    """What Holm's procedure came to, and why points did not pass."""
    if not grid.outcomes:
        return []
    points = {outcome.point for outcome in grid.outcomes}
    levels = sorted({outcome.alpha for outcome in grid.outcomes})
    spread = significant(levels[0], 2) + (f" to {significant(levels[-1], 2)}" if len(levels) > 1 else "")
    found = [
        f"Result: {len(points)} points share the one-sided alpha of {alpha:g} by Holm's procedure; bounds are at a "
        f"level of {spread}, with fewer than {FEW_SUBJECTS} subjects at a tenth of it."
    ]
    for state in ("fail", "inconclusive"):
        first = next((o for o in grid.outcomes if o.state == state and o.reasons), None)
        if first is not None:
            found.append(f"Such as {first.point} ({_quoted(first.dataset)}), {state}: {_first_reason(first)}")
    return found


def _first_reason(outcome: PointOutcome) -> str:
    return outcome.reasons[0].removeprefix(f"{outcome.point}: ")


def trade_offs_table(result: PruningResult) -> Table | None:
    """The rules other than non-inferiority and what they pick; None where there are none."""
    if not result.trade_offs:
        return None
    rows = [(TableCell(t.rule), blank(", ".join(t.points) or "none"), TableCell(t.reason)) for t in result.trade_offs]
    return _table("Trade-offs", [("Rule", False), ("Picks", False), ("Why", False)], rows)


def worst_cases_table(result: PruningResult, summary: Summary) -> Table | None:
    """The cases on which the level of :func:`shown_loser` loses most; None where there is none or none loses."""
    chosen, deepest = shown_loser(result), deepest_point(result)
    if not summary.worst_cases or chosen is None or deepest is None:
        return None
    rows = [
        (
            TableCell(worst.case),
            TableCell(worst.dataset),
            TableCell(worst.label),
            TableCell(format_metric("dice", worst.deepest_dice)),
            TableCell(format_metric("dice", worst.chosen_dice)),
            TableCell(format_difference("dice", worst.difference)),
        )
        for worst in summary.worst_cases
    ]
    columns = [
        ("Case", False),
        ("Data set", False),
        ("Label", False),
        (f"Dice, {deepest.name}", True),
        (f"Dice, {chosen.name}", True),
        ("Difference", True),
    ]
    return _table(f"Where {chosen.name} loses most against {deepest.name}", columns, rows)


def problems_table(result: PruningResult) -> Table | None:
    """The cases that were left out; None where there are none."""
    if not result.problems:
        return None
    rows = [(TableCell(p.case), TableCell(p.dataset), TableCell(p.reason)) for p in result.problems]
    return _table("Cases left out", [("Case", False), ("Data set", False), ("Reason", False)], rows)


def settings_table(result: PruningResult) -> Table:
    """By which rules and settings this run scored and decided."""
    rows = [
        (
            TableCell(f"Margin, {METRICS[m.metric].name}"),
            TableCell(
                f"{m.value:g}{' ' + METRICS[m.metric].unit if METRICS[m.metric].unit else ''} on "
                f"{'every label' if m.labels is None else ', '.join(m.labels)}"
            ),
        )
        for m in result.rules.margins
    ]
    if EARLIER_RULES in result.settings:
        rows.append((TableCell(_capitalised(EARLIER_RULES)), TableCell(result.settings[EARLIER_RULES], "unsure")))
    rows.append(
        (
            TableCell("Confidence of each bound"),
            TableCell(
                f"{_confidence(result.rules.alpha)}, one-sided; "
                f"{_confidence(bound_alpha(FEW_SUBJECTS - 1, result.rules.alpha))} "
                f"with fewer than {FEW_SUBJECTS} subjects"
            ),
        )
    )
    rows += [
        (TableCell(f"Largest drop of a single case, {METRICS[metric].name}"), TableCell(f"{drop:g}"))
        for metric, drop in result.rules.max_case_drop.items()
    ]
    rows.append(
        (TableCell("Bootstrap"), TableCell(f"{result.rules.bootstrap_samples} resamples, seed {result.rules.seed}"))
    )
    rows += [
        (TableCell(f"Surface tolerance, {label}"), TableCell(f"{significant(mm, 2)} mm"))
        for label, mm in result.tolerance_mm.items()
    ]
    rows += [
        (TableCell(_capitalised(name)), blank(text)) for name, text in result.settings.items() if name != EARLIER_RULES
    ]
    return _table("Rules of this run", [("Setting", False), ("Value", False)], rows)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def environment_table(result: PruningResult) -> Table | None:
    """Hardware and versions; None where they are not known."""
    if result.environment is None:
        return None
    e = result.environment
    rows = [
        (TableCell("Device"), TableCell(e.device)),
        (TableCell("Precision"), TableCell(e.precision)),
        (TableCell("Runtime"), TableCell(e.runtime)),
        (TableCell("Threads"), TableCell(str(e.threads))),
        *((TableCell(name), TableCell(version)) for name, version in e.versions.items()),
        (TableCell("Date"), TableCell(e.date)),
    ]
    return _table("Where costs were measured", [("What", False), ("Value", False)], rows)
