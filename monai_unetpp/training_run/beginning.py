"""The minutes, folds and initial weights that a training began with, which may not change before its end."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.bundles.training_record import find_training_record
from monai_unetpp.data.datasets.case_check import check_case
from monai_unetpp.data.datasets.labelled import list_cases
from monai_unetpp.data.datasets.voxel_hash import hash_voxels
from monai_unetpp.errors import counted, list_values
from monai_unetpp.files import write_json
from monai_unetpp.planning import TrainingPlan
from monai_unetpp.planning.bundle_writing import has_trained
from monai_unetpp.planning.starting import find_start
from monai_unetpp.planning.training_plan import in_words
from monai_unetpp.pruning.statistics import MIN_SUBJECTS
from monai_unetpp.training_run.train_options import TrainOptions

_Entries = Sequence[Mapping[str, Any]]

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
    path = bundle / _FILE
    begun = Beginning(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
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
    write_json(bundle / _FILE, dataclasses.asdict(beginning), indent=1)


def tell_few_subjects(training: _Entries, validation: _Entries, tell: Callable[[str], None]) -> None:
    """Tell where validation cases are too few for a verdict, before the time is spent.

    Args:
        training: the training cases.
        validation: those that are to judge.
        tell: called with a line.
    """
    judging = len({case.subject for case in list_cases(validation)})
    if judging < MIN_SUBJECTS:
        subjects = len({case.subject for case in list_cases([*training, *validation])})
        remedy = f" With --folds 3, all {subjects} subjects judge." if subjects >= MIN_SUBJECTS else ""
        tell(
            f"{counted(judging, 'subject')} for validation, fewer than the {MIN_SUBJECTS} that a verdict on the levels "
            f"needs, so the deepest will be kept.{remedy}"
        )


def check_start(
    init: str | PathLike[str] | None,
    judging: _Entries,
    folds: int,
    tell: Callable[[str], None],
) -> None:
    """Look for cases that the initial weights were trained on or selected by among those that are to judge.

    Args:
        init: file or bundle with the initial weights; None for random ones.
        judging: the cases to score.
        folds: trainings for cross-fitting, none of which may have seen its cases.
        tell: called with a line where the verdict will be withdrawn.

    Raises:
        ValueError: with ``folds``, there are such cases.
    """
    try:
        start = None if init is None else find_start(init)
    except FileNotFoundError:  # no longer needed once the training has ended
        return
    record = None if start is None else find_training_record(start)
    if record is None:
        return
    cases = list_cases(judging)
    roles = [(case, record.role_of(hash_voxels(case.image))) for case in cases]
    # as for the verdict, images of one value are not the same case although they are alike: these have no hash here
    known = [(case.name, role) for case, role in roles if role is not None and check_case(case).voxels is not None]
    trained = [name for name, role in known if role == "training"]
    seen = trained or [name for name, _ in known]
    if not seen:
        return
    what = "were used for training" if trained else "chose the weights of"
    found = f"{len(seen)} of {len(cases)} judging cases {what} {init} ({list_values(seen)})"
    if folds:
        raise ValueError(
            f"init must be weights that saw no case where folds are given, but {found}: networks would score what they "
            "have seen. Leave init or folds out."
        )
    meaning = "there will be no verdict" if trained else "accuracies will be optimistic, above all the deepest level's"
    tell(f"{found}, so {meaning}. Give weights that never saw them, or other validation cases.")
