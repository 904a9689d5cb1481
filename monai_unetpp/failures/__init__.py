"""Where segmentations still fail: scores of every case by kind of image, and pictures of the worst."""

from monai_unetpp.failures.examined_cases import CaseScore
from monai_unetpp.failures.failures import find_failures
from monai_unetpp.failures.kinds import ExaminedCase, FailureReport, KindSummary

__all__ = ["CaseScore", "ExaminedCase", "FailureReport", "KindSummary", "find_failures"]
