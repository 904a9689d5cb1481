"""Scores of the same cases at several operating points, checked to be paired."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from monai_unetpp.metrics import FOREGROUND, METRICS, LabelScore
from monai_unetpp.pruning.results import ScoreRow

__all__ = ["BOTH_FALSE_POSITIVE", "PairedScores"]

BOTH_FALSE_POSITIVE = "left out, where both find a structure that the truth lacks"
"""How the reason of a comparison describes such pairs, after their number."""

_EMPTY_TRUTH = frozenset({"both_empty", "false_positive"})


def list_data_sets(rows: Iterable[ScoreRow]) -> list[str]:
    """Names of the data sets in the order of their first scores; a ``ValueError`` where there are no scores."""
    names = list(dict.fromkeys(row.dataset for row in rows))
    if not names:
        raise ValueError("rows must hold scores, got none.")
    return names


@dataclasses.dataclass(frozen=True)
class PairedScores:
    """The scores of one data set by point, label and case: every case has every label at every point.

    Attributes:
        dataset: name of the data set.
        points: names of the operating points.
        subjects: subject of each case, in the order of the rows.
        labels: names of the labels in the order of the rows, without the pooled foreground if there are others.
        scores: by ``(point, label, case)``, including the pooled foreground.
    """

    dataset: str
    points: tuple[str, ...]
    subjects: dict[str, str]
    labels: tuple[str, ...]
    scores: dict[tuple[str, str, str], LabelScore]

    @classmethod
    def from_rows(cls, rows: Iterable[ScoreRow], points: Sequence[str], dataset: str) -> PairedScores:
        """Pair the rows of ``dataset``.

        Args:
            rows: scores; those of other data sets are ignored.
            points: names of the operating points; each must be scored on every case.
            dataset: name of the data set.

        Raises:
            ValueError: no rows of the data set, an unknown point, a duplicate score, a case with two subjects or
                without a label at a point, or points scored against different truths.
        """
        subjects: dict[str, str] = {}
        names: dict[str, None] = {}
        scores: dict[tuple[str, str, str], LabelScore] = {}
        for row in rows:
            if row.dataset != dataset:
                continue
            if row.point not in points:
                raise ValueError(
                    f"rows must be of the points {', '.join(points)}, got {row.point!r} for case {row.case!r}."
                )
            if subjects.setdefault(row.case, row.subject) != row.subject:
                raise ValueError(
                    f"rows must give case {row.case!r} one subject, got {subjects[row.case]!r} and {row.subject!r}."
                )
            key = (row.point, row.label, row.case)
            if key in scores:
                raise ValueError(
                    f"rows must score a case once, got two scores of {row.label!r} at {row.point} for case "
                    f"{row.case!r} of data set {dataset!r}."
                )
            names[row.label] = None
            scores[key] = row.score
        if not scores:
            raise ValueError(f"rows must hold scores of data set {dataset!r}, got none.")
        for case in subjects:
            for label in names:
                for point in points:
                    if (point, label, case) not in scores:
                        raise ValueError(
                            f"rows must pair every case at every point, got no score of {label!r} at {point} for case "
                            f"{case!r} of data set {dataset!r}. Score the missing case or leave it out everywhere."
                        )
                if len({scores[point, label, case].state in _EMPTY_TRUTH for point in points}) > 1:
                    raise ValueError(
                        f"rows must be scored against one truth, got {label!r} of case {case!r} of data set "
                        f"{dataset!r} both with and without truth. Score all points again."
                    )
        labels = tuple(name for name in names if name != FOREGROUND) or (FOREGROUND,)
        return cls(dataset, tuple(points), subjects, labels, scores)

    @property
    def subject_numbers(self) -> dict[str, int]:
        """The subjects, numbered in the order of their names, so that samples of them depend on no order of cases."""
        return {subject: number for number, subject in enumerate(sorted(set(self.subjects.values())))}

    def subject_index(self, cases: Sequence[str]) -> NDArray[np.int64]:
        """The number of the subject of each of these cases."""
        numbers = self.subject_numbers
        return np.array([numbers[self.subjects[case]] for case in cases], dtype=np.int64)

    def check_label(self, label: str) -> str:
        """``label`` if it was scored, the pooled foreground included.

        Raises:
            ValueError: it was not.
        """
        known = dict.fromkeys(name for _, name, _ in self.scores)
        if label not in known:
            raise ValueError(f"label must be one of {', '.join(known)}, got {label!r} for data set {self.dataset!r}.")
        return label

    def cases_with(self, label: str, points: Sequence[str]) -> tuple[str, ...]:
        """The cases where ``label`` is in the truth or in a prediction of ``points``; the others are all empty."""
        return tuple(
            case
            for case in self.subjects
            if any(self.scores[point, label, case].state != "both_empty" for point in points)
        )

    def comparable_cases(self, label: str, point: str, reference: str) -> tuple[str, ...]:
        """The cases that can distinguish two points: :meth:`cases_with` minus :meth:`both_false_positive`."""
        without = set(self.both_false_positive(label, point, reference))
        return tuple(case for case in self.cases_with(label, (point, reference)) if case not in without)

    def both_false_positive(self, label: str, point: str, reference: str) -> tuple[str, ...]:
        """The cases where ``label`` is a false positive at both points.

        Overlaps are 0 at both, so their difference is always 0: counted as pairs, such cases would only dilute the
        loss on the others and narrow its interval.
        """
        return tuple(
            case
            for case in self.subjects
            if {self.scores[name, label, case].state for name in (point, reference)} == {"false_positive"}
        )

    def value(self, point: str, label: str, case: str, metric: str) -> float:
        """The value of a metric.

        A ``both_empty`` score counts as perfect here (Dice, IoU and NSD 1, HD95 0 mm), so that a false positive at
        another point counts as a loss.

        Raises:
            ValueError: the score lacks the metric, or it is not finite.
        """
        score = self.scores[point, label, case]
        if score.state == "both_empty":
            return METRICS[metric].perfect
        value: float | None = getattr(score, metric)
        if value is None or not math.isfinite(value):
            raise ValueError(
                f"{metric} must be a finite number, got {value} for {label!r} of case {case!r} at {point} (state "
                f"{score.state!r}). Score the case again."
            )
        return float(value)

    def goodness(self, point: str, label: str, case: str, metric: str) -> float:
        """The metric, signed so that larger is better."""
        value = self.value(point, label, case, metric)
        return value if METRICS[metric].larger_is_better else -value

    def newly_missed(self, point: str, reference: str, label: str) -> tuple[str, ...]:
        """The cases where ``point`` misses ``label`` completely and ``reference`` does not."""
        return tuple(
            case
            for case in self.subjects
            if self.scores[point, label, case].state == "missed"
            and self.scores[reference, label, case].state != "missed"
        )
