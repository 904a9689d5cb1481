"""Names of label values: the entry ``labels`` of ``dataset.json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.data.datasets.datalist import read_content
from monai_unetpp.errors import list_values

__all__ = ["IGNORE", "POOLED", "LabelNames", "find_ignore_label", "find_label_names", "name_values", "read_label_names"]

IGNORE = "ignore"
"""nnU-Net's name for unlabelled voxels, which losses and scores leave out."""

POOLED = "foreground"
"""The name of all labels together in scores, ``monai_unetpp.metrics.FOREGROUND``."""

#: Transforms hold label maps as float32, in which larger values run together.
_LARGEST = 2**24
#: More than any value of a file format has, and fewer than Python refuses to read.
_MOST_DIGITS = 20
#: Values above 0 that may be labels without names; more are rather what smooth edges of a mask have.
_MOST_UNNAMED = 30


@dataclasses.dataclass(frozen=True)
class LabelNames:
    """The labels of a data set.

    Attributes:
        foreground: value of each label by name, without the background and ``ignore``.
        ignore: value of the voxels that losses and scores leave out; None if there are none.
    """

    foreground: dict[str, int]
    ignore: int | None = None

    @property
    def values(self) -> tuple[int, ...]:
        """All values that label maps may hold besides 0."""
        return (*self.foreground.values(), *(() if self.ignore is None else (self.ignore,)))


def read_label_names(path: str | PathLike[str], labels: Any) -> LabelNames:
    """Parse the entry ``labels``, either way round: ``{"0": "background", "1": "liver"}`` or ``{"liver": 1}``.

    Args:
        path: the ``dataset.json``, for the message.
        labels: the entry.

    Raises:
        ValueError: the entry has another form or no label above 0, repeats a name or value, has regions of several
            values, a value is too large, or ``ignore`` is not the highest value.

    Example:
        >>> read_label_names("dataset.json", {"background": 0, "liver": 1, "ignore": 2})
        LabelNames(foreground={'liver': 1}, ignore=2)
    """
    pairs = list(_pairs(path, labels))
    named = dict(pairs)
    if len(named) < len(pairs) or len(set(named.values())) < len(pairs):
        raise ValueError(
            f"{path}: labels must give every name and every value once, got {labels!r:.200}. Name each label once."
        )
    for name, value in pairs:
        if value and not name.strip():
            raise ValueError(f"{path}: labels must give every value a name, got {name!r} for {value}. Name it.")
        if name.casefold() == "background" and value:
            raise ValueError(
                f"{path}: labels must give the background the value 0, got {value}. Give it 0, also in the label "
                "maps, or rename the label."
            )
    ignore = named.pop(IGNORE, None)
    foreground = {name: value for name, value in named.items() if value}
    if not foreground:
        raise ValueError(_problem(path, labels))
    if len(foreground) > 1 and POOLED in foreground:
        raise ValueError(
            f"{path}: labels must not include {POOLED!r} if there are several, as it names all of them in scores. "
            "Rename the label."
        )
    if ignore is not None and ignore < max(foreground.values()):
        raise ValueError(
            f"{path}: labels must give {IGNORE!r} the highest value, got {ignore} with labels up to "
            f"{max(foreground.values())}. Give it the highest, also in the label maps, or rename the label."
        )
    return LabelNames(foreground, ignore)


def name_values(folder: str | PathLike[str], found: Collection[int]) -> LabelNames:
    """Names for the values of label maps that nobody has named: value 3 is called ``label_3``.

    Args:
        folder: of the data set, for the message.
        found: what occurs in all label maps together.

    Raises:
        ValueError: values below 0, none above, one too large, or so many that they are shades of grey rather than
            labels.
    """
    values = sorted(value for value in found if value)
    if not values or values[0] < 0:
        raise ValueError(
            f"{folder}: labels must hold values above 0 and none below, got {list_values(sorted(found))}. Outline "
            "the structures to segment."
        )
    if len(values) > _MOST_UNNAMED:
        raise ValueError(
            f"{folder}: labels without names must have at most {_MOST_UNNAMED} values above 0, got {len(values)}: "
            f"{list_values(values)}. Smooth edges and JPEG make such shades of grey, and each would become a class: "
            "save the masks again without them, as PNG. Where each object has a number, as cells often have, set "
            "all of them to 1. If all are labels, name them in a dataset.json."
        )
    _check_size(folder, values[-1])
    return LabelNames({f"label_{value}": value for value in values})


def find_ignore_label(dataset_dir: str | PathLike[str]) -> int | None:
    """Find the value of ``ignore`` in a data set, for configurations.

    Args:
        dataset_dir: folder with ``dataset.json``. If this is missing or names no labels, nothing is ignored.

    Raises:
        ValueError: it cannot be read.
    """
    names = find_label_names(dataset_dir)
    return None if names is None else names.ignore


def find_label_names(dataset_dir: str | PathLike[str]) -> LabelNames | None:
    """The labels that the ``dataset.json`` of a data set names; None if it is missing or names none.

    Raises:
        ValueError: it cannot be read.
    """
    path = Path(dataset_dir) / "dataset.json"
    labels = read_content(path).get("labels") if path.is_file() else None
    return None if labels is None else read_label_names(path, labels)


def _pairs(path: str | PathLike[str], labels: Any) -> Iterable[tuple[str, int]]:
    """Name and value of each label."""
    if not isinstance(labels, Mapping):
        raise ValueError(_problem(path, labels))
    for key, value in labels.items():
        if isinstance(value, list):
            raise ValueError(
                f"{path}: labels must have one value each, got {value!r:.100} for {str(key)!r:.100}. Regions of "
                "several labels are not supported: name every label separately."
            )
        # {"liver": 1} takes precedence over {"1": "liver"}
        number, name = (value, key) if _is_number(value) else (key, value)
        if not _is_number(number) or not isinstance(name, str):
            raise ValueError(_problem(path, labels))
        _check_size(path, int(number))
        yield name, int(number)


def _check_size(path: str | PathLike[str], value: int) -> None:
    if value > _LARGEST:
        raise ValueError(
            f"{path}: labels must have values up to {_LARGEST}, got {value}. Number them from 1 up, also in the label "
            "maps."
        )


def _is_number(value: Any) -> bool:
    """Whether ``value`` is a non-negative integer, or its digits."""
    if isinstance(value, str):
        return value.isascii() and value.isdecimal() and len(value) <= _MOST_DIGITS
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _problem(path: str | PathLike[str], labels: Any) -> str:
    return (
        f"{path}: labels must map values to names with at least one above 0, got {labels!r:.200}. Write it like "
        '{"0": "background", "1": "liver"}.'
    )
