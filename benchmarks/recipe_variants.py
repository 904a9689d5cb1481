"""The variants of the training recipe that ``python -m benchmarks.recipe`` compares."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events

from monai_unetpp.planning import load_plan

CHOOSING = "choosing"
"""Key of ``train.json`` for the lists of cases that choose weights, with the keys ``image`` and ``truth``."""

CHOICES = ("choice_1", "choice_2")
"""Folders of the weights that each of the lists has chosen, in the folder of the training."""

#: What stays as it is planned for patches of the usual size.
_KEPT = ("strides", "kernel_size", "features", "batch_size", "window_shape")
#: How often weights are looked at in a training.
_LOOKS = 20
#: Transforms that take detail from an image.
_BLURRING = ("RandGaussianSmoothd", "RandSimulateLowResolutiond")
#: Patches of random size are at most this many times, and at least a third of that, as long as planned.
_LONGEST = 1.5


@dataclasses.dataclass(frozen=True)
class Variant:
    """What sets a training apart from the recipe.

    Attributes:
        values: of the plan.
        derived: further values: functions of the folder of a bundle that is planned without them.
        change: changes the content of the planned ``train.json``.
        chooses: whether unseen cases choose among the weights of the training; each half of them chooses those that
            the other half is scored with. Otherwise the last weights are scored.
        folds: networks that are trained, each without the cases of one fold, so that the mean of their weights is
            scored; 0 for one network that is trained on all cases.
    """

    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    derived: Mapping[str, Callable[[Path], Any]] = dataclasses.field(default_factory=dict)
    change: Callable[[dict[str, Any]], None] | None = None
    chooses: bool = False
    folds: int = 0


class RandomPatchSizes:
    """A handler that cuts the patches of each step to a size drawn for this step, around their centres.

    Each length is drawn on its own, from a third of the patch's to all of it, so an interrupted training continues with
    the same sizes.

    Args:
        multiples: by axis, what lengths must be multiples of.
        seed: together with the number of a step it determines the size.
    """

    def __init__(self, multiples: Sequence[int], seed: int) -> None:
        self.multiples = multiples
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Cut the batches of the trainer ``engine``."""
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Cut image and label of the batch, ``(B, C, H, W[, D])``."""
        state: Any = engine.state
        random = np.random.default_rng((self.seed, state.iteration))
        lengths = next(iter(state.batch.values())).shape[2:]
        cuts = (_cut(length, step, random) for length, step in zip(lengths, self.multiples, strict=True))
        place = (..., *cuts)
        state.batch = {key: value[place] for key, value in state.batch.items()}


def _cut(length: int, step: int, random: np.random.Generator) -> slice:
    most = length // step
    # a single voxel at the lowest resolution would have no variance
    least = min(most, max(2, math.ceil(most / 3)))
    size = step * int(random.integers(least, most + 1))
    begin = (length - size) // 2
    return slice(begin, begin + size)


def whole_window(bundle: Path) -> list[int]:
    """A window that holds the largest image after resampling.

    Args:
        bundle: folder of a planned bundle.
    """
    made = load_plan(bundle)
    content = json.loads((bundle / "configs" / "fingerprint.json").read_text(encoding="utf-8"))
    largest = np.zeros(made.spatial_dims)
    for case in content["cases"]:
        spacing = np.array(case["spacing_mm"])
        target = spacing if made["spacing_mm"] is None else np.array(made["spacing_mm"])
        largest = np.maximum(largest, np.array(case["shape"]) * spacing / target)
    steps = np.prod(made["strides"], axis=0)
    return [int(step * math.ceil(size / step)) for size, step in zip(largest, steps, strict=True)]


def _halve(bundle: Path) -> list[float]:
    """Weights of the losses by level, the shallowest first: each level counts half as much as the next."""
    levels = len(load_plan(bundle)["strides"])
    return [0.5 ** (levels - level) for level in range(1, levels + 1)]


def _widen(bundle: Path) -> list[int]:
    """Patches half as long again as planned, as far as images are that large."""
    made, whole = load_plan(bundle), whole_window(bundle)
    steps = np.prod(made["strides"], axis=0)
    wide = [
        max(edge, min(largest, int(step * round(_LONGEST * edge / step))))
        for edge, largest, step in zip(made["patch_size"], whole, steps, strict=True)
    ]
    # patches that are turned must stay square
    return [min(wide)] * len(wide) if made["rotate90"] else wide


def _planned(name: str, bundle: Path) -> Any:
    """A value as it is planned for patches of the usual size."""
    return load_plan(bundle)[name]


def _times_rate(factor: float, bundle: Path) -> float:
    """A multiple of the planned learning rate."""
    return factor * float(load_plan(bundle)["learning_rate"])


def _draw_patch_sizes(content: dict[str, Any]) -> None:
    multiples = np.prod(content["strides"], axis=0).tolist()
    drawing = {"_target_": f"{__name__}.{RandomPatchSizes.__name__}", "multiples": multiples, "seed": "@seed"}
    content["train"]["handlers"].insert(0, drawing)


def _move_into_the_image(content: dict[str, Any]) -> None:
    """Move whole crops into the image, as MONAI does, so that patches lie further inside."""
    for chain in ("augmentation", "late_augmentation"):
        for transform in content["train"][chain]["transforms"]:
            if "crop_size" in transform:
                transform["spatial_size"] = transform.pop("crop_size")


def _fill_at_the_border(content: dict[str, Any]) -> None:
    """Move only patches into the image, and fill up what the crops around them lack, where whole crops were moved."""
    for chain in ("augmentation", "late_augmentation"):
        for transform in content["train"][chain]["transforms"]:
            if "indices_key" in transform and "crop_size" not in transform:
                filled = {"crop_size": transform["spatial_size"], "padding_mode": "border"}
                transform |= {**filled, "spatial_size": "@patch_size"}


def _rotate_less(content: dict[str, Any]) -> None:
    """Rotate and scale as little as light augmentation does."""
    train = content["train"]
    light = next(each for each in train["late_augmentation"]["transforms"] if each["_target_"] == "RandAffined")
    chain = train["augmentation"]["transforms"]
    train["augmentation"]["transforms"] = [light if each["_target_"] == "RandAffined" else each for each in chain]


def _keep_sharp(content: dict[str, Any]) -> None:
    """Neither blur images nor lower their resolution."""
    augmentation = content["train"]["augmentation"]
    augmentation["transforms"] = [each for each in augmentation["transforms"] if each["_target_"] not in _BLURRING]


def _lower_by_one_voxel(content: dict[str, Any]) -> None:
    """Lower the resolution by taking one voxel of several, as MONAI does by default, which moves the image."""
    for each in content["train"]["augmentation"]["transforms"]:
        if each["_target_"] == "RandSimulateLowResolutiond":
            del each["downsample_mode"]


def _dice_per_patch(content: dict[str, Any]) -> None:
    """Take the Dice of each patch of a batch alone."""
    content["plain_loss"]["batch"] = content["weighted_loss"]["early"]["batch"] = False


def _choose_weights(content: dict[str, Any]) -> None:
    """Let two lists of cases look at the averaged weights, and keep the best for each."""
    content[CHOOSING] = [[] for _ in CHOICES]
    content["choices"] = [_choice(number, content["validate"]) for number in range(len(CHOICES))]
    handlers = content["train"]["handlers"]
    checkpoint = next(handler for handler in handlers if handler["_target_"].endswith("TrainingCheckpoint"))
    for number, name in enumerate(CHOICES):
        checkpoint["save_dict"][name] = f"@choices#{number}#saver"
        looking = {"interval": f"$max(1, @steps // {_LOOKS})", "epoch_level": False}
        validator = {"validator": f"@choices#{number}#evaluator"}
        handlers.insert(number, {"_target_": "ValidationHandler", **validator, **looking})


def _choice(number: int, validate: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluator of the averaged weights on one of the lists, which keeps the best."""
    own = f"@choices#{number}#"
    network = {"network": "$@average.averaged"}
    dataset = {"_target_": "CacheDataset", "data": f"@{CHOOSING}#{number}", "progress": False}
    evaluator = {name: value for name, value in validate["evaluator"].items() if name != "additional_metrics"}
    return {
        "saver": {
            "_target_": "monai_unetpp.training.BestModelSaver",
            **network,
            "path": f"$@output_dir + '/{CHOICES[number]}/model.pt'",
        },
        "dataset": {**dataset, "transform": validate["dataset"]["transform"]},
        "evaluator": {
            **evaluator,
            **network,
            "val_data_loader": {**validate["dataloader"], "dataset": f"{own}dataset", "num_workers": 0},
            "key_val_metric": validate["key_metric"],
            "val_handlers": [f"{own}saver"],
        },
    }


VARIANTS: Mapping[str, Variant] = {
    "recipe": Variant(),
    "instance norm": Variant({"norm": "instance"}),
    "instance norm, random patch sizes": Variant(
        # every size would be compiled
        {"norm": "instance", "compile": False},
        {"patch_size": _widen, **{name: functools.partial(_planned, name) for name in _KEPT}},
        change=_draw_patch_sizes,
    ),
    "last weights, not averaged": Variant({"ema": None}),
    "best on other unseen cases, not last": Variant(change=_choose_weights, chooses=True),
    "mean of the weights of three folds": Variant(folds=3),
    "averaged over five times as many steps": Variant({"ema": 0.2}),
    "self-distillation 1": Variant({"distillation": 1.0}),
    "light augmentation": Variant({"augmentation": "light"}),
    "strong augmentation to the end": Variant({"late_share": 0.0}),
    "rotated and scaled less": Variant(change=_rotate_less),
    "not blurred": Variant(change=_keep_sharp),
    "lower resolution by one voxel of several": Variant(change=_lower_by_one_voxel),
    "light augmentation in the second half": Variant({"late_share": 0.5}),
    "learning rate halved": Variant(derived={"learning_rate": functools.partial(_times_rate, 0.5)}),
    "learning rate doubled": Variant(derived={"learning_rate": functools.partial(_times_rate, 2)}),
    "learning rate four times as high": Variant(derived={"learning_rate": functools.partial(_times_rate, 4)}),
    "weight decay 0.01": Variant({"weight_decay": 0.01}),
    "Dice per patch, not per batch": Variant(change=_dice_per_patch),
    "all classes weigh the same": Variant({"class_weights": None}),
    "kinds of images drawn as they come": Variant({"rare_kind_factor": 1.0}),
    "dropout 0.1": Variant({"dropout": 0.1}),
    "crops moved into the image": Variant(change=_move_into_the_image),
    "crops filled up at the border": Variant(change=_fill_at_the_border),
    "each level weighs half of the next": Variant(derived={"level_weights": _halve}),
}
"""By name; the first one is what others are compared with."""
