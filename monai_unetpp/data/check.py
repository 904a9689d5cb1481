"""What is wrong with a data set, before a network is trained or scored on it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from monai_unetpp.data.datalist import foreground_labels
from monai_unetpp.data.errors import ImageFileError, describe_failure
from monai_unetpp.data.geometry import check_same_geometry
from monai_unetpp.data.labels import check_label_values, read_label_map
from monai_unetpp.data.naming import case_name
from monai_unetpp.data.reader import VolumeReader

__all__ = ["check_dataset"]

_LISTS = ("training", "validation")


def check_dataset(dataset_dir: str | PathLike[str]) -> list[str]:
    """The problems of a data set in Decathlon form; every image and label is read.

    ``dataset.json`` must list cases with image and label under ``training``, ``validation`` or both. Each file must be
    there and be readable by :class:`monai_unetpp.data.VolumeReader`; a label must lie on the grid of its image, hold
    integers, not only background, and no value but those that ``labels`` names, if it is there. No case may be listed
    twice, and no two may have the same voxels: between the lists that would be a leak.

    Args:
        dataset_dir: folder with ``dataset.json``.

    Returns:
        One line per problem, with the file and what to do; none if all is well.

    Example:
        >>> check_dataset("no/such/folder")
        ['no/such/folder/dataset.json: no such file. Name a folder in Decathlon form.']
    """
    path = Path(dataset_dir) / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [f"{path}: no such file. Name a folder in Decathlon form."]
    except (OSError, ValueError) as e:
        return [f"{path}: cannot be read as JSON ({e}). Repair it."]
    if not isinstance(content, dict):
        return [f"{path}: must hold an object, got {type(content).__name__}. Write it in Decathlon form."]
    values, problems = _label_values(path, content)
    entries, found = _entries(path, content)
    problems += found
    problems += _listed_twice(path, entries)
    first_with: dict[str, _Entry] = {}
    checked: set[tuple[Path, ...]] = set()
    for entry in entries:
        if entry.files in checked:
            continue
        checked.add(entry.files)
        problem, voxels = _check_entry(entry, values)
        if problem is not None:
            problems.append(problem)
        if voxels is not None:
            other = first_with.setdefault(voxels, entry)
            if other is not entry and other.image != entry.image:
                problems.append(_same_voxels(entry, other))
    return problems


@dataclass(frozen=True)
class _Entry:
    """One case of a list, with its image (a file, or one per channel) and label."""

    key: str
    image: tuple[Path, ...]
    label: Path

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.image, self.label)


def _label_values(path: Path, content: Mapping[str, Any]) -> tuple[list[int] | None, list[str]]:
    """Values that ``labels`` names; None if it is not there."""
    if "labels" not in content:
        return None, []
    try:
        return list(foreground_labels(path, content["labels"]).values()), []
    except ValueError as e:
        return None, [str(e)]


def _entries(path: Path, content: Mapping[str, Any]) -> tuple[list[_Entry], list[str]]:
    """All entries of all lists that can be understood, and what is wrong with the others."""
    entries, problems = [], []
    present = [key for key in _LISTS if key in content]
    if not present:
        problems.append(f"{path}: must have a list {' or '.join(map(repr, _LISTS))}, got neither. Add one.")
    for key in present:
        listed = content[key]
        if not isinstance(listed, list) or not listed:
            problems.append(f"{path}: the list {key!r} must hold cases, got {listed!r}. Add some, or leave it out.")
            continue
        for number, item in enumerate(listed):
            image, label = (item.get("image"), item.get("label")) if isinstance(item, Mapping) else (None, None)
            files = image if isinstance(image, list) else [image]
            if not files or not isinstance(label, str) or not all(isinstance(each, str) for each in files):
                problems.append(
                    f"{path}: entry {number} of {key!r} must have an 'image' and a 'label', got {item!r:.200}. "
                    "Complete it."
                )
                continue
            entries.append(_Entry(key, tuple(path.parent / str(file) for file in files), path.parent / label))
    return entries, problems


def _listed_twice(path: Path, entries: list[_Entry]) -> Iterator[str]:
    """Cases with one image file, or one name: their results would be taken for each other's."""
    seen: dict[tuple[Path, ...] | str, _Entry] = {}
    for entry in entries:
        files = tuple(Path(os.path.abspath(file)) for file in entry.image)
        name = case_name(entry.image[0])
        if files in seen:
            where = entry.key if entry.key == seen[files].key else f"{seen[files].key} and {entry.key}"
            yield f"{path}: {entry.image[0]} is listed twice ({where}). Leave one of them out."
        elif name in seen:
            yield f"{path}: {entry.image[0]} and {seen[name].image[0]} have one name, {name!r}. Rename one of them."
        seen.setdefault(files, entry)
        seen.setdefault(name, entry)


def _check_entry(entry: _Entry, values: list[int] | None) -> tuple[str | None, str | None]:
    """The first problem of a case, and the hash of its image's voxels as far as it can be read."""
    missing = next((file for file in entry.files if not os.path.exists(file)), None)
    if missing is not None:
        return f"{missing}: no such file, but {entry.key!r} lists it. Add it, or leave the case out.", None
    voxels = None
    try:
        label = read_label_map(entry.label)
        reader = VolumeReader(spatial_dims=label.data.ndim)
        image, _ = reader.get_data(reader.read(entry.image))
        voxels = _hash_voxels(image)
        difference = check_same_geometry(entry.image[0], entry.label)
        if difference is not None:
            return difference, voxels
        if values is not None:
            check_label_values(label.data, values, entry.label)
    except ImageFileError as e:
        return describe_failure(e), voxels
    if label.data.min() < 0:
        return f"{entry.label}: the label must hold no negative values, got {label.data.min()}. Correct it.", voxels
    if not label.data.any():
        return f"{entry.label}: the label is empty, every voxel is 0. Outline the structure, or drop the case.", voxels
    return None, voxels


def _hash_voxels(image: np.ndarray[Any, Any]) -> str:
    """SHA-256 of what a network would see, so that compression, headers and number types make no difference."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image, dtype=np.float32).tobytes())
    return digest.hexdigest()


def _same_voxels(entry: _Entry, other: _Entry) -> str:
    if entry.key == other.key:
        return f"{entry.image[0]}: the same image as {other.image[0]}, both in {entry.key!r}. Leave one of them out."
    return (
        f"{entry.image[0]} ({entry.key}): the same image as {other.image[0]} ({other.key}), a leak between the lists. "
        f"Leave it out of {entry.key!r}."
    )
