"""Faster steps of training: the layout of weights in memory, and torch.compile."""

from __future__ import annotations

import logging

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["accelerate"]

logger = logging.getLogger(__name__)


def accelerate(network: nn.Module, channels_last: bool = False, compile: bool = False) -> nn.Module:
    """Let a network compute faster, in place; names and values of its weights stay.

    Args:
        network: a nested U-Net in training; a wrapper for distributed training is looked into.
        channels_last: keep the channels of a voxel together in memory, as many processors like them.
        compile: make one program of it with the first step, by ``torch.compile``; where that is impossible, such as
            without a C++ compiler, a warning is logged and training continues without.

    Returns:
        The same network.
    """
    inner = network.module if isinstance(network, DistributedDataParallel) else network
    if channels_last:
        flat = getattr(inner, "spatial_dims", 3) == 2
        inner.to(memory_format=torch.channels_last if flat else torch.channels_last_3d)  # type: ignore[call-overload]
    if compile and _can_compile(next(inner.parameters()).device):
        # of the module itself: a wrapper would change the names of its weights
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
