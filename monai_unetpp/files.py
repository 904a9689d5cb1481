"""Writing files so that an interruption never leaves half of one."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["MARK", "atomic_path", "naming_full_disk", "write_figure", "write_text"]

_DISK_ERRORS = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS") if hasattr(errno, name)}
#: What torch.save says instead of an error number.
_DISK_WORDS = ("PytorchStreamWriter failed writing", "file write failed", "unexpected pos")

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
    with naming_full_disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            temporary = Path(folder) / target.name
            yield temporary
            os.replace(temporary, target)


@contextmanager
def naming_full_disk(path: str | PathLike[str]) -> Iterator[None]:
    """Let errors of a disk that takes no more name what was to be written there.

    Args:
        path: the file or folder that is written to.

    Raises:
        OSError: with the path and the remedy, instead of an error of such a disk.
    """
    try:
        yield
    except (OSError, RuntimeError) as e:
        number = e.errno if isinstance(e, OSError) else None
        if number not in _DISK_ERRORS and (number is not None or not any(word in str(e) for word in _DISK_WORDS)):
            raise
        reason = os.strerror(number) if number is not None else "no space is left on the device, or a quota is reached"
        message = f"{path}: cannot be written ({reason}). Free space there, or choose another folder."
        raise OSError(message) from e


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
