"""What a command of the command line is."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable

__all__ = ["EXIT_CODES", "Command"]

EXIT_CODES = """\
exit codes:
  0    done
  1    some cases failed, or problems were found; the rest is done
  2    bad arguments or input, or too little memory or disk
  3    prune, train: the verdict is inconclusive
  130  interrupted; finished cases are kept
"""


@dataclasses.dataclass(frozen=True)
class Command:
    """One command: how it is called, and what it does.

    Attributes:
        name: as it is typed.
        summary: what it does, for the help of the program; begins in lower case and has no full stop.
        examples: commands and what else is to be known, for the end of its own help.
        declare: adds its options to a parser.
        run: takes the options by name, prints, and returns the exit code.
    """

    name: str
    summary: str
    examples: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[..., int]
