"""The report as Markdown."""

from __future__ import annotations

from monai_unetpp.failures.kinds import FailureReport, KindSummary
from monai_unetpp.reporting.markdown import code, escape
from monai_unetpp.reporting.numbers import percent
from monai_unetpp.reporting.tables import Table, TableCell

_FIGURES = {"foreground_iou": "foreground IoU", "mean_iou": "mean IoU"}
#: Columns that hold no numbers.
_WORDS = {"case", "pixels", "background", "largest voxel edge", "worst case"}


def format_failures(report: FailureReport, picture: str | None) -> str:
    """The report as Markdown: a table by kind, the worst cases, what could not be scored, and the environment.

    ``picture`` is the file name of the picture in the same folder, if any.
    """
    scored = report.segmentations is not None
    parts = [f"# {'Where does it fail?' if scored else 'Kinds of images'}", _summary(report)]
    if report.cases:
        parts.append(kind_table(report).markdown())
    if report.worst:
        parts.append(_worst(report).markdown())
    if picture is not None:
        parts.append(f"![Images of the worst cases with the contours of truth and segmentation]({picture})")
    if report.failures:
        parts += ["## Left out", "\n".join(f"- {escape(reason)}" for reason in report.failures.values())]
    if scored:
        parts += ["## What the figures mean", _meaning(report)]
    versions = ", ".join(f"{name} {version}" for name, version in report.environment["versions"].items())
    parts.append(f"{report.environment['date']}, {report.environment['device']}; {versions}.")
    return "\n\n".join(parts) + "\n"


def kind_table(report: FailureReport) -> Table:
    """The table by kind, with a last row for all cases if there are several kinds."""
    headings = list(report.kinds[0].kind)
    figures = [f"{name}, {what}" for name in _FIGURES.values() for what in ("mean", "least")]
    scored = report.segmentations is not None
    columns = [*headings, "cases", *([*figures, "worst case"] if scored else [])]
    summaries = [*report.kinds, *([report.overall] if len(report.kinds) > 1 else [])]
    rows: list[list[TableCell | str]] = []
    for summary in summaries:
        words = [*summary.kind.values()] or ["all"]
        # empty cells instead of dashes, which would mean unknown
        kind = map(TableCell, words + [""] * (len(headings) - len(words)))
        rows.append([*kind, str(summary.cases), *(_figures(summary) if scored else [])])
    return Table.of_rows("By kind", columns, rows, _WORDS)


def _figures(summary: KindSummary) -> list[str]:
    figures = [getattr(summary, name) or {} for name in _FIGURES]
    cells = [_figure(each.get(what)) for each in figures for what in ("mean", "least")]
    return [*cells, summary.worst_case or "none"]


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _summary(report: FailureReport) -> str:
    total = len(report.cases) + len(report.failures)
    text = f"{escape(report.dataset)}, list {code(report.list_key)}: {total} cases"
    if report.segmentations is not None:
        text += f", segmentations in {code(report.segmentations)}"
    if report.failures:
        text += f"; {len(report.failures)} of them left out, see below"
    return text + "."


def _worst(report: FailureReport) -> Table:
    cases = {case.case: case for case in report.cases}
    several = len(report.labels) > 1
    header = ["case", *report.kinds[0].kind, "foreground IoU", "Dice", "mean IoU", "missed", "false positive"]
    if several:
        header += ["wrong label", *(f"IoU {label}" for label in report.labels)]
    rows = []
    for name in report.worst:
        score = cases[name].score
        if score is None:
            continue
        row = [name, *report.case_kinds[name].values()]
        row += [_figure(value) for value in (score.foreground_iou, score.dice, score.mean_iou)]
        row += [
            _percent(score.missed_voxels, score.truth_voxels),
            _percent(score.false_positive_voxels, score.segmentation_voxels),
        ]
        if several:
            row.append(_percent(score.confused_voxels, score.truth_voxels))
            row += [_figure(score.labels[label].iou) for label in report.labels]
        rows.append(row)
    return Table.of_rows(f"The {len(report.worst)} worst cases", header, rows, _WORDS)


def _percent(part: int, whole: int) -> str:
    return percent(part / whole, ".1f") if whole else "n/a"


def _meaning(report: FailureReport) -> str:
    lines = [
        "- Foreground IoU: intersection over union of all labels pooled. If neither truth nor segmentation has a "
        "label, it is undefined (n/a) and the case is left out of the mean; if only one of them has, it is 0.",
        "- Mean IoU: the mean of the IoU of the background and of every label, often mistaken for foreground IoU. It "
        "is closer to 1 where little is labelled.",
        "- Missed: the share of voxels labelled in the truth that are background in the segmentation. False positive: "
        "the share of voxels labelled in the segmentation that are background in the truth.",
        f"- The worst cases have the lowest {_FIGURES[report.ranked_by]}.",
    ]
    if len(report.labels) > 1:
        lines.insert(3, "- Wrong label: the share of voxels labelled in the truth that are given another label.")
    return "\n".join(lines)
