"""Options for planning a training. Does not import torch."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from monai_unetpp.choices import DEVICE_HELP, FORMS_HELP, SUBJECT_PATTERN_HELP, SUBJECTS_HELP
from monai_unetpp.options import OUTPUT_FLAGS, option
from monai_unetpp.planning.values import parse_settings

_Path = str | PathLike[str]
_FOLDS = (0, 3, 5)


@dataclasses.dataclass(frozen=True)
class PlanOptions:
    """The data and limits for which a bundle is planned.

    Attributes:
        dataset_dir: folder of the data set.
        output_dir: folder of the bundle to write.
        minutes: time for everything: training, scores and report; None for the default. Where ``steps`` are set by
            hand, these end a training instead.
        folds: networks for cross-fitting in addition to the final one: 0, 3 or 5; None for the default.
        settings: values of the plan to set by hand, as ``"name=value"`` or by name.
        device: where to train; by default a GPU if there is one.
        init: bundle or checkpoint with weights to start from; the plan follows its network.
        subjects: CSV file with the subject of each case; its absolute path.
        subject_pattern: regular expression with one group that finds the subject in the case's name.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: an invalid value, or an unknown setting.
    """

    dataset_dir: _Path = option(
        flags=("dataset_dir", "-i", "--input", "--dataset_dir"), metavar="DATASET_DIR", help=f"folder with {FORMS_HELP}"
    )
    output_dir: _Path = option(flags=OUTPUT_FLAGS, metavar="BUNDLE", help="folder of the bundle to write")
    minutes: float | None = option(
        None,
        type=float,
        metavar="MINUTES",
        help="time for training, scores and report together (default: 60); where steps are set by hand, these end a "
        "training instead",
    )
    folds: int | None = option(
        None,
        type=int,
        choices=_FOLDS,
        help="cross-fitting by subject: every case is scored by a network that has never seen it (default: 0, none)",
    )
    settings: Sequence[str] | Mapping[str, Any] | None = option(
        None,
        flags=("--set",),
        action="append",
        metavar="KEY=VALUE",
        help="set a value of the plan by hand, such as batch_size=4 or patch_size=64,64,32; repeatable",
    )
    device: str | None = option(None, metavar="DEVICE", help=DEVICE_HELP)
    init: _Path | None = option(
        None,
        metavar="BUNDLE_OR_CHECKPOINT",
        help="start from these weights: features, kernels and norm are planned as they are there, and docs/plan.md "
        "says which layers start from them",
    )
    subjects: _Path | None = option(None, metavar="FILE", help=SUBJECTS_HELP)
    subject_pattern: str | None = option(None, metavar="REGEX", help=SUBJECT_PATTERN_HELP)

    def __post_init__(self) -> None:
        object.__setattr__(self, "dataset_dir", Path(fspath(self.dataset_dir)))
        output = Path(fspath(self.output_dir))
        # the pruned bundle is named after the folder, and lies beside it
        object.__setattr__(self, "output_dir", output.resolve() if output.name in ("", "..") else output)
        object.__setattr__(self, "init", None if self.init is None else fspath(self.init))
        if self.init is not None and os.path.realpath(self.init) == os.path.realpath(self.output_dir):
            raise ValueError(
                f"init must not be the folder of the new bundle, {self.output_dir}. Give another output folder, or the "
                "path of the bundle or checkpoint to start from."
            )
        object.__setattr__(self, "subjects", None if self.subjects is None else os.path.abspath(self.subjects))
        object.__setattr__(self, "settings", parse_settings(self.settings))
        if not (isinstance(self.budget_minutes, (int, float)) and 0 < self.budget_minutes < math.inf):
            raise ValueError(f"minutes must be a number above 0, got {self.minutes!r}. 60 is a good start.")
        if self.fold_count not in _FOLDS or isinstance(self.folds, bool):
            raise ValueError(f"folds must be one of {', '.join(map(str, _FOLDS))}, got {self.folds!r}. 0 means none.")

    @property
    def budget_minutes(self) -> float:
        """The time for everything, by default 60 minutes."""
        return 60.0 if self.minutes is None else self.minutes

    @property
    def fold_count(self) -> int:
        """The number of folds, by default 0."""
        return 0 if self.folds is None else self.folds

    @property
    def subject_rules(self) -> dict[str, Any]:
        """How :func:`monai_unetpp.data.load_datalist` finds the subjects, as its arguments."""
        return {"subjects": self.subjects, "subject_pattern": self.subject_pattern}

    @property
    def given(self) -> dict[str, Any]:
        """The values set by hand, by name."""
        return dict(self.settings or {})  # type: ignore[arg-type]
