"""The check of all labelled cases before planning and training; repeated only if files have changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.data import check_labelled_data, load_datalist
from monai_unetpp.data.datalist import LISTS
from monai_unetpp.data.description import DataSetDescription
from monai_unetpp.data.label_names import LabelNames
from monai_unetpp.data.labelled import LabelledCase, file_identity, list_cases
from monai_unetpp.data.voxel_hash import hash_voxels, keep_hash
from monai_unetpp.distributed import rank
from monai_unetpp.files import write_text
from monai_unetpp.planning.training_plan import TrainingPlan
from monai_unetpp.progress import Progress

__all__ = ["CHECK_FILE", "check_data"]

CHECK_FILE = "training/data_check.json"
"""The state of the data that passed the check and the hashes of their voxels, so that nothing is read again."""

_VERSION = 1
"""Version of the rules; increased when they become stricter."""


def check_data(
    dataset_dir: str | PathLike[str],
    described: DataSetDescription | TrainingPlan,
    bundle: str | PathLike[str],
    folds: int,
    progress: Progress = None,
    **subjects: Any,
) -> None:
    """Refuse data that the training or its verdict would refuse later; all problems of both lists are named.

    In a process group each process reads its share. Nothing is read if no file has changed since the last check passed.

    Args:
        dataset_dir: folder of the data set.
        described: axes, channels and labels that all cases must have.
        bundle: its folder, which remembers what passed.
        folds: trainings for cross-fitting, each of which needs a subject; 0 for none.
        progress: how progress is shown, in a process group by the first process.
        **subjects: how ``load_datalist`` finds them: ``subjects`` and ``subject_pattern``.

    Raises:
        FileNotFoundError: no such data set.
        ValueError: cases with problems, the same image or name twice, an empty list, or fewer subjects than folds.
    """
    cases = list_cases([entry for key in LISTS for entry in load_datalist(dataset_dir, key, **subjects)])
    count = len({case.subject for case in cases})
    if count < folds:
        raise ValueError(f"folds must not be more than subjects, got {folds} for {count}. Leave them out.")
    state, passed = _state(cases, described), Path(bundle) / CHECK_FILE
    before = _read(passed)
    if before.items() >= state.items():
        for case in cases:
            if case.name in before.get("voxels", {}):
                keep_hash(case.image, before["voxels"][case.name])
        return
    check_labelled_data(
        dataset_dir,
        spatial_dims=described.spatial_dims,
        in_channels=len(described.channels),
        names=LabelNames(dict(described.labels), described.ignore_label),
        refuse_repeats=True,
        progress=progress,
        **subjects,
    )
    if rank() == 0:
        voxels = {case.name: hash_voxels(case.image) for case in cases}
        write_text(passed, json.dumps({**state, "voxels": voxels}) + "\n")


def _state(cases: Sequence[LabelledCase], described: DataSetDescription | TrainingPlan) -> dict[str, Any]:
    """A hash of everything that the result of the check depends on."""
    facts: Mapping[str, Any] = {
        "spatial_dims": described.spatial_dims,
        "channels": len(described.channels),
        "labels": described.labels,
        "ignore_label": described.ignore_label,
        "files": [[file_identity(file) for file in case.files] for case in cases],
    }
    return {"version": _VERSION, "sha256": hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
