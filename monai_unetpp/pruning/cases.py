"""The labelled cases of a data set: their names and subjects, and whether image and label can be trusted."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from monai_unetpp.data import ImageFileError, ImageGeometry, case_name, compare_geometry
from monai_unetpp.data.labels import Volume, check_label_values, read_label_map, read_volume

__all__ = [
    "Case",
    "Volume",
    "check_case",
    "hash_image",
    "list_cases",
    "read_label",
    "repeated_names",
]

#: Suffixes of the file that holds the voxels beside a header file of the same name.
_VOXEL_FILES = {
    ".mhd": (".raw", ".zraw"),
    ".nhdr": (".raw", ".raw.gz"),
    ".hdr": (".img", ".img.gz"),
    ".img": (".hdr",),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One labelled case.

    Attributes:
        name: the image's file name without its suffix.
        subject: whom the case is of; the case's own name where subjects are not known.
        image: the image's file, or one file per channel.
        label: the label's file.
    """

    name: str
    subject: str
    image: tuple[Path, ...]
    label: Path


def list_cases(
    cases: Sequence[Mapping[str, Any]],
    subjects: Mapping[str, str] | str | PathLike[str] | None = None,
    subject_pattern: str | None = None,
) -> list[Case]:
    """Give each entry of a data list its name and subject; no image is opened.

    Args:
        cases: dicts with ``image`` (a path, or a list of paths, one per channel), ``label`` (a path) and optionally
            ``subject``.
        subjects: subject by name of the case, or a CSV file with the columns ``case`` and ``subject``.
        subject_pattern: regular expression with one group that finds the subject in the case's name. An entry's own
            ``subject`` goes first, then ``subjects``, then the pattern.

    Raises:
        TypeError: entries of another kind.
        ValueError: no entries, entries without image or label, a case whose subject is not given or found.
        FileNotFoundError: no such CSV file.
    """
    if isinstance(cases, (str, Mapping)) or not all(isinstance(entry, Mapping) for entry in cases):
        raise TypeError(
            f"cases must be a list of dicts with 'image' and 'label', got {cases!r:.200}. Use load_datalist."
        )
    if not cases:
        raise ValueError("cases must have at least one entry, got none. Check the data list.")
    named = _read_subjects(subjects) if isinstance(subjects, (str, PathLike)) else subjects
    pattern = _compile(subject_pattern)
    found = []
    for entry in cases:
        if not entry.get("image") or not entry.get("label"):
            raise ValueError(f"cases must have an 'image' and a 'label' each, got {dict(entry)!r}. Complete the entry.")
        image = entry["image"]
        files = tuple(Path(file) for file in ([image] if isinstance(image, (str, PathLike)) else image))
        name = case_name(files[0])
        found.append(Case(name, _subject(name, entry, named, pattern), files, Path(entry["label"])))
    return found


def check_case(
    case: Case, values: Sequence[int], spatial_dims: int | None = None, in_channels: int | None = None
) -> tuple[str | None, str]:
    """Read image and label of a case and say what is wrong with them.

    Args:
        case: the case.
        values: label values that may occur besides 0.
        spatial_dims: 2 or 3; None takes what the label has.
        in_channels: channels that the image must have; None does not check.

    Returns:
        The problem in words, with the file and what to do about it, or None; and the SHA-256 of the files' content.
    """
    try:
        label = read_label(case, spatial_dims)
        check_label_values(label.data, values, case.label)
        channels = sum(_read_channels(file, label, case.label) for file in case.image)
        if in_channels is not None and channels != in_channels:
            raise ImageFileError(
                f"{case.image[0]}: the image must have {in_channels} channel(s) for this network, got {channels}. Give "
                "one file per channel, or one file with the channels on its last axis."
            )
        return None, _hash_files((*case.image, case.label))
    except ImageFileError as e:
        return str(e), ""


def hash_image(case: Case) -> str:
    """SHA-256 of the content of a case's image files, without the label.

    Raises:
        OSError: a file cannot be read.
    """
    return _hash_files(case.image)


def read_label(case: Case, spatial_dims: int | None = None) -> Volume:
    """The label map of a case as it is in the file, ``(H, W[, D])``.

    Args:
        case: the case.
        spatial_dims: 2 or 3; None takes what the file has, without axes of length 1 at the end.

    Raises:
        ImageFileError: a file that cannot be read, has other dimensions, or holds no integers.
    """
    return read_label_map(case.label, spatial_dims)


def repeated_names(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """Names that more than one case has, with these cases."""
    counts = Counter(case.name for case in cases)
    return {name: [case for case in cases if case.name == name] for name, count in counts.items() if count > 1}


def _read_subjects(path: str | PathLike[str]) -> dict[str, str]:
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"case", "subject"} <= set(rows[0]):
        raise ValueError(
            f"{path}: subjects must be a table with the columns 'case' and 'subject', got "
            f"{', '.join(rows[0]) if rows else 'an empty file'}. Write one line per case."
        )
    return {row["case"]: row["subject"] for row in rows}


def _compile(subject_pattern: str | None) -> re.Pattern[str] | None:
    if subject_pattern is None:
        return None
    try:
        pattern = re.compile(subject_pattern)
    except re.error as e:
        raise ValueError(f"subject_pattern must be a regular expression, got {subject_pattern!r} ({e}).") from e
    if pattern.groups != 1:
        raise ValueError(
            f"subject_pattern must have one group, got {subject_pattern!r} with {pattern.groups}. Put round brackets "
            "around the part of the case's name that names the subject, as in '(sub-[0-9]+)_'."
        )
    return pattern


def _subject(
    name: str, entry: Mapping[str, Any], named: Mapping[str, str] | None, pattern: re.Pattern[str] | None
) -> str:
    if entry.get("subject"):
        return str(entry["subject"])
    if named is not None:
        if not named.get(name):
            raise ValueError(f"subjects must name the subject of every case, got none for {name!r}. Add it.")
        return str(named[name])
    if pattern is None:
        return name
    match = pattern.search(name)
    if match is None or not match[1]:
        raise ValueError(
            f"subject_pattern must match the name of every case, got {pattern.pattern!r}, which finds nothing in "
            f"{name!r}. Change the pattern, or give subjects."
        )
    return match[1]


def _read_channels(path: Path, label: Volume, label_path: Path) -> int:
    """Check an image against the label, and count its channels.

    Raises:
        ImageFileError: it cannot be read, is not finite, or lies elsewhere.
    """
    image = read_volume(path, label.data.ndim, allow_constant=False)
    shape = label.data.shape
    if image.data.shape[: len(shape)] != shape:
        raise ImageFileError(
            f"{path}: image and label must have one {len(shape)}D shape, got {image.data.shape} and {shape} of "
            f"{label_path}. Pair the right files, or resample the label to the image."
        )
    grids = ImageGeometry(shape, label.affine), ImageGeometry(shape, image.affine)
    difference = compare_geometry(*grids)
    if difference:
        raise ImageFileError(
            f"{path}: image and label must lie at one place, got affines that differ from that of {label_path}: "
            f"{difference}. Pair the right files, or correct the affine that is wrong."
        )
    if image.data.dtype.kind == "f" and not np.isfinite(image.data).all():
        raise ImageFileError(
            f"{path}: the image must be finite, got NaN or infinity. Replace these voxels or the file."
        )
    return math.prod(image.data.shape[len(shape) :])


def _hash_files(paths: Sequence[Path]) -> str:
    """SHA-256 over the content of files, of voxels beside a header, and of all files in folders (DICOM series)."""
    digest = hashlib.sha256()
    for path in paths:
        beside = [path.with_suffix(suffix) for suffix in _VOXEL_FILES.get(path.suffix.lower(), ())]
        for file in sorted(path.rglob("*")) if path.is_dir() else [path, *beside]:
            if file.is_file():
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
