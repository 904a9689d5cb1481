"""Where segmentations still fail: scores of every case by kind of image, and pictures of the worst.

The names are loaded when they are first used: the options need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_unetpp.lazy import lazy_names

if TYPE_CHECKING:
    from monai_unetpp.failures.examined_cases import CaseScore
    from monai_unetpp.failures.failures import find_failures
    from monai_unetpp.failures.kinds import ExaminedCase, FailureReport, KindSummary

__all__ = ["CaseScore", "ExaminedCase", "FailureReport", "KindSummary", "find_failures"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".examined_cases": ("CaseScore",),
        ".failures": ("find_failures",),
        ".kinds": ("ExaminedCase", "FailureReport", "KindSummary"),
    },
)
