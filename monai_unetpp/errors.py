"""Errors and names as they are shown: what was said on purpose, and what a terminal can show."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

__all__ = ["is_deliberate", "printable", "tell_cause_last"]


def is_deliberate(error: BaseException) -> bool:
    """Whether somebody wrote the message of a ``TypeError`` or ``ValueError``, which Python also raises by itself.

    Returns:
        True for other errors, and where the source is not there to tell.
    """
    if type(error) not in (ValueError, TypeError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return not frames or not frames[-1].line or frames[-1].line.startswith("raise")


def printable(text: str) -> str:
    r"""``text`` on one line, with escapes for what a terminal would obey or cannot show.

    Example:
        >>> printable("a\x1b[31m\nb.nii")
        'a\\x1b[31m\\nb.nii'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def tell_cause_last() -> None:
    """Let a traceback that ends this program end with what went wrong, for ``initialize`` of a configuration.

    MONAI raises errors of its own from those in a bundle, which only say what it was at: they come last otherwise.
    """
    if not isinstance(sys.excepthook, _CauseLast):
        sys.excepthook = _CauseLast(sys.excepthook)


class _CauseLast:
    """A hook for uncaught exceptions that prints the cause after the traceback."""

    def __init__(self, shown: Callable[..., Any]) -> None:
        self.shown = shown

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self.shown(kind, error, trace)
        cause = error
        while cause.__cause__ is not None and str(cause).startswith("Failed to "):
            cause = cause.__cause__
        if cause is not error:
            sys.stderr.write(f"\n{cause}\n")
