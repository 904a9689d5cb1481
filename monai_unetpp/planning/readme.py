"""The README of a planned bundle, before and after its training."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from monai_unetpp.files import write_text
from monai_unetpp.planning.documents import data_text, preprocessing_text
from monai_unetpp.planning.fingerprint import Fingerprint
from monai_unetpp.planning.training_plan import TrainingPlan, in_words, load_plan
from monai_unetpp.reporting.markdown import escape

__all__ = ["readme_text", "write_readme"]

#: What every README holds: the commands, and the licence of code and weights.
_COMMANDS = Path(__file__).with_name("template") / "commands.md"
_NOT_TRAINED = "The network has not been trained yet: run `monai-unetpp train` with the same data and folder."


def write_readme(bundle: str | PathLike[str], *, training: str | None = None, performance: str | None = None) -> Path:
    """Write a bundle's ``docs/README.md`` from its plan and fingerprint; an earlier one is replaced.

    Args:
        bundle: the folder of the bundle.
        training: what the training was, as Markdown without headings; None where there was none.
        performance: what was reached, as Markdown with headings from the fourth order down; None before it is known.

    Returns:
        The file.

    Raises:
        FileNotFoundError: the bundle has no plan or no fingerprint.
        ValueError: one of them cannot be read.
    """
    root = Path(bundle)
    fingerprint = Fingerprint.read(root / "configs" / "fingerprint.json")
    path = root / "docs" / "README.md"
    write_text(path, readme_text(load_plan(root), fingerprint, training=training, performance=performance))
    return path


def readme_text(
    plan: TrainingPlan, fingerprint: Fingerprint, *, training: str | None = None, performance: str | None = None
) -> str:
    """The README as Markdown; see :func:`write_readme`."""
    names = ", ".join(map(escape, plan.label_names))
    levels = len(plan["strides"])
    several = f"{levels} levels, L1 to L{levels}" if levels > 1 else "one level, L1"
    values = "; ".join(f"{plan.labels[name]} {escape(name)}" for name in plan.label_names)
    form = "NIfTI file" if plan.spatial_dims == 3 else "file (NIfTI, PNG or TIFF, as the input)"
    return f"""# Model Overview

{escape(plan.name)}: a nested U-Net (UNet++, arXiv:1912.05074) with {several}, for the {plan.spatial_dims}D segmentation
of {names}. The levels are trained together by deep supervision; `--level` builds and runs only what a level needs.
{"" if performance else _NOT_TRAINED}

## Data

{data_text(plan, fingerprint)}

**Licence of the data: fill in here and in `data_license.txt`.** Weights carry what it asks for.

### Preprocessing

{preprocessing_text(plan)}

## Training configuration

{_configuration(plan)}

Every value with its reason is in [plan.md](plan.md).

{training or _NOT_TRAINED}

### Input

{len(plan.channels)} channel(s): {", ".join(map(escape, plan.channels))}; the kind of image that the network is trained
on, see above.

### Output

One {form} per case on the input's grid: 0 background; {values}.

## Performance

{performance or _NOT_TRAINED}

{_COMMANDS.read_text(encoding="utf-8")}"""


def _weighing(plan: TrainingPlan) -> str:
    if plan["class_weights"] is None:
        return ""
    weights = ":".join(f"{weight:g}" for weight in plan["class_weights"])
    until = f" until the last {plan['late_share']:.0%} of the training" if plan["late_share"] else ""
    return f", where the background and the labels weigh {weights}{until}"


def _configuration(plan: TrainingPlan) -> str:
    augmentation = {"none": "no augmentation", "light": "light augmentation", "strong": "strong augmentation"}
    late = plan["late_share"] if plan["augmentation"] == "strong" else 0
    settling = f", light in the last {late:.0%} of the training" if late else ""
    lines = [
        f"network: `NestedUNet`, features {in_words(plan['features'])}, {plan['norm']} normalisation;",
        f"loss: cross-entropy plus soft Dice at every head{_weighing(plan)};",
        f"patches of {' x '.join(map(str, plan['patch_size']))} voxels, {plan['batch_size']} in a batch, around voxels "
        f"of the background and of the labels in the ratio {':'.join(f'{ratio:g}' for ratio in plan['class_ratios'])};",
        f"AdamW with a learning rate of {plan['learning_rate']:g} and a cosine schedule;",
        f"{augmentation[plan['augmentation']]}{settling}; mirror images along the axes: {in_words(plan['flip_axes'])};",
        f"at inference, windows of {' x '.join(map(str, plan['window_shape']))} voxels with Gaussian weights.",
    ]
    return "\n".join(f"- {line}" for line in lines)
