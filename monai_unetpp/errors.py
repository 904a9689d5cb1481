"""How errors, names and counts are shown to the user."""

from __future__ import annotations

import functools
import itertools
import sys
import traceback
from collections.abc import Callable, Collection
from typing import Any

#: How errors begin in which MONAI wraps others, and which only say what it was doing.
_WRAPPERS = ("Failed to ", "applying transform")


def cause_of(error: BaseException) -> BaseException:
    """The error that MONAI wrapped in others as it read a configuration or applied a transform; else ``error`` itself.

    Example:
        >>> error = RuntimeError("applying transform <LoadImaged>")
        >>> error.__cause__ = ValueError("a.nii: damaged")
        >>> cause_of(error)
        ValueError('a.nii: damaged')
    """
    while error.__cause__ is not None and type(error) is RuntimeError and str(error).startswith(_WRAPPERS):
        error = error.__cause__
    return error


def is_deliberate(error: BaseException) -> bool:
    """Whether a ``TypeError`` or ``ValueError`` was raised by a ``raise`` statement, not by Python itself.

    True for other errors, and if the source is not available.
    """
    if type(error) not in (ValueError, TypeError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return not frames or not frames[-1].line or frames[-1].line.startswith("raise")


def last_line(error: BaseException) -> str:
    """The last line of an error's message, where libraries put the reason, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def in_encoding_of(stream: Any, text: str) -> str:
    """``text`` with what the encoding of a stream lacks escaped."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def printable(text: str) -> str:
    r"""``text`` on one line, with control and unprintable characters escaped.

    Example:
        >>> printable("a\x1b[31m\nb.nii")
        'a\\x1b[31m\\nb.nii'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def counted(number: int, noun: str) -> str:
    """A number of things, such as ``"1 case"`` and ``"3 cases"``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def list_values(values: Collection[Any], most: int = 5) -> str:
    """The first values on one line, and how many more there are.

    Example:
        >>> list_values([40, 7, 300], most=2)
        '40, 7 and 1 more'
    """
    shown = ", ".join(map(str, itertools.islice(values, most)))
    return shown if len(values) <= most else f"{shown} and {len(values) - most} more"


def tell_cause_last() -> None:
    """Make an uncaught exception's traceback end with the cause, for ``initialize`` of a configuration.

    MONAI wraps errors in a bundle in its own, which only say what it was doing and would otherwise come last.
    """
    if getattr(sys.excepthook, "func", None) is not _show_cause_last:
        sys.excepthook = functools.partial(_show_cause_last, sys.excepthook)


def _show_cause_last(show: Callable[..., Any], kind: type[BaseException], error: BaseException, trace: Any) -> None:
    show(kind, error, trace)
    cause = cause_of(error)
    if cause is not error:
        sys.stderr.write(f"\n{cause}\n")
