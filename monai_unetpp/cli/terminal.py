"""What is printed by several commands, and the exit codes that they end with."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence

from monai_unetpp.errors import printable
from monai_unetpp.progress import write_line
from monai_unetpp.reporting.tables import Table

__all__ = [
    "BAD_INPUT",
    "CASES_FAILED",
    "DONE",
    "INCONCLUSIVE",
    "INTERRUPTED",
    "fail",
    "is_first_process",
    "muted",
    "show_failures",
    "show_rows",
    "show_table",
]

DONE, CASES_FAILED, BAD_INPUT, INCONCLUSIVE, INTERRUPTED = 0, 1, 2, 3, 130


def fail(message: str) -> None:
    """Say on standard error what went wrong."""
    write_line(f"monai-unetpp: {printable(' '.join(message.splitlines()))}")


def show_failures(reasons: Collection[str], finished: int, rest: str, none: str) -> int:
    """Say why cases failed, and how many did.

    Args:
        reasons: a line for each.
        finished: number of the others.
        rest: what is said of the others.
        none: what is said where there are no others.

    Returns:
        The exit code.
    """
    for reason in reasons:
        fail(reason)
    if reasons:
        fail(f"{len(reasons)} of {len(reasons) + finished} cases failed; {rest if finished else none}.")
    return CASES_FAILED if reasons else DONE


def show_table(table: Table) -> None:
    """Print a table without its caption."""
    for line in table.text().split("\n"):
        print(printable(line))


def show_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of which the first column names what the others tell the numbers of."""
    show_table(Table.of_rows("", columns, rows, columns[:1]))


@contextlib.contextmanager
def muted(mute: bool) -> Iterator[None]:
    """Print nothing on standard output while this lasts, if ``mute``."""
    if not mute:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def is_first_process() -> bool:
    """Whether this is the one of several processes of ``torchrun`` that speaks."""
    return os.environ.get("RANK", "0") == "0"
