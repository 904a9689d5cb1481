"""Search for the constant surround of an image from its border inwards, and for its black level, in numpy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

_Array = npt.NDArray[Any]

#: Fraction of the border from which a value always counts, and from which it counts unless it is noise.
_MOST_OF_BORDER, _PART_OF_BORDER = 0.95, 0.05
#: Least fraction of the neighbours of surround voxels that are surround too; in noise it is only the value's frequency.
_LEAST_SOLID = 0.7
#: Most constants: a background with padding around it, and the like.
_MOST_CONSTANTS = 4
#: Deviations from a constant by rounding, and by interpolation around edges, in standard deviations of a channel.
_ROUNDING, _RINGING = 1e-4, 0.02
#: How many times larger the surround must be with ringing than without, as single voxels of tissue may be close to it.
_RINGS = 1.02
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


@dataclasses.dataclass(frozen=True, eq=False)
class Surround:
    """The constant surround of an image.

    Attributes:
        values: the constant, one number per channel; if there are several, nested or side by side, the one that covers
            most of the border.
        mask: boolean ``(H, W[, D])``; from :func:`monai_unetpp.data.find_surround` a tensor on the device of the image.
        constants: number of constants.
        share: fraction of the image that is surround, from 0 to 1.
    """

    values: tuple[float, ...]
    mask: Any
    constants: int
    share: float

    def __str__(self) -> str:
        values = ", ".join(f"{value:g}" for value in self.values)
        others = f" and {self.constants - 1} more constants" if self.constants > 1 else ""
        return f"{values}{others}, {100 * self.share:.0f} % of the image"


def search_surround(image: _Array) -> Surround | None:
    """Find the constant surround of ``(C, H, W[, D])``: :func:`monai_unetpp.data.find_surround` in numpy."""
    mask = np.zeros(image.shape[1:], dtype=bool)
    values: list[tuple[float, ...]] = []
    while len(values) < _MOST_CONSTANTS and not mask.all():
        box = box_around(~mask)
        inner_box = (slice(None), *box)
        inner = image[inner_box]
        found = _constant_part(inner, mask[box])
        if found is None or (values and not _varies(inner, ~(mask[box] | found[1]))):
            break
        values.append(found[0])
        mask[box] |= found[1]
    if not values:
        return None
    return Surround(values[0], mask, len(values), float(mask.mean()))


def level_image(image: _Array, surround: Surround) -> _Array | None:
    """``(C, H, W[, D])`` in float32 with 0 as its surround, and the rest positive; None if it is like this already."""
    channels = zip(image, surround.values, strict=True)
    blacks = np.array([_find_black(channel[~surround.mask], value) for channel, value in channels], dtype=np.float32)
    if not blacks.any() and not any(channel.min() for channel in image) and surround.constants == 1:
        return None
    leveled: _Array = image.astype(np.float32)
    leveled -= blacks.reshape(-1, *[1] * surround.mask.ndim)
    np.maximum(leveled, 0, out=leveled)
    leveled[:, surround.mask] = 0
    return leveled


def _find_black(inside: _Array, value: float) -> float:
    """Find the value of a channel that becomes 0; see :class:`monai_unetpp.data.LevelSurroundd`."""
    sample = inside[:: max(1, len(inside) // _MOST_VOXELS)]
    lowest, middle, highest = (float(each) for each in np.percentile(sample, [_LOWEST, _MIDDLE, _HIGHEST]))
    extent = highest - lowest
    if extent == 0 or -_HIGHEST_BLACK <= (lowest - value) / extent <= _FARTHEST_BLACK:
        return value
    below = _BLACK_BELOW + _BLACK_BELOW_BY_MEDIAN * ((middle - lowest) / extent - _MEDIAN)
    return lowest - min(max(below, _LEAST_BELOW), _MOST_BELOW) * extent


def box_around(inside: _Array) -> tuple[slice, ...]:
    """The bounding box of a boolean array."""
    axes = range(inside.ndim)
    found = [np.flatnonzero(inside.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    return tuple(slice(int(each[0]), int(each[-1]) + 1) for each in found)


def _constant_part(image: _Array, known: _Array) -> tuple[tuple[float, ...], _Array] | None:
    """The most frequent value on the border outside ``known``, and the voxels with it that connect to the border."""
    if np.count_nonzero(~_border(known)) < _PART_OF_BORDER * _border(known).size:
        return None
    deviations: list[float] = []

    def tolerances(share: float) -> list[float]:
        if not share:
            return [0.0] * len(image)
        if not deviations:
            deviations.extend(float(channel.std(dtype=np.float64)) for channel in image)
        return [share * deviation for deviation in deviations]

    for rounding in (0.0, _ROUNDING):
        found = _commonest_on_border(image, known, tolerances(rounding))
        if found is None:
            continue
        values, share = found
        part = _flooded(image, known, values, tolerances(rounding))
        if not all(bool(channel.min() >= value) for channel, value in zip(image, values, strict=True)):
            ringing = _flooded(image, known, values, tolerances(_RINGING))
            if np.count_nonzero(ringing) > _RINGS * np.count_nonzero(part):
                part = ringing
        if share >= _MOST_OF_BORDER or _solidity(part) >= _LEAST_SOLID:
            return values, part
    return None


def _flooded(image: _Array, known: _Array, values: Sequence[float], tolerances: Sequence[float]) -> _Array:
    """The voxels that have the values of all channels and connect to the border."""
    # several times faster than binary_propagation
    parts, count = ndimage.label(_equal(image, values, tolerances) & ~known)
    is_flooded = np.zeros(count + 1, dtype=bool)
    is_flooded[_border(parts)] = True
    is_flooded[0] = False
    flooded: _Array = is_flooded[parts]
    return flooded


def _commonest_on_border(
    image: _Array, known: _Array, tolerances: Sequence[float]
) -> tuple[tuple[float, ...], float] | None:
    """The value of every channel and the fraction of the border where all have it, if large enough."""
    chosen = ~_border(known)
    values: list[float] = []
    for channel, tolerance in zip(image, tolerances, strict=True):
        if not chosen.any():
            return None
        value, same = _commonest(_border(channel)[chosen], tolerance)
        chosen[chosen] = same
        values.append(value)
    share = np.count_nonzero(chosen) / len(chosen)
    return (tuple(values), share) if share >= _PART_OF_BORDER else None


def _border(image: _Array) -> _Array:
    """All values on the sides of ``(H, W[, D])``, flattened; those on edges are repeated."""
    # np.take would copy images that are stored in another order of axes
    sides = (image[(slice(None),) * axis + (end,)] for axis in range(image.ndim) for end in (0, -1))
    return np.concatenate([side.ravel() for side in sides])


def _commonest(values: _Array, tolerance: float) -> tuple[float, _Array]:
    """The most frequent value, the lowest of several, and where it occurs."""
    keys = np.round(values / tolerance) if tolerance else values
    kinds, counts = np.unique(keys, return_counts=True)
    same: _Array = keys == kinds[counts.argmax()]
    return (float(np.median(values[same])) if same.any() else float("nan")), same


def _equal(image: _Array, values: Sequence[float], tolerances: Sequence[float]) -> _Array:
    equal = np.ones(image.shape[1:], dtype=bool)
    for channel, value, tolerance in zip(image, values, tolerances, strict=True):
        if tolerance:
            equal &= (channel >= value - tolerance) & (channel <= value + tolerance)
        else:
            equal &= channel == value
    return equal


def _solidity(part: _Array) -> float:
    """The fraction of neighbours of voxels in ``part``, along all axes, that are in it too."""
    both = neighbours = 0
    for axis in range(part.ndim):
        turned = np.moveaxis(part, axis, 0)
        neighbours += np.count_nonzero(turned[:-1])
        both += np.count_nonzero(turned[:-1] & turned[1:])
    return both / neighbours if neighbours else 0.0


def _varies(image: _Array, where: _Array) -> bool:
    return any(len(rest) > 0 and bool(rest.min() < rest.max()) for channel in image for rest in [channel[where]])
