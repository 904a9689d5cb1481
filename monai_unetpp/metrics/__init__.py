"""Case scores on the label's own grid, and how well disagreement between levels finds errors."""

from monai_unetpp.metrics.definitions import GUARDED, METRICS, CaseMetric
from monai_unetpp.metrics.disagreement import disagreement, error_auroc
from monai_unetpp.metrics.scores import FOREGROUND, RULES, CaseScorer, LabelScore, State, score_case, spacing_of_affine

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
