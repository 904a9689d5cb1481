"""What a bundle's training needs beyond MONAI: checkpoints to resume from, curves, patches by number, a template."""

from monai_unetpp.training.curves import draw_curves
from monai_unetpp.training.handlers import BestModelSaver, CurveWriter, TrainingCheckpoint
from monai_unetpp.training.patches import NumberedPatches, RemainingPatches
from monai_unetpp.training.steps import LastModelSaver, StepCurve
from monai_unetpp.training.template_bundle import TEMPLATE, write_template

__all__ = [
    "TEMPLATE",
    "BestModelSaver",
    "CurveWriter",
    "LastModelSaver",
    "NumberedPatches",
    "RemainingPatches",
    "StepCurve",
    "TrainingCheckpoint",
    "draw_curves",
    "write_template",
]
