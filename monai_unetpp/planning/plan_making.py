"""Planning a training: from a data set to a bundle without weights, by rules except for values set by hand."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.data.datasets.datalist import LISTS, load_datalist, read_content
from monai_unetpp.data.datasets.description import DataSetDescription, describe_data_set
from monai_unetpp.data.datasets.labelled import list_cases
from monai_unetpp.data.transforms.resampling import is_lost
from monai_unetpp.errors import counted
from monai_unetpp.files import claimed
from monai_unetpp.planning import data_rules, network_rules
from monai_unetpp.planning.bundle_writing import CACHE_FILE, check_free, write_bundle
from monai_unetpp.planning.coarsening import choose_coarser_spacing
from monai_unetpp.planning.data_check import check_data
from monai_unetpp.planning.data_rules import OVERLAP, OWN, Choice, is_anisotropic, prepared_shapes
from monai_unetpp.planning.fingerprint import LONGEST_AXIS, Fingerprint
from monai_unetpp.planning.machine import Machine, count_step, measure_machine
from monai_unetpp.planning.measuring import take_fingerprint, trained_lists
from monai_unetpp.planning.network_rules import NetworkTask, Source, choose_network
from monai_unetpp.planning.plan_options import PlanOptions
from monai_unetpp.planning.sides import sided
from monai_unetpp.planning.starting import compare_start, read_source
from monai_unetpp.planning.training_plan import Reason, TrainingPlan, in_words
from monai_unetpp.planning.values import SETTABLE, check_one
from monai_unetpp.progress import Progress

logger = logging.getLogger(__name__)

_BY_HAND = "Set by hand."
#: Values that are the same for all data.
_RECIPE = {
    "learning_rate": Choice(0.002, "The maximum, after a warm-up and before a cosine decay; works well with AdamW."),
    "weight_decay": Choice(1e-4, "Keeps the weights small.", "AdamW, arXiv:1711.05101"),
    "ema": Choice(0.04, "The moving average of the weights is more stable than the last weights."),
    "dropout": Choice(0.0, "Varied patches already keep the network from learning its cases by heart."),
    "level_weights": Choice(None, "The losses of all levels count the same.", "UNet++, arXiv:1912.05074"),
    "distillation": Choice(0.0, "Each level learns from the labels.", "UNet++, arXiv:1912.05074"),
    "late_share": Choice(
        0.25,
        "In the last quarter of the training, the augmentation is light and all classes weigh the same, so that the "
        "network adapts to realistic images.",
    ),
    "gamma": Choice(1.0, "Intensities are kept in proportion; below 1 it lifts faint structures, above 1 bright ones."),
    "overlap": Choice(OVERLAP, "Enough for smooth transitions between windows with Gaussian weights."),
    "flips": Choice([], "Test-time flips take several times as long for little gain."),
    "channels_last": Choice(True, "Convolutions are faster with the channels of a voxel adjacent in memory."),
}
#: Bytes per voxel of the label and of each channel of a cached case; share of the memory for the cache.
_LABEL_BYTES, _CHANNEL_BYTES, _CACHE_SHARE = 1, 4, 0.5
_MOST_WORKERS = 8
#: Least minutes of a training for ``torch.compile`` to save more time than it takes.
_WORTH_COMPILING = 15


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

    All cases are checked first, then the training cases are measured (with folds all cases), and a training step of a
    small network is timed. The same data, class of machine and version give the same plan.

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
    """What the data set says about itself, if the folder is free and weights and values that are given can be used."""
    check_free(options.output_dir)
    if options.init is not None:
        read_source(options.init)
    described = describe_data_set(options.dataset_dir, **options.subject_rules)
    for name, value in options.given.items():
        check_one(name, value, described.spatial_dims)
    return described


def plan_checked(
    options: PlanOptions,
    described: DataSetDescription,
    progress: Progress = False,
    measure: Callable[[int, str | None, int], Machine] = measure_machine,
) -> TrainingPlan:
    """Plan for data that have passed :func:`~monai_unetpp.planning.data_check.check_data`, in a free folder.

    A ``BlockingIOError`` says that another process plans or trains there.
    """
    folder = Path(options.output_dir)
    source = None if options.init is None else read_source(options.init)
    (folder / "training").mkdir(parents=True, exist_ok=True)
    with claimed(folder / "training", "plans or trains"):
        fingerprint = take_fingerprint(
            options.dataset_dir,
            trained_lists(options.fold_count),
            cache=folder / CACHE_FILE,
            progress=progress,
            described=described,
            **options.subject_rules,
        )
        machine = measure(fingerprint.spatial_dims, options.device, len(fingerprint.labels) + 1)
        validation = count_validation(options.dataset_dir, options.subject_rules)
        made = make_plan(fingerprint, options, machine, validation, source)
        if options.init is not None:
            made = dataclasses.replace(made, start=compare_start(made, options.init))
        write_bundle(made, fingerprint, folder)
    return made


def count_validation(dataset_dir: str | PathLike[str], subjects: Mapping[str, Any]) -> str:
    """The validation cases, in words; ``subjects`` are the arguments of ``load_datalist`` that find them."""
    training, validation = (list_cases(load_datalist(dataset_dir, key, **subjects)) for key in LISTS)
    count, people = counted(len(validation), "case"), len({case.subject for case in validation})
    if "validation" in read_content(Path(dataset_dir) / "dataset.json"):
        return f"{count} (the data set's own list)"
    return f"{count} of {counted(people, 'subject')} (drawn from {len(training) + len(validation)} cases)"


def make_plan(
    fingerprint: Fingerprint, options: PlanOptions, machine: Machine, validation: str, source: Source | None = None
) -> TrainingPlan:
    """Choose by rules all values that are not set by hand; what cannot work is a ``TypeError`` or ``ValueError``.

    ``validation`` are the validation cases, in words, and ``source`` is the network whose weights the training starts
    from, if any.
    """
    dims = fingerprint.spatial_dims
    _check_axes(source, dims)
    given = {name: check_one(name, value, dims) for name, value in options.given.items()}
    choices = _Choices(given)
    if choices.settle("orientation", data_rules.choose_orientation(fingerprint)) is None:
        fingerprint = fingerprint.as_stored()
        if "orientation" in given:
            _warn_of_mixed_axes(fingerprint)
    _choose_for_data(choices, fingerprint)
    if given.get("spacing_mm"):
        _check_grid(choices, fingerprint, machine)

    def task_at(spacing_mm: Sequence[float] | None) -> NetworkTask:
        return NetworkTask(
            spatial_dims=dims,
            in_channels=len(fingerprint.channels),
            out_channels=len(fingerprint.labels) + 1,
            shape=data_rules.typical_shape(fingerprint, spacing_mm, choices["crop_background"]),
            spacing_mm=spacing_mm,
            square=choices["rotate90"],
            minutes=options.budget_minutes,
            folds=options.fold_count,
            source=source,
        )

    def patch_at(spacing_mm: Sequence[float] | None) -> tuple[Sequence[int], Sequence[int]]:
        asked = task_at(spacing_mm)
        return asked.shape, choose_network(asked, machine, count_step, given, check=False)["patch_size"].value

    choices.settle("spacing_mm", choose_coarser_spacing(fingerprint, data_rules.choose_spacing(fingerprint), patch_at))
    task = task_at(choices["spacing_mm"])
    for name, choice in choose_network(task, machine, count_step, given).items():
        if name in given:
            # what the rule itself would take, unless the other values fit this one alone
            others = {key: value for key, value in given.items() if key != name}
            with contextlib.suppress(ValueError):
                choice = choose_network(task, machine, count_step, others, check=False)[name]
        choices.settle(name, choice)
    shapes = prepared_shapes(fingerprint, choices["spacing_mm"], choices["crop_background"])
    window = network_rules.choose_window(
        choices["patch_size"],
        shapes,
        choices["strides"],
        choices["norm"],
        choices["features"][0],
        machine.memory_bytes,
        len(fingerprint.labels) + 1,
    )
    choices.settle("window_shape", window)
    network_rules.check_size("window_shape", choices["window_shape"], choices["strides"])
    for name, choice in {**_RECIPE, **_choose_for_machine(fingerprint, shapes, machine)}.items():
        choices.settle(name, choice)
    choices.settle("compile", _choose_compilation(options))
    _warn_of_mirrored_sides(choices, fingerprint)
    _warn_of_idle_values(choices, dims)
    return TrainingPlan(
        dataset_dir=os.path.abspath(options.dataset_dir),
        name=os.path.basename(os.path.abspath(options.output_dir)),
        spatial_dims=dims,
        channels=fingerprint.channels,
        labels=dict(fingerprint.labels),
        ignore_label=fingerprint.ignore_label,
        modality=fingerprint.modality,
        minutes=float(options.budget_minutes),
        folds=options.fold_count,
        validation=validation,
        machine=str(machine),
        values={name: choices[name] for name in SETTABLE},
        reasons={name: choices.reasons[name] for name in SETTABLE},
        **options.subject_rules,
    )


def _check_axes(source: Source | None, dims: int) -> None:
    if source is not None and source.spatial_dims != dims:
        raise ValueError(
            f"init must be the weights of a {dims}D network for these data, got {source.name} of a "
            f"{source.spatial_dims}D one. Give others, or leave init out."
        )


def _check_grid(choices: _Choices, fingerprint: Fingerprint, machine: Machine) -> None:
    """Refuse a voxel size at which an image is longer than an axis may be, larger than the memory, or nearly gone."""
    spacing_mm = choices["spacing_mm"]
    for case, shape in zip(fingerprint.cases, prepared_shapes(fingerprint, spacing_mm, False), strict=True):
        if is_lost(case.shape, case.spacing_mm, shape, spacing_mm):
            raise ValueError(
                f"spacing_mm must leave something of every image, got {spacing_mm}, at which one of "
                f"{' x '.join(map(str, case.shape))} voxels would have {' x '.join(map(str, shape))}. Give smaller "
                "numbers, or leave spacing_mm out."
            )
    most_voxels = _host_bytes(machine) / (_CHANNEL_BYTES * len(fingerprint.channels))
    for shape in prepared_shapes(fingerprint, choices["spacing_mm"], choices["crop_background"]):
        if max(shape) > LONGEST_AXIS or math.prod(shape) > most_voxels:
            raise ValueError(
                f"spacing_mm must leave images at most {LONGEST_AXIS} voxels long and no larger than the memory, got "
                f"{choices['spacing_mm']}, at which an image would have {' x '.join(f'{edge:.6g}' for edge in shape)}. "
                "Give larger numbers, or leave spacing_mm out."
            )


def _warn_of_mixed_axes(stored: Fingerprint) -> None:
    """Tell that axes as stored mean something else from file to file, where thick slices show it."""
    counts = Counter(axis for case in stored.cases if (axis := is_anisotropic(case.spacing_mm)) is not None)
    if len(counts) > 1:
        told = ", ".join(f"axis {axis} of {counted(count, 'case')}" for axis, count in sorted(counts.items()))
        logger.warning("orientation=none: thick slices lie along %s, and no axis means the same in all files.", told)


def _warn_of_idle_values(choices: _Choices, dims: int) -> None:
    """Tell which values set by hand change nothing beside the others."""
    given = choices.given
    idle = {
        "bias_field": given.get("bias_field") and choices["augmentation"] == "none" and "without augmentation",
        "clip_percentiles": choices["normalization"] == "range"
        and "intensity_range" in given
        and "beside intensity_range",
        "orientation": dims == 2 and "in 2D",
    }
    for name, where in idle.items():
        if where and name in given:
            logger.warning("%s has no effect %s. Leave it out.", name, where)


def _warn_of_mirrored_sides(choices: _Choices, fingerprint: Fingerprint) -> None:
    mirrored = [name for name in ("flip_axes", "flips") if 0 in choices[name]]
    one_sided = sided(fingerprint.labels)
    if not mirrored or not (fingerprint.left_right or one_sided):
        return
    confused = (
        "tell {} from {}".format(*fingerprint.left_right[0])
        if fingerprint.left_right
        else f"tell {one_sided[0]} from the other side"
    )
    logger.warning(
        "%s: mirroring axis 0 swaps left and right, so that the network cannot %s. Leave this axis out.",
        " and ".join(mirrored),
        confused,
    )


def _host_bytes(machine: Machine) -> int:
    return machine.host_bytes or machine.memory_bytes


class _Choices(dict[str, Any]):
    """Values by name, with their reasons; values set by hand take precedence over rules."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__()
        self.given = given
        self.reasons: dict[str, Reason] = {}

    def settle(self, name: str, choice: Choice) -> Any:
        """Take the value set by hand, else the one chosen by a rule, and return it."""
        if name in self.given:
            same = self.given[name] == choice.value
            text = f"{_BY_HAND} {'The rule agrees.' if same else f'The rule gives: {in_words(choice.value)}.'}"
            self[name], self.reasons[name] = self.given[name], Reason(text, "by hand", by_hand=True)
        else:
            self[name], self.reasons[name] = choice.value, Reason(choice.reason, choice.source)
        return self[name]


def _choose_for_data(choices: _Choices, fingerprint: Fingerprint) -> None:
    """Settle the values that depend on the data alone; later rules build on earlier ones."""
    settle = choices.settle
    spacing_mm = settle("spacing_mm", data_rules.choose_spacing(fingerprint))
    cropped = settle("crop_background", data_rules.choose_crop_background(fingerprint))
    normalization = settle("normalization", data_rules.choose_normalization(fingerprint, cropped))
    clipped = settle("clip_percentiles", data_rules.choose_clip_percentiles(fingerprint, normalization, cropped))
    settle("intensity_range", data_rules.choose_intensity_range(fingerprint, normalization, clipped))
    settle("invert_bright_background", data_rules.choose_inversion(fingerprint, normalization))
    settle("rare_kind_factor", data_rules.choose_rare_kind_factor(fingerprint))
    settle("class_ratios", data_rules.choose_class_ratios(fingerprint, cropped))
    settle("class_weights", data_rules.choose_class_weights(fingerprint))
    settle("augmentation", data_rules.choose_augmentation(fingerprint))
    settle("bias_field", data_rules.choose_bias_field(fingerprint))
    patch = choices.given.get("patch_size", ())
    rotate90 = settle("rotate90", data_rules.choose_rotate90(fingerprint, spacing_mm, square=len(set(patch)) < 2))
    settle("flip_axes", data_rules.choose_flip_axes(fingerprint, rotate90, choices["orientation"]))
    settle("tolerance_mm", data_rules.choose_tolerance(fingerprint))
    hidden = data_rules.hidden_labels(fingerprint)
    if hidden and (cropped or normalization == "inside"):
        what = "where nothing will be found" if cropped else "which is kept for them"
        remedy = "Leave crop_background out." if cropped else "Check that these labels are right."
        logger.warning("Voxels of %s lie in the constant surround, %s. %s", ", ".join(hidden), what, remedy)


def _choose_for_machine(
    fingerprint: Fingerprint, shapes: Sequence[Sequence[int]], machine: Machine
) -> dict[str, Choice]:
    """The cache of prepared cases, whose shapes are given, and the number of processes that draw patches."""
    voxels = sum(map(math.prod, shapes))
    wanted = voxels * (_CHANNEL_BYTES * len(fingerprint.channels) + _LABEL_BYTES)
    share = min(1.0, _CACHE_SHARE * _host_bytes(machine) / wanted)
    kept = "All prepared cases fit" if share == 1 else "As many prepared cases are cached as fit"
    workers = min(_MOST_WORKERS, machine.cores // 2)
    return {
        "cache_rate": Choice(
            round(share, 2),
            f"{kept} into half of the computer's memory, and of what is free of it when the training starts; any "
            "others are prepared again for every patch, or left out where that would take too long.",
            OWN,
        ),
        "num_workers": Choice(
            workers,
            "With one core, patches are drawn in the process that trains the network."
            if workers == 0
            else "Half of the cores draw patches while the network trains.",
        ),
    }


def _choose_compilation(options: PlanOptions) -> Choice:
    minutes = network_rules.training_minutes(options.budget_minutes, options.fold_count)
    worth = minutes >= _WORTH_COMPILING
    return Choice(
        worth,
        f"torch.compile takes a minute at first and makes steps faster; a training of {round(minutes, 1):g} minutes is "
        f"{'long enough' if worth else 'too short'} to benefit. Without a compiler, it is skipped.",
    )
