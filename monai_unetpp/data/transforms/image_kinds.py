"""Kinds of images, told apart by shape and background. Does not import torch."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence

Kind = tuple[tuple[int, ...] | None, str | None]
"""Shape, and background, ``"dark"`` or ``"bright"``; each is None where it tells no kinds apart."""

#: Least share of images with the rarer kind of background (dark or bright) for there to be two kinds, and largest share
#: of images in between.
_SOME, _BETWEEN = 0.02, 0.05
#: Place of the median in the range of an image, from 0 to 1, below which its background is dark, and above which it is
#: bright.
_DARK, _BRIGHT = 0.35, 0.65
#: Least number of cases per shape; with fewer, as in cropped photographs, the shape says nothing about the kind.
_CASES_PER_SHAPE = 10


def place_of_median(low: float, median: float, high: float) -> float:
    """Place of the median of an image between its percentiles 0.5 and 99.5, from 0 to 1; 0 if these are equal."""
    return (median - low) / (high - low) if high > low else 0.0


def is_bright(place: float) -> bool:
    """Whether the background is bright rather than dark by the place of the median, as where images are inverted."""
    return place > 0.5


def have_two_backgrounds(places: Sequence[float]) -> bool:
    """Whether the backgrounds of images are of two separate kinds, dark and bright, by the places of their medians."""
    dark, bright = (statistics.fmean(found) for found in ([p < _DARK for p in places], [p > _BRIGHT for p in places]))
    return min(dark, bright) >= _SOME and dark + bright >= 1 - _BETWEEN


def sort_kinds(shapes: Sequence[tuple[int, ...]], places: Sequence[float]) -> list[Kind]:
    """The kind of each image.

    Shapes count if ten images or more share one on average, and backgrounds if there are two separate kinds.
    """
    by_shape = len(shapes) >= _CASES_PER_SHAPE * len(set(shapes))
    by_background = bool(places) and have_two_backgrounds(places)
    return [
        (shape if by_shape else None, ("bright" if is_bright(place) else "dark") if by_background else None)
        for shape, place in zip(shapes, places, strict=True)
    ]


def weigh_kinds(kinds: Sequence[Kind], power: float = 0.5, most: float = math.inf) -> dict[Kind, float]:
    """How often a case of each kind is drawn, most frequent kind first; see :func:`monai_unetpp.data.kind_weights`."""
    if not 0 <= power <= 1:
        raise ValueError(f"power must be from 0 to 1, got {power}.")
    if not most >= 1:
        raise ValueError(f"most must be 1 or more, got {most}.")
    counts = Counter(kinds).most_common()
    return {kind: min(count**-power, most * counts[0][1] ** -power) for kind, count in counts}
