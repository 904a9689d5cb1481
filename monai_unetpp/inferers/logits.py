"""Logits of a batch of windows, by level or not, on their way from the network to stitching."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from monai_unetpp.inferers.window_batches import WindowBatch

#: Name of the output of a network without levels.
ONLY = ""
#: A batch of windows and its logits by name.
Predicted = tuple[WindowBatch, dict[str, torch.Tensor]]


def logits_by_name(outputs: Any) -> dict[str, torch.Tensor]:
    """The outputs of a network by name; a TypeError if they are neither a tensor nor a dict of tensors."""
    named = dict(outputs) if isinstance(outputs, Mapping) else {ONLY: outputs}
    for found in named.values():
        if not isinstance(found, torch.Tensor):
            raise TypeError(
                f"network must return a tensor or a dict of tensors, got {type(found).__name__}. Wrap it in a function "
                "that returns one, or use levels of a NestedUNet."
            )
    return named


def map_outputs(function: Callable[..., torch.Tensor], *outputs: Any) -> Any:
    """Apply a function of tensors to outputs of networks: to tensors, or to each entry of dicts or lists alike."""
    first = outputs[0]
    if isinstance(first, Mapping):
        return {key: map_outputs(function, *(each[key] for each in outputs)) for key in first}
    if isinstance(first, Sequence):
        return [map_outputs(function, *entries) for entries in zip(*outputs, strict=True)]
    return function(*outputs)


def through_pinned_memory(predictions: Iterator[Predicted]) -> Iterator[Predicted]:
    """Copy logits from the GPU to the CPU while the GPU computes the next batch."""
    waiting: tuple[WindowBatch, dict[str, torch.Tensor], torch.cuda.Event] | None = None
    for batch, logits in predictions:
        arrived = torch.cuda.Event()
        moved = {}
        for name, found in logits.items():
            moved[name] = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
            moved[name].copy_(found, non_blocking=True)
            arrived.record(torch.cuda.current_stream(found.device))
        if waiting is not None:
            waiting[2].synchronize()
            yield waiting[:2]
        waiting = batch, moved, arrived
    if waiting is not None:
        waiting[2].synchronize()
        yield waiting[:2]
