"""The labels of a bundle, and which of them belong together: to the brain mask, and to sums."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.bundles.loading import read_metadata

__all__ = ["label_values", "read_brain_mask", "read_totals"]


def read_brain_mask(bundle: str | PathLike[str], names: Mapping[int, str]) -> tuple[int, ...]:
    """The labels that make a brain mask: the entry ``brain_mask`` of the metadata, a list of names.

    Args:
        bundle: its folder.
        names: its labels, value to name.

    Raises:
        ValueError: it has no such entry, or one with other labels.
    """
    listed = read_metadata(bundle).get("brain_mask")
    path = _metadata_of(bundle)
    if listed is None:
        raise ValueError(
            f"{path}: has no entry 'brain_mask', so a mask cannot be made. Leave the mask out, or take a bundle whose "
            "labels make one."
        )
    return label_values(path, "brain_mask", listed, names)


def read_totals(bundle: str | PathLike[str], names: Mapping[int, str]) -> dict[str, tuple[int, ...]]:
    """What is added up of several labels: the entry ``totals`` of the metadata, lists of names by the name of the sum.

    Args:
        bundle: its folder.
        names: its labels, value to name.

    Returns:
        The values by the name of the sum; empty where there is no such entry.

    Raises:
        ValueError: something else, or other labels.
    """
    totals = read_metadata(bundle).get("totals", {})
    path = _metadata_of(bundle)
    if not isinstance(totals, dict) or not set(totals).isdisjoint(names.values()):
        raise ValueError(
            f"{path}: totals must map names that no label has to lists of labels, got {totals!r:.100}. Correct it."
        )
    return {str(name): label_values(path, f"totals {name!r}", listed, names) for name, listed in totals.items()}


def label_values(path: Path, entry: str, listed: Any, names: Mapping[int, str]) -> tuple[int, ...]:
    """The values of labels that metadata names.

    Args:
        path: of the metadata, for the message.
        entry: that names them, likewise.
        listed: the names.
        names: all labels, value to name.

    Raises:
        ValueError: no list of names of labels.
    """
    values = {name: value for value, name in names.items()}
    if not isinstance(listed, list) or not listed or not all(isinstance(name, str) for name in listed):
        raise ValueError(f"{path}: {entry} must be a list of names of labels, got {listed!r:.100}. Correct it.")
    unknown = [name for name in listed if name not in values]
    if unknown:
        raise ValueError(
            f"{path}: {entry} must name labels, got {unknown[0]!r}, which is none of {', '.join(values):.200}. "
            "Correct it."
        )
    return tuple(values[name] for name in listed)


def _metadata_of(bundle: str | PathLike[str]) -> Path:
    return Path(bundle) / "configs" / "metadata.json"
