"""One interface for every way to run a network on batches of windows: torch, torch.compile, OpenVINO."""

from monai_unetpp.inferers.predictors.choice import make_predictor, resolve_runtime
from monai_unetpp.inferers.predictors.compiled import CompiledPredictor
from monai_unetpp.inferers.predictors.eager import TorchPredictor
from monai_unetpp.inferers.predictors.openvino_runtime import OpenVINOPredictor
from monai_unetpp.inferers.predictors.predictor import Predictor

__all__ = [
    "CompiledPredictor",
    "OpenVINOPredictor",
    "Predictor",
    "TorchPredictor",
    "make_predictor",
    "resolve_runtime",
]
