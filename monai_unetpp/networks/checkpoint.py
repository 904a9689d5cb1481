"""Reading weights from files of several kinds, with the configuration that they carry."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch

__all__ = ["read_checkpoint"]

#: Names under which training checkpoints keep the network's weights (MONAI's engines and the model zoo).
_WEIGHT_KEYS = ("state_dict", "network", "model", "net")


def read_checkpoint(path: str | PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    """Read the weights of a nested U-Net and, where the file carries it, its configuration.

    The tensors are mapped to the file, on the CPU: only what is copied from them is really read.

    Args:
        path: a file made by ``torch.save``: a state dict, a dict with ``state_dict`` (and ``config``), or a
            training checkpoint that holds the weights under ``network``, ``model`` or ``net``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of weights.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file. Give the path of a checkpoint written with torch.save.")
    if _is_torchscript(path):
        raise ValueError(
            f"{path}: not a file of weights that can be read safely: it is TorchScript, which holds code. "
            "Save the state_dict() of the network that it was made from with torch.save."
        )
    try:
        # files of torch's old format, from before 1.6, cannot be mapped
        content = torch.load(fspath(path), map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as e:
        raise ValueError(f"{path}: not a file of weights that can be read safely: {_problem(e)}") from e
    config: dict[str, Any] | None = None
    weights = content
    if isinstance(content, Mapping):
        given = content.get("config")
        if isinstance(given, Mapping) and "spatial_dims" in given:
            config = dict(given)
        weights = next((content[key] for key in _WEIGHT_KEYS if isinstance(content.get(key), Mapping)), content)
    prefix = _prefix(weights)
    if prefix is None:
        raise ValueError(
            f"{path}: holds no weights of a nested U-Net. For MONAI's BasicUNetPlusPlus, load them into that network "
            "and use NestedUNet.from_basic_unetplusplus."
        )
    metadata = getattr(weights, "_metadata", {})
    stored = next((dict(entry["config"]) for entry in metadata.values() if "config" in entry), None)
    kept = (f"{prefix}nodes.", f"{prefix}heads.")
    tensors = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(kept)}
    return tensors, config if config is not None else stored


def _is_torchscript(path: str | PathLike[str]) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _problem(error: Exception) -> str:
    """What torch has met, which tells of its own arguments instead, and what to do."""
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.strerror}. Check its permissions."
    if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
        return (
            "it holds Python objects besides tensors, such as a whole network. Save network.state_dict() with "
            "torch.save instead."
        )
    return "it is damaged, or was not written by torch.save. Copy or save it again."


def _prefix(weights: Any) -> str | None:
    """What wrappers (distributed training, compilation, averaging) put before the names; None without a network."""
    if not isinstance(weights, Mapping):
        return None
    first = next((key for key in weights if "nodes.x_0_0." in str(key)), None)
    return None if first is None else str(first).partition("nodes.x_0_0.")[0]
