"""The mean of all heads as one more level of a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from monai_unetpp.inferers.head_averaging import mean_of_heads
from monai_unetpp.networks import NestedUNet
from monai_unetpp.study.variants import MEAN_OF_HEADS


class MeanOfHeads(nn.Module):
    """A nested U-Net with one more level: the mean of all heads, as ``segment`` takes it.

    Args:
        network: with deep supervision.

    Attributes:
        config: that of the network.
        levels: those of the network, and :data:`~monai_unetpp.study.variants.MEAN_OF_HEADS`.
    """

    def __init__(self, network: NestedUNet) -> None:
        super().__init__()
        self.network = network
        self.config = network.config
        self.spatial_dims = network.spatial_dims
        self.in_channels = network.in_channels
        self.levels = (*network.levels, MEAN_OF_HEADS)

    def forward_levels(self, x: torch.Tensor, levels: Sequence[str]) -> dict[str, torch.Tensor]:
        """Logits ``(B, C, H, W[, D])`` of each level; those of the mean come from :func:`mean_of_heads`."""
        if MEAN_OF_HEADS not in levels:
            return self.network.forward_levels(x, levels)
        outputs = self.network.forward_levels(x)
        outputs[MEAN_OF_HEADS] = mean_of_heads(list(outputs.values()))
        return {level: outputs[level] for level in levels}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The mean ``(B, C, H, W[, D])`` alone."""
        return self.forward_levels(x, [MEAN_OF_HEADS])[MEAN_OF_HEADS]
