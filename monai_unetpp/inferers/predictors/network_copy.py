"""Copies of networks for inference that follow weight changes."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
from torch import nn

from monai_unetpp.networks import NestedUNet
from monai_unetpp.networks.folding import fold_batch_norms
from monai_unetpp.networks.hashing import is_altered
from monai_unetpp.networks.nested_unet import copy_module

#: Whole numbers of the size of each value, at most half as long as those that they are multiplied in.
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32}
#: An odd number whose bits are without order: 2**64 over the golden ratio, as a signed number.
_SPREAD = -7046029254386353131


class NetworkCopy:
    """A copy of a network, in eval mode and without gradients, that is updated when the weights change.

    Its batch norms are folded into its convolutions; with one level it is pruned to it. Then ``prepare`` changes it in
    place, such as its memory layout. The network itself is not changed.
    """

    def __init__(
        self, network: nn.Module, levels: Sequence[str] | None, prepare: Callable[[nn.Module], Any] | None = None
    ) -> None:
        self._network = network
        self._state = state_of_weights(network)
        self._levels = levels
        # what is made in inference mode could not be updated outside of it
        with torch.inference_mode(False):
            self._copy = self._made()
            if prepare is not None:
                prepare(self._copy)

    def _made(self) -> nn.Module:
        return fold_batch_norms(copy_for_inference(self._network, self._levels))

    def current(self) -> nn.Module:
        """The copy with the network's current weights; always the same object."""
        state = state_of_weights(self._network)
        if state != self._state:
            with torch.inference_mode(False), torch.no_grad():
                weights = self._made().state_dict()
                for name, kept in self._copy.state_dict().items():
                    kept.copy_(weights[name])
            self._state = state
        return self._copy


def is_nested_unet(network: Any) -> TypeGuard[NestedUNet]:
    """Whether a network has the levels and channels that its configuration says; a subclass may have others."""
    return type(network) is NestedUNet


def is_plain_nested_unet(network: Any) -> TypeGuard[NestedUNet]:
    """Whether its modules and weights fully define what a nested U-Net computes, as neither hooks nor a method do."""
    return is_nested_unet(network) and not is_altered(network)


def copy_for_inference(network: nn.Module, levels: Sequence[str] | None) -> nn.Module:
    """A copy in eval mode and without gradients; a nested U-Net is pruned if a single level is wanted."""
    level = levels[0] if levels is not None and len(levels) == 1 else None
    if is_plain_nested_unet(network) and (level is not None or levels is None):
        copied: nn.Module = network.prune(network.levels[-1] if level is None else level)
    else:
        copied = copy_module(network)
    return copied.eval().requires_grad_(False)


def module_behind(network: Any) -> nn.Module | None:
    """The module that is called, also by one of its methods or by ``functools.partial``; None for other functions."""
    while isinstance(network, functools.partial):
        network = network.func
    module = getattr(network, "__self__", network)
    return module if isinstance(module, nn.Module) else None


def weight_types(network: Callable[..., Any]) -> tuple[torch.dtype, ...]:
    """The types of a network's weights, each once, in the order of the weights; empty if no module is called."""
    module = module_behind(network)
    return () if module is None else tuple(dict.fromkeys(each.dtype for each in module.parameters()))


def state_of_weights(network: nn.Module) -> tuple[tuple[int, int], ...]:
    """A key that changes when the weights are trained, loaded or moved, computed without reading their values.

    Fused optimizers and changes through ``.data`` do not change it; see :func:`mark_changed_weights`. Only tensors made
    in ``torch.inference_mode()`` are read, as torch never counts their changes.
    """
    tensors = (*network.parameters(), *network.buffers())
    return tuple(
        (tensor.data_ptr(), checksums([tensor])[0] if tensor.is_inference() else tensor._version) for tensor in tensors
    )


@torch.no_grad()
def mark_changed_weights(network: Any, known: tuple[int, ...]) -> tuple[int, ...]:
    """Tell torch of weights that fused optimizers or ``.data`` changed, so that :func:`state_of_weights` changes.

    Returned is a checksum of each parameter and buffer, which shows changes of the values however they were made, for
    ``known`` of the next call. It is empty for other functions, of which nothing is kept that could be old.
    """
    tensors = (*network.parameters(), *network.buffers()) if isinstance(network, nn.Module) else ()
    found = checksums(tensors)
    if known and found != known:
        torch.autograd.graph.increment_version([tensor for tensor in tensors if not tensor.is_inference()])
    return found


def checksums(tensors: Sequence[torch.Tensor]) -> tuple[int, ...]:
    """A checksum of each tensor that depends on all its bits and their places."""
    found: list[int | torch.Tensor] = [
        zlib.crc32(_flat(each).view(torch.uint8).numpy().data)
        if each.device.type == "cpu"
        else checksum_on_device(each)
        for each in tensors
    ]
    waiting = [each for each in found if isinstance(each, torch.Tensor)]
    # from the device all at once
    sums = iter(torch.stack([each.to(waiting[0].device) for each in waiting]).tolist() if waiting else ())
    return tuple(next(sums) if isinstance(each, torch.Tensor) else each for each in found)


def checksum_on_device(tensor: torch.Tensor) -> torch.Tensor:
    """A checksum of a tensor, as a whole number on its device."""
    words = _flat(tensor)
    words = words.view(_WORDS[words.itemsize])
    # a factor for each place; products and sums overflow
    factors = torch.arange(1, len(words) + 1, device=words.device) * _SPREAD
    return (words * ((factors ^ (factors >> 29)) | 1)).sum()


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    values = tensor.detach().contiguous().flatten()
    return torch.view_as_real(values).flatten() if values.is_complex() else values
