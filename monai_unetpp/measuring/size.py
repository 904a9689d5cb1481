"""How large a network is: its parameters, and the operations of one pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["count_flops", "count_parameters"]


def count_parameters(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_flops(network: Callable[[torch.Tensor], object], inputs: torch.Tensor) -> int:
    """Floating-point operations of one pass: a multiplication and an addition are two.

    Only convolutions and matrix products are counted, which are nearly all.

    Args:
        network: what is run, with the same device as ``inputs``; the meta device counts without computing.
        inputs: ``(B, C, *spatial)``.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(inputs)
    return int(counter.get_total_flops())
