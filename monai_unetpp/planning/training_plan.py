"""A plan for a training: values and their reasons. Does not import torch."""

from __future__ import annotations

import dataclasses
import html
import json
import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.networks.transferred import Transfer
from monai_unetpp.plain_values import from_plain, to_plain
from monai_unetpp.planning.values import SETTABLE, check_values
from monai_unetpp.topology import level_name
from monai_unetpp.version import __version__

_Folders = str | PathLike[str] | Sequence[str | PathLike[str]]

PLAN_FILE = "configs/plan.json"
"""The plan in a bundle, from which the bundle was written."""

_ADDED_REASON = {"text": "The plan was made before this could be set.", "source": "monai-unetpp"}


@dataclasses.dataclass(frozen=True)
class Reason:
    """The reason for a value of a plan.

    Attributes:
        text: one sentence.
        source: where the rule comes from.
        by_hand: whether the value was set by hand, overriding the rule.
    """

    text: str
    source: str
    by_hand: bool = False


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """The settings of a training on one data set, with reasons.

    Attributes:
        dataset_dir: path of the data set, absolute or, in the file, relative to the bundle.
        name: name of the bundle.
        spatial_dims: 2 or 3.
        channels: names of the channels of an image.
        labels: value in the label maps by name, without the background; classes are in the order of the values.
        ignore_label: value of voxels that are excluded from training and scores; None if there are none.
        modality: ``"CT"``, ``"MR"`` or ``"other"``.
        minutes: time for everything.
        folds: networks for cross-fitting in addition to the final one, 0 for none.
        validation: the validation cases, in words.
        machine: class of the machine for which the plan was made, in words.
        values: by the names in :data:`monai_unetpp.planning.values.SETTABLE`.
        reasons: by the same names.
        version: of the package that made the plan.
        start: the weights that the training starts from; None for random ones.
        subjects: CSV file with the subject of each case of the data set, as it was given; None for no such file.
        subject_pattern: finds the subject in the name of a case of the data set, as it was given.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: an invalid value, or values that do not fit together.
    """

    dataset_dir: str
    name: str
    spatial_dims: int
    channels: tuple[str, ...]
    labels: dict[str, int]
    ignore_label: int | None
    modality: str
    minutes: float
    folds: int
    validation: str
    machine: str
    values: dict[str, Any]
    reasons: dict[str, Reason]
    version: str = __version__
    start: Transfer | None = None
    subjects: str | None = None
    subject_pattern: str | None = None

    def __post_init__(self) -> None:
        missing = [name for name in SETTABLE if name not in self.values or name not in self.reasons]
        if missing:
            raise ValueError(f"a plan must have a value and a reason for {missing[0]}. Plan again.")
        checked = check_values(self.values, self.spatial_dims, len(self.channels), self.labels)
        object.__setattr__(self, "values", checked)

    def __getitem__(self, name: str) -> Any:
        """The value called ``name``."""
        return self.values[name]

    @property
    def label_values(self) -> list[int]:
        """Label values of the foreground, in the order of their classes."""
        return sorted(self.labels.values())

    @property
    def out_channels(self) -> int:
        """Number of classes, including the background."""
        return len(self.labels) + 1

    @property
    def label_names(self) -> list[str]:
        """Names of the labels, in the order of their classes."""
        return sorted(self.labels, key=lambda name: self.labels[name])

    @property
    def by_hand(self) -> tuple[str, ...]:
        """Names of the values that were set by hand."""
        return tuple(name for name, reason in self.reasons.items() if reason.by_hand)

    @property
    def level_weights(self) -> dict[str, float] | None:
        """Weight of the loss by level; None where all count the same."""
        weights = self["level_weights"]
        return (
            None if weights is None else {level_name(number): weight for number, weight in enumerate(weights, start=1)}
        )

    @property
    def tolerances_mm(self) -> dict[str, float]:
        """Tolerance of the normalised surface Dice by label name."""
        return dict.fromkeys(self.labels, float(self["tolerance_mm"]))

    @property
    def subject_rules(self) -> dict[str, Any]:
        """How the subjects of the data set's cases are found, as arguments of ``load_datalist``."""
        return {"subjects": self.subjects, "subject_pattern": self.subject_pattern}

    def subjects_for(self, dataset_dir: _Folders) -> str | None:
        """:attr:`subjects` if the data set of the plan is in ``dataset_dir``, else None: others have other cases."""
        return self.subjects if self._is_own(dataset_dir) else None

    def subject_pattern_for(self, dataset_dir: _Folders) -> str | None:
        """:attr:`subject_pattern` if the data set of the plan is in ``dataset_dir``, else None."""
        return self.subject_pattern if self._is_own(dataset_dir) else None

    def _is_own(self, dataset_dir: _Folders) -> bool:
        folders = [dataset_dir] if isinstance(dataset_dir, (str, PathLike)) else list(dataset_dir)
        return Path(self.dataset_dir).resolve() in [Path(folder).resolve() for folder in folders]

    def dataset_of(self, subjects: str | None, subject_pattern: str | None) -> str | None:
        """The only data set whose subjects these rules tell: that of the plan for its own ones, else None."""
        own = (subjects, subject_pattern) in ((self.subjects, self.subject_pattern), (None, None))
        return self.dataset_dir if own else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        content: dict[str, Any] = to_plain(self)
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TrainingPlan:
        """The inverse of :meth:`as_dict`.

        Raises:
            TypeError: a value of the wrong type.
            ValueError: ``content`` is not a plan.
        """
        values, reasons = content.get("values"), content.get("reasons")
        if isinstance(values, Mapping) and isinstance(reasons, Mapping):
            added = _added(values)
            told = dict.fromkeys(added, _ADDED_REASON)
            content = {**content, "values": {**added, **values}, "reasons": {**told, **reasons}}
        return from_plain(cls, content, "plan")

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Name, value, reason, source, and whether it was set by hand, of each value, as text."""
        return [
            (
                name,
                in_words(self.values[name]),
                self.reasons[name].text,
                self.reasons[name].source,
                "yes" if self.reasons[name].by_hand else "no",
            )
            for name in SETTABLE
        ]

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{title}</th>" for title in ("", "value", "reason", "source", "by hand?"))
        lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self.rows())
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        return f"<table><caption>Plan of {html.escape(self.name)}</caption><tr>{head}</tr>{body}</table>"


def _added(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that plans of 0.2.0 may lack, and with which their networks were trained."""
    lowest = 0.0 if values.get("normalization") == "inside" else 0.5
    return {
        "orientation": "RAS",
        "dropout": 0.0,
        "level_weights": None,
        "clip_percentiles": [lowest, 99.5],
        "rare_kind_factor": 1.0,
        "gamma": 1.0,
    }


def in_words(value: Any) -> str:
    """A value of a plan as text: ``None`` and empty lists are "none", and lists are separated by commas."""
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {in_words(each)}" for name, each in value.items())
    if isinstance(value, list):
        parts = [f"({in_words(each)})" if isinstance(each, list) else in_words(each) for each in value]
        return ", ".join(parts)
    return str(value)


def load_plan(bundle: str | PathLike[str]) -> TrainingPlan:
    """The plan from which a bundle was written.

    Args:
        bundle: the folder of the bundle.

    Raises:
        FileNotFoundError: the bundle has no plan.
        ValueError: it cannot be read.
    """
    path = Path(bundle) / PLAN_FILE
    try:
        made = TrainingPlan.from_dict(json.loads(path.read_text(encoding="utf-8")))
        # relative to the bundle, as a published bundle names no folder of the machine that made it
        return dataclasses.replace(made, dataset_dir=os.path.join(bundle, made.dataset_dir))
    except FileNotFoundError as e:
        raise FileNotFoundError(f"{path}: no such file. Make the bundle with monai-unetpp plan.") from e
    except (TypeError, ValueError) as e:
        raise ValueError(f"{path}: {e}") from e
