"""Summarise the results of the runs as the numbers of a study, and format these as Markdown.

``study.json`` is what :func:`summarise` returns; the table and the plots only read it.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from monai_unetpp.data.datasets.label_names import IGNORE
from monai_unetpp.errors import counted
from monai_unetpp.measuring.environment import Environment
from monai_unetpp.metrics.definitions import METRICS
from monai_unetpp.pruning.statistics import bound_alpha, mean_bounds, subject_means
from monai_unetpp.reporting.markdown import escape, format_table
from monai_unetpp.reporting.numbers import percent
from monai_unetpp.study.costs import RowLatency
from monai_unetpp.study.design import StudySettings
from monai_unetpp.study.variants import REFERENCE, StudyRow
from monai_unetpp.training.observing import thinned

COMPARED = ("iou", "dice")
"""The metrics that are compared, the first of them also with the reference."""

CaseMetrics = dict[str, dict[str, dict[str, float | None]]]
"""Metrics by case, then label, then name; None where neither truth nor segmentation has the label."""

_ALPHA = 0.025  # on each side


@dataclasses.dataclass(frozen=True)
class RunResult:
    """The result of a finished run.

    Attributes:
        config: arguments of :class:`~monai_unetpp.NestedUNet`.
        fingerprint: hash of its settings and cases.
        training_seconds: summed over all parts of an interrupted run.
        environment: where it was scored.
        sizes: by level, ``parameters`` and ``flops`` of the network as used there.
        scores: metrics of every case and class by level.
        curve: loss of the deepest head by step.
    """

    variant: str
    seed: int
    config: dict[str, Any]
    fingerprint: str
    training_seconds: float
    environment: dict[str, Any]
    sizes: dict[str, dict[str, int]]
    scores: dict[str, CaseMetrics]
    curve: list[float]


def case_means(scores: CaseMetrics, metric: str) -> dict[str, float]:
    """The mean of a metric over the foreground classes by case; cases without a defined class are left out."""
    means = {}
    for case, by_label in scores.items():
        values = [value for each in by_label.values() if (value := each[metric]) is not None]
        if values:
            means[case] = statistics.fmean(values)
    return means


def compare_cases(
    mine: Mapping[int, CaseMetrics],
    theirs: Mapping[int, CaseMetrics],
    metric: str,
    subjects: Mapping[str, str] = {},
) -> dict[str, Any] | None:
    """The mean paired difference of two networks in an overlap metric, with its confidence interval over the subjects.

    The difference of a case is its mean over the foreground classes and the seeds that both have, and that of a
    subject its mean over its cases, so that each subject counts once. A class that neither the truth nor one of the
    two has counts as 1 there, as it was rightly left out; where neither network has it, there is nothing to compare.
    Cases without one of the ``subjects`` are subjects of their own.

    The ``mean`` is positive if ``mine``, the metrics by seed, are better. None with fewer than two common subjects.
    """
    seeds = [seed for seed in mine if seed in theirs]
    by_case: dict[str, list[float]] = {}
    for seed in seeds:
        for case, difference in _case_differences(mine[seed], theirs[seed], metric).items():
            by_case.setdefault(case, []).append(difference)
    cases = sorted(by_case)
    differences = subject_means(
        [statistics.fmean(by_case[case]) for case in cases], [subjects.get(case, case) for case in cases]
    )
    if len(differences) < 2:
        return None
    bounds = mean_bounds(differences, alpha=_ALPHA)
    return {
        "mean": bounds.mean,
        "lower": bounds.lower,
        "upper": bounds.upper,
        "confidence": 1 - 2 * bound_alpha(len(differences), _ALPHA),
        "cases": len(cases),
        "subjects": len(differences),
        "seeds": len(seeds),
    }


def _case_differences(mine: CaseMetrics, theirs: CaseMetrics, metric: str) -> dict[str, float]:
    """The mean difference over the classes of each case that both scored, where there is anything to compare."""
    perfect, differences = METRICS[metric].perfect, {}
    for case in mine.keys() & theirs.keys():
        pairs = [(of[metric], theirs[case][label][metric]) for label, of in mine[case].items()]
        found = [
            (perfect if a is None else a) - (perfect if b is None else b) for a, b in pairs if (a, b) != (None, None)
        ]
        if found:
            differences[case] = statistics.fmean(found)
    return differences


def summarise(
    rows: Sequence[StudyRow],
    results: Sequence[RunResult],
    latencies: Mapping[str, RowLatency],
    settings: StudySettings,
    cases: Mapping[str, Any],
    environment: Environment,
    subjects: Mapping[str, str] = {},
) -> dict[str, Any]:
    """All numbers of the study, ready for JSON.

    Rows and seeds without a result are listed as missing. ``latencies`` are by name of the row, measured in
    ``environment``, ``cases`` from ``StudyCases.as_dict``, and ``subjects`` by case; other cases are subjects of their
    own.
    """
    runs: dict[str, dict[int, RunResult]] = {}
    for result in sorted(results, key=lambda each: each.seed):
        runs.setdefault(result.variant, {})[result.seed] = result
    present = [row for row in rows if row.variant in runs]
    scores = {row.name: {seed: run.scores[row.level] for seed, run in runs[row.variant].items()} for row in present}
    return {
        "reference": REFERENCE,
        "settings": settings.as_dict(),
        "cases": dict(cases),
        "environment": dataclasses.asdict(environment),
        "trained_on": sorted({str(result.environment["device"]) for result in results}),
        "rows": [_row(row, runs[row.variant], scores, latencies.get(row.name), subjects) for row in present],
        "embedded_isolated": _pairs(present, scores, subjects),
        "missing": [told for row in rows for told in _missing(row, runs)],
        "scores": {name: {str(seed): of for seed, of in by_seed.items()} for name, by_seed in scores.items()},
        "curves": {
            variant: {str(seed): _curve(run.curve) for seed, run in runs[variant].items()}
            for variant in dict.fromkeys(row.variant for row in present)
        },
    }


def _missing(row: StudyRow, runs: Mapping[str, Mapping[int, RunResult]]) -> list[str]:
    """The name of a row without results, or with the seeds that it lacks and another has."""
    if row.variant not in runs:
        return [row.name]
    absent = sorted({seed for of in runs.values() for seed in of} - runs[row.variant].keys())
    return [f"{row.name} ({_seeds(absent)})"] if absent else []


_Scores = Mapping[str, Mapping[int, CaseMetrics]]


def _row(
    row: StudyRow,
    runs: Mapping[int, RunResult],
    scores: _Scores,
    latency: RowLatency | None,
    subjects: Mapping[str, str],
) -> dict[str, Any]:
    first = next(iter(runs.values()))
    reference = scores.get(REFERENCE)
    content: dict[str, Any] = {
        **dataclasses.asdict(row),
        "features": list(first.config["features"]),
        **first.sizes[row.level],
        "latency_s": None if latency is None else dataclasses.asdict(latency.seconds),
        "latency_ratio": None if latency is None or latency.ratio is None else dataclasses.asdict(latency.ratio),
        "training_seconds": {str(seed): run.training_seconds for seed, run in runs.items()},
    }
    for metric in COMPARED:
        mine = scores[row.name]
        content[metric] = _spread({seed: case_means(of, metric) for seed, of in mine.items()})
        content[f"{metric}_difference"] = (
            compare_cases(mine, reference, metric, subjects) if reference and row.name != REFERENCE else None
        )
    return content


def _spread(by_seed: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    """The mean over cases by seed, and the mean and standard deviation over seeds."""
    seeds = {str(seed): statistics.fmean(of.values()) for seed, of in by_seed.items() if of}
    values = list(seeds.values())
    return {
        "by_seed": seeds,
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
    }


def _pairs(rows: Sequence[StudyRow], scores: _Scores, subjects: Mapping[str, str]) -> list[dict[str, Any]]:
    """Compare each level cut out of UNet++ with the same level trained alone."""
    embedded = {row.level: row.name for row in rows if row.kind == "embedded"}
    isolated = {row.level: row.name for row in rows if row.kind == "isolated"}
    return [
        {
            "level": level,
            "embedded": name,
            "isolated": isolated[level],
            **{
                f"{metric}_difference": compare_cases(scores[name], scores[isolated[level]], metric, subjects)
                for metric in COMPARED
            },
        }
        for level, name in embedded.items()
        if level in isolated
    ]


def _curve(losses: Sequence[float]) -> dict[str, list[float]]:
    steps, means = thinned(losses)
    return {"step": list(steps), "loss": [round(loss, 6) for loss in means]}


def measured_where(study: Mapping[str, Any]) -> str:
    """Device, versions, date and budget in one line, for captions."""
    environment, settings = study["environment"], study["settings"]
    versions = environment["versions"]
    return (
        f"{study['cases']['name']}, {settings['budget']} steps of {settings['batch_size']} patches of "
        f"{_times(settings['patch_size'])}. {environment['device']}, {counted(environment['threads'], 'thread')}, "
        f"{settings['precision']}, monai-unetpp {versions['monai-unetpp']}, torch {versions['torch']}, "
        f"MONAI {versions['monai']}, {environment['date'][:10]}."
    )


def format_study(study: Mapping[str, Any]) -> str:
    """The study in Markdown: its settings, the table, embedded against isolated levels, and how to read them.

    Args:
        study: from :func:`summarise` or ``study.json``.
    """
    cases, settings, reference = study["cases"], study["settings"], study["reference"]
    parts = [
        f"# Comparison on {escape(cases['name'])}",
        escape(measured_where(study)),
        f"Every network was trained for {settings['budget']} steps of {settings['batch_size']} patches of "
        f"{_times(settings['patch_size'])} from {len(cases['training'])} cases, the same patches in the same order for "
        f"each seed, with the same loss, schedule and learning rate ({settings['learning_rate']:g}); features "
        f"{', '.join(map(str, settings['features']))}. The weights after the last step were scored on "
        f"{len(cases['validation'])} cases that had selected nothing.",
    ]
    if study["missing"]:
        parts.append(f"Not trained yet: {'; '.join(study['missing'])}.")
    parts += [_main_table(study), _pairs_table(study), _reading(study, reference)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _main_table(study: Mapping[str, Any]) -> str:
    first = METRICS[COMPARED[0]].heading
    columns = ["network", "parameters", "GFLOPs per window", "time per window (share of the reference)"]
    columns += [*(METRICS[key].heading for key in COMPARED), f"{first} against the reference (interval)"]
    rows, seeds = [], _all_seeds(study)
    for row in study["rows"]:
        latency, ratio = row["latency_s"], row["latency_ratio"]
        time = "n/a" if latency is None else f"{1000 * latency['median']:.1f} ms"
        share = "" if ratio is None else f" ({ratio['median']:.2f})"
        difference = "reference" if row["name"] == study["reference"] else _interval(row["iou_difference"])
        sizes = [f"{row['parameters'] / 1e6:.3f} M", f"{row['flops'] / 1e9:.2f}"]
        rows.append(
            [row["name"], *sizes, f"{time}{share}", *(_mean_sd(row[key], seeds) for key in COMPARED), difference]
        )
    return format_table(columns, rows)


def _pairs_table(study: Mapping[str, Any]) -> str:
    pairs = study["embedded_isolated"]
    if not pairs:
        return ""
    of, seeds = {row["name"]: row for row in study["rows"]}, _all_seeds(study)
    columns = ["level", "trained in UNet++, then cut (IoU)", "trained alone (IoU)", "embedded minus alone (interval)"]
    rows = [
        [
            pair["level"],
            *(_mean_sd(of[pair[kind]]["iou"], seeds) for kind in ("embedded", "isolated")),
            _interval(pair["iou_difference"]),
        ]
        for pair in pairs
    ]
    table = format_table(columns, rows)
    return f"## A level cut out of UNet++, or the same network trained alone?\n\n{table}"


def _reading(study: Mapping[str, Any], reference: str) -> str:
    seeds = _all_seeds(study)
    classes = ", ".join(escape(name) for name in study["cases"]["labels"] if name != IGNORE)
    confidences = {
        percent(row["iou_difference"]["confidence"], ".3g")
        for row in study["rows"]
        if row["iou_difference"] is not None
    }
    level = f" ({', '.join(sorted(confidences))})" if confidences else ""
    counts = sorted({row["iou_difference"]["subjects"] for row in study["rows"] if row["iou_difference"] is not None})
    # with fewer than two there is no interval
    over = "subjects" if not counts else f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} subjects"
    return (
        "## How to read this\n\n"
        f"- IoU and Dice: mean over the foreground classes ({classes}) of a case, then over the cases. The background "
        "does not count; a missed class or a false positive scores 0. A class that a network rightly leaves out has no "
        "score; in a difference from a network with a false positive there, it counts as 1. With several seeds, ± "
        f"gives the standard deviation over seeds ({_seeds(seeds)}).\n"
        f'- The reference is "{reference}" at its deepest level. Differences are paired by case and seed; positive '
        f"means better than the reference. The intervals{level} are over {over}: they say nothing about other seeds "
        "or training cases, and are not corrected for the number of comparisons.\n"
        "- Parameters, FLOPs and time are those of the network as it would be used: cut to its level, without other "
        "heads. The mean of heads needs all heads. Time is the median for one window; all networks were timed in "
        "turns in one process.\n"
        "- Embedded levels are cut out of the reference and not retrained. UNet++ L1 alone is the same network as "
        "U-Net L1, and is trained once.\n"
        "- The curves show the loss of the deepest head, which all networks have."
    )


def _all_seeds(study: Mapping[str, Any]) -> list[str]:
    return sorted({seed for row in study["rows"] for seed in row["iou"]["by_seed"]}, key=int)


def _seeds(seeds: Sequence[str | int]) -> str:
    return f"seed {', '.join(map(str, seeds))}"


def _mean_sd(metric: Mapping[str, Any], seeds: Sequence[str]) -> str:
    """The mean with its standard deviation, and the seeds where there are not all of ``seeds``."""
    if metric["mean"] is None:
        return "n/a"
    only = "" if set(metric["by_seed"]) == set(seeds) else f" ({_seeds(sorted(metric['by_seed'], key=int))})"
    return f"{metric['mean']:.4f}" + ("" if metric["sd"] is None else f" ± {metric['sd']:.4f}") + only


def _interval(difference: Mapping[str, Any] | None) -> str:
    if difference is None:
        return "n/a"
    return f"{difference['mean']:+.4f} ({difference['lower']:+.4f} to {difference['upper']:+.4f})"


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
