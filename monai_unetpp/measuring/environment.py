"""Describe the machine and the software of a measurement."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import platform
import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import monai
import numpy as np
import torch

from monai_unetpp.devices import resolve_precision
from monai_unetpp.errors import counted
from monai_unetpp.version import __version__

__all__ = ["Environment", "command_line", "describe_environment", "measuring_device", "software_versions"]


@dataclasses.dataclass(frozen=True)
class Environment:
    """The machine and the software of a measurement."""

    device: str
    precision: str
    runtime: str
    threads: int
    versions: dict[str, str]
    date: str

    def line(self) -> str:
        """Device, threads, the most important versions, and the date."""
        titles = {"torch": "torch", "monai": "MONAI", "openvino": "OpenVINO", "cuda": "CUDA"}
        versions = [f"{title} {self.versions[key]}" for key, title in titles.items() if key in self.versions]
        return ", ".join([self.device, counted(self.threads, "thread"), *versions, self.date])


def describe_environment(
    device: torch.device | str = "cpu", precision: str = "auto", runtime: str = "torch"
) -> Environment:
    """Describe the machine and the software, for reports.

    Args:
        device: device of the networks.
        precision: ``"auto"`` is resolved for ``device``.
        runtime: runtime of the network, such as ``"torch"`` or ``"openvino"``.

    Raises:
        ValueError: device or precision is unknown.
    """
    device = measuring_device(device)
    versions = software_versions()
    if device.type == "cuda":
        versions["cuda"] = str(torch.version.cuda)
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_processor_name()}, {os.cpu_count()} logical cores"
    return Environment(
        device=name,
        precision=resolve_precision(precision, device),
        runtime=runtime,
        threads=torch.get_num_threads(),
        versions=versions,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def software_versions(*packages: str) -> dict[str, str]:
    """Versions of this package, its main dependencies, Python and the system.

    Args:
        *packages: names of other packages; missing ones are left out.
    """
    versions = {
        "monai-unetpp": __version__,
        "monai": monai.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def command_line() -> str:
    """The command line that started the process."""
    module = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = Path(sys.argv[0]).name
    program = [name] if module is None else ["python", "-m", module.name.removesuffix(".__main__")]
    return shlex.join([*program, *sys.argv[1:]])


def measuring_device(device: torch.device | str) -> torch.device:
    """Check that costs can be measured on ``device``.

    Raises:
        ValueError: it is neither a CPU nor a CUDA device.
    """
    checked = torch.device(device)
    if checked.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be a CPU or a CUDA device, got {str(checked)!r}. Measure on 'cpu' instead.")
    return checked


def _processor_name() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()
