"""Initialize a network with the weights of another one, as far as they fit."""

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
    """Which parts of a network were initialized from a file.

    Attributes:
        source: the file of weights.
        taken: nodes and heads with the weights of the file.
        averaged: nodes with other input channels: their first convolution has the mean over the file's channels.
        fresh: nodes and heads with random weights, as the file has none of their shape.
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
    """Initialize a network with the weights of another one, node by node, if their shapes match.

    The other network may differ in depth, variant, and number of classes or channels. Nodes and heads are copied whole
    or not at all. Only the first node may differ in input channels: then its first convolution becomes the mean over
    the channels of the other one, scaled so that images with equal channels give the same result.

    Args:
        network: the network, changed in place.
        source: a checkpoint, read with ``weights_only=True``, or the folder of a bundle.

    Returns:
        The parts that were initialized.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it holds no weights, or none of them fit.

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
            f"{path}: none of its weights fit the network, which differs in features, kernels, norm or axes. Give "
            "weights of a network with the same features."
        )
    network.load_state_dict({**own, **chosen})
    transfer = Transfer(str(path), tuple(taken), tuple(averaged), tuple(fresh))
    logger.info("Training begins with weights %s.", transfer)
    return transfer


def _prefix(key: str) -> str:
    """The prefix of all keys of a node or head, such as ``"nodes.x_0_0."``."""
    return ".".join(key.split(".")[:2]) + "."


def _parts(weights: _Tensors) -> dict[str, list[str]]:
    """The keys of every node and head, by name."""
    parts: dict[str, list[str]] = {}
    for key in weights:
        parts.setdefault(key.split(".")[1], []).append(key)
    return parts


def _fits(found: _Tensors, wanted: _Tensors) -> bool:
    return found.keys() == wanted.keys() and all(found[key].shape == wanted[key].shape for key in wanted)


def _with_channels(found: _Tensors, wanted: _Tensors) -> dict[str, torch.Tensor]:
    """The weights with the wanted number of input channels, if they differ in nothing else."""
    changed = dict(found)
    for key, value in found.items():
        goal = wanted[key].shape if key in wanted else value.shape
        if value.dim() > 2 and len(goal) == value.dim() and (value.shape[0], *value.shape[2:]) == (goal[0], *goal[2:]):
            repeats = [goal[1] if axis == 1 else 1 for axis in range(value.dim())]
            scale = value.shape[1] / goal[1]
            changed[key] = value.mean(1, keepdim=True).repeat(repeats) * scale if scale != 1 else value
    return changed
