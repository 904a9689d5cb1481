"""Cut batches of windows out of images, and copy them to the network's device."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch

from monai_unetpp.inferers.windows import WindowGrid

#: Step of the voxels that are checked first, to see cheaply that a window is not constant.
_SAMPLED = 8


@dataclass(frozen=True)
class PlacedWindow:
    """A window of an image; ``slot`` is its index in the batch, None where that of an equal constant window is kept."""

    image: int
    position: tuple[int, ...]
    slot: int | None


@dataclass(frozen=True)
class WindowBatch:
    """``windows`` ``(B, C, *window_size)`` on the network's device, valid until the next batch; slots may be unused.

    ``placed`` are those to stitch, in the order of the grid. ``kept_slot`` is that of the prediction to keep for
    constant windows of later batches, if any.
    """

    windows: torch.Tensor
    placed: list[PlacedWindow]
    kept_slot: int | None


@dataclass(eq=False)
class WindowBatches:
    """Cuts the windows of a grid out of images ``(N, C, *spatial)``, at most ``batch_size`` at a time.

    They are copied from CPU to GPU, the ``device`` of the network, through pinned memory, while it computes; for
    padding see :meth:`WindowGrid.cut`. With ``fixed_size``, for compiled networks, every batch is full. With
    ``skip_constant``, windows in which every channel has a single value are skipped if a window with the same values is
    in the batch already, or was the last constant one before it.
    """

    inputs: torch.Tensor
    grid: WindowGrid
    batch_size: int
    device: torch.device
    padding_mode: str = "constant"
    cval: float = 0.0
    fixed_size: bool = False
    skip_constant: bool = False

    def __post_init__(self) -> None:
        self._windows = itertools.product(range(self.inputs.shape[0]), self.grid.positions)
        self._known: tuple[float, ...] | None = None
        pinned = self.device.type == "cuda" and self.inputs.device.type == "cpu"
        # fill one buffer while the other is being copied to the GPU
        self._stages = [_Stage(self._buffer(pinned), self.device, pinned) for _ in range(2 if pinned else 1)]

    def next_batch(self) -> WindowBatch | None:
        """The next batch, or ``None`` after the last. The last one may have constant windows only, without slots."""
        stage = self._stages[0]
        stage.wait()
        placed: list[PlacedWindow] = []
        constants: dict[tuple[float, ...], int] = {}
        used = 0
        for image, position in self._windows:
            stage.buffer[used].copy_(self.grid.cut(self.inputs[image], position, self.padding_mode, self.cval))
            values = _constant_values(stage.buffer[used]) if self.skip_constant else None
            slot: int | None = used
            if values is not None:
                slot = None if values == self._known else constants.setdefault(values, used)
            placed.append(PlacedWindow(image, position, slot))
            if slot == used:
                used += 1
            if used == self.batch_size:
                break
        if not placed:
            return None
        self._stages.reverse()
        kept_slot = None
        if constants:
            self._known, kept_slot = constants.popitem()
        return WindowBatch(stage.sent(self.batch_size if self.fixed_size and used else used), placed, kept_slot)

    def _buffer(self, pinned: bool) -> torch.Tensor:
        shape = (self.batch_size, self.inputs.shape[1], *self.grid.window_size)
        dtype = self.inputs.dtype if self.inputs.is_floating_point() else torch.float32
        # zeros, since unused slots must not hold values such as NaN
        return torch.zeros(shape, dtype=dtype, device="cpu" if pinned else self.device, pin_memory=pinned)


class _Stage:
    """A buffer for windows, and its copy to the network's device."""

    def __init__(self, buffer: torch.Tensor, device: torch.device, pinned: bool) -> None:
        self.buffer = buffer
        self._device = device
        self._sent = torch.cuda.Event() if pinned else None

    def wait(self) -> None:
        """Wait until the buffer may be written to."""
        if self._sent is not None:
            self._sent.synchronize()

    def sent(self, count: int) -> torch.Tensor:
        """The first ``count`` windows on the device."""
        if self._sent is None:
            return self.buffer[:count]
        windows = self.buffer[:count].to(self._device, non_blocking=True)
        self._sent.record(torch.cuda.current_stream(self._device))
        return windows


def _constant_values(window: torch.Tensor) -> tuple[float, ...] | None:
    """The value of each channel of ``(C, *spatial)``, if all channels are constant."""
    first = window.flatten(1)[:, :1]
    some = (slice(None), *(slice(None, None, _SAMPLED) for _ in window.shape[1:]))
    sampled = window[some].flatten(1)
    if bool((sampled == first).all()) and bool((window.flatten(1) == first).all()):
        return tuple(first[:, 0].tolist())
    return None
