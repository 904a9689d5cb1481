"""The description of a command."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable

EXIT_CODES = """\
exit codes:
  0    done
  1    some cases failed, or problems were found; the rest is done
  2    bad arguments or input, or too little memory or disk
  3    prune, train: the verdict is inconclusive; 0 under torchrun
  130  interrupted; segment, train, prune and study keep what is finished
"""


@dataclasses.dataclass(frozen=True)
class Command:
    """One command: how it is called, and what it does.

    Attributes:
        name: its name on the command line.
        summary: one line for the program's help, in lower case without a full stop.
        examples: example commands and notes for the end of its own help.
        declare: adds its options to a parser.
        run: takes the options by name, prints, and returns the exit code.
        kept: what an interruption leaves for the next run; empty for nothing.
    """

    name: str
    summary: str
    examples: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[..., int]
    kept: str = ""
