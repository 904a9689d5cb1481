"""Compare how a data set and a network name labels and channels."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.data.datasets.datalist import read_as_written
from monai_unetpp.data.datasets.label_names import IGNORE, LabelNames
from monai_unetpp.data.formats.grid import warn_once
from monai_unetpp.errors import counted, list_values

__all__ = [
    "UNNAMED",
    "NetworkNames",
    "check_channel_order",
    "check_ignored",
    "check_label_values",
    "find_channel_names",
    "read_channel_names",
]

#: Names that nnU-Net and this package write for channels without a known modality.
UNNAMED = re.compile(r"noNorm|zscore|rescale_to_0_1|rgb_to_0_1|channel_[0-9]+|[0-9]+", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class NetworkNames:
    """How a network names what it takes and gives.

    Attributes:
        source: the file that says so, for messages.
        labels: by the name of a label, its values in label maps; several where they are one class.
        channels: the names of the input channels in their order; empty if they are not known.
    """

    source: str
    labels: Mapping[str, Collection[int]]
    channels: Sequence[str] = ()


def check_label_values(
    path: str | PathLike[str], names: LabelNames | None, labels: Mapping[str, Collection[int]]
) -> None:
    """Refuse a data set that gives the name of a label to another value than the network does.

    Case is no matter, nor are names that only one of them has.

    Args:
        path: the ``dataset.json``, for the message.
        names: the labels of the data set; None if it names none.
        labels: by name, the values that the network gives it.

    Raises:
        ValueError: a name stands for other values.
    """
    found = {} if names is None else names.foreground
    for label, values in labels.items():
        same = {name: value for name, value in found.items() if name.casefold() == label.casefold()}
        if same and set(values).isdisjoint(same.values()):
            name = next(iter(same))
            raise ValueError(
                f"{path}: labels must have the values that the network gives them, got {same[name]} for {name!r} "
                f"instead of {list_values(sorted(values))}. Give it this value in the label maps and there, or, if it "
                "is another structure, another name."
            )


def check_ignored(path: str | PathLike[str], names: LabelNames | None, labels: Mapping[str, Collection[int]]) -> None:
    """Refuse a data set whose ``ignore`` has the value of one of the network's labels, given by name.

    Raises:
        ValueError: it has.
    """
    taken = next((name for name, values in labels.items() if names is not None and names.ignore in values), None)
    if names is not None and taken is not None:
        raise ValueError(
            f"{path}: labels must give {IGNORE!r} a value that no label of the network has, got {names.ignore}, which "
            f"is {taken!r} to the network. Give it another, also in the label maps."
        )


def read_channel_names(content: Mapping[str, Any]) -> list[str]:
    """The names of the channels in a ``dataset.json``: by number, in a list, or a single one; empty if there are none.

    Args:
        content: of the file.
    """
    entry = content.get("modality") or content.get("channel_names")
    if isinstance(entry, Mapping):
        return [str(name) for _, name in sorted(entry.items(), key=_number)]
    return [str(name) for name in ([entry] if isinstance(entry, str) else entry if isinstance(entry, list) else [])]


def wrong_channel_names(path: str | PathLike[str], named: int, count: int) -> str:
    """That a ``dataset.json`` names another number of channels than images have, in one line."""
    return f"{path}: names {counted(named, 'channel')}, but images have {count}. Correct the names."


def find_channel_names(dataset_dir: str | PathLike[str]) -> list[str]:
    """The names of the channels in the ``dataset.json`` of a data set; empty if it is missing or names none.

    Raises:
        ValueError: it cannot be read.
    """
    path = Path(dataset_dir) / "dataset.json"
    return read_channel_names(read_as_written(path)) if path.is_file() else []


def check_channel_order(path: str | PathLike[str], found: Sequence[str], names: NetworkNames) -> None:
    """Refuse a data set with the channels of a network in another order.

    Case is no matter, nor are other names: sites name a modality differently. If a few names are the same but in other
    places, this is told once. Names that tell nothing, such as ``noNorm``, do not count as moved.

    Args:
        path: the ``dataset.json``, for the message.
        found: its channels in their order.
        names: of the network.

    Raises:
        ValueError: the same names in another order.
    """
    own, expected = ([name.strip().casefold() for name in each] for each in (found, names.channels))
    if len(own) != len(expected):
        return
    moved = [one for one, other in zip(own, expected, strict=True) if one != other and one in expected]
    if all(map(UNNAMED.fullmatch, moved)):
        return
    told = f"{', '.join(found)}; {names.source} names {', '.join(names.channels)}"
    if sorted(own) == sorted(expected):
        raise ValueError(
            f"{path}: channels must be in the order of the network's, got {told}. Reorder the channels in the data "
            "set: its files and their names."
        )
    warn_once(f"{path}: the channels are {told}. If the order is not the same, reorder them in the data set.")


def _number(item: tuple[Any, Any]) -> tuple[int, str]:
    key = str(item[0])
    return (int(key), key) if key.isdecimal() else (0, key)
