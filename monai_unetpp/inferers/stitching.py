"""Putting the predictions of windows together: logits of the whole image, or label maps slab by slab."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from monai_unetpp.inferers.windows import WindowGrid, summed_importance

__all__ = ["LabelStitcher", "LogitStitcher", "WindowStitcher", "label_dtype", "write_labels"]

#: Most voxels that are turned into labels at once, which bounds the memory for it.
_CHUNK_VOXELS = 2**22

Stage = Callable[[str], AbstractContextManager[None]]


def _no_stage(name: str) -> AbstractContextManager[None]:
    return nullcontext()


class WindowStitcher(ABC):
    """Sums up the logits of the windows of a batch of images, weighted by the importance of their voxels.

    Sums are float32, or float64 where the logits are, whatever precision the network runs in.

    Args:
        grid: the windows.
        importance: of each voxel of a window, ``grid.window_size``; ``None`` where all count the same.
        images: number of images.
        channels: of the logits.
        dtype: of the logits.
        device: where to stitch.
    """

    def __init__(
        self,
        grid: WindowGrid,
        importance: torch.Tensor | None,
        images: int,
        channels: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.grid = grid
        self.importance = None if importance is None else importance.to(device)
        self._sums = torch.zeros(
            self._sums_shape(images, channels), dtype=torch.promote_types(dtype, torch.float32), device=device
        )

    @abstractmethod
    def add(self, image: int, position: Sequence[int], logits: torch.Tensor) -> None:
        """Add one window.

        Args:
            image: number of the image; images come one after the other.
            position: where the window starts; one of ``grid.positions``, in their order.
            logits: ``(channels, *window_size)``, which is not changed.
        """

    @abstractmethod
    def result(self) -> torch.Tensor:
        """What all windows give together; call it once, after the last window."""

    @abstractmethod
    def _sums_shape(self, images: int, channels: int) -> tuple[int, ...]:
        """Shape of the sums that are held."""

    @property
    def buffer_bytes(self) -> int:
        """Memory of what is held between windows."""
        return self._sums.nbytes + (0 if self.importance is None else self.importance.nbytes)

    def _accumulate(self, sums: torch.Tensor, starts: Sequence[int], logits: torch.Tensor) -> None:
        for axis, (start, length) in enumerate(zip(starts, self.grid.window_size, strict=True), start=1):
            sums = sums.narrow(axis, start, length)
        logits = logits.to(sums.device)
        if self.importance is None:
            sums.add_(logits)
        else:
            sums.addcmul_(logits, self.importance)


class LogitStitcher(WindowStitcher):
    """The mean logits of all windows at each voxel, ``(images, channels, *image_size)``."""

    def add(self, image: int, position: Sequence[int], logits: torch.Tensor) -> None:
        """Add one window."""
        self._accumulate(self._sums[image], position, logits)

    def result(self) -> torch.Tensor:
        """The logits of the images."""
        self._sums.div_(summed_importance(self.grid, self.importance, self._sums.device))
        return self.grid.crop(self._sums)

    def _sums_shape(self, images: int, channels: int) -> tuple[int, ...]:
        return (images, channels, *self.grid.padded_size)


class LabelStitcher(WindowStitcher):
    """The label maps of the images, ``(images, 1, *image_size)``, while only one slab of logits is held.

    The slab is as long as a window. As the windows move on along the grid's slab axis, the planes that no later window
    reaches become labels, and the others move to the front. Labels need no division by the summed importance, which
    is the same for all classes.

    Args:
        grid: the windows.
        importance: of each voxel of a window, ``grid.window_size``; ``None`` where all count the same.
        images: number of images.
        channels: of the logits.
        dtype: of the logits.
        device: where to stitch.
        stage: makes a context from the name of a stage, for the time that ``"argmax"`` takes.
    """

    def __init__(
        self,
        grid: WindowGrid,
        importance: torch.Tensor | None,
        images: int,
        channels: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        stage: Stage = _no_stage,
    ) -> None:
        super().__init__(grid, importance, images, channels, dtype, device)
        self._labels = torch.empty((images, 1, *grid.padded_size), dtype=label_dtype(channels), device=device)
        self._stage = stage
        self._image = 0
        self._begin = 0

    def add(self, image: int, position: Sequence[int], logits: torch.Tensor) -> None:
        """Add one window."""
        axis = self.grid.slab_axis
        if image != self._image:
            self._finish_image()
            self._image = image
        if position[axis] > self._begin:
            self._move_to(position[axis])
        self._accumulate(self._sums, [0 if other == axis else start for other, start in enumerate(position)], logits)

    def result(self) -> torch.Tensor:
        """The label maps of the images."""
        self._finish_image()
        return self.grid.crop(self._labels)

    @property
    def buffer_bytes(self) -> int:
        """Memory of what is held between windows."""
        return super().buffer_bytes + self._labels.nbytes

    def _sums_shape(self, images: int, channels: int) -> tuple[int, ...]:
        return (channels, *self.grid.slab_size)

    def _finish_image(self) -> None:
        self._write(self.grid.window_size[self.grid.slab_axis])
        self._sums.zero_()
        self._begin = 0

    def _move_to(self, begin: int) -> None:
        """Let the slab start at plane ``begin``."""
        step, dim = begin - self._begin, self.grid.slab_axis + 1
        kept = self.grid.window_size[self.grid.slab_axis] - step
        self._write(step)
        # at most a step at a time, since a copy must not overlap what it reads
        for place in range(0, kept, step):
            size = min(step, kept - place)
            self._sums.narrow(dim, place, size).copy_(self._sums.narrow(dim, place + step, size))
        self._sums.narrow(dim, kept, step).zero_()
        self._begin = begin

    def _write(self, planes: int) -> None:
        """Turn the first ``planes`` planes of the slab into labels."""
        axis = self.grid.slab_axis
        with self._stage("argmax"):
            labels = self._labels[self._image, 0].narrow(axis, self._begin, planes)
            write_labels(self._sums.narrow(axis + 1, 0, planes), labels)


def label_dtype(channels: int) -> torch.dtype:
    """The type of label maps: uint8 for up to 256 classes, else int16."""
    return torch.uint8 if channels <= 256 else torch.int16


def write_labels(logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Write the class of the highest logit; of equal ones the first.

    A single channel is taken as the logit of the foreground against the background: above 0 gives 1.

    Args:
        logits: ``(C, *spatial)``.
        labels: ``(*spatial)`` of an integer type, which is written to.

    Raises:
        ValueError: a highest logit that is not a finite number.
    """
    if logits.shape[0] == 1:
        _check_finite(logits[0])
        labels.copy_(logits[0] > 0)
        return
    rows = max(_CHUNK_VOXELS * labels.shape[0] // max(labels.numel(), 1), 1)
    for part, written in zip(logits.split(rows, dim=1), labels.split(rows), strict=True):
        # many times faster than argmax over the first of several axes, and without its 8 bytes per voxel
        best = part[0].clone()
        written.zero_()
        for number in range(1, part.shape[0]):
            won = (part[number] > best).to(labels.dtype).mul_(number)
            torch.maximum(written, won, out=written)
            torch.maximum(best, part[number], out=best)
        # a maximum with NaN is NaN
        _check_finite(best)


def _check_finite(logits: torch.Tensor) -> None:
    # the sum of finite numbers is finite, or the numbers are looked at one by one
    if not bool(logits.sum().isfinite()) and not bool(logits.isfinite().all()):
        raise ValueError(
            "network must give finite logits, got NaN or infinity. Its weights are damaged (check the bundle), or the "
            "precision does not hold its values (try precision='fp32')."
        )
