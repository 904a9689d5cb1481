"""Write the result of the pruning evaluator, for readers and for programs, and read it back.

``report.json`` is described in ``REPORT.md`` of the pruning guide.
"""

from __future__ import annotations

import base64
import json
import re
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.errors import counted
from monai_unetpp.files import read_json_object, write_text
from monai_unetpp.metrics import RULES
from monai_unetpp.plain_values import from_plain, to_plain
from monai_unetpp.pruning.report import result_tables
from monai_unetpp.pruning.report.adaptive_tables import (
    ADAPTIVE_RULE,
    adaptive_cases_table,
    adaptive_csv,
    adaptive_table,
)
from monai_unetpp.pruning.report.front import plot_trade_offs
from monai_unetpp.pruning.report.grid_tables import GRID_RULE, grid_networks_table, grid_table
from monai_unetpp.pruning.report.opening import first_lines, honesty, key_facts, levels_in_words, plain_verdict
from monai_unetpp.pruning.report.plots import Picture, plot_case_lines, plot_differences, plot_grid
from monai_unetpp.pruning.results import Decision, OperatingGrid, PruningResult
from monai_unetpp.pruning.scoring.folds import SCORE_COLUMNS, format_scores, score_cells
from monai_unetpp.pruning.summary import (
    ALL,
    Summary,
    chosen_point,
    data_sets,
    deepest_point,
    ordered_decisions,
    shown_loser,
    summarise,
    verdict,
)
from monai_unetpp.pruning.wording import data_set_in_words, part_in_words
from monai_unetpp.reporting.markdown import escape
from monai_unetpp.reporting.numbers import significant
from monai_unetpp.reporting.tables import Table
from monai_unetpp.spreadsheet import format_csv as _csv_text

SCHEMA_VERSION = "2.6"
_GRID_FILE = "operating_points.csv"
_ADAPTIVE_FILE = "adaptive_depth.csv"
_UNBROKEN = re.compile(r"\d %|± \d|\([-+\d., to]+\)")
"""Where a line of a cell must not break: it may between a mean and its spread."""


def write_report(result: PruningResult, output_dir: str | PathLike[str]) -> dict[str, Path]:
    """Write ``report.html``, ``report.json``, ``per_case.csv`` and ``summary.md``.

    With a grid of operating points ``operating_points.csv`` is written too, and with depths chosen per window
    ``adaptive_depth.csv``; otherwise those of an earlier result are removed. All are rendered before the first is
    written, and each is replaced atomically. The HTML file is self-contained: it includes plots and overlay pictures.

    Args:
        result: the result to write; it needs at least one score and one decision.
        output_dir: folder to write to; created if missing.

    Returns:
        The paths under ``"html"``, ``"json"``, ``"csv"`` and ``"markdown"``, with a grid also ``"operating_points"``,
        with adaptive depths ``"adaptive_depth"``.

    Raises:
        ImportError: matplotlib is not installed.
        FileNotFoundError: a picture of ``result.overlays`` does not exist. Relative paths are looked up in
            ``output_dir``, then in the working directory.
        ValueError: no score, or no decision.
        OSError: the folder cannot be written to.
    """
    folder = Path(output_dir)
    if not result.rows:
        raise ValueError("result.rows must hold at least one score, got none. Score the cases before reporting.")
    summary = summarise(result)
    # the page, which people look at, is the last: programs then have what it says
    page = _html(result, summary, folder)
    texts = {
        "json": ("report.json", _json(result, summary)),
        "csv": ("per_case.csv", format_scores(result.rows, result.tolerance_mm)),
        "markdown": ("summary.md", _markdown(result, summary)),
    }
    if result.grid is not None:
        texts["operating_points"] = (_GRID_FILE, _grid_csv(result.grid))
    if result.adaptive is not None:
        texts["adaptive_depth"] = (_ADAPTIVE_FILE, adaptive_csv(result.adaptive))
    texts["html"] = ("report.html", page)
    earlier = {folder / name for name in (_GRID_FILE, _ADAPTIVE_FILE)} | _pictures(folder)
    for name, text in texts.values():
        write_text(folder / name, text)
    for path in earlier - {folder / name for name, _ in texts.values()} - {folder / path for path in result.overlays}:
        path.unlink(missing_ok=True)
    return {kind: folder / name for kind, (name, _) in texts.items()}


def _pictures(folder: Path) -> set[Path]:
    """The pictures that an earlier report in the folder names, of those in its folder for them."""
    try:
        named = json.loads((folder / "report.json").read_text(encoding="utf-8"))["result"]["overlays"]
        return {folder / path for path in named if Path(path).parts[0] == "overlays" and ".." not in Path(path).parts}
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def read_report(path: str | PathLike[str]) -> PruningResult:
    """The result that ``write_report`` wrote to ``report.json``.

    Args:
        path: a ``report.json``. Its averages (``"summary"``) are not read, as they follow from the scores.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, not a report, or an unknown schema; the message names the place in the file.
    """
    source = Path(path)
    content = read_json_object(source, "Give the report.json of a pruning report.")
    version = content.get("schema_version")
    if not isinstance(version, str) or version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise ValueError(
            f"{source}: schema_version must be {SCHEMA_VERSION.split('.')[0]}.x, got {version!r}. "
            "Read it with the version of monai-unetpp that wrote it."
        )
    try:
        return from_plain(PruningResult, content.get("result"), "result")
    except ValueError as e:
        raise ValueError(f"{source}: {e}") from e


def _json(result: PruningResult, summary: Summary) -> str:
    content = {
        "schema_version": SCHEMA_VERSION,
        "rules": RULES,
        "result": to_plain(result),
        "summary": to_plain(summary),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _grid_csv(grid: OperatingGrid) -> str:
    """Like ``per_case.csv``, with the level and setting of the point."""
    settings = {}
    for point in grid.points:
        setting = point.known_setting
        overlap, flips = (" ".join(map(str, values)) for values in (setting.overlap, setting.flips))
        settings[point.name] = (point.level, overlap, flips, setting.precision, setting.runtime, setting.windows)
    rows = ((*settings[row.point], *score_cells(row)) for row in grid.rows)
    return _csv_text(("level", "overlap", "flips", "precision", "runtime", "windows", *SCORE_COLUMNS), rows)


def _single_tables(result: PruningResult, summary: Summary) -> dict[str, Table | None]:
    """The tables that occur once, by their names in ``report.html`` and in the order of ``summary.md``."""
    grid, adaptive = result.grid, result.adaptive
    tables = {
        "verdicts": result_tables.verdicts_table(result),
        "glance": result_tables.glance_table(result, summary),
        "stability": result_tables.stability_table(result),
        "between_sets": result_tables.between_sets_table(result),
        "cost": result_tables.cost_table(result, summary),
        "claims": result_tables.claims_table(result, summary),
        "grid": grid_table(grid, result) if grid else None,
        "grid_networks": grid_networks_table(grid) if grid else None,
        "adaptive": adaptive_table(adaptive) if adaptive else None,
        "adaptive_cases": adaptive_cases_table(adaptive, result.rows) if adaptive else None,
        "trade_offs": result_tables.trade_offs_table(result),
        "worst": result_tables.worst_cases_table(result, summary),
        "problems": result_tables.problems_table(result),
        "settings": result_tables.settings_table(result),
        "environment": result_tables.environment_table(result),
    }
    return {name: table if table is not None and table.rows else None for name, table in tables.items()}


def _markdown(result: PruningResult, summary: Summary) -> str:
    decision = verdict(result)
    parts = [
        f"# Pruning report: {escape(result.title)}",
        f"**{escape(plain_verdict(result))}** {escape(levels_in_words(result))}",
        "\n".join(f"- **{escape(fact.value)}** {escape(fact.meaning)}" for fact in key_facts(result, summary)),
        escape(decision.summary),
        escape(honesty(result)),
        "\n".join(f"- **{escape(line.topic)}.** {escape(line.sentence)}" for line in first_lines(result)),
        "## How the verdict came about",
        escape(result_tables.DECISION_RULE),
    ]
    if result_tables.EARLIER_RULES in result.settings:
        parts.append(f"**Earlier rules: {escape(result.settings[result_tables.EARLIER_RULES])}**")
    single = _single_tables(result, summary)
    tables: list[Table | None] = [
        single.pop("verdicts"),
        single.pop("glance"),
        *(result_tables.comparisons_table(result, d) for d in ordered_decisions(result) if d.comparisons),
        *(result_tables.accuracy_table(result, summary, name) for name in data_sets(result)),
        *single.values(),
    ]
    blockers = [
        f"- {escape(_named(d))}: {escape(blocker)}"
        for d in ordered_decisions(result)
        for blocker in _blockers(result, d)
    ]
    if blockers:
        parts += ["## Why the test stopped", "\n".join(blockers)]
    parts += [table.markdown() for table in tables if table is not None]
    if result.grid is not None:
        parts += ["## The operating points in words", f"**{escape(result.grid.reason)}**", escape(GRID_RULE)]
    if result.adaptive is not None:
        parts += ["## Depth chosen for each window, in words", f"**{escape(result.adaptive.reason)}**"]
        parts += [escape(ADAPTIVE_RULE)]
    if result.error_auroc is not None:
        parts.append(escape(_auroc(result.error_auroc)))
    fence = "`" * (3 + result.command.count("```"))
    parts += [
        "## Rules of scoring",
        "\n".join(f"- {escape(rule)}" for rule in RULES.strip().splitlines()),
        "## Command",
        f"{fence}\n{result.command}\n{fence}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _html(result: PruningResult, summary: Summary, folder: Path) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("monai_unetpp.pruning.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["counted"] = counted
    environment.filters["unbroken"] = lambda text: _UNBROKEN.sub(
        lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text
    )
    decision, loser = verdict(result), shown_loser(result)
    overlays = [_overlay(_find(path, folder)) for path in result.overlays]
    return environment.get_template("report.html").render(
        result=result,
        decision=decision,
        verdict=result_tables.verdict_cell(decision),
        honesty=honesty(result),
        plain=plain_verdict(result),
        levels_in_words=levels_in_words(result),
        facts=key_facts(result, summary),
        picture_lead=f"The case that loses most at {loser.name}. " if loser and summary.worst_cases else "",
        trust=first_lines(result),
        decision_rule=result_tables.DECISION_RULE,
        earlier_rules=result.settings.get(result_tables.EARLIER_RULES),
        **_single_tables(result, summary),
        trade_off_plots=[_embed(picture) for picture in plot_trade_offs(result)],
        decisions=[
            {
                "decision": d,
                "name": _named(d),
                "blockers": _blockers(result, d),
                "table": result_tables.comparisons_table(result, d) if d.comparisons else None,
                "chart": _embed(plot_differences(result, d)),
            }
            for d in ordered_decisions(result)
        ],
        accuracies=[result_tables.accuracy_table(result, summary, name) for name in data_sets(result)],
        lines=_embed(plot_case_lines(result)),
        grid_plot=_embed(plot_grid(result.grid) if result.grid else None),
        grid_rule=GRID_RULE,
        adaptive_rule=ADAPTIVE_RULE,
        worst_title=_worst_title(result),
        overlays=overlays,
        rules=RULES.strip().splitlines(),
        auroc=None if result.error_auroc is None else _auroc(result.error_auroc),
        schema_version=SCHEMA_VERSION,
    )


def _blockers(result: PruningResult, decision: Decision) -> tuple[str, ...]:
    """What stopped the test; nothing for a joint decision, which repeats what stopped the others."""
    return () if decision.dataset == ALL and len(data_sets(result)) > 1 else decision.blockers


def _named(decision: Decision) -> str:
    return data_set_in_words(decision.dataset) + part_in_words(decision.role)


def _worst_title(result: PruningResult) -> str:
    loser = shown_loser(result)
    if loser is None or chosen_point(result) != deepest_point(result):
        return "Worst cases of the chosen level"
    return f"Worst cases of {loser.name}, which was not accepted"


def _auroc(value: float) -> str:
    return (
        f"Disagreement between the levels finds wrong voxels with an area under the ROC curve of {significant(value)} "
        "(mean over the cases of a data set, and over data sets; 0.5 is chance, 1 is perfect)."
    )


def _embed(picture: Picture | None) -> dict[str, Any] | None:
    if picture is None:
        return None
    data = base64.b64encode(picture.svg.encode()).decode("ascii")
    return {"src": f"data:image/svg+xml;base64,{data}", "alt": picture.alt, "spots": picture.spots}


def _find(path: str, folder: Path) -> Path:
    candidates = [Path(path)] if Path(path).is_absolute() else [folder / path, Path(path)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"{path}: no such picture. result.overlays must name files relative to {folder} or to the working directory."
    )


def _overlay(path: Path) -> dict[str, str]:
    from PIL import Image

    with Image.open(path) as picture:
        texts = {key: value for key, value in picture.info.items() if isinstance(value, str)}
        kind = Image.MIME.get(picture.format or "", "image/png")
    title = texts.get("Title", path.stem)
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return {
        "src": f"data:{kind};base64,{data}",
        "alt": f"Overlay of {title}.",
        "caption": texts.get("Description", title),
    }
