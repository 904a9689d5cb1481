"""The tables of a pruning report, each computed and worded once, so that all files agree.

This module neither decides nor measures: it compares the scores and costs of a
:class:`~monai_unetpp.pruning.results.PruningResult` and words them for ``report.html`` and ``summary.md``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from monai_unetpp.errors import counted
from monai_unetpp.metrics import FOREGROUND, METRICS
from monai_unetpp.pruning.pairing import BOTH_FALSE_POSITIVE
from monai_unetpp.pruning.points.tradeoffs import accuracy_of_each
from monai_unetpp.pruning.report.opening import verdict_in_words
from monai_unetpp.pruning.results import Decision, PointCost, PruningResult
from monai_unetpp.pruning.statistics import FULL_SUBJECTS, MIN_SUBJECTS, bound_alpha, unseen_rate
from monai_unetpp.pruning.summary import (
    ALL,
    RelativeCost,
    Summary,
    chosen_point,
    data_sets,
    deepest_point,
    is_confirmed,
    judged_rows,
    ordered_decisions,
    point_role,
    shown_labels,
    shown_loser,
    summarise,
    verdict,
)
from monai_unetpp.pruning.wording import (
    STATE_TONES,
    capitalised,
    confidence,
    data_set_in_words,
    format_difference,
    format_metric,
    interval,
    interval_note,
    mean_and_sd,
    named_data_set,
    part_in_words,
    quartiles,
    quoted,
    rule_in_words,
    speed_up,
)
from monai_unetpp.reporting.numbers import join_shape, percent, rough_percent, significant, time_unit
from monai_unetpp.reporting.tables import Table, TableCell, Tone

_MEGA = 1e6
_GIGA = 1e9
_GLANCE_LABELS = 4
_EMPTY_COUNTS = (
    "Accuracies here count 1 for a point that rightly finds nothing where another finds something; tables of accuracy "
    "leave such a case out."
)

EARLIER_RULES = "earlier rules"
"""The entry of ``result.settings`` with other rules by which the same cases were judged before."""

UNSCORED = "cases not scored"
"""The entry of ``result.settings`` that says which cases were left out for lack of time."""

DECISION_RULE = (
    "Levels are tested in a fixed order from deep to shallow, and the first that does not pass stops the search: "
    "levels beyond it are described, not tested. A level passes if, for every guarded metric and label, the one-sided "
    "lower confidence bound of its mean difference from the deepest level is above minus the margin (see the rules of "
    "this run), with room for rare large drops that so few subjects cannot exclude, and if neither missed structures "
    "nor large drops of single cases exceed those in the other direction by 5 % of the subjects."
)

# Time and IoU are averages in arXiv:1807.10165; 75.6 % is 1 - 2,204,961 / 9,041,601 for its network as a NestedUNet.
PAPER_CLAIM = (
    "arXiv:1807.10165 reports for UNet++ L3 against L4, on average, 32.2 % less inference time and 0.6 points of IoU "
    "lost, and that pruning further costs significant accuracy; the abstract of arXiv:1912.05074 reports significant "
    "speed-up with only modest degradation. Parameters are those of the papers' 2D network (2.20 M of 9.04 M). Data, "
    "network and hardware differ from those here: compare orders of magnitude only."
)


_VERDICT: dict[str, tuple[str, Tone]] = {
    "prune": ("Prune to {level}", "good"),
    "keep": ("Keep {level}", "bad"),
    "inconclusive": ("Inconclusive", "unsure"),
}


def verdict_cell(decision: Decision) -> TableCell:
    """The verdict in two or three words."""
    text, tone = _VERDICT[decision.verdict]
    return TableCell(text.format(level=decision.level), tone)


def verdicts_table(result: PruningResult) -> Table:
    """One row per data set, and one for all."""
    records = [
        {
            "Data set": data_set_in_words(d.dataset),
            "Verdict": verdict_cell(d),
            "Cases": str(d.cases),
            "Subjects": str(d.subjects),
            "Its cases": "choose the level and give its figures"
            if d.role == "choose and report"
            else f"{d.role} the level",
            "Optimistic": TableCell("yes", "unsure") if d.optimistic else "no",
            "Subjects needed": None if d.subjects_needed is None else str(d.subjects_needed),
            "In words": d.summary,
        }
        for d in ordered_decisions(result)
    ]
    return Table.of(
        "The verdict on each data set",
        records,
        words=("Data set", "Verdict", "Its cases", "Optimistic", "In words"),
        notes=[
            "Optimistic: whether the cases that give the figures also chose the level or, where they confirm it, the "
            "weights.",
            result.settings.get(UNSCORED, ""),
        ],
    )


def glance_table(result: PruningResult, summary: Summary) -> Table:
    """The levels at a glance: accuracy over the cases that the verdict is about, cost and speed-up."""
    decision = verdict(result)
    rows = tuple(judged_rows(result, decision)) or result.rows
    judged = dataclasses.replace(result, rows=rows, grid=None)
    accuracies, dataset = summarise(judged), data_sets(judged)[0]
    labels = shown_labels(result)
    if len(labels) > _GLANCE_LABELS and FOREGROUND in labels:
        labels = (FOREGROUND,)
    unit, scale = time_unit(cost.volume_latency_s.median for cost in result.costs.values())
    relative = {cost.point: cost for cost in summary.costs}
    records = []
    for point in result.points:
        record: dict[str, TableCell | str | None] = {"Level": point.name, "Role": point_role(point, result)}
        for label in labels:
            accuracy = accuracies.of(dataset, point.name, label)
            record[f"Dice, {label}"] = mean_and_sd("dice", accuracy.metrics["dice"]) if accuracy else None
        if result.costs:
            cost = result.costs.get(point.name)
            record |= {
                f"Time per volume ({unit})": significant(cost.volume_latency_s.median * scale) if cost else None,
                "Speed-up": speed_up(relative[point.name].volume_speed_up),
                "Parameters (M)": significant(cost.parameters / _MEGA) if cost else None,
                "Peak memory (MB)": significant(cost.peak_memory_bytes / _MEGA) if cost else None,
            }
        records.append(record)
    cases = "all data sets" if dataset == ALL else quoted(dataset)
    if len(rows) < len(result.rows):
        cases += " that confirm the level" if decision.role == "confirm" else " that choose the level"
    ratio = "Speed-up: median time per volume of the deepest level divided by that of this level."
    return Table.of(
        "The levels at a glance",
        records,
        words=("Level", "Role"),
        marked=_chosen_rows(result),
        notes=[f"Dice: mean ± standard deviation over the cases of {cases}.", ratio if result.costs else ""],
    )


def _chosen_rows(result: PruningResult) -> list[int]:
    """The index of the chosen point in a table with a row per point."""
    chosen = chosen_point(result)
    return [i for i, point in enumerate(result.points) if point == chosen]


def accuracy_table(result: PruningResult, summary: Summary, dataset: str) -> Table:
    """Scores, states and the difference from the deepest level for every level and label of one data set."""
    chosen = chosen_point(result)
    # no decision about a part of a data set is about the means of all its cases
    held = {case for data_set, case in result.confirming if data_set == dataset}
    split = held and held != {row.case for row in result.rows if row.dataset == dataset}
    decisions = [] if split else [d for d in result.decisions if d.dataset == dataset]
    compared = {(c.point, c.label, c.metric): c for d in decisions[:1] for c in d.comparisons if len(decisions) == 1}
    # only one metric's interval fits beside the means; the comparisons hold the others
    guarded = [key for key in METRICS if any(metric == key for _, _, metric in compared)][:1]
    records: list[dict[str, TableCell | str | None]] = []
    marked: list[int] = []
    for point in result.points:
        for label in shown_labels(result):
            accuracy = summary.of(dataset, point.name, label)
            if accuracy is None:
                continue
            if point == chosen:
                marked.append(len(records))
            record: dict[str, TableCell | str | None] = {"Level": point.name, "Label": label}
            record |= {metric.heading: mean_and_sd(key, accuracy.metrics[key]) for key, metric in METRICS.items()}
            for key in guarded:
                comparison = compared.get((point.name, label, key))
                record[f"{METRICS[key].name} difference"] = interval(comparison) if comparison else None
            record |= {
                "Cases": str(accuracy.cases),
                "Missed": TableCell(str(accuracy.missed), "bad" if accuracy.missed else ""),
                "False pos.": TableCell(str(accuracy.false_positive), "bad" if accuracy.false_positive else ""),
                "Both empty": str(accuracy.both_empty),
            }
            records.append(record)
    tolerances = ", ".join(f"{label} {significant(mm, 2)} mm" for label, mm in result.tolerance_mm.items())
    return Table.of(
        f"Accuracy on {named_data_set(dataset)}",
        records,
        words=("Level", "Label"),
        marked=marked,
        notes=[
            "Mean ± standard deviation over cases. Cases with truth and prediction both empty are counted but left "
            "out, separately at each level: if only one of two levels has a false positive, their means are over "
            "different cases.",
            f"NSD: normalised surface Dice at a tolerance of {tolerances}." if tolerances else "",
            "Missed: truth, but no prediction. False pos.: prediction, but no truth.",
            interval_note(result.rules.alpha, list(compared.values())) if guarded else "",
        ],
    )


def comparisons_table(result: PruningResult, decision: Decision) -> Table:
    """The comparisons of every guarded metric at every level, with their results."""
    extra = {point.name for point in result.points if point.kind == "extra"}
    records = []
    for c in decision.comparisons:
        why = "further checkpoint" if c.point in extra else "after the stop"
        untested = TableCell(f"{c.state} (not tested: {why})", "muted")
        worst = f"{format_difference(c.metric, c.worst_difference)} ({c.worst_case})"
        records.append(
            {
                "Level": c.point,
                "Metric": METRICS[c.metric].heading,
                "Label": c.label,
                "Cases": str(c.cases) if c.clusters == c.cases else f"{c.cases} ({c.clusters} subjects)",
                "Mean, deepest": format_metric(c.metric, c.mean_reference),
                "Mean, level": format_metric(c.metric, c.mean_point),
                "Mean difference": interval(c),
                "Margin": f"{c.margin:g}",
                "Worst case": worst if c.worst_case else None,
                "Bound by": {"bca": "BCa"}.get(c.method, c.method),
                "Result": TableCell(c.state, STATE_TONES[c.state]) if c.point in decision.tested else untested,
                "Subjects needed": None if c.subjects_needed is None else str(c.subjects_needed),
            }
        )
    return Table.of(
        f"Non-inferiority on {named_data_set(decision.dataset)}{part_in_words(decision.role)}",
        records,
        words=("Level", "Metric", "Label", "Bound by", "Result"),
        notes=_comparison_notes(result, decision),
    )


def _comparison_notes(result: PruningResult, decision: Decision) -> list[str]:
    said = " ".join(decision.blockers)
    return [
        interval_note(result.rules.alpha, decision.comparisons),
        "Bound by: BCa is the bias-corrected and accelerated bootstrap, t is Student's t corrected for skewness. "
        "The lower of the two bounds counts; with few subjects, that of t.",
        "A comparison passes if the lower bound is above minus the margin and the mean leaves room for rare large "
        "drops that so few subjects cannot exclude. It fails if the upper bound is below minus the margin, or if an "
        "exact sign test, corrected for their number, shows more subjects with a large drop than with a large gain. "
        "Otherwise it is inconclusive.",
        "Not tested: levels after the first that does not pass, and further checkpoints, which are no candidates. Such "
        "rows are descriptive and never count for the verdict."
        if any(c.point not in decision.tested for c in decision.comparisons)
        else "",
        _unseen_note(decision, result.rules.alpha),
        "Cases: those that can be compared. Cases are left out if neither the truth nor either prediction has the "
        "label, or if the truth lacks it and both predictions have it.",
        "Subjects needed: for each comparison alone, at 80 % power, if level and deepest were truly equal; counted in "
        "subjects that have the label.",
        *(
            f"{c.point}: {c.reason}"
            for c in decision.comparisons
            if (c.state != "pass" or BOTH_FALSE_POSITIVE in c.reason) and c.reason not in said
        ),
    ]


def _unseen_note(decision: Decision, alpha: float) -> str:
    """What a pass on this number of subjects cannot exclude; empty for other verdicts."""
    subjects = [c.clusters for c in decision.comparisons if c.point in decision.tested and c.state == "pass"]
    if decision.verdict != "prune" or not subjects:
        return ""
    least = min(subjects)
    return (
        f"A pass does not exclude that some subjects fare worse: even if none of {least} subjects has a large drop, up "
        f"to {percent(unseen_rate(least, alpha), '.1f')} of all subjects may have one ({confidence(alpha)} confidence)."
    )


def stability_table(result: PruningResult) -> Table:
    """How often other samples of the same subjects give each verdict; without rows if unknown."""
    samples = [
        (each, name, subjects, shares)
        for each in result.stability
        for name, subjects, shares in (
            ("new subjects, as many", each.subjects, each.new_samples),
            ("half of these subjects", each.subjects // 2, each.halves),
            ("all but one subject", each.subjects - 1, each.leave_one_out),
        )
    ]
    found = {verdict for *_, shares in samples for verdict in shares}
    verdicts = [point.name for point in result.points if point.name in found]
    verdicts += sorted(found - set(verdicts))
    headings = {verdict: capitalised(verdict_in_words(result, verdict)) for verdict in verdicts}
    records = [
        {
            "Sample": name,
            **({"Data set": data_set_in_words(each.dataset)} if len(result.stability) > 1 else {}),
            "Subjects": str(subjects),
            **{words: rough_percent(shares.get(verdict, 0.0)) for verdict, words in headings.items()},
        }
        for each, name, subjects, shares in samples
    ]
    return Table.of(
        "How often other samples would give each verdict",
        records,
        words=("Sample", "Data set"),
        notes=[
            "Share of samples. New subjects are imitated by random halves in which every subject counts twice: such "
            "samples vary like new ones of full size from the same source.",
            *(["All subjects are of those that chose the level."] if is_confirmed(result) else []),
        ],
    )


def between_sets_table(result: PruningResult) -> Table:
    """How the loss of each level differs between data sets; without rows for a single one."""
    records = [
        {
            "Level": each.point,
            "Metric": METRICS[each.metric].heading,
            "Label": each.label,
            "Data sets": f"{each.first} minus {each.second}",
            "Difference of the losses": format_difference(each.metric, each.difference),
            "95 % interval": (
                f"{format_difference(each.metric, each.lower)} to {format_difference(each.metric, each.upper)}"
            ),
            "Depends on the set": TableCell("yes", "unsure") if each.depends_on_set else "not shown",
        }
        for each in result.between_sets
    ]
    return Table.of(
        "Does the loss depend on the data set?",
        records,
        words=("Level", "Metric", "Label", "Data sets", "Depends on the set"),
        notes=[
            "How much more a level gains (+) or loses (-) against the deepest on the first data set than "
            "on the second. The loss depends on the set if the interval, by Welch's t test, excludes 0, as one in "
            "twenty does by chance.",
        ],
    )


def cost_table(result: PruningResult, summary: Summary) -> Table | None:
    """The cost of each point; None if no cost was measured."""
    costs = result.costs
    if not costs:
        return None
    window_unit, window_scale = time_unit(cost.window_latency_s.median for cost in costs.values())
    volume_unit, volume_scale = time_unit(cost.volume_latency_s.median for cost in costs.values())
    relative = {cost.point: cost for cost in summary.costs}
    energy = {name: cost.volume_energy_j for name, cost in costs.items() if cost.volume_energy_j}
    records = []
    for point in result.points:
        cost, share, joules = costs.get(point.name), relative[point.name], energy.get(point.name)
        records.append(
            {
                "Level": point.name,
                "Parameters (M)": _parameters(cost, share) if cost else None,
                "FLOPs per window (G)": significant(cost.flops_per_window / _GIGA) if cost else None,
                "Checkpoint (MB)": significant(cost.checkpoint_bytes / _MEGA) if cost else None,
                f"Time per window ({window_unit})": quartiles(cost.window_latency_s, window_scale) if cost else None,
                f"Time per volume ({volume_unit})": quartiles(cost.volume_latency_s, volume_scale) if cost else None,
                "Speed-up, window": speed_up(share.window_speed_up),
                "Speed-up, volume": speed_up(share.volume_speed_up),
                "Peak memory (MB)": significant(cost.peak_memory_bytes / _MEGA) if cost else None,
                **({"Energy per volume (J)": quartiles(joules, 1.0) if joules else None} if energy else {}),
                "Self-check": _self_check(cost) if cost else None,
            }
        )
    first = next(iter(costs.values()))
    return Table.of(
        "Cost of each pruned network",
        records,
        words=("Level", "Self-check"),
        marked=_chosen_rows(result),
        notes=[
            f"Times: median (quartiles) of {counted(first.window_latency_s.count, 'window')} of "
            f"{join_shape(first.window_shape)} voxels and {counted(first.volume_latency_s.count, 'volume')} of "
            f"{join_shape(first.volume_shape)} voxels.",
            "M: million; G: 10⁹; MB: 10⁶ bytes. A multiplication and an addition count as two operations. Speed-up: "
            "against the deepest level.",
            "Time per window and FLOPs are those of one pass of the network. Time per volume and peak memory are those "
            "of segmenting a whole volume, with all windows, overlaps and flips.",
            "Energy: median (quartiles) from the counters of the CPU (RAPL) or the GPU (NVML), idle power included."
            if energy
            else "",
            "Self-check: whether the pruned network's output equals that of the scored level."
            if any(cost.self_check for cost in costs.values())
            else "",
        ],
    )


def _parameters(cost: PointCost, relative: RelativeCost) -> str:
    share = relative.parameter_share
    return significant(cost.parameters / _MEGA) + ("" if share is None else f" ({percent(share, '.1f')})")


def _self_check(cost: PointCost) -> TableCell | None:
    check = cost.self_check
    if check is None:
        return None
    return TableCell("exact", "good") if check.equal else TableCell(f"differs by {check.max_difference:.1e}", "bad")


def claims_table(result: PruningResult, summary: Summary) -> Table | None:
    """What pruning saves here, beside what the papers report; None if no cost was measured."""
    if not result.costs:
        return None
    deepest, dataset = deepest_point(result), data_sets(result)[0]
    relative = {cost.point: cost for cost in summary.costs}
    records = []
    for point in result.points:
        cost = relative[point.name]
        if point.kind == "extra" or point == deepest:
            continue
        scores = [row for row in result.rows if dataset in (row.dataset, ALL)]
        iou = accuracy_of_each(scores, (point.name, deepest.name), "iou")
        records.append(
            {
                "Network": f"{point.name} of {deepest.name}, here",
                "Less time": percent(1 - 1 / cost.volume_speed_up, ".1f") if cost.volume_speed_up else None,
                "Fewer parameters": None if cost.parameter_share is None else percent(1 - cost.parameter_share, ".1f"),
                "Less peak memory": None if cost.memory_share is None else percent(1 - cost.memory_share, ".1f"),
                "IoU points lost": f"{100 * (iou[deepest.name] - iou[point.name]):.1f}" if iou else None,
            }
        )
    if not records:
        return None
    papers = ("L3 of L4, papers", percent(0.322, ".1f"), percent(0.756, ".1f"), None, "0.6")
    return Table.of(
        "What pruning saves, beside the papers' claims",
        [*records, dict(zip(records[0], papers, strict=True))],
        words=("Network",),
        notes=["Time: per volume. IoU points: mean over the labels; 100 points are an IoU of 1.", PAPER_CLAIM],
    )


def trade_offs_table(result: PruningResult) -> Table:
    """The rules other than non-inferiority and what they pick."""
    records = [
        {"Rule": rule_in_words(t.rule), "Picks": ", ".join(t.points) or "none", "Why": t.reason}
        for t in result.trade_offs
    ]
    empty, wrong = (
        {(row.dataset, row.case, row.label) for row in result.rows if row.score.state == state}
        for state in ("both_empty", "false_positive")
    )
    notes = [_EMPTY_COUNTS] if records and empty & wrong else []
    return Table.of("Trade-offs", records, words=("Rule", "Picks", "Why"), notes=notes)


def worst_cases_table(result: PruningResult, summary: Summary) -> Table | None:
    """The cases on which the level of :func:`shown_loser` loses most; None without such a level or loss."""
    chosen, deepest = shown_loser(result), deepest_point(result)
    if not summary.worst_cases or chosen is None:
        return None
    records = [
        {
            "Case": worst.case,
            "Data set": worst.dataset,
            "Label": worst.label,
            f"Dice, {deepest.name}": format_metric("dice", worst.deepest_dice),
            f"Dice, {chosen.name}": format_metric("dice", worst.chosen_dice),
            "Difference": format_difference("dice", worst.difference),
        }
        for worst in summary.worst_cases
    ]
    caption = f"Where {chosen.name} loses most against {deepest.name}"
    return Table.of(caption, records, words=("Case", "Data set", "Label"))


def problems_table(result: PruningResult) -> Table:
    """The cases that were left out."""
    records = [{"Case": p.case, "Data set": p.dataset, "Reason": p.reason} for p in result.problems]
    return Table.of("Cases left out", records, words=("Case", "Data set", "Reason"))


def settings_table(result: PruningResult) -> Table:
    """The rules and settings of this run."""
    rows: list[tuple[str, TableCell | str]] = []
    for margin in result.rules.margins:
        metric, labels = METRICS[margin.metric], margin.labels
        value = f"{margin.value:g} {metric.unit}".rstrip()
        rows.append((f"Margin, {metric.name}", f"{value} on {'every label' if labels is None else ', '.join(labels)}"))
    if EARLIER_RULES in result.settings:
        rows.append((capitalised(EARLIER_RULES), TableCell(result.settings[EARLIER_RULES], "unsure")))
    few = confidence(bound_alpha(MIN_SUBJECTS, result.rules.alpha))
    bounds = (
        f"{confidence(result.rules.alpha)}, one-sided; higher with fewer than {FULL_SUBJECTS} subjects, up to {few} "
        f"with {MIN_SUBJECTS}"
    )
    rows.append(("Confidence of each bound", bounds))
    for key, drop in result.rules.max_case_drop.items():
        rows.append((f"Largest drop of a single case, {METRICS[key].name}", f"{drop:g}"))
    rows.append(("Least mean Dice of a guarded label at the deepest level", f"{result.rules.min_reference:g}"))
    rows.append(("Bootstrap", f"{result.rules.bootstrap_samples} resamples, seed {result.rules.seed}"))
    for label, mm in result.tolerance_mm.items():
        rows.append((f"Surface tolerance, {label}", f"{significant(mm, 2)} mm"))
    rows += [(capitalised(name), text) for name, text in result.settings.items() if name != EARLIER_RULES]
    return _pairs("Rules of this run", "Setting", rows)


def _pairs(caption: str, name: str, rows: Sequence[tuple[str, TableCell | str]]) -> Table:
    return Table.of(caption, [{name: key, "Value": value} for key, value in rows], words=(name, "Value"))


def environment_table(result: PruningResult) -> Table | None:
    """Hardware and versions; None if unknown."""
    e = result.environment
    if e is None:
        return None
    rows = [("Device", e.device), ("Precision", e.precision), ("Runtime", e.runtime), ("Threads", str(e.threads))]
    return _pairs("Where costs were measured", "What", [*rows, *e.versions.items(), ("Date", e.date)])
