"""The bundle to train, planned now or earlier."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_unetpp.bundles import WEIGHTS_FILE, hash_file
from monai_unetpp.distributed import by_first
from monai_unetpp.planning import TrainingPlan, load_plan
from monai_unetpp.planning.bundle_writing import CACHE_FILE, TIME_FILE, check_unedited, has_trained, is_fingerprint_of
from monai_unetpp.planning.data_check import check_data
from monai_unetpp.planning.measuring import take_fingerprint, trained_lists
from monai_unetpp.planning.network_rules import training_minutes
from monai_unetpp.planning.plan_making import count_validation, describe_task, plan_checked
from monai_unetpp.planning.starting import find_start
from monai_unetpp.planning.training_plan import PLAN_FILE, in_words
from monai_unetpp.planning.values import check_one
from monai_unetpp.training_run.fitting import read_fitted
from monai_unetpp.training_run.sharing import read_shares
from monai_unetpp.training_run.train_options import TrainOptions

#: Part by which the time of a network may differ from that of its plan.
_SAME_TIME = 0.1


@dataclasses.dataclass(frozen=True)
class Planned:
    """A planned bundle, and the limits of its training.

    There are ``minutes`` for everything, with ``folds`` trainings for cross-fitting. ``init`` has the initial weights,
    None for random ones. ``steps`` of each training are set by hand; None if the time ends it.
    """

    bundle: Path
    dataset_dir: Path
    plan: TrainingPlan
    minutes: float
    folds: int
    init: str | None
    steps: int | None

    def reread(self, options: TrainOptions) -> Planned:
        """The same with the minutes, folds and initial weights that are settled now, unless others changed the plan."""

        def settled() -> dict[str, Any]:
            if load_plan(self.bundle) != self.plan:
                raise BlockingIOError(
                    f"{self.bundle}: another process has planned it otherwise meanwhile. Run the same command again, "
                    "or use another folder."
                )
            return _settled(self.plan, options)

        return dataclasses.replace(self, **by_first(settled))


def planned_bundle(options: TrainOptions, tell: Callable[[str], None]) -> Planned:
    """Plan the bundle unless it is planned. Under ``torchrun`` the first process plans, and the others wait.

    Refused are a plan for other data or values, or that was edited, and weights whose training is not there.
    """
    bundle = Path(options.output_dir)
    if not by_first(lambda: _is_planned(options, tell)):
        _plan(by_first(lambda: _keeping_values(options)), tell)
    made = by_first(lambda: load_plan(bundle))
    return Planned(
        bundle=bundle,
        dataset_dir=Path(options.dataset_dir),
        plan=made,
        steps=made["steps"] if "steps" in made.by_hand else None,
        **by_first(lambda: _settled(made, options)),
    )


def _settled(made: TrainingPlan, options: TrainOptions) -> dict[str, Any]:
    """Minutes, folds and initial weights: those given, else those that the training began with, or else the plan's."""
    minutes = None if options.minutes is None else float(options.minutes)
    init = None if options.init is None else str(find_start(options.init))
    given = {"minutes": minutes, "folds": options.folds, "init": init}
    path = Path(options.output_dir) / TIME_FILE
    began = read_shares(path).began if path.is_file() else {}
    for name, kept in began.items():
        if given[name] not in (None, kept) and has_trained(path.parent):
            raise ValueError(
                f"{options.output_dir}: its training began with {name} {in_words(kept)}, got {in_words(given[name])}. "
                f"Leave {name} out to continue it, or use another folder."
            )
    if not began:
        began = {"minutes": made.minutes, "folds": made.folds, "init": None}
        if made.start is not None and options.init is None:
            began["init"] = str(find_start(made.start.source))
    return {name: began[name] if value is None else value for name, value in given.items()}


def check_kept(bundle: Path) -> None:
    """Refuse a bundle that has lost the weights in the folder of its training: it would be trained again over those."""
    trained = bundle / "training" / "model.pt"
    if (bundle / WEIGHTS_FILE).is_file() and not trained.is_file():
        raise FileExistsError(
            f"{bundle}: has {WEIGHTS_FILE}, but the training would begin again without {trained}. Copy the weights "
            "there, so that other lost files are made again, or use another folder."
        )


def _plan(options: TrainOptions, tell: Callable[[str], None]) -> None:
    """Plan in the first process; all of them share the check of the data."""
    described = by_first(lambda: describe_task(options))
    check_data(options.dataset_dir, described, options.output_dir, options.fold_count, tell, **options.subject_rules)
    by_first(lambda: plan_checked(options, described, tell))


def _is_planned(options: TrainOptions, tell: Callable[[str], None]) -> bool:
    """Whether there is a plan to follow, which must be for the same data and values set by hand."""
    bundle = Path(options.output_dir)
    if not (bundle / PLAN_FILE).is_file():
        return False
    trained = has_trained(bundle / "training")
    weights, made_here = bundle / WEIGHTS_FILE, bundle / "training" / "model.pt"
    are_others = made_here.is_file() and weights.is_file() and hash_file(made_here) != hash_file(weights)
    if weights.is_file() and (are_others or not trained):
        raise FileExistsError(
            f"{bundle}: has weights, but not the training that made them, and would lose them to another one. Use "
            f"another folder, or move {weights.parent} away."
        )
    if trained and read_fitted(bundle / "training") is None and not (bundle / TIME_FILE).is_file():
        raise FileExistsError(
            f"{bundle / 'training'}: has a training of another command, such as monai.bundle run, and would continue "
            "it with other cases or steps. Move this folder away, or use another bundle."
        )
    made = load_plan(bundle)
    if Path(made.dataset_dir).resolve() != Path(options.dataset_dir).resolve():
        table = "" if made.subjects is None else ", and that of its table of subjects as subjects"
        raise ValueError(
            f"{bundle}: was planned for {made.dataset_dir}, got {options.dataset_dir}. Use another folder; if the data "
            f"set was moved, write its new absolute path into {bundle / PLAN_FILE} as dataset_dir{table}."
        )
    for name, value in options.given.items():
        if made[name] != check_one(name, value, made.spatial_dims):
            raise ValueError(
                f"{bundle}: was planned with {name}={made[name]}, got {value}. Use another folder, or delete this one "
                "to plan again."
            )
    _compare_rules(options, made)
    check_unedited(made, bundle)
    outdated = None if trained else _why_outdated(options, made)
    if outdated:
        tell(f"{bundle}: was planned {outdated}, and is planned anew. Values set by hand are kept.")
        return False
    tell(f"{bundle}: already planned.")
    return True


def _why_outdated(options: TrainOptions, made: TrainingPlan) -> str | None:
    """Why a plan that nothing was trained by is not for these options and data; None if it is."""
    if _is_for_another_time(options, made):
        return "for other minutes or folds"
    # a value that the rule chose too may have another meaning by hand, such as steps instead of minutes
    if set(options.given) - set(made.by_hand):
        return "with fewer values set by hand"
    return "for other cases" if _has_other_cases(options, made) else None


def _has_other_cases(options: TrainOptions, made: TrainingPlan) -> bool:
    """Whether the cases are not those of the plan; a plan that was copied without its measurements is believed."""
    bundle = Path(options.output_dir)
    if not (bundle / CACHE_FILE).is_file():
        return False
    try:
        found = take_fingerprint(
            options.dataset_dir, trained_lists(made.folds), cache=bundle / CACHE_FILE, **made.subject_rules
        )
    except (OSError, ValueError):  # told by the check of the data
        return True
    counted = count_validation(options.dataset_dir, made.subject_rules)
    return counted != made.validation or not is_fingerprint_of(bundle, made, found)


def _is_for_another_time(options: TrainOptions, made: TrainingPlan) -> bool:
    """Whether a network would get clearly more or less time than it was planned for, or be trained on other lists."""
    folds = made.folds if options.folds is None else options.folds
    if trained_lists(folds) != trained_lists(made.folds):
        return True
    if "steps" in made.by_hand:
        return False
    asked = training_minutes(made.minutes if options.minutes is None else options.minutes, folds)
    planned = training_minutes(made.minutes, made.folds)
    return abs(asked - planned) > _SAME_TIME * planned


def _keeping_values(options: TrainOptions) -> TrainOptions:
    """The options with what an earlier plan was given, if there is one."""
    if not (Path(options.output_dir) / PLAN_FILE).is_file():
        return options
    made = load_plan(options.output_dir)
    earlier = {**made.subject_rules, "minutes": made.minutes, "folds": made.folds}
    if made.start is not None:
        earlier["init"] = made.start.source
    kept = {name: value for name, value in earlier.items() if getattr(options, name) is None}
    settings = {**{name: made[name] for name in made.by_hand}, **options.given}
    return dataclasses.replace(options, settings=settings, **kept)


def _compare_rules(options: TrainOptions, made: TrainingPlan) -> None:
    """Refuse weights to start from, and ways to find subjects, that the plan was not made with."""
    asked = {**options.subject_rules, "init": None}
    planned = {**made.subject_rules, "init": None}
    if options.init is not None and made.start is not None:
        asked["init"], planned["init"] = str(find_start(options.init)), str(find_start(made.start.source))
    for name, given in asked.items():
        if given not in (None, planned[name]):
            moved = (
                f" If the table was moved, write its new absolute path into {PLAN_FILE}." if name == "subjects" else ""
            )
            raise ValueError(
                f"{options.output_dir}: was planned with {name} {in_words(planned[name])}, got {given}. Take another "
                f"folder, or delete this one to plan again.{moved}"
            )
