"""The check of all labelled cases before planning and training; repeated only if files have changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.bundles import read_network_names
from monai_unetpp.data import check_labelled_data, load_datalist
from monai_unetpp.data.datasets.datalist import LISTS
from monai_unetpp.data.datasets.description import DataSetDescription
from monai_unetpp.data.datasets.label_names import IGNORE, LabelNames, find_label_names
from monai_unetpp.data.datasets.labelled import LabelledCase, list_cases
from monai_unetpp.data.datasets.network_names import check_channel_order, find_channel_names
from monai_unetpp.data.datasets.voxel_hash import hash_voxels, keep_hash
from monai_unetpp.data.formats.grid import warn_once
from monai_unetpp.data.formats.reader import read_geometry
from monai_unetpp.data.formats.source_files import file_identity
from monai_unetpp.distributed import rank
from monai_unetpp.errors import counted, list_values
from monai_unetpp.files import read_json_object, write_json
from monai_unetpp.planning.bundle_writing import CHECK_FILE, has_trained
from monai_unetpp.planning.training_plan import TrainingPlan
from monai_unetpp.progress import Progress

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

    In a process group each process reads its share, and the first one shows the progress. Nothing is read if no file
    has changed since the last check passed, which ``bundle`` remembers. All cases must have the axes, channels and
    labels ``described``, and each of the ``folds`` for cross-fitting needs one of the ``subjects``. Where a training in
    ``bundle`` has begun, cases, voxel sizes and label maps must be those that it began with.
    """
    lists = {key: list_cases(load_datalist(dataset_dir, key, **subjects)) for key in LISTS}
    cases = [case for listed in lists.values() for case in listed]
    count = len({case.subject for case in cases})
    if count < folds:
        raise ValueError(f"folds must not be more than subjects, got {folds} for {count}. Leave them out.")
    if not folds and rank() == 0:
        _tell_shared(dataset_dir, lists)
    listed = {key: [[case.name, case.subject] for case in found] for key, found in lists.items()}
    state, passed = _state(cases, listed, described, folds), Path(bundle) / CHECK_FILE
    before: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        before = read_json_object(passed, "It is written again.")
    if before.items() >= state.items():
        for case in cases:
            if case.name in before.get("voxels", {}):
                keep_hash(case.image, before["voxels"][case.name])
        return
    labels = check_labelled_data(
        dataset_dir,
        spatial_dims=described.spatial_dims,
        in_channels=len(described.channels),
        names=LabelNames(dict(described.labels), described.ignore_label),
        refuse_repeats=True,
        folds=folds,
        progress=progress,
        **subjects,
    )
    found = {
        "lists": listed,
        "label_maps": labels,
        "voxels": {case.name: hash_voxels(case.image) for case in cases},
        # edges of a voxel in mm, rounded, as files may hold them in two ways
        "axes": {case.name: read_geometry(case.image[0]).affine[:3, :3].round(3).tolist() for case in cases},
    }
    if has_trained(passed.parent) and any(before.get(name, value) != value for name, value in found.items()):
        raise ValueError(
            f"{dataset_dir}: the cases, their order, voxel sizes, label maps, lists or subjects must stay as they were "
            f"when the training of {bundle} began, as cases that have trained, or other label maps, could judge. Give "
            "another output folder, or restore them."
        )
    if rank() == 0:
        write_json(passed, {**state, **found})


def check_names(dataset_dir: str | PathLike[str], plan: TrainingPlan, bundle: str | PathLike[str]) -> None:
    """Refuse data with other names or values of labels, or order of channels, than ``bundle`` was planned for."""
    check_channel_order(Path(dataset_dir) / "dataset.json", find_channel_names(dataset_dir), read_network_names(bundle))
    names = find_label_names(dataset_dir)
    if names is None or (names.foreground, names.ignore) == (plan.labels, plan.ignore_label):
        return
    planned = {**plan.labels, **({} if plan.ignore_label is None else {IGNORE: plan.ignore_label})}
    told = ", ".join(f"{name}: {value}" for name, value in planned.items())
    raise ValueError(
        f"{Path(dataset_dir) / 'dataset.json'}: labels must stay as they were when {bundle} was planned ({told}). "
        "Restore them, or give another output folder."
    )


def _tell_shared(dataset_dir: str | PathLike[str], lists: Mapping[str, Sequence[LabelledCase]]) -> None:
    """Warn where subjects have cases in both lists, so that the verdict is on subjects that were trained on."""
    first, second = ({case.subject for case in found} for found in lists.values())
    if shared := sorted(first & second):
        warn_once(
            f"{dataset_dir}: {counted(len(shared), 'subject')} with cases in both lists, {' and '.join(lists)} "
            f"({list_values(shared)}): the verdict will be optimistic. Move the cases of a subject into one list, or "
            "give --folds."
        )


def _state(
    cases: Sequence[LabelledCase],
    lists: Mapping[str, Any],
    described: DataSetDescription | TrainingPlan,
    folds: int,
) -> dict[str, Any]:
    """A hash of everything that the result of the check depends on."""
    facts: Mapping[str, Any] = {
        "spatial_dims": described.spatial_dims,
        "channels": len(described.channels),
        "labels": described.labels,
        "ignore_label": described.ignore_label,
        "lists": lists,
        "folds": folds,
        "files": [[file_identity(file) for file in case.files] for case in cases],
    }
    return {"version": _VERSION, "sha256": hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()}
