"""The comparison of the UNet++ paper as one command: every variant trained and scored on equal terms.

The names are loaded when they are first used: the settings in :mod:`monai_unetpp.study.design` need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_unetpp.lazy import lazy_names

if TYPE_CHECKING:
    from monai_unetpp.study.accuracy_table import format_study
    from monai_unetpp.study.design import StudySettings
    from monai_unetpp.study.study import StudyOutcome, StudyRun, run_study
    from monai_unetpp.study.study_figures import draw_accuracy, draw_learning_curves

__all__ = [
    "StudyOutcome",
    "StudyRun",
    "StudySettings",
    "draw_accuracy",
    "draw_learning_curves",
    "format_study",
    "run_study",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".accuracy_table": ("format_study",),
        ".design": ("StudySettings",),
        ".study": ("StudyOutcome", "StudyRun", "run_study"),
        ".study_figures": ("draw_accuracy", "draw_learning_curves"),
    },
)
