"""How much memory there is, how much a process has used at most, and processes that are there to measure it."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from monai_unetpp.devices import synchronize

__all__ = [
    "PeakMemory",
    "available_bytes",
    "do_job",
    "is_out_of_memory",
    "measure_in_new_process",
    "peak_resident_bytes",
    "reset_peak",
]

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

_T = TypeVar("_T")

#: Where Linux says what a container may take and has taken, and the part of it that can be freed at once: of control
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


def measure_in_new_process(measure: Callable[..., _T], *arguments: Any, name: str, remedy: str) -> _T:
    """What ``measure(*arguments)`` returns in a separate process, whose memory nothing else has touched.

    Args:
        measure: a function of a module.
        *arguments: what pickle takes.
        name: what is measured, for messages.
        remedy: what to do if memory ran out, for the message.

    Raises:
        ValueError: an argument that pickle refuses.
        RuntimeError: the process failed; the last line that it wrote is in the message.
    """
    try:
        job = pickle.dumps((measure, arguments, torch.get_num_threads()))
    except (pickle.PicklingError, AttributeError, TypeError) as e:
        raise ValueError(
            f"{name}: the network and what runs it must be picklable, as memory is measured in a separate process, got "
            f"an object that is not ({e}). Use functions of a module in it (in an inferer, say), no lambdas."
        ) from e
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "job.pkl")
        path.write_bytes(job)
        code = f"import sys; from {__name__} import do_job; do_job(sys.argv[1])"
        finished = subprocess.run(
            [sys.executable, "-c", code, os.fspath(path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            capture_output=True,
            text=True,
            check=False,
        )
        if finished.returncode:
            reason = (finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1]
            raise RuntimeError(
                f"{name}: the process that measures memory failed ({reason}). If memory ran out, {remedy}."
            )
        result: _T = pickle.loads(path.read_bytes())
        return result


def do_job(path: str) -> None:
    """In the process that :func:`measure_in_new_process` starts: do what ``path`` holds, and put the result there."""
    measure, arguments, threads = pickle.loads(Path(path).read_bytes())
    torch.set_num_threads(threads)
    result = pickle.dumps(measure(*arguments))
    Path(path).write_bytes(result)


class PeakMemory:
    """The most memory that has been in use since it was made, beyond what was in use then.

    On CUDA it is device memory; on a CPU the resident set of this process.

    Args:
        device: a CPU or a CUDA device.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.restart()
        on_gpu = self.device.type == "cuda"
        self._before = int(torch.cuda.memory_allocated(self.device)) if on_gpu else peak_resident_bytes()

    def restart(self) -> None:
        """Forget earlier peaks; what is compared with stays."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            reset_peak()

    def bytes(self) -> int:
        """The peak so far, 0 or more."""
        synchronize(self.device)
        on_gpu = self.device.type == "cuda"
        peak = int(torch.cuda.max_memory_allocated(self.device)) if on_gpu else peak_resident_bytes()
        return max(peak - self._before, 0)


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was asked for that is not there, on a GPU or a CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _ALLOCATION_TEXTS)
