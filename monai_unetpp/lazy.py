"""Names of a package that are loaded on first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A ``__getattr__`` and a ``__dir__`` for a package whose names are slow to import.

    ``homes`` are the names that each module defines; modules of the package begin with a dot. None of them may share
    one of the names, as importing a module sets its name in the package.
    """

    def find(name: str) -> Any:
        home = next((module for module, names in homes.items() if name in names), None)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(home, package), name)

    def list_names() -> list[str]:
        known = vars(sys.modules[package])
        return sorted({*known, *known.get("__all__", ())})

    return find, list_names
