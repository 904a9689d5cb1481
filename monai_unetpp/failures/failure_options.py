"""The options of the search for failures. Importing this module does not import torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from monai_unetpp.choices import FORMS_HELP, SUBJECT_PATTERN_HELP, SUBJECTS_HELP
from monai_unetpp.options import OUTPUT_FLAGS, option

__all__ = ["FailureOptions"]

_Path = str | PathLike[str]


@dataclasses.dataclass(frozen=True)
class FailureOptions:
    """Which segmentations are scored against which labels, and what is shown.

    Attributes:
        dataset_dir: folder with ``dataset.json`` in Decathlon form, 2D or 3D.
        output_dir: folder for the report.
        segmentations: folder with ``<case>_seg.nii.gz``, ``.png`` or ``.tif``, as
            :func:`monai_unetpp.segmentation.segment_files` and the bundles write them; without it, kinds are only
            counted.
        list_key: list of ``dataset.json``: ``"validation"`` or ``"training"``.
        worst: number of cases to list and to draw, 1 or more; at most 24 are drawn.
        labels: names of the labels to score; by default all that ``dataset.json`` names. Others become background.
        instances: whether label maps number their objects; then all values above 0 are one label.
        subjects: CSV file with the subject of each case. A list that is not in ``dataset.json`` is drawn by subject, so
            that the same rules give the same list as in training.
        subject_pattern: regular expression with one group that finds the subject in the case's name.

    Raises:
        FileNotFoundError: no folder ``segmentations``.
        TypeError: ``worst`` is not a whole number.
        ValueError: ``worst`` is below 1.
    """

    dataset_dir: _Path = option(
        flags=("dataset_dir", "-i", "--input", "--dataset_dir"),
        metavar="DATASET_DIR",
        help=f"folder with {FORMS_HELP}; 2D or 3D",
    )
    output_dir: _Path = option(flags=OUTPUT_FLAGS, metavar="DIR", help="folder for the report")
    segmentations: _Path | None = option(
        None,
        metavar="DIR",
        help="folder with <case>_seg.nii.gz, .png or .tif, as segment writes them (default: only count the kinds)",
    )
    list_key: str = option("validation", metavar="KEY", help="list of dataset.json to use, validation or training")
    worst: int = option(10, type=int, metavar="N", help="cases to list, and to draw up to 24 of them")
    labels: Sequence[str] | None = option(
        None,
        flags=("--label",),
        action="append",
        metavar="NAME",
        help="label to score; repeatable, the others become background (default: all that dataset.json names)",
    )
    instances: bool = option(False, help="the label maps number their objects (segment --instances): all are one label")

    subjects: _Path | None = option(None, metavar="FILE", help=SUBJECTS_HELP)
    subject_pattern: str | None = option(None, metavar="REGEX", help=SUBJECT_PATTERN_HELP)

    def __post_init__(self) -> None:
        if isinstance(self.worst, bool) or not isinstance(self.worst, int):
            raise TypeError(f"worst must be a whole number, got {self.worst!r}. Give the number of cases to show.")
        if self.worst < 1:
            raise ValueError(f"worst must be at least 1, got {self.worst}. Give the number of cases to show.")
        if self.folder is not None and not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: no such folder. segmentations must be segment's output folder.")

    @property
    def folder(self) -> Path | None:
        """The folder of the segmentations."""
        return None if self.segmentations is None else Path(self.segmentations)
