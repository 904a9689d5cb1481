"""How much memory is available, without torch."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

__all__ = ["available_bytes", "container_limit_bytes"]

#: Memory limit, usage and reclaimable part of a container on Linux: control groups version 2, then version 1. In a
#: container its own group is mounted there.
_CONTROL_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_bytes() -> int | None:
    """Memory that this process can still get without swapping; ``None`` if the system does not report it.

    On Linux, the system's available memory or what is left of the container's limit, whichever is less.
    """
    with contextlib.suppress(OSError):
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"))
        if found:
            left = _left_in_container()
            return int(found[1]) * 1024 if left is None else min(int(found[1]) * 1024, left)
    return None


def container_limit_bytes() -> int | None:
    """Memory that the container may take; ``None`` outside of one, or without a limit."""
    for folder, limit, _, _ in _CONTROL_GROUPS:
        with contextlib.suppress(OSError, ValueError):
            return int(Path(folder, limit).read_text(encoding="utf-8"))
    return None


def _left_in_container() -> int | None:
    for folder, limit, used, freed in _CONTROL_GROUPS:
        with contextlib.suppress(OSError, ValueError):
            # "max" means no limit, a ValueError here
            most = int(Path(folder, limit).read_text(encoding="utf-8"))
            taken = int(Path(folder, used).read_text(encoding="utf-8"))
            found = re.search(rf"^{freed} (\d+)$", Path(folder, "memory.stat").read_text(encoding="utf-8"), re.M)
            return max(most - taken + (int(found[1]) if found else 0), 0)
    return None
