"""The place of this process among those that ``torchrun`` has started."""

from __future__ import annotations

import os


def torchrun_place() -> tuple[int, int]:
    """Rank of this process, and number of processes, under ``torchrun``; 0 and 1 without it.

    Scripts of batch systems may set one of its variables alone, for programs that they start later.
    """
    rank, count = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    return (int(rank), int(count)) if rank and count and int(count) > 1 else (0, 1)
