"""How much memory this process has used at most."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

__all__ = ["peak_resident_bytes", "reset_peak"]


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
