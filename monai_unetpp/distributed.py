"""Starting and ending the process group of a training that ``torchrun`` started."""

from __future__ import annotations

import gc
import os

import torch
import torch.distributed as dist
from torch import nn

__all__ = ["finish", "local_device", "start"]


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
