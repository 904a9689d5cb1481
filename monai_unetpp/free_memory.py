"""How much memory is available, without torch."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

#: Control groups on Linux, version 2 then 1: mount point, line of ``/proc/self/cgroup`` with the path of this process's
#: own group below it, and files of the memory limit and the usage, with the name of the usage's reclaimable part.
_CONTROL_GROUPS = (
    ("/sys/fs/cgroup", r"^0::/(.*)$", "memory.max", "memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory",
        r"^\d+:(?:[^:\n]*,)?memory(?:,[^:\n]*)?:/(.*)$",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def available_bytes() -> int | None:
    """Memory that this process can still get without swapping; ``None`` if the system does not report it.

    That is the system's, or what is left of the limit of the container or job (such as of Slurm), whichever is least.
    """
    with contextlib.suppress(OSError):
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"))
        if found:
            return min([int(found[1]) * 1024, *_left_in_groups()])
    return None


def container_limit_bytes() -> int | None:
    """Memory that the container or job may take; ``None`` outside of one, or without a limit."""
    return min((limit for limit, *_ in _limits()), default=None)


def _left_in_groups() -> Iterator[int]:
    for limit, folder, used, freed in _limits():
        with contextlib.suppress(OSError, ValueError):
            taken = int(Path(folder, used).read_text(encoding="utf-8"))
            found = re.search(rf"^{freed} (\d+)$", Path(folder, "memory.stat").read_text(encoding="utf-8"), re.M)
            yield max(limit - taken + (int(found[1]) if found else 0), 0)


def _limits() -> Iterator[tuple[int, str, str, str]]:
    """The limit of each control group around this process, with its folder and the names of its usage."""
    for mount, own, limit, used, freed in _CONTROL_GROUPS:
        for folder in _folders(mount, own):
            with contextlib.suppress(OSError, ValueError):
                # "max" means no limit, a ValueError here
                yield int(Path(folder, limit).read_text(encoding="utf-8")), folder, used, freed


def _folders(mount: str, own: str) -> list[str]:
    """The folders of this process's group and of those around it; in a container, its own group is mounted there."""
    path = ""
    with contextlib.suppress(OSError):
        found = re.search(own, Path("/proc/self/cgroup").read_text(encoding="utf-8"), re.M)
        path = found[1] if found else ""
    parts = [part for part in path.split("/") if part]
    return ["/".join([mount, *parts[:count]]) for count in range(len(parts), -1, -1)]
