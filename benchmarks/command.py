"""What the commands of the benchmarks share: options in, a text out, and one line about what is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from monai_unetpp.errors import is_deliberate
from monai_unetpp.files import write_text

__all__ = ["offer_table", "run_command"]

_TABLE = "table_file"


def offer_table(parser: argparse.ArgumentParser) -> None:
    """Add the option that also writes the text of :func:`run_command` to a file."""
    parser.add_argument("-o", "--output", dest=_TABLE, type=Path, metavar="FILE", help="write the table to FILE")


def run_command(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, work: Callable[..., Iterator[str]]
) -> int:
    """Do the work of a command, and print its text, also where what follows the text fails.

    Args:
        parser: of the command line.
        arguments: of the command line; None for those of the process.
        work: gets the options by name. It yields a text, or several, each of which replaces the one before.

    Returns:
        The exit code, 0.

    Raises:
        SystemExit: with code 2 and one line, for options and input that cannot work.
    """
    options = vars(parser.parse_args(arguments))
    table: Path | None = options.pop(_TABLE, None)
    text = None
    try:
        for text in work(**options):
            if table is not None:
                write_text(table, f"{text}\n")
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as e:
        if not is_deliberate(e):
            raise
        parser.error(str(e))
    finally:
        if text is not None:
            print(text)
    return 0
