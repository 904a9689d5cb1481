"""Sort examined cases into kinds of images, and summarise each kind."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from monai_unetpp.data import ImageKind
from monai_unetpp.failures.examined_cases import CaseScore
from monai_unetpp.reporting.numbers import join_shape

_MOST_SHAPES = 20
"""With more shapes than this, as in cropped photographs, the shape says nothing about the kind."""


@dataclasses.dataclass(frozen=True)
class ExaminedCase:
    """One case of the data set.

    Attributes:
        case: its name.
        image: the image file; the first one if each channel has its own.
        label: the label file.
        segmentation: the segmentation file; None if only kinds are counted.
        image_kind: shape and background.
        spacing_mm: voxel size by axis.
        score: of the segmentation; None if only kinds are counted.
    """

    case: str
    image: str
    label: str
    segmentation: str | None
    image_kind: ImageKind
    spacing_mm: tuple[float, ...]
    score: CaseScore | None


@dataclasses.dataclass(frozen=True)
class KindSummary:
    """The cases of one kind.

    Attributes:
        kind: what they have in common, by heading, such as ``{"pixels": "256 x 256", "background": "dark"}``.
        cases: their number.
        foreground_iou: ``"mean"`` and ``"least"`` over the cases where it is defined; None if there are none.
        mean_iou: the same for the mean IoU.
        worst_case: name of the case with the lowest rank.
    """

    kind: dict[str, str]
    cases: int
    foreground_iou: dict[str, float] | None
    mean_iou: dict[str, float] | None
    worst_case: str | None


@dataclasses.dataclass(frozen=True)
class FailureReport:
    """The result of :func:`monai_unetpp.failures.find_failures`.

    Attributes:
        dataset: name of the data set.
        list_key: the list of ``dataset.json``.
        segmentations: the folder that was scored; None if only kinds are counted.
        labels: value of each scored label by name.
        ranked_by: ``"foreground_iou"``, or ``"mean_iou"`` for several labels, which may be confused.
        cases: those that could be read, in the order of the list.
        case_kinds: the kind of each case by its name, as in ``kinds``.
        kinds: the worst first by the mean of ``ranked_by``; without scores, the most frequent first.
        overall: all cases as one kind.
        worst: names of the worst cases, the worst first, without those that have no error.
        failures: by name of the case, why it could not be read or scored.
        environment: versions, device and date.
    """

    dataset: str
    list_key: str
    segmentations: str | None
    labels: dict[str, int]
    ranked_by: str
    cases: tuple[ExaminedCase, ...]
    case_kinds: dict[str, dict[str, str]]
    kinds: tuple[KindSummary, ...]
    overall: KindSummary
    worst: tuple[str, ...]
    failures: dict[str, str]
    environment: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON, with ``case_kinds`` as the ``kind`` of each case."""
        content = dataclasses.asdict(self)
        kinds = content.pop("case_kinds")
        for case in content["cases"]:
            image_kind, score = case.pop("image_kind"), case.pop("score")
            case |= {**image_kind, "kind": kinds[case["case"]], **(score or {})}
            for each in case.get("labels", {}).values():
                # computed at an arbitrary tolerance
                del each["nsd"]
        return content


def error_key(case: ExaminedCase, ranked_by: str) -> float:
    """The figure that ranks a case, lowest worst; infinite if it is undefined or the case has no error."""
    score = case.score
    if score is None or not (score.missed_voxels or score.false_positive_voxels or score.confused_voxels):
        return math.inf
    value: float | None = getattr(score, ranked_by)
    return math.inf if value is None else value


def kinds_of(cases: Sequence[ExaminedCase]) -> dict[str, dict[str, str]]:
    """The kind of each case by its name.

    2D images are of one kind if they share shape and background; with more than 20 shapes, only the background counts.
    Volumes rarely share a shape: they are of one kind if their largest voxel edge is the same to one digit, which
    separates thick slices from thin ones.
    """
    shapes = {case.image_kind.shape for case in cases}
    return {case.case: _kind(case, with_shape=len(shapes) <= _MOST_SHAPES) for case in cases}


def _kind(case: ExaminedCase, with_shape: bool) -> dict[str, str]:
    if len(case.spacing_mm) == 3:
        # so that halves go up, whatever the affine was rounded to
        edge = max(case.spacing_mm) * (1 + 1e-4)
        return {"largest voxel edge": f"{float(f'{edge:.1g}'):g} mm"}
    size = {"pixels": join_shape(case.image_kind.shape)} if with_shape else {}
    return {**size, "background": case.image_kind.background}


def summarise_kinds(
    cases: Sequence[ExaminedCase], case_kinds: Mapping[str, Mapping[str, str]], ranked_by: str
) -> tuple[tuple[KindSummary, ...], KindSummary]:
    """Each kind, as from :func:`kinds_of`, and all cases as one; ``ranked_by`` ranks kinds and cases."""
    groups: dict[tuple[tuple[str, str], ...], list[ExaminedCase]] = defaultdict(list)
    for case in cases:
        groups[tuple(case_kinds[case.case].items())].append(case)
    summaries = {key: _summary(dict(key), group, ranked_by) for key, group in groups.items()}

    def place(key: tuple[tuple[str, str], ...]) -> tuple[float, ...]:
        figure = getattr(summaries[key], ranked_by)
        largest = max(math.prod(case.image_kind.shape) for case in groups[key])
        return (figure["mean"] if figure else math.inf, -summaries[key].cases, -largest)

    return tuple(summaries[key] for key in sorted(summaries, key=place)), _summary({}, cases, ranked_by)


def _summary(kind: dict[str, str], cases: Sequence[ExaminedCase], ranked_by: str) -> KindSummary:
    scores = [case.score for case in cases if case.score is not None]
    worst = min(cases, key=lambda case: error_key(case, ranked_by), default=None)
    return KindSummary(
        kind=kind,
        cases=len(cases),
        foreground_iou=_mean_and_least([score.foreground_iou for score in scores]),
        mean_iou=_mean_and_least([score.mean_iou for score in scores]),
        worst_case=worst.case if worst is not None and math.isfinite(error_key(worst, ranked_by)) else None,
    )


def _mean_and_least(values: Sequence[float | None]) -> dict[str, float] | None:
    defined = [value for value in values if value is not None]
    return {"mean": statistics.fmean(defined), "least": min(defined)} if defined else None
