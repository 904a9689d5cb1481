"""The process group under ``torchrun``: joining, leaving, sharing work and waiting for each other."""

from __future__ import annotations

import datetime
import functools
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_unetpp.torchrun import torchrun_place

_K = TypeVar("_K")
_T = TypeVar("_T")

# torch.distributed, not ignite.distributed: the latter broadcasts no objects, and on the first query of the rank it
# looks up a group that it did not start by collective calls, then keeps it after the group has ended.
_LONGEST_WAIT = datetime.timedelta(days=14)
#: For the next step of a training: the first process scores whole cases from time to time. The default is minutes.
_LONGEST_STEP = datetime.timedelta(hours=6)


def local_device(device: torch.device | str | None = None) -> torch.device:
    """The ``device`` that was asked for, else this process's own GPU, or the CPU where there are no GPUs.

    Raises:
        ValueError: under ``torchrun``, a GPU with a number for several processes, or more processes than GPUs.
    """
    asked = None if device is None else torch.device(device)
    if asked is not None and (asked.type != "cuda" or "LOCAL_RANK" not in os.environ):
        return asked
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if asked is not None and asked.index is not None and processes_here() == 1:
        return asked
    if asked is not None and asked.index not in (None, number):
        raise ValueError(f"device must have no number under torchrun, got {asked}. Each process takes its own GPU.")
    if not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if number >= count:
        raise ValueError(
            f"torchrun must start a process per GPU at most, got more than {count}. Give --nproc_per_node={count}, or "
            "--device cpu."
        )
    return torch.device(f"cuda:{number}")


def own_device(device: torch.device | None = None) -> torch.device:
    """The device of a process that works alone on its share: one that is named by its number is for all processes.

    ``cuda`` without a number is this process's own GPU, as is None; see :func:`local_device`.
    """
    return local_device(device) if device is None or device.index is None else device


def start(device: torch.device | str | None = None) -> None:
    """Join the process group, with NCCL on GPUs and Gloo on CPUs. Does nothing if already joined.

    Raises:
        RuntimeError: not started by ``torchrun``.
        ValueError: see :func:`local_device`, which takes the ``device`` that was asked for.
    """
    if dist.is_initialized():
        return
    missing = next((name for name in ("RANK", "WORLD_SIZE") if not os.environ.get(name)), None)
    if missing is not None:
        raise RuntimeError(
            f"the environment variable {missing} is not set. Start distributed training with "
            "torchrun --nproc_per_node=N -m monai.bundle run ..."
        )
    own = local_device(device)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    dist.init_process_group(backend="nccl" if own.type == "cuda" else "gloo", timeout=_LONGEST_STEP)


def finish(network: nn.Module | None = None) -> None:
    """Leave the process group, after the gradient reducer of ``network`` has released it.

    If the reducer of this ``DistributedDataParallel`` network still held the group, Gloo could abort the process at
    exit. The network cannot be trained any further.
    """
    if network is not None:
        release(network)
    _group_beside.cache_clear()
    if dist.is_initialized():
        gc.collect()
        dist.barrier()
        dist.destroy_process_group()


def processes_here() -> int:
    """How many processes ``torchrun`` runs on this computer, which share its memory and cores; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def release(network: nn.Module) -> None:
    """Release the gradient reducer of a ``DistributedDataParallel`` network, which cannot be trained any further."""
    for name in ("reducer", "logger"):
        network.__dict__.pop(name, None)


def unwrapped(network: nn.Module) -> nn.Module:
    """The network without its wrapper for distributed training, if it has one."""
    inner: nn.Module = network.module if isinstance(network, DistributedDataParallel) else network
    return inner


@contextmanager
def process_group(device: torch.device | str | None = None) -> Iterator[None]:
    """Join the process group for the block if ``torchrun`` started this process, unless it has joined before."""
    joining = dist.is_available() and dist.is_torchelastic_launched() and not dist.is_initialized()
    if joining:
        start(device)
    yield
    # after an error the other processes may never come to the end: then the launcher ends them
    if joining:
        finish()


def rank() -> int:
    """The rank of this process; 0 without a process group."""
    return dist.get_rank() if in_process_group() else 0


def process_count() -> int:
    """The number of processes in the process group; 1 without one."""
    return dist.get_world_size() if in_process_group() else 1


def share(items: Sequence[_T]) -> Sequence[_T]:
    """The items that this process handles: every n-th with n processes, all without a process group."""
    return items[rank() :: process_count()]


def gather(own: dict[_K, _T]) -> dict[_K, _T]:
    """The merged dictionaries of all processes, returned to each of them, however long the slowest one takes."""
    if not in_process_group():
        return own
    parts: list[Any] = [own] * dist.get_world_size()
    if len(parts) > 1:
        dist.all_gather_object(parts, own, group=_group_beside(dist.group.WORLD))
    return {key: each for part in parts for key, each in part.items()}


def in_process_group() -> bool:
    """Whether there is a process group, be it of this process alone."""
    return dist.is_available() and dist.is_initialized()


@contextmanager
def gathered(value: Any) -> Iterator[list[Any]]:
    """The values of all processes of ``torchrun`` by rank, pickled, once all have arrived; after the block, all wait.

    For processes that work independently, one perhaps for days longer than another. If one exited with an error before
    the others are done, ``torchrun`` would end them too.
    """
    processes = torchrun_place()[1]  # as where the cases are shared out
    if processes == 1:
        yield [value]
        return
    # Gloo also on GPUs: waiting with NCCL would keep the GPU busy
    dist.init_process_group("gloo", timeout=_LONGEST_WAIT)
    try:
        values = [None] * processes
        dist.all_gather_object(values, value)
        yield values
    finally:
        finish()


# one for all calls, as each holds sockets and threads until the default group ends
@functools.lru_cache(maxsize=1)
def _group_beside(default: Any) -> dist.ProcessGroup:
    """A group in which to wait as long as another process needs, without NCCL, which would occupy the GPU."""
    group: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=datetime.timedelta(days=1))
    return group


def by_first(work: Callable[[], _T]) -> _T:
    """The result of some work that the first process does for all, in every process; the others wait for it."""
    with process_group():
        result: list[Any] = [work() if rank() == 0 else None]
        if process_count() > 1:
            dist.broadcast_object_list(result, src=0, group=_group_beside(dist.group.WORLD))
    found: _T = result[0]
    return found
