"""The process group of what ``torchrun`` started: its start and its end, and waiting for each other."""

from __future__ import annotations

import datetime
import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

__all__ = [
    "finish",
    "from_first",
    "gather",
    "gathered",
    "local_device",
    "process_count",
    "process_group",
    "rank",
    "release",
    "share",
    "start",
    "waiting_group",
]

_K = TypeVar("_K")
_T = TypeVar("_T")

# torch.distributed itself, not ignite.distributed: that broadcasts no objects, and it looks up a group that it did not
# start by collective calls at the first question for the rank, then keeps it when the group has ended.
_LONGEST_WAIT = datetime.timedelta(days=14)


def local_device() -> torch.device:
    """The device of this process: its own GPU where there are GPUs, else the CPU."""
    if torch.cuda.is_available():
        return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    return torch.device("cpu")


def start() -> None:
    """Join the process group, with NCCL on GPUs and Gloo on CPUs. Does nothing when it has been joined.

    Raises:
        RuntimeError: not started by ``torchrun``.
    """
    if dist.is_initialized():
        return
    if "RANK" not in os.environ:
        raise RuntimeError(
            "the environment variable RANK is not set. Start distributed training with "
            "torchrun --nproc_per_node=N -m monai.bundle run ..."
        )
    device = local_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend="nccl" if device.type == "cuda" else "gloo")


def finish(network: nn.Module | None = None) -> None:
    """Leave the process group, after the gradient reducer of ``network`` has let go of it.

    Args:
        network: the ``DistributedDataParallel`` network; it cannot be trained any further afterwards. While its
            reducer still holds the group, Gloo can abort the process at exit.
    """
    if network is not None:
        release(network)
    gc.collect()
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def release(network: nn.Module) -> None:
    """Let the gradient reducer of a ``DistributedDataParallel`` network go; it cannot be trained any further."""
    for name in ("reducer", "logger"):
        network.__dict__.pop(name, None)


@contextmanager
def process_group() -> Iterator[None]:
    """Join the process group for the block where ``torchrun`` started this process; else there is none."""
    if dist.is_available() and dist.is_torchelastic_launched():
        start()
    yield
    # after an error the other processes may never come to the end: then the launcher ends them
    if dist.is_available() and dist.is_initialized():
        finish()


def rank() -> int:
    """The number of this process in the process group; 0 where there is none."""
    return dist.get_rank() if _in_group() else 0


def process_count() -> int:
    """How many processes the process group has; 1 where there is none."""
    return dist.get_world_size() if _in_group() else 1


def share(items: Sequence[_T]) -> Sequence[_T]:
    """What of ``items`` this process has to do: every n-th of n processes, all where there is no process group."""
    return items[dist.get_rank() :: dist.get_world_size()] if _in_group() else items


def gather(own: dict[_K, _T]) -> dict[_K, _T]:
    """What all processes of the process group have, in every one of them."""
    if not _in_group():
        return own
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, own)
    return {key: each for part in parts for key, each in part.items()}


def _in_group() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def gathered(value: Any) -> Iterator[list[Any]]:
    """Wait until all processes of ``torchrun`` are here, and after the block until all have left it.

    For processes that each do work of their own, one of them perhaps for days longer than another. If one ended with
    an error before the others are done, ``torchrun`` would end them too.

    Args:
        value: of this process; anything that can be pickled.

    Yields:
        The values of all processes by rank; only that of this one where ``torchrun`` started no others.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        yield [value]
        return
    # Gloo also on GPUs: a wait of NCCL would keep the GPU busy
    dist.init_process_group("gloo", timeout=_LONGEST_WAIT)
    try:
        values = [None] * processes
        dist.all_gather_object(values, value)
        yield values
    finally:
        finish()


@contextmanager
def waiting_group() -> Iterator[dist.ProcessGroup | None]:
    """A group to wait in for as long as the first process needs; starts the processes' own under ``torchrun``.

    The default group gives up after minutes, and waiting with NCCL occupies the GPU.

    Yields:
        The group; None where there is one process.
    """
    started = dist.is_available() and dist.is_torchelastic_launched() and not dist.is_initialized()
    if started:
        start()
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    yield dist.new_group(backend="gloo", timeout=datetime.timedelta(days=1)) if several else None
    # after an error the other processes may never come to the end: then the launcher ends them
    if started:
        finish()


def from_first(result: _T | None, group: dist.ProcessGroup | None) -> _T:
    """The result of the first process, in every process.

    Args:
        result: of this process; None in all but the first.
        group: from :func:`waiting_group`.

    Raises:
        RuntimeError: the first process has no result.
    """
    holder = [result]
    if group is not None:
        dist.broadcast_object_list(holder, src=0, group=group)
    if holder[0] is None:
        raise RuntimeError("the first process ended without a result; its own message says why.")
    return holder[0]
