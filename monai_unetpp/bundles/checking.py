"""Checking bundles against the rules of MONAI's model zoo, offline."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from jsonschema import SchemaError
from jsonschema.validators import validator_for
from monai.bundle import ConfigParser
from monai.bundle.properties import InferProperties, TrainProperties

from monai_unetpp.bundles.configuration import list_strings
from monai_unetpp.bundles.integrity import WEIGHTS_FILE, hash_problems
from monai_unetpp.bundles.json_files import read_object
from monai_unetpp.bundles.loading import differing_arguments, network_arguments, shortened
from monai_unetpp.bundles.targets import is_installed
from monai_unetpp.networks import NestedUNet
from monai_unetpp.networks.checkpoint import read_checkpoint
from monai_unetpp.networks.config import NestedUNetConfig

_FILES = (
    "LICENSE",
    "configs/metadata.json",
    "configs/inference.json",
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
    "models/model.pt",
)
#: The model zoo accepts no larger files.
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
#: Keys of a config that are required besides those that MONAI requires, and MONAI's table of all properties.
_KEYS: dict[str, tuple[tuple[str, ...], Mapping[str, Mapping[Any, Any]]]] = {
    "inference.json": (("output_dir",), InferProperties),
    "train.json": (
        (
            "output_dir",
            "train#dataset#data",
            "train#handlers",
            "validate#evaluator",
            "validate#handlers",
            "validate#dataset",
            "validate#dataset#data",
            "val_interval",
        ),
        TrainProperties,
    ),
}


def check_bundle(
    bundle: str | PathLike[str], *, schema: str | PathLike[str] | None = None, sizes: bool = True
) -> list[str]:
    """Check a bundle against the rules of MONAI's model zoo, as far as they can be checked offline.

    It checks files and their sizes, keys of the configurations, metadata, and weights; all configurations must define
    the network whose weights are stored. Nothing in the bundle is run: expressions are not evaluated, and of modules
    that a ``_target_`` names, only those of MONAI, torch, ignite and this package are imported.

    Args:
        bundle: the folder of the bundle.
        schema: JSON schema file of the metadata; by default only the fields required by the zoo are checked.
        sizes: whether files may be only as large as the zoo takes them, which matters for sharing a bundle there.

    Returns:
        One line per problem, beginning with the file; empty if there are none.

    Raises:
        FileNotFoundError: no such folder, or no such schema.
        ValueError: the schema is not a JSON schema.
    """
    root = Path(bundle)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder. Give the folder of a bundle.")
    problems = [
        *_file_problems(root),
        *(_size_problems(root) if sizes else ()),
        *_logging_problems(root / "configs" / "logging.conf"),
    ]
    stored = _check_weights(root / WEIGHTS_FILE, problems)
    configs = _read_configs(root, problems)
    metadata = configs.pop("metadata.json", None)
    if metadata is not None:
        found = [*_told(_metadata_problems(metadata, stored, schema)), *_told(_channel_problems(metadata))]
        problems += [f"configs/metadata.json: {problem}" for problem in found]
        problems += hash_problems(root, metadata)
    for name, content in configs.items():
        checks = (_key_problems(name, content), _target_problems(content), _network_problems(content, stored))
        problems += [f"configs/{name}: {problem}" for check in checks for problem in _told(check)]
    return [" ".join(problem.splitlines()) for problem in problems]


def _told(problems: Iterator[str]) -> Iterator[str]:
    """The problems; if a check cannot continue, the last one says so."""
    try:
        yield from problems
    except (AttributeError, IndexError, KeyError, TypeError, RecursionError) as e:
        yield f"cannot be checked further, as an entry does not have MONAI's form ({type(e).__name__}: {e})."


def _file_problems(root: Path) -> Iterator[str]:
    for name in _FILES:
        path = root / name
        if not path.is_file():
            yield f"{name}: missing."
        elif not path.stat().st_size:
            yield f"{name}: empty."
    for path in sorted((root / "configs").glob("*.y*ml")):
        yield f"configs/{path.name}: configurations must be JSON, as monai.bundle.load reads nothing else."


def _size_problems(root: Path) -> Iterator[str]:
    for folder in ("configs", "docs", "models"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.stat().st_size > _MAX_FILE_BYTES:
                size = path.stat().st_size / 1e6
                yield (
                    f"{path.relative_to(root).as_posix()}: must be at most {_MAX_FILE_BYTES / 1e6:g} MB, got "
                    f"{size:.1f} MB."
                )


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
    """The network's configuration in the weights file; faults of the file are added to ``problems``."""
    if not path.is_file():
        return None
    where = f"models/{path.name}"
    try:
        weights, stored = read_checkpoint(path)
        if stored is None:
            problems.append(
                f"{where}: does not say how its network was built. Save it with torch.save(net.state_dict(), path)."
            )
            return None
        NestedUNet.from_weights(weights, stored)
    except (TypeError, ValueError) as e:
        problems.append(f"{where}: {str(e).removeprefix(f'{path}: ')}")
        return None
    return stored


def _read_configs(root: Path, problems: list[str]) -> dict[str, dict[str, Any]]:
    """All JSON files of ``configs`` by name; those that cannot be read are added to ``problems``."""
    configs = {}
    for path in sorted((root / "configs").glob("*.json")):
        try:
            configs[path.name] = read_object(path)
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
    if "changelog" in metadata and (not isinstance(changelog, dict) or str(version) not in changelog):
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


def _channel_problems(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Faults in the names of channels, from which the labels of the output get their names."""
    parser = ConfigParser(dict(metadata))
    for side, name in (("inputs", "image"), ("outputs", "pred")):
        key = f"network_data_format#{side}#{name}#channel_def"
        named, channels = parser.get(key), parser.get(f"network_data_format#{side}#{name}#num_channels")
        if named is None:
            continue
        if not isinstance(named, dict):
            yield f'{key} must map channels to names like {{"0": "background"}}, got {shortened(named)}.'
            continue
        wrong = [value for value in named if not re.fullmatch("0|[1-9][0-9]*", str(value))]
        if wrong:
            yield f"{key} must have whole numbers from 0 as keys, got {wrong[0]!r}."
        elif isinstance(channels, int) and {int(value) for value in named} != set(range(channels)):
            yield f"{key} must name the channels 0 to {channels - 1}, got {', '.join(named) or 'none'}."
        names = list(named.values())
        if any(not isinstance(text, str) or not text.strip() for text in names):
            yield f"{key} must give names, got {shortened(names)}."
        elif len(set(names)) < len(names):
            yield f"{key} must give each channel a different name, got {shortened(names)}."


def _schema_problems(metadata: Mapping[str, Any], path: Path) -> Iterator[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. schema must name a JSON schema file.")
    schema = read_object(path)
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
    more, properties = _KEYS[name]
    required = (*(rule["id"].replace("::", "#") for rule in properties.values() if rule["required"]), *more)
    parser = ConfigParser(content)
    for key in required:
        if key not in parser:
            yield f"must have the key {key!r}."
    # An optional property must be used by reference, so that other programs can replace it.
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
                yield f"{where} must be '@{key}', got {shortened(value)}."
            elif key not in parser and key not in required:
                yield f"must have the key {key!r}, which {where} refers to."


def _target_problems(content: Any) -> Iterator[str]:
    targets = {text for place, text in list_strings(content) if place.rpartition("#")[2] == "_target_"}
    for target in sorted(targets):
        if not target.startswith(("$", "@", "%")) and not is_installed(target):
            yield f"_target_ {target!r} names nothing that is installed."


def _network_problems(content: dict[str, Any], stored: Mapping[str, Any] | None) -> Iterator[str]:
    if "network_def" not in content:
        return
    try:
        arguments = network_arguments(content)
        differing = differing_arguments(arguments, arguments if stored is None else stored)
    except (TypeError, ValueError) as e:
        message = str(e)
        yield message if message.startswith("network_def") else f"network_def: {message}"
        return
    for name in differing:
        yield f"network_def must be that of models/model.pt, but differs in {name}."
    yield from _value_problems(content, NestedUNetConfig.check(**arguments))


def _value_problems(content: Mapping[str, Any], network: NestedUNetConfig) -> Iterator[str]:
    """What is wrong with settings that are plain values, and would be told by a run, or not at all."""
    level, overlap, values = (content.get(name) for name in ("level", "overlap", "label_values"))
    if isinstance(level, str) and level[:1] not in "$@%" and level not in network.levels:
        yield f"level must be one of {', '.join(network.levels)}, got {level!r}."
    if isinstance(overlap, (int, float)) and not 0 <= overlap < 1:
        yield f"overlap must be from 0 to below 1, got {overlap}."
    plain = [value for value in values if isinstance(value, int)] if isinstance(values, list) else []
    # their number is not compared: a network may have fewer labels than the files of its training
    if plain == values and len({*plain} - {0}) != len(plain):
        yield f"label_values must differ and not be 0, as labels would be merged, got {values}."
