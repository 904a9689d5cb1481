"""From labelled data to a trained, judged and documented bundle: the whole task of ``monai-unetpp train``."""

from monai_unetpp.training_run.options import TrainOptions
from monai_unetpp.training_run.run import TrainingOutcome, train

__all__ = ["TrainOptions", "TrainingOutcome", "train"]
