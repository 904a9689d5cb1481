"""The handlers of :mod:`monai_unetpp.training` under their earlier name, for older bundles."""

from monai_unetpp.training.recording import BestModelSaver, CurveWriter, TrainingCheckpoint

__all__ = ["BestModelSaver", "CurveWriter", "TrainingCheckpoint"]
