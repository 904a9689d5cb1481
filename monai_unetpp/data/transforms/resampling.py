"""Resample to another grid without torch: blocks, positions and limits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from os import PathLike

import numpy as np
import numpy.typing as npt

from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.transforms.surround_search import box_around
from monai_unetpp.data.transforms.target_grid import HEADER_ROUNDING, find_target_grid, round_half_to_even
from monai_unetpp.free_memory import available_bytes

TRACE = 1e-9
"""Share of the largest value below which an interpolated one is rounding, also where axes are not at right angles."""

#: Most values of input and output per block: about 100 MB with the coordinates in float64.
_BLOCK_VALUES = 2**20
#: Voxels that linear interpolation, twice if need be, takes from around a voxel.
_REACH = 2
#: Largest distance in voxels between two grids that count as the same.
_SAME_PLACE_VOXELS = 1e-3
#: Largest difference between two voxel sizes that count as the same: relative, and MONAI's tolerance in mm.
_SAME_SPACING, _SAME_SPACING_MM = 1e-3, 1e-3
#: An axis that is this many times finer than wanted, and would keep fewer voxels than that, is lost.
_LOST_FACTOR, _LOST_VOXELS = 10, 4
#: Available bytes if the system does not report them.
_ASSUMED_MEMORY = 2**40
#: Largest distance to a voxel, in voxels, that is rounding: its neighbours would leave a trace in a surround of zeros.
_ON_VOXEL = 1e-6

_Array = npt.NDArray[np.float64]


def fit_grid(
    path: str | PathLike[str],
    shape: Sequence[int],
    affine: _Array,
    voxel_bytes: int,
    wanted: _Array,
    diagonal: bool = False,
    limits: tuple[_Array, _Array] | None = None,
) -> tuple[tuple[int, ...], _Array]:
    """The shape and affine of the grid to resample a volume to, by :func:`.find_target_grid`.

    An ``ImageFileError`` with ``path`` says that an axis would nearly vanish, or that the result does not fit memory.

    Args:
        path: file of the volume.
        shape: shape of the volume.
        affine: its affine, from voxel indices to mm.
        voxel_bytes: bytes of all channels of a voxel.
        wanted: voxel size of the result by axis, in mm; 0 or less, and NaN, keep the volume's own.
        diagonal: whether the grid's axes are those of the world.
        limits: smallest and largest voxel size of the volume that are kept, by axis; NaN, or None, for ``wanted``.
    """
    spacing = np.linalg.norm(affine[:-1, : len(shape)], axis=0)
    wanted = np.where(np.isfinite(wanted), wanted, 0)
    least, most = (wanted, wanted) if limits is None else (np.fmin(limits[0], wanted), np.fmax(limits[1], wanted))
    tolerance = np.minimum(_SAME_SPACING_MM, _SAME_SPACING * wanted)
    kept = (wanted <= 0) | ((least - tolerance <= spacing) & (spacing <= most + tolerance))
    wanted = np.where(kept, spacing, wanted)
    size, target = find_target_grid(shape, affine, wanted, diagonal)
    lost = is_lost(shape, spacing, size, wanted)
    free_bytes = available_bytes()
    if lost or voxel_bytes * math.prod(size) > (_ASSUMED_MEMORY if free_bytes is None else free_bytes):
        trouble = "nearly nothing" if lost else "more than memory holds"
        raise ImageFileError(
            f"{path}: its {_product(shape)} voxels of {_product(spacing)} mm would become {_product(size)} of "
            f"{_product(wanted)} mm, {trouble}. Correct the voxel size in its header, or use a network for such voxels."
        )
    return size, target


def is_lost(
    shape: Sequence[int], spacing: Sequence[float] | _Array, size: Sequence[int], wanted: Sequence[float] | _Array
) -> bool:
    """Whether an axis would nearly vanish from ``shape`` and ``spacing`` of a volume to ``size`` and ``wanted``."""
    return any(
        length > 1 and target / own >= _LOST_FACTOR and kept < _LOST_VOXELS
        for length, own, kept, target in zip(shape, spacing, size, wanted, strict=True)
    )


def _product(numbers: Sequence[float] | npt.NDArray[np.float64]) -> str:
    return " x ".join(f"{number:.6g}" for number in numbers)


def is_same_place(matrix: _Array, size: Sequence[int]) -> bool:
    """Whether ``matrix`` maps every voxel of a volume of this size nearly to itself."""
    rank = len(size)
    moved = np.abs(matrix[:rank] - np.eye(rank + 1)[:rank])
    furthest = moved[:, :rank] @ np.maximum(np.array(size) - 1, 1) + moved[:, rank]
    return bool((furthest <= _SAME_PLACE_VOXELS).all())


def needed_box(matrix: _Array, block: Sequence[slice], shape: Sequence[int]) -> tuple[tuple[slice, ...], _Array]:
    """The part of an image that linear interpolation of a block of the result needs, and the matrix from block to part.

    ``matrix`` is from voxels of the result to voxels of the image, which has the ``shape`` without channels.
    """
    rank = len(block)
    linear = np.abs(matrix[:rank, :rank])
    first = np.array([part.start for part in block])
    half = np.array([part.stop - part.start - 1 for part in block]) / 2
    centre, reach = matrix[:rank, :rank] @ (first + half) + matrix[:rank, rank], linear @ half
    # one voxel more than needed, as a margin for rounding
    last = np.array(shape) - 1
    low = np.clip(np.floor(centre - reach) - 1, 0, last).astype(int)
    high = np.clip(np.floor(centre + reach) + 2, 0, last).astype(int)
    local = matrix.copy()
    local[:rank, rank] += matrix[:rank, :rank] @ first - low
    return tuple(slice(int(start), int(stop) + 1) for start, stop in zip(low, high, strict=True)), local


def axis_neighbours(
    step: float, start: float, size: int, length: int, padding_mode: str
) -> Iterator[tuple[npt.NDArray[np.int64], _Array]]:
    """Yield the voxels below and above evenly spaced places along one axis, with their weights in linear interpolation.

    There are ``size`` places from ``start`` on, ``step`` apart, in voxels of the image, which has ``length``.
    """
    places = start + step * np.arange(size)
    whole = np.rint(places)
    places = np.where(np.abs(places - whole) < _ON_VOXEL, whole, places)
    if padding_mode == "border":
        places = places.clip(0, length - 1)
    below = np.floor(places)
    for index, weight in ((below, below + 1 - places), (below + 1, places - below)):
        inside = (index >= 0) & (index < length)
        yield index.clip(0, length - 1).astype(np.int64), weight * inside


def nearest_voxels(
    matrix: _Array, block: Sequence[slice], shape: Sequence[int]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]]:
    """Yield, per image axis, the nearest voxel to every voxel of a block of the result, and whether it is outside."""
    rank = len(block)
    rounding = HEADER_ROUNDING * max(shape)
    steps = np.ogrid[tuple(block)]
    for axis, length in enumerate(shape):
        place = np.full((1,) * rank, matrix[axis, rank])
        for factor, step in zip(matrix[axis, :rank], steps, strict=True):
            if factor:  # along other axes the position is constant: no need to compute it for every voxel
                place = place + factor * step
        nearest = round_half_to_even(place, rounding)
        yield np.clip(nearest, 0, length - 1).astype(np.int64), (nearest < 0) | (nearest >= length)


def find_candidate_box(probability: npt.NDArray[np.float32], classes: int) -> tuple[slice, ...] | None:
    """The part of a map ``(H, W[, D])`` that decides where a class wins after linear resampling; None if nowhere.

    The likeliest of ``classes`` has at least an equal share at any point, and linear interpolation gives at most the
    largest of the values that it takes. So the class cannot win at a point without such a value near it.
    """
    # half of the equal share, for rounding
    likely = probability >= 0.5 / classes
    if not likely.any():
        return None
    return tuple(slice(max(part.start - _REACH, 0), part.stop + _REACH) for part in box_around(likely))


def list_blocks(shape: Sequence[int], linear: npt.NDArray[np.float64]) -> Iterator[tuple[slice, ...]]:
    """Cut ``(C, H, W[, D])`` into blocks with a bounded number of values in result and image."""
    lengths = [int(length) for length in shape[1:]]
    while max(lengths) > 1 and shape[0] * _count_voxels(lengths, linear) > _BLOCK_VALUES:
        longest = lengths.index(max(lengths))
        lengths[longest] = -(-lengths[longest] // 2)
    ranges = [
        [slice(start, min(start + length, whole)) for start in range(0, whole, length)]
        for whole, length in zip(shape[1:], lengths, strict=True)
    ]
    yield from itertools.product(*ranges)


def _count_voxels(lengths: Sequence[int], linear: npt.NDArray[np.float64]) -> int:
    """Voxels of a block or of the part of the image that it needs, whichever are more."""
    return max(math.prod(lengths), math.prod(int(needed) for needed in linear @ np.array(lengths) + 3))
