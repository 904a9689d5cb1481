"""The bundle to train: planned now, or before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from monai_unetpp.distributed import from_first, rank, waiting_group
from monai_unetpp.planning import TrainingPlan, load_plan, plan
from monai_unetpp.planning.starting import find_start
from monai_unetpp.planning.training_plan import PLAN_FILE
from monai_unetpp.planning.values import check_one
from monai_unetpp.training_run.train_options import TrainOptions

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
        subject_rules: how the subjects of the cases are found, as arguments of ``load_datalist``.
        init: bundle or checkpoint with the weights that the training starts from; None for random ones.
    """

    bundle: Path
    dataset_dir: Path
    minutes: float
    folds: int
    steps: int | None
    observed: int = _OBSERVED
    init: str | None = None
    subject_rules: Mapping[str, str | None] = dataclasses.field(default_factory=dict)


def planned_bundle(options: TrainOptions, tell: Callable[[str], None]) -> Planned:
    """Plan the bundle unless it is planned. Under ``torchrun`` the first process does, and the others wait.

    Args:
        options: what was asked for.
        tell: is called with lines about the progress.

    Raises:
        ValueError: the folder was planned for other data or with other values by hand, or data with problems.
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
        init=_start(options, made),
        subject_rules={"subjects": made.subjects, "subject_pattern": made.subject_pattern},
    )


def _start(options: TrainOptions, made: TrainingPlan) -> str | None:
    """The weights to start from: those of the plan, or others where it has none.

    Raises:
        ValueError: the plan has others.
        FileNotFoundError: they are not there.
    """
    planned = None if made.start is None else made.start.source
    given = None if options.init is None else str(options.init)
    if planned is not None and given is not None and find_start(given) != find_start(planned):
        raise ValueError(
            f"{options.output_dir}: was planned with --init {planned}, got {given}. Take another folder, or delete "
            "this one to plan again."
        )
    return planned or given


def _plan(options: TrainOptions, tell: Callable[[str], None]) -> TrainingPlan:
    bundle = Path(options.output_dir)
    if not (bundle / PLAN_FILE).is_file():
        return plan(
            options.dataset_dir,
            bundle,
            options.minutes,
            options.folds,
            options.given,
            options.device,
            init=options.init,
            subjects=options.subjects,
            subject_pattern=options.subject_pattern,
            progress=tell,
        )
    made = load_plan(bundle)
    if Path(made.dataset_dir).resolve() != Path(options.dataset_dir).resolve():
        raise ValueError(
            f"{bundle}: was planned for {made.dataset_dir}, got {options.dataset_dir}. Take another folder."
        )
    for name, value in options.given.items():
        if made[name] != check_one(name, value, made.spatial_dims):
            raise ValueError(
                f"{bundle}: was planned with {name}={made[name]}, got {value}. Take another folder, or delete this one "
                "to plan again."
            )
    for name, given in options.subject_rules.items():
        if given is not None and given != getattr(made, name):
            raise ValueError(
                f"{bundle}: was planned with {name} {getattr(made, name)}, got {given}. Take another folder, or delete "
                "this one to plan again."
            )
    tell(f"{bundle}: planned before.")
    return made
