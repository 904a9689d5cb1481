"""Quantize OpenVINO models to 8-bit integers, calibrated on windows of training cases."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from monai_unetpp.bundles import BundleConfig
from monai_unetpp.data import ImageFileError, describe_failure, load_datalist
from monai_unetpp.guard import find_guard
from monai_unetpp.inferers.predictors.openvino_conversion import write_openvino_model
from monai_unetpp.inferers.windows import WindowGrid
from monai_unetpp.installing import install_command
from monai_unetpp.openvino_loading import openvino_core, without_telemetry

#: Number of training cases for calibration, and of windows per case.
_CASES, _WINDOWS_OF_CASE = 16, 4
#: Windows that the quantised network is compared on.
_TRIED = 4
_CONVOLUTIONS = ("Convolution", "ConvolutionBackpropData")


def calibration_windows(
    config: BundleConfig,
    dataset_dir: str | PathLike[str],
    window_shape: Sequence[int],
    windows: Mapping[str, Any],
    slice_axis: int | None = None,
) -> list[npt.NDArray[np.float32]]:
    """Cut windows ``(1, C, *window_shape)`` from training cases, evenly spaced over the list and the images.

    Images unlike those that the bundle was trained on are logged.

    Args:
        config: the bundle's ``inference.json``.
        dataset_dir: folder of the data set; its list ``training`` is used. Where the lists are drawn, subjects are told
            apart as in the training of the bundle, so that no case of its validation list takes part.
        window_shape: shape of the windows.
        windows: how windows are laid out and padded, as a :class:`monai_unetpp.runner.Pipeline` says.
        slice_axis: the axis across which volumes are cut into slices for a 2D network.

    Raises:
        FileNotFoundError: the folder or list does not exist.
        ImageFileError: an image is unusable.
    """
    cases = load_datalist(dataset_dir, "training", **_subject_rules(config, dataset_dir))
    preprocess = config.parse("preprocessing")
    if guard := find_guard(config.parse("bundle_root"), slice_axis):
        guard.watch(preprocess)
    chosen = [cases[index] for index in np.unique(np.linspace(0, len(cases) - 1, _CASES).round().astype(int))]
    found: list[npt.NDArray[np.float32]] = []
    for case in chosen:
        try:
            image = torch.as_tensor(preprocess({"image": case["image"]})["image"]).float().cpu()
        except RuntimeError as e:
            raise ImageFileError(f"{describe_failure(e)} Calibrate with images like those of the training.") from e
        slices = image[None]
        if slice_axis is not None and image.dim() > len(window_shape) + 1:
            slices = image.movedim(slice_axis + 1, 0)
        grid = WindowGrid.over(slices[0].shape[1:], window_shape, windows["overlap"])
        places = [(part, position) for part in slices for position in grid.positions]
        spread = np.unique(np.linspace(0, len(places) - 1, _WINDOWS_OF_CASE).round().astype(int))
        for part, position in (places[index] for index in spread):
            found.append(grid.cut(part, position, windows["padding_mode"], windows["cval"]).numpy()[None].copy())
    return found


def _subject_rules(config: BundleConfig, dataset_dir: str | PathLike[str]) -> dict[str, Any]:
    """How the bundle's ``train.json``, if there is one, finds the subjects of a data set."""
    bundle = Path(config.parse("bundle_root"))
    if not (bundle / "configs" / "train.json").is_file():
        return {}
    training = BundleConfig(bundle, "train.json")
    training["dataset_dir"] = str(dataset_dir)
    return {name: training.parse(name) for name in ("subjects", "subject_pattern") if name in training}


def quantize_model(path: str | PathLike[str], windows: Sequence[npt.NDArray[np.float32]]) -> float:
    """Replace an OpenVINO model (``.xml``) for one window with one whose convolutions use 8-bit integers.

    The first and the last convolution stay in floating point: their errors could not be corrected.

    Returns:
        The part of the voxels of some of the windows that the new file, read back, labels as the old one did.

    Raises:
        ImportError: NNCF is not installed.
        RuntimeError: the new network gives NaN or infinity.
    """
    model = openvino_core().read_model(Path(path))
    try:
        with without_telemetry():
            nncf = importlib.import_module("nncf")
    except ImportError as e:
        raise ImportError(f"precision 'int8' needs NNCF. Install it: {install_command('int8')}") from e
    tried = windows[:: -(-len(windows) // _TRIED)]
    expected = _labels(path, tried)
    kept = [node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() in _CONVOLUTIONS]
    quantized = nncf.quantize(
        model,
        nncf.Dataset(list(windows)),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(windows),
        ignored_scope=nncf.IgnoredScope(names=sorted({kept[0], kept[-1]})),
    )
    write_openvino_model(quantized, path)
    return float(np.mean([found == before for found, before in zip(_labels(path, tried), expected, strict=True)]))


def _labels(path: str | PathLike[str], windows: Sequence[npt.NDArray[np.float32]]) -> list[npt.NDArray[Any]]:
    """What the network in a file finds in windows."""
    compiled = openvino_core().compile_model(Path(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    logits = [np.array(compiled(window)[0][0]) for window in windows]
    if not all(np.isfinite(each).all() for each in logits):
        raise RuntimeError(f"{path}: the network gives NaN or infinity in 8-bit integers. Export it in fp32.")
    return [each[0] > 0 if len(each) == 1 else each.argmax(axis=0) for each in logits]
