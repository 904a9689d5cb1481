"""Doubts about a plan or its cases that are no errors, each in one sentence."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_unetpp.data import load_datalist, read_geometry
from monai_unetpp.data.datasets.datalist import LISTS
from monai_unetpp.data.datasets.label_names import find_label_names
from monai_unetpp.data.datasets.labelled import LabelledCase, list_cases
from monai_unetpp.errors import counted, list_values
from monai_unetpp.metrics import METRICS
from monai_unetpp.pruning.confirmation import known_subjects
from monai_unetpp.pruning.plan import EvaluationData, PruningPlan
from monai_unetpp.pruning.results import DataProblem, ScoreRow
from monai_unetpp.pruning.rules import Rules

_WIDE_MARGIN = 0.05
_HIGH_ALPHA = 0.1
_SUBJECTS_TO_SPLIT = 60
_TRAINING = LISTS[0]


def all_doubts(
    plan: PruningPlan,
    entries: Mapping[str, Sequence[Mapping[str, Any]]],
    rows: Sequence[ScoreRow],
    cases: Sequence[LabelledCase],
    problems: Sequence[DataProblem],
    *,
    out_of_fold: bool,
) -> tuple[str, ...]:
    """Doubts about a plan, the data sets without cases that have problems, and those that choose, and their scores."""
    # the smallest data set, as each has a verdict of its own
    subjects = min(Counter(dataset for dataset, _ in {(row.dataset, row.subject) for row in rows}).values())
    edge, dims = statistics.median(map(shortest_edge, cases)), plan.pipeline.network.spatial_dims
    return (
        *doubts_of_rules(plan.rules),
        *doubts_of_split(subjects, plan.data.confirm_share),
        *doubts_of_subjects(plan.data),
        *doubts_of_common_subjects(entries, problems),
        *(() if out_of_fold else doubts_of_shared_subjects(plan.data, rows)),
        *doubts_of_names(plan.pipeline.labels, plan.data.folders),
        *filter(None, [plan.data.unscored]),
        *doubts_of_tolerances(plan.pipeline.tolerance_mm, rows, edge, dims),
    )


def doubts_of_rules(rules: Rules) -> Iterator[str]:
    """Margins and error levels that make a verdict weak."""
    for margin in rules.margins:
        if METRICS[margin.metric].larger_is_better and margin.value > _WIDE_MARGIN:
            yield (
                f"--margin {margin} lets a level lose {100 * margin.value:g} points of "
                f"{METRICS[margin.metric].name}: a verdict with it says little."
            )
    if rules.alpha > _HIGH_ALPHA:
        yield f"With --alpha {rules.alpha:g}, one verdict in {1 / rules.alpha:.0f} may be wrong; 0.05 is usual."


def doubts_of_split(subjects: int, share: float | None) -> Iterator[str]:
    """Too few subjects to hold some out."""
    if share is not None and subjects < _SUBJECTS_TO_SPLIT:
        yield (
            f"--confirm_share splits {subjects} subjects: with fewer than {_SUBJECTS_TO_SPLIT}, each side has too few "
            "for a verdict. Confirm on another data set, or use out-of-fold scores."
        )


def doubts_of_names(labels: Mapping[str, int], folders: Sequence[Path]) -> Iterator[str]:
    """Values that a data set gives another name than the network does."""
    for folder in folders:
        named = find_label_names(folder)
        found = {} if named is None else {value: name for name, value in named.foreground.items()}
        for label, value in labels.items():
            other = found.get(value, label)
            if not _are_alike(other, label):
                yield (
                    f"{folder.resolve().name} calls the value {value} {other!r}, the network {label!r}: they are "
                    "scored as the same structure. If they are not, correct the label maps."
                )


def _are_alike(one: str, other: str) -> bool:
    """Whether two names are the same apart from case and what separates words, or one is the initials of the other."""
    words = [re.findall(r"[^\W_]+", name.casefold()) for name in (one, other)]
    (first, second), short = map("".join, words), ["".join(word[0] for word in each) for each in words]
    return first in (second, short[1]) or second == short[0]


def doubts_of_subjects(data: EvaluationData) -> Iterator[str]:
    """Rules for the subjects of the training's data set, which is not among those that judge."""
    rules = [f"--{name} {value}" for name, value in data.given_subject_rules.items() if isinstance(value, str)]
    if rules and not any(map(data.subject_rules, data.folders)):
        yield (
            f"The training found the subjects of its own data set, {data.subjects_of}, by {' and '.join(rules)}. It is "
            "not applied to other data sets: if these are the same images in another place, or named alike, give it."
        )


def doubts_of_common_subjects(
    entries: Mapping[str, Sequence[Mapping[str, Any]]], problems: Sequence[DataProblem] = ()
) -> Iterator[str]:
    """Subjects with cases in several data sets, which count as different people there; cases with problems do not."""
    left_out = {(problem.dataset, problem.case) for problem in problems}
    people = {case: subject for case, subject in known_subjects(entries).items() if case not in left_out}
    homes = {(subject, dataset) for (dataset, _), subject in people.items() if subject is not None}
    counts = Counter(subject for subject, _ in homes)
    if common := sorted(subject for subject, count in counts.items() if count > 1):
        yield (
            f"{counted(len(common), 'name')} of subjects in several data sets ({list_values(common)}): they count as "
            "different people. If they are the same, leave them out of all but one."
        )


def doubts_of_shared_subjects(data: EvaluationData, rows: Sequence[ScoreRow]) -> Iterator[str]:
    """Judging subjects that have other cases in the training list of their data set, as a second scan."""
    if data.list_key == _TRAINING:
        return
    for folder, name in zip(data.folders, data.names, strict=True):
        judging = {row.subject for row in rows if row.dataset == name}
        try:
            listed = list_cases(load_datalist(folder, _TRAINING, **data.subject_rules(folder)))
        # there need be no such list, and a table of subjects need not name its cases
        except (OSError, ValueError):
            continue
        if shared := sorted({case.subject for case in listed} & judging):
            yield (
                f"{len(shared)} of {counted(len(judging), 'subject')} of {name} have other cases in its list "
                f"'{_TRAINING}' ({list_values(shared)}): if the network was trained on them, the verdict is "
                "optimistic. Judge on other subjects."
            )


def doubts_of_tolerances(
    tolerance_mm: Mapping[str, float], rows: Sequence[ScoreRow], voxel_mm: float, spatial_dims: int
) -> Iterator[str]:
    """Tolerances of the surface Dice that are finer than the grid, or coarser than the structures.

    ``voxel_mm`` is the median over the cases of the shortest voxel edge. In 2D, all objects of a label count as one.
    """
    voxel, border, shape = ("voxel", "surface", "a ball of its volume")
    if spatial_dims == 2:
        voxel, border, shape = ("pixel", "border", "a disc of its area")
    for label, tolerance in tolerance_mm.items():
        if tolerance < voxel_mm * (1 - 1e-3):
            yield (
                f"The tolerance of {label}, {tolerance:g} mm, is smaller than a {voxel} ({voxel_mm:.3g} mm): a "
                f"{border} that is one {voxel} off counts as wrong. Use at least the edge of a {voxel}."
            )
        volumes = [row.score.truth_ml for row in rows if row.label == label and row.score.truth_ml > 0]
        radius = _radius_mm(statistics.median(volumes), spatial_dims) if volumes else math.inf
        if tolerance > radius:
            yield (
                f"The tolerance of {label}, {tolerance:g} mm, is larger than half of the structure ({shape} has a "
                f"radius of {radius:.3g} mm): its surface Dice says little. Use a smaller one."
            )


def shortest_edge(case: LabelledCase) -> float:
    """The shortest voxel edge of a case in mm, without axes of a single voxel, such as the thickness of a slice."""
    grid = read_geometry(case.label)
    return min(size for size, count in zip(grid.spacing_mm, grid.shape, strict=True) if count > 1)


def _radius_mm(volume_ml: float, spatial_dims: int) -> float:
    """The radius of a ball of this volume, or of a disc of this area: 2D images are scored as 1 mm thick."""
    cubic_mm = 1000 * volume_ml
    return math.sqrt(cubic_mm / math.pi) if spatial_dims == 2 else (3 * cubic_mm / (4 * math.pi)) ** (1 / 3)
