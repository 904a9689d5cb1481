"""Loading the network of a bundle, and reading its metadata."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigComponent

from monai_unetpp.bundles.json_files import METADATA_FILE, read_object
from monai_unetpp.networks import NestedUNet
from monai_unetpp.networks.checkpoint import read_checkpoint
from monai_unetpp.networks.config import NestedUNetConfig

__all__ = [
    "differing_arguments",
    "label_names",
    "load_network",
    "network_arguments",
    "read_metadata",
    "read_metadata_entry",
    "read_network_def",
    "shortened",
]

logger = logging.getLogger(__name__)


def load_network(
    checkpoint: str | PathLike[str],
    level: str | None = None,
    network_def: NestedUNet | Mapping[str, Any] | None = None,
    device: torch.device | str | None = None,
) -> NestedUNet:
    """Load a trained network, or only the nodes that one level needs, ready to segment.

    Args:
        checkpoint: file of the weights.
        level: build only this level, such as ``"L2"``; None for the whole network.
        network_def: the network of the configuration, or its arguments; used if the file does not include them.
        device: where to put the network; by default the CPU.

    Returns:
        The network in eval mode.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file without such weights, or a level that the network does not have.

    Example:
        A part of a bundle's configuration::

            "network": {
                "_target_": "monai_unetpp.bundles.load_network",
                "checkpoint": "$@bundle_root + '/models/model.pt'",
                "level": "@level",
                "network_def": "@network_def",
                "device": "@device"
            }
    """
    weights, stored = read_checkpoint(checkpoint)
    defined = _arguments(network_def) if network_def is not None else None
    arguments = stored if stored is not None else defined
    if arguments is None:
        raise ValueError(
            f"{checkpoint}: this file does not say how its network was built. Give network_def, or save it with "
            "torch.save(net.state_dict(), path)."
        )
    try:
        differing = differing_arguments(stored, defined) if stored is not None and defined is not None else []
        network = NestedUNet.from_weights(weights, arguments, level)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{checkpoint}: {e}") from e
    if differing:
        logger.warning(
            "%s includes its own configuration, which is used; network_def differs in %s.",
            checkpoint,
            ", ".join(differing),
        )
    return network.eval().to(torch.device("cpu") if device is None else device)


def read_metadata(bundle: str | PathLike[str]) -> dict[str, Any]:
    """The content of a bundle's ``configs/metadata.json``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a JSON object.
    """
    return read_object(Path(bundle) / METADATA_FILE)


def read_metadata_entry(bundle: str | PathLike[str], *keys: str) -> Any:
    """One entry of a bundle's ``configs/metadata.json``.

    Args:
        bundle: the folder of the bundle.
        *keys: the path of keys, the outermost first.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a JSON object, or no such entry.
    """
    entry: Any = read_metadata(bundle)
    for key in keys:
        if not isinstance(entry, dict) or key not in entry:
            raise ValueError(
                f"{Path(bundle) / METADATA_FILE}: must have {', '.join(keys)}; {key!r} is missing. Add it, or copy the "
                "bundle again."
            )
        entry = entry[key]
    return entry


def label_names(bundle: str | PathLike[str]) -> dict[int, str]:
    """The labels that a bundle writes, without the background, from its metadata: value to name.

    They are the entry ``labels`` if there is one, for label maps with other values than the output's channels.

    Raises:
        ValueError: metadata without names for the output's channels.
    """
    labels = read_metadata(bundle).get("labels")
    if isinstance(labels, dict) and all(str(value).isdecimal() for value in labels):
        return {int(value): str(name) for value, name in labels.items() if int(value) > 0}
    channels = read_metadata_entry(bundle, "network_data_format", "outputs", "pred", "channel_def")
    if not isinstance(channels, dict) or not all(str(value).isdecimal() for value in channels):
        raise ValueError(
            f"{Path(bundle) / METADATA_FILE}: channel_def must map values to names like "
            f'{{"0": "background"}}, got {channels!r:.80}. Correct it, or copy the bundle again.'
        )
    return {int(value): str(name) for value, name in channels.items() if int(value) > 0}


def read_network_def(bundle: str | PathLike[str]) -> dict[str, Any]:
    """The arguments of the network in a bundle's configuration, with references resolved.

    Args:
        bundle: the folder of the bundle; its ``inference.json`` is read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not a JSON object, or does not define a ``NestedUNet``.
    """
    path = Path(bundle) / "configs" / "inference.json"
    try:
        return network_arguments(read_object(path))
    except ValueError as e:
        if str(e).startswith(str(path)):
            raise
        raise ValueError(f"{path}: {e}") from e


def _arguments(network_def: Any) -> dict[str, Any]:
    if isinstance(network_def, NestedUNet):
        return network_def.config
    if not isinstance(network_def, Mapping):
        raise TypeError(f"network_def must be a NestedUNet or its arguments, got {shortened(network_def)}.")
    return {name: value for name, value in network_def.items() if not re.fullmatch("_.*_", name)}


def differing_arguments(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the arguments of ``NestedUNet`` in which two networks differ, however they are written.

    Raises:
        TypeError, ValueError: arguments that no network can be built from.
    """
    first, second = NestedUNetConfig.check(**one), NestedUNetConfig.check(**other)
    # use_checkpoint changes what training keeps in memory, not the network
    names = [name for name in vars(first) if name not in ("given", "use_checkpoint")]
    return [name for name in names if getattr(first, name) != getattr(second, name)]


def network_arguments(content: dict[str, Any]) -> dict[str, Any]:
    """Resolve ``network_def`` without evaluating expressions.

    Raises:
        ValueError: it is missing, has an invalid reference, or is not a ``NestedUNet``.
    """
    try:
        item = ConfigParser(content).get_parsed_content("network_def", instantiate=False, eval_expr=False)
    except (KeyError, IndexError, TypeError, ValueError, OSError, RecursionError) as e:
        raise ValueError(f"network_def cannot be resolved ({e}).") from e
    network_def = item.config if isinstance(item, ConfigComponent) else item
    if not isinstance(network_def, dict) or str(network_def.get("_target_")).split(".")[-1] != "NestedUNet":
        raise ValueError(f"network_def must have '_target_': 'monai_unetpp.NestedUNet', got {shortened(network_def)}.")
    return _arguments(network_def)


def shortened(value: Any) -> str:
    """``repr`` of a value, of at most 60 characters, for messages."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
