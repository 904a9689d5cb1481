"""Sizes of labels, and the table of them over all cases of a folder."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from monai_unetpp.spreadsheet import escape_cell, format_csv

__all__ = ["HEADER", "VOLUMES_FILE", "LabelVolume", "format_volumes", "measure_labels", "read_volume_rows"]

VOLUMES_FILE = "volumes.csv"
HEADER = ("case", "label", "name", "voxels", "ml", "warnings")


@dataclasses.dataclass(frozen=True)
class LabelVolume:
    """How much of one label a case has.

    Attributes:
        value: its number in the label map.
        name: what it stands for.
        voxels: how many voxels or pixels it has.
        ml: its volume in millilitres; None where pixels have no size in mm.
    """

    value: int
    name: str
    voxels: int
    ml: float | None


def measure_labels(
    names: Mapping[int, str], voxels: Mapping[int, int], volumes_ml: Mapping[int, float] | None
) -> tuple[LabelVolume, ...]:
    """Every label of ``names`` with its size, also where it has none.

    Args:
        names: name of each value.
        voxels: voxels of each value; what is missing has none.
        volumes_ml: millilitres of each value likewise; None where they have no meaning.
    """
    return tuple(
        LabelVolume(value, name, voxels.get(value, 0), None if volumes_ml is None else volumes_ml.get(value, 0.0))
        for value, name in names.items()
    )


def format_volumes(
    cases: Mapping[str, tuple[Sequence[LabelVolume], Sequence[str]]], others: Iterable[Sequence[str]] = ()
) -> str:
    """The table as text.

    Args:
        cases: sizes of the labels and warnings, by the name of the case.
        others: rows of further cases, as :func:`read_volume_rows` gives them.
    """
    rows = [
        (case, label.value, label.name, label.voxels, "" if label.ml is None else f"{label.ml:.6g}", "; ".join(told))
        for case, (labels, told) in cases.items()
        for label in labels
    ]
    kept = [row for row in others if row[0] not in {escape_cell(case) for case in cases}]
    return format_csv(HEADER, sorted([*kept, *rows], key=lambda row: (str(row[0]), int(row[1]))))


def read_volume_rows(path: Path) -> list[list[str]]:
    """The rows of an earlier table without its header; none where there is no file.

    Raises:
        ValueError: it is no such table.
    """
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error):
        header, rows = [], []
    if tuple(header) != HEADER or any(len(row) != len(HEADER) or not row[1].isdecimal() for row in rows):
        raise ValueError(f"{path}: exists and was not written by monai-unetpp. Move it away, or name another folder.")
    return rows
