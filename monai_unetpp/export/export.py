"""Export a network: write, read back, compare, and only then keep the file."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch

from monai_unetpp.bundles import WEIGHTS_FILE, find_bundle, load_network, read_metadata_entry, read_network_def
from monai_unetpp.bundles.json_files import default_level, read_object
from monai_unetpp.errors import last_line
from monai_unetpp.export.formats import FORMATS, Format, Runner
from monai_unetpp.files import atomic_path, make_output_dir, write_json
from monai_unetpp.measuring.size import count_parameters
from monai_unetpp.networks import NestedUNet
from monai_unetpp.networks.folding import fold_batch_norms
from monai_unetpp.version import __version__


@dataclasses.dataclass(frozen=True)
class NetworkExport:
    """An exported file that was read back and agrees with the network.

    Attributes:
        path: the file.
        format: one of :data:`FORMATS`.
        level: the level whose logits it returns.
        input_shape: ``(B, C, *spatial)``; ``B`` is None for any number of windows.
        output_shape: likewise.
        parameters: number of parameters of the network.
        largest_difference: from the network's logits on random windows, relative to the largest logit.
        tolerance: the largest accepted difference.
        source: the checkpoint or bundle, if any.
        versions: versions of the packages that wrote it.
        metadata: ``metadata.json`` of the bundle, if any.
        inference: ``inference.json`` of the bundle: how images become windows, and logits label maps.
    """

    path: str
    format: str
    level: str
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]
    parameters: int
    largest_difference: float
    tolerance: float
    source: str | None
    versions: dict[str, str]
    metadata: dict[str, Any] | None = None
    inference: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def export_network(
    network: NestedUNet,
    path: str | PathLike[str],
    format: str,
    window_shape: Sequence[int],
    *,
    level: str | None = None,
    batch_size: int = 1,
    dynamic_batch: bool = False,
    source: str | None = None,
    bundle: str | PathLike[str] | None = None,
) -> NetworkExport:
    """Write one level of a network to a file, with a JSON file about it beside it (``path`` + ``.json``).

    The file is read back and run on random windows, and kept only if its logits are those of the network.

    Args:
        network: the network, which is exported in float32; it is not changed.
        path: the file, with the suffix of its format; capitals in the suffix become small letters.
        format: ``"torch_export"`` (.pt2), ``"torchscript"`` (.ts), ``"onnx"`` (.onnx), ``"openvino"`` (.xml, with its
            weights in .bin) or ``"tensorrt"`` (.ep; needs a GPU).
        window_shape: spatial shape of the windows; TorchScript takes any.
        level: such as ``"L2"``; by default the deepest.
        batch_size: number of windows per batch.
        dynamic_batch: allow any number of windows; TorchScript always does, TensorRT cannot.
        source: origin of the weights, for the JSON file.
        bundle: folder of the bundle whose ``metadata.json`` and ``inference.json`` are repeated in the JSON file, and
            in TorchScript and ``torch.export`` files under these names, as in files of MONAI's ``ckpt_export``.

    Raises:
        ImportError: the format needs a missing package; the message says how to install it.
        RuntimeError: the file cannot be written, or does not agree with the network and was not kept.
        TypeError: the network is not a ``NestedUNet``.
        ValueError: format, level, suffix or shape is invalid.
        OSError: ``path`` cannot be written to, or files beside it are not of an earlier export.
    """
    target = _check(network, path, format, window_shape, batch_size, dynamic_batch)
    chosen = FORMATS[format]
    level = network.levels[-1] if level is None else level
    pruned = network.prune(level).cpu().float().eval().requires_grad_(False)
    parameters = count_parameters(pruned)
    dynamic = dynamic_batch or format == "torchscript"
    # with one window, torch.export would treat their number as a constant
    count = max(batch_size, 2) if dynamic_batch else batch_size
    # a file for any number of windows is also tried with one more
    tried = [torch.rand(n, network.in_channels, *window_shape) for n in ((count, count + 1) if dynamic else (count,))]
    versions, configs = {"monai-unetpp": __version__, "torch": torch.__version__}, {}
    if bundle is not None:
        configs = {name: read_object(Path(bundle, "configs", f"{name}.json")) for name in ("metadata", "inference")}
    output, difference = _write(pruned, tried, chosen, target, dynamic_batch, configs)
    input_shape, output_shape = ((None if dynamic else batch_size, *x.shape[1:]) for x in (tried[0], output))
    result = NetworkExport(
        path=fspath(target),
        format=format,
        level=level,
        input_shape=input_shape,
        output_shape=output_shape,
        parameters=parameters,
        largest_difference=difference,
        tolerance=chosen.tolerance,
        source=source,
        versions=versions | {package: importlib.metadata.version(package) for package in chosen.packages},
        **configs,
    )
    write_json(f"{target}.json", result.as_dict(), indent=2)
    return result


def export_checkpoint(
    source: str | PathLike[str],
    path: str | PathLike[str],
    format: str,
    window_shape: Sequence[int] | None = None,
    *,
    level: str | None = None,
    batch_size: int = 1,
    dynamic_batch: bool = False,
) -> NetworkExport:
    """Export the network of a bundle or of a checkpoint; see :func:`export_network`.

    Args:
        source: name or folder of a bundle, or a checkpoint with the network's configuration.
        path: the file to write.
        format: one of :data:`FORMATS`.
        window_shape: spatial shape of the windows; by default that in the bundle's metadata.
        level: such as ``"L2"``; by default the one that the bundle runs; for a checkpoint, the deepest.
        batch_size: number of windows per batch.
        dynamic_batch: allow any number of windows; TensorRT cannot.

    Raises:
        FileNotFoundError: the bundle or file does not exist.
        ValueError: ``window_shape`` is missing for a checkpoint; others as for :func:`export_network`.
    """
    network_def, folder = None, None
    checkpoint = Path(source)
    if not checkpoint.is_file():
        folder = find_bundle(source)
        checkpoint = folder / WEIGHTS_FILE
        network_def = read_network_def(folder)
        level = default_level(folder) if level is None else level
        if window_shape is None:
            window_shape = read_metadata_entry(folder, "network_data_format", "inputs", "image", "spatial_shape")
    if window_shape is None:
        raise ValueError(f"{source}: window_shape must be given for a checkpoint, got None. Give one size per axis.")
    return export_network(
        load_network(checkpoint, level, network_def),
        path,
        format,
        window_shape,
        level=level,
        batch_size=batch_size,
        dynamic_batch=dynamic_batch,
        source=fspath(checkpoint),
        bundle=folder,
    )


def _check(
    network: NestedUNet,
    path: str | PathLike[str],
    format: str,
    window_shape: Sequence[int],
    batch_size: int,
    dynamic_batch: bool,
) -> Path:
    if not isinstance(network, NestedUNet):
        raise TypeError(f"network must be a NestedUNet, got {type(network).__name__}.")
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}.")
    suffix = FORMATS[format].suffix
    if Path(path).suffix.lower() != suffix:
        raise ValueError(f"path must end in {suffix} for format {format}, got {fspath(path)!r}.")
    _check_free(Path(path).with_suffix(suffix), FORMATS[format].companions)
    sizes = list(window_shape) if isinstance(window_shape, Sequence) else []
    whole = all(isinstance(size, int) and size > 0 for size in sizes)
    if not whole or len(sizes) != network.spatial_dims:
        raise ValueError(
            f"window_shape must be {network.spatial_dims} positive integers, got {sizes or window_shape}. Give the "
            "size of the windows that the file will get."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    if dynamic_batch and format == "tensorrt":
        raise ValueError(
            "dynamic_batch must be left out for format tensorrt, as an engine is built for a number of windows. Give "
            "that as batch_size."
        )
    return Path(path).with_suffix(suffix)


def _check_free(target: Path, companions: Sequence[str]) -> None:
    """Refuse to write over folders, or files that lie where those beside the exported one would."""
    beside = [*map(target.with_suffix, companions), Path(f"{target}.json")]
    for path in (target, *beside):
        if path.is_dir():
            raise IsADirectoryError(f"{path}: is a folder. Give the name of another file, or remove the folder.")
    other = next(filter(Path.exists, beside), None)
    if other is not None and not target.exists():
        raise FileExistsError(
            f"{other}: exists, and would be replaced beside {target.name}. Move it away, or give another name."
        )
    make_output_dir(target.parent)


def _write(
    network: NestedUNet,
    windows: Sequence[torch.Tensor],
    chosen: Format,
    target: Path,
    dynamic_batch: bool,
    configs: Mapping[str, Any],
) -> tuple[torch.Tensor, float]:
    """Write and verify the file; returns the network's logits on the first windows, and the largest difference."""
    extra = {f"{name}.json": json.dumps(content) for name, content in configs.items()}
    with torch.no_grad(), atomic_path(target) as temporary:
        expected = [network(each) for each in windows]
        fold_batch_norms(network)
        chosen.write(network, windows[0], dynamic_batch, temporary, extra)
        # the reader of the file is released before the file moves
        difference = _largest_difference(_loaded(chosen, temporary, target), windows, expected)
        if not difference <= chosen.tolerance:
            raise RuntimeError(
                f"{target}: the exported network must agree with the network to {chosen.tolerance:g} of its largest "
                f"logit, got a difference of {difference:.2g}. The file was not kept; use another format."
            )
        # an interruption leaves no description of the network that was there before
        Path(f"{target}.json").unlink(missing_ok=True)
        for suffix in chosen.companions:
            os.replace(temporary.with_suffix(suffix), target.with_suffix(suffix))
    return expected[0], difference


def _loaded(chosen: Format, path: Path, target: Path) -> Runner:
    try:
        return chosen.load(path)
    except Exception as e:  # ONNX Runtime has errors of its own
        # OpenVINO, for one, refuses ONNX in which an axis of one voxel is halved
        reason = last_line(e)
        raise RuntimeError(
            f"{target}: the exported network could not be loaded to check it ({reason}). The file was not kept; give a "
            "larger window_shape, or use another format."
        ) from e


def _largest_difference(
    run: Callable[[torch.Tensor], torch.Tensor], tried: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]
) -> float:
    # torch's max, unlike Python's, keeps NaN
    return float(torch.tensor([relative_difference(run(x), y) for x, y in zip(tried, expected, strict=True)]).max())


def relative_difference(output: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference between logits, as a share of the largest logit; infinity for other shapes."""
    if output.shape != expected.shape:
        return float("inf")
    return float((output - expected).abs().max() / expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny))
