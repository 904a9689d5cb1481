"""Output shared by several commands, and their exit codes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence

from monai_unetpp.errors import printable
from monai_unetpp.progress import write_line
from monai_unetpp.reporting.tables import Table
from monai_unetpp.torchrun import torchrun_place

DONE, CASES_FAILED, BAD_INPUT, INCONCLUSIVE, INTERRUPTED = 0, 1, 2, 3, 130


def fail(message: str) -> None:
    """Print an error to standard error."""
    write_line(f"monai-unetpp: {printable(' '.join(message.splitlines()))}")


def say(line: str) -> None:
    """Print a line of long work, which goes on where nobody can read it any more, as after a closed terminal."""
    with contextlib.suppress(OSError):
        print(*map(printable, line.split("\n")), sep="\n", flush=True)


def show_failures(reasons: Collection[str], finished: int, rest: str, none: str) -> int:
    """Print why cases failed, a line for each, and how many; the exit code is returned.

    ``finished`` is the number of the other cases; ``rest`` is said of them, or ``none`` if there are no others.
    """
    for reason in reasons:
        fail(reason)
    if reasons:
        fail(f"{len(reasons)} of {len(reasons) + finished} cases failed; {rest if finished else none}.")
    return CASES_FAILED if reasons else DONE


def end_with_verdict(verdict: str, left_out: Collection[object]) -> int:
    """The exit code after a verdict, ``"prune"``, ``"keep"`` or ``"inconclusive"``, with cases left out that failed.

    An inconclusive one has no code of its own under ``torchrun``, which would call the run failed, with a traceback.
    """
    if verdict == "inconclusive" and "TORCHELASTIC_RUN_ID" not in os.environ:
        return INCONCLUSIVE
    return CASES_FAILED if left_out else DONE


def show_table(table: Table) -> None:
    """Print a table without its caption."""
    print(table.text())


def show_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose first column names the rows."""
    show_table(Table.of_rows("", columns, rows, columns[:1]))


@contextlib.contextmanager
def muted(mute: bool) -> Iterator[None]:
    """Print nothing to standard output within the block, if ``mute``."""
    if not mute:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def is_first_process() -> bool:
    """Whether this process prints: only the first one under ``torchrun``."""
    return torchrun_place()[0] == 0
