"""Tables of comma-separated values that a spreadsheet shows and never runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["escape_cell", "format_csv"]

#: What a spreadsheet takes for the beginning of a formula, also in the wide forms that some turn into the narrow ones.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


def format_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as text, with ``escape_cell`` applied to each cell and lines that end in a line feed.

    Args:
        header: name of each column.
        rows: a text or number for each column.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([_on_lines(escape_cell(cell)) for cell in row] for row in (header, *rows))
    return buffer.getvalue()


def escape_cell(value: Any) -> Any:
    """``value``, with an apostrophe before text that a spreadsheet would run as a formula.

    Numbers stay numbers, also those that are written as text.

    Example:
        >>> escape_cell("=1+1"), escape_cell("-1.5"), escape_cell("liver")
        ("'=1+1", '-1.5', 'liver')
    """
    if not isinstance(value, str) or not value.lstrip(" ").startswith(_FORMULA_STARTS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _on_lines(value: Any) -> Any:
    # the csv module does not quote a carriage return, which would begin a row
    return value.replace("\r\n", "\n").replace("\r", "\n") if isinstance(value, str) else value
