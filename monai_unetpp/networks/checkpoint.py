"""Read weights from files of several kinds, with the stored configuration."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch

__all__ = ["read_checkpoint"]

#: Keys of the network's weights in training checkpoints (MONAI's engines and the model zoo).
_WEIGHT_KEYS = ("state_dict", "network", "model", "net")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_checkpoint(path: str | PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    """Read the weights of a nested U-Net and, if stored, its configuration.

    The file's checksums are verified first, which torch does not do: a flipped bit would silently change segmentations.
    The tensors are then memory-mapped on the CPU.

    Args:
        path: a file from ``torch.save``: a state dict, a dict with ``state_dict`` (and ``config``), or a training
            checkpoint with the weights under ``network``, ``model`` or ``net``.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it holds no weights, or NaN or infinity among them, or is damaged.
        OSError: it cannot be read.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file. Give the path of a checkpoint written with torch.save.")
    if _is_torchscript(path):
        raise ValueError(
            f"{path}: not a file of weights that can be read safely: it is TorchScript, which holds code. "
            "Save the state_dict() of the original network with torch.save."
        )
    _check_sums(path)
    try:
        # files in torch's old format, before 1.6, cannot be mapped
        content = torch.load(fspath(path), map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (
        RuntimeError,
        OSError,
        EOFError,
        pickle.UnpicklingError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
    ) as e:
        raise ValueError(f"{path}: not a file of weights that can be read safely: {_problem(e)}") from e
    given = content.get("config") if isinstance(content, Mapping) else None
    config = dict(given) if isinstance(given, Mapping) and "spatial_dims" in given else None
    weights = content
    if isinstance(content, Mapping):
        weights = next((content[key] for key in _WEIGHT_KEYS if isinstance(content.get(key), Mapping)), content)
    prefixes = _prefixes(weights)
    if not prefixes:
        raise ValueError(
            f"{path}: holds no weights of a nested U-Net. For MONAI's BasicUNetPlusPlus, load them into that network "
            "and use NestedUNet.from_basic_unetplusplus."
        )
    if len(prefixes) > 1:
        raise ValueError(
            f"{path}: the weights must be those of one network, got {' and '.join(map(repr, prefixes))}. Save the "
            "state_dict() of the one to load."
        )
    prefix = prefixes[0]
    kept = (f"{prefix}nodes.", f"{prefix}heads.")
    tensors = {str(key).removeprefix(prefix): value for key, value in weights.items() if str(key).startswith(kept)}
    wrong = next((key for key, value in tensors.items() if not isinstance(value, torch.Tensor)), None)
    if wrong is not None:
        raise ValueError(
            f"{path}: the weights must be tensors, got {type(tensors[wrong]).__name__} for {wrong!r}. Save "
            "network.state_dict() with torch.save again."
        )
    infinite = [key for key, value in tensors.items() if value.dtype in _FLOATS and not bool(value.isfinite().all())]
    if infinite:
        more = f" and {len(infinite) - 1} more" if len(infinite) > 1 else ""
        raise ValueError(
            f"{path}: the weights must be finite, got NaN or infinity in {infinite[0]}{more}. Take weights of an "
            "earlier epoch, or train again with a lower learning rate."
        )
    return tensors, config if config is not None else _stored_config(weights)


def _check_sums(path: str | PathLike[str]) -> None:
    """Raise a ValueError if the file is incomplete, or the CRC-32 of one of its parts does not match."""
    if not zipfile.is_zipfile(path):
        with Path(path).open("rb") as file:
            begins_as_zip = file.read(4) == b"PK\x03\x04"
        if begins_as_zip:
            raise ValueError(f"{path}: damaged, its end is missing. Copy or download it again.")
        # torch's format before 1.6 has no checksums, and other files are reported later
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError) as e:
        raise ValueError(f"{path}: damaged ({e}). Copy or download it again, or restore it from a backup.") from e
    if damaged is not None:
        raise ValueError(
            f"{path}: damaged, the checksum of {damaged!r} does not match. Copy or download it again, or restore it "
            "from a backup."
        )


def _stored_config(weights: Any) -> dict[str, Any] | None:
    """The configuration in a state dict's metadata, where torch keeps layer versions."""
    metadata = getattr(weights, "_metadata", {})
    entries = metadata.values() if isinstance(metadata, Mapping) else ()
    configs = (entry.get("config") for entry in entries if isinstance(entry, Mapping))
    return next((dict(config) for config in configs if isinstance(config, Mapping)), None)


def _is_torchscript(path: str | PathLike[str]) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _problem(error: Exception) -> str:
    """What torch found, in words of this package, and the remedy."""
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.strerror}. Check its permissions."
    if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
        return (
            "it holds Python objects besides tensors, such as a whole network. Save network.state_dict() with "
            "torch.save instead."
        )
    return "it is damaged, or was not written by torch.save. Copy or save it again."


def _prefixes(weights: Any) -> list[str]:
    """The prefixes that wrappers (distributed training, compilation, averaging) add to names, one for each network."""
    names = map(str, weights) if isinstance(weights, Mapping) else ()
    return sorted({name.partition("nodes.x_0_0.")[0] for name in names if "nodes.x_0_0." in name})
