"""Record in a bundle's metadata of the cases used for training and for model selection."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.bundles.json_files import METADATA_FILE
from monai_unetpp.bundles.loading import read_metadata
from monai_unetpp.data.labelled import list_cases
from monai_unetpp.data.voxel_hash import hash_voxels
from monai_unetpp.files import write_text
from monai_unetpp.plain_values import from_plain

__all__ = [
    "BEST_ON_VALIDATION",
    "LAST",
    "LAST_AVERAGED",
    "RECORD_KEY",
    "TrainingRecord",
    "read_training_record",
    "write_training_record",
]

#: Key of ``metadata.json``. The record is beside the SHA-256 of the weights, and a pruned bundle inherits it.
RECORD_KEY = "training_record"

LAST_AVERAGED = "last, averaged"
"""Rule: the moving average of the weights after the last step, without model selection."""
LAST = "last"
"""Rule: the weights after the last step, without model selection."""
BEST_ON_VALIDATION = "best on validation"
"""Rule: the weights of the epoch with the best score on the selection cases."""


@dataclasses.dataclass(frozen=True)
class TrainingRecord:
    """The cases that influenced a network's weights.

    Attributes:
        training: :func:`hash_voxels` of the image of each training case, by the case's name.
        selecting: the same for the cases used for model selection; empty if there was none.
        rule: which weights were taken, such as ``"last, averaged"`` or ``"best on validation"``.
    """

    training: dict[str, str]
    selecting: dict[str, str]
    rule: str

    def role_of(self, voxels: str) -> str | None:
        """The role of a case with these voxels: ``"training"``, ``"selecting"``, or None for an untouched one.

        Args:
            voxels: from :func:`hash_voxels`.
        """
        if voxels in self.training.values():
            return "training"
        return "selecting" if voxels in self.selecting.values() else None


def write_training_record(
    bundle: str | PathLike[str],
    *,
    training: Sequence[Mapping[str, Any]],
    selecting: Sequence[Mapping[str, Any]] = (),
    rule: str,
) -> TrainingRecord:
    """Record in a bundle's ``configs/metadata.json`` which cases influenced its weights.

    Args:
        bundle: the folder of the bundle.
        training: the training cases, as from ``load_datalist``.
        selecting: the cases used for model selection.
        rule: which weights were taken.

    Raises:
        FileNotFoundError: the bundle has no metadata.
        ImageFileError: a case that cannot be read.
    """
    record = TrainingRecord(_hash_cases(training), _hash_cases(selecting), rule)
    content = read_metadata(bundle) | {RECORD_KEY: dataclasses.asdict(record)}
    write_text(Path(bundle) / METADATA_FILE, json.dumps(content, indent=4, ensure_ascii=False) + "\n")
    return record


def read_training_record(bundle: str | PathLike[str]) -> TrainingRecord | None:
    """The record of :func:`write_training_record`; None if the bundle has none.

    Raises:
        FileNotFoundError: the bundle has no metadata.
        ValueError: a malformed record.
    """
    found = read_metadata(bundle).get(RECORD_KEY)
    if found is None:
        return None
    try:
        return from_plain(TrainingRecord, found, RECORD_KEY)
    except ValueError as e:
        raise ValueError(
            f"{Path(bundle) / METADATA_FILE}: {RECORD_KEY} must have training and selecting, hashes by case, and a "
            f"rule, got {found!r:.80}. Copy the bundle again."
        ) from e


def _hash_cases(cases: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {case.name: hash_voxels(case.image) for case in list_cases(cases)} if cases else {}
