"""Measure the peak memory of a process, if need be of separate ones."""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from monai_unetpp.devices import synchronize
from monai_unetpp.files import naming_full_disk, scratch_folder

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


def measure_in_new_processes(
    measure: Callable[..., _T], arguments: Mapping[str, Sequence[Any]], *, remedy: str
) -> dict[str, _T]:
    """Call ``measure`` with one set of arguments after the other, each in a separate process with unused memory.

    On Linux the processes are forks of one that has imported what they need, which takes seconds. The function is one
    of a module, and its arguments are picklable. ``remedy``, for the message, is what to do if memory ran out.
    """
    with scratch_folder() as folder:
        paths = {name: folder / f"{number}.pkl" for number, name in enumerate(arguments)}
        for name, path in paths.items():
            path.write_bytes(_pickled(name, measure, arguments[name]))
        names = list(paths)
        for group in [names] if sys.platform == "linux" else [[name] for name in names]:
            _start(measure.__module__, {name: paths[name] for name in group}, remedy)
        return {name: pickle.loads(_result_of(path).read_bytes()) for name, path in paths.items()}


def _pickled(name: str, *job: Any) -> bytes:
    try:
        return pickle.dumps((*job, torch.get_num_threads()))
    except (pickle.PicklingError, AttributeError, TypeError) as e:
        raise ValueError(
            f"{name}: the network and its inferer must be picklable, as memory is measured in a separate process, got "
            f"an object that is not ({e}). Use functions of a module instead of lambdas."
        ) from e


def _result_of(path: Path) -> Path:
    return path.with_suffix(".result")


def _start(module: str, paths: Mapping[str, Path], remedy: str) -> None:
    """Do the jobs in files in a new process."""
    code = f"import sys; from {__name__} import do_jobs; do_jobs(*sys.argv[1:])"
    finished = subprocess.run(
        [sys.executable, "-c", code, module, *map(os.fspath, paths.values())],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        failed = next((name for name, path in paths.items() if not _result_of(path).exists()), next(iter(paths)))
        reason = (finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1]
        raise RuntimeError(
            f"{failed}: the process that measures memory failed ({reason}). If memory ran out, {remedy}."
        )


def do_jobs(module: str, *paths: str) -> None:
    """Do the jobs in the files ``paths`` of :func:`measure_in_new_processes`, and write the results beside them.

    The module is imported before the process forks, and the first job that fails is the last.
    """
    if len(paths) == 1:
        _do_job(Path(paths[0]))
        return
    importlib.import_module(module)
    for path in paths:
        process = multiprocessing.get_context("fork").Process(target=_do_job, args=(Path(path),))
        process.start()
        process.join()
        if process.exitcode:
            # a process that raises has told the error itself
            sys.exit(process.exitcode if process.exitcode > 0 else f"exit code {process.exitcode}")


def _do_job(path: Path) -> None:
    measure, arguments, threads = pickle.loads(path.read_bytes())
    torch.set_num_threads(threads)
    result = pickle.dumps(measure(*arguments))
    with naming_full_disk(_result_of(path)):
        _result_of(path).write_bytes(result)


class PeakMemory:
    """The peak memory since this object was made, beyond what was in use then.

    On CUDA this is device memory; on a CPU the resident set of this process.
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
