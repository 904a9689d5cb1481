"""Loading the network of a bundle, and reading its metadata."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigComponent

from monai_unetpp.bundles.json_files import METADATA_FILE, read_object
from monai_unetpp.data.datasets.network_names import NetworkNames
from monai_unetpp.networks import NestedUNet
from monai_unetpp.networks.checkpoint import read_checkpoint
from monai_unetpp.networks.config import NestedUNetConfig

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
        ValueError: metadata without names for the output's channels, or values that are no numbers.
    """
    entry, names = "labels", read_metadata(bundle).get("labels")
    if names is None:
        entry = "channel_def"
        names = read_metadata_entry(bundle, "network_data_format", "outputs", "pred", entry)
    if not isinstance(names, dict) or not all(str(value).isdecimal() for value in names):
        raise ValueError(
            f"{Path(bundle) / METADATA_FILE}: {entry} must map values to names like "
            f'{{"0": "background"}}, got {names!r:.80}. Correct it, or copy the bundle again.'
        )
    return {int(value): str(name) for value, name in names.items() if int(value) > 0}


def read_network_names(
    bundle: str | PathLike[str], values: Sequence[int] = (), classes: Sequence[int] = ()
) -> NetworkNames:
    """How a bundle's metadata names labels and input channels, to be compared with a data set.

    What the metadata do not name is left out, and so are all names if there are no metadata.

    Args:
        bundle: the folder of the bundle.
        values: the values that label maps may have besides 0.
        classes: the class, an output channel, that each of ``values`` stands for.

    Raises:
        ValueError: the metadata are not a JSON object.
    """
    path = Path(bundle) / METADATA_FILE
    metadata = read_metadata(bundle) if path.is_file() else {}
    labels: dict[str, list[int]] = {}
    named = _channel_names(metadata, "outputs", "pred")
    for value, number in zip(values, classes, strict=False):
        # the number after the last class is that of voxels to ignore
        if 0 < number < len(named):
            labels.setdefault(named[number], []).append(value)
    return NetworkNames(str(path), labels, _channel_names(metadata, "inputs", "image"))


def _channel_names(metadata: Mapping[str, Any], *keys: str) -> list[str]:
    """The entry ``channel_def`` of an input or output as a list; empty if there is none for the channels 0 and up."""
    entry: Any = metadata
    for key in ("network_data_format", *keys, "channel_def"):
        entry = entry.get(key) if isinstance(entry, Mapping) else None
    names = entry if isinstance(entry, Mapping) else {}
    numbers = [str(number) for number in range(len(names))]
    return [str(names[number]) for number in numbers] if set(numbers) == set(names) else []


def read_brain_mask(bundle: str | PathLike[str], names: Mapping[int, str]) -> tuple[int, ...]:
    """The labels of a brain mask, from the entry ``brain_mask`` of the metadata, a list of ``names``.

    Raises:
        ValueError: no such entry, or unknown labels.
    """
    listed = read_metadata(bundle).get("brain_mask")
    path = Path(bundle) / METADATA_FILE
    if listed is None:
        raise ValueError(
            f"{path}: has no entry 'brain_mask', so a mask cannot be made. Leave the mask out, or use a bundle that "
            "defines one."
        )
    return label_values(path, "brain_mask", listed, names)


def read_totals(bundle: str | PathLike[str], names: Mapping[int, str]) -> dict[str, tuple[int, ...]]:
    """The values to sum by name of a total volume, from the entry ``totals`` of the metadata; empty without it.

    Raises:
        ValueError: a malformed entry, or unknown labels.
    """
    totals = read_metadata(bundle).get("totals", {})
    path = Path(bundle) / METADATA_FILE
    if not isinstance(totals, dict) or not set(totals).isdisjoint(names.values()):
        raise ValueError(
            f"{path}: totals must map names that no label has to lists of labels, got {totals!r:.100}. Correct it."
        )
    return {str(name): label_values(path, f"totals {name!r}", listed, names) for name, listed in totals.items()}


def label_values(path: Path, entry: str, listed: Any, names: Mapping[int, str]) -> tuple[int, ...]:
    """The values of labels listed by name in an entry of the metadata at ``path``; a ValueError for any other list."""
    values = {name: value for value, name in names.items()}
    if not isinstance(listed, list) or not listed or not all(isinstance(name, str) for name in listed):
        raise ValueError(f"{path}: {entry} must be a list of names of labels, got {listed!r:.100}. Correct it.")
    unknown = [name for name in listed if name not in values]
    if unknown:
        raise ValueError(
            f"{path}: {entry} must name labels, got {unknown[0]!r}, which is not one of {', '.join(values):.200}. "
            "Correct it."
        )
    return tuple(values[name] for name in listed)


def read_network_def(bundle: str | PathLike[str]) -> dict[str, Any]:
    """The arguments of the network in a bundle's ``inference.json``, with references resolved.

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
