"""HTML fragments that show results in notebooks."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 80


def html_paragraph(text: str) -> str:
    """``text``, escaped, as a paragraph."""
    return f"<p>{html.escape(text)}</p>"


def html_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table with every cell escaped as text.

    Example:
        >>> html_table(["label"], [["<liver>"]])
        '<table><thead><tr><th>label</th></tr></thead><tbody><tr><td>&lt;liver&gt;</td></tr></tbody></table>'
    """
    body = "".join(_row("td", row) for row in rows)
    return f"<table><thead>{_row('th', header)}</thead><tbody>{body}</tbody></table>"


def embed_figure(figure: Figure, description: str) -> str:
    """An ``<img>`` with the figure embedded as PNG; ``description`` is its alternative text."""
    content = BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    data = base64.b64encode(content.getvalue()).decode("ascii")
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}">'


def _row(tag: str, cells: Sequence[Any]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"
