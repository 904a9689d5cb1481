"""One unusual or hostile input: how the package handles it, compared with how it should."""

from __future__ import annotations

import dataclasses
import logging.handlers
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_unetpp.errors import is_deliberate, printable

READ, TOLD, REFUSED, WRONG = "read correctly", "read, with a warning", "refused", "WRONG"
_PACKAGE = "monai_unetpp"
_DELIBERATE = (ValueError, TypeError, OSError, ImportError, RuntimeError)


class WrongResultError(AssertionError):
    """The package gave a result that is known to be wrong."""


def expect(right: bool | np.bool_, otherwise: str) -> None:
    """Let the situation be WRONG unless ``right``; ``otherwise`` says what is wrong.

    Raises:
        WrongResultError: it is not.
    """
    if not right:
        raise WrongResultError(otherwise)


def expect_equal(found: npt.ArrayLike, right: npt.ArrayLike, what: str = "voxels") -> None:
    """Let the situation be WRONG unless two arrays are the same, but for the rounding of float32.

    Raises:
        WrongResultError: they are not.
    """
    found, right = np.asarray(found), np.asarray(right)
    expect(found.shape == right.shape, f"{what} have the shape {found.shape}, not {right.shape}")
    same = found == right if right.dtype.kind not in "f" else np.isclose(found, right, rtol=1e-5, atol=1e-4)
    expect(bool(np.all(same)), f"{np.count_nonzero(~np.asarray(same))} of {right.size} {what} differ")


@dataclasses.dataclass(frozen=True)
class Situation:
    """One input, and what should become of it.

    Attributes:
        title: what the input is, for a reader.
        attempt: builds the input in an empty folder, lets the package work on it, and compares the result with what is
            known to be right (``expect``). Whatever the package raises is a refusal.
        outcome: the one that is right: ``READ``, ``TOLD`` or ``REFUSED``.
        says: regular expression for the message; that of a warning or a refusal must also name a file,
            or an argument.
    """

    title: str
    attempt: Callable[[Path], object]
    outcome: str
    says: str


@dataclasses.dataclass(frozen=True)
class Row:
    """What became of one input.

    Attributes:
        situation: its title.
        outcome: ``READ``, ``TOLD``, ``REFUSED`` or ``WRONG``.
        message: what the package said, or what is wrong; folders are left out.
    """

    situation: str
    outcome: str
    message: str


class Kind:
    """Situations of one kind, in the order of their table, and its title."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.situations: list[Situation] = []

    def add(self, title: str, attempt: Callable[[Path], object], outcome: str = READ, says: str = "") -> None:
        """Add a situation; see :class:`Situation`."""
        self.situations.append(Situation(title, attempt, outcome, says))

    def situation(
        self, title: str, outcome: str = READ, says: str = ""
    ) -> Callable[[Callable[[Path], Any]], Callable[[Path], Any]]:
        """Add the decorated function as a situation."""

        def added(attempt: Callable[[Path], Any]) -> Callable[[Path], Any]:
            self.add(title, attempt, outcome, says)
            return attempt

        return added

    def try_all(self, folder: Path) -> list[Row]:
        """Try every situation in an empty folder of its own below ``folder``."""
        rows = []
        for number, situation in enumerate(self.situations):
            own = folder / f"{number:02d}"
            own.mkdir(parents=True)
            rows.append(_try(situation, own))
        return rows


def _try(situation: Situation, folder: Path) -> Row:
    before, told = Path.cwd(), []
    with _listening() as records, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.chdir(folder)  # where code in a name would leave its traces
        try:
            situation.attempt(folder)
            told = [record.getMessage() for record in records if record.levelno >= logging.WARNING]
            outcome, message = (TOLD, _best(told, situation.says)) if told else (READ, _note(records, situation.says))
        except WrongResultError as e:
            return Row(situation.title, WRONG, _shown(str(e), folder))
        except Exception as e:
            if not isinstance(e, _DELIBERATE) or not is_deliberate(e):
                return Row(situation.title, WRONG, _shown(f"{type(e).__name__}: {e}", folder))
            outcome, message = REFUSED, str(e)
        finally:
            os.chdir(before)
    return Row(situation.title, _judged(situation, outcome, message, folder), _shown(message, folder))


def _judged(situation: Situation, outcome: str, message: str, folder: Path) -> str:
    """The outcome if it is right, and what was said names a file or an argument, and the reason."""
    named = outcome == READ or re.search(rf"{re.escape(str(folder))}|\w\.(json|pt|md|nii\.gz)\b|^\w+ must ", message)
    said = re.search(situation.says, message) if situation.says else outcome == READ
    return outcome if outcome == situation.outcome and named and said else WRONG


def _best(told: list[str], says: str) -> str:
    return next((message for message in told if re.search(says, message)), told[0])


def _note(records: list[logging.LogRecord], says: str) -> str:
    notes = [record.getMessage() for record in records]
    return next((note for note in notes if says and re.search(says, note)), "")


def _shown(message: str, folder: Path) -> str:
    """A message on one line, with the names of files alone."""
    for path in (str(folder.resolve()), str(folder)):
        message = message.replace(f"{path}{os.sep}", "").replace(path, "the folder")
    return printable(message)


@contextmanager
def _listening() -> Iterator[list[logging.LogRecord]]:
    """What the package logs, instead of where it usually goes."""
    handler = logging.handlers.BufferingHandler(capacity=100_000)
    logger = logging.getLogger(_PACKAGE)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield handler.buffer
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
