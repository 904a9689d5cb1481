"""The settings of transforms and inferers as text, to detect changes."""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from monai.bundle import ReferenceResolver
from torch import nn

from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.networks.hashing import hash_network, hooks_of

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
#: What MONAI's transforms and readers keep of their use, which is no setting.
_TRACES = ("_tracing", "filenames")
#: What holds settings beside code: not modules, classes, loggers and the like.
_DATA = (bool, int, float, str, list, tuple, Mapping, set, frozenset, np.generic, np.ndarray, torch.Tensor, type(None))


# Not the text of the configuration, since a plan built by MONAI's bundle run or from Python has none.
def describe_settings(value: Any) -> str:
    """Describe transforms, inferers and their contents by classes and attributes.

    Functions are described by their code and the values that it refers to, so a changed expression is a changed
    setting, and so is a changed value that an expression of a configuration refers to. Random states are left out, as
    scoring is deterministic. The JSON text is the same in every process for the same settings.
    """
    return json.dumps(_plain(value, ()), sort_keys=True)


def describe_network(network: nn.Module) -> str:
    """Describe what a network computes by the hash of :func:`.hash_network`, and by its hooks as functions."""
    return json.dumps([hash_network(network), _plain(_hooks(network), ())], sort_keys=True)


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
        return {
            type(value).__qualname__: [
                hash_network(value),
                *(_plain(part, within) for part in (_module_settings(value), _hooks(value))),
            ]
        }
    if isinstance(value, NestedSlidingWindowInferer):
        return {type(value).__qualname__: _plain({key: getattr(value, key) for key in _INFERER_KEYS}, within)}
    if isinstance(value, functools.partial):
        return {"partial": _plain([value.func, value.args, value.keywords], within)}
    if inspect.ismethod(value):
        return {value.__func__.__qualname__: _plain(value.__self__, within)}
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = [value.__code__, value.__defaults__, value.__kwdefaults__, cells, _referred(value)]
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
        settings = {key: entry for key, entry in vars(value).items() if key not in _TRACES}
        return {type(value).__qualname__: _plain(settings, within)}
    # such as torch.float16 or a compiled regular expression; the memory address is dropped
    return _ADDRESS.sub("", repr(value))


def _module_settings(module: nn.Module) -> dict[str, Any]:
    """The plain attributes of a module and of those in it, which their printed form may leave out."""
    return {
        f"{name}.{key}": entry
        for name, part in module.named_modules()
        for key, entry in vars(part).items()
        if not key.startswith("_") and key != "training" and isinstance(entry, _DATA)
    }


def _hooks(module: nn.Module) -> dict[str, Any]:
    """The hooks of a module and of those in it, by the names of the modules that have some."""
    return {name: hooks for name, part in module.named_modules() if (hooks := hooks_of(part))}


def _referred(function: types.FunctionType) -> dict[str, Any]:
    """The global values that a function refers to, and the functions of its own module among them.

    An expression of a MONAI configuration finds what it refers to as ``@name`` in one global dictionary of all names.
    """
    codes = list(_all_code(function.__code__))
    names = {name for code in codes for name in code.co_names}
    constants = {constant for code in codes for constant in code.co_consts if isinstance(constant, str)}
    referred = {name: function.__globals__[name] for name in names if name in function.__globals__}
    resolved = referred.pop(ReferenceResolver._vars, {})
    own = {
        name: entry
        for name, entry in referred.items()
        if isinstance(entry, (*_DATA, nn.Module))
        or (isinstance(entry, types.FunctionType) and entry.__module__ == function.__module__)
    }
    return {**own, **{f"@{name}": entry for name, entry in resolved.items() if name in constants}}


def _all_code(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code and the code within it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _all_code(inner)
