"""How far a long run is: one argument ``progress`` for every function that takes its time."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Progress", "counting", "teller"]

Progress = bool | Callable[[str], None] | None
"""True shows it on standard error, a function is called with each line of text, False and None show nothing."""


def teller(progress: Progress, logger: logging.Logger) -> Callable[[str], None]:
    """A function that takes lines of text about what is going on.

    Args:
        progress: who is told.
        logger: is told in any case, at level INFO.
    """

    def tell(line: str) -> None:
        logger.info("%s", line)
        if callable(progress):
            progress(line)
        elif progress:
            sys.stderr.write(f"{line}\n")

    return tell


@contextmanager
def counting(progress: Progress, title: str, unit: str = "case") -> Iterator[Callable[[int, int], None]]:
    """A function to call with the number of finished ones and of all: a bar on standard error, or lines of text.

    Args:
        progress: who is told; True draws a bar.
        title: what is being done.
        unit: what is counted.

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
        return
    from tqdm import tqdm

    with tqdm(desc=title, unit=unit, disable=not progress) as bar:

        def count(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield count
