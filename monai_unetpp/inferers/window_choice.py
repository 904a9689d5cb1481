"""Windows chosen for a volume: as few and as large as memory allows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from monai_unetpp.inferers.predictors.network_copy import is_plain_nested_unet
from monai_unetpp.inferers.windows import WindowGrid

__all__ = ["choose_windows", "downsampling_of"]

#: Voxels that all windows together may have more than the image that they cover.
_MOST_RECOMPUTED = 0.2
#: Overlaps that are tried, in parts of the one that is wanted.
_OVERLAP_PARTS = (1.0, 0.75, 0.5, 0.25, 0.0)
#: Windows along an axis; more would be far smaller than any that a training takes.
_MOST_ALONG_AXIS = 16


def choose_windows(
    image_size: Sequence[int], most_voxels: int, multiples: Sequence[int], overlap: Sequence[float] | float
) -> WindowGrid:
    """The fewest windows of one size over an image that fit into memory, evenly laid.

    Sizes are multiples of the network's downsampling, which also keeps the number of different sizes low. Where the
    overlap that is wanted would let more than a fifth of the voxels be computed again, it is less.

    Args:
        image_size: spatial size of the image.
        most_voxels: of a window.
        multiples: of which the size of a window is one, for each axis.
        overlap: part of a window that the next one should cover again, from 0 to below 1, for all axes or each.

    Returns:
        The windows; the whole image is one where it fits. Where not even the smallest would fit, they are the smallest.

    Example:
        >>> choose_windows((160, 200, 170), most_voxels=2**22, multiples=(16, 16, 16), overlap=0.25).starts
        ((0,), (0, 72), (0,))
    """
    wanted = list(overlap) if isinstance(overlap, Sequence) else [overlap] * len(image_size)
    for part in _OVERLAP_PARTS:
        grid = _fewest(image_size, most_voxels, multiples, [part * share for share in wanted])
        covered = math.prod(grid.padded_size)
        if grid.window_voxels * len(grid.positions) <= (1 + _MOST_RECOMPUTED) * covered:
            break
    return grid


def downsampling_of(network: Callable[..., Any], axes: int) -> tuple[int, ...]:
    """By how much a nested U-Net downsamples each axis; 1 for any other function."""
    if not is_plain_nested_unet(network):
        return (1,) * axes
    factors = [1] * axes
    strides = network.config["strides"]
    steps = [strides] * (len(network.config["features"]) - 1) if isinstance(strides, int) else strides
    for step in steps:
        along = [step] * axes if isinstance(step, int) else step
        factors = [factor * each for factor, each in zip(factors, along, strict=True)]
    return tuple(factors)


def _fewest(
    image_size: Sequence[int], most_voxels: int, multiples: Sequence[int], overlaps: Sequence[float]
) -> WindowGrid:
    """Of the grids whose windows fit that with the fewest windows, and of these the one that computes least."""
    along = [
        [(count, _length(size, count, multiple, share)) for count in _counts(size, multiple)]
        for size, multiple, share in zip(image_size, multiples, overlaps, strict=True)
    ]
    choices = [
        (math.prod(count for count, _ in chosen), math.prod(length for _, length in chosen), chosen)
        for chosen in itertools.product(*along)
    ]
    fitting = [choice for choice in choices if choice[1] <= most_voxels] or [min(choices, key=lambda each: each[1])]
    chosen = min(fitting, key=lambda each: (each[0], each[1]))[2]
    return WindowGrid(
        tuple(image_size),
        tuple(length for _, length in chosen),
        tuple(
            _even_starts(max(size, length), length, count)
            for size, (count, length) in zip(image_size, chosen, strict=True)
        ),
    )


def _counts(size: int, multiple: int) -> range:
    return range(1, min(-(-size // multiple), _MOST_ALONG_AXIS) + 1)


def _length(size: int, count: int, multiple: int, overlap: float) -> int:
    """Of the ``count`` windows that cover an axis, each overlapping the next."""
    shortest = size / (1 + (count - 1) * (1 - overlap))
    return math.ceil(shortest / multiple - 1e-9) * multiple


def _even_starts(size: int, length: int, count: int) -> tuple[int, ...]:
    last = size - length
    return tuple(sorted({round(index * last / max(count - 1, 1)) for index in range(count)}))
