"""Record in a bundle's metadata of the cases used for training and for model selection."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.bundles.loading import read_metadata
from monai_unetpp.data.labelled import list_cases
from monai_unetpp.data.voxel_hash import hash_voxels
from monai_unetpp.files import write_text

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

    training: Mapping[str, str]
    selecting: Mapping[str, str]
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
    path = Path(bundle) / "configs" / "metadata.json"
    write_text(path, json.dumps(content, indent=4, ensure_ascii=False) + "\n")
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
    names = [field.name for field in dataclasses.fields(TrainingRecord)]
    if not isinstance(found, dict) or set(found) != set(names) or not isinstance(found["rule"], str):
        raise ValueError(_malformed(bundle, found))
    if not all(_is_table(found[name]) for name in ("training", "selecting")):
        raise ValueError(_malformed(bundle, found))
    return TrainingRecord(**found)


def _malformed(bundle: str | PathLike[str], found: Any) -> str:
    return (
        f"{Path(bundle) / 'configs' / 'metadata.json'}: {RECORD_KEY} must have training and selecting, hashes by case, "
        f"and a rule, got {found!r:.80}. Copy the bundle again."
    )


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


def _hash_cases(cases: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {case.name: hash_voxels(case.image) for case in list_cases(cases)} if cases else {}
