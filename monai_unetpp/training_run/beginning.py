"""What is told of the cases and the initial weights before a training begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

from monai_unetpp.bundles.training_record import find_training_record
from monai_unetpp.data.datasets.case_check import check_case
from monai_unetpp.data.datasets.labelled import list_cases
from monai_unetpp.data.datasets.voxel_hash import hash_voxels
from monai_unetpp.errors import counted, list_values
from monai_unetpp.planning.starting import find_start
from monai_unetpp.pruning.statistics import MIN_SUBJECTS

_Entries = Sequence[Mapping[str, Any]]


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
