"""Beginning with the weights of another network, as far as they fit."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch

from monai_unetpp.networks.checkpoint import read_checkpoint
from monai_unetpp.networks.nested_unet import NestedUNet

__all__ = ["Transfer", "transfer_weights"]

logger = logging.getLogger(__name__)

_FIRST = "nodes.x_0_0."
_IN_BUNDLE = Path("models") / "model.pt"

_Tensors = Mapping[str, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Which parts of a network begin with other weights than random ones.

    Attributes:
        source: the file of the weights.
        taken: nodes and heads whose weights are those of the file.
        averaged: nodes that see other channels: their first convolution begins with the mean over the file's channels.
        fresh: nodes and heads that begin with random weights, as the file has none of their shape.
    """

    source: str
    taken: tuple[str, ...]
    averaged: tuple[str, ...]
    fresh: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.taken)} of {len(self.taken) + len(self.averaged) + len(self.fresh)} nodes and heads"]
        parts += [f"the first layer of {name} as the mean over its channels" for name in self.averaged]
        fresh = f"; fresh: {', '.join(self.fresh)}" if self.fresh else ""
        return f"from {self.source}: {' and '.join(parts)}{fresh}"


def transfer_weights(network: NestedUNet, source: str | PathLike[str]) -> Transfer:
    """Let a network begin with the weights of another one, node by node, where their shapes match.

    The other network may have another depth, variant, number of classes or of channels. A node or head is taken whole
    or not at all. Only the first node may differ in its input channels: then its first convolution becomes the mean
    over the channels of the other one, scaled so that images of equal channels give what they gave.

    Args:
        network: is changed in place.
        source: a checkpoint, which is read with ``weights_only=True``, or the folder of a bundle.

    Returns:
        What was taken.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of weights, or none of them fit.

    Example:
        >>> import torch
        >>> from monai_unetpp import NestedUNet
        >>> shallow = NestedUNet(2, 1, 2, features=(4, 8))
        >>> torch.save(shallow.state_dict(), "shallow.pt")
        >>> print(transfer_weights(NestedUNet(2, 1, 2, features=(4, 8, 16)), "shallow.pt"))
        from shallow.pt: 4 of 8 nodes and heads; fresh: x_2_0, x_1_1, x_0_2, L2
    """
    path = Path(source) / _IN_BUNDLE if Path(source).is_dir() else Path(source)
    given, _ = read_checkpoint(path)
    own = network.state_dict()
    taken, averaged, fresh = [], [], []
    chosen: dict[str, torch.Tensor] = {}
    for name, keys in _parts(own).items():
        wanted = {key: own[key] for key in keys}
        found = {key: value for key, value in given.items() if key.startswith(_prefix(keys[0]))}
        if _fits(found, wanted):
            taken.append(name)
        elif keys[0].startswith(_FIRST) and _fits(found := _with_channels(found, wanted), wanted):
            averaged.append(name)
        else:
            fresh.append(name)
            continue
        chosen |= found
    if not chosen:
        raise ValueError(
            f"{path}: none of its weights fit the network, which has other features, kernels, norm or axes. Give "
            "weights of a network with the same features."
        )
    network.load_state_dict({**own, **chosen})
    transfer = Transfer(str(path), tuple(taken), tuple(averaged), tuple(fresh))
    logger.info("Training begins with weights %s.", transfer)
    return transfer


def _prefix(key: str) -> str:
    """``"nodes.x_0_0."`` of all keys of this node."""
    return ".".join(key.split(".")[:2]) + "."


def _parts(weights: _Tensors) -> dict[str, list[str]]:
    """The keys of every node and head, by its name."""
    parts: dict[str, list[str]] = {}
    for key in weights:
        parts.setdefault(key.split(".")[1], []).append(key)
    return parts


def _fits(found: _Tensors, wanted: _Tensors) -> bool:
    return found.keys() == wanted.keys() and all(found[key].shape == wanted[key].shape for key in wanted)


def _with_channels(found: _Tensors, wanted: _Tensors) -> dict[str, torch.Tensor]:
    """The weights with as many input channels as wanted, where that is all in which they differ."""
    changed = dict(found)
    for key, value in found.items():
        goal = wanted[key].shape if key in wanted else value.shape
        if value.dim() > 2 and len(goal) == value.dim() and (value.shape[0], *value.shape[2:]) == (goal[0], *goal[2:]):
            repeats = [goal[1] if axis == 1 else 1 for axis in range(value.dim())]
            scale = value.shape[1] / goal[1]
            changed[key] = value.mean(1, keepdim=True).repeat(repeats) * scale if scale != 1 else value
    return changed
