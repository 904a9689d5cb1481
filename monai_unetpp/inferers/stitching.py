"""Stitch the predictions of windows: logits of the whole image, or label maps row by row."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch

from monai_unetpp.inferers.label_maps import LabelMaps
from monai_unetpp.inferers.window_batches import WindowBatch
from monai_unetpp.inferers.windows import WindowGrid, summed_importance
from monai_unetpp.measuring.stage_timer import StageTimer, timed


class WindowStitcher(ABC):
    """Sums the logits of the windows of images, weighted by the importance of their voxels.

    Sums are float32, or float64 for float64 logits, whatever the precision of the network. ``importance`` has the
    ``window_size``; None stands for equal weights.
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
        """Add the logits ``(channels, *window_size)`` of one window, which are not changed.

        Images, and the positions in each, come in the order of ``grid.positions``.
        """

    @property
    def bytes_to_free(self) -> int:
        """Bytes that :meth:`finish` frees."""
        return 0

    def finish(self) -> None:
        """Free memory after the last window, before the first result is requested."""
        return

    @abstractmethod
    def result(self) -> torch.Tensor:
        """The result of all windows; call it once, after the last window."""

    @abstractmethod
    def _sums_shape(self, images: int, channels: int) -> tuple[int, ...]:
        """Shape of the sums."""

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
    """The label maps of the images, ``(images, 1, *image_size)``, holding the logits of one row of windows only.

    Windows come slab by slab along the grid's slab axis, and row by row in each slab. At the next row, lines that no
    later row of the slab reaches are complete: planes that no later slab reaches become labels, and the others are
    carried over to the next slab. Sums are thus added in the order of the windows. Labels need no division by the
    summed importance, which is the same for all classes.

    The arguments are those of :class:`WindowStitcher`, a timer of ``"argmax"``, the label maps to write, which the
    levels of a network share, and the index of this level in them.
    """

    def __init__(
        self,
        grid: WindowGrid,
        importance: torch.Tensor | None,
        images: int,
        channels: int,
        dtype: torch.dtype,
        device: torch.device | str,
        timer: StageTimer | None,
        maps: LabelMaps,
        level: int,
    ) -> None:
        super().__init__(grid, importance, images, channels, dtype, device)
        self._carried = self._sums.new_zeros((channels, *grid.carried_size))
        self._maps = maps
        self._level = level
        self._timer = timer
        starts, length = grid.starts[grid.slab_axis], grid.window_size[grid.slab_axis]
        overlaps = [length - later + earlier for earlier, later in itertools.pairwise(starts)]
        # number of planes that the slab at each start shares with the one before and the next
        self._shared_before = dict(zip(starts, [0, *overlaps], strict=True))
        self._shared_after = dict(zip(starts, [*overlaps, 0], strict=True))
        # image, start of the slab, and start of the row in it
        self._place = (0, 0, 0)
        self._finished = False

    def add(self, image: int, position: Sequence[int], logits: torch.Tensor) -> None:
        """Add one window."""
        axis, row_axis = self.grid.slab_axis, self.grid.row_axis
        place = (image, position[axis], 0 if row_axis is None else position[row_axis])
        if place != self._place:
            self._move_to(place)
        within = [0 if other in (axis, row_axis) else start for other, start in enumerate(position)]
        self._accumulate(self._sums, within, logits)

    def finish(self) -> None:
        """Turn the remaining sums into labels, and free them."""
        if not self._finished:
            self._leave(self._row_length)
            self._sums, self._carried = self._sums.new_empty(0), self._carried.new_empty(0)
            self._finished = True

    def result(self) -> torch.Tensor:
        """The label maps of the images."""
        self.finish()
        return self.grid.crop(self._maps.result(self._level))

    def _sums_shape(self, images: int, channels: int) -> tuple[int, ...]:
        return (channels, *self.grid.row_size)

    @property
    def bytes_to_free(self) -> int:
        """Bytes of the sums."""
        return self._sums.nbytes + self._carried.nbytes

    @property
    def _row_length(self) -> int:
        return 1 if self.grid.row_axis is None else self.grid.window_size[self.grid.row_axis]

    def _move_to(self, place: tuple[int, int, int]) -> None:
        """Move the row of sums to the next place, in the same slab or at the beginning of another."""
        length = self._row_length
        step = place[2] - self._place[2] if place[:2] == self._place[:2] else length
        self._leave(step)
        # copy at most one step at a time, since source and target must not overlap
        for line in range(0, length - step, step):
            size = min(step, length - step - line)
            self._lines(self._sums, line, size).copy_(self._lines(self._sums, line + step, size))
        self._place = place
        self._enter(length - step, step)

    def _enter(self, line: int, lines: int) -> None:
        """Initialize lines of the sums from ``line`` with the sums carried over from the previous slab."""
        _, start, row = self._place
        shared = self._shared_before[start]
        sums = self._lines(self._sums, line, lines)
        sums.zero_()
        if shared:
            self._planes(sums, 0, shared).copy_(self._lines(self._planes(self._carried, 0, shared), row + line, lines))

    def _leave(self, lines: int) -> None:
        """Complete the first lines of the sums in this slab."""
        image, start, row = self._place
        axis, shared = self.grid.slab_axis, self._shared_after[start]
        done = self.grid.window_size[axis] - shared
        sums = self._lines(self._sums, 0, lines)
        if shared:
            self._lines(self._planes(self._carried, 0, shared), row, lines).copy_(self._planes(sums, done, shared))
        part = [slice(None)] * len(self.grid.window_size)
        part[axis] = slice(start, start + done)
        if self.grid.row_axis is not None:
            part[self.grid.row_axis] = slice(row, row + lines)
        with timed(self._timer, "argmax"):
            self._maps.write(self._level, image, tuple(part), self._planes(sums, 0, done))

    def _planes(self, sums: torch.Tensor, start: int, count: int) -> torch.Tensor:
        return sums.narrow(self.grid.slab_axis + 1, start, count)

    def _lines(self, sums: torch.Tensor, start: int, count: int) -> torch.Tensor:
        return sums if self.grid.row_axis is None else sums.narrow(self.grid.row_axis + 1, start, count)


class BatchStitcher:
    """Stitches batches of windows, each output by a stitcher of its own; those of labels share ``maps``."""

    def __init__(self, stitchers: Mapping[str, WindowStitcher], maps: LabelMaps | None = None) -> None:
        self.stitchers = stitchers
        self._kept: dict[str, torch.Tensor] = {}
        to_free = sum(stitcher.bytes_to_free for stitcher in stitchers.values())
        #: Whether the results take more memory than all that is freed before them.
        self.grows_at_end = maps is not None and maps.bytes_to_come > to_free

    def add(self, batch: WindowBatch, logits: Mapping[str, torch.Tensor]) -> None:
        """Add one batch, in the order of the grid; the logits of each output are ``(B, channels, *window_size)``."""
        for name, stitcher in self.stitchers.items():
            for window in batch.placed:
                found = self._kept[name] if window.slot is None else logits[name][window.slot]
                stitcher.add(window.image, window.position, found)
        if batch.kept_slot is not None:
            self._kept = {name: found[batch.kept_slot].clone() for name, found in logits.items()}

    def finish(self) -> None:
        """Free memory after the last batch."""
        for stitcher in self.stitchers.values():
            stitcher.finish()

    def results(self) -> dict[str, torch.Tensor]:
        """The result of each output; call it once, after :meth:`finish`."""
        return {name: stitcher.result() for name, stitcher in self.stitchers.items()}
