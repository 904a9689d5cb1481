"""What the hosts' packages need beyond themselves, and what no bundle has to do with, is replaced where it is missing."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from importlib import metadata
from typing import Any

#: By host: the runtime of the MONAI Deploy App SDK, which needs libraries of CUDA, and its client for servers; what
#: MONAI Label draws pictures with, which must fit the build of torch.
_REPLACED = {"monai-deploy-app-sdk": ("holoscan", "tritonclient"), "monailabel": ("torchvision",)}


class _Anything:
    """Base class of whatever is imported from a module that is replaced."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass


class _Replaced(types.ModuleType):
    __all__: tuple[str, ...] = ()
    __path__: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (_Anything,), {})
        setattr(self, name, made)
        return made


class _Replacing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> Any:
        missing = fullname.partition(".")[0] in self.packages
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if missing else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Replaced(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


for _host in {found.name for found in metadata.distributions()}.intersection(_REPLACED):
    # asked last, and before the first import of MONAI, which loads the SDK
    sys.meta_path.append(_Replacing(_REPLACED[_host]))
