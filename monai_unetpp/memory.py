"""How much memory there is, how much a process has used at most, and processes that are there to measure it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from os import PathLike
from pathlib import Path

import torch

__all__ = ["available_bytes", "is_out_of_memory", "measure_in_new_process", "peak_resident_bytes", "reset_peak"]

#: What torch, and the libraries under it, OpenVINO and ITK say where they get no memory.
_ALLOCATION_TEXTS = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "STATUS_ALLOC_FAILED",
    "bad_alloc",
    "bad allocation",
    "Failed to allocate memory",
)
#: Where Linux tells what a container may take and has taken, and the part of it that can be freed at once: of control
#: groups of the second kind, then of the first. In a container its own group is mounted there.
_CONTROL_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_bytes() -> int | None:
    """Memory that this process can still get without swapping; ``None`` where the system does not tell.

    On Linux what the system can free at once, or what is left of a container's limit where that is less.
    """
    with contextlib.suppress(OSError):
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"))
        if found:
            left = _left_in_container()
            return int(found[1]) * 1024 if left is None else min(int(found[1]) * 1024, left)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was asked for that is not there, on a GPU or a CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _ALLOCATION_TEXTS)


def measure_in_new_process(
    measure: Callable[[str], None], folder: str | PathLike[str], *, name: str, remedy: str
) -> None:
    """Call ``measure(folder)`` in a process of its own, whose memory nothing else has touched.

    Args:
        measure: a function of a module. It finds what to do in files in ``folder``, and writes there what it measured.
        folder: the folder.
        name: what is measured, for the message.
        remedy: what to do if memory ran out, for the message.

    Raises:
        RuntimeError: the process failed; the last line that it wrote is in the message.
    """
    code = f"import sys; from {measure.__module__} import {measure.__name__} as measure; measure(sys.argv[1])"
    finished = subprocess.run(
        [sys.executable, "-c", code, os.fspath(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        reason = (finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1]
        raise RuntimeError(f"{name}: the process that measures memory failed ({reason}). If memory ran out, {remedy}.")


def reset_peak() -> None:
    """Let the peak start from what is resident now, where the system can (Linux); elsewhere it only grows."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_resident_bytes() -> int:
    """The largest resident set of this process so far.

    On Linux ``ru_maxrss`` cannot serve: a new process starts with the peak of the one that started it.

    Raises:
        ImportError: a system without either source, and psutil is not installed.
    """
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
        if found:
            return int(found[1]) * 1024
    try:
        import resource
    except ImportError:
        return _peak_working_set_bytes()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _peak_working_set_bytes() -> int:
    try:
        import psutil
    except ImportError as e:
        raise ImportError("Measuring memory on this system needs psutil. Install it: pip install psutil") from e
    return int(psutil.Process().memory_info().peak_wset)


def _left_in_container() -> int | None:
    for folder, limit, used, freed in _CONTROL_GROUPS:
        with contextlib.suppress(OSError, ValueError):
            # "max" where there is no limit
            most = int(Path(folder, limit).read_text(encoding="utf-8"))
            taken = int(Path(folder, used).read_text(encoding="utf-8"))
            found = re.search(rf"^{freed} (\d+)$", Path(folder, "memory.stat").read_text(encoding="utf-8"), re.M)
            return max(most - taken + (int(found[1]) if found else 0), 0)
    return None
