"""What the commands of the benchmarks share: options in, a text out, and one line about what is wrong."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_unetpp.errors import is_deliberate
from monai_unetpp.files import write_json, write_text

_TABLE, _FACTS = "table_file", "made_with.json"


def offer_table(parser: argparse.ArgumentParser) -> None:
    """Add the option that also writes the text of :func:`run_command` to a file."""
    parser.add_argument("-o", "--output", dest=_TABLE, type=Path, metavar="FILE", help="write the table to FILE")


def claim_work(folder: Path, facts: Mapping[str, Any]) -> None:
    """Note in a folder by what its results are made; a run may go on there only with the same.

    Args:
        folder: for all that is made.
        facts: plain values that the results depend on.

    Raises:
        ValueError: it holds results made by others.
    """
    path, made = folder / _FACTS, json.loads(json.dumps(facts))
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else made
    if before != made:
        changed = [
            f"{name} {before.get(name)!r}, not {value!r}" for name, value in made.items() if before.get(name) != value
        ]
        raise ValueError(f"{folder}: its results are those with {' and '.join(changed)}. Give another --work.")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, made)


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
    with one_line_errors(parser):
        try:
            for text in work(**options):
                if table is not None:
                    write_text(table, f"{text}\n")
        finally:
            if text is not None:
                print(text)
    return 0


@contextlib.contextmanager
def one_line_errors(parser: argparse.ArgumentParser) -> Iterator[None]:
    """End with code 2 and one line where options or input cannot work."""
    try:
        yield
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as e:
        if not is_deliberate(e):
            raise
        parser.error(str(e))
