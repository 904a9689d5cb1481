"""The comparison of the UNet++ paper as one command: every variant trained and scored on equal terms.

The names are loaded when they are first used: the settings in :mod:`monai_unetpp.study.design` need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_HOMES = {
    "StudyOutcome": "study",
    "StudyRun": "study",
    "StudySettings": "design",
    "draw_accuracy": "study_figures",
    "draw_learning_curves": "study_figures",
    "format_study": "accuracy_table",
    "run_study": "study",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
