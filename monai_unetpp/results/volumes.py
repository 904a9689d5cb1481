"""Measure the volumes of labels, and write them as a table of all cases in a folder."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from monai_unetpp.data.formats.grid import voxel_ml, warn_once
from monai_unetpp.data.formats.reader import read_label_map
from monai_unetpp.errors import list_values
from monai_unetpp.spreadsheet import format_csv, read_cell

VOLUMES_FILE = "volumes.csv"
HEADER = ("case", "label", "name", "voxels", "ml", "warnings")


@dataclasses.dataclass(frozen=True)
class LabelVolume:
    """The size of a label in a case, or of several together.

    Attributes:
        value: its value in the label map; None for a sum of several.
        name: name of the structure.
        voxels: number of voxels or pixels.
        ml: its volume in millilitres; None if pixels have no size in mm.
    """

    value: int | None
    name: str
    voxels: int
    ml: float | None


def measure_labels(
    names: Mapping[int, str],
    voxels: Mapping[int, int],
    volumes_ml: Mapping[int, float] | None,
    totals: Mapping[str, Sequence[int]] | None = None,
) -> tuple[LabelVolume, ...]:
    """The size of every label in ``names``, even if it is 0, and the sums of some.

    Args:
        names: name of each value.
        voxels: voxels of each value; missing values have none.
        volumes_ml: millilitres of each value likewise; None if they have no meaning.
        totals: values to sum, by the name of the sum.
    """

    def size(value: int | None, name: str, values: Sequence[int]) -> LabelVolume:
        ml = None if volumes_ml is None else sum(volumes_ml.get(each, 0.0) for each in values)
        return LabelVolume(value, name, sum(voxels.get(each, 0) for each in values), ml)

    single = (size(value, name, [value]) for value, name in names.items())
    return (*single, *(size(None, name, values) for name, values in (totals or {}).items()))


def measure_file(
    path: Path, names: Mapping[int, str], has_volume: bool, totals: Mapping[str, Sequence[int]] | None = None
) -> tuple[LabelVolume, ...]:
    """Measure the labels of an existing label map; see :func:`measure_labels`.

    Args:
        path: NIfTI, PNG or TIFF.
        names: name of each value.
        has_volume: whether its voxels have a size in mm.
        totals: as for :func:`measure_labels`.

    Raises:
        ImageFileError: the file cannot be read, or holds no labels.
    """
    label_map = read_label_map(path)
    size_ml = voxel_ml(label_map.affine)
    values, voxels = np.unique(label_map.data, return_counts=True)
    counts = dict(zip(values.tolist(), voxels.tolist(), strict=True))
    if unnamed := sorted(counts.keys() - {0, *names}):
        warn_once(
            f"{path}: values without a name, {list_values(unnamed)}, are neither measured nor in a DICOM SEG. "
            "Give their voxels the value of a label, or 0."
        )
    volumes_ml = {value: count * size_ml for value, count in counts.items()}
    return measure_labels(names, counts, volumes_ml if has_volume else None, totals)


def format_volumes(
    cases: Mapping[str, tuple[Sequence[LabelVolume], Sequence[str]]],
    others: Iterable[Sequence[str]] = (),
    keep_sums_of: Collection[str] = (),
) -> str:
    """The table as text, from the sizes of labels and warnings by case, and rows from :func:`read_volume_rows`.

    Cases in ``keep_sums_of`` keep their sums in ``others``.
    """
    rows = []
    for case, (labels, told) in cases.items():
        for label in labels:
            value, ml = "" if label.value is None else str(label.value), "" if label.ml is None else f"{label.ml:.6g}"
            rows.append((case, value, label.name, label.voxels, ml, "; ".join(told)))
    redone, summed = ({as_written(case) for case in names} for names in (cases, keep_sums_of))
    kept = [row for row in others if row[0] not in redone or (row[0] in summed and row[1] == "")]
    return format_csv(HEADER, sorted([*kept, *rows], key=lambda row: (str(row[0]), row[1] == "", int(row[1] or 0))))


def as_written(case: str) -> str:
    """The name of a case as a table in UTF-8 holds it: file names may have other bytes."""
    return case.encode("utf-8", "backslashreplace").decode("utf-8")


def read_volume_rows(path: Path) -> list[list[str]]:
    """The rows of an earlier table without its header, empty if there is no file; another table is refused."""
    if not path.exists():
        return []
    try:
        # spreadsheets may save it again with a byte-order mark
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error):
        header, rows = [], []
    if tuple(header) != HEADER or any(len(row) != len(HEADER) or not (row[1] or "0").isdecimal() for row in rows):
        raise ValueError(f"{path}: exists and was not written by monai-unetpp. Move it away, or name another folder.")
    return [[read_cell(cell) for cell in row] for row in rows]
