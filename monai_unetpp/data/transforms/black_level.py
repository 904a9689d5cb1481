"""Estimate the black level of an image with a constant surround, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["find_black"]

#: Percentiles inside the surround that serve as lowest, middle and highest value, robust to outliers.
_LOWEST, _MIDDLE, _HIGHEST = 0.1, 50, 99.5
#: How far above or below the lowest value a constant still counts as black, in fractions of the range: interpolation
#: undershoots.
_HIGHEST_BLACK, _FARTHEST_BLACK = 0.25, 1.0
#: How far black lies below the range in skull-stripped T1-weighted MRI, for a given position of the median, and the
#: slope with the median, as less contrast raises both. All in fractions of the range; fitted to OASIS-1 and MNI152.
_BLACK_BELOW, _MEDIAN, _BLACK_BELOW_BY_MEDIAN = 0.15, 0.59, 1.85
_LEAST_BELOW, _MOST_BELOW = 0.1, 0.4
#: Evenly spaced voxels from which percentiles of large images are taken, to bound memory.
_MOST_VOXELS = 2**20


def find_black(inside: npt.NDArray[Any], value: float) -> float:
    """Find the value of a channel that becomes 0; see :class:`monai_unetpp.data.LevelSurroundd`.

    Args:
        inside: values inside the surround, ``(N,)``.
        value: value of the surround.
    """
    sample = inside[:: max(1, len(inside) // _MOST_VOXELS)]
    lowest, middle, highest = (float(each) for each in np.percentile(sample, [_LOWEST, _MIDDLE, _HIGHEST]))
    extent = highest - lowest
    if extent == 0 or -_HIGHEST_BLACK <= (lowest - value) / extent <= _FARTHEST_BLACK:
        return value
    below = _BLACK_BELOW + _BLACK_BELOW_BY_MEDIAN * ((middle - lowest) / extent - _MEDIAN)
    return lowest - min(max(below, _LEAST_BELOW), _MOST_BELOW) * extent
