"""Errors and names as they are shown: what was said on purpose, and what a terminal can show."""

from __future__ import annotations

import traceback

__all__ = ["is_deliberate", "printable"]


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
        >>> printable("a\x1b[31m.nii")
        'a\\x1b[31m.nii'
    """
    line = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
