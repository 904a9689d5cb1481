"""Planning a training: from a data set to a bundle without weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.data.datasets.datalist import LISTS, load_datalist, read_content
from monai_unetpp.data.datasets.description import DataSetDescription, describe_data_set
from monai_unetpp.data.datasets.labelled import list_cases
from monai_unetpp.files import claimed
from monai_unetpp.planning.bundle_writing import CACHE_FILE, check_free, write_bundle
from monai_unetpp.planning.data_check import check_data
from monai_unetpp.planning.machine import Machine, measure_machine
from monai_unetpp.planning.making import make_plan
from monai_unetpp.planning.measuring import take_fingerprint
from monai_unetpp.planning.plan_options import PlanOptions
from monai_unetpp.planning.starting import compare_start, read_source
from monai_unetpp.planning.training_plan import TrainingPlan
from monai_unetpp.progress import Progress
from monai_unetpp.reporting.numbers import counted

__all__ = ["describe_task", "plan", "plan_checked"]


def plan(
    dataset_dir: str | PathLike[str],
    output_dir: str | PathLike[str],
    minutes: float | None = None,
    folds: int | None = None,
    settings: Sequence[str] | Mapping[str, Any] | None = None,
    device: str | None = None,
    init: str | PathLike[str] | None = None,
    subjects: str | PathLike[str] | None = None,
    subject_pattern: str | None = None,
    progress: Progress = False,
    measure: Callable[[int, str | None, int], Machine] = measure_machine,
) -> TrainingPlan:
    """Measure a data set, and write a bundle without weights for training on it, with ``docs/plan.md``.

    All cases are checked first, then the training cases are measured, and a training step of a small network is timed.
    The same data, class of machine and version give the same plan.

    Args:
        dataset_dir: folder with ``dataset.json`` in Decathlon or nnU-Net form, or with images and labels.
        output_dir: folder of the bundle to write; an earlier plan is replaced unless a training has saved anything.
        minutes: time for training, scores and report together; 60 by default.
        folds: networks for cross-fitting in addition to the final one: 0, 3 or 5; 0 by default.
        settings: values to set by hand, as ``["batch_size=4"]`` or ``{"batch_size": 4}``.
        device: such as ``"cpu"``; by default a GPU if there is one.
        init: bundle or checkpoint with weights to start from: what the network must have for them to fit is planned
            as it is there, unless it is set by hand.
        subjects: CSV file with the columns ``case`` and ``subject``: cases of a subject stay together.
        subject_pattern: regular expression with one group that finds the subject in the case's name.
        progress: True shows a bar on standard error; a function is called with a line of text after each case.
        measure: returns the class of the machine for ``spatial_dims``, ``device`` and the number of classes.

    Returns:
        The plan, which notebooks show as a table.

    Raises:
        FileNotFoundError: no such data set, or no such ``init``.
        FileExistsError: ``output_dir`` contains something other than an earlier plan.
        BlockingIOError: another process plans or trains there.
        TypeError: a setting of the wrong type.
        ValueError: invalid data or settings, or none of the weights of ``init`` fit.

    Example:
        .. code-block:: python

            from monai_unetpp.planning import plan

            plan("Task04_Hippocampus", "my_bundle", minutes=20, settings={"batch_size": 4})
    """
    options = PlanOptions(dataset_dir, output_dir, minutes, folds, settings, device, init, subjects, subject_pattern)
    described = describe_task(options)
    check_data(dataset_dir, described, output_dir, options.fold_count, progress, **options.subject_rules)
    return plan_checked(options, described, progress, measure)


def describe_task(options: PlanOptions) -> DataSetDescription:
    """What the data set says about itself, if the folder is free and the weights to start from can be read.

    Args:
        options: what was asked for.
    """
    check_free(options.output_dir)
    if options.init is not None:
        read_source(options.init)
    return describe_data_set(options.dataset_dir, **options.subject_rules)


def plan_checked(
    options: PlanOptions,
    described: DataSetDescription,
    progress: Progress = False,
    measure: Callable[[int, str | None, int], Machine] = measure_machine,
) -> TrainingPlan:
    """Plan for data that have passed :func:`~monai_unetpp.planning.data_check.check_data`, in a free folder.

    Args:
        options: the options.
        described: the facts about the data set.
        progress: see :func:`plan`.
        measure: see :func:`plan`.

    Raises:
        BlockingIOError: another process plans or trains there.
    """
    folder = Path(options.output_dir)
    source = None if options.init is None else read_source(options.init)
    (folder / "training").mkdir(parents=True, exist_ok=True)
    with claimed(folder / "training", "plans or trains"):
        fingerprint = take_fingerprint(
            options.dataset_dir,
            cache=folder / CACHE_FILE,
            progress=progress,
            described=described,
            **options.subject_rules,
        )
        machine = measure(fingerprint.spatial_dims, options.device, len(fingerprint.labels) + 1)
        made = make_plan(fingerprint, options, machine, _count_validation(options), source)
        if options.init is not None:
            made = dataclasses.replace(made, start=compare_start(made, options.init))
        write_bundle(made, fingerprint, folder)
    return made


def _count_validation(options: PlanOptions) -> str:
    """The validation cases, in words."""
    training, validation = (
        list_cases(load_datalist(options.dataset_dir, key, **options.subject_rules)) for key in LISTS
    )
    count, subjects = counted(len(validation), "case"), len({case.subject for case in validation})
    if "validation" in read_content(Path(options.dataset_dir) / "dataset.json"):
        return f"{count} (the data set's own list)"
    return f"{count} of {counted(subjects, 'subject')} (drawn from {len(training) + len(validation)} cases)"
