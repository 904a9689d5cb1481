"""A plan from the fingerprint of a data set: every rule in its turn, and what is set by hand in its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from monai_unetpp.planning.data_rules import (
    OWN,
    Choice,
    choose_augmentation,
    choose_bias_field,
    choose_class_ratios,
    choose_class_weights,
    choose_crop_background,
    choose_flip_axes,
    choose_intensity_range,
    choose_inversion,
    choose_normalization,
    choose_rotate90,
    choose_spacing,
    choose_tolerance,
    typical_shape,
)
from monai_unetpp.planning.fingerprint import Fingerprint
from monai_unetpp.planning.machine import Machine, count_step
from monai_unetpp.planning.network_rules import NetworkTask, choose_network, choose_window, training_minutes
from monai_unetpp.planning.plan_options import PlanOptions
from monai_unetpp.planning.training_plan import Reason, TrainingPlan, in_words
from monai_unetpp.planning.values import SETTABLE, check_one

__all__ = ["make_plan"]

_BY_HAND = "Set by hand."
#: What holds for all data, by name.
_RECIPE = {
    "learning_rate": Choice(0.002, "The highest, between a warm-up and a cosine; AdamW takes it well."),
    "weight_decay": Choice(1e-4, "Keeps weights small.", "AdamW, arXiv:1711.05101"),
    "ema": Choice(0.04, "The average of the weights over the last steps is steadier than the last ones."),
    "distillation": Choice(0.0, "Each level learns from the labels.", "UNet++, arXiv:1912.05074"),
    "late_share": Choice(
        0.25,
        "In the last quarter of the training patches vary lightly and all classes weigh the same, so that it settles "
        "on images as they are.",
    ),
    "overlap": Choice(0.25, "Enough for smooth seams with windows that count most in their middle."),
    "flips": Choice([], "Mirror images at inference take several times as long for little."),
}
#: Bytes per voxel of a prepared case: of the label and of each channel; share of the memory for prepared cases.
_LABEL_BYTES, _CHANNEL_BYTES, _CACHE_SHARE = 1, 4, 0.25
_MOST_WORKERS = 8
#: Minutes of one training from which on ``torch.compile`` gains more than it takes.
_WORTH_COMPILING = 15


def make_plan(fingerprint: Fingerprint, options: PlanOptions, machine: Machine, validation: str) -> TrainingPlan:
    """Let the rules choose what is not set by hand.

    Args:
        fingerprint: what the data are like.
        options: the limits, and what is set by hand.
        machine: what computes.
        validation: which cases validate, in words.

    Raises:
        TypeError: a setting of the wrong kind.
        ValueError: a setting that cannot work, alone or with the others.
    """
    dims = fingerprint.spatial_dims
    given = {name: check_one(name, value, dims) for name, value in options.given.items()}
    choices = _Choices(given)
    _choose_for_data(choices, fingerprint)
    shape = typical_shape(fingerprint, choices["spacing_mm"], choices["crop_background"])
    task = NetworkTask(
        spatial_dims=dims,
        in_channels=len(fingerprint.channels),
        out_channels=len(fingerprint.labels) + 1,
        shape=shape,
        spacing_mm=choices["spacing_mm"],
        square=choices["rotate90"],
        minutes=options.budget_minutes,
        folds=options.fold_count,
    )
    for name, choice in choose_network(task, machine, count_step, given).items():
        choices.settle(name, choice)
    window = choose_window(choices["patch_size"], shape, choices["strides"], choices["norm"])
    choices.settle("window_shape", window)
    for name, choice in {
        **_RECIPE,
        **_choose_for_machine(fingerprint, shape, machine),
        **_choose_for_speed(options),
    }.items():
        choices.settle(name, choice)
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
    )


class _Choices:
    """Values by name with their reasons; what is given by hand goes before every rule."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, Reason] = {}

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def settle(self, name: str, choice: Choice) -> None:
        """Take what is given by hand, else what a rule has chosen."""
        if name in self.given:
            same = self.given[name] == choice.value
            text = f"{_BY_HAND} {'So says the rule.' if same else f'The rule gives: {in_words(choice.value)}.'}"
            self.values[name], self.reasons[name] = self.given[name], Reason(text, "by hand", by_hand=True)
        else:
            self.values[name], self.reasons[name] = choice.value, Reason(choice.reason, choice.source)


def _choose_for_data(choices: _Choices, fingerprint: Fingerprint) -> None:
    """What the data alone decide; later rules build on earlier ones."""
    rules: tuple[tuple[str, Callable[[], Choice]], ...] = (
        ("spacing_mm", lambda: choose_spacing(fingerprint)),
        ("crop_background", lambda: choose_crop_background(fingerprint)),
        ("normalization", lambda: choose_normalization(fingerprint, choices["crop_background"])),
        ("intensity_range", lambda: choose_intensity_range(fingerprint, choices["normalization"])),
        ("invert_bright_background", lambda: choose_inversion(fingerprint, choices["normalization"])),
        ("class_ratios", lambda: choose_class_ratios(fingerprint)),
        ("class_weights", lambda: choose_class_weights(fingerprint)),
        ("augmentation", lambda: choose_augmentation(fingerprint)),
        ("bias_field", lambda: choose_bias_field(fingerprint)),
        ("rotate90", lambda: choose_rotate90(fingerprint)),
        ("flip_axes", lambda: choose_flip_axes(fingerprint, choices["rotate90"])),
        ("tolerance_mm", lambda: choose_tolerance(choices["spacing_mm"], fingerprint)),
    )
    for name, rule in rules:
        choices.settle(name, rule())


def _choose_for_machine(fingerprint: Fingerprint, shape: list[int], machine: Machine) -> dict[str, Choice]:
    """What is kept in memory, and how many processes draw patches."""
    voxels = len(fingerprint.cases)
    for length in shape:
        voxels *= length
    wanted = voxels * (_CHANNEL_BYTES * len(fingerprint.channels) + _LABEL_BYTES)
    share = min(1.0, _CACHE_SHARE * machine.memory_bytes / wanted)
    kept = "All prepared cases fit" if share == 1 else "As many prepared cases are kept as fit"
    workers = min(_MOST_WORKERS, machine.cores // 2)
    return {
        "cache_rate": Choice(
            round(share, 2),
            f"{kept} into a quarter of the memory here; the others are prepared again for every patch.",
            OWN,
        ),
        "num_workers": Choice(
            workers,
            "With one core the network and the patches take turns."
            if workers == 0
            else "Half of the cores draw patches while the network computes.",
        ),
    }


def _choose_for_speed(options: PlanOptions) -> dict[str, Choice]:
    """How the network is laid out in memory, and whether it is compiled."""
    minutes = training_minutes(options.budget_minutes, options.fold_count)
    worth = minutes >= _WORTH_COMPILING
    return {
        "channels_last": Choice(True, "Convolutions are faster with the channels of a voxel side by side in memory."),
        "compile": Choice(
            worth,
            f"torch.compile takes a minute at first and makes steps faster; a training of {minutes:.0f} minutes "
            f"{'gains' if worth else 'is too short to gain'} by it. Where there is no compiler, training continues "
            "without.",
        ),
    }
