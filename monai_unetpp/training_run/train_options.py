"""Options for a whole training. Does not import torch."""

from __future__ import annotations

import dataclasses

from monai_unetpp.planning.plan_options import PlanOptions


@dataclasses.dataclass(frozen=True)
class TrainOptions(PlanOptions):
    """The data and the bundle to train, with the options of its plan.

    A bundle from ``monai-unetpp plan`` is trained as planned: minutes and folds default to those of the plan, and other
    settings must agree with it. With other minutes or folds it is planned anew, with the same values by hand. Once its
    training has saved anything, other minutes, folds and initial weights are refused too.
    """
