"""Sets of labels of a bundle: for the brain mask, and for total volumes."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.bundles.json_files import METADATA_FILE
from monai_unetpp.bundles.loading import read_metadata

__all__ = ["label_values", "read_brain_mask", "read_totals"]


def read_brain_mask(bundle: str | PathLike[str], names: Mapping[int, str]) -> tuple[int, ...]:
    """The labels of a brain mask, from the entry ``brain_mask`` of the metadata, a list of names.

    Args:
        bundle: the folder of the bundle.
        names: its labels, value to name.

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
    """The total volumes over several labels, from the entry ``totals`` of the metadata.

    Args:
        bundle: the folder of the bundle.
        names: its labels, value to name.

    Returns:
        The values to sum by the name of the total; empty if there is no such entry.

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
    """The values of labels that the metadata list by name.

    Args:
        path: path of the metadata, for messages.
        entry: name of the entry, for messages.
        listed: the names.
        names: all labels, value to name.

    Raises:
        ValueError: not a list of names of labels.
    """
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
