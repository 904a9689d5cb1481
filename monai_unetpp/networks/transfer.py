"""Initialize a network with the weights of another one, as far as they fit."""

from __future__ import annotations

import itertools
import json
import logging
import re
import shlex
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from monai_unetpp.choices import NORMS
from monai_unetpp.networks.checkpoint import read_checkpoint
from monai_unetpp.networks.config import NestedUNetConfig
from monai_unetpp.networks.nested_unet import NestedUNet
from monai_unetpp.networks.transferred import IN_BUNDLE, Transfer
from monai_unetpp.plain_values import to_plain

logger = logging.getLogger(__name__)

_FIRST = "nodes.x_0_0."
#: Pattern of the weights of a decoder node whose kernel is the step of its row.
_STEP = r"upsample\.deconv\.weight"
#: Arguments that the shapes of weights depend on: those that a plan can set, and others.
_SETTABLE = ("features", "kernel_size", "norm", "strides")
_FIXED = ("spatial_dims", "block", "bias", "upsample")

_Tensors = Mapping[str, torch.Tensor]


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
        from shallow.pt: 4 of 8 nodes and heads (1,714 of 8,304 weights); fresh: x_2_0, x_1_1, x_0_2, L2
    """
    transfer, chosen = _match(network, source)
    network.load_state_dict({**network.state_dict(), **chosen})
    logger.info("Training begins with weights %s.", transfer)
    return transfer


def compare_weights(network: NestedUNet, source: str | PathLike[str]) -> Transfer:
    """What :func:`transfer_weights` would take, or its errors; the network stays, and may be on the device ``meta``."""
    return _match(network, source)[0]


def _match(network: NestedUNet, source: str | PathLike[str]) -> tuple[Transfer, dict[str, torch.Tensor]]:
    """What the network takes, and its weights by name."""
    path = Path(source) / IN_BUNDLE if Path(source).is_dir() else Path(source)
    given, config = read_checkpoint(path)
    own = network.state_dict()
    taken, averaged, fresh = [], [], []
    chosen: dict[str, torch.Tensor] = {}
    for prefix, keys in _parts(own).items():
        name = prefix.split(".")[1]
        wanted = {key: own[key] for key in keys}
        found = {key: value for key, value in given.items() if key.startswith(prefix)}
        if _fits(found, wanted):
            taken.append(name)
        elif prefix == _FIRST and _fits(found := _with_channels(found, wanted), wanted):
            averaged.append(name)
        else:
            fresh.append(name)
            continue
        chosen |= found
    # heads alone would classify what random nodes give them
    if not any(key.startswith("nodes.") for key in chosen):
        raise ValueError(f"{path}: none of its weights fit the network{_difference(network.config, config, given)}")
    _warn_of_other_results(path, network.config, config)
    sizes = {key: parameter.numel() for key, parameter in network.named_parameters()}
    weights = sum(size for key, size in sizes.items() if key in chosen)
    transfer = Transfer(
        str(path), tuple(taken), tuple(averaged), tuple(fresh), weights=weights, all_weights=sum(sizes.values())
    )
    return transfer, chosen


def _warn_of_other_results(path: Path, own: Mapping[str, Any], given: Mapping[str, Any] | None) -> None:
    """Warn of what shapes of weights do not show, and without which they compute something else."""
    if given is None:
        return
    ours, theirs = NestedUNetConfig.check(**own), NestedUNetConfig.check(**given)
    for name in ("act", "ceil_mode"):
        there, here = getattr(theirs, name), getattr(ours, name)
        if there != here:
            told = f"{name}={_as_json(there)}", _as_json(here)
            logger.warning("%s: its weights were trained with %s, and go on with %s.", path, *told)


def _difference(own: Mapping[str, Any], given: Mapping[str, Any] | None, weights: _Tensors) -> str:
    """In what networks differ whose weights do not fit, and which values would make them fit."""
    unknown = ", which has other features, kernels, norm or axes. Give weights of a network like it."
    ours = shaping_arguments(own)
    if given is None:
        if ours["norm"] == "batch" and not any(key.endswith(".running_mean") for key in weights):
            unknown += " They are not of batch norm as here: for those of instance norm, plan with --set norm=instance."
        return unknown
    theirs = shaping_arguments(given)
    names = [name for name in ours if not _agree(name, ours[name], theirs[name])]
    if not names:
        return unknown
    told = "; ".join(f"{name} is {_as_json(theirs[name])} there and {_as_json(ours[name])} here" for name in names)
    if not set(names) <= set(_SETTABLE) or theirs["norm"] not in NORMS:
        return f": {told}. Give weights of a network like it."
    settings = " ".join(f"--set {shlex.quote(f'{name}={_as_json(theirs[name])}')}" for name in names)
    return f": {told}. Plan with {settings}, or with --init alone."


def shaping_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a network that the shapes of its weights depend on, as plain values of one form.

    Example:
        >>> shaping_arguments(dict(spatial_dims=2, in_channels=1, out_channels=2, features=[4, 8]))["kernel_size"]
        [[3, 3], [3, 3]]
    """
    checked = NestedUNetConfig.check(**config)
    norm: Any = checked.norm
    if norm is not None:
        name, arguments = (norm, {}) if isinstance(norm, str) else norm
        norm = [name.lower(), arguments] if arguments else name.lower()
    values = {name: getattr(checked, name) for name in _FIXED}
    values |= {"features": checked.features, "kernel_size": checked.kernel_sizes, "norm": norm}
    plain: dict[str, Any] = to_plain({**values, "strides": checked.strides})
    return plain


def shapes_in_weights(weights: _Tensors) -> dict[str, Any] | None:
    """The arguments of a network that can be read from the shapes of its weights, in the form of a configuration.

    They are ``spatial_dims``, ``features``, ``kernel_size``, ``strides`` (2 where nothing learned tells them) and, for
    batch norm, ``norm``, which is None for others: they cannot be told apart. None if there are too few nodes.

    Example:
        >>> from monai_unetpp import NestedUNet
        >>> shapes_in_weights(NestedUNet(2, 1, 2, features=[4, 8], kernel_size=[[3, 1], 3], norm="batch").state_dict())
        {'spatial_dims': 2, 'features': [4, 8], 'kernel_size': [[3, 1], [3, 3]], 'strides': [[2, 2]], 'norm': 'batch'}
    """
    first: Iterator[tuple[int, ...]] = (
        next((tuple(value.shape) for key, value in weights.items() if key.startswith(f"nodes.x_{depth}_0.block.")), ())
        for depth in itertools.count()
    )
    rows = list(itertools.takewhile(lambda shape: len(shape) > 2, first))
    if len(rows) < 2:
        return None
    dims = len(rows[0]) - 2
    # a plain U-Net has one decoder node in each row, others have one in the first column
    steps = [
        next((value for key, value in weights.items() if re.fullmatch(rf"nodes\.x_{depth}_\d+\.{_STEP}", key)), None)
        for depth in range(len(rows) - 1)
    ]
    return {
        "spatial_dims": dims,
        "features": [int(shape[0]) for shape in rows],
        "kernel_size": [list(shape[2:]) for shape in rows],
        "strides": [[2] * dims if step is None else list(step.shape[2:]) for step in steps],
        "norm": "batch" if any(key.endswith(".running_mean") for key in weights) else None,
    }


def _agree(name: str, one: Any, other: Any) -> bool:
    """Whether the values are equal; of those that list resolutions, as far as both go."""
    if name in ("features", "kernel_size", "strides"):
        return all(a == b for a, b in zip(one, other, strict=False))
    return bool(one == other)


def _as_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _parts(weights: _Tensors) -> dict[str, list[str]]:
    """The keys of every node and head, by their prefix, such as ``"nodes.x_0_0."``."""
    parts: dict[str, list[str]] = {}
    for key in weights:
        parts.setdefault(".".join(key.split(".")[:2]) + ".", []).append(key)
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
