"""Where the windows over a volume lie, and how much each of their voxels counts, without torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["WindowLayout", "gaussian_weights", "overlapping_starts"]

#: Voxels at the corners of a window count at least so much, relative to those in its middle; as in MONAI.
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class WindowLayout:
    """The windows that cover an image: the same ones as MONAI's ``SlidingWindowInferer`` takes.

    Along an axis that is shorter than the window, one window covers the image padded to its size. Positions are counted
    in the padded image.

    Attributes:
        image_size: spatial size of the image.
        window_size: spatial size of every window.
        starts: where windows start, for each axis; the windows are all combinations.
    """

    image_size: tuple[int, ...]
    window_size: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Elements added before and after each axis; along a padded axis there is one window."""
        missing = [max(length - size, 0) for size, length in zip(self.image_size, self.window_size, strict=True)]
        return tuple((count // 2, count - count // 2) for count in missing)

    @cached_property
    def padded_size(self) -> tuple[int, ...]:
        """Spatial size of the image after padding."""
        return tuple(max(size, length) for size, length in zip(self.image_size, self.window_size, strict=True))

    @cached_property
    def slab_axis(self) -> int:
        """The axis along which slabs of one window's length are the smallest part of the image; the first of such."""
        parts = [length / size for length, size in zip(self.window_size, self.padded_size, strict=True)]
        return parts.index(min(parts))

    @property
    def slab_size(self) -> tuple[int, ...]:
        """Spatial size of a slab: the padded image, as long as a window along :attr:`slab_axis`."""
        axis = self.slab_axis
        return (*self.padded_size[:axis], self.window_size[axis], *self.padded_size[axis + 1 :])

    @cached_property
    def positions(self) -> tuple[tuple[int, ...], ...]:
        """Where each window starts, slab by slab: the start along :attr:`slab_axis` never goes back."""
        axis = self.slab_axis
        others = [starts for other, starts in enumerate(self.starts) if other != axis]
        return tuple(
            (*rest[:axis], start, *rest[axis:]) for start in self.starts[axis] for rest in itertools.product(*others)
        )

    @property
    def window_voxels(self) -> int:
        """Voxels of a window."""
        return math.prod(self.window_size)


def overlapping_starts(size: int, length: int, overlap: float) -> tuple[int, ...]:
    """Where windows of ``length`` start that cover an axis of ``size >= length``, each overlapping the one before.

    Example:
        >>> overlapping_starts(size=10, length=4, overlap=0.25)
        (0, 3, 6)
    """
    step = max(int(length * (1 - overlap)), 1)
    count = 1 if length == size else -(-(size - length) // step) + 1
    return tuple(min(index * step, size - length) for index in range(count))


def gaussian_weights(window_size: Sequence[int], sigma_scale: Sequence[float] | float) -> npt.NDArray[Any]:
    """How much each voxel of a window counts, ``window_size`` in float32: most in the middle.

    The same as MONAI's importance map, to float32 rounding.

    Args:
        window_size: spatial size of the window.
        sigma_scale: standard deviation of the Gaussian in lengths of the window, for all axes or each.
    """
    scales = list(sigma_scale) if isinstance(sigma_scale, Sequence) else [sigma_scale] * len(window_size)
    weights: npt.NDArray[np.float32] = np.ones((), dtype=np.float32)
    for length, scale in zip(window_size, scales, strict=True):
        place = np.arange(length) - (length - 1) / 2
        along = np.exp(place**2 / (-2 * (length * scale) ** 2)).astype(np.float32)
        weights = weights[..., None] * along
    return np.asarray(np.maximum(weights, np.float32(max(float(weights.min()), _LEAST_WEIGHT))))
