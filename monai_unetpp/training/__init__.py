"""What training a bundle needs beyond MONAI: resumable checkpoints, curves, numbered patches, a template."""

from monai_unetpp.training.acceleration import accelerate
from monai_unetpp.training.averaging import WeightAverage
from monai_unetpp.training.budget import BudgetedCosineSchedule, LateLoss, TrainingBudget
from monai_unetpp.training.cropping import RandCropByPresentClassesd
from monai_unetpp.training.observing import LevelCurves, draw_training, load_observed
from monai_unetpp.training.patches import LateNumber, NumberedPatches, RemainingPatches
from monai_unetpp.training.recording import BestModelSaver, CurveWriter, ModelSaver, TrainingCheckpoint
from monai_unetpp.training.steps import LastModelSaver, StepCurve
from monai_unetpp.training.template_bundle import TEMPLATE, write_template

__all__ = [
    "TEMPLATE",
    "BestModelSaver",
    "BudgetedCosineSchedule",
    "CurveWriter",
    "LastModelSaver",
    "LateLoss",
    "LateNumber",
    "LevelCurves",
    "ModelSaver",
    "NumberedPatches",
    "RandCropByPresentClassesd",
    "RemainingPatches",
    "StepCurve",
    "TrainingBudget",
    "TrainingCheckpoint",
    "WeightAverage",
    "accelerate",
    "draw_training",
    "load_observed",
    "write_template",
]
