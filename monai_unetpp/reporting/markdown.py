"""Tables and text in Markdown."""

from __future__ import annotations

import html
from collections.abc import Sequence

__all__ = ["escape", "format_table"]


def escape(text: str) -> str:
    """``text`` in one line, with everything that Markdown or HTML would take for markup made literal."""
    escaped = html.escape(text, quote=False)
    for character in "\\`*_[]|#":
        escaped = escaped.replace(character, "\\" + character)
    return " ".join(escaped.splitlines())


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    """A table, its cells as they are given.

    Args:
        header: name of each column.
        rows: a text for each column.
        numeric: whether a column is set to the right, for each column.

    Example:
        >>> print(format_table(["level", "Dice"], [["L1", "0.9"]], [False, True]))
        | level | Dice |
        | --- | ---: |
        | L1 | 0.9 |
    """
    rule = ["---:" if right else "---" for right in numeric]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *rows))
