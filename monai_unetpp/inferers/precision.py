"""Reduced precision around any inferer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer

from monai_unetpp.devices import HALF_DTYPES, resolve_precision
from monai_unetpp.inferers.logits import map_outputs
from monai_unetpp.inferers.window_run import device_of


class PrecisionInferer(Inferer):
    """Run another inferer with the network under autocast, and return its results in float32.

    Unlike ``amp=True`` of MONAI's engines this also works on a CPU, and keeps losses and stitching in float32. For
    training in bf16 on a CPU, give the network to :func:`monai_unetpp.training.accelerate`, which keeps small patches
    from wrong gradients.

    Args:
        inferer: the inferer to run; ``SimpleInferer`` by default.
        precision: ``"auto"`` uses bf16 if the network's device supports it natively, else fp32. For training,
            ``"fp16"`` needs ``amp=True`` of MONAI's trainer, which scales the loss.
    """

    def __init__(self, inferer: Inferer | None = None, precision: str = "auto") -> None:
        super().__init__()
        resolve_precision(precision, "cpu")
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.precision = precision

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Infer on ``inputs`` ``(B, C, *spatial)``; results have the structure of the network's output."""
        # windows may be moved to a network on another device
        dtype = HALF_DTYPES.get(resolve_precision(self.precision, device_of(network, inputs.device)))
        if dtype is None:
            return self.inferer(inputs, network, *args, **kwargs)

        def autocast_network(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            with torch.autocast(x.device.type, dtype=dtype):
                return map_outputs(_in_float32, network(x, *args, **kwargs))

        return self.inferer(inputs, autocast_network, *args, **kwargs)


def _in_float32(output: torch.Tensor) -> torch.Tensor:
    """Floating-point numbers in float32; classes and masks as they are."""
    return output.float() if output.is_floating_point() else output
