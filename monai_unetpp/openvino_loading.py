"""OpenVINO, imported so that it reports nothing, and its one core. Importing this module takes no torch."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from monai_unetpp.installing import install_command

__all__ = ["OPENVINO_INSTALL", "has_openvino", "import_openvino", "openvino_core", "without_telemetry"]

OPENVINO_INSTALL = install_command("openvino")
_TELEMETRY = "openvino_telemetry"


def has_openvino() -> bool:
    """Whether OpenVINO is installed; it is not imported for that."""
    return "openvino" in sys.modules or importlib.util.find_spec("openvino") is not None


def import_openvino() -> Any:
    """The module ``openvino``, imported so that it reports nothing.

    Its first import and its converter send events through the package ``openvino_telemetry``. Where that package is
    missing, OpenVINO takes a stand-in that sends nothing: so it is hidden while OpenVINO is imported.

    Raises:
        ImportError: OpenVINO is not installed, or cannot be loaded.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    with without_telemetry():
        try:
            return importlib.import_module("openvino")
        except ImportError as e:
            if has_openvino() and getattr(e, "name", None) != "openvino":
                raise ImportError(
                    f"OpenVINO is installed but cannot be loaded ({e}). Install it again, or take runtime 'torch'."
                ) from e
            raise ImportError(f"runtime 'openvino' needs OpenVINO. Install it: {OPENVINO_INSTALL}") from e


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Hide the package ``openvino_telemetry`` from what is imported meanwhile, which then sends nothing."""
    hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == _TELEMETRY}
    for name in hidden:
        del sys.modules[name]
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
        sys.modules.update(hidden)


@functools.cache
def openvino_core() -> Any:
    """The one ``openvino.Core`` of this process, which lives as long as the process does.

    Each core's CPU plugin sets the thread's alternate signal stack, and when it goes puts the one back that was there
    before. Of several cores that may be the stack of another one that is gone already; the next signal, such as that of
    a child process that ends, would then end this process.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    core = import_openvino().Core()
    # models own their weights then, and do not depend on files
    core.set_property({"ENABLE_MMAP": False})
    return core
