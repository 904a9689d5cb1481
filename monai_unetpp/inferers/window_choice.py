"""Choose the fewest and largest windows that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from monai_unetpp.inferers.predictors.network_copy import is_plain_nested_unet
from monai_unetpp.inferers.windows import WindowGrid
from monai_unetpp.window_layout import choose_layout

__all__ = ["choose_windows", "downsampling_of"]


def choose_windows(
    image_size: Sequence[int], most_voxels: int, multiples: Sequence[int], overlap: Sequence[float] | float
) -> WindowGrid:
    """The grid chosen by :func:`monai_unetpp.window_layout.choose_layout`."""
    layout = choose_layout(image_size, most_voxels, multiples, overlap)
    return WindowGrid(layout.image_size, layout.window_size, layout.starts)


def downsampling_of(network: Callable[..., Any], axes: int) -> tuple[int, ...]:
    """The factor by which a nested U-Net downsamples each axis; 1 for any other function."""
    if not is_plain_nested_unet(network):
        return (1,) * axes
    factors = [1] * axes
    strides = network.config["strides"]
    steps = [strides] * (len(network.config["features"]) - 1) if isinstance(strides, int) else strides
    for step in steps:
        along = [step] * axes if isinstance(step, int) else step
        factors = [factor * each for factor, each in zip(factors, along, strict=True)]
    return tuple(factors)
