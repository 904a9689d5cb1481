"""The bundle to train, planned now or earlier."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from monai_unetpp.distributed import from_first, rank, waiting_group
from monai_unetpp.planning import TrainingPlan, load_plan, plan
from monai_unetpp.planning.training_plan import PLAN_FILE
from monai_unetpp.planning.values import check_one
from monai_unetpp.training_run.train_options import TrainOptions

__all__ = ["Planned", "planned_bundle"]

#: Validation cases to look at while training.
_OBSERVED = 3


@dataclasses.dataclass(frozen=True)
class Planned:
    """A planned bundle, and the limits of its training.

    Attributes:
        bundle: its folder.
        dataset_dir: folder of the data set.
        minutes: time for everything.
        folds: trainings for cross-fitting; 0 for none.
        steps: steps of each training if set by hand; None if the time ends it.
        observed: number of validation cases to look at while training.
    """

    bundle: Path
    dataset_dir: Path
    minutes: float
    folds: int
    steps: int | None
    observed: int = _OBSERVED


def planned_bundle(options: TrainOptions, tell: Callable[[str], None]) -> Planned:
    """Plan the bundle unless it is planned. Under ``torchrun`` the first process plans, and the others wait.

    Args:
        options: the options.
        tell: called with lines about the progress.

    Raises:
        ValueError: the folder was planned for other data or other values, or the data have problems.
        FileNotFoundError: no such data set.
    """
    with waiting_group() as group:
        made = from_first(_plan(options, tell) if rank() == 0 else None, group)
    return Planned(
        bundle=Path(options.output_dir),
        dataset_dir=Path(options.dataset_dir),
        minutes=made.minutes if options.minutes is None else options.minutes,
        folds=made.folds if options.folds is None else options.folds,
        steps=made["steps"] if "steps" in made.by_hand else None,
    )


def _plan(options: TrainOptions, tell: Callable[[str], None]) -> TrainingPlan:
    bundle = Path(options.output_dir)
    if not (bundle / PLAN_FILE).is_file():
        return plan(
            options.dataset_dir, bundle, options.minutes, options.folds, options.given, options.device, progress=tell
        )
    made = load_plan(bundle)
    if Path(made.dataset_dir).resolve() != Path(options.dataset_dir).resolve():
        raise ValueError(
            f"{bundle}: was planned for {made.dataset_dir}, got {options.dataset_dir}. Use another folder."
        )
    for name, value in options.given.items():
        if made[name] != check_one(name, value, made.spatial_dims):
            raise ValueError(
                f"{bundle}: was planned with {name}={made[name]}, got {value}. Use another folder, or delete this one "
                "to plan again."
            )
    tell(f"{bundle}: already planned.")
    return made
