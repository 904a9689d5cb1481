"""Options for a whole training. Does not import torch."""

from __future__ import annotations

import dataclasses

from monai_unetpp.options import option
from monai_unetpp.planning.plan_options import PlanOptions

__all__ = ["TrainOptions"]


@dataclasses.dataclass(frozen=True)
class TrainOptions(PlanOptions):
    """The data and the bundle to train, with the options of its plan.

    A bundle from ``monai-unetpp plan`` is trained as planned: minutes and folds default to those of the plan, and other
    settings must agree with it. Once the training has begun, minutes, folds and initial weights must agree with those
    that it began with, which are also their defaults.

    Attributes:
        init: bundle or checkpoint with initial weights, used as far as they fit.
    """

    init: str | None = option(None, metavar="BUNDLE_OR_FILE", help="start from these weights, where they fit")
