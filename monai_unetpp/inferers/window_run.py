"""The constants of one run of a network over the windows of images."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from monai_unetpp.inferers.predictors.network_copy import is_nested_unet, module_behind
from monai_unetpp.inferers.predictors.predictor import evaluating
from monai_unetpp.inferers.windows import WindowGrid


def device_of(network: Any, otherwise: torch.device) -> torch.device:
    """The device of a network's weights; ``otherwise`` if it has none."""
    module = module_behind(network)
    for weights in () if module is None else (*module.parameters(), *module.buffers()):
        return weights.device
    return otherwise


@dataclasses.dataclass(frozen=True)
class WindowRun:
    """Images ``(B, C, *spatial)``, their windows, and the network to run with further arguments.

    ``depths`` has the number of windows that stopped at each level, by name of each adaptive level.
    """

    images: torch.Tensor
    network: Callable[..., Any]
    grid: WindowGrid
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    depths: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    @property
    def has_arguments(self) -> bool:
        """Whether the network takes other arguments than windows, which only runtime torch supports."""
        return bool(self.args or self.kwargs)

    @property
    def windows(self) -> int:
        """Number of windows in all images."""
        return self.images.shape[0] * len(self.grid.positions)

    @functools.cached_property
    def device(self) -> torch.device:
        """The device of the network's weights, or of the images if it has none."""
        return device_of(self.network, self.images.device)

    @property
    def out_channels(self) -> int | None:
        """Channels of the logits, if known from the network's configuration."""
        return int(self.network.config["out_channels"]) if is_nested_unet(self.network) else None

    @functools.cached_property
    def called(self) -> Callable[..., Any]:
        """The network as a function of windows alone."""
        if not self.has_arguments:
            return self.network

        def with_arguments(windows: torch.Tensor) -> Any:
            with evaluating(self.network):
                return self.network(windows, *self.args, **self.kwargs)

        return with_arguments
