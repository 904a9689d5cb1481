"""Checks of what sliding windows are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

from monai_unetpp.inferers.depth_gate import ADAPTIVE, gate_tolerance
from monai_unetpp.window_layout import AUTO

__all__ = ["MEAN", "check_levels", "check_numbers", "check_sizes", "is_whole"]

MEAN = "mean"
"""What stands among levels for the mean of all heads."""


def check_levels(levels: Sequence[str] | str | None) -> tuple[str, ...] | str | None:
    """Levels in one form: a name, or several.

    Raises:
        ValueError: what is no level, or none, or one twice.
    """
    if levels is None:
        return None
    names = [levels] if isinstance(levels, str) else list(levels)
    if levels == ADAPTIVE:
        return ADAPTIVE
    wrong = [
        name
        for name in names
        if not isinstance(name, str)
        or not (re.fullmatch(rf"L[1-9]\d*|{MEAN}", name) or gate_tolerance(name) is not None)
    ]
    if wrong or not names or len(set(names)) < len(names):
        raise ValueError(
            f"levels must be None, a level such as 'L2', 'mean', 'adaptive=0.03' or a list of different ones, or "
            f"'adaptive', got {levels!r}."
        )
    return levels if isinstance(levels, str) else tuple(names)


def check_sizes(roi_size: Any) -> None:
    """Refuse what is no size of windows.

    Raises:
        TypeError: it is neither whole numbers nor None nor ``"auto"``.
    """
    if roi_size == AUTO:
        return
    sizes = list(roi_size) if isinstance(roi_size, Sequence) and not isinstance(roi_size, str) else [roi_size]
    if not sizes or any(size is not None and not is_whole(size) for size in sizes):
        raise TypeError(
            f"roi_size must be whole numbers, one for all axes or each, or 'auto', got {roi_size!r}. None stands for "
            "the image's size."
        )


def check_numbers(name: str, value: Any, fits: Callable[[float], bool], rule: str) -> None:
    """Refuse what is no number, or one per axis, that fits.

    Raises:
        TypeError: no number.
        ValueError: one that does not fit; ``rule`` says what would.
    """
    numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not numbers or any(isinstance(number, bool) or not isinstance(number, Real) for number in numbers):
        raise TypeError(f"{name} must be a number, or one per axis, got {value!r}.")
    if not all(fits(number) for number in numbers):
        raise ValueError(f"{name} must be {rule}, got {value!r}.")


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number."""
    return isinstance(value, Integral) and not isinstance(value, bool)
