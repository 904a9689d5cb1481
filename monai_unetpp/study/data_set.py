"""The data of a study: its cases, and what they require of a network."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.data import describe_data_set, load_datalist
from monai_unetpp.data.datasets.description import DataSetDescription
from monai_unetpp.data.datasets.label_names import IGNORE
from monai_unetpp.data.datasets.labelled import hash_files, list_cases, repeated_names
from monai_unetpp.data.formats.naming import entry_name


@dataclasses.dataclass(frozen=True)
class StudyCases(DataSetDescription):
    """The cases of a data set, and what they require of a network, whose classes are in the order of label values.

    Attributes:
        training: dicts with ``image`` and ``label``.
        validation: the cases that are scored.
        folder: folder of the data set.
        subject_rules: how ``load_datalist`` finds the subjects, as its arguments.
    """

    training: tuple[dict[str, Any], ...]
    validation: tuple[dict[str, Any], ...]
    folder: Path
    subject_rules: dict[str, Any]

    @property
    def in_channels(self) -> int:
        """Channels per image, in separate files or on the last axis of one."""
        return len(self.channels)

    @property
    def subjects(self) -> dict[str, str]:
        """Subject of each case that is scored, by the case's name."""
        return {case.name: case.subject for case in list_cases(self.validation)}

    @property
    def values(self) -> list[int]:
        """Label values of the foreground, in the order of their classes."""
        return sorted(set(self.labels.values()))

    @property
    def out_channels(self) -> int:
        """Number of classes, including the background."""
        return len(self.values) + 1

    @cached_property
    def content(self) -> str:
        """SHA-256 of all files of images and labels, wherever they are; empty if one cannot be read."""
        try:
            return hash_files([file for case in list_cases([*self.training, *self.validation]) for file in case.files])
        except OSError:  # told with the other problems when the cases are checked
            return ""

    def network_data(self) -> dict[str, Any]:
        """What the bundle of a study must know about the data."""
        return {
            "spatial_dims": self.spatial_dims,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "label_values": self.values,
            "ignore_label": self.ignore_label,
        }

    def as_dict(self) -> dict[str, Any]:
        """What all runs of a study must share; their folders may differ."""
        return {**self.description(), "content": self.content}

    def description(self) -> dict[str, Any]:
        """The same without the content of the files."""
        return {
            "subjects": self.subjects,
            "name": self.name,
            "spatial_dims": self.spatial_dims,
            "in_channels": self.in_channels,
            "labels": {**self.labels, **({} if self.ignore_label is None else {IGNORE: self.ignore_label})},
            "training": [entry_name(case) for case in self.training],
            "validation": [entry_name(case) for case in self.validation],
        }


def find_study_cases(dataset_dir: str | PathLike[str], **subjects: Any) -> StudyCases:
    """Read the description of a data set, and the number of axes and channels from its first case.

    Without a ``validation`` list, a fifth of the training cases is drawn for it, always the same ones, whole subjects.
    ``subjects`` are the arguments of :func:`monai_unetpp.data.load_datalist` that find them.
    """
    described = describe_data_set(dataset_dir, **subjects)
    validation = load_datalist(dataset_dir, "validation", **subjects)
    for message in repeated_names(list_cases(validation)).values():
        raise ValueError(message)
    return StudyCases(
        **vars(described),
        training=tuple(load_datalist(dataset_dir, "training", **subjects)),
        validation=tuple(validation),
        folder=Path(dataset_dir),
        subject_rules=subjects,
    )
