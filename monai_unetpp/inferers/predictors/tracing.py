"""One graph of a network for windows of one shape, from which compilers and converters start."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from monai_unetpp.inferers.predictors.predictor import called

__all__ = ["trace_network"]


class _Outputs(nn.Module):
    """What a network returns as a tuple: its output, or the logits of some levels in order."""

    def __init__(self, network: nn.Module, levels: Sequence[str] | None) -> None:
        super().__init__()
        self.network = network
        self.levels = None if levels is None else tuple(levels)

    def forward(self, windows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = called(self.network, self.levels, windows)
        return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs.values())


def trace_network(
    network: nn.Module, levels: Sequence[str] | None, windows: torch.Tensor, *, dynamic_batch: bool = False
) -> torch.export.ExportedProgram:
    """The graph of ``network`` for ``windows``, whose outputs are a tuple.

    Args:
        network: in eval mode.
        levels: levels to put out, in this order; ``None`` for what the network returns, which must be one tensor.
        windows: ``(B, C, *spatial)``; only the shape, kind and device count.
        dynamic_batch: keep the number of windows open; ``B`` must then be 2 or more.
    """
    shapes = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
    with torch.no_grad():
        return torch.export.export(_Outputs(network, levels).eval(), (windows,), dynamic_shapes=shapes)
