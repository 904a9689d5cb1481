"""The formats: how to write a network, and how to run the file to verify it."""

from __future__ import annotations

import dataclasses
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from monai_unetpp.choices import EXPORT_SUFFIXES
from monai_unetpp.inferers.predictors.openvino_conversion import convert_to_openvino, write_openvino_model
from monai_unetpp.inferers.predictors.tracing import without_warnings_of_torch
from monai_unetpp.installing import install_command
from monai_unetpp.networks import NestedUNet
from monai_unetpp.openvino_loading import openvino_core

Writer = Callable[[NestedUNet, torch.Tensor, bool, Path, Mapping[str, str]], None]
Runner = Callable[[torch.Tensor], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Format:
    """One format of exported networks.

    Attributes:
        suffix: suffix of its files.
        write: writes a network, given example windows, whether their number is open, the file, and texts by name to
            store in it if the format allows.
        load: reads a file and returns the function that runs it.
        packages: other packages whose versions matter.
        companions: suffixes of other files of the model, written beside it.
        tolerance: largest accepted difference from the network, relative to the largest logit.
    """

    suffix: str
    write: Writer
    load: Callable[[Path], Runner]
    packages: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    tolerance: float = 1e-4


def _shapes(dynamic_batch: bool) -> tuple[dict[int, torch.export.Dim], ...] | None:
    return ({0: torch.export.Dim("batch")},) if dynamic_batch else None


def _write_program(
    network: NestedUNet, windows: torch.Tensor, dynamic_batch: bool, path: Path, extra: Mapping[str, str]
) -> None:
    program = torch.export.export(network, (windows,), dynamic_shapes=_shapes(dynamic_batch))
    torch.export.save(program, path, extra_files=dict(extra))


def _write_script(
    network: NestedUNet, windows: torch.Tensor, dynamic_batch: bool, path: Path, extra: Mapping[str, str]
) -> None:
    torch.jit.save(torch.jit.script(network), path, dict(extra))


def _write_onnx(
    network: NestedUNet, windows: torch.Tensor, dynamic_batch: bool, path: Path, extra: Mapping[str, str]
) -> None:
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(f"format onnx needs {package}. Install it: {install_command('export')}")
    with without_warnings_of_torch():
        program = torch.onnx.export(
            network,
            (windows,),
            dynamo=True,
            verbose=False,
            input_names=["image"],
            output_names=["pred"],
            dynamic_shapes=_shapes(dynamic_batch),
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program. Use a newer version of torch.")
    program.save(path, external_data=False)


def _load_onnx(path: Path) -> Runner:
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda windows: torch.from_numpy(session.run(None, {"image": windows.numpy()})[0])
    if importlib.util.find_spec("openvino") is not None:
        return _load_openvino(path)
    from onnx.reference import ReferenceEvaluator

    # correct, but slow for large windows
    evaluator: Any = ReferenceEvaluator(str(path))
    return lambda windows: torch.from_numpy(evaluator.run(None, {"image": windows.numpy()})[0])


def _write_openvino(
    network: NestedUNet, windows: torch.Tensor, dynamic_batch: bool, path: Path, extra: Mapping[str, str]
) -> None:
    model = convert_to_openvino(network, None, windows, dynamic_batch=dynamic_batch)
    # the same names as in ONNX
    model.input(0).get_tensor().set_names({"image"})
    model.output(0).get_tensor().set_names({"pred"})
    write_openvino_model(model, path)


def _load_openvino(path: Path) -> Runner:
    compiled = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda windows: torch.from_numpy(compiled(windows.numpy())[0].copy())


def _write_tensorrt(
    network: NestedUNet, windows: torch.Tensor, dynamic_batch: bool, path: Path, extra: Mapping[str, str]
) -> None:
    tensorrt = _import_tensorrt()
    network, windows = network.cuda(), windows.cuda()
    engine = tensorrt.compile(network, ir="dynamo", inputs=[windows])
    tensorrt.save(engine, str(path), inputs=[windows])


def _load_tensorrt(path: Path) -> Runner:
    engine = _import_tensorrt().load(str(path)).module()
    return lambda windows: engine(windows.cuda()).cpu()


def _import_tensorrt() -> Any:
    if importlib.util.find_spec("torch_tensorrt") is None or not torch.cuda.is_available():
        raise ImportError(
            "format tensorrt needs torch-tensorrt and an NVIDIA GPU. Install it on a machine with a GPU: pip install "
            "torch-tensorrt"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch_tensorrt

    return torch_tensorrt


FORMATS = {
    "torch_export": Format(
        EXPORT_SUFFIXES["torch_export"], _write_program, lambda path: torch.export.load(path).module()
    ),
    "torchscript": Format(EXPORT_SUFFIXES["torchscript"], _write_script, torch.jit.load),
    "onnx": Format(EXPORT_SUFFIXES["onnx"], _write_onnx, _load_onnx, ("onnx", "onnxscript")),
    "openvino": Format(EXPORT_SUFFIXES["openvino"], _write_openvino, _load_openvino, ("openvino",), (".bin",)),
    # convolutions are computed in TF32 unless it is told otherwise
    "tensorrt": Format(
        EXPORT_SUFFIXES["tensorrt"], _write_tensorrt, _load_tensorrt, ("torch_tensorrt",), tolerance=1e-2
    ),
}
