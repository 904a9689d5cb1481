"""What the ``_target_`` entries of a configuration name, found without running code of other packages."""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.util
from types import ModuleType
from typing import Any

from monai.bundle.config_item import ComponentLocator

#: Modules whose classes and functions a configuration may name without being listed: what they run is theirs. Others
#: of the same packages run commands, build or load code, or lead to any function.
_KNOWN_MODULES = (
    *(f"monai.{name}" for name in ("data", "engines", "handlers", "inferers", "losses", "metrics", "networks")),
    *("monai.optimizers", "monai.transforms", "torch.nn", "torch.optim", "torch.utils.data"),
    *(f"monai_unetpp.{name}" for name in ("data", "distributed", "engines", "errors", "inferers", "losses", "metrics")),
    *(f"monai_unetpp.{name}" for name in ("networks", "planning", "pruning", "topology", "training")),
)
#: Packages that are known themselves, but not all of their modules.
_KNOWN_PACKAGES = ("monai", "monai_unetpp", "torch")
#: Packages that are imported to look for a name, as this one does anyway.
_IMPORTED_PACKAGES = (*_KNOWN_PACKAGES, "ignite")


def is_other_code(target: str) -> bool:
    """Whether a ``_target_`` may run other code than components of MONAI, torch and this package."""
    path = _path_of(target)
    if path.split(".")[0] not in _KNOWN_PACKAGES:
        return True
    found, place = _locate(path)
    # whatever the way to it, code is where it was defined
    defined = [place, *(name for name in [getattr(found, "__module__", None)] if isinstance(name, str))]
    return found is None or not all(name in _KNOWN_PACKAGES or _is_known_module(name) for name in defined)


def is_installed(target: str) -> bool:
    """Whether a ``_target_`` names something installed. Of other packages, only the package itself is looked for."""
    path = _path_of(target)
    package, *rest = path.split(".")
    if package in _IMPORTED_PACKAGES:
        return _locate(path)[0] is not None
    if not rest:
        return hasattr(builtins, package)
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:
        return False


def _path_of(target: str) -> str:
    module = _components().get_component_module_name(target)
    if module is None:
        return target
    return f"{module if isinstance(module, str) else module[0]}.{target}"


@functools.cache
def _components() -> ComponentLocator:
    """MONAI's table of components, which takes a moment to make."""
    return ComponentLocator()


def _locate(path: str) -> tuple[Any, str]:
    """What a path in packages that may be imported names, or None, and the name of the last module on the way."""
    names = path.split(".")
    found: Any = importlib.import_module(names[0])
    place = found.__name__
    for number, name in enumerate(names[1:], start=1):
        try:
            if not hasattr(found, name) and place == ".".join(names[:number]):
                importlib.import_module(".".join(names[: number + 1]))
            found = getattr(found, name, None)
        except Exception:  # modules fail in many ways to be imported, and to be asked for what they lack
            found = None
        if found is None:
            return None, place
        if isinstance(found, ModuleType):
            place = found.__name__
    return found, place


def _is_known_module(name: str) -> bool:
    return any(f"{name}.".startswith(f"{known}.") for known in _KNOWN_MODULES)
