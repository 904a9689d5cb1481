"""Steps that change the values of an image, equal to the bundle's transforms up to float32 rounding."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from monai_unetpp.data.transforms.sampling import sampled_median
from monai_unetpp.data.transforms.surround_search import level_image, search_surround
from monai_unetpp.runner.volume import Array, Volume

__all__ = [
    "adjust_contrast",
    "clip_percentiles",
    "invert_bright_background",
    "level_surround",
    "normalize",
    "scale",
    "scale_range",
    "scale_range_percentiles",
    "standardize",
]

#: Number of values above which MONAI computes percentiles with numpy instead of torch.
_MANY = 1_000_000
#: Values that are summed up at a time.
_PART = 2**20


def level_surround(volume: Volume) -> None:
    """Set the surround to 0 and make the rest positive; see ``LevelSurroundd``."""
    found = search_surround(volume.voxels)
    leveled = None if found is None or found.share == 1 else level_image(volume.voxels, found)
    if leveled is not None:
        volume.voxels = leveled


def clip_percentiles(volume: Volume, lower: float | None, upper: float | None, channel_wise: bool) -> None:
    """Clip values to two percentiles."""

    def clip(values: Array) -> Array:
        low, high = (_percentile(values, percent) for percent in (lower or 0, 100 if upper is None else upper))
        return np.asarray(np.clip(values, low, high))

    volume.voxels = _by_channel(volume.voxels, clip, channel_wise)


def scale_range_percentiles(
    volume: Volume, lower: float, upper: float, b_min: float | None, b_max: float | None, clip: bool, channel_wise: bool
) -> None:
    """Scale so that two percentiles become ``b_min`` and ``b_max``."""

    def scale(values: Array) -> Array:
        return _scaled(values, _percentile(values, lower), _percentile(values, upper), b_min, b_max, clip)

    volume.voxels = _by_channel(volume.voxels, scale, channel_wise)


def scale_range(
    volume: Volume, a_min: float, a_max: float, b_min: float | None, b_max: float | None, clip: bool
) -> None:
    """Scale so that ``a_min`` and ``a_max`` become ``b_min`` and ``b_max``."""
    # as in MONAI, only the difference is rounded to float32
    volume.voxels = _scaled(volume.voxels, a_min, a_max, b_min, b_max, clip)


def scale(volume: Volume, channel_wise: bool) -> None:
    """Scale so that the lowest and the highest value become 0 and 1."""

    def to_unit(values: Array) -> Array:
        return _scaled(values, values.min(), values.max(), None, None, clip=False)

    volume.voxels = _by_channel(volume.voxels, to_unit, channel_wise)


def invert_bright_background(volume: Volume, low: float, high: float) -> None:
    """Invert an image if its median is above the middle of the range."""
    if sampled_median(volume.voxels) > (low + high) / 2:
        volume.voxels = np.float32(low + high) - volume.voxels


def adjust_contrast(volume: Volume, gamma: float) -> None:
    """Scale to 0 to 1, raise to the power of ``gamma``, and scale back."""
    low = volume.voxels.min()
    extent = volume.voxels.max() - low
    part = (volume.voxels - low) / float(extent + np.float32(1e-7))
    # numpy's power of float32 is less exact
    volume.voxels = (part.astype(np.float64) ** gamma).astype(np.float32) * extent + low


def standardize(volume: Volume, channel_wise: bool, inside_surround: bool) -> None:
    """Mean 0 and standard deviation 1, if so wanted by channel and counting only what the surround leaves."""
    surround = search_surround(volume.voxels) if inside_surround else None
    kept = None if surround is None or surround.share == 1 else ~surround.mask

    def standard(values: Array) -> Array:
        return _standardized(values, values if kept is None else values[..., kept])

    volume.voxels = _by_channel(volume.voxels, standard, channel_wise)


def normalize(volume: Volume, nonzero: bool, channel_wise: bool) -> None:
    """Give the image mean 0 and standard deviation 1, optionally by channel and only for nonzero values."""

    def normal(values: Array) -> Array:
        if not nonzero:
            return _standardized(values, values)
        inside = values != 0
        result: Array = values.copy()
        if inside.any():
            result[inside] = _standardized(values[inside], values[inside])
        return result

    volume.voxels = _by_channel(volume.voxels, normal, channel_wise)


def _by_channel(voxels: Array, change: Callable[[Array], Array], channel_wise: bool) -> Array:
    return np.asarray(np.stack([change(channel) for channel in voxels]) if channel_wise else change(voxels))


def _standardized(values: Array, counted: Array) -> Array:
    """``values`` by mean and standard deviation of ``counted``, summed up in float64, a part at a time."""
    flat = counted.ravel(order="K")
    mean = float(flat.sum(dtype=np.float64) / flat.size)
    parts = (flat[start : start + _PART] for start in range(0, flat.size, _PART))
    squares = math.fsum(float(np.square(part.astype(np.float64) - mean).sum()) for part in parts)
    result: Array = (values - np.float32(mean)) / np.float32(math.sqrt(squares / flat.size) or 1.0)
    return result


def _scaled(
    values: Array, a_min: Array | float, a_max: Array | float, b_min: float | None, b_max: float | None, clip: bool
) -> Array:
    if a_max == a_min:
        return np.asarray(values - a_min + np.float32(b_min or 0))
    values = (values - a_min) / (a_max - a_min)
    if b_min is not None and b_max is not None:
        values = values * np.float32(b_max - b_min) + np.float32(b_min)
    return np.asarray(np.clip(values, b_min, b_max) if clip else values)


def _percentile(values: Array, percent: float) -> Array:
    """As in MONAI: numpy for many values, else like ``torch.quantile`` in float32."""
    if values.size > _MANY:
        return np.asarray(np.percentile(values, percent), dtype=np.float32)
    place = np.float32(percent / 100) * np.float32(values.size - 1)
    below, above = int(np.floor(place)), int(np.ceil(place))
    ordered = np.partition(values.reshape(-1), sorted({below, above}))
    low, high = np.float32(ordered[below]), np.float32(ordered[above])
    weight = place - np.float32(below)
    if weight < 0.5:
        return np.asarray(low + weight * (high - low))
    return np.asarray(high - (high - low) * (np.float32(1) - weight))
