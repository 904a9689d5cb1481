"""Pieces of HTML by which notebooks show results."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["embed_figure", "html_paragraph", "html_table"]

_DPI = 80


def html_paragraph(text: str) -> str:
    """``text`` as a paragraph; nothing in it is taken for HTML."""
    return f"<p>{html.escape(text)}</p>"


def html_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table whose cells are text, whatever they hold.

    Example:
        >>> html_table(["label"], [["<liver>"]])
        '<table><thead><tr><th>label</th></tr></thead><tbody><tr><td>&lt;liver&gt;</td></tr></tbody></table>'
    """
    body = "".join(_row("td", row) for row in rows)
    return f"<table><thead>{_row('th', header)}</thead><tbody>{body}</tbody></table>"


def embed_figure(figure: Figure, description: str) -> str:
    """A figure of matplotlib as a picture inside of HTML.

    Args:
        figure: the figure.
        description: what it shows, for those who cannot see it.
    """
    content = BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    data = base64.b64encode(content.getvalue()).decode("ascii")
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}">'


def _row(tag: str, cells: Sequence[Any]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"
