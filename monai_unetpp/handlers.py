"""The name under which bundles written for earlier versions find the handlers of :mod:`monai_unetpp.training`."""

from monai_unetpp.training.recording import BestModelSaver, CurveWriter, TrainingCheckpoint

__all__ = ["BestModelSaver", "CurveWriter", "TrainingCheckpoint"]
