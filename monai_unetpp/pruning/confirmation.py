"""Cases that confirm a choice, held out from those that made it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from monai_unetpp.data.datasets.labelled import list_cases, subject_of_entry
from monai_unetpp.pruning.plan import EvaluationData

_Case = tuple[str, str]


def confirming_cases(
    entries: Mapping[str, Sequence[Mapping[str, Any]]], data: EvaluationData, seed: int = 0
) -> frozenset[_Case]:
    """Data set and name of the cases that only confirm: those of ``data.confirm_dir``, the last one, or a share."""
    if data.confirm_dir is None and data.confirm_share is None:
        return frozenset()
    people = known_subjects(entries)
    if data.confirm_dir is not None:
        last = list(entries)[-1]
        confirming = frozenset(case for case in people if case[0] == last)
    else:
        confirming = _keep_back(people, list(entries), data.confirm_share or 0.0, seed)
    _check_other_data(people, confirming)
    return confirming


def known_subjects(entries: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[_Case, str | None]:
    """The subject of each case by data set and name; None where nothing tells it."""
    return {
        (dataset, case.name): case.subject if subject_of_entry(entry) else None
        for dataset, listed in entries.items()
        for case, entry in zip(list_cases(listed), listed, strict=True)
    }


def draw_subjects(subjects: Iterable[str], share: float, seed: int = 0) -> set[str]:
    """Draw the subjects that confirm, at least one of two or more and not all of them."""
    names = sorted(set(subjects))
    choosing = min(max(round(len(names) * (1 - share)), 1), len(names) - 1)
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[index] for index in order[choosing:]}


def _keep_back(
    people: Mapping[_Case, str | None], datasets: Sequence[str], share: float, seed: int
) -> frozenset[_Case]:
    """A share of the subjects of each data set, or of all together if a subject is in several."""
    places = {(subject, dataset) for (dataset, _), subject in people.items() if subject is not None}
    joint = len({subject for subject, _ in places}) < len(places)
    confirming = set()
    for group in [datasets] if joint else [[dataset] for dataset in datasets]:
        # without given subjects, cases with the same name in two data sets are two subjects
        members = {
            case: subject or ("/".join(case) if joint else case[1])
            for case, subject in people.items()
            if case[0] in group
        }
        if len(set(members.values())) < 2:
            raise ValueError(
                f"confirm_share must have two subjects or more to split, got one in {', '.join(group)}. Leave it out."
            )
        drawn = draw_subjects(members.values(), share, seed)
        confirming |= {case for case, subject in members.items() if subject in drawn}
    for dataset in datasets:
        sides = {case in confirming for case in people if case[0] == dataset}
        if len(sides) < 2:
            raise ValueError(
                f"confirm_share must leave cases of {dataset!r} on both sides, got all to "
                f"{'confirm' if sides == {True} else 'choose'}. Take another share or seed, or add cases."
            )
    return frozenset(confirming)


def _check_other_data(people: Mapping[_Case, str | None], confirming: frozenset[_Case]) -> None:
    """Refuse confirming cases whose subject also chooses; equal images are refused everywhere."""
    choosing: dict[str | None, str] = {}
    for (dataset, name), subject in people.items():
        if subject is not None and (dataset, name) not in confirming:
            choosing.setdefault(subject, f"{name} ({dataset})")
    same = [
        f"- {name} ({dataset}): the same subject, {subject!r}, as {choosing[subject]}"
        for (dataset, name), subject in people.items()
        if (dataset, name) in confirming and subject in choosing
    ]
    if same:
        raise ValueError(
            f"cases that confirm must not share subjects with those that choose, got {len(same)} in common:\n"
            + "\n".join(same)
            + "\nRemove them from one of the data sets, or give different people of one name other subjects in "
            "dataset.json."
        )
