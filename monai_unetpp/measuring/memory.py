"""Measure the peak memory of a process, if need be in a separate one."""

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
    "do_job",
    "is_out_of_memory",
    "measure_in_new_process",
    "peak_resident_bytes",
    "reset_peak",
]

#: Messages of torch, its libraries, OpenVINO and ITK when memory runs out.
_ALLOCATION_TEXTS = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "STATUS_ALLOC_FAILED",
    "bad_alloc",
    "bad allocation",
    "Failed to allocate memory",
    # of torch's convolutions on a GPU, which keep to themselves that the memory for each way to compute them ran out;
    # rarely they mean that there is no way
    "unable to find an engine to execute this computation",
)

_T = TypeVar("_T")


def measure_in_new_process(measure: Callable[..., _T], *arguments: Any, name: str, remedy: str) -> _T:
    """Call ``measure(*arguments)`` in a separate process with unused memory.

    Args:
        measure: a function of a module.
        *arguments: picklable arguments.
        name: name of the measurement, for messages.
        remedy: what to do if memory ran out, for the message.

    Raises:
        ValueError: an argument cannot be pickled.
        RuntimeError: the process failed; the message contains its last line.
    """
    try:
        job = pickle.dumps((measure, arguments, torch.get_num_threads()))
    except (pickle.PicklingError, AttributeError, TypeError) as e:
        raise ValueError(
            f"{name}: the network and its inferer must be picklable, as memory is measured in a separate process, got "
            f"an object that is not ({e}). Use functions of a module instead of lambdas."
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
    """Do the job in the file ``path`` of :func:`measure_in_new_process`, and write the result there."""
    measure, arguments, threads = pickle.loads(Path(path).read_bytes())
    torch.set_num_threads(threads)
    result = pickle.dumps(measure(*arguments))
    Path(path).write_bytes(result)


class PeakMemory:
    """The peak memory since this object was made, beyond what was in use then.

    On CUDA this is device memory; on a CPU the resident set of this process.

    Args:
        device: a CPU or a CUDA device.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.restart()
        on_gpu = self.device.type == "cuda"
        self._before = int(torch.cuda.memory_allocated(self.device)) if on_gpu else peak_resident_bytes()

    def restart(self) -> None:
        """Forget earlier peaks, but keep the baseline."""
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
    """Reset the peak to the current resident set, which only Linux supports."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_resident_bytes() -> int:
    """The largest resident set of this process so far.

    On Linux ``ru_maxrss`` is no use: a new process inherits the peak of its parent.

    Raises:
        ImportError: the system has neither source, and psutil is not installed.
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or a CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _ALLOCATION_TEXTS)
