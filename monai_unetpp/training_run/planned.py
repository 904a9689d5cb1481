"""The bundle to train: planned now, or before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from monai_unetpp.distributed import from_first, rank, waiting_group
from monai_unetpp.planning import TrainingPlan, load_plan, plan
from monai_unetpp.planning.training_plan import PLAN_FILE
from monai_unetpp.planning.values import parse_settings
from monai_unetpp.training_run.options import TrainOptions

__all__ = ["Planned", "planned_bundle"]

#: Validation cases to look at while training.
_OBSERVED = 3


@dataclasses.dataclass(frozen=True)
class Planned:
    """A bundle that is planned, and the limits of its training.

    Attributes:
        bundle: its folder.
        dataset_dir: folder of the data set.
        minutes: for everything.
        folds: trainings for cross-fitting; 0 for none.
        steps: of each training where they were set by hand; None where the time ends it.
        observed: number of validation cases to look at while training.
    """

    bundle: Path
    dataset_dir: Path
    minutes: float
    folds: int
    steps: int | None
    observed: int = _OBSERVED


def planned_bundle(options: TrainOptions, tell: Callable[[str], None]) -> Planned:
    """Plan the bundle unless it is planned. Under ``torchrun`` the first process does, and the others wait.

    Args:
        options: what was asked for.
        tell: is told what is going on.

    Raises:
        ValueError: the folder was planned for other data or with other values by hand, or data with problems.
        FileNotFoundError: no such data set.
    """
    with waiting_group() as group:
        made = from_first(_plan(options, tell) if rank() == 0 else None, group)
    return Planned(
        bundle=options.output,
        dataset_dir=options.dataset_dir,
        minutes=made.minutes if options.minutes is None else options.minutes,
        folds=made.folds if options.folds is None else options.folds,
        steps=made["steps"] if "steps" in made.by_hand else None,
    )


def _plan(options: TrainOptions, tell: Callable[[str], None]) -> TrainingPlan:
    if not (options.output / PLAN_FILE).is_file():
        limits = {"minutes": options.minutes, "folds": options.folds}
        return plan(
            options.dataset_dir,
            options.output,
            settings=list(options.settings),
            device=options.device,
            progress=tell,
            **{name: value for name, value in limits.items() if value is not None},  # type: ignore[arg-type]
        )
    made = load_plan(options.output)
    if Path(made.dataset_dir).resolve() != options.dataset_dir.resolve():
        raise ValueError(
            f"{options.output}: was planned for {made.dataset_dir}, got {options.dataset_dir}. Take another folder."
        )
    for name, value in parse_settings(options.settings).items():
        if made[name] != value:
            raise ValueError(
                f"{options.output}: was planned with {name}={made[name]}, got {value}. Take another folder, or remove "
                "this one to plan anew."
            )
    tell(f"{options.output}: planned before.")
    return made
