"""What happens to the memory that the tensors of a training step free."""

from __future__ import annotations

import ctypes
import sys

#: Parameters of ``mallopt`` in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
#: Values up to which glibc by itself raises the thresholds, and its default for the number of mappings.
_TRIM_BYTES, _MMAP_BYTES, _MMAPS = 2**26, 2**25, 65536


def keep_freed_memory() -> bool:
    """Keep the memory that large tensors free for the next ones, which makes training steps on a CPU faster.

    Otherwise the C library gives it back to the system in every step, and the system clears each page that it hands
    out again. It holds for the whole process, until :func:`return_freed_memory`.

    Returns:
        Whether this is possible: only with the GNU C library, thus on most Linux systems.
    """
    library = _gnu_library()
    if library is None:
        return False
    # no mappings of their own for large tensors, and nothing cut off at the end of the heap
    return bool(library.mallopt(_MMAP_MAX, 0)) and bool(library.mallopt(_TRIM_THRESHOLD, -1))


def return_freed_memory() -> None:
    """Give the memory that is free back to the system, and from now on as soon as it is freed."""
    library = _gnu_library()
    if library is not None:
        library.mallopt(_MMAP_MAX, _MMAPS)
        library.mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)
        library.mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)
        library.malloc_trim(0)


def _gnu_library() -> ctypes.CDLL | None:
    """The C library of this process, if it is the GNU one."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "gnu_get_libc_version") else None
