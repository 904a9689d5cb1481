"""Choose the fewest and largest windows that fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from monai_unetpp.inferers.predictors.network_copy import is_nested_unet
from monai_unetpp.inferers.windows import WindowGrid
from monai_unetpp.networks.config import NestedUNetConfig
from monai_unetpp.window_layout import choose_layout

__all__ = ["choose_windows", "downsampling_of", "warn_of_window_norms"]

logger = logging.getLogger(__name__)


def choose_windows(
    image_size: Sequence[int], most_voxels: int, multiples: Sequence[int], overlap: Sequence[float] | float
) -> WindowGrid:
    """The grid chosen by :func:`monai_unetpp.window_layout.choose_layout`."""
    layout = choose_layout(image_size, most_voxels, multiples, overlap)
    return WindowGrid(layout.image_size, layout.window_size, layout.starts)


def downsampling_of(network: Callable[..., Any], axes: int) -> tuple[int, ...]:
    """The factor by which a nested U-Net downsamples each axis; 1 for any other function."""
    # a network for other axes says so itself
    if not is_nested_unet(network) or network.spatial_dims != axes:
        return (1,) * axes
    return NestedUNetConfig.check(**network.config).downsampling


def warn_of_window_norms(network: Callable[..., Any]) -> None:
    """Say in one line that windows of another size change what a network finds, where it has norms by the window."""
    modules = network.modules() if isinstance(network, nn.Module) else ()
    found = next((type(each).__name__ for each in modules if _is_by_window(each)), None)
    if found is not None:
        logger.warning(
            "Window shape auto: the network has %s, which takes its statistics from each window, so other windows than "
            "the bundle's change every voxel. Leave auto out for this network.",
            found,
        )


def _is_by_window(module: nn.Module) -> bool:
    if isinstance(module, _NormBase):
        return not module.track_running_stats
    return isinstance(module, (nn.GroupNorm, nn.LayerNorm))
