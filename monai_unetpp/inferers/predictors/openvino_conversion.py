"""Convert networks to OpenVINO models without telemetry, and cache them on disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_unetpp.files import atomic_path, hash_file, write_text
from monai_unetpp.inferers.predictors.network_copy import is_plain_nested_unet
from monai_unetpp.inferers.predictors.openvino_operations import openvino_graph
from monai_unetpp.inferers.predictors.tracing import TRACING, trace_network, trace_stage
from monai_unetpp.networks import NestedUNet
from monai_unetpp.networks.config import NestedUNetConfig
from monai_unetpp.networks.hashing import hash_network, is_of_libraries
from monai_unetpp.openvino_loading import import_openvino, openvino_core

logger = logging.getLogger(__name__)

#: Version of the conversion, to invalidate cached models.
_CONVERSION = 3
#: Size limit of the cache: some dozens of the bundles' networks.
_MOST_BYTES = 2**31


def convert_to_openvino(
    network: nn.Module, levels: Sequence[str] | None, windows: torch.Tensor, *, dynamic_batch: bool = False
) -> Any:
    """Convert a network in eval mode to an ``openvino.Model``, with one float32 output for each of ``levels`` in order.

    Without levels, the outputs are what the network returns. The model is for the shape of ``windows``
    ``(B, C, *spatial)``; with ``dynamic_batch``, for any number of them, and ``B`` must be 2 or more.
    """
    program = trace_network(network, levels, windows, dynamic_batch=dynamic_batch)
    return _converted(program, [windows.shape], dynamic_batch=dynamic_batch)


def _converted(
    program: torch.export.ExportedProgram, shapes: Sequence[Sequence[int]], *, dynamic_batch: bool = False
) -> Any:
    """Convert a graph with inputs of these shapes."""
    import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchFXPythonDecoder(openvino_graph(program), dynamic_shapes=dynamic_batch)
    # the decoder must live until the model is converted
    model = frontend.convert(frontend.load(decoder))
    if not dynamic_batch:
        model.reshape({number: list(shape) for number, shape in enumerate(shapes)})
    return model


def default_cache_dir() -> Path | None:
    """The folder in ``XDG_CACHE_HOME`` or ``~/.cache``; None if neither is absolute, as a shared one is not safe."""
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(caches):
        # an empty HOME would mean the root folder
        home = os.path.expanduser("~") if os.environ.get("HOME", "/") else ""
        caches = os.path.join(home, ".cache")
    return Path(caches) / "monai-unetpp" / "openvino" if os.path.isabs(caches) else None


def load_or_convert(
    network: nn.Module,
    levels: Sequence[str] | None,
    windows: torch.Tensor,
    cache_dir: str | PathLike[str] | None = None,
) -> Any:
    """Load the model of :func:`convert_to_openvino` from the cache, or convert it.

    The cache is by default in :func:`default_cache_dir`. Nested U-Nets are cached by a hash of their weights,
    configuration, levels, and the versions of OpenVINO and torch. Precision and threads are chosen when a model is
    compiled, and one file serves windows of all sizes that the downsampling divides; any other has a file of its own.
    Damaged entries are converted again. Above 2 GiB the least recently used are removed. Other networks are converted
    every time, and so are all if there is no writable folder.
    """
    shape = list(windows.shape)
    described = {
        "levels": None if levels is None else list(levels),
        "shape": None if _is_even(network, shape) else shape,
    }
    # one after another: what the first thread converts, the next one finds
    with TRACING:
        model = _load_or_make(network, described, lambda: convert_to_openvino(network, levels, windows), cache_dir)
    if list(model.inputs[0].shape) != shape:
        model.reshape(shape)
    return model


def _is_even(network: nn.Module, shape: Sequence[int]) -> bool:
    """Whether the graph for windows ``(B, C, *spatial)`` crops, pads or shuffles nothing, and so takes other sizes."""
    if not is_plain_nested_unet(network):
        return False
    config = NestedUNetConfig.check(**network.config)
    return config.upsample != "pixelshuffle" and not any(
        size % factor for size, factor in zip(shape[2:], config.downsampling, strict=True)
    )


def load_or_convert_stage(
    network: NestedUNet, first: int, number: int, windows: torch.Tensor, cache_dir: str | PathLike[str] | None = None
) -> Any:
    """Load or convert stage ``number`` like :func:`load_or_convert`, with a port for each input and kept node.

    ``first`` is the number of levels of the first stage, see :meth:`monai_unetpp.NestedUNet.split`, whose ``windows``
    count.
    """

    def convert() -> Any:
        program, shapes = trace_stage(network.split(first), number, windows)
        return _converted(program, shapes)

    with TRACING:
        return _load_or_make(network, {"stage": [first, number], "shape": list(windows.shape)}, convert, cache_dir)


def _load_or_make(
    network: nn.Module, described: dict[str, Any], convert: Callable[[], Any], cache_dir: str | PathLike[str] | None
) -> Any:
    openvino = import_openvino()
    folder = default_cache_dir() if cache_dir is None else Path(cache_dir)
    if folder is None or not is_plain_nested_unet(network) or not is_of_libraries(network):
        return _through_a_file(convert())
    path = folder / f"{_key(network, described, openvino.__version__)}.xml"
    weights, checksum = path.with_suffix(".bin"), path.with_suffix(".sha256")
    try:
        if checksum.read_text(encoding="utf-8").strip() == hash_file(path, weights):
            with contextlib.suppress(OSError):
                os.utime(checksum)
            return openvino_core().read_model(path)
        logger.warning("%s: this converted network is damaged and is converted again.", path)
    except FileNotFoundError:
        logger.info("Converting the network for OpenVINO; the result is cached in %s.", folder)
    except (OSError, RuntimeError, UnicodeDecodeError) as e:
        logger.warning("%s: this converted network cannot be read and is converted again (%s).", path, e)
    model = convert()
    try:
        # a model without its checksum counts as missing
        checksum.unlink(missing_ok=True)
        write_openvino_model(model, path)
        write_text(checksum, hash_file(path, weights) + "\n")
        _remove_unused(folder, checksum)
        return openvino_core().read_model(path)
    except (OSError, RuntimeError) as e:
        logger.warning(
            "%s: the converted network cannot be cached there (%s). Set XDG_CACHE_HOME to a writable folder.", folder, e
        )
    return model


def _through_a_file(model: Any) -> Any:
    """Write a model to a temporary file and read it back, if possible."""
    try:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "network.xml"
            write_openvino_model(model, path)
            return openvino_core().read_model(path)
    except (OSError, RuntimeError) as e:
        logger.info("The converted network cannot be written to a temporary file (%s); it is used directly.", e)
        return model


def write_openvino_model(model: Any, path: str | PathLike[str]) -> None:
    """Write an ``openvino.Model`` to ``path``, which must end in ``.xml``, and its float32 weights to ``.bin``."""
    target = Path(path)
    if target.suffix != ".xml":
        raise ValueError(f"path must end in .xml for an OpenVINO model, got {str(path)!r}.")
    with atomic_path(target) as temporary:
        import_openvino().save_model(model, temporary, compress_to_fp16=False)
        os.replace(temporary.with_suffix(".bin"), target.with_suffix(".bin"))


def _key(network: NestedUNet, described: dict[str, Any], version: str) -> str:
    described = {
        **described,
        "conversion": _CONVERSION,
        "network": hash_network(network),
        "openvino": version,
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]


def _remove_unused(folder: Path, newest: Path) -> None:
    """Shrink the cache to ``_MOST_BYTES`` without removing the newest; other processes may do the same."""
    left = _MOST_BYTES
    with contextlib.suppress(OSError):
        for checksum in sorted(folder.glob("*.sha256"), key=lambda path: path.stat().st_mtime, reverse=True):
            # remove the checksum first: a model without it counts as missing
            files = [checksum, checksum.with_suffix(".xml"), checksum.with_suffix(".bin")]
            left -= sum(file.stat().st_size for file in files if file.exists())
            if left < 0 and checksum != newest:
                for file in files:
                    file.unlink(missing_ok=True)
