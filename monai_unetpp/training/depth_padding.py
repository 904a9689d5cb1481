"""Convolutions of volumes whose weights get their gradient faster on processors with AVX2 and no AVX-512."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

#: Output channels up to which it was faster for inputs of any size, and up to which for small ones, and how many voxels
#: a small batch has at most.
_FEW_CHANNELS, _SOME_CHANNELS, _SMALL_VOXELS = 8, 16, 2**15


class DepthPaddedConv3d(nn.Conv3d):
    """A convolution that pads the first axis of its input itself, and leaves the others to the library.

    oneDNN has a fast gradient of the weights for AVX2 only where the first axis needs no padding. Otherwise it unfolds
    the input into a matrix, which is slow where the output has few channels. Results are the same but for rounding.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Convolve ``(B, C, D, H, W)``."""
        if self.out_channels > _FEW_CHANNELS and input.numel() > _SMALL_VOXELS * self.in_channels:
            return super().forward(input)
        depth, *others = map(int, self.padding)
        padded = functional.pad(input, (0, 0, 0, 0, depth, depth))
        return functional.conv3d(padded, self.weight, self.bias, self.stride, (0, *others), self.dilation, self.groups)


def pad_depth(network: nn.Module) -> nn.Module:
    """Let the convolutions of a network pad the first axis themselves where that makes training faster.

    That is so on processors with AVX2 and no AVX-512, for padded 3D convolutions with few output channels. All weights
    and their names stay the same.

    Args:
        network: on a CPU, with channels last; changed in place.

    Returns:
        The same network.
    """
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        for module in network.modules():
            if _may_gain(module):
                module.__class__ = DepthPaddedConv3d
    return network


def _may_gain(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv3d
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.padding[0] > 0
        and module.out_channels <= _SOME_CHANNELS
    )
