"""Bundles in the layout of MONAI's model zoo: finding them, loading their network, and checking them offline."""

from __future__ import annotations

import configparser
import json
import logging
import os
import pydoc
import re
import sysconfig
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jsonschema import SchemaError
from jsonschema.validators import validator_for
from monai.bundle import ConfigParser
from monai.bundle.config_item import ComponentLocator, ConfigComponent
from monai.bundle.properties import InferProperties, TrainProperties

from monai_unetpp.networks import NestedUNet
from monai_unetpp.networks.checkpoint import read_checkpoint
from monai_unetpp.networks.config import NestedUNetConfig

__all__ = [
    "BUNDLES_VARIABLE",
    "check_bundle",
    "find_bundle",
    "list_bundles",
    "load_network",
    "read_metadata",
    "read_network_def",
]

logger = logging.getLogger(__name__)

#: Environment variable that names a folder of bundles.
BUNDLES_VARIABLE = "MONAI_UNETPP_BUNDLES"

_FILES = (
    "LICENSE",
    "configs/metadata.json",
    "configs/inference.json",
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
    "models/model.pt",
)
#: The model zoo takes no larger file.
_MAX_FILE_BYTES = 25_000_000
_METADATA_KEYS = (
    "schema",
    "version",
    "changelog",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "required_packages_version",
    "name",
    "task",
    "description",
    "authors",
    "copyright",
    "network_data_format",
)
#: Keys that a config must have, and what MONAI knows about the optional ones.
_KEYS: dict[str, tuple[tuple[str, ...], Mapping[str, Mapping[Any, Any]]]] = {
    "inference.json": (
        (
            "bundle_root",
            "device",
            "network_def",
            "inferer",
            "output_dir",
            "dataset_dir",
            "dataset",
            "evaluator",
        ),
        InferProperties,
    ),
    "train.json": (
        (
            "bundle_root",
            "device",
            "dataset_dir",
            "output_dir",
            "train#trainer",
            "train#trainer#max_epochs",
            "train#dataset",
            "train#dataset#data",
            "train#handlers",
            "train#inferer",
            "validate#evaluator",
            "validate#handlers",
            "validate#dataset",
            "validate#dataset#data",
            "val_interval",
        ),
        TrainProperties,
    ),
}


def find_bundle(bundle: str | PathLike[str]) -> Path:
    """The folder of a bundle.

    Args:
        bundle: path of a bundle's folder, or a bundle's name. A name is looked up in the folder that the environment
            variable ``MONAI_UNETPP_BUNDLES`` names, in ``bundles`` of the working directory, beside the package's
            source, and among the data that was installed with the package.

    Returns:
        The absolute path.

    Raises:
        FileNotFoundError: no such bundle; the message lists where it was looked for and what there is.
    """
    path = Path(bundle)
    if _is_bundle(path):
        return path.resolve()
    found = list_bundles()
    if str(bundle) in found:
        return found[str(bundle)]
    if path.is_dir():
        raise FileNotFoundError(
            f"{path}: a folder, but not of a bundle. A bundle has configs/metadata.json and configs/inference.json."
        )
    places = ", ".join(str(place) for place in _places())
    raise FileNotFoundError(
        f"bundle must be the folder or the name of a bundle, got {str(bundle)!r}. Looked in {places}; found "
        f"{', '.join(found) or 'none'}. Give the path of its folder, or set {BUNDLES_VARIABLE}."
    )


def list_bundles() -> dict[str, Path]:
    """All bundles that :func:`find_bundle` knows by name, with their absolute paths; the first of a name counts."""
    found: dict[str, Path] = {}
    for place in _places():
        if place.is_dir():
            for path in sorted(place.iterdir()):
                if _is_bundle(path):
                    found.setdefault(path.name, path.resolve())
    return found


def load_network(
    checkpoint: str | PathLike[str],
    level: str | None = None,
    network_def: NestedUNet | Mapping[str, Any] | None = None,
    device: torch.device | str | None = None,
) -> NestedUNet:
    """Load a trained network, whole or only what one level needs, ready to segment.

    Args:
        checkpoint: file of the weights.
        level: build this level alone, such as ``"L2"``; None takes the whole network.
        network_def: the network of the configuration, or its arguments; used where the file does not carry its own.
        device: where to put the network; by default the CPU.

    Returns:
        The network in eval mode.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that holds no such weights, or a level that the network has not.

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
    _, stored = read_checkpoint(checkpoint)
    defined = _arguments(network_def) if network_def is not None else None
    if stored is None and defined is None:
        raise ValueError(
            f"{checkpoint}: this file does not say how its network was built. Give network_def, or save it with "
            "torch.save(net.state_dict(), path)."
        )
    if stored is not None and defined is not None:
        differing = _differing_arguments(stored, defined)
        if differing:
            logger.warning(
                "%s carries its own configuration, which is taken; network_def differs in %s.",
                checkpoint,
                ", ".join(differing),
            )
    try:
        network = NestedUNet.from_checkpoint(checkpoint, level, config=stored if stored is not None else defined)
    except ValueError as e:
        if str(e).startswith(str(checkpoint)):
            raise
        raise ValueError(f"{checkpoint}: {e}") from e
    return network.eval().to(torch.device("cpu") if device is None else device)


def parse_entry(parser: ConfigParser, key: str) -> Any:
    """An entry of a configuration as an object.

    Raises:
        Exception: the error behind MONAI's 'Failed to instantiate', which names neither file nor remedy.
    """
    try:
        return parser.get_parsed_content(key)
    except RuntimeError as e:
        error: BaseException = e
        while error.__cause__ is not None and str(error).startswith("Failed to "):
            error = error.__cause__
    # outside of the except block, so that the error keeps the cause that it had
    raise error


def read_metadata(bundle: str | PathLike[str]) -> dict[str, Any]:
    """The content of a bundle's ``configs/metadata.json``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a JSON object.
    """
    return _read_json(Path(bundle) / "configs" / "metadata.json")


def read_network_def(bundle: str | PathLike[str]) -> dict[str, Any]:
    """The arguments of the network that a bundle's configurations define, references resolved.

    Args:
        bundle: the folder of the bundle; its ``inference.json`` is read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no JSON object, or defines no ``NestedUNet``.
    """
    path = Path(bundle) / "configs" / "inference.json"
    try:
        return _network_arguments(_read_json(path))
    except ValueError as e:
        if str(e).startswith(str(path)):
            raise
        raise ValueError(f"{path}: {e}") from e


def check_bundle(bundle: str | PathLike[str], *, schema: str | PathLike[str] | None = None) -> list[str]:
    """Check a bundle against the rules of MONAI's model zoo, as far as they can be checked offline.

    Files and their sizes, keys of the configurations, metadata, and weights are checked; all configurations must
    define the network whose weights are stored. Modules that a ``_target_`` names are imported, so check only bundles
    that you trust; expressions are not evaluated.

    Args:
        bundle: the folder of the bundle.
        schema: JSON schema file of the metadata; without it the fields that the zoo asks for are checked.

    Returns:
        One line per problem, beginning with the file; empty where there is none.

    Raises:
        FileNotFoundError: no such folder, or no such schema.
        ValueError: the schema is none.
    """
    root = Path(bundle)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder. Give the folder of a bundle.")
    problems = [*_file_problems(root), *_logging_problems(root / "configs" / "logging.conf")]
    stored = _check_weights(root / "models" / "model.pt", problems)
    configs = _read_configs(root, problems)
    metadata = configs.pop("metadata.json", None)
    if metadata is not None:
        problems += [f"configs/metadata.json: {problem}" for problem in _metadata_problems(metadata, stored, schema)]
    for name, content in configs.items():
        found = [*_key_problems(name, content), *_target_problems(content), *_network_problems(content, stored)]
        problems += [f"configs/{name}: {problem}" for problem in found]
    return problems


def _places() -> list[Path]:
    places = [Path(os.environ[BUNDLES_VARIABLE])] if os.environ.get(BUNDLES_VARIABLE) else []
    return [
        *places,
        Path.cwd() / "bundles",
        Path(__file__).resolve().parent.parent / "bundles",
        Path(sysconfig.get_path("data")) / "share" / "monai-unetpp" / "bundles",
    ]


def _is_bundle(path: Path) -> bool:
    return any((path / "configs" / name).is_file() for name in ("metadata.json", "inference.json"))


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. A bundle must have it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise ValueError(f"{path}: not a JSON file ({e}).") from e
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold a JSON object, got {type(content).__name__}.")
    return content


def _arguments(network_def: NestedUNet | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(network_def, NestedUNet):
        return network_def.config
    return {name: value for name, value in network_def.items() if not re.fullmatch("_.*_", name)}


def _differing_arguments(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the arguments of ``NestedUNet`` in which two networks differ; how they are written does not count.

    Raises:
        TypeError, ValueError: arguments that no network can be built from.
    """
    first, second = NestedUNetConfig.check(**one), NestedUNetConfig.check(**other)
    # use_checkpoint changes what training keeps in memory, not the network
    names = [name for name in vars(first) if name not in ("given", "use_checkpoint")]
    return [name for name in names if getattr(first, name) != getattr(second, name)]


def _file_problems(root: Path) -> Iterator[str]:
    for name in _FILES:
        path = root / name
        if not path.is_file():
            yield f"{name}: missing."
        elif not path.stat().st_size:
            yield f"{name}: empty."
    for folder in ("configs", "docs", "models"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.stat().st_size > _MAX_FILE_BYTES:
                size = path.stat().st_size / 1e6
                yield (
                    f"{path.relative_to(root).as_posix()}: must be at most {_MAX_FILE_BYTES / 1e6:g} MB, got "
                    f"{size:.1f} MB."
                )
    for path in sorted((root / "configs").glob("*.y*ml")):
        yield f"configs/{path.name}: configurations must be JSON, as monai.bundle.load reads nothing else."


def _logging_problems(path: Path) -> Iterator[str]:
    if not path.is_file():
        return
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (configparser.Error, UnicodeDecodeError) as e:
        yield f"configs/logging.conf: not a logging configuration ({str(e).splitlines()[0]})."
        return
    for section in ("loggers", "handlers", "formatters"):
        if not parser.has_section(section):
            yield f"configs/logging.conf: must have a section [{section}]."


def _check_weights(path: Path, problems: list[str]) -> dict[str, Any] | None:
    """The configuration in the file of weights; what is wrong with the file is added to ``problems``."""
    if not path.is_file():
        return None
    where = f"models/{path.name}"
    try:
        _, stored = read_checkpoint(path)
        if stored is None:
            problems.append(
                f"{where}: does not say how its network was built. Save it with torch.save(net.state_dict(), path)."
            )
            return None
        NestedUNet.from_checkpoint(path)
    except (TypeError, ValueError) as e:
        problems.append(f"{where}: {str(e).removeprefix(f'{path}: ')}")
        return None
    return stored


def _read_configs(root: Path, problems: list[str]) -> dict[str, dict[str, Any]]:
    """All JSON files of ``configs`` by name; those that cannot be read are added to ``problems``."""
    configs = {}
    for path in sorted((root / "configs").glob("*.json")):
        try:
            configs[path.name] = _read_json(path)
        except ValueError as e:
            problems.append(f"configs/{path.name}: {str(e).removeprefix(f'{path}: ')}")
    return configs


def _metadata_problems(
    metadata: Mapping[str, Any], stored: Mapping[str, Any] | None, schema: str | PathLike[str] | None
) -> Iterator[str]:
    for key in _METADATA_KEYS:
        if key not in metadata:
            yield f"must have the key {key!r}."
    version = metadata.get("version", "")
    if "version" in metadata and not re.fullmatch(r"\d+\.\d+\.\d+", str(version)):
        yield f"version must have the form 1.2.3, got {version!r}."
    changelog = metadata.get("changelog")
    if "changelog" in metadata and (not isinstance(changelog, dict) or version not in changelog):
        yield f"changelog must have an entry for version {version!r}."
    parser = ConfigParser(dict(metadata))
    for side, name, argument in (("inputs", "image", "in_channels"), ("outputs", "pred", "out_channels")):
        key = f"network_data_format#{side}#{name}#num_channels"
        channels = parser.get(key)
        if "network_data_format" in metadata and channels is None:
            yield f"must have the key {key!r}, which verify_net_in_out reads."
        elif channels is not None and stored is not None and channels != stored[argument]:
            yield f"{key} must be {stored[argument]}, the {argument} of the network, got {channels!r}."
    if schema is not None:
        yield from _schema_problems(metadata, Path(schema))


def _schema_problems(metadata: Mapping[str, Any], path: Path) -> Iterator[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. schema must name a JSON schema file.")
    schema = _read_json(path)
    validator = validator_for(schema)
    try:
        validator.check_schema(schema)
    except SchemaError as e:
        raise ValueError(f"{path}: not a JSON schema ({e.message}).") from e
    for error in validator(schema).iter_errors(metadata):
        where = "#".join(str(step) for step in error.absolute_path)
        yield f"{where + ': ' if where else ''}{error.message} (by {path.name})."


def _key_problems(name: str, content: dict[str, Any]) -> Iterator[str]:
    if name not in _KEYS:
        return
    required, properties = _KEYS[name]
    parser = ConfigParser(content)
    for key in required:
        if key not in parser:
            yield f"must have the key {key!r}."
    # An optional property that is used must be used by its name, so that other programs can replace it there.
    for prop, rule in properties.items():
        if rule.get("refer_id") is None:
            continue
        key, reference = rule["id"].replace("::", "#"), rule["refer_id"].replace("::", "#")
        if prop in ("evaluator", "val_interval"):
            uses = [
                (f"{reference} of ValidationHandler", handler.get(reference))
                for handler in parser.get("train#handlers") or []
                if isinstance(handler, dict) and str(handler.get("_target_")).endswith("ValidationHandler")
            ]
        else:
            uses = [(reference, parser.get(reference))]
        for where, value in uses:
            if value is None or (isinstance(value, str) and value.startswith("$")):
                continue
            if str(value).replace("::", "#") != f"@{key}":
                yield f"{where} must be '@{key}', got {_shortened(value)}."
            elif key not in parser and key not in required:
                yield f"must have the key {key!r}, which {where} refers to."


def _target_problems(content: Any) -> Iterator[str]:
    locator = ComponentLocator()
    for target in sorted(set(_targets(content))):
        if target.startswith(("$", "@")):
            continue
        module = locator.get_component_module_name(target)
        path = f"{module if isinstance(module, str) else module[0]}.{target}" if module else target
        try:
            located = pydoc.locate(path)
        except pydoc.ErrorDuringImport as e:
            yield f"_target_ {target!r} cannot be imported ({e.value})."
            continue
        if located is None:
            yield f"_target_ {target!r} names nothing that is installed."


def _targets(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        if isinstance(content.get("_target_"), str):
            yield content["_target_"]
        for value in content.values():
            yield from _targets(value)
    elif isinstance(content, list):
        for value in content:
            yield from _targets(value)


def _network_arguments(content: dict[str, Any]) -> dict[str, Any]:
    """Resolve ``network_def`` without evaluating expressions.

    Raises:
        ValueError: it is missing, refers to what is not there, or is no ``NestedUNet``.
    """
    try:
        item = ConfigParser(content).get_parsed_content("network_def", instantiate=False, eval_expr=False)
    except (KeyError, ValueError) as e:
        raise ValueError(f"network_def cannot be resolved ({e}).") from e
    network_def = item.config if isinstance(item, ConfigComponent) else item
    if not isinstance(network_def, dict) or str(network_def.get("_target_")).split(".")[-1] != "NestedUNet":
        raise ValueError(f"network_def must have '_target_': 'monai_unetpp.NestedUNet', got {_shortened(network_def)}.")
    return _arguments(network_def)


def _network_problems(content: dict[str, Any], stored: Mapping[str, Any] | None) -> Iterator[str]:
    if "network_def" not in content:
        return
    try:
        arguments = _network_arguments(content)
        differing = _differing_arguments(arguments, arguments if stored is None else stored)
    except (TypeError, ValueError) as e:
        message = str(e)
        yield message if message.startswith("network_def") else f"network_def: {message}"
        return
    for name in differing:
        yield f"network_def must be that of models/model.pt, but differs in {name}."


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
