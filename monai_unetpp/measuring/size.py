"""Measure the size of a network: its parameters, and the operations of one pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(network: nn.Module) -> int:
    """Number of parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_flops(network: Callable[[torch.Tensor], object], inputs: torch.Tensor) -> int:
    """Floating-point operations of one pass; a multiplication and an addition count as two.

    Only convolutions and matrix products are counted, which make up nearly all. The network must be on the device of
    ``inputs``; the meta device counts without computing.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(inputs)
    return int(counter.get_total_flops())
