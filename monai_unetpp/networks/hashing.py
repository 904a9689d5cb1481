"""Hash networks, to identify cached scores and converted models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

#: Packages whose code is known from their version.
_LIBRARIES = ("torch", "monai", "monai_unetpp")
_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic)


def hash_network(network: nn.Module) -> str:
    """SHA-256 of a network's weights, its ``config`` if it has one, its printed structure, and its modules' settings.

    Settings are attributes of plain values, which the printed structure may leave out, such as the slope of an
    activation. Those of modules of other packages are not part of it, as they may change with every call; neither are
    their code and hooks: see :func:`is_of_libraries` and :func:`is_altered`.
    """
    digest = hashlib.sha256(f"{getattr(network, 'config', None)}{network!r}".encode())
    for key, tensor in network.state_dict().items():
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes_of(tensor))
    for name, module in network.named_modules():
        digest.update(f"{name} {type(module).__module__}.{type(module).__qualname__}".encode())
        for key, value in sorted(vars(module).items()) if _is_of_library(module) else ():
            if not key.startswith("_") and key != "training":
                for part in _described(value):
                    digest.update(key.encode() + part)
    return digest.hexdigest()


def is_altered(network: nn.Module) -> bool:
    """Whether a module of a network computes more or other than its class: it has forward hooks, or its own forward."""
    return any(map(hooks_of, network.modules()))


def hooks_of(module: nn.Module) -> dict[str, list[Any]]:
    """The functions that a module calls before, after or instead of its class's ``forward``; empty without any."""
    found = {
        "before": [*module._forward_pre_hooks.values()],
        "after": [*module._forward_hooks.values()],
        "instead": [vars(module)["forward"]] if "forward" in vars(module) else [],
    }
    return {when: functions for when, functions in found.items() if functions}


def is_of_libraries(network: nn.Module) -> bool:
    """Whether all modules of a network are of this package, MONAI or torch, whose versions tell what they compute."""
    return all(_is_of_library(module) for module in network.modules())


def structure_of(network: Any) -> tuple[Any, ...]:
    """A key that changes where modules of a network, their settings or hooks are replaced, but not with its weights.

    Settings of modules of other packages are left out, as these may keep there what changes with every call. The key is
    for comparison in this process only; it is empty if ``network`` is not a module.
    """
    modules = network.named_modules() if isinstance(network, nn.Module) else ()
    return tuple((name, id(module), type(module), *_state_beside_values(module)) for name, module in modules)


def _state_beside_values(module: nn.Module) -> Iterator[Any]:
    tensors = {**module._parameters, **module._buffers}
    yield tuple((name, None if each is None else (each.shape, each.dtype)) for name, each in tensors.items())
    yield tuple((when, *map(id, functions)) for when, functions in hooks_of(module).items())
    if _is_of_library(module):
        yield tuple((key, each) for key, each in vars(module).items() if key != "training" and isinstance(each, _PLAIN))


def _is_of_library(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] in _LIBRARIES


def _described(value: Any, depth: int = 4) -> Iterator[bytes]:
    """A value of plain types, or a container of such, as parts of text; of all else only the type."""
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}".encode()
    elif isinstance(value, (torch.Tensor, np.ndarray)):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield _bytes_of(value) if isinstance(value, torch.Tensor) else value.tobytes()
    elif isinstance(value, Mapping) and depth:
        for key, entry in value.items():
            yield from (repr(key).encode() + part for part in _described(entry, depth - 1))
    elif isinstance(value, (list, tuple)) and depth:
        yield f"{len(value)} of".encode()
        for entry in value:
            yield from _described(entry, depth - 1)
    elif isinstance(value, (set, frozenset)):
        yield repr(sorted(map(repr, value))).encode()
    else:
        yield type(value).__qualname__.encode()


def _bytes_of(tensor: torch.Tensor) -> bytes:
    plain = tensor.detach().to("cpu", copy=False).contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().tobytes()
