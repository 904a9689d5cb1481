"""Finding labels of one side, and pairs of left and right ones, by their names and by where they lie."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

#: What names a side as a word of its own: abbreviations, and words of several languages.
_SIDES = {
    "left": (
        *("left", "lh", "lt", "l", "sin", "sx", "links", "linke", "linker", "linkes", "gauche", "izquierdo"),
        *("izquierda", "sinistro", "sinistra", "sinister", "sinistrum", "esquerdo", "esquerda"),
    ),
    "right": (
        *("right", "rh", "rt", "r", "dex", "dx", "rechts", "rechte", "rechter", "rechtes", "droit", "droite"),
        *("derecho", "derecha", "destro", "destra", "dexter", "dextra", "dextrum", "direito", "direita"),
    ),
}
#: What names a side at the beginning of a word, if the other side has the same word.
_PREFIXES = (("left", "right"), ("l", "r"))


def left_right_pairs(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of names that differ only in the side, the left one first.

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


#: Cases that are looked at for labels that mirror each other, and the share of them in which they must.
_MOST_LOOKED_AT, _MOST_CASES = 20, 0.8
#: How far apart such labels lie at least, relative to their length along the first axis; how much their centres differ
#: at most along the others; and the ratio of their lengths.
_APART, _LEVEL, _ALIKE = 0.8, 0.4, 0.6


def mirrored_pairs(cases: Sequence[Mapping[str, Sequence[tuple[float, float]]]]) -> tuple[tuple[str, str], ...]:
    """Pairs of labels of which one lies beside the other like its mirror image, whatever they are called.

    They are of similar size, in most cases, and one is beside the other along the first axis, not along the others. A
    case has, by label, the first and the last place of its voxels along each axis in mm, with the axis between left and
    right first.

    Example:
        >>> lungs = {"a": [(0, 40), (10, 90)], "b": [(50, 90), (15, 95)], "c": [(30, 60), (20, 40)]}
        >>> mirrored_pairs([lungs] * 2)
        (('a', 'b'),)
    """
    looked_at = cases[:: max(1, -(-len(cases) // _MOST_LOOKED_AT))]
    pairs = []
    for one, other in combinations(dict.fromkeys(name for case in looked_at for name in case), 2):
        seen = [_are_mirrored(case[one], case[other]) for case in looked_at if one in case and other in case]
        if seen and sum(seen) >= _MOST_CASES * len(seen):
            pairs.append((one, other))
    return tuple(pairs)


def _are_mirrored(one: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> bool:
    for axis, ((low, high), (first, last)) in enumerate(zip(one, other, strict=True)):
        length, width = high - low, last - first
        apart = abs(low + high - first - last) / (length + width)
        if min(length, width) < _ALIKE * max(length, width) or (apart < _APART if axis == 0 else apart > _LEVEL):
            return False
    return True


def sided(names: Iterable[str]) -> list[str]:
    """The names that have a word for one side, whether or not there is one for the other.

    Example:
        >>> sided(["left kidney", "liver", "L1", "vertebrae_L4", "L-spine", "Hippocampus_R"])
        ['left kidney', 'Hippocampus_R']
    """
    return [name for name in names if _side_of(name, alone=True)[0] is not None]


def _side_of(name: str, alone: bool = False) -> tuple[str | None, str]:
    """``"left"`` or ``"right"``, and the name without it; None if it names no side.

    With ``alone``, as there may be no other name to compare with, a letter that can mean a vertebra names none.
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
