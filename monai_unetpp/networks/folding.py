"""Fold batch norms into the preceding convolutions, for inference."""

from __future__ import annotations

from typing import TypeVar

import torch
from monai.networks.blocks import ADN, Convolution
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized

_Network = TypeVar("_Network", bound=nn.Module)


def fold_batch_norms(network: _Network) -> _Network:
    """Fold each batch norm of a network in eval mode, with float weights, into the convolution before it, in place.

    In eval mode a batch norm scales and shifts every channel, which the convolution's weights and bias can do: the
    results agree to rounding, with one pass less over every feature map. Other norms are kept, and so are batch norms
    that do not directly follow a convolution, have no running statistics, or follow one with hooks or parametrizations,
    such as those of ``torch.nn.utils.prune`` and ``spectral_norm``, which would set its weights again. The parameters
    of the network, which is returned, then no longer match its configuration.
    """
    for module in network.modules():
        if not isinstance(module, Convolution) or "adn" not in module._modules:
            continue
        block = module.adn
        name, norm = next(iter(block.named_children()), ("", None)) if isinstance(block, ADN) else ("", None)
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or not norm.track_running_stats or norm.training:
            continue
        if isinstance(module.conv, nn.modules.conv._ConvNd) and not any(map(_is_changed, (module.conv, norm))):
            transposed = isinstance(module.conv, nn.modules.conv._ConvTransposeNd)
            with torch.no_grad():
                module.conv = fuse_conv_bn_eval(module.conv, norm, transpose=transposed)
            setattr(block, name, nn.Identity())
    return network


def _is_changed(layer: nn.Module) -> bool:
    return is_parametrized(layer) or bool(layer._forward_pre_hooks or layer._forward_hooks)
