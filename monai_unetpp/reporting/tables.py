"""A table for any medium: terminal, Markdown or HTML."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from monai_unetpp.errors import printable
from monai_unetpp.reporting.markdown import escape, format_table

Tone = Literal["", "good", "bad", "unsure", "muted"]

_DASH = "\N{EN DASH}"


@dataclasses.dataclass(frozen=True)
class TableCell:
    """One cell of a table: its text, and a tone that supports the text but never replaces it."""

    text: str
    tone: Tone = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: what the table shows.
        columns: headings; the first column names the row.
        rows: cells, as many as columns.
        numeric: whether a column holds numbers, which are right-aligned.
        marked: indices of the rows to highlight.
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
        """A table of records, which are the cells of a row by heading, all with the same in the same order.

        An empty cell or None becomes a dash. ``words`` are the headings of the text columns; all others hold numbers.
        Empty notes are left out.
        """
        rows = list(records)
        columns = tuple(rows[0]) if rows else ()
        table = cls.of_rows(caption, columns, ([row[column] for column in columns] for row in rows), words)
        return dataclasses.replace(table, marked=tuple(marked), notes=tuple(filter(None, notes)))

    @classmethod
    def of_rows(
        cls,
        caption: str,
        columns: Sequence[str],
        rows: Iterable[Iterable[TableCell | str | None]],
        words: Collection[str],
    ) -> Table:
        """A table of rows of cells; unlike in :meth:`of`, headings may repeat."""
        cells = tuple(tuple(map(_cell, row)) for row in rows)
        return cls(caption, tuple(columns), cells, tuple(column not in words for column in columns))

    def text(self) -> str:
        """Lines for a terminal: the headings, a rule and the rows, without caption and notes."""
        texts = [self.columns, *([cell.text for cell in row] for row in self.rows)]
        # a name may hold a line break
        lines = [tuple(map(printable, line)) for line in texts]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, tuple("-" * width for width in widths))
        return "\n".join(self._aligned(line, widths) for line in lines)

    def _aligned(self, line: Sequence[str], widths: Sequence[int]) -> str:
        cells = zip(line, widths, self.numeric, strict=True)
        return "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells).rstrip()

    def markdown(self) -> str:
        """A section: the caption as heading, the table with marked rows in bold, and the notes as a list."""
        rows = [[escape(cell.text) for cell in row] for row in self.rows]
        for index in self.marked:
            rows[index][0] = f"**{rows[index][0]}**"
        table = format_table([escape(column) for column in self.columns], rows, self.numeric)
        lines = [f"## {escape(self.caption)}", "", table]
        return "\n".join([*lines, "", *(f"- {escape(note)}" for note in self.notes)] if self.notes else lines)


def _cell(value: TableCell | str | None) -> TableCell:
    if isinstance(value, TableCell):
        return value
    return TableCell(value) if value else TableCell(_DASH, "muted")
