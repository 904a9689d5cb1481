"""Choose the runtime of a network."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch

from monai_unetpp.choices import RUNTIMES
from monai_unetpp.devices import resolve_precision
from monai_unetpp.inferers.depth_gate import ADAPTIVE, check_gate
from monai_unetpp.inferers.predictors.adaptive import AdaptiveTorchPredictor
from monai_unetpp.inferers.predictors.adaptive_openvino import AdaptiveOpenVINOPredictor
from monai_unetpp.inferers.predictors.compiled import CompiledPredictor
from monai_unetpp.inferers.predictors.eager import TorchPredictor
from monai_unetpp.inferers.predictors.network_copy import is_plain_nested_unet
from monai_unetpp.inferers.predictors.openvino_runtime import OpenVINOPredictor
from monai_unetpp.inferers.predictors.predictor import Predictor
from monai_unetpp.inferers.predictors.predictor_settings import PredictorSettings
from monai_unetpp.openvino_loading import OPENVINO_INSTALL, has_openvino, import_openvino

logger = logging.getLogger(__name__)

_PREDICTORS: dict[str, type[Predictor]] = {
    each.runtime: each for each in (TorchPredictor, CompiledPredictor, OpenVINOPredictor)
}


def make_predictor(network: Callable[..., Any], *, runtime: str = "auto", **settings: Any) -> Predictor:
    """Make the predictor that runs ``network`` on batches of windows of one shape.

    Args:
        network: a network on the device, or any function of a tensor (with runtime ``"auto"`` or ``"torch"``).
        runtime: ``"torch"``, ``"compile"`` (torch.compile), ``"openvino"`` (CPU only), or ``"auto"``: OpenVINO for a
            nested U-Net in float32 on a CPU if installed and the precision is not fp16; else torch. Use ``"torch"`` if
            the weights change every few batches, as in training: the preparation of other runtimes does not pay there.
        **settings: fields of :class:`~monai_unetpp.inferers.predictors.predictor_settings.PredictorSettings`: shape of
            the batches, levels, device and precision.

    Raises:
        ImportError: OpenVINO was requested but is not installed.
        RuntimeError: torch.compile was requested but there is no compiler.
        TypeError: the network lacks the levels, or is not supported by the runtime.
        ValueError: an argument has an invalid value.
    """
    chosen = PredictorSettings(**settings)
    return _PREDICTORS[resolve_runtime(runtime, network, chosen.device, chosen.precision)](network, **settings)


def make_adaptive_predictor(
    network: Callable[..., Any], tolerance: float, *, runtime: str = "auto", **settings: Any
) -> AdaptiveTorchPredictor | AdaptiveOpenVINOPredictor:
    """Make the predictor that runs every window only as deep as needed.

    Args:
        network: a ``NestedUNet`` with two or more levels.
        tolerance: of ``1 - Dice`` between neighbouring levels, see
            :func:`monai_unetpp.inferers.depth_gate.levels_agree`.
        runtime: ``"torch"``, ``"openvino"``, or ``"auto"`` as for :func:`make_predictor`.
        **settings: as for :func:`make_predictor`, without ``levels``.

    Raises:
        ImportError: OpenVINO was requested but is not installed.
        TypeError: the network is not a ``NestedUNet``.
        ValueError: the network has one level, or the runtime compiles the whole network.
    """
    check_gate(ADAPTIVE, tolerance, runtime)
    chosen = PredictorSettings(**settings, levels=None)
    if resolve_runtime(runtime, network, chosen.device, chosen.precision) == "openvino":
        return AdaptiveOpenVINOPredictor(network, tolerance=tolerance, **settings)
    return AdaptiveTorchPredictor(network, tolerance=tolerance, **settings)


def resolve_runtime(
    runtime: str, network: Callable[..., Any], device: torch.device | str, precision: str = "auto"
) -> str:
    """Resolve ``runtime`` for ``network``; see :func:`make_predictor`.

    Raises:
        ValueError: runtime or precision is unknown.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}.")
    exact = resolve_precision(precision, device)
    if runtime != "auto":
        return runtime
    if torch.device(device).type != "cpu" or not is_plain_nested_unet(network) or exact == "fp16":
        return "torch"
    if any(weights.dtype != torch.float32 for weights in network.parameters()):
        return "torch"
    if not has_openvino():
        _tell_once(
            "OpenVINO is not installed: the network runs with torch, which took 3 to 5 times as long as OpenVINO on "
            f"the CPU of benchmarks/README.md. To install it: {OPENVINO_INSTALL}"
        )
        return "torch"
    try:
        import_openvino()
    except ImportError as e:
        _tell_once(f"{e} The network runs with torch, which is slower on a CPU.")
        return "torch"
    return "openvino"


@functools.cache
def _tell_once(message: str) -> None:
    logger.warning("%s", message)
