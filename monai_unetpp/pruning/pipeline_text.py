"""The settings of transforms and inferers as text, to detect changes."""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.networks.hashing import hash_network

__all__ = ["describe_settings"]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
#: What the results of a NestedSlidingWindowInferer depend on; its other attributes only affect speed.
_INFERER_KEYS = (
    "roi_size",
    "overlap",
    "mode",
    "sigma_scale",
    "padding_mode",
    "cval",
    "levels",
    "output",
    "flips",
    "skip_constant",
    "runtime",
    "precision",
)


# Not the text of the configuration, since a plan built by MONAI's bundle run or from Python has none.
def describe_settings(value: Any) -> str:
    """Describe transforms, inferers and their contents by classes and attributes.

    Functions are described by their code, so a changed expression is a changed setting. Random states are left out, as
    scoring is deterministic.

    Args:
        value: any object, or a container of them.

    Returns:
        JSON text, the same in every process for the same settings.
    """
    return json.dumps(_plain(value, ()), sort_keys=True)


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
    if isinstance(value, (set, frozenset)):
        return sorted(json.dumps(_plain(entry, within), sort_keys=True) for entry in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return np.asarray(value).tolist()
    if isinstance(value, nn.Module):
        return {type(value).__qualname__: hash_network(value)}
    if isinstance(value, NestedSlidingWindowInferer):
        return {type(value).__qualname__: _plain({key: getattr(value, key) for key in _INFERER_KEYS}, within)}
    if isinstance(value, functools.partial):
        return {"partial": _plain([value.func, value.args, value.keywords], within)}
    if inspect.ismethod(value):
        return {value.__func__.__qualname__: _plain(value.__self__, within)}
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = [value.__code__, value.__defaults__, value.__kwdefaults__, cells]
        return {value.__qualname__: _plain(parts, within)}
    if isinstance(value, types.CodeType):
        return [value.co_code.hex(), list(value.co_names), _plain(value.co_consts, within)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, type) or hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    if isinstance(value, (np.random.RandomState, np.random.Generator)):
        return type(value).__qualname__
    if hasattr(value, "__dict__"):
        return {type(value).__qualname__: _plain(vars(value), within)}
    # such as torch.float16 or a compiled regular expression; the memory address is dropped
    return _ADDRESS.sub("", repr(value))
