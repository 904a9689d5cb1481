"""From labelled data to a plan for a network, and to a bundle that lacks only its weights.

Names are loaded on first use, as the options and the rules need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_unetpp.lazy import lazy_names

if TYPE_CHECKING:
    from monai_unetpp.planning.documents import write_readme
    from monai_unetpp.planning.fingerprint import CaseFingerprint, ChannelIntensity, Fingerprint, IntensityStatistics
    from monai_unetpp.planning.machine import Machine, measure_machine
    from monai_unetpp.planning.measuring import take_fingerprint
    from monai_unetpp.planning.plan_making import plan
    from monai_unetpp.planning.plan_options import PlanOptions
    from monai_unetpp.planning.training_plan import Reason, TrainingPlan, load_plan

__all__ = [
    "CaseFingerprint",
    "ChannelIntensity",
    "Fingerprint",
    "IntensityStatistics",
    "Machine",
    "PlanOptions",
    "Reason",
    "TrainingPlan",
    "load_plan",
    "measure_machine",
    "plan",
    "take_fingerprint",
    "write_readme",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".documents": ("write_readme",),
        ".fingerprint": ("CaseFingerprint", "ChannelIntensity", "Fingerprint", "IntensityStatistics"),
        ".machine": ("Machine", "measure_machine"),
        ".measuring": ("take_fingerprint",),
        ".plan_making": ("plan",),
        ".plan_options": ("PlanOptions",),
        ".training_plan": ("Reason", "TrainingPlan", "load_plan"),
    },
)
