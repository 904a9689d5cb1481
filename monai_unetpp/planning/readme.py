"""The README of a planned bundle, before and after training."""

from __future__ import annotations

import dataclasses
from os import PathLike
from pathlib import Path

from monai_unetpp.files import write_text
from monai_unetpp.guard import FINGERPRINT_FILE
from monai_unetpp.planning.documents import data_text, preprocessing_text
from monai_unetpp.planning.fingerprint import Fingerprint
from monai_unetpp.planning.training_plan import TrainingPlan, in_words, load_plan
from monai_unetpp.planning.transforms import tells_objects
from monai_unetpp.reporting.markdown import escape
from monai_unetpp.reporting.numbers import counted, percent

__all__ = ["readme_text", "write_readme"]

#: The end of every README: the commands, and the licence of code and weights.
_COMMANDS = Path(__file__).with_name("template") / "commands.md"
_OBJECTS = (
    " With `--instances` (`--instances True` with\n`python -m monai.bundle run`) each object has a number of its own: "
    "connected components, those that touch split by a\nwatershed on the distance to the border, those of fewer than "
    "`min_instance_size` pixels removed; in volumes, also across slices."
)
_NOT_TRAINED = "The network has not been trained yet: run `monai-unetpp train` with the same data and folder."


def write_readme(
    bundle: str | PathLike[str],
    *,
    training: str | None = None,
    performance: str | None = None,
    folds: int | None = None,
) -> Path:
    """Write or replace a bundle's ``docs/README.md``, from its plan and fingerprint.

    Args:
        bundle: the folder of the bundle.
        training: description of the training, as Markdown without headings; None before the training.
        performance: the results, as Markdown with headings of level four or lower; None before they are known.
        folds: number of networks trained for cross-fitting; None takes that of the plan.

    Returns:
        The file.

    Raises:
        FileNotFoundError: the bundle has no plan or no fingerprint.
        ValueError: one of them cannot be read.
    """
    root = Path(bundle)
    fingerprint = Fingerprint.read(root / FINGERPRINT_FILE)
    path, plan = root / "docs" / "README.md", load_plan(root)
    if folds is not None:
        plan = dataclasses.replace(plan, folds=folds)
    write_text(path, readme_text(plan, fingerprint, training=training, performance=performance))
    return path


def readme_text(
    plan: TrainingPlan, fingerprint: Fingerprint, *, training: str | None = None, performance: str | None = None
) -> str:
    """The README as Markdown; see :func:`write_readme`."""
    names = ", ".join(map(escape, plan.label_names))
    channels = f"{counted(len(plan.channels), 'channel')}: {', '.join(map(escape, plan.channels))}"
    levels = len(plan["strides"])
    several = f"{levels} levels, L1 to L{levels}" if levels > 1 else "one level, L1"
    values = "; ".join(f"{plan.labels[name]} {escape(name)}" for name in plan.label_names)
    form = "NIfTI file" if plan.spatial_dims == 3 else "file (NIfTI, PNG or TIFF, as the input)"
    return f"""# Model Overview

{escape(plan.name)}: a nested U-Net (UNet++, arXiv:1912.05074) with {several}, for the {plan.spatial_dims}D segmentation
of {names}. The levels are trained together by deep supervision; `--level` builds and runs only the nodes of a level.
{"" if performance else _NOT_TRAINED}

## Data

{data_text(plan, fingerprint)}

**Licence of the data: fill in here and in `data_license.txt`.** Its terms apply to the weights as well.

### Preprocessing

{preprocessing_text(plan)}

## Training configuration

{_configuration(plan)}

Every value with its reason is in [plan.md](plan.md).

{training or _NOT_TRAINED}

### Input

{channels}; images like the training images above.

### Output

One {form} per case on the input's grid: 0 background; {values}.{_OBJECTS if tells_objects(plan) else ""}

## Performance

{performance or _NOT_TRAINED}

{_COMMANDS.read_text(encoding="utf-8")}"""


def _weighing(plan: TrainingPlan) -> str:
    if plan["class_weights"] is None:
        return ""
    weights = ":".join(f"{weight:g}" for weight in plan["class_weights"])
    until = f" until the last {percent(plan['late_share'])} of the training" if plan["late_share"] else ""
    return f", with the background and the labels weighted {weights}{until}"


def _heads(plan: TrainingPlan) -> str:
    """The heads with their weights in the loss, and how much the deepest one teaches the others."""
    weights = plan["level_weights"]
    heads = "every head"
    if weights is not None:
        heads = f"the heads, weighted {', '.join(f'L{n} {weight:g}' for n, weight in enumerate(weights, start=1))}"
    return heads + (f", with self-distillation weighted {plan['distillation']:g}" if plan["distillation"] else "")


def _norm_name(plan: TrainingPlan) -> str:
    norm = plan["norm"]
    return norm if isinstance(norm, str) else str(norm[0])


def _mirroring(axes: list[int]) -> str:
    if not axes:
        return "; not mirrored"
    return f"; mirrored along {'axis' if len(axes) == 1 else 'the axes'} {in_words(axes)}"


def _configuration(plan: TrainingPlan) -> str:
    augmentation = {"none": "no augmentation", "light": "light augmentation", "strong": "strong augmentation"}
    late = plan["late_share"] if plan["augmentation"] == "strong" else 0
    settling = f", light in the last {percent(late)} of the training" if late else ""
    dropout = f", dropout of {plan['dropout']:g}" if plan["dropout"] else ""
    lines = [
        f"network: `NestedUNet`, features {in_words(plan['features'])}, {_norm_name(plan)} normalisation{dropout};",
        f"loss: cross-entropy plus soft Dice at {_heads(plan)}{_weighing(plan)};",
        f"patches of {' x '.join(map(str, plan['patch_size']))} voxels, {plan['batch_size']} per batch, around voxels "
        f"of the background and of the labels in the ratio {':'.join(f'{ratio:g}' for ratio in plan['class_ratios'])};",
        f"AdamW with a learning rate of {plan['learning_rate']:g} and a cosine schedule;",
        f"{augmentation[plan['augmentation']]}{settling}{_mirroring(plan['flip_axes'])};",
        f"at inference, windows of {' x '.join(map(str, plan['window_shape']))} voxels with Gaussian weights.",
    ]
    return "\n".join(f"- {line}" for line in lines)
