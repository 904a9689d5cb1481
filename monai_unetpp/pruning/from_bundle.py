"""Prune a bundle, whose configurations define the network, the transforms and the rules."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.bundles import BundleConfig, find_bundle, read_metadata
from monai_unetpp.bundles.json_files import METADATA_FILE
from monai_unetpp.devices import resolve_device
from monai_unetpp.distributed import own_device
from monai_unetpp.pruning.evaluation import prune
from monai_unetpp.pruning.plan import PruningPlan
from monai_unetpp.pruning.results import PruningResult

_CONFIGS = ("train.json", "prune.json")


def prune_bundle(
    bundle: str | PathLike[str] | None,
    dataset_dir: str | PathLike[str] | Sequence[str | PathLike[str]],
    output_dir: str | PathLike[str],
    device: str | None = None,
    extra: Sequence[str] | None = None,
    **settings: Any,
) -> PruningResult:
    """Evaluate the levels of a bundle's network by its ``configs/prune.json``.

    Does the same as ``python -m monai.bundle run`` with ``train.json`` and ``prune.json``. Under ``torchrun`` the
    processes share the cases.

    Args:
        bundle: name or folder of a bundle. It must be named, since each is for different images.
        dataset_dir: folder with ``dataset.json``, or several.
        output_dir: folder for the report.
        device: such as ``"cpu"``; by default a GPU if there is one, under ``torchrun`` one for each process.
        extra: further checkpoints to compare with, as ``"name=file"``.
        **settings: fields of the plan that override ``prune.json``, such as ``margins=["dice=0.02"]``, or keys of the
            configurations, such as ``checkpoint``; None changes nothing.

    Returns:
        The result of :func:`monai_unetpp.pruning.prune`, whose errors it raises too.

    Raises:
        FileNotFoundError: no such bundle, data set or checkpoint.
        ValueError: no bundle, unknown settings, or settings or data that cannot be used.
    """
    folder = find_bundle(bundle)
    missing = next((name for name in _CONFIGS if not (folder / "configs" / name).is_file()), None)
    if missing is not None:
        raise FileNotFoundError(_not_to_prune(folder, missing))
    config = BundleConfig(folder, *_CONFIGS)
    if "plan" not in config:
        raise ValueError(f"{config.files[-1]}: must have the key 'plan', a monai_unetpp.pruning.PruningPlan.")
    config["device"] = own_device(None if device is None else resolve_device(device))
    if "dataset_dir" in config:
        config["dataset_dir"] = dataset_dir
    # the user's values are set in the finished plan, as objects
    changes: dict[str, Any] = {"dataset_dir": dataset_dir, "output_dir": output_dir}
    if "planned" in config:
        changes |= _subjects_of_training(config.parse("planned"), settings)
    for key, value in {**settings, "extra": _named_files(extra)}.items():
        if value is None:
            continue
        # a checkpoint that the configurations do not load would only be named
        if key in PruningPlan.field_names() and (key != "checkpoint" or key in config):
            changes[key] = value
        elif key not in config:
            raise ValueError(_unknown(key, sorted(config.keys)))
        if key in config:
            # plan and inferer share values such as the window
            config[key] = value
    plan = config.parse("plan")
    if not isinstance(plan, PruningPlan):
        raise ValueError(
            f"{config.files[-1]}: plan must be a monai_unetpp.pruning.PruningPlan, got {type(plan).__name__}."
        )
    return prune(plan.with_fields(**changes))


def _not_to_prune(folder: Path, missing: str) -> str:
    """Why a bundle without one of the configurations cannot be pruned."""
    path = folder / METADATA_FILE
    origin = read_metadata(folder).get("pruned_from") if path.is_file() else None
    if isinstance(origin, dict) and "level" in origin:
        return (
            f"{folder}: this bundle was pruned already, to level {origin['level']} of {origin.get('name')}, and holds "
            "no other level. Name the bundle that it was cut out of."
        )
    return f"{folder / 'configs' / missing}: no such file. Only a bundle with train.json and prune.json can be pruned."


def _subjects_of_training(planned: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The plan's rules for the subjects of its own data set alone, unless the user gives rules for all."""
    if any(settings.get(name) is not None for name in planned.subject_rules):
        return {**dict.fromkeys(planned.subject_rules), "subjects_of": None}
    return {**planned.subject_rules, "subjects_of": planned.dataset_dir}


def _unknown(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, [*PruningPlan.field_names(), *known], 1)
    advice = f"Did you mean {close[0]!r}?" if close else "See the bundle's prune.json for what can be set."
    return f"settings must be fields of the plan or keys of the bundle's configurations, got {key!r}. {advice}"


def _named_files(given: Sequence[str] | None) -> dict[str, str] | None:
    if given is None:
        return None
    pairs = [text.partition("=") for text in given]
    wrong = next((text for text, (name, _, path) in zip(given, pairs, strict=True) if not name or not path), None)
    if wrong is not None:
        raise ValueError(f"extra must be a name, '=' and a file, got {wrong!r}. Write it like alone=models/alone.pt.")
    return {name: path for name, _, path in pairs}
