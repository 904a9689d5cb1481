"""Trace a network into a graph for windows of one shape, for compilers and converters."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from monai_unetpp.inferers.logits import logits_by_name
from monai_unetpp.inferers.predictors.predictor import called
from monai_unetpp.networks.stages import NetworkStage

#: Held while torch traces, as that uses state of the whole process.
TRACING = threading.RLock()


class _Outputs(nn.Module):
    """Returns the outputs of a network, or the logits of some levels in order, as a tuple."""

    def __init__(self, network: nn.Module, levels: Sequence[str] | None) -> None:
        super().__init__()
        self.network = network
        self.levels = None if levels is None else tuple(levels)

    def forward(self, windows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(logits_by_name(called(self.network, self.levels, windows)).values())


@contextmanager
def without_warnings_of_torch() -> Iterator[None]:
    """Leave out, within the block, what ``torch.export`` warns itself of in versions that already have the new way."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        yield


def trace_network(
    network: nn.Module, levels: Sequence[str] | None, windows: torch.Tensor, *, dynamic_batch: bool = False
) -> torch.export.ExportedProgram:
    """Trace a network in eval mode into a graph whose outputs are a tuple.

    They are those of ``levels`` in order, or what the network returns, a tensor or a dict of tensors. Of ``windows``
    ``(B, C, *spatial)``, only shape, dtype and device count; with ``dynamic_batch``, the graph takes any number of
    them, and ``B`` must be 2 or more.
    """
    shapes = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
    with TRACING, torch.no_grad():
        return torch.export.export(_Outputs(network, levels).eval(), (windows,), dynamic_shapes=shapes)


def trace_stage(
    stages: Sequence[NetworkStage], number: int, windows: torch.Tensor
) -> tuple[torch.export.ExportedProgram, list[tuple[int, ...]]]:
    """Trace one of the stages of a network in eval mode, and return the shapes of its inputs as well.

    Of ``windows`` ``(B, C, *spatial)``, which the first stage takes, only shape, dtype and device count.
    """
    with TRACING, torch.no_grad():
        # without computing anything
        with FakeTensorMode(allow_non_fake_inputs=True):
            kept = {"input": torch.empty_like(windows)}
            for stage in stages[:number]:
                kept = stage.advance(kept)[1]
        shapes = [tuple(kept[name].shape) for name in stages[number].takes]
        taken = tuple(torch.zeros(shape, dtype=windows.dtype, device=windows.device) for shape in shapes)
        return torch.export.export(stages[number].eval(), taken), shapes
