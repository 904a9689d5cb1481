"""Settings that all predictors share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from os import PathLike

import torch

from monai_unetpp.devices import resolve_precision

__all__ = ["PredictorSettings"]


@dataclasses.dataclass(frozen=True)
class PredictorSettings:
    """Shape of the batches, and how to compute them.

    Attributes:
        levels: levels to compute, which needs a network with ``forward_levels``; ``None`` for the network's own output.
        window_shape: spatial shape of all windows.
        batch_size: largest number of windows in a batch.
        device: device of windows and network.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``; ``"auto"`` is resolved for the device. With torch
            and torch.compile, a network whose weights have another type than float32 then computes in this type.
        cache_dir: folder for networks converted for OpenVINO; by default ``monai-unetpp/openvino`` in the user's cache
            folder.

    Raises:
        ValueError: a value is invalid.
    """

    levels: Sequence[str] | None
    window_shape: Sequence[int]
    batch_size: int
    device: torch.device | str = "cpu"
    precision: str = "auto"
    cache_dir: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        shape = tuple(int(size) for size in self.window_shape)
        if not shape or min(shape) < 1:
            raise ValueError(
                f"window_shape must be positive sizes, one per spatial axis, got {list(self.window_shape)}."
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}.")
        object.__setattr__(self, "window_shape", shape)
        object.__setattr__(self, "precision", resolve_precision(self.precision, torch.device(self.device)))
