"""The interface of all runtimes: logits for a batch of windows with the network's current weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from monai_unetpp import topology
from monai_unetpp.errors import counted
from monai_unetpp.inferers.logits import ONLY, logits_by_name
from monai_unetpp.inferers.predictors.network_copy import is_plain_nested_unet, module_behind, weight_types
from monai_unetpp.inferers.predictors.predictor_settings import PredictorSettings


class Predictor(ABC):
    """Runs one network on batches of windows of one shape, without gradients and in eval mode.

    A predictor may keep a copy of the network, which it updates before the next batch when the weights change. It does
    not notice changes through ``.data``, which torch does not count.

    Args:
        network: a network, or any function of a tensor.
        **settings: fields of :class:`~monai_unetpp.inferers.predictors.predictor_settings.PredictorSettings`.

    Raises:
        TypeError: the network has no levels, or is not callable.
        ValueError: the network lacks a level, or another argument is invalid.
    """

    #: The runtime, ``"torch"``, ``"compile"`` or ``"openvino"``.
    runtime: str
    #: Channels of the windows that the network was compiled or converted for.
    _channels: int | None = None

    def __init__(self, network: Callable[..., Any], **settings: Any) -> None:
        types = weight_types(network)
        is_reduced = bool(types) and torch.float32 not in types
        if self.runtime != "openvino" and settings.get("precision", "auto") == "auto" and is_reduced:
            # as it is, without autocast
            settings["precision"] = "fp32"
        chosen = PredictorSettings(**settings)
        self.network = network
        self.levels = _check_levels(network, chosen.levels)
        self.window_shape = tuple(chosen.window_shape)
        self.batch_size = chosen.batch_size
        self.device = torch.device(chosen.device)
        #: ``"fp32"``, ``"bf16"`` or ``"fp16"``, never ``"auto"``.
        self.precision = chosen.precision
        self.cache_dir = chosen.cache_dir

    def __call__(self, windows: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """Logits of a batch of windows.

        Args:
            windows: a plain tensor ``(B, C, *window_shape)`` on the device, with ``B`` from 1 to ``batch_size``.

        Returns:
            The logits ``(B, out_channels, *window_shape)``, or a dict of them by level if levels were requested, or by
            the network's own names. They may be in half precision, and must not be written to.

        Raises:
            TypeError: a network to be compiled or converted returns neither a tensor nor a dict of tensors.
            ValueError: there are too many windows, or they have another shape.
        """
        if tuple(windows.shape[2:]) != self.window_shape or not 1 <= windows.shape[0] <= self.batch_size:
            shape = ", ".join(map(str, self.window_shape))
            raise ValueError(
                f"windows must have shape (1 to {self.batch_size}, channels, {shape}), got {list(windows.shape)}. "
                "Make a predictor for windows of this shape."
            )
        if self._channels not in (None, windows.shape[1]):
            raise ValueError(
                f"windows must have the {counted(self._channels, 'channel')} of the network, got {windows.shape[1]}."
            )
        with torch.no_grad():
            return self._predict(windows)

    def prepare(self, windows: torch.Tensor) -> None:
        """Convert or compile now, if necessary, so that the next batch does not wait.

        Args:
            windows: as for a call; only the shape counts.
        """
        return

    def release(self) -> None:
        """Free memory that only a running network needs; the next batch takes it again."""
        return

    def _converted(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows in the type of the network's weights, as images may be float64 or half precision."""
        return windows.to(next((each for each in weight_types(self.network) if each.is_floating_point), windows.dtype))

    @abstractmethod
    def _predict(self, windows: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """Logits of checked windows; gradients are off."""


@contextmanager
def evaluating(network: Any) -> Iterator[None]:
    """Put all modules of ``network``, or of the one whose method it is, in eval mode, and restore them afterwards."""
    called = module_behind(network)
    training = [] if called is None else [module for module in called.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _check_levels(network: Callable[..., Any], levels: Sequence[str] | None) -> tuple[str, ...] | None:
    if not callable(network):
        raise TypeError(f"network must be a network or a function, got {type(network).__name__}.")
    if levels is None:
        return None
    if not hasattr(network, "forward_levels"):
        raise TypeError(
            f"network must have forward_levels for levels {list(levels)}, got {type(network).__name__}. Use a "
            "NestedUNet (of one that is wrapped, as by DataParallel, its .module), or levels=None."
        )
    if isinstance(levels, str) or not levels:
        raise ValueError(f"levels must be a non-empty list such as ['L1', 'L2'], or None, got {levels!r}.")
    known = getattr(network, "levels", None)
    if known is not None:
        for level in levels:
            topology.level_index(level, known)
    return tuple(levels)


def check_module(network: Callable[..., Any], runtime: str) -> nn.Module:
    """``network``, which conversion and compilation need to be a module; a TypeError if it is not."""
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"network must be a module for runtime {runtime!r}, got {type(network).__name__}. Use runtime 'torch'."
        )
    return network


def called(network: Any, levels: Sequence[str] | None, windows: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
    """The output of ``network`` for ``windows``, or its logits by level in the order of ``levels``."""
    if levels is None:
        outputs: torch.Tensor = network(windows)
        return outputs
    by_level: Mapping[str, torch.Tensor] = network.forward_levels(windows, levels)
    return {level: by_level[level] for level in levels}


def complete_batch(windows: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Pad ``windows`` with zeros to ``batch_size``."""
    missing = batch_size - windows.shape[0]
    return torch.cat([windows, windows.new_zeros((missing, *windows.shape[1:]))]) if missing else windows


def output_names(network: nn.Module, levels: Sequence[str] | None, windows: torch.Tensor) -> tuple[str, ...]:
    """Names of the outputs for ``levels``; a network that may return anything without levels is run on one window."""
    if levels is not None or is_plain_nested_unet(network):
        return tuple(levels or (ONLY,))
    with torch.no_grad():
        return tuple(logits_by_name(network(windows[:1])))


def named_outputs(outputs: Sequence[torch.Tensor], names: Sequence[str]) -> torch.Tensor | dict[str, torch.Tensor]:
    """The outputs of a converted network by name, or the only one."""
    by_name = dict(zip(names, outputs, strict=True))
    return by_name.get(ONLY, by_name)
