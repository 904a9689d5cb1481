"""A table for any medium: for the eye of a reader, as Markdown, or as cells for HTML."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from monai_unetpp.reporting.markdown import escape, format_table

__all__ = ["Table", "TableCell", "Tone", "blank"]

Tone = Literal["", "good", "bad", "unsure", "muted"]

_DASH = "\N{EN DASH}"


@dataclasses.dataclass(frozen=True)
class TableCell:
    """One cell of a table: its text, and a tone that goes with (never replaces) the words."""

    text: str
    tone: Tone = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for any medium.

    Attributes:
        caption: what the table shows.
        columns: headings; the first column names the row.
        rows: cells, as many as columns.
        numeric: whether a column holds numbers (aligned to the right).
        marked: numbers of the rows to stand out.
        notes: sentences below the table.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    numeric: tuple[bool, ...]
    marked: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        caption: str,
        records: Iterable[Mapping[str, TableCell | str | None]],
        words: Collection[str],
        *,
        marked: Iterable[int] = (),
        notes: Iterable[str] = (),
    ) -> Table:
        """A table of records, all with the same columns in the same order.

        Args:
            caption: what the table shows.
            records: a cell by heading for each row; what is empty or None becomes a dash.
            words: headings of the columns that hold words; all others hold numbers.
            marked: numbers of the rows to stand out.
            notes: sentences below the table; empty ones are left out.
        """
        rows = list(records)
        columns = tuple(rows[0]) if rows else ()
        return cls(
            caption,
            columns,
            tuple(tuple(_cell(row[column]) for column in columns) for row in rows),
            tuple(column not in words for column in columns),
            tuple(marked),
            tuple(note for note in notes if note),
        )

    def markdown(self) -> str:
        """A section of its own: the caption as heading, the table with marked rows in bold, and the notes as a list."""
        rows = [[escape(cell.text) for cell in row] for row in self.rows]
        for index in self.marked:
            rows[index][0] = f"**{rows[index][0]}**"
        table = format_table([escape(column) for column in self.columns], rows, self.numeric)
        lines = [f"## {escape(self.caption)}", "", table]
        return "\n".join([*lines, "", *(f"- {escape(note)}" for note in self.notes)] if self.notes else lines)


def blank(text: str | None) -> TableCell:
    """A cell of ``text``, or a dash."""
    return TableCell(text) if text else TableCell(_DASH, "muted")


def _cell(value: TableCell | str | None) -> TableCell:
    return value if isinstance(value, TableCell) else blank(value)
