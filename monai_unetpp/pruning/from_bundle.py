"""Pruning a bundle: its configurations name the network, the transforms and the rules."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

from monai_unetpp.bundles import BundleConfig, find_bundle
from monai_unetpp.devices import resolve_device
from monai_unetpp.distributed import local_device
from monai_unetpp.pruning.results import PruningResult

__all__ = ["prune_bundle"]

_CONFIGS = ("train.json", "prune.json")


def prune_bundle(
    bundle: str | PathLike[str],
    dataset_dir: str | PathLike[str] | Sequence[str | PathLike[str]],
    output_dir: str | PathLike[str],
    device: str | None = None,
    extra: Sequence[str] | None = None,
    **settings: Any,
) -> PruningResult:
    """Evaluate the levels of a bundle's network as its ``configs/prune.json`` says.

    The same as ``python -m monai.bundle run`` with ``train.json`` and ``prune.json``. Under ``torchrun`` the
    processes share the cases.

    Args:
        bundle: name or folder of a bundle.
        dataset_dir: folder with ``dataset.json``, or several.
        output_dir: folder for the report.
        device: such as ``"cpu"``; by default a GPU if there is one, under ``torchrun`` one for each process.
        extra: further checkpoints to compare with, as ``"name=file"``.
        **settings: what to set instead of the values in ``prune.json``, such as ``margins=["dice=0.02"]``; None
            leaves them.

    Returns:
        What :func:`monai_unetpp.pruning.prune` found.

    Raises:
        FileNotFoundError: no such bundle, data set or checkpoint.
        ValueError: settings that the bundle does not have, or settings or data that cannot be used.

    Everything that :func:`monai_unetpp.pruning.prune` raises comes out as it is.
    """
    folder = find_bundle(bundle)
    missing = next((name for name in _CONFIGS if not (folder / "configs" / name).is_file()), None)
    if missing is not None:
        raise FileNotFoundError(
            f"{folder / 'configs' / missing}: no such file. Only a bundle with train.json and prune.json can be pruned."
        )
    config = BundleConfig(folder, *_CONFIGS)
    if "pruning" not in config:
        raise ValueError(f"{config.files[-1]}: must have the key 'pruning', a call of monai_unetpp.pruning.prune.")
    changes = {key: value for key, value in {**settings, "extra": _named_files(extra)}.items() if value is not None}
    for key in changes:
        if key not in config:
            raise ValueError(_unknown(key, sorted(config.keys)))
    directories = [dataset_dir] if isinstance(dataset_dir, (str, PathLike)) else list(dataset_dir)
    given = {
        "dataset_dir": [fspath(directory) for directory in directories],
        "output_dir": fspath(output_dir),
        "device": local_device() if device is None else resolve_device(device),
    }
    for key, value in (changes | given).items():
        config[key] = value
    result = config.call("pruning")
    if not isinstance(result, PruningResult):
        raise ValueError(
            f"{config.files[-1]}: pruning must be a call of monai_unetpp.pruning.prune, got {type(result).__name__}."
        )
    return result


def _unknown(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    advice = f"Did you mean {close[0]!r}?" if close else "See the bundle's prune.json for what can be set."
    return f"settings must be keys of the bundle's prune.json or train.json, got {key!r}. {advice}"


def _named_files(given: Sequence[str] | None) -> dict[str, str] | None:
    if given is None:
        return None
    pairs = [text.partition("=") for text in given]
    wrong = next((text for text, (name, _, path) in zip(given, pairs, strict=True) if not name or not path), None)
    if wrong is not None:
        raise ValueError(f"extra must be a name, '=' and a file, got {wrong!r}. Write it like alone=models/alone.pt.")
    return {name: path for name, _, path in pairs}
