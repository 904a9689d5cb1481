"""The process group of what ``torchrun`` started: its start and its end, and waiting for each other."""

from __future__ import annotations

import datetime
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

__all__ = ["finish", "gathered", "local_device", "start"]

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
        for name in ("reducer", "logger"):
            network.__dict__.pop(name, None)
    gc.collect()
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


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
