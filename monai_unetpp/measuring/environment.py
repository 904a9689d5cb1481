"""The machine and the software that something was measured with."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import platform
import re
from pathlib import Path

import monai
import numpy as np
import torch

from monai_unetpp.devices import resolve_precision
from monai_unetpp.version import __version__

__all__ = ["Environment", "describe_environment", "measuring_device"]


@dataclasses.dataclass(frozen=True)
class Environment:
    """Where something was measured."""

    device: str
    precision: str
    runtime: str
    threads: int
    versions: dict[str, str]
    date: str

    def line(self) -> str:
        """Device, threads, the versions that matter most, and the date."""
        titles = {"torch": "torch", "monai": "MONAI", "openvino": "OpenVINO", "cuda": "CUDA"}
        versions = [f"{title} {self.versions[key]}" for key, title in titles.items() if key in self.versions]
        return ", ".join([self.device, f"{self.threads} thread(s)", *versions, self.date])


def describe_environment(
    device: torch.device | str = "cpu", precision: str = "auto", runtime: str = "torch"
) -> Environment:
    """Name the machine and the software, for a report that others can judge.

    Args:
        device: where the networks run.
        precision: as given; ``"auto"`` is written as what it means on ``device``.
        runtime: what executes the network, such as ``"torch"`` or ``"openvino"``.

    Raises:
        ValueError: a device or precision that is not known.
    """
    device = measuring_device(device)
    versions = {
        "monai-unetpp": __version__,
        "monai": monai.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
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


def measuring_device(device: torch.device | str) -> torch.device:
    """``device`` if costs can be measured there.

    Raises:
        ValueError: neither a CPU nor a CUDA device.
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
