"""The value that is black in an image with a constant surround, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["find_black"]

#: Percentiles of what is inside that stand for its lowest, middle and highest values, whatever single voxels have.
_LOWEST, _MIDDLE, _HIGHEST = 0.1, 50, 99.5
#: How far above the lowest and below it a constant may be, in parts of the range, and still be taken for black:
#: interpolation undershoots.
_HIGHEST_BLACK, _FARTHEST_BLACK = 0.25, 1.0
#: How far below its range black lies in skull-stripped T1-weighted MRI, where the median lies at a certain place in the
#: range, all in parts of it; and how much farther with the median, as less contrast raises both. Fitted to OASIS-1 and
#: MNI152.
_BLACK_BELOW, _MEDIAN, _BLACK_BELOW_BY_MEDIAN = 0.15, 0.59, 1.85
_LEAST_BELOW, _MOST_BELOW = 0.1, 0.4
#: Voxels from which percentiles of large images are taken, evenly spread: exact enough, and bounded in memory.
_MOST_VOXELS = 2**20


def find_black(inside: npt.NDArray[Any], value: float) -> float:
    """The value of a channel that is to become 0; see :class:`monai_unetpp.data.LevelSurroundd`.

    Args:
        inside: what is surrounded, ``(N,)``.
        value: of the surround.
    """
    sample = inside[:: max(1, len(inside) // _MOST_VOXELS)]
    lowest, middle, highest = (float(each) for each in np.percentile(sample, [_LOWEST, _MIDDLE, _HIGHEST]))
    extent = highest - lowest
    if extent == 0 or -_HIGHEST_BLACK <= (lowest - value) / extent <= _FARTHEST_BLACK:
        return value
    below = _BLACK_BELOW + _BLACK_BELOW_BY_MEDIAN * ((middle - lowest) / extent - _MEDIAN)
    return lowest - min(max(below, _LEAST_BELOW), _MOST_BELOW) * extent
