"""Tables in Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool] | None = None) -> str:
    """A Markdown table; cells are not escaped. Columns that are ``numeric``, by default all but the first, align right.

    Example:
        >>> print(format_table(["level", "Dice"], [["L1", "0.9"]]))
        | level | Dice |
        | --- | ---: |
        | L1 | 0.9 |
    """
    right = numeric or [False] + [True] * (len(header) - 1)
    rule = ["---:" if each else "---" for each in right]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *rows))


def escape(text: str) -> str:
    r"""``text`` on one line, with Markdown and HTML markup escaped.

    Example:
        >>> print(escape("a|b *c*"))
        a\|b \*c\*
    """
    escaped = html.escape(text, quote=False)
    for character in "\\`*_[]|#~":
        escaped = escaped.replace(character, "\\" + character)
    return " ".join(escaped.splitlines())


def code(text: str) -> str:
    """``text`` as inline code, which may contain backticks.

    Example:
        >>> print(code("a`b"))
        `` a`b ``
    """
    line = " ".join(text.splitlines())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if len(fence) > 1 or line != line.strip() else ""
    return f"{fence}{space}{line}{space}{fence}"
