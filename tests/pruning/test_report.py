"""The report: four files that say the same, stand alone, and can be read back."""

from __future__ import annotations

import builtins
import csv
import dataclasses
import io
import json
import math
import random
import re
import statistics
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from monai_unetpp.metrics import LabelScore
from monai_unetpp.metrics.scores import RULES
from monai_unetpp.pruning.overlays import save_overlay
from monai_unetpp.pruning.report import SCHEMA_VERSION, read_report, write_report
from monai_unetpp.pruning.results import (
    Comparison,
    DataProblem,
    Decision,
    Environment,
    Margin,
    OperatingPoint,
    PointCost,
    PruningResult,
    Quartiles,
    ScoreRow,
    SelfCheck,
    TradeOff,
)
from monai_unetpp.pruning.tables import significant, summarise

POINTS = (
    OperatingPoint("L1", "L1", checkpoint="model.pt"),
    OperatingPoint("L2", "L2", checkpoint="model.pt"),
    OperatingPoint("L3", "L3", checkpoint="model.pt"),
    OperatingPoint("L2 trained alone", "L2", "extra", "alone.pt"),
)
LABELS = ("anterior", "posterior")
QUALITY = {"L1": 0.862, "L2": 0.892, "L3": 0.894, "L2 trained alone": 0.886}
SEQUEL = {"L1": "fail", "L2": "pass"}


def score(dice: float, truth_ml: float = 1.7) -> LabelScore:
    """A plausible score at a given Dice; 0 is a missed structure."""
    if dice == 0:
        return LabelScore("missed", 0.0, 0.0, 61.5, 0.0, -truth_ml, 0.0, truth_ml)
    drift = (0.9 - dice) * truth_ml
    return LabelScore(
        "ok", dice, dice / (2 - dice), 9 - 8.5 * dice, min(1, dice + 0.07), drift, truth_ml + drift, truth_ml
    )


def scores(datasets: tuple[str, ...], points: tuple[OperatingPoint, ...], labels: tuple[str, ...], cases: int):
    rows = []
    draw = random.Random(3)
    for dataset in datasets:
        for number in range(cases):
            case = f"{dataset}_{number:03d}"
            hard = draw.gauss(0, 0.018)
            for point in points:
                for i, label in enumerate((*labels, "foreground")):
                    dice = QUALITY[point.name] - 0.02 * i * (label != "foreground") + hard + draw.gauss(0, 0.006)
                    if point.name == "L1" and label == "posterior" and number in (4, 17):
                        dice = 0
                    value = score(min(dice, 0.99))
                    if label == "anterior" and number == 9:
                        value = LabelScore("both_empty", None, None, None, None, 0.0, 0.0, 0.0)
                    rows.append(ScoreRow(dataset, case, f"s{number // 2:02d}", point.name, label, value))
    return tuple(rows)


def decision(rows: tuple[ScoreRow, ...], dataset: str, labels: tuple[str, ...], level: str, role: str = "choose"):
    """What the deciding stage would hand over, from the same scores by Student's t."""
    chosen_rows = [row for row in rows if dataset in ("all", row.dataset)]
    comparisons = []
    for point in ("L2", "L1"):
        for metric, margin in (("dice", 0.01), ("nsd", 0.02)):
            for label in labels:
                pairs = {}
                for row in chosen_rows:
                    value = getattr(row.score, metric)
                    if row.label == label and value is not None:
                        pairs.setdefault((row.dataset, row.case), {})[row.point] = value
                if not any(point in pair for pair in pairs.values()):
                    continue
                differences = {key: pair[point] - pair["L3"] for key, pair in pairs.items()}
                n, mean = len(differences), statistics.fmean(differences.values())
                sd = statistics.stdev(differences.values())
                half = 1.70 * sd / math.sqrt(n)
                worst = min(differences, key=differences.__getitem__)
                state = "pass" if mean - half > -margin else "fail"
                comparisons.append(
                    Comparison(
                        point,
                        "L3",
                        metric,
                        label,
                        margin,
                        n,
                        n // 2,
                        statistics.fmean(pair["L3"] for pair in pairs.values()),
                        statistics.fmean(pair[point] for pair in pairs.values()),
                        mean,
                        sd,
                        mean - half,
                        mean + half,
                        "bca",
                        differences[worst],
                        worst[1],
                        state,
                        max(10, round(6.18 * (sd / margin) ** 2)),
                        "" if state == "pass" else f"the lower bound {mean - half:.4f} is below -{margin}",
                    )
                )
    return Decision(
        dataset,
        "prune" if level != "L3" else "keep",
        level,
        role,
        len({(row.dataset, row.case) for row in chosen_rows}),
        15,
        tuple(comparisons),
        ("L1 misses 2 structures that L3 finds (posterior).",),
        None,
        role == "choose and report",
        f"Prune to {level}: on {dataset}, it is no worse than L3 by more than the margins.",
    )


def cost(name: str, scale: float, check: bool = True) -> PointCost:
    window, volume = 0.0213 * scale, 0.0457 * scale
    return PointCost(
        name,
        round(1_512_345 * scale**2),
        round(41.27e9 * scale),
        round(6_100_321 * scale**2),
        Quartiles(window, window * 0.97, window * 1.06, 50),
        Quartiles(volume, volume * 0.98, volume * 1.09, 25),
        round(312e6 * scale),
        (40, 56, 40),
        (35, 51, 35),
        SelfCheck(0.0, True) if check else None,
    )


def make_result(**changes) -> PruningResult:
    """Three levels and a further checkpoint, two labels, 30 cases in two data sets."""
    rows = scores(("oslo", "vienna"), POINTS, LABELS, 15)
    result = PruningResult(
        title="hippocampus_mri_unetpp",
        points=POINTS,
        labels=LABELS,
        tolerance_mm={"anterior": 1.0, "posterior": 1.0},
        rows=rows,
        problems=(DataProblem("oslo", "oslo_077", "the label's affine differs from the image's by 1.2 mm"),),
        costs={
            "L1": cost("L1", 0.18),
            "L2": cost("L2", 0.47),
            "L3": cost("L3", 1.0),
            "L2 trained alone": cost("L2 trained alone", 0.46, check=False),
        },
        environment=Environment(
            "Intel Xeon, 2 cores", "fp32", "torch 2.13", 2, {"monai": "1.6.1", "torch": "2.13.0"}, "2026-11-23 12:00"
        ),
        margins=(Margin("dice", 0.01), Margin("nsd", 0.02, ("anterior",))),
        alpha=0.05,
        max_case_drop={"dice": 0.1},
        bootstrap_samples=9999,
        seed=20,
        decisions=(
            decision(rows, "oslo", LABELS, "L2"),
            decision(rows, "vienna", LABELS, "L2", "confirm"),
            decision(rows, "all", LABELS, "L2", "choose and report"),
        ),
        trade_offs=(
            TradeOff("pareto", ("L1", "L2", "L3"), "No other point is both faster and more accurate."),
            TradeOff("latency_ms<=30", ("L2",), "L2 is the most accurate at 21.5 ms, within 30 ms."),
            TradeOff("parameters<=1000", (), "No level has at most 1000 parameters."),
        ),
        command="monai-unetpp prune --dataset_dir oslo --dataset_dir vienna --margin dice=0.01 --output_dir O",
        error_auroc=0.9312,
    )
    return dataclasses.replace(result, **changes)


def single(level: str = "L3", verdict: str = "keep", summary: str = "Keep L3.") -> PruningResult:
    """The least that can be reported: one level, one label, no costs, nothing to compare."""
    rows = scores(("set",), POINTS[2:3], ("liver",), 3)
    verdict_ = Decision("set", verdict, level, "choose and report", 3, 3, (), (), None, True, summary)
    return make_result(
        points=POINTS[2:3],
        labels=("liver",),
        tolerance_mm={},
        rows=rows,
        problems=(),
        costs={},
        environment=None,
        decisions=(verdict_,),
        trade_offs=(),
        error_auroc=None,
    )


class Page(HTMLParser):
    """Tables (rows of cell texts by caption), text, images and every attribute that can load something."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: dict[str, list[list[str]]] = {}
        self.images: list[dict[str, str]] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._rows: list[list[str]] = []
        self._caption = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._inside = tag if tag in ("caption", "td", "th", "style") else self._inside
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action", "poster")]
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "table":
            self._rows, self._caption = [], ""
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag):
        self._inside = ""
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data):
        if self._inside == "caption":
            self._caption += data
        elif self._inside in ("td", "th"):
            self._rows[-1][-1] += data
        if self._inside != "style":
            self.text += data


def markdown_tables(text: str) -> dict[str, list[list[str]]]:
    tables, caption = {}, ""
    for line in text.splitlines():
        if line.startswith("## "):
            caption = re.sub(r"\\(.)", r"\1", line[3:])
        elif line.startswith("| ") and not line.startswith("| -"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            plain = [re.sub(r"\\(.)", r"\1", re.sub(r"^\*\*(.*)\*\*$", r"\1", cell)) for cell in cells]
            tables.setdefault(caption, []).append([_unescape(cell) for cell in plain])
    return tables


def _unescape(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def number(text: str) -> float:
    """The first number of a cell."""
    return float(re.search(r"[−+]?\d+(\.\d+)?", text)[0].replace("−", "-"))


@pytest.fixture(scope="module")
def result() -> PruningResult:
    return make_result()


@pytest.fixture(scope="module")
def written(result, tmp_path_factory) -> dict[str, Path]:
    return write_report(result, tmp_path_factory.mktemp("report") / "new" / "folder")


@pytest.fixture(scope="module")
def page(written) -> Page:
    return Page(written["html"].read_text(encoding="utf-8"))
