"""Estimate the memory of sliding windows, and the batch size that fits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from monai_unetpp.distributed import processes_here
from monai_unetpp.free_memory import available_bytes
from monai_unetpp.inferers.label_maps import are_joined, label_dtype
from monai_unetpp.inferers.windows import WindowGrid
from monai_unetpp.window_layout import FREE_PART, bytes_per_voxel

#: On a CPU torch's convolutions are far slower per window for one than for two, and four are enough.
_CPU_BATCH = (2, 4)
#: Voxels and windows per batch that keep a GPU busy.
_GPU_BATCH_VOXELS, _GPU_BATCH_WINDOWS = 2**23, 64


@dataclass(frozen=True)
class WindowMemory:
    """Memory for sliding windows, without that of the network itself.

    Attributes:
        input_bytes: the images.
        window_bytes: a batch of windows and its logits.
        sums_bytes: summed logits: for label maps of a row of windows and of the overlap of two slabs, else of the whole
            images.
        importance_bytes: weights of the voxels of a window, and for logits their sums over all windows.
        labels_bytes: label maps; 0 for logits.
        joined_bytes: the joint map of all levels until all labels are known; 0 if each level has its own map.
    """

    input_bytes: int
    window_bytes: int
    sums_bytes: int
    importance_bytes: int
    labels_bytes: int
    joined_bytes: int

    @property
    def total_bytes(self) -> int:
        """Peak memory."""
        return (
            self.input_bytes + self.importance_bytes + max(self.window_bytes + self._running_bytes, self.labels_bytes)
        )

    @property
    def stitching_bytes(self) -> int:
        """Peak memory without images, windows and their logits."""
        return self.importance_bytes + max(self._running_bytes, self.labels_bytes)

    @property
    def _running_bytes(self) -> int:
        return self.sums_bytes + (self.joined_bytes or self.labels_bytes)

    def __str__(self) -> str:
        parts = ", ".join(f"{name.removesuffix('_bytes')} {value / 1e6:.0f}" for name, value in asdict(self).items())
        return f"{self.total_bytes / 1e6:.0f} MB besides the network ({parts})"


def estimate_window_memory(
    grid: WindowGrid,
    *,
    images: int,
    in_channels: int,
    out_channels: int,
    outputs: int,
    predicted: int,
    batch_size: int,
    labels: bool,
    blended: bool,
    input_itemsize: int = 4,
) -> WindowMemory:
    """Estimate the memory for the windows of a grid, and label maps or logits of the images.

    ``outputs`` levels are stitched, of ``predicted`` ones that the network computes for each window. With ``blended``
    the voxels of a window differ in importance.
    """
    image_voxels, padded_voxels = math.prod(grid.image_size), math.prod(grid.padded_size)
    in_rows = math.prod(grid.row_size) + math.prod(grid.carried_size)
    sums_voxels = in_rows if labels else images * padded_voxels
    joined = labels and are_joined([out_channels] * outputs)
    blended = blended and not grid.has_one_window
    importance_voxels = (grid.window_voxels if blended else 0) + (0 if labels else padded_voxels)
    return WindowMemory(
        input_bytes=images * in_channels * image_voxels * input_itemsize,
        window_bytes=batch_size * grid.window_voxels * (in_channels * input_itemsize + predicted * out_channels * 4),
        sums_bytes=outputs * out_channels * sums_voxels * 4,
        importance_bytes=importance_voxels * 4,
        labels_bytes=outputs * images * padded_voxels * label_dtype(out_channels).itemsize if labels else 0,
        joined_bytes=images * padded_voxels if joined else 0,
    )


def choose_batch_size(
    network: Callable[..., Any], grid: WindowGrid, images: int, device: torch.device, outputs: int = 1
) -> int:
    """Choose the number of windows per batch from the device's free memory; a power of two, or that of all windows.

    It is 2 or 4 on a CPU, 1 where memory is short, and just enough to keep a GPU busy. ``outputs`` are the channels of
    all logits together.
    """
    window_bytes = grid.window_voxels * bytes_per_voxel(first_channels(network), outputs)
    free = usable_memory_bytes(device)
    if device.type == "cpu":
        unknown, most = _CPU_BATCH
    else:
        unknown, most = 1, max(min(_GPU_BATCH_VOXELS // grid.window_voxels, _GPU_BATCH_WINDOWS), 1)
    fitting = int(FREE_PART * free) // window_bytes if free is not None else unknown
    chosen = min(max(fitting, 1), most)
    return min(1 << (chosen.bit_length() - 1), images * len(grid.positions))


def free_memory_bytes(device: torch.device | str) -> int | None:
    """Free memory of a device, also what torch has reserved on a GPU but does not use; ``None`` if unknown."""
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return available_bytes()


def usable_memory_bytes(device: torch.device | str) -> int | None:
    """Free memory of a device for this process: of a CPU its share, if ``torchrun`` runs several on this computer."""
    free = free_memory_bytes(device)
    if free is None or torch.device(device).type != "cpu":
        return free
    return free // processes_here()


def first_channels(network: Callable[..., Any]) -> int:
    """Channels of a network's first convolution; 32 for any other function."""
    modules = network.modules() if isinstance(network, nn.Module) else ()
    convolutions = (module for module in modules if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)))
    return next((module.out_channels for module in convolutions), 32)
