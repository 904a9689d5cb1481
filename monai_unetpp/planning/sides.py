"""Finding pairs of left and right labels by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["left_right_pairs"]

_LEFT, _RIGHT = ("left", "lh", "l"), ("right", "rh", "r")


def left_right_pairs(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of names that differ only in the side, the left one first.

    Args:
        names: names of labels.

    Example:
        >>> left_right_pairs(["left lung", "right lung", "Left-Putamen", "Right-Putamen", "x_L", "x_R", "liver"])
        (('left lung', 'right lung'), ('Left-Putamen', 'Right-Putamen'), ('x_L', 'x_R'))
    """
    found: dict[str, dict[str, str]] = {}
    for name in names:
        side, rest = _side_of(name)
        if side is not None:
            found.setdefault(rest, {}).setdefault(side, name)
    return tuple((sides["left"], sides["right"]) for sides in found.values() if len(sides) == 2)


def _side_of(name: str) -> tuple[str | None, str]:
    """``"left"`` or ``"right"``, and the name without it; None if it names no side."""
    # also names in camel case, such as LeftKidney
    words = [word.lower() for word in re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])|\d+", name)]
    for place, word in enumerate(words):
        at_end = place in (0, len(words) - 1)
        for side, known in (("left", _LEFT), ("right", _RIGHT)):
            # single letters and lh, rh only at the beginning or the end
            if word == known[0] or (at_end and word in known):
                return side, " ".join(words[:place] + words[place + 1 :])
    return None, name
