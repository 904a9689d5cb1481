"""The settings of transforms and inferers as text, so that a change of them is noticed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["describe_settings"]


def describe_settings(value: Any) -> str:
    """Describe transforms, inferers and whatever they hold by their classes and public attributes.

    Args:
        value: any object, or a container of them.

    Returns:
        JSON text, the same in every process for the same settings.
    """
    return json.dumps(_plain(value, ()), sort_keys=True, default=str)


def _plain(value: Any, parents: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if id(value) in parents:
        return "the same object again"
    within = (*parents, id(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, within) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry, within) for entry in value]
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return np.asarray(value).tolist()
    if isinstance(value, type) or not hasattr(value, "__dict__") or hasattr(value, "__qualname__"):
        return str(getattr(value, "__qualname__", type(value).__qualname__))
    public = {key: entry for key, entry in vars(value).items() if not key.startswith("_")}
    return {type(value).__qualname__: _plain(public, within)}
