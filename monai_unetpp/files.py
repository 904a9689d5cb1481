"""Writing files so that an interruption never leaves a partial one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

_DISK_ERRORS = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS") if hasattr(errno, name)}
#: Parts of torch.save's messages, which come without an error number.
_DISK_WORDS = ("PytorchStreamWriter failed writing", "file write failed", "unexpected pos")

#: Software name in every picture that is written, which marks it as not being an image to segment.
MARK = "monai-unetpp"

#: A file of this name in a temporary folder may be the only copy left, so the folder is never removed.
REPLACED = "replaced"

# short, as file names are limited to 255 bytes; with the host, as processes on other hosts cannot be checked
_PREFIX = f".{MARK}-{hashlib.blake2b(socket.gethostname().encode(), digest_size=3).hexdigest()}-"
_PREFIX_OF_ALL = f".{MARK}-"
#: Locked while its process writes to the folder.
_LOCK = ".in-use"
#: Locked by the process that changes files shared by several processes in a folder.
_TURN = f".{MARK}.lock"
#: Seconds to wait for a folder that is claimed: the worker processes of a killed program live a little longer.
_PATIENCE_S = 15.0
#: Age after which a temporary folder is a leftover, if its process cannot be checked.
_OLD_S = 6 * 3600
_cleaned: set[Path] = set()
_CHUNK_BYTES = 1 << 20


@contextmanager
def atomic_path(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary path with the same file name, which replaces ``path`` if the block succeeds.

    Missing folders are created. Leftovers of killed processes are removed the first time that a folder is written to.
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
    """Make errors of a full or read-only disk an OSError with the path that was to be written, and the remedy."""
    try:
        yield
    except (OSError, RuntimeError) as e:
        # pydicom, for one, wraps what the system says
        said = [each.errno for each in (e, e.__cause__, e.__context__) if isinstance(each, OSError)]
        number = next((each for each in said if each in _DISK_ERRORS), None)
        other = isinstance(e, OSError) and e.errno is not None
        if number is None and (other or not any(word in str(e) for word in _DISK_WORDS)):
            raise
        reason = os.strerror(number) if number is not None else "no space is left on the device, or a quota is reached"
        message = f"{path}: cannot be written ({reason}). Free space there, or choose another folder."
        raise OSError(message) from e


@contextmanager
def exclusively(folder: str | PathLike[str], by_file: bool = False) -> Iterator[None]:
    """Let one process at a time run the block for a folder; without effect on file systems without locks.

    With ``by_file``, a file in it is locked as well, as network file systems need it. The file stays there.
    """
    # Windows opens no folders
    locks: list[tuple[Path, int]] = [] if sys.platform == "win32" else [(Path(folder), os.O_RDONLY)]
    if by_file:
        locks.append((Path(folder) / _TURN, os.O_RDWR | os.O_CREAT))
    with contextlib.ExitStack() as opened:
        for path, flags in locks:
            lock = os.open(path, flags, 0o666)
            opened.callback(_unlock, lock)
            _lock(lock, wait=True)
        yield


@contextmanager
def claimed(folder: str | PathLike[str], work: str) -> Iterator[None]:
    """Refuse a folder where another process does the same ``work``, such as ``"trains"``, if there are locks."""
    lock = os.open(Path(folder) / _TURN, os.O_RDWR | os.O_CREAT, 0o666)
    until = time.monotonic() + _PATIENCE_S
    try:
        while _lock(lock, wait=False) is False:
            if time.monotonic() >= until:
                raise BlockingIOError(
                    f"{folder}: another process {work} there. Wait until it has ended, or take another folder."
                )
            time.sleep(0.2)
        yield
    finally:
        _unlock(lock)


def put_in_place(folder: Path, target: Path, temporary: Path) -> None:
    """Move a finished folder to its place, and what it replaces back if that fails.

    ``temporary`` is the :func:`temporary_folder` that holds ``folder``; what is replaced is kept there meanwhile.
    """
    if not target.exists():
        os.replace(folder, target)
        return
    try:
        os.replace(target, temporary / REPLACED)
        os.replace(folder, target)
    except BaseException:  # also an interruption
        if (temporary / REPLACED).exists() and not target.exists():
            os.replace(temporary / REPLACED, target)
        raise
    _remove(temporary / REPLACED)


@contextmanager
def temporary_folder(parent: str | PathLike[str]) -> Iterator[Path]:
    """A hidden folder in ``parent``, removed at the end (after a crash, by :func:`remove_leftovers`)."""
    locked = None
    while locked is None:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        locked = _locked(folder)
    try:
        yield folder
    finally:
        os.close(locked)
        if not (folder / REPLACED).exists():  # it could not be moved back
            _remove(folder)


def _locked(folder: Path) -> int | None:
    """The descriptor of a new folder's lock; None if another process removed the folder as a leftover before."""
    lock, kept = None, False
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        _lock(lock, wait=True)
        kept = (folder / _LOCK).exists()
    except FileNotFoundError:
        if folder.exists():
            raise
    finally:
        if not kept:
            if lock is not None:
                os.close(lock)
            _remove(folder)
    return lock if kept else None


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder where the system keeps temporary files, removed at the end; if that is full, the error names it."""
    place = f"{tempfile.gettempdir()} (for temporary files, chosen by TMPDIR)"
    with naming_full_disk(place), tempfile.TemporaryDirectory(prefix=f"{MARK}-") as folder:
        yield Path(folder)


def make_output_dir(folder: str | PathLike[str]) -> Path:
    """Make the output folder, free of leftovers of killed runs, and check that it can be written to before any work."""
    path = Path(folder)
    try:
        if not os.fspath(folder):  # it would be the working directory
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            remove_leftovers(path)
    except OSError as e:
        raise OSError(
            f"output_dir must be a folder that can be written to, got {os.fspath(folder)!r} ({e.strerror}). "
            "Choose another folder."
        ) from e
    return path


def remove_leftovers(folder: str | PathLike[str]) -> None:
    """Remove the temporary folders of killed processes from ``folder``; keep those in use and all other files.

    A killed process has lost its lock. Where locks cannot be checked (other computers, some file systems), folders
    older than six hours are removed.
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
            _remove(folder)
    finally:
        if lock is not None:
            os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a folder, as far as possible, with read-only copies in it."""
    with contextlib.suppress(OSError):
        make_writable(folder)
    shutil.rmtree(folder, ignore_errors=True)


def make_writable(folder: str | PathLike[str]) -> None:
    """Let the owner change a folder and everything in it, such as copies of read-only files."""
    for place, _, names in os.walk(folder):
        for path in (Path(place), *(Path(place, name) for name in names)):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | stat.S_IWUSR)


def hash_file(*paths: str | PathLike[str]) -> str:
    """SHA-256 of a file's content, or of that of several files one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _lock(file: int, wait: bool) -> bool | None:
    """Lock an open file until it is closed or the process ends; False if it is locked, None where locks are missing."""
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


def _unlock(file: int) -> None:
    """Release a lock, also where child processes have inherited the open file, and close it."""
    if sys.platform != "win32":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


def read_json_object(path: str | PathLike[str], remedy: str, missing: str | None = None) -> dict[str, Any]:
    """The JSON object in a file.

    ``remedy`` says in a sentence what to do about a file that holds something else (a ValueError), ``missing`` the same
    about one that does not exist (a FileNotFoundError).
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path}: no such file. {missing or remedy}") from None
    except (OSError, ValueError, RecursionError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise ValueError(f"{path}: cannot be read as JSON ({reason}). {remedy}") from e
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold a JSON object, got {type(content).__name__}. {remedy}")
    return content


def write_text(path: str | PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, atomically; bytes that are not UTF-8 are escaped."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(
    path: str | PathLike[str],
    content: Any,
    indent: int | None = None,
    *,
    ensure_ascii: bool = True,
    allow_nan: bool = True,
) -> None:
    """Write ``content`` to ``path`` as JSON with a line feed at the end, atomically, as ``json.dumps`` does it."""
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=ensure_ascii, allow_nan=allow_nan) + "\n")


def write_figure(path: str | PathLike[str], figure: Any, dpi: float, metadata: Mapping[str, str] | None = None) -> None:
    """Write a matplotlib figure as PNG, atomically, marked as not being an image to segment.

    ``metadata`` are further text entries of the file, such as its title.
    """
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi, metadata={**(metadata or {}), "Software": MARK})
