"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["format_table"]


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
