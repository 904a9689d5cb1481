"""Export a bundle to a folder for ``monai_unetpp.runner``, which needs neither torch nor MONAI."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from monai_unetpp.bundles import BundleConfig, find_bundle, read_metadata_entry
from monai_unetpp.choices import RUNNER_NETWORKS, RUNNER_PRECISIONS
from monai_unetpp.errors import last_line
from monai_unetpp.export.export import NetworkExport, export_network, relative_difference
from monai_unetpp.export.formats import FORMATS
from monai_unetpp.export.pipeline_steps import NoTranslationError, translate_postprocessing, translate_preprocessing
from monai_unetpp.export.quantization import calibration_windows, quantize_model
from monai_unetpp.files import hash_file, put_in_place, temporary_folder
from monai_unetpp.inferers import NestedSlidingWindowInferer, SlicewiseInferer
from monai_unetpp.inferers.window_choice import downsampling_of, warn_of_window_norms
from monai_unetpp.inferers.window_memory import first_channels
from monai_unetpp.networks import NestedUNet
from monai_unetpp.networks.hashing import hash_network
from monai_unetpp.plain_values import to_plain
from monai_unetpp.runner.network import load_network
from monai_unetpp.runner.pipeline import PIPELINE_FILE, Pipeline
from monai_unetpp.runner.segmenter import INVERT_PROBABILITIES, MAP_LABELS
from monai_unetpp.window_layout import AUTO

#: Length of a window in multiples of the downsampling, where nothing tells of one.
_EXAMPLE_MULTIPLES = 4


@dataclasses.dataclass(frozen=True)
class RunnerExport:
    """An exported folder.

    Attributes:
        path: the folder.
        pipeline: the content of its ``pipeline.json``.
        network: how the network was written and verified.
        size_bytes: size of all its files.
        same_labels: for int8, the fraction of voxels of some calibration windows that keep their fp32 label.
    """

    path: str
    pipeline: Pipeline
    network: NetworkExport
    size_bytes: int
    same_labels: float | None = None


def export_runner(
    bundle: str | PathLike[str],
    folder: str | PathLike[str],
    *,
    level: str | None = None,
    precision: str = "fp32",
    network_format: str = "openvino",
    window_shape: Sequence[int] | str | None = None,
    calibration: str | PathLike[str] | None = None,
    smooth: bool | None = None,
) -> RunnerExport:
    """Write a folder with a bundle's network and its whole pipeline, for ``python -m monai_unetpp.runner``.

    In fp32 the runner gives the same labels as ``monai-unetpp segment``.

    Args:
        bundle: name or folder of a bundle.
        folder: the folder to write; it must not exist, be empty, or come from this function.
        level: such as ``"L2"``; by default that of the bundle.
        precision: ``"fp32"`` or ``"bf16"``, for computation with OpenVINO, or ``"int8"``: convolutions in 8-bit
            integers, which changes labels; evaluate it before use.
        network_format: ``"openvino"`` or ``"onnx"``.
        window_shape: spatial size of the windows; ``"auto"`` to choose them for each image as ``segment`` does, with
            OpenVINO only; by default the bundle's.
        calibration: for int8, a folder with a data set whose training cases are used for calibration.
        smooth: whether probabilities are resampled to the image's grid instead of labels; by default as in the bundle.
            The page in ``examples/web`` does not support it.

    Raises:
        FileNotFoundError: the bundle does not exist.
        FileExistsError: ``folder`` holds something else, or cannot be replaced.
        ImportError: a package for the format is not installed.
        NoTranslationError: the runner does not support a part of the bundle.
        ValueError: another argument is invalid.
    """
    _check_precision(precision, network_format, calibration)
    target = _free_target(folder)
    source = find_bundle(bundle)
    config = BundleConfig(source, "inference.json")
    asked = {"level": level, "smooth": smooth}
    config.change({name: value for name, value in asked.items() if value is not None})
    network = config.parse("evaluator#network")
    if not isinstance(network, NestedUNet):
        raise ValueError(f"{config}: network must be a monai_unetpp.NestedUNet, got {type(network).__name__}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(target.parent) as temporary:
        written = temporary / "folder"
        written.mkdir()
        described = _describe(config, source, network, window_shape)
        shape = _example_shape(described["windows"], source)
        if described["windows"]["shape"] == AUTO and network_format != "openvino":
            raise ValueError(
                f"network_format must be openvino for windows chosen per image, got {network_format!r}. Give "
                "--window_shape with one size per axis."
            )
        file = written / f"network{FORMATS[network_format].suffix}"
        export = export_network(network, file, network_format, shape, source=str(source))
        Path(f"{file}.json").unlink()
        if described["windows"]["shape"] == AUTO:
            _check_other_shapes(file, network, shape, described["windows"]["multiples"])
        same, calibrated, versions = None, {}, export.versions
        if calibration is not None:
            windows = calibration_windows(config, calibration, shape, described["windows"], described["slice_axis"])
            same = quantize_model(file, windows)
            data = Path(calibration).resolve().name
            calibrated = {"calibration": {"data": data, "windows": len(windows), "same_labels": same}}
            versions = versions | {"nncf": importlib.metadata.version("nncf")}
        files = [file, *(file.with_suffix(suffix) for suffix in FORMATS[network_format].companions)]
        described["network"] = {"files": [each.name for each in files], "format": network_format}
        described["network"] |= {"precision": precision, "sha256": hash_file(*files)} | calibrated
        pipeline = Pipeline(**described, versions=versions)
        (written / PIPELINE_FILE).write_text(pipeline.as_text(), encoding="utf-8")
        put_in_place(written, target, temporary)
    size = sum(path.stat().st_size for path in target.iterdir())
    return RunnerExport(str(target), pipeline, dataclasses.replace(export, path=str(target / file.name)), size, same)


def _check_precision(precision: str, network_format: str, calibration: str | PathLike[str] | None) -> None:
    for name, value, known in (
        ("precision", precision, RUNNER_PRECISIONS),
        ("network_format", network_format, RUNNER_NETWORKS),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
    if (precision == "int8") != (calibration is not None):
        raise ValueError(
            f"calibration must be given for precision int8 only, got {calibration!r} for {precision}. "
            "Name the folder of a data set with training cases."
        )
    if precision != "fp32" and network_format != "openvino":
        raise ValueError(
            f"network_format must be openvino for precision {precision}, got {network_format!r}. ONNX Runtime computes "
            "in fp32."
        )


def _describe(
    config: BundleConfig, source: Path, network: NestedUNet, window_shape: Sequence[int] | str | None
) -> dict[str, Any]:
    """The content of ``pipeline.json`` without the network's files."""
    inferer: Any = config.parse("inferer")
    slice_axis = None
    if isinstance(inferer, SlicewiseInferer):
        slice_axis, inferer = inferer.slice_axis, inferer.inferer
    if getattr(inferer, "adaptive_tolerance", None) is not None:
        raise NoTranslationError(f"{config}: adaptive_tolerance is not supported by the runner. Give --level.")
    if not isinstance(inferer, NestedSlidingWindowInferer) or inferer.levels is not None:
        raise NoTranslationError(f"{config}: the inferer must be NestedSlidingWindowInferer without levels.")
    try:
        reading, preprocessing = translate_preprocessing(config.parse("preprocessing"))
        gives_labels = inferer.output == "labels"
        postprocessing = translate_postprocessing(config.parse("postprocessing"), gives_labels, preprocessing)
    except NoTranslationError as e:
        raise NoTranslationError(f"{config}: {e} Segment with monai-unetpp segment instead.") from e
    if {"step": INVERT_PROBABILITIES} in postprocessing and network.config["out_channels"] < 2:
        raise NoTranslationError(
            f"{config}: the network must have a channel for each class to be smoothed, got one channel. Set smooth to "
            "false."
        )
    pictures = "dataset#data#pictures"
    reading["pictures"] = bool(pictures in config and config.parse(pictures))
    labels = dict(read_metadata_entry(source, "network_data_format", "outputs", "pred", "channel_def"))
    for values in (step["values"] for step in postprocessing if step["step"] == MAP_LABELS):
        if len(values) != network.config["out_channels"]:
            raise NoTranslationError(
                f"{config}: label_values must name each class but the background, got {values[1:]}."
            )
        labels = {str(values[int(number)]): name for number, name in labels.items()}
    return {
        "name": source.name,
        "level": network.levels[-1],
        "spatial_dims": network.spatial_dims,
        "labels": labels,
        "reading": reading,
        "preprocessing": preprocessing,
        "windows": _describe_windows(inferer, network, window_shape),
        "slice_axis": slice_axis,
        "postprocessing": postprocessing,
        "fingerprint": hash_network(network),
    }


def _describe_windows(
    inferer: NestedSlidingWindowInferer, network: NestedUNet, window_shape: Sequence[int] | str | None
) -> dict[str, Any]:
    axes = network.spatial_dims
    given = inferer.roi_size if window_shape is None else window_shape
    described: dict[str, Any] = {"shape": AUTO}
    if given == AUTO:
        warn_of_window_norms(network)
        described |= {"multiples": list(downsampling_of(network, axes)), "channels": first_channels(network)}
    else:
        shape = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given] * axes
        if not all(isinstance(size, int) and size > 0 for size in shape):
            raise NoTranslationError(
                f"window_shape must be {axes} positive integers for the runner, or auto, got {given!r}."
            )
        described["shape"] = shape
    return described | {
        "overlap": to_plain(inferer.overlap),
        "blending": inferer.mode,
        "sigma_scale": to_plain(inferer.sigma_scale),
        "padding_mode": inferer.padding_mode,
        "cval": inferer.cval,
        "flips": list(inferer.flips),
        "skip_constant": inferer.skip_constant,
    }


def _example_shape(windows: Mapping[str, Any], source: Path) -> list[int]:
    """The window shape for which the network is written and verified; with auto, the runner reshapes it."""
    if windows["shape"] != AUTO:
        return list(windows["shape"])
    sizes = read_metadata_entry(source, "network_data_format", "inputs", "image", "spatial_shape")
    # a size may be a rule, such as "8*n"
    return [
        multiple * (-(-size // multiple) if isinstance(size, int) else _EXAMPLE_MULTIPLES)
        for size, multiple in zip(sizes, windows["multiples"], strict=True)
    ]


def _check_other_shapes(file: Path, network: NestedUNet, shape: Sequence[int], multiples: Sequence[int]) -> None:
    """Check that the written network takes windows of other sizes, as some layers write that of theirs into the file.

    Raises:
        NoTranslationError: it does not.
    """
    small = [multiple * (3 if size == 2 * multiple else 2) for size, multiple in zip(shape, multiples, strict=True)]
    described = {"files": [file.name], "format": "openvino", "precision": "fp32"}
    window = torch.rand(network.in_channels, *small)
    pruned = network.prune(network.levels[-1]).cpu().float().eval()
    with torch.no_grad():
        expected = pruned(window[None])[0]
    try:
        found = load_network(file.parent, described, most_voxels=math.prod(small))(window.numpy())
    except RuntimeError as e:
        raise NoTranslationError(
            "the network, once written, takes windows of one size only, so that the runner cannot choose them "
            f"({last_line(e)}). Give --window_shape with one size per axis."
        ) from e
    if not relative_difference(torch.from_numpy(found), expected) <= FORMATS["openvino"].tolerance:
        raise NoTranslationError(
            "the network, once written, gives other logits for windows of another size. Give --window_shape with one "
            "size per axis."
        )


def _free_target(folder: str | PathLike[str]) -> Path:
    target = Path(folder).resolve()
    if target == Path.cwd() or target.is_mount():
        raise FileExistsError(
            f"{folder}: is the current folder or a mount point, which cannot be replaced. Name a folder in it."
        )
    if target.exists() and not _is_replaceable(target):
        raise FileExistsError(
            f"{folder}: exists and is not an exported folder, or holds other files too. Move it away, or name another."
        )
    return target


def _is_replaceable(folder: Path) -> bool:
    """Whether a folder is empty, or an exported one without other files."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    if not names:
        return True
    try:
        content = json.loads((folder / PIPELINE_FILE).read_text(encoding="utf-8"))
        return names <= {PIPELINE_FILE, *content["network"]["files"]}
    except (OSError, KeyError, TypeError, ValueError):
        return False
