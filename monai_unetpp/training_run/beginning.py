"""The minutes, folds and initial weights that a training began with, which may not change before its end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from monai_unetpp.files import write_text
from monai_unetpp.planning import TrainingPlan
from monai_unetpp.planning.bundle_writing import has_trained
from monai_unetpp.planning.starting import find_start
from monai_unetpp.planning.training_plan import in_words
from monai_unetpp.training_run.train_options import TrainOptions

__all__ = ["Beginning", "settle", "write_beginning"]

_FILE = Path("training") / "start.json"


@dataclasses.dataclass(frozen=True)
class Beginning:
    """The options that a training began with.

    Attributes:
        minutes: time for everything.
        folds: trainings for cross-fitting; 0 for none.
        init: file or bundle with the initial weights; None for random ones.
    """

    minutes: float
    folds: int
    init: str | None


def settle(bundle: Path, made: TrainingPlan, options: TrainOptions) -> Beginning:
    """The options of a training: those given before it has saved anything, those it began with, or those of the plan.

    Args:
        bundle: the folder of the bundle.
        made: its plan.
        options: the options given now.

    Raises:
        ValueError: the training began with other options, whether it is finished or not.
        FileNotFoundError: no such initial weights.
    """
    init = None if options.init is None else str(find_start(options.init))
    begun = _read(bundle)
    if begun is None:
        if init is None and made.start is not None:
            init = str(find_start(made.start.source))
        minutes = made.minutes if options.minutes is None else float(options.minutes)
        return Beginning(minutes, made.folds if options.folds is None else options.folds, init)
    for name, given in (("minutes", options.minutes), ("folds", options.folds), ("init", init)):
        kept = getattr(begun, name)
        if given in (None, kept):
            continue
        if has_trained(bundle / "training"):
            raise ValueError(
                f"{bundle}: its training began with {name} {in_words(kept)}, got {in_words(given)}. Leave {name} out "
                "to continue it, or use another folder."
            )
        changed: dict[str, Any] = {name: given}
        begun = dataclasses.replace(begun, **changed)
    return begun


def write_beginning(bundle: Path, beginning: Beginning) -> None:
    """Write down the options that a training begins with, for the calls that continue it."""
    write_text(bundle / _FILE, json.dumps(dataclasses.asdict(beginning), indent=1) + "\n")


def _read(bundle: Path) -> Beginning | None:
    path = bundle / _FILE
    return Beginning(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
