"""Measure energy, where supported: RAPL for CPUs under Linux, NVML for NVIDIA GPUs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from monai_unetpp.devices import synchronize
from monai_unetpp.measuring.rounds import shuffled_rounds

_RAPL = Path("/sys/class/powercap")
_MICRO, _MILLI = 1e-6, 1e-3
#: A task is repeated for this many seconds: counters are updated about every millisecond.
_LEAST_S = 0.2

_Key = TypeVar("_Key", bound=Hashable)


EnergyCounter = Callable[[], float]
"""Joules since an arbitrary moment of the whole package or card, including idle power and other programs."""


class _Rapl:
    """The sum over the CPU packages, without memory and the rest of the machine."""

    def __init__(self, packages: list[Path]) -> None:
        self._packages = packages
        self._ranges = [_number(package / "max_energy_range_uj") for package in packages]
        self._last = [_number(package / "energy_uj") for package in packages]
        self._total = 0.0

    def __call__(self) -> float:
        now = [_number(package / "energy_uj") for package in self._packages]
        # a counter wraps around at the end of its range
        steps = zip(now, self._last, self._ranges, strict=True)
        self._total += sum(new - old if new >= old else new - old + size for new, old, size in steps)
        self._last = now
        return self._total * _MICRO


def find_counter(device: torch.device | str) -> EnergyCounter | None:
    """Find the energy counter of a device; ``None`` if there is none, or it is not readable.

    For CUDA the package ``nvidia-ml-py`` must be installed.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return _find_nvml(device)
    with contextlib.suppress(OSError, ValueError):
        packages = [path for path in sorted(_RAPL.glob("intel-rapl:*")) if _is_package(path)]
        return _Rapl(packages) if packages else None
    return None


def _is_package(zone: Path) -> bool:
    """Whether a zone is a whole CPU package: neither a part of one nor the platform (``psys``), which has all."""
    return zone.name.count(":") == 1 and (zone / "name").read_text().startswith("package")


def energy_rounds(
    tasks: Mapping[_Key, Callable[[], Any]],
    counter: EnergyCounter,
    *,
    repeats: int,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> dict[_Key, list[float]]:
    """Measure the joules of every task, one number per round; tasks take turns as in :func:`~.rounds.time_rounds`.

    Each runs for at least a fifth of a second per round.
    """
    joules: dict[_Key, list[float]] = {key: [] for key in tasks}
    for order in shuffled_rounds(tasks, repeats, seed):
        for key in order:
            joules[key].append(_joules(tasks[key], counter, torch.device(device)))
    return joules


def _joules(task: Callable[[], Any], counter: EnergyCounter, device: torch.device) -> float:
    synchronize(device)
    before, start, runs = counter(), time.perf_counter(), 0
    while not runs or time.perf_counter() - start < _LEAST_S:
        task()
        synchronize(device)
        runs += 1
    return (counter() - before) / runs


def _find_nvml(device: torch.device) -> EnergyCounter | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        # by UUID, as device indices depend on which devices are visible
        identity = str(torch.cuda.get_device_properties(device).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{identity}".encode())

        def joules() -> float:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) * _MILLI

        joules()
    except (pynvml.NVMLError, AttributeError):
        return None
    return joules


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
