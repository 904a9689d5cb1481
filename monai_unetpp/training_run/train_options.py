"""What a whole training is asked for. Importing this module takes no torch."""

from __future__ import annotations

import dataclasses

from monai_unetpp.planning.plan_options import PlanOptions

__all__ = ["TrainOptions"]


@dataclasses.dataclass(frozen=True)
class TrainOptions(PlanOptions):
    """From which data to train which bundle, with the options of its plan.

    A bundle that ``monai-unetpp plan`` wrote is trained as it is planned: its plan has the minutes and folds that are
    not given here, and other settings are refused. Once its training has begun, other minutes, folds and initial
    weights are refused too: what is left out is as it was.
    """
