"""The network of an exported folder, as a function of one window."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from monai_unetpp.openvino_loading import has_openvino, openvino_core
from monai_unetpp.runner.volume import Array
from monai_unetpp.runner.windows import Predict

__all__ = ["load_network"]

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


def load_network(folder: Path, network: Mapping[str, Any], threads: int | None = None) -> Predict:
    """Read and compile the network.

    Args:
        folder: where its files are.
        network: of a :class:`monai_unetpp.runner.Pipeline`.
        threads: how many to use; None leaves it to the runtime.

    Raises:
        ImportError: what runs it is not installed.
    """
    path = folder / Path(network["files"][0]).name
    if network["format"] == "onnx" and importlib.util.find_spec("onnxruntime") is not None:
        return _with_onnxruntime(path, threads)
    if not has_openvino():
        packages = "OpenVINO" if network["format"] == "openvino" else "ONNX Runtime or OpenVINO"
        install = "openvino" if network["format"] == "openvino" else "onnxruntime"
        raise ImportError(f"{path}: the network needs {packages}. Install it: pip install {install}")
    return _with_openvino(path, network["precision"], threads)


def _with_openvino(path: Path, precision: str, threads: int | None) -> Predict:
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    request = openvino_core().compile_model(path, "CPU", settings).create_infer_request()

    def predict(window: Array) -> Array:
        request.infer([window[None]], share_inputs=False)
        return np.array(request.get_output_tensor(0).data[0])

    return predict


def _with_onnxruntime(path: Path, threads: int | None) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def predict(window: Array) -> Array:
        return np.asarray(session.run(None, {name: window[None]})[0][0])

    return predict
