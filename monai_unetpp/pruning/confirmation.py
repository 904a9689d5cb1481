"""Cases that confirm a choice, held out from those that made it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from monai_unetpp.data.datasets.labelled import LabelledCase, list_cases
from monai_unetpp.pruning.plan import EvaluationData

__all__ = ["choosing_entries", "confirming_cases", "draw_subjects"]


def confirming_cases(
    entries: Mapping[str, Sequence[Mapping[str, Any]]], data: EvaluationData, seed: int = 0
) -> frozenset[tuple[str, str]]:
    """Data set and name of the cases that only confirm: those of ``data.confirm_dir``, or a share of all.

    Args:
        entries: the cases of all data sets by name, that of ``confirm_dir`` last.
        data: which cases confirm, and their subjects.
        seed: of the split by ``confirm_share``.

    Raises:
        ValueError: a subject both chooses and confirms.
    """
    if data.confirm_dir is None and data.confirm_share is None:
        return frozenset()
    by_dataset: dict[str, list[tuple[LabelledCase, str | None]]] = {}
    given = data.subjects is not None or data.subject_pattern is not None
    for dataset, listed in entries.items():
        cases = list_cases(listed, data.subjects, data.subject_pattern)
        by_dataset[dataset] = [
            (case, case.subject if given or entry.get("subject") or case.subject != case.name else None)
            for case, entry in zip(cases, listed, strict=True)
        ]
    if data.confirm_dir is not None:
        last = list(by_dataset)[-1]
        confirming = frozenset((last, case.name) for case, _ in by_dataset[last])
    else:
        confirming = _keep_back(by_dataset, data.confirm_share or 0.0, seed)
    _check_other_data(by_dataset, confirming)
    return confirming


def choosing_entries(
    entries: Sequence[Mapping[str, Any]], dataset: str, kept_back: Collection[tuple[str, str]]
) -> list[Mapping[str, Any]]:
    """The entries of the cases that choose; operating points are compared on these only."""
    names = [case.name for case in list_cases(entries)] if kept_back else [""] * len(entries)
    return [entry for entry, name in zip(entries, names, strict=True) if (dataset, name) not in kept_back]


def draw_subjects(subjects: Iterable[str], share: float, seed: int = 0) -> set[str]:
    """Draw the subjects that confirm, at least one of two or more and not all of them.

    Args:
        subjects: in any order; two or more different ones.
        share: share of the subjects to draw, above 0 and below 1.
        seed: the same subjects, share and seed give the same draw.
    """
    names = sorted(set(subjects))
    choosing = min(max(round(len(names) * (1 - share)), 1), len(names) - 1)
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[index] for index in order[choosing:]}


def _keep_back(
    by_dataset: Mapping[str, Sequence[tuple[LabelledCase, str | None]]], share: float, seed: int
) -> frozenset[tuple[str, str]]:
    """A share of the subjects of each data set, or of all together if a subject is in several."""
    places: dict[str, set[str]] = {}
    for dataset, cases in by_dataset.items():
        for _, subject in cases:
            if subject is not None:
                places.setdefault(subject, set()).add(dataset)
    joint = any(len(datasets) > 1 for datasets in places.values())
    confirming = set()
    for group in [list(by_dataset)] if joint else [[dataset] for dataset in by_dataset]:
        # without given subjects, cases with the same name in two data sets are two subjects
        members = {
            (dataset, case.name): subject or (f"{dataset}/{case.name}" if joint else case.name)
            for dataset in group
            for case, subject in by_dataset[dataset]
        }
        if len(set(members.values())) < 2:
            raise ValueError(
                f"confirm_share must have two subjects or more to split, got one in {', '.join(group)}. Leave it out."
            )
        drawn = draw_subjects(members.values(), share, seed)
        confirming |= {case for case, subject in members.items() if subject in drawn}
    for dataset, cases in by_dataset.items():
        sides = {(dataset, case.name) in confirming for case, _ in cases}
        if len(sides) < 2:
            raise ValueError(
                f"confirm_share must leave cases of {dataset!r} on both sides, got all to "
                f"{'confirm' if sides == {True} else 'choose'}. Take another share or seed, or add cases."
            )
    return frozenset(confirming)


def _check_other_data(
    by_dataset: Mapping[str, Sequence[tuple[LabelledCase, str | None]]], confirming: frozenset[tuple[str, str]]
) -> None:
    """Refuse confirming cases whose subject also chooses; equal images are refused everywhere."""
    choosing: dict[str, str] = {}
    people: list[tuple[str, str]] = []
    for dataset, cases in by_dataset.items():
        for case, subject in cases:
            if subject is not None and (dataset, case.name) in confirming:
                people.append((f"{case.name} ({dataset})", subject))
            elif subject is not None:
                choosing.setdefault(subject, f"{case.name} ({dataset})")
    same = [
        f"- {name}: the same subject, {subject!r}, as {choosing[subject]}"
        for name, subject in people
        if subject in choosing
    ]
    if same:
        raise ValueError(
            f"cases that confirm must not share subjects with those that choose, got {len(same)} in common:\n"
            + "\n".join(same)
            + "\nRemove them from one of the data sets."
        )
