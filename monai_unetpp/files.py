"""Writing files so that an interruption never leaves half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["MARK", "atomic_path", "write_figure", "write_text"]

#: Name of the software in every picture that is written, by which it is known not to be an image to segment.
MARK = "monai-unetpp"


@contextmanager
def atomic_path(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path``, with its suffixes, that replaces ``path`` when the block succeeds.

    Args:
        path: the file to write; missing folders are made.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        temporary = Path(folder) / target.name
        yield temporary
        os.replace(temporary, target)


def write_text(path: str | PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_figure(path: str | PathLike[str], figure: Any, dpi: float, metadata: Mapping[str, str] | None = None) -> None:
    """Write a figure of matplotlib as PNG, whole or not at all, with the mark that it is no image to segment.

    Args:
        path: the file to write.
        figure: the ``matplotlib.figure.Figure``.
        dpi: dots per inch.
        metadata: further texts in the file, such as its title.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, metadata={**(metadata or {}), "Software": MARK})
