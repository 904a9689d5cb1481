"""Out-of-fold scores, in which each case was scored by a fold's network that never saw its subject."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, get_args

from monai_unetpp.data.datasets.datalist import LISTS, load_datalist, read_content
from monai_unetpp.data.datasets.labelled import LabelledCase, list_cases
from monai_unetpp.data.formats.naming import entry_name
from monai_unetpp.metrics import METRICS, LabelScore
from monai_unetpp.metrics.scores import State, with_foreground
from monai_unetpp.pruning.results import OperatingPoint, ScoreRow
from monai_unetpp.pruning.scoring.levels import Scores
from monai_unetpp.spreadsheet import format_csv, read_cell, read_table

logger = logging.getLogger(__name__)

SCORE_COLUMNS = ("dataset", "case", "subject", "point", "label", "state", *METRICS, "prediction_ml", "truth_ml")
"""Columns of every table of scores: ``per_case.csv``, and the tables of folds."""

#: A further column: of the surface Dice. Tables of version 0.1.0 lack it.
_TOLERANCE = "tolerance_mm"
_VOLUMES = ("volume_difference_ml", "prediction_ml", "truth_ml")

#: By state, what is 0 in it.
_ZERO: Mapping[str, tuple[str, ...]] = {
    "missed": ("dice", "iou", "nsd", "prediction_ml"),
    "false_positive": ("dice", "iou", "nsd", "truth_ml"),
    "both_empty": ("prediction_ml", "truth_ml"),
}

#: How far a figure may be off that a spreadsheet has rounded.
_ROUNDED = 0.01


def format_scores(rows: Iterable[ScoreRow], tolerance_mm: Mapping[str, float]) -> str:
    """A table of scores as text, one line per case, point and label, unrounded."""
    tolerances = with_foreground(tolerance_mm)
    cells = ((*score_cells(row), tolerances.get(row.label, "")) for row in rows)
    return format_csv((*SCORE_COLUMNS, _TOLERANCE), cells)


def score_cells(row: ScoreRow) -> tuple[str, ...]:
    """The cells of one score, empty for metrics that it lacks."""
    score = row.score
    values = (getattr(score, key) for key in SCORE_COLUMNS[6:])
    numbers = ("" if value is None else repr(float(value)) for value in values)
    return (row.dataset, row.case, row.subject, row.point, row.label, score.state, *numbers)


def join_folds(folds: Sequence[Scores], dataset: str) -> Scores:
    """Join the scores of all folds as those of one data set, whose name they must have."""
    if not folds:
        raise ValueError("folds must hold scores, got none. Score the cases of every fold.")
    points = {tuple((point.name, point.level) for point in fold.points) for fold in folds}
    if len(points) > 1:
        raise ValueError(f"folds must be scored at the same points, got {sorted(points)}. Score them alike.")
    names = {row.dataset for fold in folds for row in fold.rows}
    if names - {dataset}:
        told = ", ".join(sorted(names))
        raise ValueError(f"folds must be of the data set {dataset!r}, got {told}. Score them by its name.")
    home: dict[str, int] = {}
    for number, fold in enumerate(folds):
        for row in fold.rows:
            if home.setdefault(row.subject, number) != number:
                raise ValueError(
                    f"folds must share no subject, got {row.subject!r} in folds {home[row.subject]} and {number}. "
                    "Split the cases by subject."
                )
    return dataclasses.replace(
        folds[0],
        rows=tuple(row for fold in folds for row in fold.rows),
        problems=tuple(problem for fold in folds for problem in fold.problems),
        cases=tuple(case for fold in folds for case in fold.cases),
        error_auroc=None,
    )


def check_complete(scores: Scores, labels: Sequence[str]) -> None:
    """Refuse scores that lack a label of a case at a point, which a verdict then would not guard, or misname it."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in scores.rows:
        found.setdefault((row.case, row.point), []).append(row.label)
    for case in dict.fromkeys(row.case for row in scores.rows):
        for point in scores.points:
            given = found.get((case, point.name), [])
            if sorted(given) != sorted(labels):
                raise ValueError(
                    f"scores must cover the labels {', '.join(labels)}, got {', '.join(given) or 'none'} for {case} at "
                    f"{point.name}. Score the folds with the labels of the data set."
                )


def check_truth(
    scores: Scores, volumes_ml: Mapping[str, Mapping[int, float]], labels: Mapping[str, int], dataset: str
) -> None:
    """Refuse scores of other labels than the data set's, in whose label maps values have ``volumes_ml`` by case."""
    for row in scores.rows:
        values = [labels[row.label]] if row.label in labels else labels.values()
        true = sum(volumes_ml[row.case].get(value, 0.0) for value in values)
        state = row.score.state
        if (true > 0) != (state in ("ok", "missed")):
            found = f"{state!r} for"
        # spreadsheets may round
        elif not math.isclose(row.score.truth_ml, true, rel_tol=1e-3):
            found = f"{row.score.truth_ml:g} ml as the true volume of"
        else:
            continue
        raise ValueError(
            f"scores must be of the cases of {dataset!r}, got {found} {row.label} in {row.case} at {row.point}, where "
            f"its label has {true:g} ml. Give the tables of this data set, or score its cases again."
        )


def fold_lists(dataset_dir: str | PathLike[str], list_key: str, **subjects: Any) -> dict[str, list[dict[str, Any]]]:
    """The lists of cases that folds can be made of: the training and the validation list, and ``list_key``."""
    content = read_content(Path(dataset_dir) / "dataset.json")
    # a validation list that is not there is drawn from the training list
    keys = [key for key in LISTS if content.get(key, content.get("training"))]
    return {key: load_datalist(dataset_dir, key, **subjects) for key in dict.fromkeys([*keys, list_key])}


def describe_unscored(folds: Sequence[Scores], lists: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """How many cases of the lists of the folds' cases have no scores, as a sentence; empty where all have."""
    scored, parts = {row.case for fold in folds for row in fold.rows}, []
    for key, entries in lists.items():
        names = [entry_name(entry) for entry in entries]
        count = sum(name not in scored for name in names)
        if 0 < count < len(names):
            parts.append(f"{count} of {len(names)} cases of the list {key!r}")
    if not parts:
        return ""
    are = "is" if len(parts) == 1 and parts[0].startswith("1 of") else "are"
    return (
        f"{' and '.join(parts)} {are} in no table of scores: the verdict is without them. Give the tables of all folds."
    )


def read_folds(
    paths: Sequence[str | PathLike[str]],
    entries: Sequence[Mapping[str, Any]],
    levels: Sequence[str],
    dataset: str,
    tolerance_mm: Mapping[str, float],
) -> list[Scores]:
    """Read the tables of the folds, such as the ``per_case.csv`` of a report, and find the files of their cases.

    Entries in no table are ignored. Their ``subject`` replaces that in the tables; where both lack it, names of files
    may tell it. The name of the data set replaces that in the tables too, as folders may have been renamed. A table
    that does not tell the tolerances of its surface Dice is taken to have ``tolerance_mm``, with a warning.
    """
    if len(paths) < 2:
        raise ValueError(
            f"scores must be the tables of two or more folds, got {', '.join(map(str, paths))}. Give each fold's table "
            "with a --scores of its own."
        )
    files: dict[str, dict[tuple[Path, ...], LabelledCase]] = {}
    told: dict[str, str] = {}
    for entry, case in zip(entries, list_cases(entries), strict=True):
        files.setdefault(case.name, {})[case.files] = case
        if entry.get("subject"):
            told[case.name] = case.subject
    points = tuple(OperatingPoint(level, level) for level in levels)
    folds = [_read_fold(Path(path), files, told, points, tolerance_mm) for path in paths]
    found = {row.dataset: path for fold, path in zip(folds, paths, strict=True) for row in fold.rows}
    if len(found) > 1:
        names = ", ".join(f"{name!r} in {path}" for name, path in found.items())
        raise ValueError(
            f"scores must be of one data set, got {names}. Give the tables of one, or one name in the column 'dataset' "
            "if they are."
        )
    return [
        dataclasses.replace(fold, rows=tuple(dataclasses.replace(row, dataset=dataset) for row in fold.rows))
        for fold in folds
    ]


def _read_fold(
    path: Path,
    files: Mapping[str, Mapping[tuple[Path, ...], LabelledCase]],
    told: Mapping[str, str],
    points: tuple[OperatingPoint, ...],
    tolerance_mm: Mapping[str, float],
) -> Scores:
    kept = {point.name for point in points}
    named = {name: case.subject for name, found in files.items() for case in found.values()}
    rows = [
        dataclasses.replace(row, subject=told.get(row.case) or row.subject or named.get(row.case, row.case))
        for row in _read_rows(path, tolerance_mm)
        if row.point in kept
    ]
    if not rows:
        raise ValueError(f"{path}: must hold scores of {', '.join(sorted(kept))}, got none. Give another table.")
    subjects = {row.case: row.subject for row in rows}
    unknown = next((name for name in subjects if name not in files), None)
    if unknown is not None:
        raise ValueError(f"{path}: has scores of {unknown!r}, which the data set lacks. Name the list of its cases.")
    repeated = next((name for name in subjects if len(files[name]) > 1), None)
    if repeated is not None:
        images = " and ".join(str(case.image[0]) for case in files[repeated].values())
        raise ValueError(f"{path}: has scores of {repeated!r}, but {images} have this name. Rename one of them.")
    cases = tuple(
        dataclasses.replace(next(iter(files[name].values())), subject=subject) for name, subject in subjects.items()
    )
    return Scores(points=points, rows=tuple(rows), problems=(), cases=cases)


def _read_rows(path: Path, tolerance_mm: Mapping[str, float]) -> Iterator[ScoreRow]:
    table = read_table(path, SCORE_COLUMNS, "scores", "Give the per_case.csv of a report.")
    if not any(cells.get(_TOLERANCE) for cells in table):
        logger.warning(
            "%s does not say at which tolerances its surface Dice was computed: those of this run are supposed.",
            path,
        )
    for number, cells in enumerate(table, start=2):
        texts = {name: read_cell(cells[name]) for name in SCORE_COLUMNS}
        try:
            score = _read_score(texts)
            used, asked = _read_number(_TOLERANCE, cells.get(_TOLERANCE, "")), tolerance_mm.get(texts["label"])
        except ValueError as e:
            raise ValueError(f"{path}, line {number}: {e}. Write the table again.") from e
        if used is not None and asked is not None and not math.isclose(used, asked, rel_tol=1e-6):
            raise ValueError(
                f"{path}, line {number}: the surface Dice of {texts['label']} must have the tolerance of this run, "
                f"{asked:g} mm, got {used:g} mm. Set tolerance_mm as in the runs that scored the folds, or score them "
                "again."
            )
        yield ScoreRow(texts["dataset"], texts["case"], texts["subject"], texts["point"], texts["label"], score)


def _read_score(texts: Mapping[str, str]) -> LabelScore:
    state = texts["state"]
    if state not in get_args(State):
        raise ValueError(f"state must be one of {', '.join(get_args(State))}, got {state!r}")
    values = {name: _read_number(name, texts[name]) for name in SCORE_COLUMNS[6:]}
    lacking = next((name for name, value in values.items() if value is None), None)
    if lacking is not None and state != "both_empty":
        raise ValueError(f"{lacking} must be a number in the state {state!r}, got nothing")
    _check_range(state, values)
    # nothing has a volume of 0
    values |= {name: 0.0 for name in _VOLUMES if values[name] is None}
    score = LabelScore(state, **values)  # type: ignore[arg-type]
    _check_overlap(score)
    return score


def _check_range(state: str, values: Mapping[str, float | None]) -> None:
    for name, value in values.items():
        if value is None or name == "volume_difference_ml":
            continue
        most = 1.0 if name in METRICS and METRICS[name].larger_is_better else math.inf
        if not 0 <= value <= most:
            limits = "between 0 and 1" if most == 1 else "at least 0"
            raise ValueError(f"{name} must be {limits}, got {value:g}")
        if name in _ZERO.get(state, ()) and value > 0:
            raise ValueError(f"{name} must be 0 in the state {state!r}, got {value:g}")


def _check_overlap(score: LabelScore) -> None:
    """Refuse overlaps and volumes that exclude each other, even if rounded to two decimals."""
    if score.state != "ok" or score.dice is None or score.iou is None:
        return
    expected = score.dice / (2 - score.dice)
    if abs(score.iou - expected) > 2 * _ROUNDED:
        raise ValueError(f"iou must be {expected:.3g} with a Dice of {score.dice:g}, got {score.iou:g}")
    volumes = {"prediction_ml": score.prediction_ml, "truth_ml": score.truth_ml}
    for name, value in volumes.items():
        if value == 0 and (score.dice - _ROUNDED) * sum(volumes.values()) > 2 * _ROUNDED:
            raise ValueError(f"{name} must be above 0 in the state 'ok' with a Dice of {score.dice:g}, got 0")


def _read_number(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {text!r}")
    return value
