"""The network of an exported folder, as a function of one window."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from monai_unetpp.openvino_loading import has_openvino, openvino_core
from monai_unetpp.runner.labelling import Predict
from monai_unetpp.runner.volume import Array

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


def load_network(
    folder: Path, network: Mapping[str, Any], threads: int | None = None, most_voxels: int | None = None
) -> Predict:
    """Load the ``network`` of a ``Pipeline`` from its folder, and compile it for its windows.

    If windows differ between images, ``most_voxels`` are those of the largest: the network is compiled when a shape
    first occurs, and kept for shapes with up to this many voxels in total. If ``threads`` is None, it is
    ``OMP_NUM_THREADS``, as for torch, or else left to the runtime.

    Raises:
        ImportError: the runtime is not installed.
        RuntimeError: the runtime cannot load the network.
    """
    path = folder / Path(network["files"][0]).name
    usual = os.environ.get("OMP_NUM_THREADS", "")
    if threads is None and usual.isdecimal() and int(usual):
        threads = int(usual)
    if network["format"] == "onnx" and importlib.util.find_spec("onnxruntime") is not None:
        return _with_onnxruntime(path, threads)
    if not has_openvino():
        needed = "ONNX Runtime or OpenVINO", "onnxruntime"
        packages, install = ("OpenVINO", "openvino") if network["format"] == "openvino" else needed
        raise ImportError(f"{path}: the network needs {packages}. Install it: pip install {install}")
    hint = _HINTS[network["precision"]]
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    if most_voxels is not None:
        return _of_any_shape(path, settings, most_voxels)
    return _compiled(path, settings)


def _compiled(model: Any, settings: Mapping[str, Any]) -> Predict:
    """Compile an OpenVINO model, or the path of one, for its input shape."""
    request = openvino_core().compile_model(model, "CPU", dict(settings)).create_infer_request()

    def predict(window: Array) -> Array:
        request.infer([window[None]], share_inputs=False)
        return np.array(request.get_output_tensor(0).data[0])

    return predict


def _of_any_shape(path: Path, settings: Mapping[str, Any], most_voxels: int) -> Predict:
    """Compile an OpenVINO model for each window shape on first use."""
    model = openvino_core().read_model(path)
    compiled: dict[tuple[int, ...], Predict] = {}

    def predict(window: Array) -> Array:
        shape = (1, *window.shape)
        if shape not in compiled:
            # drop the oldest, as each holds the memory for its windows
            while compiled and sum(math.prod(each[2:]) for each in (shape, *compiled)) > most_voxels:
                del compiled[next(iter(compiled))]
            model.reshape(shape)
            compiled[shape] = _compiled(model, settings)
        return compiled[shape](window)

    return predict


def _with_onnxruntime(path: Path, threads: int | None) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    with _as_runtime_error(path):
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def predict(window: Array) -> Array:
        with _as_runtime_error(path):
            return np.asarray(session.run(None, {name: window[None]})[0][0])

    return predict


@contextlib.contextmanager
def _as_runtime_error(path: Path) -> Iterator[None]:
    """Raise errors of ONNX Runtime, whose only base class is ``Exception``, as ``RuntimeError`` with the path."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as e:
        reason = " ".join(str(e).split()) or type(e).__name__
        raise RuntimeError(f"{path}: ONNX Runtime failed ({reason}). Free memory, or export the bundle again.") from e
