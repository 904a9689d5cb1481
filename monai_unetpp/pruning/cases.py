"""The labelled cases of a data set: their names and subjects, and whether image and label can be trusted."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError

__all__ = ["GEOMETRY_TOLERANCE_VOXELS", "Case", "Volume", "check_case", "list_cases", "read_label", "repeated_names"]

GEOMETRY_TOLERANCE_VOXELS = 0.1
"""How far a corner of the image's grid may lie from that of the label's, in units of the smallest voxel size."""

_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}
_SUFFIXES = (".nii.gz", ".nii", ".mgz", ".hdr", ".img")


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


@dataclasses.dataclass(frozen=True)
class Volume:
    """Voxels and where they are.

    Attributes:
        data: ``(H, W[, D], ...)``.
        affine: ``(4, 4)``, from voxel indices to mm, whatever unit the file has.
    """

    data: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]


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
        name = _stem(files[0])
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
        content = _hash_files((*case.image, case.label))
        label, problem = _read_checked(case.label, spatial_dims)
        problem = problem or _check_values(label.data, values, case.label)
        dims = spatial_dims or _spatial(label.data.shape)
        channels = 0
        for file in case.image:
            image = _read(file)
            problem = problem or _check_image(image, file, label, case.label, dims)
            channels += math.prod(image.data.shape[dims:])
    except _UnreadableError as e:
        return str(e), ""
    if problem is None and in_channels is not None and channels != in_channels:
        problem = (
            f"{case.image[0]}: the image must have {in_channels} channel(s) for this network, got {channels}. Give one "
            "file per channel, or one file with the channels on its last axis."
        )
    return problem, content


def read_label(case: Case, spatial_dims: int | None = None) -> Volume:
    """The label map of a case as integers on its own grid, ``(H, W[, D])``.

    Raises:
        ValueError: a file that cannot be read, or of other dimensions.
    """
    try:
        label, problem = _read_checked(case.label, spatial_dims)
    except _UnreadableError as e:
        raise ValueError(str(e)) from e
    if problem:
        raise ValueError(problem)
    return Volume(label.data.astype(np.int32), label.affine)


class _UnreadableError(ValueError):
    """A file that cannot be opened as an image."""


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


def _stem(path: Path) -> str:
    for suffix in _SUFFIXES:
        if path.name.endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem


def repeated_names(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """Names that more than one case has, with these cases."""
    counts = Counter(case.name for case in cases)
    return {name: [case for case in cases if case.name == name] for name, count in counts.items() if count > 1}


def _hash_files(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                single = hashlib.sha256()
                while block := file.read(1 << 20):
                    single.update(block)
        except OSError as e:
            raise _UnreadableError(
                f"{path}: cannot be read ({e.strerror or e}). Check the path in the data list."
            ) from e
        digest.update(single.digest())
    return digest.hexdigest()


def _read(path: Path) -> Volume:
    try:
        image: Any = nib.load(path)
        data = np.asanyarray(image.dataobj)
        affine = np.array(image.affine, dtype=np.float64)
        scale = _MM_PER_UNIT.get(image.header.get_xyzt_units()[0], 1.0) if isinstance(image, nib.Nifti1Pair) else 1.0
    except (OSError, EOFError, ValueError, ImageFileError, zlib.error) as e:
        raise _UnreadableError(
            f"{path}: cannot be read as an image ({e}). Replace the file by an intact NIfTI volume."
        ) from e
    if data.dtype.kind not in "iufb" or 0 in data.shape or not np.isfinite(affine).all():
        raise _UnreadableError(
            f"{path}: the image must hold real numbers at finite places, got {data.dtype} of shape {data.shape}. "
            "Convert or replace it."
        )
    affine[:3] *= scale
    return Volume(data, affine)


def _read_checked(path: Path, spatial_dims: int | None) -> tuple[Volume, str | None]:
    """A label without trailing axes of length 1, and what is wrong with its dimensions."""
    volume = _read(path)
    dims = spatial_dims or _spatial(volume.data.shape)
    if volume.data.ndim < dims or math.prod(volume.data.shape[dims:]) != 1 or dims not in (2, 3):
        expected = f"{spatial_dims}D" if spatial_dims else "2D or 3D"
        return volume, (
            f"{path}: the label must be {expected}, got shape {volume.data.shape}. Give one label map per case."
        )
    return Volume(volume.data.reshape(volume.data.shape[:dims]), volume.affine), None


def _spatial(shape: Sequence[int]) -> int:
    """Number of axes but for those of length 1 at the end; two at the least."""
    dims = len(shape)
    while dims > 2 and shape[dims - 1] == 1:
        dims -= 1
    return dims


def _check_values(data: npt.NDArray[Any], values: Sequence[int], path: Path) -> str | None:
    found = np.unique(data)
    if not np.isfinite(found).all():
        return f"{path}: the label must hold integers, got NaN or infinity. Correct the label map."
    unknown = [float(value) for value in found if value not in (0, *values)]
    if unknown:
        shown = ", ".join(f"{value:g}" for value in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        return (
            f"{path}: the label must hold 0 and {', '.join(map(str, sorted(values)))} only, got {shown}. Name the "
            "value in labels, or correct the label map."
        )
    return None


def _check_image(image: Volume, path: Path, label: Volume, label_path: Path, dims: int) -> str | None:
    if image.data.ndim < dims or image.data.shape[:dims] != label.data.shape[:dims]:
        return (
            f"{path}: image and label must have one {dims}D shape, got {image.data.shape} and {label.data.shape} of "
            f"{label_path}. Pair the right files, or resample the label to the image."
        )
    if not np.isfinite(image.data).all():
        return f"{path}: the image must be finite, got NaN or infinity. Replace these voxels or the file."
    distance, limit = _displacement(image.affine, label.affine, image.data.shape[:dims])
    if distance > limit:
        return (
            f"{path}: image and label must lie at one place, got affines that put a corner {distance:.3g} mm "
            f"apart from that of {label_path} (at most {limit:.3g} mm is taken as the same). Pair the right "
            "files, or correct the affine that is wrong."
        )
    return None


def _displacement(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], shape: Sequence[int]
) -> tuple[float, float]:
    """The largest distance in mm between corners of two grids of one shape, and how much is still the same place."""
    corners = np.array([[*corner, *([0] * (3 - len(shape))), 1] for corner in np.ndindex(*([2] * len(shape)))], float)
    corners[:, : len(shape)] *= np.array(shape) - 1
    distance = np.linalg.norm(corners @ (first - second).T[:, :3], axis=1).max()
    smallest = nib.affines.voxel_sizes(second)[: len(shape)].min()
    return float(distance), float(GEOMETRY_TOLERANCE_VOXELS * smallest)
