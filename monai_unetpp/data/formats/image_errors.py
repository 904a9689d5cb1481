"""One-line descriptions of problems with image files."""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from monai_unetpp.errors import cause_of, printable

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class ImageFileError(ValueError):
    """An image file cannot be used.

    The message is one line: the path, what is wrong, and what to do.
    """


def damaged_file(path: str | PathLike[str]) -> ImageFileError:
    """The error for a picture that cannot be decoded."""
    return ImageFileError(f"{path}: damaged or cut off. Export or copy it again.")


@contextmanager
def without_log(logger: logging.Logger) -> Iterator[None]:
    """Silence in this thread what a library logs, which does not name the file; what matters becomes an error."""
    thread = threading.get_ident()

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(is_of_others)
    try:
        yield
    finally:
        logger.removeFilter(is_of_others)


def check_regular_file(path: str | PathLike[str], folders: bool = False) -> None:
    """Refuse anything but a regular file, or a link to one, without opening it: a pipe would wait for its writer.

    An ``ImageFileError`` says what is there instead, if anything. Folders pass where ``folders`` are allowed.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as e:
        raise ImageFileError(_why_missing(path, e, folders)) from e
    if stat.S_ISREG(mode) or (folders and stat.S_ISDIR(mode)):
        return
    kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "no file")
    raise ImageFileError(f"{path}: {kind}, not an image file. Name the file of an image.")


def read_start(path: Path, count: int) -> bytes:
    """The first ``count`` bytes of a regular file; an ``ImageFileError`` if it is none, empty, or cannot be read."""
    check_regular_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(count)
    except OSError as e:
        raise ImageFileError(f"{path}: cannot be read ({e.strerror}). Check the path and its permissions.") from e
    if not start:
        raise ImageFileError(f"{path}: empty, it has 0 bytes. Export or copy it again.")
    return start


def _why_missing(path: str | PathLike[str], error: OSError, folders: bool) -> str:
    if error.errno == errno.ELOOP:
        return f"{path}: a circular link. Correct the link."
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        return f"{path}: cannot be read ({error.strerror}). Check the path and its permissions."
    if os.path.islink(path):
        return f"{path}: a link to a missing file. Fetch it (datalad get), or correct the link."
    return f"{path}: no such file{' or folder' if folders else ''}. Check the path."


def describe_failure(error: BaseException) -> str:
    """Describe an exception in one line: an :class:`ImageFileError` by its message, others by type and first line.

    Errors in which MONAI wraps others are skipped.
    """
    error = cause_of(error)
    if isinstance(error, ImageFileError):
        return printable(str(error).strip())
    lines = str(error).strip().splitlines()
    return printable(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)
