"""Run each window only as deep as needed, with OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from monai_unetpp.inferers.depth_gate import ADAPTIVE, DEPTHS, levels_agree
from monai_unetpp.inferers.predictors.adaptive import FIRST_LEVELS, check_levels_to_choose
from monai_unetpp.inferers.predictors.network_copy import copy_for_inference
from monai_unetpp.inferers.predictors.openvino_conversion import load_or_convert_stage
from monai_unetpp.inferers.predictors.openvino_runtime import OpenVINOPredictor
from monai_unetpp.networks import NestedUNet
from monai_unetpp.networks.stages import NetworkStage
from monai_unetpp.openvino_loading import import_openvino

_Array = npt.NDArray[np.float32]


class AdaptiveOpenVINOPredictor(OpenVINOPredictor):
    """``AdaptiveTorchPredictor`` with OpenVINO, one window at a time.

    Every stage is a separate model. Stages share memory for the nodes that they keep: nothing is copied between them.

    Args:
        network: a ``NestedUNet`` with two or more levels.
        tolerance: as for ``AdaptiveTorchPredictor``.
        **settings: see :class:`OpenVINOPredictor`, without ``levels``.
    """

    def __init__(self, network: Callable[..., Any], *, tolerance: float, **settings: Any) -> None:
        nested = check_levels_to_choose(network)
        super().__init__(nested, **{**settings, "levels": nested.levels})
        self.tolerance = tolerance
        self._chain: list[_LinkedStage] = []
        self._image: _Array = np.zeros(0, np.float32)

    def _predict(self, windows: torch.Tensor) -> dict[str, torch.Tensor]:
        with self._lock:
            self.prepare(windows)
            found = [self._deepened(window) for window in windows.float().split(1)]
        logits, depths = zip(*found, strict=True)
        return {ADAPTIVE: torch.cat(logits), DEPTHS: torch.tensor(depths)}

    def _deepened(self, window: torch.Tensor) -> tuple[torch.Tensor, int]:
        """The logits of one window, and the index of their level."""
        np.copyto(self._image, window.numpy())
        shallower, deeper = self._chain[0].run()
        for number, stage in enumerate(self._chain[1:], start=FIRST_LEVELS):
            if bool(levels_agree(shallower, deeper, self.tolerance)):
                return deeper.clone(), number - 1
            shallower, (deeper,) = deeper, stage.run()
        return deeper.clone(), len(self.levels or ()) - 1

    def _convert(self, windows: torch.Tensor) -> None:
        window = windows[:1]
        network = cast(NestedUNet, copy_for_inference(self._module, self.levels).float())
        self._image = np.zeros(tuple(window.shape), np.float32)
        tensors = {"input": self._image}
        self._chain = []
        for number, stage in enumerate(network.split(FIRST_LEVELS)):
            model = load_or_convert_stage(network, FIRST_LEVELS, number, window, self.cache_dir)
            self._chain.append(_LinkedStage(self._compile(_with_channels_last(model, stage)), stage, tensors))


def _with_channels_last(model: Any, stage: NetworkStage) -> Any:
    """The model with channels last in memory at all ports but those of image and logits, as CPU convolutions use it."""
    import_openvino()
    from openvino import Layout
    from openvino.preprocess import PrePostProcessor

    ports = PrePostProcessor(model)
    axes = "HW" if len(model.inputs[0].shape) == 4 else "DHW"
    inner, outer = Layout(f"NC{axes}"), Layout(f"N{axes}C")
    inputs = [ports.input(n) for n, name in enumerate(stage.takes) if name != "input"]
    outputs = [ports.output(n) for n in range(len(stage.levels), len(model.outputs))]
    for port in (*inputs, *outputs):
        port.model().set_layout(inner)
        port.tensor().set_layout(outer)
    return ports.build()


class _LinkedStage:
    """A compiled stage that reads ``tensors`` of earlier stages, and adds its own."""

    def __init__(self, compiled: Any, stage: NetworkStage, tensors: dict[str, _Array]) -> None:
        tensor = import_openvino().Tensor
        self._request = compiled.create_infer_request()
        for index, name in enumerate(stage.takes):
            self._request.set_input_tensor(index, tensor(tensors[name], shared_memory=True))
        written = [np.zeros(tuple(port.shape), np.float32) for port in compiled.outputs]
        for index, array in enumerate(written):
            self._request.set_output_tensor(index, tensor(array, shared_memory=True))
        tensors.update(zip(stage.keeps, written[len(stage.levels) :], strict=True))
        self._logits: Sequence[torch.Tensor] = [torch.from_numpy(each) for each in written[: len(stage.levels)]]
        self._held = (written, dict(tensors))

    def run(self) -> tuple[torch.Tensor, ...]:
        """Compute the logits, which the next run overwrites."""
        self._request.infer()
        return tuple(self._logits)
