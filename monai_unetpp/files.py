"""Writing files so that an interruption never leaves half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = [
    "MARK",
    "REPLACED",
    "atomic_path",
    "hash_file",
    "is_in_use",
    "naming_full_disk",
    "remove_leftovers",
    "temporary_folder",
    "write_figure",
    "write_text",
]

_DISK_ERRORS = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS") if hasattr(errno, name)}
#: What torch.save says instead of an error number.
_DISK_WORDS = ("PytorchStreamWriter failed writing", "file write failed", "unexpected pos")

#: Name of the software in every picture that is written, by which it is known not to be an image to segment.
MARK = "monai-unetpp"

#: What a temporary folder keeps under this name may be the only copy that is left, and is never removed.
REPLACED = "replaced"

# short, as names of files may have 255 bytes only; the host, because processes of others cannot be seen
_PREFIX = f".{MARK}-{hashlib.blake2b(socket.gethostname().encode(), digest_size=3).hexdigest()}-"
_PREFIX_OF_ALL = f".{MARK}-"
#: Locked for as long as its process writes to the folder.
_LOCK = ".in-use"
#: Age of a temporary folder whose process cannot be asked for, beyond which it has certainly ended.
_OLD_S = 6 * 3600
_cleaned: set[Path] = set()
_CHUNK_BYTES = 1 << 20


@contextmanager
def atomic_path(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path``, of the same name, that replaces ``path`` when the block succeeds.

    What killed processes have left in the folder is removed when it is first written to.

    Args:
        path: the file to write; missing folders are made.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    target = Path(path)
    with naming_full_disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.parent.absolute() not in _cleaned:
            _cleaned.add(target.parent.absolute())
            remove_leftovers(target.parent)
        with temporary_folder(target.parent) as folder:
            temporary = folder / target.name
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


@contextmanager
def temporary_folder(parent: str | PathLike[str]) -> Iterator[Path]:
    """A hidden folder in ``parent`` that is removed in the end, if need be by :func:`remove_leftovers`.

    Raises:
        OSError: ``parent`` cannot be written to.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = None
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            _lock(lock, wait=True)
            if (folder / _LOCK).exists():
                yield folder
                return
            # another process took it for a leftover before it was locked
        except FileNotFoundError:
            if folder.exists():
                raise
        finally:
            if lock is not None:
                os.close(lock)
            shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: str | PathLike[str]) -> None:
    """Remove the temporary folders of killed processes from ``folder``; those in use stay, and what is not ours.

    A process that was killed has lost its lock. Where locks say nothing, on other computers and some file systems,
    folders are removed that are older than six hours.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        found = [
            Path(entry)
            for entry in entries
            if entry.name.startswith(_PREFIX_OF_ALL) and entry.is_dir(follow_symlinks=False)
        ]
        for leftover in found:
            with contextlib.suppress(OSError):
                _remove_if_left(leftover)


def _remove_if_left(folder: Path) -> None:
    if (folder / REPLACED).exists():
        return
    newest = max(path.lstat().st_mtime for path in (folder, *folder.iterdir()))
    lock = None
    with contextlib.suppress(OSError):
        lock = os.open(folder / _LOCK, os.O_RDWR)
    try:
        is_free = None if lock is None else _lock(lock, wait=False)
        is_known_free = is_free and folder.name.startswith(_PREFIX)
        if is_known_free or (is_free is not False and time.time() - newest > _OLD_S):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        if lock is not None:
            os.close(lock)


def hash_file(path: str | PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def is_in_use(path: str | PathLike[str]) -> bool:
    """Whether a process has a file open; where the system does not tell, whether it was written to in six hours."""
    try:
        import fcntl

        file = os.open(path, os.O_RDWR)
        try:
            # a lease for writing is only given where nobody else has the file open
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(file)
    except (ImportError, AttributeError, OSError):
        return time.time() - Path(path).stat().st_mtime < _OLD_S


def _lock(file: int, wait: bool) -> bool | None:
    """Lock an open file until it is closed, also by the end of the process.

    Returns:
        Whether that could be done; None on systems that have no such locks.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def write_text(path: str | PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, whole or not at all; bytes of names that are not UTF-8 are escaped."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_figure(path: str | PathLike[str], figure: Any, dpi: float, metadata: Mapping[str, str] | None = None) -> None:
    """Write a figure of matplotlib as PNG, whole or not at all, marked as not being an image to segment.

    Args:
        path: the file to write.
        figure: the ``matplotlib.figure.Figure``.
        dpi: dots per inch.
        metadata: further texts in the file, such as its title.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, metadata={**(metadata or {}), "Software": MARK})
