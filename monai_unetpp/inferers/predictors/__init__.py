"""One interface to run networks on batches of windows with torch, torch.compile or OpenVINO."""

from monai_unetpp.inferers.predictors.adaptive import AdaptiveTorchPredictor
from monai_unetpp.inferers.predictors.adaptive_openvino import AdaptiveOpenVINOPredictor
from monai_unetpp.inferers.predictors.choice import make_adaptive_predictor, make_predictor, resolve_runtime
from monai_unetpp.inferers.predictors.compiled import CompiledPredictor
from monai_unetpp.inferers.predictors.eager import TorchPredictor
from monai_unetpp.inferers.predictors.openvino_runtime import OpenVINOPredictor
from monai_unetpp.inferers.predictors.predictor import Predictor

__all__ = [
    "AdaptiveOpenVINOPredictor",
    "AdaptiveTorchPredictor",
    "CompiledPredictor",
    "OpenVINOPredictor",
    "Predictor",
    "TorchPredictor",
    "make_adaptive_predictor",
    "make_predictor",
    "resolve_runtime",
]
