"""Positions of sliding windows, and the weights of their voxels, without torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "AUTO",
    "FREE_PART",
    "WindowLayout",
    "bytes_per_voxel",
    "choose_layout",
    "gaussian_weights",
    "most_window_voxels",
    "overlapping_starts",
]

AUTO = "auto"
"""Windows are chosen for each image."""

#: Least weight at the corners of a window, relative to its centre; as in MONAI.
_LEAST_WEIGHT = 1e-3
#: Share of the image that may be computed more than once.
_MOST_RECOMPUTED = 0.2
#: Overlaps to try, as shares of the requested one.
_OVERLAP_PARTS = (1.0, 0.75, 0.5, 0.25, 0.0)
#: Most windows along an axis; with more they would be far smaller than any in training.
_MOST_ALONG_AXIS = 16
#: Voxels of a window if the device does not report its free memory.
_ASSUMED_VOXELS = 128**3
#: Share of the free memory that a batch of windows may take.
FREE_PART = 0.5
#: Full-resolution feature maps held at once, in multiples of the first convolution's channels.
_MAPS_HELD = 16
#: Copies of the logits held at once: of the runtime, of the inferer, and their sums.
_OUTPUTS_HELD = 3

_Layout = TypeVar("_Layout", bound="WindowLayout")


@dataclass(frozen=True)
class WindowLayout:
    """The windows that cover an image, the same as those of MONAI's ``SlidingWindowInferer``.

    Along an axis shorter than the window, the image is padded to the size of one window. Positions refer to the padded
    image.

    Attributes:
        image_size: spatial size of the image.
        window_size: spatial size of every window.
        starts: start positions along each axis; the windows are all combinations.
    """

    image_size: tuple[int, ...]
    window_size: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]

    @classmethod
    def overlapping(
        cls: type[_Layout], image_size: Sequence[int], window_size: Sequence[int], overlap: Sequence[float] | float
    ) -> _Layout:
        """Windows that start as :func:`overlapping_starts` says, with an overlap for all axes or each."""
        overlaps = overlap if isinstance(overlap, Sequence) else [overlap] * len(image_size)
        starts = tuple(
            overlapping_starts(max(size, length), length, part)
            for size, length, part in zip(image_size, window_size, overlaps, strict=True)
        )
        return cls(tuple(image_size), tuple(window_size), starts)

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Voxels added before and after each axis; a padded axis has one window."""
        missing = [max(length - size, 0) for size, length in zip(self.image_size, self.window_size, strict=True)]
        return tuple((count // 2, count - count // 2) for count in missing)

    @cached_property
    def padded_size(self) -> tuple[int, ...]:
        """Spatial size of the image after padding."""
        return tuple(max(size, length) for size, length in zip(self.image_size, self.window_size, strict=True))

    @cached_property
    def slab_axis(self) -> int:
        """The axis along which a window covers the smallest share of the image; the first in case of a tie."""
        parts = [length / size for length, size in zip(self.window_size, self.padded_size, strict=True)]
        return parts.index(min(parts))

    @property
    def row_axis(self) -> int | None:
        """The axis along which the rows of a slab follow each other; None for 1D images."""
        return next((axis for axis in range(len(self.window_size)) if axis != self.slab_axis), None)

    @property
    def row_size(self) -> tuple[int, ...]:
        """Spatial size of a row of windows, which is a slab cut to the length of a window along :attr:`row_axis`."""
        kept = (self.slab_axis, self.row_axis)
        sizes = zip(self.window_size, self.padded_size, strict=True)
        return tuple(length if axis in kept else size for axis, (length, size) in enumerate(sizes))

    @property
    def carried_size(self) -> tuple[int, ...]:
        """Spatial size of the largest overlap of a slab with the next one."""
        axis = self.slab_axis
        starts, length = self.starts[axis], self.window_size[axis]
        planes = max((length - later + earlier for earlier, later in itertools.pairwise(starts)), default=0)
        return (*self.padded_size[:axis], planes, *self.padded_size[axis + 1 :])

    @property
    def slab_size(self) -> tuple[int, ...]:
        """Spatial size of a slab, which is the padded image cut to the length of a window along :attr:`slab_axis`."""
        axis = self.slab_axis
        return (*self.padded_size[:axis], self.window_size[axis], *self.padded_size[axis + 1 :])

    @cached_property
    def positions(self) -> tuple[tuple[int, ...], ...]:
        """Start of each window, slab by slab, so that the start along :attr:`slab_axis` never decreases."""
        axis = self.slab_axis
        others = [starts for other, starts in enumerate(self.starts) if other != axis]
        return tuple(
            (*rest[:axis], start, *rest[axis:]) for start in self.starts[axis] for rest in itertools.product(*others)
        )

    @property
    def has_one_window(self) -> bool:
        """Whether a single window covers the image, so that nothing is blended."""
        return all(len(starts) == 1 for starts in self.starts)

    @property
    def window_voxels(self) -> int:
        """Number of voxels of a window."""
        return math.prod(self.window_size)


def overlapping_starts(size: int, length: int, overlap: float) -> tuple[int, ...]:
    """Start positions of overlapping windows of ``length`` that cover an axis of ``size >= length``.

    Example:
        >>> overlapping_starts(size=10, length=4, overlap=0.25)
        (0, 3, 6)
    """
    step = max(int(length * (1 - overlap)), 1)
    count = 1 if length == size else -(-(size - length) // step) + 1
    return tuple(min(index * step, size - length) for index in range(count))


def gaussian_weights(window_size: Sequence[int], sigma_scale: Sequence[float] | float) -> npt.NDArray[Any]:
    """Gaussian weights of the voxels of a window, ``window_size`` in float32, largest in the middle.

    The same as MONAI's importance map up to float32 rounding.

    Args:
        window_size: spatial size of the window.
        sigma_scale: standard deviation of the Gaussian as a share of the window's length, for all axes or each.
    """
    scales = list(sigma_scale) if isinstance(sigma_scale, Sequence) else [sigma_scale] * len(window_size)
    weights: npt.NDArray[np.float32] = np.ones((), dtype=np.float32)
    for length, scale in zip(window_size, scales, strict=True):
        place = np.arange(length) - (length - 1) / 2
        along = np.exp(place**2 / (-2 * (length * scale) ** 2)).astype(np.float32)
        weights = weights[..., None] * along
    return np.asarray(np.maximum(weights, np.float32(max(float(weights.min()), _LEAST_WEIGHT))))


def bytes_per_voxel(channels: int, outputs: int = 1) -> int:
    """Rough memory of a network for each voxel of a window, in float32.

    Args:
        channels: of its first convolution.
        outputs: channels of all logits together.
    """
    return 4 * (_MAPS_HELD * channels + _OUTPUTS_HELD * outputs)


def most_window_voxels(free_bytes: int | None, channels: int, outputs: int = 1) -> int:
    """Number of voxels of the largest window that safely fits into the free memory, as a power of two.

    The power of two makes the choice of windows repeatable if a little more or less memory is free.

    Args:
        free_bytes: free memory; None (unknown) gives windows of 128 x 128 x 128.
        channels: of the network's first convolution, a rough measure of the memory per voxel.
        outputs: channels of all logits together.
    """
    if free_bytes is None:
        return _ASSUMED_VOXELS
    fitting = int(FREE_PART * free_bytes) // bytes_per_voxel(channels, outputs)
    return 1 << max(fitting.bit_length() - 1, 0)


def choose_layout(
    image_size: Sequence[int], most_voxels: int, multiples: Sequence[int], overlap: Sequence[float] | float
) -> WindowLayout:
    """Cover an image with the fewest evenly spaced windows of one size that fit into memory.

    Sizes are multiples of the network's downsampling factor, which also keeps the number of different sizes low. If the
    requested overlap would recompute more than a fifth of the voxels, it is reduced, down to
    none. Even without overlap it can be more if an axis is hardly longer than the multiple.

    Args:
        image_size: spatial size of the image.
        most_voxels: largest number of voxels of a window.
        multiples: the size of a window is a multiple of this, for each axis.
        overlap: requested share of a window that overlaps with the next, from 0 to below 1, for all axes or each.

    Returns:
        The windows, a single one if the whole image fits, the smallest possible if none fits.

    Example:
        >>> choose_layout((160, 200, 170), most_voxels=2**22, multiples=(16, 16, 16), overlap=0.25).starts
        ((0, 64), (0,), (0,))
    """
    wanted = list(overlap) if isinstance(overlap, Sequence) else [overlap] * len(image_size)
    for part in _OVERLAP_PARTS:
        grid = _fewest(image_size, most_voxels, multiples, [part * share for share in wanted])
        covered = math.prod(grid.padded_size)
        if grid.window_voxels * len(grid.positions) <= (1 + _MOST_RECOMPUTED) * covered:
            break
    return grid


def _fewest(
    image_size: Sequence[int], most_voxels: int, multiples: Sequence[int], overlaps: Sequence[float]
) -> WindowLayout:
    """The grid with the fewest windows that fit, and among these the one with the smallest windows."""
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
    return WindowLayout(
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
    """Length of each of ``count`` overlapping windows that cover an axis."""
    shortest = size / (1 + (count - 1) * (1 - overlap))
    return math.ceil(shortest / multiple - 1e-9) * multiple


def _even_starts(size: int, length: int, count: int) -> tuple[int, ...]:
    last = size - length
    return tuple(sorted({round(index * last / max(count - 1, 1)) for index in range(count)}))
