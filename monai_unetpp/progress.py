"""Progress of long runs: the argument ``progress`` of every slow function."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

Progress = bool | Callable[[str], None] | None
"""True shows progress on standard error, a function is called with each line of text, False and None show nothing."""

#: Attribute of records of the log whose text is written to standard error as well.
WRITTEN = "written_to_standard_error"
#: Seconds between updates of a bar, and between lines if there is no terminal.
_BAR_S, _LINE_S = 1.0, 30.0
_COUNT = re.compile(r": (\d+) of (\d+)$")

_silenced: ContextVar[bool] = ContextVar("silenced", default=False)


@contextmanager
def silenced(silent: bool = True) -> Iterator[None]:
    """Show no progress on standard error within the block."""
    before = _silenced.set(silent)
    try:
        yield
    finally:
        _silenced.reset(before)


def write_line(line: str) -> None:
    """Write a line to standard error, above the progress bar if there is one; nowhere if its terminal is closed."""
    tqdm = sys.modules.get("tqdm")
    with contextlib.suppress(OSError):
        if tqdm is None:
            sys.stderr.write(f"{line}\n")
        else:
            tqdm.tqdm.write(line, file=sys.stderr)


def let_go_of(output: TextIO | None) -> None:
    """Pass on what is printed; where nobody takes it any more, keep Python from ending with an error for that."""
    # where the output was closed from the start, there is none
    with contextlib.suppress(OSError, AttributeError):
        try:
            output.flush()  # type: ignore[union-attr]
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())  # type: ignore[union-attr]


def teller(progress: Progress, logger: logging.Logger) -> Callable[[str], None]:
    """A function that takes lines of text about the progress, which ``logger`` receives too, at level INFO.

    The records of lines that are written to standard error have the attribute :data:`WRITTEN`.
    """

    def tell(line: str) -> None:
        is_written = bool(progress) and not callable(progress) and not _silenced.get()
        logger.info("%s", line, extra={WRITTEN: True} if is_written else None)
        if callable(progress):
            progress(line)
        elif is_written:
            write_line(line)

    return tell


@contextmanager
def counting(progress: Progress, title: str) -> Iterator[Callable[[int, int], None]]:
    """A function to call with the number of finished items and the total.

    If ``progress`` is True, it draws a bar on a terminal, and otherwise writes a line every half minute, to standard
    error.

    Example:
        >>> lines = []
        >>> with counting(lines.append, "scoring") as count:
        ...     for done in (1, 2):
        ...         count(done, 2)
        >>> lines
        ['scoring: 1 of 2', 'scoring: 2 of 2']
    """
    if callable(progress):
        tell = progress
        yield lambda done, total: tell(f"{title}: {done} of {total}")
    elif not progress or _silenced.get():
        yield lambda done, total: None
    elif sys.stderr.isatty():
        with _bar(title) as count:
            yield count
    else:
        with _lines(title) as count:
            yield count


def spaced(tell: Callable[[str], None], seconds: float = 10.0) -> Callable[[str], None]:
    """A function that passes lines on, but thins out those that count, such as ``"scoring: 3 of 30"``.

    Their first and last are passed on, and others after at least so many seconds.
    """
    last = -math.inf

    def tell_some(line: str) -> None:
        nonlocal last
        count = _COUNT.search(line)
        if count is not None and count[1] not in ("1", count[2]) and time.monotonic() - last < seconds:
            return
        if count is not None:
            last = time.monotonic()
        tell(line)

    return tell_some


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    from tqdm import tqdm

    bar = tqdm(desc=title, unit="case")

    def count(done: int, total: int) -> None:
        bar.total = total
        # the work goes on where the terminal is closed
        with contextlib.suppress(OSError):
            bar.update(done - bar.n)

    try:
        with _repeating(bar.refresh, _BAR_S):
            yield count
    finally:
        with contextlib.suppress(OSError):
            bar.close()


@contextmanager
def _lines(title: str) -> Iterator[Callable[[int, int], None]]:
    start = time.monotonic()
    state = f"{title}: started"

    def tell() -> None:
        sys.stderr.write(f"{state}, {(time.monotonic() - start) / 60:.1f} min so far\n")
        sys.stderr.flush()

    def count(done: int, total: int) -> None:
        nonlocal state
        state = f"{title}: {done} of {total} done"

    with _repeating(tell, _LINE_S):
        yield count


@contextmanager
def _repeating(call: Callable[[], object], pause_s: float) -> Iterator[None]:
    """Call repeatedly in a thread, so that a single long step is not silent."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(pause_s):
            with contextlib.suppress(OSError):
                call()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
