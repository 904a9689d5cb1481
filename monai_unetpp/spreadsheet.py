"""CSV tables, read as users save them, and written so that a spreadsheet never runs a cell as a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

#: Characters that start a formula in a spreadsheet, including the full-width forms, which some convert.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


def format_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV text, with ``escape_cell`` applied to each cell and lines ending in a line feed."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([_on_lines(escape_cell(cell)) for cell in row] for row in (header, *rows))
    return buffer.getvalue()


def escape_cell(value: Any) -> Any:
    """``value``, with an apostrophe before text that a spreadsheet would run as a formula, or that begins with one.

    Numbers are left alone, even if written as text. :func:`read_cell` takes the apostrophe away.

    Example:
        >>> escape_cell("=1+1"), escape_cell("-1.5"), escape_cell("liver")
        ("'=1+1", '-1.5', 'liver')
    """
    if not isinstance(value, str) or not (value.startswith("'") or value.lstrip(" ").startswith(_FORMULA_STARTS)):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def read_cell(text: str) -> str:
    """The text of a cell that :func:`escape_cell` wrote."""
    return text.removeprefix("'")


def read_table(path: Path, columns: Sequence[str], what: str, remedy: str) -> list[dict[str, str]]:
    """The rows of a CSV file in UTF-8, with or without a byte-order mark, by column; missing cells are empty.

    ``columns`` are those that it must have, ``what`` it holds and the ``remedy`` for a missing column are for errors.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            found = list(reader.fieldnames or ())
            missing = [name for name in columns if name not in found]
            if missing:
                # other separators leave all names in the first cell, and spreadsheets may name theirs before them
                if found and (found[0].startswith("sep=") or {";", "\t"} & set(found[0])):
                    remedy = "Save it with commas and decimal points, and the names of the columns in the first line."
                raise ValueError(
                    f"{path}: {what} must be a table with the column {missing[0]!r}, separated by commas, got "
                    f"{', '.join(found) or 'an empty file'}. {remedy}"
                )
            return [{name: row[name] or "" for name in found} for row in reader]
    except FileNotFoundError as e:
        raise FileNotFoundError(f"{path}: no such file. Name the CSV file of {what}.") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise ValueError(f"{path}: {what} must be a CSV file in UTF-8, got other bytes ({e}). Save it as such.") from e


def _on_lines(value: Any) -> Any:
    # the csv module does not quote a carriage return, which would start a row
    return value.replace("\r\n", "\n").replace("\r", "\n") if isinstance(value, str) else value
