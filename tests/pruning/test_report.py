"""The report: four files that say the same, stand alone, and can be read back."""

from __future__ import annotations

import builtins
import csv
import dataclasses
import html
import io
import json
import math
import random
import re
import shutil
import statistics
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_pruning import REPOSITORY

from monai_unetpp.measuring.environment import Environment
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.metrics import LabelScore
from monai_unetpp.metrics.scores import RULES
from monai_unetpp.pruning import results, summary
from monai_unetpp.pruning.pairing import BOTH_FALSE_POSITIVE
from monai_unetpp.pruning.points.tradeoffs import (
    accuracy_of_each,
    mean_accuracy,
    pareto_front,
    resampled_accuracy,
)
from monai_unetpp.pruning.report import report_files
from monai_unetpp.pruning.report.front import plot_trade_offs
from monai_unetpp.pruning.report.opening import honesty, key_facts, plain_verdict
from monai_unetpp.pruning.report.plots import plot_case_lines, plot_differences
from monai_unetpp.pruning.report.report_files import SCHEMA_VERSION, read_report, write_report
from monai_unetpp.pruning.report.result_tables import (
    accuracy_table,
    comparisons_table,
    cost_table,
    glance_table,
    stability_table,
    trade_offs_table,
)
from monai_unetpp.pruning.report.worst_cases import save_overlay
from monai_unetpp.pruning.results import (
    AdaptiveDepth,
    AdaptivePoint,
    Comparison,
    DataProblem,
    Decision,
    OperatingPoint,
    PointCost,
    PruningResult,
    ScoreRow,
    SelfCheck,
    SetDifference,
    Stability,
    TradeOff,
)
from monai_unetpp.pruning.rules import Margin, Rules
from monai_unetpp.pruning.summary import summarise, verdict
from monai_unetpp.pruning.wording import format_difference, format_metric, interval_note
from monai_unetpp.reporting.numbers import significant

TIMES, DASH = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}"
POINTS = (
    OperatingPoint("L1", "L1", checkpoint="model.pt"),
    OperatingPoint("L2", "L2", checkpoint="model.pt"),
    OperatingPoint("L3", "L3", checkpoint="model.pt"),
    OperatingPoint("L2 trained alone", "L2", "extra", "alone.pt"),
)
LABELS = ("anterior", "posterior")
QUALITY = {"L1": 0.862, "L2": 0.892, "L3": 0.894, "L2 trained alone": 0.886}


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


def decision(
    rows: tuple[ScoreRow, ...], dataset: str, labels: tuple[str, ...], level: str, role: str = "choose and report"
):
    """What the deciding stage would hand over, from the same scores by Student's t."""
    chosen_rows = [row for row in rows if dataset in ("all", row.dataset)]
    comparisons = []
    for point in ("L2", "L1") if dataset != "all" else ():
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
        role != "confirm",
        f"Prune to {level}: on {dataset}, it is no worse than L3 by more than the margins.",
        tested=("L2",) if level == "L3" else ("L2", "L1"),
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
        rules=Rules(
            margins=(Margin("dice", 0.01), Margin("nsd", 0.02, ("anterior",))),
            alpha=0.05,
            max_case_drop={"dice": 0.1},
            bootstrap_samples=9999,
            seed=20,
        ),
        decisions=(
            decision(rows, "oslo", LABELS, "L2"),
            decision(rows, "vienna", LABELS, "L2"),
            decision(rows, "all", LABELS, "L2"),
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


def test_figures_beside_a_verdict_are_of_its_own_cases():
    """Of those that confirm, or that chose where nothing was confirmed, and not of both together."""
    held = tuple(("oslo", f"oslo_{number:03d}") for number in range(6))
    rows = scores(("oslo",), POINTS, LABELS, 15)
    choosing, confirming = (
        [row for row in rows if ((row.dataset, row.case) in held) == part] for part in (False, True)
    )
    chose = decision(tuple(choosing), "oslo", LABELS, "L2", "choose")
    confirmed = decision(tuple(confirming), "oslo", LABELS, "L2", "confirm")
    for decisions, own in (((chose,), choosing), ((chose, confirmed), confirming)):
        result = make_result(rows=rows, confirming=held, decisions=decisions)
        means = accuracy_of_each(own, ["L2", "L3"])
        (fact,) = (fact for fact in key_facts(result, summarise(result)) if "mean Dice" in fact.meaning)
        assert fact.value == format_difference("dice", means["L2"] - means["L3"])
        # the means of all cases stand without the differences of a part
        assert "Dice difference" not in accuracy_table(result, summarise(result), "oslo").columns
        glance = glance_table(result, summarise(result))
        dice = [row.score.dice for row in own if (row.point, row.label) == ("L2", LABELS[0])]
        shown = glance.rows[1][glance.columns.index(f"Dice, {LABELS[0]}")]
        assert shown.text.startswith(
            format_metric("dice", statistics.fmean(value for value in dice if value is not None))
        )
        part = "confirm" if own is confirming else "choose"
        assert glance.notes[0].endswith(f"over the cases of “oslo” that {part} the level.")
    whole = make_result(rows=rows, decisions=(decision(rows, "oslo", LABELS, "L2"),))
    assert "Dice difference" in accuracy_table(whole, summarise(whole), "oslo").columns


def test_trade_offs_tell_where_an_empty_case_counts():
    result = make_result()
    assert trade_offs_table(result).notes == ()
    empty = next(row for row in result.rows if row.score.state == "both_empty" and row.point == "L2")
    found = LabelScore("false_positive", 0.0, 0.0, 9.0, 0.0, 1.0, 1.0, 0.0)
    rows = tuple(dataclasses.replace(row, score=found) if row is empty else row for row in result.rows)
    (note,) = trade_offs_table(make_result(rows=rows)).notes
    assert note.startswith("Accuracies here count 1 for a point that rightly finds nothing")
    points = [point.name for point in result.points]
    assert accuracy_of_each(rows, points)["L1"] < mean_accuracy(rows, points)["L1"]


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
        # only the page keeps lines unbroken
        data = data.replace("\N{NO-BREAK SPACE}", " ")
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
    return float(re.search(r"[-+]?\d+(\.\d+)?", text)[0])


@pytest.fixture(scope="module")
def result() -> PruningResult:
    return make_result()


@pytest.fixture(scope="module")
def written(result, tmp_path_factory) -> dict[str, Path]:
    return write_report(result, tmp_path_factory.mktemp("report") / "new" / "folder")


@pytest.fixture(scope="module")
def page(written) -> Page:
    return Page(written["html"].read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_click_on_a_heading_sorts_the_table_and_a_second_one_reverses_it(written, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium")
    clicks = """<script>
const table = [...document.querySelectorAll("table")].find(each => each.caption.textContent.startsWith("Accuracy on"));
const column = [...table.tHead.rows[0].cells].findIndex(head => head.textContent.trim() == "Dice");
const read = () => [...table.tBodies[0].rows].map(row => row.cells[column].textContent.trim());
const found = [read()];
for (let n = 0; n < 2; n++) { table.tHead.rows[0].cells[column].querySelector("button").click(); found.push(read()); }
document.title = "SORTED" + JSON.stringify(found);
</script></body>"""
    text = written["html"].read_text(encoding="utf-8").replace("</body>", clicks)
    path = tmp_path / "clicked.html"
    path.write_text(text, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([browser, *options, path.as_uri()], capture_output=True, text=True, check=True, timeout=120)
    title = re.search(r"<title>SORTED(.*?)</title>", done.stdout, re.DOTALL)[1]
    as_written, rising, falling = ([number(cell) for cell in each] for each in json.loads(html.unescape(title)))
    assert len(set(as_written)) > 2
    assert as_written != sorted(as_written)
    assert rising == sorted(as_written)
    assert falling == rising[::-1]


class TestSameNumbers:
    @pytest.mark.slow
    def test_four_files_with_these_names(self, written):
        assert {key: path.name for key, path in written.items()} == {
            "html": "report.html",
            "json": "report.json",
            "csv": "per_case.csv",
            "markdown": "summary.md",
        }
        assert {path.name for path in written["html"].parent.iterdir()} == {p.name for p in written.values()}

    @pytest.mark.slow
    def test_every_markdown_table_is_the_html_table(self, written, page):
        tables = markdown_tables(written["markdown"].read_text(encoding="utf-8"))
        assert set(tables) == set(page.tables)
        assert len(tables) == 14
        for caption, rows in tables.items():
            assert rows == page.tables[caption], caption

    @pytest.mark.parametrize("dataset", ["oslo", "vienna", "all"])
    def test_means_of_the_csv_are_in_html_and_json(self, written, page, dataset):
        rows = list(csv.DictReader(io.StringIO(written["csv"].read_text(encoding="utf-8"))))
        content = json.loads(written["json"].read_text(encoding="utf-8"))
        caption = "Accuracy on all data sets together" if dataset == "all" else f"Accuracy on “{dataset}”"
        head, *body = page.tables[caption]
        assert len(body) == 4 * 3
        columns = {"dice": "Dice", "iou": "IoU", "nsd": "NSD", "hd95_mm": "HD95 (mm)"}
        columns["volume_difference_ml"] = "Volume difference (ml)"
        for cells in body:
            point, label = cells[:2]
            mine = [
                row
                for row in rows
                if (row["point"], row["label"]) == (point, label) and dataset in ("all", row["dataset"])
            ]
            kept = next(
                a
                for a in content["summary"]["accuracy"]
                if (a["dataset"], a["point"], a["label"]) == (dataset, point, label)
            )
            states = {state: sum(row["state"] == state for row in mine) for state in ("missed", "both_empty")}
            assert int(cells[head.index("Missed")]) == states["missed"] == kept["missed"]
            assert int(cells[head.index("Both empty")]) == states["both_empty"] == kept["both_empty"]
            assert int(cells[head.index("Cases")]) == len(mine) == kept["cases"]
            for key, column in columns.items():
                values = [float(row[key]) for row in mine if row["state"] != "both_empty"]
                mean, sd = statistics.fmean(values), statistics.stdev(values)
                assert kept["metrics"][key]["mean"] == pytest.approx(mean)
                assert kept["metrics"][key]["sd"] == pytest.approx(sd)
                decimals = 2 if key in ("hd95_mm", "volume_difference_ml") else 3
                shown = cells[head.index(column)].split("±")
                for part, number in zip(shown, (mean, sd), strict=True):
                    # of tiny lengths and volumes two digits are shown
                    assert float(part) == pytest.approx(number, abs=0.51 * 10**-decimals)
                    assert float(part) != 0 or number == 0 or decimals == 3

    def test_comparisons_show_margin_difference_bounds_worst_case_and_state(self, written, page, result):
        content = json.loads(written["json"].read_text(encoding="utf-8"))
        head, *body = page.tables["Non-inferiority on “oslo”"]
        stored = content["result"]["decisions"][0]["comparisons"]
        assert len(body) == len(stored) == 8
        for cells, c in zip(body, stored, strict=True):
            row = dict(zip(head, cells, strict=True))
            numbers = [float(text) for text in re.findall(r"[-+]\d\.\d+", row["Mean difference"])]
            assert numbers == [round(c[key], 4) for key in ("mean_difference", "lower_bound", "upper_bound")]
            assert number(row["Margin"]) == c["margin"]
            assert number(row["Worst case"]) == round(c["worst_difference"], 4)
            assert f"({c['worst_case']})" in row["Worst case"]
            assert row["Cases"].split() == [str(c["cases"]), f"({c['clusters']}", "subjects)"]
            assert (row["Result"], row["Subjects needed"]) == (c["state"], str(c["subjects_needed"]))

    def test_costs_are_those_measured(self, page):
        rows = {
            row[0]: dict(zip(page.tables["Cost of each pruned network"][0], row, strict=True))
            for row in page.tables["Cost of each pruned network"][1:]
        }
        assert list(rows) == ["L1", "L2", "L3", "L2 trained alone"]
        l2 = rows["L2"]
        assert l2["Parameters (M)"].split() == ["0.334", "(22.1", "%)"]
        assert l2["FLOPs per window (G)"] == "19.4"
        assert l2["Checkpoint (MB)"] == "1.35"
        assert l2["Time per volume (ms)"].split() == ["21.5", "(21.0", "to", "23.4)"]
        assert l2["Speed-up, volume"] == f"2.1{TIMES}"
        assert l2["Peak memory (MB)"] == "147"
        assert l2["Self-check"] == "exact"
        assert rows["L2 trained alone"]["Self-check"] == DASH

    def test_saving_stands_beside_the_papers(self, page):
        head, *body = page.tables["What pruning saves, beside the papers' claims"]
        assert [row[0] for row in body] == ["L1 of L3, here", "L2 of L3, here", "L3 of L4, papers"]
        assert number(body[1][head.index("Less time")]) == 53.0
        assert number(body[2][head.index("Less time")]) == 32.2
        assert "arXiv:1807.10165" in page.text
        assert "arXiv:1912.05074" in page.text

    def test_verdict_first_then_everything_else(self, page, result):
        order = [
            result.decisions[2].summary,
            "Confirm it on cases that took no part in the choice.",
            "The levels at a glance",
            "How the verdict came about",
            result.decisions[2].blockers[0],
            result.command,
        ]
        positions = [page.text.index(text) for text in order]
        assert positions == sorted(positions)
        verdicts = page.tables["The verdict on each data set"][1:]
        assert [(row[0], row[1], row[4], row[5]) for row in verdicts] == [
            ("all data sets together", "Prune to L2", "choose the level and give its figures", "yes"),
            ("oslo", "Prune to L2", "choose the level and give its figures", "yes"),
            ("vienna", "Prune to L2", "choose the level and give its figures", "yes"),
        ]

    @pytest.mark.parametrize("kind", ["html", "markdown"])
    def test_what_was_fixed_and_where_it_ran(self, written, kind, page, result):
        text = page.text if kind == "html" else re.sub(r"\\(.)", r"\1", _unescape(written[kind].read_text()))
        for part in (
            *RULES.splitlines(),
            "9999 resamples, seed 20",
            "95 %, one-sided",
            "0.02 on anterior",
            "Intel Xeon, 2 cores",
            "2.13.0",
            result.command,
            "oslo_077",
            "the label's affine differs",
            "0.931",
            "size of the network of at most 1000 parameters",
        ):
            assert part in text

    def test_csv_has_a_row_per_score_at_full_precision(self, written, result):
        rows = list(csv.DictReader(io.StringIO(written["csv"].read_text(encoding="utf-8"))))
        assert len(rows) == len(result.rows)
        for row, known in zip(rows, result.rows, strict=True):
            assert (row["case"], row["subject"], row["state"]) == (known.case, known.subject, known.score.state)
            assert row["dice"] == ("" if known.score.dice is None else repr(known.score.dice))


class TestRoundTrip:
    def test_read_gives_what_was_written(self, written, result):
        assert read_report(written["json"]) == result
        assert json.loads(written["json"].read_text(encoding="utf-8"))["schema_version"] == SCHEMA_VERSION

    def test_numbers_that_json_has_no_word_for(self, tmp_path):
        known = make_result().decisions[0].comparisons[0]
        comparison = dataclasses.replace(known, lower_bound=-math.inf, upper_bound=math.inf)
        changed = dataclasses.replace(single().decisions[0], comparisons=(comparison,))
        result = dataclasses.replace(single(), decisions=(changed,))
        path = write_report(result, tmp_path)["json"]
        json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert read_report(path) == result

    def test_numpy_numbers_are_written_as_plain_ones(self, tmp_path):
        base = single()
        margin = Margin("dice", np.float32(0.5))
        result = dataclasses.replace(base, rules=dataclasses.replace(base.rules, margins=(margin,), seed=np.int64(7)))
        assert read_report(write_report(result, tmp_path)["json"]) == result

    def test_other_values_are_refused_before_anything_is_written(self, tmp_path):
        with pytest.raises(TypeError, match=r"result must hold plain values only, got \{1, 2\} of type set"):
            write_report(dataclasses.replace(single(), command={1, 2}), tmp_path / "new")
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda c: c.update(schema_version="1.1"), "schema_version must be 2.x, got '1.1'"),
            (lambda c: c.pop("schema_version"), "schema_version must be 2.x, got None"),
            (lambda c: c.pop("result"), "result must be an object, got 'None'"),
            (lambda c: c["result"].pop("points"), "result must have the entry 'points'"),
            (lambda c: c["result"]["rules"].update(alpha="small"), "result.rules.alpha must be a number, got 'small'"),
            (lambda c: c["result"]["rules"].update(seed=True), "result.rules.seed must be a whole number, got 'True'"),
            (lambda c: c["result"].update(labels="liver"), "result.labels must be a list, got 'liver'"),
            (lambda c: c["result"]["rows"][1].update(case=4), r"result.rows\[1\].case must be a string, got '4'"),
            (
                lambda c: c["result"]["decisions"][0].update(optimistic="no"),
                r"decisions\[0\].optimistic must be true or false",
            ),
            (
                lambda c: c["result"]["rows"][0]["score"].update(state="fine"),
                r"rows\[0\].score.state must be 'ok' or 'missed' or 'false_positive' or 'both_empty', got 'fine'",
            ),
        ],
    )
    def test_what_is_wrong_in_the_file_is_named(self, tmp_path, change, message):
        path = write_report(single(), tmp_path)["json"]
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"{re.escape(str(path))}: .*{message}"):
            read_report(path)

    def test_entries_added_by_a_later_version_are_passed_over(self, tmp_path):
        path = write_report(single(), tmp_path)["json"]
        content = json.loads(path.read_text())
        content["schema_version"] = "2.7"
        content["result"]["colour"] = "blue"
        del content["result"]["overlays"]
        path.write_text(json.dumps(content))
        assert read_report(path) == single()

    def test_not_json(self, tmp_path):
        path = tmp_path / "report.json"
        path.write_text("<html>")
        told = r"report.json: cannot be read as JSON .* Give the report.json of a pruning report"
        with pytest.raises(ValueError, match=told):
            read_report(path)


class TestHtml:
    def test_stands_alone(self, written, page):
        assert all(url.startswith(("data:image/", "#")) for url in page.loads)
        assert page.tags.count("script") == 1
        assert "link" not in page.tags
        assert not re.search(r"@import|url\(|https?://", written["html"].read_text(encoding="utf-8"))

    def test_every_picture_has_words(self, page):
        assert len(page.images) == 6  # accuracy against three costs, two data sets' differences, case lines
        assert all(len(image["alt"]) > 20 for image in page.images)
        trade_off, differences = page.images[0]["alt"], page.images[3]["alt"]
        share = r"unbeaten in \d+.% of resamples, 95.% interval relative to L3 0\.8\d+ to 0\.8"
        assert re.search(rf"L2: mean Dice 0\.88\d, time per volume 21\.5 ms, {share}", trade_off)
        assert "margin 0.01, pass" in differences

    def test_pointing_at_a_plot_gives_the_values_there(self, written):
        text = written["html"].read_text(encoding="utf-8")
        spots = re.findall(r'<i style="left:([\d.]+)%;top:([\d.]+)%" class="[a-z ]+" data-text="([^"]*)"></i>', text)
        assert all(0 <= float(left) <= 100 and 0 <= float(top) <= 100 for left, top, _ in spots)
        at = {words.split(":")[0]: float(left) for left, _, words in spots if ": mean Dice" in words}
        assert at["L1"] < at["L2"] < at["L3"]
        assert any(words.startswith("oslo_004 (oslo), L2: Dice 0.") for _, _, words in spots)

    def test_dark_and_light_and_nothing_that_only_colour_says(self, written):
        text = written["html"].read_text(encoding="utf-8")
        assert "prefers-color-scheme: dark" in text
        sentence = (
            "Use L2 instead of L3: as accurate within the margins, at less cost. Not confirmed on unseen cases yet."
        )
        assert f'class="sentence">{sentence}<' in text

    @pytest.mark.slow
    def test_pictures_that_only_an_earlier_result_names_are_removed(self, tmp_path, monkeypatch):
        monkeypatch.setattr(report_files, "_html", lambda *_: "")
        folder = tmp_path / "overlays"
        folder.mkdir()
        for name in ("old", "new", "mine"):
            (folder / f"{name}.png").write_bytes(b"picture")
        for name in ("old", "new"):
            write_report(dataclasses.replace(single(), overlays=(f"overlays/{name}.png",)), tmp_path)
        assert sorted(path.name for path in folder.iterdir()) == ["mine.png", "new.png"]

    def test_overlays_are_inside(self, tmp_path):
        mask = np.zeros((12, 12), dtype=int)
        mask[3:8, 3:8] = 1
        path = tmp_path / "overlays" / "a.png"
        save_overlay(mask, mask, np.roll(mask, 1), mask, (1, 1), path, "a <b>", label_names={1: "one"})
        outside = tmp_path / "b.png"
        Image.new("RGB", (4, 4)).save(outside)
        result = dataclasses.replace(single(), overlays=("overlays/a.png", str(outside)))
        page = Page(write_report(result, tmp_path)["html"].read_text(encoding="utf-8"))
        pictures = [image for image in page.images if image["src"].startswith("data:image/png;base64,")]
        assert [image["alt"] for image in pictures] == ["Overlay of a <b>.", "Overlay of b."]
        assert "chosen level differs from the truth in 10 voxels" in page.text

    def test_missing_overlay_is_named_before_anything_is_written(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"gone\.png: no such picture\. result\.overlays must name files"):
            write_report(dataclasses.replace(single(), overlays=("gone.png",)), tmp_path / "new")
        assert not (tmp_path / "new").exists()

    def test_same_result_gives_the_same_file(self, tmp_path):
        texts = [write_report(single(), tmp_path / name)["html"].read_bytes() for name in "ab"]
        assert texts[0] == texts[1]

    @pytest.mark.slow
    def test_names_are_never_markup(self, tmp_path):
        nasty = '<b>&"|`*_<script>alert(1)</script>'
        base = make_result()
        rows = tuple(dataclasses.replace(row, case=row.case.replace("oslo_006", nasty)) for row in base.rows)
        result = dataclasses.replace(
            base,
            title=nasty,
            rows=rows,
            problems=(DataProblem("oslo", nasty, nasty),),
            command=f"prune '{nasty}' ```",
            decisions=(decision(rows, "oslo", LABELS, "L2"),),
        )
        paths = write_report(result, tmp_path)
        text = paths["html"].read_text(encoding="utf-8")
        page = Page(text)
        assert page.tags.count("script") == 1
        assert "alert(1)" not in text.split("<script>")[1]
        assert "<b>&" not in text
        assert page.tables["Cases left out"][1] == [nasty, "oslo", nasty]
        markdown = paths["markdown"].read_text(encoding="utf-8")
        prose, command = markdown.split("## Command")
        assert "<" not in prose
        assert markdown_tables(prose)["Cases left out"] == page.tables["Cases left out"]
        assert command.strip().startswith("````\n")
        names = {row["case"] for row in csv.DictReader(io.StringIO(paths["csv"].read_text(encoding="utf-8")))}
        assert nasty in names
        assert read_report(paths["json"]) == result


def test_a_false_positive_is_marked_like_a_missed_structure():
    """Both have Dice 0 and lie below the axis, which the other cases choose."""
    one = make_result()
    invented = LabelScore("false_positive", 0.0, 0.0, 61.5, 0.0, 1.0, 1.0, 0.0)
    at = next(i for i, row in enumerate(one.rows) if (row.point, row.label) == ("L1", "anterior"))
    rows = (*one.rows[:at], dataclasses.replace(one.rows[at], score=invented), *one.rows[at + 1 :])
    marks = [
        int(re.search(r"(\d+) marks of Dice 0", plot_case_lines(each).alt)[1])
        for each in (one, dataclasses.replace(one, rows=rows))
    ]
    assert marks[0] > 0
    assert marks[1] == marks[0] + 1


class TestTradeOffPlots:
    @pytest.mark.slow
    def test_accuracy_is_shown_against_every_cost_that_was_measured(self):
        silent = plot_trade_offs(make_result())
        assert [picture.alt.split(".")[0] for picture in silent] == [
            "Accuracy against time per volume",
            "Accuracy against peak memory",
            "Accuracy against size of the network",
        ]
        joules = Quartiles(12.0, 11.5, 13.25, 5)
        costs = {name: dataclasses.replace(each, volume_energy_j=joules) for name, each in make_result().costs.items()}
        told = plot_trade_offs(make_result(costs=costs))
        assert told[-1].alt.startswith("Accuracy against energy per volume. L1: mean Dice 0.8")
        assert "peak memory 147 MB" in told[1].alt
        assert "size of the network 1.51 million parameters" in told[2].alt
        assert plot_trade_offs(make_result(costs={})) == plot_trade_offs(single()) == []

    @pytest.mark.slow
    @pytest.mark.parametrize("confirming", [(), tuple(("oslo", f"oslo_{n:03d}") for n in range(8))])
    def test_everything_rests_on_the_cases_of_the_table(self, confirming, tmp_path):
        base = make_result()
        # better than L3 on the cases that confirm, much worse on the others
        changed = {"oslo_000": 0.99, "oslo_009": 0.2}
        rows = tuple(
            dataclasses.replace(row, score=score(changed[row.case]))
            if row.point == "L2" and row.label == "posterior" and row.case in changed
            else row
            for row in base.rows
        )
        result = dataclasses.replace(base, rows=rows, confirming=confirming)
        names = [point.name for point in base.points]
        choosing = [row for row in rows if (row.dataset, row.case) not in confirming]
        accuracy = mean_accuracy(choosing, names)
        front = pareto_front(accuracy, base.costs, ["latency_ms"], resampled_accuracy(choosing, names, seed=20))
        time, *_ = plot_trade_offs(result)
        found = re.findall(r"(L\d[a-z ]*): mean Dice ([\d.]+), [^;]*? unbeaten in (\d+)", time.alt)
        assert {name: (float(dice), int(share)) for name, dice, share in found} == {
            name: (round(accuracy[name], 3), round(100 * front.on_front[name])) for name in names
        }
        page = write_report(result, tmp_path)["html"].read_text(encoding="utf-8")
        assert ("Only the cases that choose the level count here" in page) == bool(confirming)
        assert ("All cases count." in page) != bool(confirming)

    @pytest.mark.slow
    def test_a_depth_per_window_is_a_point_of_the_time_alone(self):
        base = make_result()
        gate = "adaptive=0.033"
        rows = tuple(dataclasses.replace(row, point=gate) for row in base.rows if row.point == "L3")
        ratio = Quartiles(0.5, 0.45, 0.55, 3)
        point = AdaptivePoint(gate, 0.033, {"L2": 1, "L3": 1}, 0.6, ratio, (), True, "L2", ())
        depth = AdaptiveDepth("L3", (point,), rows, (), {}, 8, gate, "why")
        time, memory, _ = plot_trade_offs(make_result(adaptive=depth))
        assert re.search(rf"{gate}: mean Dice 0\.88\d, time per volume 22\.[89] ms, unbeaten in \d+.% of", time.alt)
        assert "L3: mean Dice 0.88" in time.alt
        assert re.search(r"L3: [^;]* unbeaten in 0.% of", time.alt)
        assert gate not in memory.alt


class TestTrust:
    @pytest.mark.slow
    def test_the_first_screen_and_two_tables_say_how_far_to_trust_the_verdict(self, tmp_path):
        shares = {"L2": 0.75, "inconclusive": 0.25}
        differences = [("L1", -0.0107, -0.0175, -0.0039, True), ("L2", 0.001, -0.002, 0.004, False)]
        result = make_result(
            stability=(Stability("oslo", 15, shares, {"L2": 0.995, "L3": 0.005}, {"L2": 1.0}, ("s03",)),),
            between_sets=tuple(
                SetDifference(point, "dice", "anterior", "oslo", "vienna", *others) for point, *others in differences
            ),
            doubts=("the margin says little",),
        )
        paths = write_report(result, tmp_path)
        page = Page(paths["html"].read_text(encoding="utf-8"))
        order = ["Use L2", "Stability", "Other data sets", "Settings in doubt", "The levels at a glance"]
        assert [page.text.index(text) for text in order] == sorted(page.text.index(text) for text in order)
        assert (
            "Levels are depths at which the network can be cut, from L1, the shallowest and cheapest, to L3"
            in page.text
        )
        assert (
            "The same test on 15 other subjects like those of oslo would say: prune to L2 in over 99 % and keep L3 in "
            "under 1 % of samples; on half of these subjects: prune to L2 in 75 % and no verdict in 25 % of samples."
        ) in page.text
        stability = page.tables["How often other samples would give each verdict"]
        assert stability[0] == ["Sample", "Subjects", "Prune to L2", "Keep L3", "No verdict"]
        cells = [row[2:] for row in stability[1:]]
        assert cells == [["over 99 %", "under 1 %", "0 %"], ["75 %", "0 %", "25 %"], ["100 %", "0 %", "0 %"]]
        several = (dataclasses.replace(result.stability[0], dataset="all"), *result.stability)
        table = stability_table(dataclasses.replace(result, stability=several))
        assert [row[1].text for row in table.rows[::3]] == ["all data sets together", "oslo"]
        sets = page.tables["Does the loss depend on the data set?"]
        assert [row[-1] for row in sets[1:]] == ["yes", "not shown"]
        markdown = paths["markdown"].read_text(encoding="utf-8")
        assert markdown_tables(markdown)["Does the loss depend on the data set?"] == sets
        assert "**Settings in doubt.** the margin says little" in markdown


class TestLittleToSay:
    def test_one_level_one_label_no_costs(self, tmp_path):
        paths = write_report(single(), tmp_path)
        page = Page(paths["html"].read_text(encoding="utf-8"))
        assert page.images == []
        assert set(page.tables) == {"The levels at a glance", "Accuracy on “set”", "Rules of this run"}
        assert page.tables["The levels at a glance"][0] == ["Level", "Role", "Dice, liver"]
        assert page.tables["The levels at a glance"][1][1] == "kept, deepest"
        assert "No level was compared" in page.text
        assert read_report(paths["json"]) == single()

    def test_inconclusive_says_so_and_how_many_cases_are_needed(self, tmp_path):
        base = single(verdict="inconclusive", summary="Inconclusive: too few.")
        verdict = dataclasses.replace(base.decisions[0], subjects_needed=56)
        page = Page(write_report(dataclasses.replace(base, decisions=(verdict,)), tmp_path)["html"].read_text())
        assert page.text.count("Inconclusive") >= 2
        assert page.text.index("Inconclusive: too few.") < page.text.index("The levels at a glance")
        assert "56 subjects needed" in page.text
        assert "Where L3" not in page.text

    def test_a_case_without_spread_has_none(self, tmp_path):
        base = single()
        result = dataclasses.replace(base, rows=base.rows[:2])
        page = Page(write_report(result, tmp_path)["html"].read_text(encoding="utf-8"))
        assert re.fullmatch(r"0\.\d{3}", page.tables["Accuracy on “set”"][1][2])

    def test_only_empty_labels_give_a_dash(self, tmp_path):
        empty = LabelScore("both_empty", None, None, None, None, 0.0, 0.0, 0.0)
        rows = tuple(dataclasses.replace(row, score=empty) for row in single().rows)
        page = Page(write_report(dataclasses.replace(single(), rows=rows), tmp_path)["html"].read_text())
        assert page.tables["Accuracy on “set”"][1][2:7] == [DASH] * 5

    def test_point_without_costs_keeps_its_row(self):
        result = make_result(costs={name: cost(name, 1.0) for name in ("L2", "L3")})
        table = cost_table(result, summarise(result))
        assert [cell.text for cell in table.rows[0]] == ["L1", *[DASH] * 9]
        assert table.rows[1][1].text.startswith("1.51")

    def test_energy_is_shown_where_the_machine_told(self):
        joules = Quartiles(12.0, 11.5, 13.25, 5)
        told = {name: dataclasses.replace(cost(name, 1.0), volume_energy_j=joules) for name in ("L1", "L2")}
        result = make_result(costs={**told, "L3": cost("L3", 1.0)})
        table = cost_table(result, summarise(result))
        column = table.columns.index("Energy per volume (J)")
        shown = [row[column].text.split() for row in table.rows[:3]]
        assert shown == [["12.0", "(11.5", "to", "13.2)"]] * 2 + [[DASH]]

    def test_not_optimistic_is_said_too(self, tmp_path):
        verdict = dataclasses.replace(single().decisions[0], role="confirm", optimistic=False)
        result = dataclasses.replace(single(), decisions=(verdict,))
        assert "The figures are not optimistic" in write_report(result, tmp_path)["markdown"].read_text()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"rows": ()}, "result.rows must hold at least one score, got none"),
            ({"decisions": ()}, "result.decisions must hold at least one decision, got none"),
        ],
    )
    def test_nothing_to_report_is_refused(self, tmp_path, change, message):
        with pytest.raises(ValueError, match=message):
            write_report(dataclasses.replace(single(), **change), tmp_path / "new")
        assert not (tmp_path / "new").exists()


class TestWriting:
    def test_interruption_leaves_the_old_file_whole(self, tmp_path, monkeypatch):
        paths = write_report(single(), tmp_path)
        before = {path: path.read_bytes() for path in paths.values()}

        def interrupted(self, text, **_):
            with open(self, "w") as file:
                file.write(text[: len(text) // 2])
            raise KeyboardInterrupt

        monkeypatch.setattr(Path, "write_text", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_report(dataclasses.replace(single(), title="another"), tmp_path)
        monkeypatch.undo()
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_missing_matplotlib_names_the_extra(self, tmp_path, monkeypatch):
        original = builtins.__import__

        def without(name, *arguments, **options):
            if name.split(".")[0] == "matplotlib":
                raise ImportError(name)
            return original(name, *arguments, **options)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(ImportError, match=r'pip install .*\[report\]"'):
            write_report(make_result(), tmp_path / "new")
        assert not (tmp_path / "new").exists()


def test_the_schema_document_names_every_entry():
    text = (REPOSITORY / "docs" / "pruning" / "REPORT.md").read_text(encoding="utf-8")
    kinds = [kind for module in (results, summary) for kind in vars(module).values() if dataclasses.is_dataclass(kind)]
    assert {PruningResult, LabelScore, summary.Summary} <= {*kinds}
    names = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    assert {name for name in names if f"`{name}`" not in text} == set()
    assert f"schema {SCHEMA_VERSION}" in text


class TestHonesty:
    @pytest.mark.slow
    def test_no_heading_is_a_name_of_the_code(self, page, tmp_path):
        rules = (
            "pareto accuracy/latency_ms+memory_mb",
            "latency_ms<=30 and flops<=9",
            "utility accuracy-0.02*latency_ms",
        )
        paths = write_report(make_result(trade_offs=tuple(TradeOff(rule, ("L2",), "why") for rule in rules)), tmp_path)
        for text in (Page(paths["html"].read_text()).text, paths["markdown"].read_text(encoding="utf-8")):
            assert not re.search(
                "CaseMetric|TableCell|WorstCase|PointCost|latency_ms|memory_mb|checkpoint_mb|flops", text
            )
            assert "Pareto front: accuracy against time per volume and peak memory" in text
            assert "time per volume of at most 30 ms and operations per window of at most 9 operations" in text
        assert page.tables["Non-inferiority on “oslo”"][0][1] == "Metric"

    @pytest.fixture(scope="class")
    @classmethod
    def stopped(cls):
        """L2 stops the search; L1 and the further checkpoint pass all the same."""
        base = make_result(costs={}, trade_offs=())
        rows = tuple(row for row in base.rows if row.dataset == "oslo")
        found = decision(rows, "oslo", LABELS, "L3")
        l2 = [dataclasses.replace(c, state="fail") for c in found.comparisons if c.point == "L2"]
        others = [
            dataclasses.replace(c, point=point, state="pass")
            for point in ("L1", "L2 trained alone")
            for c in found.comparisons
            if c.point == "L1"
        ]
        verdict = dataclasses.replace(found, comparisons=(*l2, *others), summary="Keep L3.")
        return dataclasses.replace(base, rows=rows, decisions=(verdict,))

    @pytest.mark.slow
    def test_what_lies_beyond_the_stop_is_not_a_pass(self, stopped):
        table = comparisons_table(stopped, stopped.decisions[0])
        cells = {row[0].text: row[table.columns.index("Result")] for row in table.rows}
        assert {point: (cell.text, cell.tone) for point, cell in cells.items()} == {
            "L2": ("fail", "bad"),
            "L1": ("pass (not tested: after the stop)", "muted"),
            "L2 trained alone": ("pass (not tested: further checkpoint)", "muted"),
        }
        assert sum("descriptive" in note for note in table.notes) == 1
        alt = plot_differences(stopped, stopped.decisions[0]).alt
        assert alt.count("pass, not tested") == 8
        assert "pass;" not in alt

    def test_the_stopping_level_is_tested(self, result):
        table = comparisons_table(result, result.decisions[0])
        assert {row[0].text for row in table.rows} == {"L1", "L2"}
        assert not any("not tested" in cell.text for row in table.rows for cell in row)
        assert not any("descriptive" in note for note in table.notes)

    @pytest.mark.parametrize("kind", ["html", "markdown"])
    def test_the_rule_of_the_decision_is_in_both(self, written, page, kind):
        text = page.text if kind == "html" else written[kind].read_text(encoding="utf-8")
        assert "in a fixed order from deep to shallow, and the first that does not pass stops the search" in text
        assert "does not say which cases trained or chose its weights" in text
        assert "before looking" not in text

    def test_a_pass_says_what_it_cannot_exclude(self, result, stopped):
        # 14 pairs of 15 cases with one of both empty, 7 subjects: 1 - 0.05 ** (1 / 7) = 34.8 %
        notes = [note for note in comparisons_table(result, result.decisions[0]).notes if "fare worse" in note]
        assert len(notes) == 1
        assert "7 subjects" in notes[0]
        assert "up to 34.8 % of all subjects" in notes[0]
        kept = comparisons_table(stopped, stopped.decisions[0])
        assert not any("fare worse" in note for note in kept.notes)

    def test_pairs_of_two_false_positives_are_counted_beside_a_pass_too(self, stopped):
        reason = f"Dice of posterior is not worse; 90 {BOTH_FALSE_POSITIVE}."
        first = dataclasses.replace(stopped.decisions[0].comparisons[0], state="pass", reason=reason)
        verdict = dataclasses.replace(stopped.decisions[0], comparisons=(first,))
        assert f"L2: {reason}" in comparisons_table(stopped, verdict).notes

    def test_cost_notes_say_what_a_time_includes(self, result):
        notes = " ".join(cost_table(result, summarise(result)).notes)
        assert "FLOPs are those of one pass of the network" in notes
        assert "all windows, overlaps and flips" in notes

    def test_means_of_different_cases_are_owned_up_to(self, result):
        assert "their means are over different cases" in accuracy_table(result, summarise(result), "oslo").notes[0]

    @pytest.mark.slow
    def test_worst_cases_of_a_refused_level_are_called_so(self, stopped, result, written, page, tmp_path):
        assert "Worst cases of the chosen level" in page.text
        refused = Page(write_report(stopped, tmp_path)["html"].read_text(encoding="utf-8"))
        assert "Worst cases of L2, which was not accepted" in refused.text
        assert "Worst cases of the chosen level" not in refused.text
        assert "Where L2 loses most against L3" in refused.tables

    @pytest.mark.slow
    def test_settings_are_shown_and_kept(self, tmp_path):
        settings = {"window": f"40 {TIMES} 56", "earlier rules": "dice=0.05 | <b>", "flips": ""}
        result = make_result(settings=settings)
        paths = write_report(result, tmp_path)
        page = Page(paths["html"].read_text(encoding="utf-8"))
        rows = page.tables["Rules of this run"]
        assert markdown_tables(paths["markdown"].read_text(encoding="utf-8"))["Rules of this run"] == rows
        assert ["Window", f"40 {TIMES} 56"] in rows
        assert ["Flips", DASH] in rows
        # right after the margins, and in the words on the decision
        assert [row[0] for row in rows[1:4]] == ["Margin, Dice", "Margin, NSD", "Earlier rules"]
        place = page.text.index("Earlier rules: dice=0.05 | <b>")
        assert page.text.index("How the verdict came about") < place < page.text.index("Non-inferiority on")
        assert "**Earlier rules: dice=0.05" in paths["markdown"].read_text(encoding="utf-8")
        back = read_report(paths["json"])
        assert back == result
        assert list(back.settings) == list(settings)

    def test_without_earlier_rules_nothing_is_said_of_them(self, page):
        assert "Earlier rules" not in page.text


class TestConfirmation:
    @pytest.fixture(scope="class")
    @classmethod
    def split(cls):
        """One data set whose cases were split: the choice says prune, the confirmation says keep."""
        base = make_result(costs={}, trade_offs=())
        rows = tuple(row for row in base.rows if row.dataset == "oslo")
        choice = decision(rows, "oslo", LABELS, "L2", "choose")
        check = dataclasses.replace(decision(rows, "oslo", LABELS, "L3", "confirm"), summary="Keep L3: not confirmed.")
        return dataclasses.replace(base, rows=rows, decisions=(choice, check))

    @pytest.mark.slow
    def test_has_the_last_word(self, split, tmp_path):
        assert verdict(split).role == "confirm"
        page = Page(write_report(split, tmp_path)["html"].read_text(encoding="utf-8"))
        assert page.text.index("Keep L3: not confirmed.") < page.text.index("The levels at a glance")
        assert page.text.index("cases that took no part in choosing it (oslo)") < page.text.index("The levels at")
        roles = {row[0]: row[1] for row in page.tables["The levels at a glance"][1:]}
        assert (roles["L3"], roles["L2"]) == ("kept, deepest", "cut out of the full network")
        assert {f"Non-inferiority on “oslo”, cases that {role} the level" for role in ("confirm", "choose")} < set(
            page.tables
        )

    def test_data_sets_are_named_one_by_one(self, split):
        confirmations = [
            dataclasses.replace(split.decisions[1], dataset=name, optimistic=False) for name in ("a", "b", "all")
        ]
        result = dataclasses.replace(split, decisions=(split.decisions[0], *confirmations))
        assert "cases that took no part in choosing it (a, b):" in honesty(result)

    def test_a_level_that_was_not_confirmed_is_the_one_that_is_shown(self, split):
        shallow = dataclasses.replace(split.decisions[0], level="L1")
        result = dataclasses.replace(split, decisions=(shallow, split.decisions[1]))
        assert summary.shown_loser(result).name == "L1"

    def test_nor_does_a_withdrawn_choice_hide_the_level_that_was_not_confirmed(self, split):
        choice, check = split.decisions
        withdrawn = dataclasses.replace(choice, verdict="inconclusive", level="L3")
        compared = tuple(each for each in check.comparisons if each.point == "L1")
        result = dataclasses.replace(split, decisions=(withdrawn, dataclasses.replace(check, comparisons=compared)))
        assert plain_verdict(result) == "Keep L3: L1 is not accurate enough."

    def test_means_of_all_cases_carry_no_difference_of_some(self, split):
        assert "Dice difference" not in accuracy_table(split, summarise(split), "oslo").columns
        whole = dataclasses.replace(split, decisions=split.decisions[:1])
        assert "Dice difference" in accuracy_table(whole, summarise(whole), "oslo").columns


def test_interval_note_gives_the_confidence_that_was_used():
    few = make_result().decisions[0].comparisons[0]
    many = dataclasses.replace(few, cases=400, clusters=400)
    assert "one-sided 95 % lower" in interval_note(0.05, [many])
    assert "interval of 90 %" in interval_note(0.05, [many])
    ten = dataclasses.replace(few, cases=10, clusters=10)
    assert "one-sided 99.5 % lower" in interval_note(0.05, [ten])
    assert "(up to 99.5 % with only 10 subjects" in interval_note(0.05, [ten, many])


class TestSummary:
    def test_by_hand(self):
        rows = tuple(
            ScoreRow("set", f"c{i}", f"c{i}", "L1", "liver", score(dice)) for i, dice in enumerate((0.8, 0.6, 0))
        )
        result = dataclasses.replace(single("L1"), rows=rows, points=POINTS[:1])
        (accuracy,) = summarise(result).accuracy
        assert (accuracy.cases, accuracy.ok, accuracy.missed, accuracy.false_positive) == (3, 2, 1, 0)
        assert accuracy.metrics["dice"].mean == pytest.approx(1.4 / 3)
        assert accuracy.metrics["dice"].sd == pytest.approx(math.sqrt(0.52 / 3), abs=1e-9)
        assert accuracy.metrics["hd95_mm"].mean == pytest.approx((2.2 + 3.9 + 61.5) / 3)

    def test_speed_up_is_against_the_deepest_level(self):
        l1, _, l3, alone = summarise(make_result()).costs
        assert l1.volume_speed_up == pytest.approx(1 / 0.18)
        assert (l3.volume_speed_up, l3.parameter_share) == (1, 1)
        assert alone.memory_share == pytest.approx(0.46)

    def test_worst_cases_are_the_largest_losses_of_the_chosen_level(self):
        worst = summarise(make_result()).worst_cases
        assert len(worst) == 5
        assert [w.difference for w in worst] == sorted(w.difference for w in worst)
        assert all(w.difference == w.chosen_dice - w.deepest_dice < 0 for w in worst)
        assert all(w.label != "foreground" for w in worst)
        stated = [c for d in make_result().decisions for c in d.comparisons if (c.point, c.metric) == ("L2", "dice")]
        assert worst[0].difference == min(c.worst_difference for c in stated)

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0, "0"),
            (0.012345, "0.0123"),
            (9.999, "10.0"),
            (1234567, "1230000"),
            (-0.5, "-0.500"),
            (312.4, "312"),
            (math.inf, "inf"),
        ],
    )
    def test_three_significant_digits_without_exponent(self, value, text):
        assert significant(value) == text
