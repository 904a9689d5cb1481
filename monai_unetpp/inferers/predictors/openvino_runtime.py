"""Run a network on a CPU with OpenVINO."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from monai_unetpp.inferers.predictors.network_copy import copy_for_inference, state_of_weights
from monai_unetpp.inferers.predictors.openvino_conversion import load_or_convert
from monai_unetpp.inferers.predictors.predictor import (
    Predictor,
    check_module,
    complete_batch,
    named_outputs,
    output_names,
)
from monai_unetpp.openvino_loading import import_openvino, openvino_core

_PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVINOPredictor(Predictor):
    """Runs a network on a CPU with OpenVINO, which fuses norms and activations and optimizes the memory layout.

    The network is converted with the first batch, which takes seconds, and again after its weights have changed.
    Converted nested U-Nets are cached on disk. Smaller batches are padded with zeros, and cost as much as full ones.
    OpenVINO uses as many threads as torch. Nothing is sent anywhere.

    Args:
        network: a module that ``torch.export`` supports.
        **settings: see :class:`Predictor`; ``device`` must be ``"cpu"``, and logits are always float32.

    Raises:
        ImportError: OpenVINO is not installed.
        TypeError: the network is not a module.
        ValueError: the device is not a CPU, or the precision is fp16.
    """

    runtime = "openvino"

    def __init__(self, network: Callable[..., Any], **settings: Any) -> None:
        super().__init__(network, **settings)
        self._module = check_module(network, self.runtime)
        if self.device.type != "cpu":
            raise ValueError(
                f"device must be 'cpu' for runtime 'openvino', got {str(self.device)!r}. Use runtime 'torch'."
            )
        if self.precision not in _PRECISION_HINTS:
            raise ValueError(
                f"precision must be fp32 or bf16 for runtime 'openvino', got {self.precision!r}. Use 'auto'."
            )
        import_openvino()
        self._state: tuple[tuple[int, int], ...] | None = None
        self._request: Any = None
        self._names: tuple[str, ...] = ()
        # the outputs of the only request are read after its run
        self._lock = threading.RLock()

    def prepare(self, windows: torch.Tensor) -> None:
        """Convert, unless this was done for the network's current weights."""
        with self._lock:
            state = state_of_weights(self._module)
            if state != self._state:
                self._convert(windows.float())
                self._state, self._channels = state, windows.shape[1]

    def release(self) -> None:
        """Free what OpenVINO keeps from one batch for the next, which is most of a network's memory."""
        with self._lock:
            if self._request is not None:
                self._request.get_compiled_model().release_memory()

    def _predict(self, windows: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        batch = complete_batch(windows, self.batch_size).float().contiguous()
        with self._lock:
            self.prepare(windows)
            # copy inputs and outputs: the request would keep shared memory longer than torch does
            self._request.infer([batch.numpy()], share_inputs=False)
            outputs = [
                torch.from_numpy(np.array(self._request.get_output_tensor(index).data[: windows.shape[0]]))
                for index in range(len(self._request.model_outputs))
            ]
        return named_outputs(outputs, self._names)

    def _convert(self, windows: torch.Tensor) -> None:
        copied = copy_for_inference(self._module, self.levels).float()
        batch = complete_batch(windows, self.batch_size)
        self._names = output_names(copied, self.levels, batch)
        model = load_or_convert(copied, self.levels, batch, self.cache_dir)
        self._request = self._compile(model).create_infer_request()

    def _compile(self, model: Any) -> Any:
        return openvino_core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[self.precision],
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            },
        )
