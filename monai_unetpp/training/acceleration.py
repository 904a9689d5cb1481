"""Faster training steps: memory format of the weights, torch.compile, and memory that is kept."""

from __future__ import annotations

import logging

import torch
from torch import nn

from monai_unetpp.distributed import unwrapped
from monai_unetpp.training.depth_padding import pad_depth
from monai_unetpp.training.freed_memory import keep_freed_memory

logger = logging.getLogger(__name__)


def accelerate(network: nn.Module, channels_last: bool = False, compile: bool = False) -> nn.Module:
    """Speed up the training of a network in place; names and values of its weights stay the same.

    On a CPU, with the GNU C library, this process also keeps the memory that it frees for the next step. With channels
    last, some convolutions of volumes are computed in another way there; see :func:`.pad_depth`.

    Args:
        network: a nested U-Net in training, possibly wrapped for distributed training.
        channels_last: keep the channels of a voxel adjacent in memory, which is faster on many processors. A wrapper
            for distributed training remembers the layout of its network, and would mix up gradients if it changed: then
            nothing is done, and the network must be given before it is wrapped.
        compile: compile it by ``torch.compile`` at the first step. If this is impossible, such as without a C++
            compiler, a warning is logged and training continues without it.

    Returns:
        The same network.
    """
    inner = unwrapped(network)
    device = next(inner.parameters()).device
    if channels_last and inner is network:
        flat = getattr(inner, "spatial_dims", 3) == 2
        inner.to(memory_format=torch.channels_last if flat else torch.channels_last_3d)  # type: ignore[call-overload]
        if device.type == "cpu":
            pad_depth(inner)
    if device.type == "cpu":
        keep_freed_memory()
    if compile and _can_compile(device):
        # in place, as a wrapper would change the names of the weights
        inner.compile(dynamic=False)
    return network


def _can_compile(device: torch.device) -> bool:
    try:
        torch.compile(_double)(torch.ones(2, device=device))
    except Exception as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        logger.warning("The network is trained without torch.compile, which does not work here (%s).", reason)
        return False
    return True


def _double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x
