"""Case scores on the label's own grid, and how well disagreement between levels predicts errors.

Names that need torch are loaded on first use, so the command line can list the metrics quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_unetpp.lazy import lazy_names
from monai_unetpp.metrics.definitions import GUARDED, METRICS, CaseMetric

if TYPE_CHECKING:
    from monai_unetpp.metrics.scores import (
        FOREGROUND,
        RULES,
        CaseScorer,
        LabelScore,
        State,
        score_case,
        spacing_of_affine,
    )
    from monai_unetpp.metrics.uncertainty import disagreement, error_auroc

__all__ = [
    "FOREGROUND",
    "GUARDED",
    "METRICS",
    "RULES",
    "CaseMetric",
    "CaseScorer",
    "LabelScore",
    "State",
    "disagreement",
    "error_auroc",
    "score_case",
    "spacing_of_affine",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".scores": ("FOREGROUND", "RULES", "CaseScorer", "LabelScore", "State", "score_case", "spacing_of_affine"),
        ".uncertainty": ("disagreement", "error_auroc"),
    },
)
