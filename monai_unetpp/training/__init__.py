"""What a bundle's training needs beyond MONAI: checkpoints to resume from, curves, patches by number, a template."""

from monai_unetpp.training.bundle import read_configs, write_template
from monai_unetpp.training.curves import draw_curves
from monai_unetpp.training.handlers import BestModelSaver, CurveWriter, TrainingCheckpoint
from monai_unetpp.training.patches import NumberedPatches, RemainingPatches
from monai_unetpp.training.steps import LastModelSaver, StepCurve

__all__ = [
    "BestModelSaver",
    "CurveWriter",
    "LastModelSaver",
    "NumberedPatches",
    "RemainingPatches",
    "StepCurve",
    "TrainingCheckpoint",
    "draw_curves",
    "read_configs",
    "write_template",
]
