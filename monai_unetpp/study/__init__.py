"""The comparison of the UNet++ paper as one command: every variant trained and scored on equal terms."""

from monai_unetpp.study.plots import draw_accuracy, draw_learning_curves
from monai_unetpp.study.settings import StudySettings
from monai_unetpp.study.study import StudyOutcome, StudyRun, run_study
from monai_unetpp.study.table import format_study

__all__ = [
    "StudyOutcome",
    "StudyRun",
    "StudySettings",
    "draw_accuracy",
    "draw_learning_curves",
    "format_study",
    "run_study",
]
