"""Run a network with eager torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from monai_unetpp.devices import HALF_DTYPES
from monai_unetpp.inferers.predictors.network_copy import NetworkCopy, is_plain_nested_unet
from monai_unetpp.inferers.predictors.predictor import Predictor, called, evaluating


class TorchPredictor(Predictor):
    """Runs a network with torch, under autocast for half precision.

    A nested U-Net with batch norms is run as a copy with these folded into the convolutions. On a GPU every nested
    U-Net is run as a copy with channels last in memory and convolution weights in the precision of the computation. Any
    other network is run unchanged.

    Args:
        network: a network, or any function of a tensor.
        **settings: see :class:`Predictor`.
    """

    runtime = "torch"

    def __init__(self, network: Callable[..., Any], **settings: Any) -> None:
        super().__init__(network, **settings)
        self._copy: NetworkCopy | None = None
        if is_plain_nested_unet(network) and (self.device.type == "cuda" or _has_batch_norms(network)):
            self._copy = copy_for_device(network, self)

    def _predict(self, windows: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        windows = self._converted(windows)
        if self._copy is not None and self.device.type == "cuda":
            windows = windows.contiguous(memory_format=channels_last(windows.dim()))
        # with the current weights
        network = self.network if self._copy is None else self._copy.current()
        with evaluating(network), computing(self.device, self.precision):
            return self._outputs(network, windows)

    def _outputs(self, network: Any, windows: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        return called(network, self.levels, windows)


def _has_batch_norms(network: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def copy_for_device(network: nn.Module, predictor: Predictor) -> NetworkCopy:
    """A copy of a network for a predictor; for a GPU its weights are laid out for the fastest convolutions.

    Convolution weights are then in half precision if autocast would convert them for every batch; norms stay float32.
    """
    on_gpu = predictor.device.type == "cuda"
    return NetworkCopy(network, predictor.levels, partial(_lay_out, precision=predictor.precision) if on_gpu else None)


def _lay_out(network: nn.Module, precision: str) -> None:
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            module.to(HALF_DTYPES.get(precision, module.weight.dtype))
            module.weight.data = module.weight.data.contiguous(memory_format=channels_last(module.weight.dim()))


@contextmanager
def computing(device: torch.device, precision: str) -> Iterator[None]:
    """Autocast for ``precision``; on a GPU let cuDNN benchmark convolutions for the batch shape."""
    dtype = HALF_DTYPES.get(precision)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        if device.type != "cuda":
            yield
            return
        settings = torch.backends.cudnn
        before = settings.benchmark
        settings.benchmark = not settings.deterministic
        try:
            yield
        finally:
            settings.benchmark = before


def channels_last(dims: int) -> torch.memory_format:
    """The memory format with channels last for tensors with ``dims`` axes."""
    return {4: torch.channels_last, 5: torch.channels_last_3d}.get(dims, torch.contiguous_format)
