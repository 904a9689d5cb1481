"""Finding labels of one side, and pairs of left and right ones, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["left_right_pairs", "sided"]

#: What names a side as a word of its own.
_SIDES = {
    "left": ("left", "lh", "lt", "l", "sin", "sx"),
    "right": ("right", "rh", "rt", "r", "dex", "dx"),
}
#: What names a side at the beginning of a word, if the other side has the same word.
_PREFIXES = (("left", "right"), ("l", "r"))


def left_right_pairs(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of names that differ only in the side, the left one first.

    Args:
        names: names of labels.

    Example:
        >>> left_right_pairs(["left lung", "right lung", "Left-Putamen", "Right-Putamen", "x_L", "x_R", "liver"])
        (('left lung', 'right lung'), ('Left-Putamen', 'Right-Putamen'), ('x_L', 'x_R'))
        >>> left_right_pairs(["femur_l_head", "femur_r_head", "lkid", "rkid", "lung", "L1", "R1"])
        (('femur_l_head', 'femur_r_head'), ('lkid', 'rkid'))
        >>> left_right_pairs(["rib_L1", "rib_R1", "left_1", "right_1"])
        (('rib_L1', 'rib_R1'), ('left_1', 'right_1'))
    """
    found: dict[str, dict[str, str]] = {}
    others: dict[str, str] = {}
    for name in names:
        side, rest = _side_of(name)
        if side is None:
            others.setdefault(name.lower(), name)
        else:
            found.setdefault(rest, {}).setdefault(side, name)
    pairs = [(sides["left"], sides["right"]) for sides in found.values() if len(sides) == 2]
    for left, right in _PREFIXES:
        for lower, name in others.items():
            rest = lower.removeprefix(left)
            if rest != lower and len(re.findall(r"[^\W\d_]", rest)) > 1 and right + rest in others:
                pairs.append((name, others[right + rest]))
    return tuple(dict.fromkeys(pairs))


def sided(names: Iterable[str]) -> list[str]:
    """The names that have a word for one side, whether or not there is one for the other.

    Args:
        names: names of labels.

    Example:
        >>> sided(["left kidney", "liver", "L1", "vertebrae_L4", "L-spine", "Hippocampus_R"])
        ['left kidney', 'Hippocampus_R']
    """
    return [name for name in names if _side_of(name, alone=True)[0] is not None]


def _side_of(name: str, alone: bool = False) -> tuple[str | None, str]:
    """``"left"`` or ``"right"``, and the name without it; None if it names no side.

    Args:
        name: the name of a label.
        alone: whether a letter that can mean a vertebra names no side, as there may be no other to compare with.
    """
    # also names in camel case, such as LeftKidney
    words = [word.lower() for word in re.findall(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])|\d+", name)]
    for place, word in enumerate(words):
        rest = " ".join(words[:place] + words[place + 1 :])
        following = "".join(words[place + 1 : place + 2])
        # L1 and R1 are no sides, nor are the vertebrae L1 to L5 and the lumbar spine
        vertebra = len(word) == 1 and (rest.isdigit() or (alone and (following.isdigit() or following == "spine")))
        for side, known in _SIDES.items():
            if word in known and not vertebra:
                return side, rest
    return None, name
