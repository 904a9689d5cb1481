"""OpenVINO, imported without telemetry, and its one core. Does not import torch."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from monai_unetpp.installing import install_command

OPENVINO_INSTALL = install_command("openvino")
_TELEMETRY = "openvino_telemetry"
#: Threads may need it at the same time.
_LOADING = threading.RLock()


def has_openvino() -> bool:
    """Whether OpenVINO is installed, without importing it."""
    return "openvino" in sys.modules or importlib.util.find_spec("openvino") is not None


def import_openvino() -> Any:
    """The module ``openvino``, imported without telemetry.

    Its first import and its converter send events through the package ``openvino_telemetry``. Without that package
    OpenVINO uses a stub that sends nothing, so the package is hidden during the import.

    An ImportError says how to install it.
    """
    with _LOADING, contextlib.nullcontext() if "openvino" in sys.modules else without_telemetry():
        try:
            # waits for a thread that is importing it by itself
            return importlib.import_module("openvino")
        except ImportError as e:
            if has_openvino() and getattr(e, "name", None) != "openvino":
                raise ImportError(
                    f"OpenVINO is installed but cannot be loaded ({e}). Install it again, or use runtime 'torch'."
                ) from e
            raise ImportError(f"runtime 'openvino' needs OpenVINO. Install it: {OPENVINO_INSTALL}") from e


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Hide the package ``openvino_telemetry`` from imports within the block, which then send nothing."""
    with _LOADING:
        hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == _TELEMETRY}
        for name in hidden:
            del sys.modules[name]
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            del sys.modules[_TELEMETRY]
            sys.modules.update(hidden)


def openvino_core() -> Any:
    """The one ``openvino.Core`` of this process, kept until the process ends.

    Each core's CPU plugin sets the thread's alternate signal stack, and restores the previous one when it is destroyed.
    With several cores that may be the freed stack of another core; the next signal, such as SIGCHLD, would then kill
    this process.
    """
    with _LOADING:
        return _one_core()


@functools.cache
def _one_core() -> Any:
    core = import_openvino().Core()
    # models then own their weights and do not depend on files
    core.set_property({"ENABLE_MMAP": False})
    return core
