"""Make label maps from logits, part by part; several levels share one byte per voxel meanwhile."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence

import torch

from monai_unetpp.inferers.windows import WindowGrid

#: Most voxels converted to labels at once, to bound memory.
_CHUNK_VOXELS = 2**22


class LabelMaps:
    """The label maps of the levels of a network, ``(images, 1, *padded_size)`` for each.

    With few classes, the labels of a voxel at all levels are stored as digits of one byte until all are known, so the
    maps of four levels take no more memory than one, besides the sums. The joint map becomes that of the last level
    whose result is asked for. ``channels`` are those of the logits of each level.
    """

    def __init__(
        self, grid: WindowGrid, images: int, channels: Sequence[int], device: torch.device | str = "cpu"
    ) -> None:
        shape = (images, 1, *grid.padded_size)
        self._classes = [max(count, 2) for count in channels]
        self._joined: torch.Tensor | None = None
        self._maps: list[torch.Tensor] = []
        if are_joined(channels):
            self._joined = torch.zeros(shape, dtype=torch.uint8, device=device)
        else:
            self._maps = [torch.empty(shape, dtype=label_dtype(count), device=device) for count in channels]
        self._factors = [1, *itertools.accumulate(self._classes, operator.mul)][:-1]
        self._left = set(range(len(channels)))

    @property
    def bytes_to_come(self) -> int:
        """Bytes that the results take besides what the maps hold until then."""
        return 0 if self._joined is None else (len(self._classes) - 1) * self._joined.nbytes

    def write(self, level: int, image: int, place: tuple[slice, ...], logits: torch.Tensor) -> None:
        """Write the labels of a part of a padded image, once per part; ``logits`` are ``(C, *part)``."""
        if self._joined is None:
            write_labels(logits, self._maps[level][image, 0][place])
            return
        labels = torch.empty(logits.shape[1:], dtype=torch.uint8, device=logits.device)
        write_labels(logits, labels)
        self._joined[image, 0][place].add_(labels.mul_(self._factors[level]))

    def result(self, level: int) -> torch.Tensor:
        """The label map of a level, after all parts were written; call it once for each level."""
        if self._joined is None:
            return self._maps[level]
        self._left.discard(level)
        found = self._joined if not self._left else torch.empty_like(self._joined)
        torch.div(self._joined, self._factors[level], rounding_mode="floor", out=found)
        return found.remainder_(self._classes[level])


def are_joined(channels: Sequence[int]) -> bool:
    """Whether the labels of all levels fit into one byte."""
    return len(channels) > 1 and math.prod(max(count, 2) for count in channels) <= 256


def label_dtype(channels: int) -> torch.dtype:
    """The type of label maps: uint8 for up to 256 classes, else int16."""
    return torch.uint8 if channels <= 256 else torch.int16


def write_labels(logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Write to ``labels`` the class of the highest logit of ``(C, *spatial)``, the first if several are equal.

    A single channel is the foreground against the background: above 0 gives 1. Logits must be finite.
    """
    if logits.shape[0] == 1:
        check_finite(logits[0])
        labels.copy_(logits[0] > 0)
        return
    rows = max(_CHUNK_VOXELS * labels.shape[0] // max(labels.numel(), 1), 1)
    for part, written in zip(logits.split(rows, dim=1), labels.split(rows), strict=True):
        # many times faster than argmax over the first of several axes, and saves its 8 bytes per voxel
        best = part[0].clone()
        written.zero_()
        for number in range(1, part.shape[0]):
            won = (part[number] > best).to(labels.dtype).mul_(number)
            torch.maximum(written, won, out=written)
            torch.maximum(best, part[number], out=best)
        # a maximum with NaN is NaN
        check_finite(best)


def check_finite(logits: torch.Tensor) -> None:
    """Raise a ValueError if NaN or infinity is among the logits."""
    # the sum of finite numbers is usually finite; only otherwise check them one by one
    if not bool(logits.sum().isfinite()) and not bool(logits.isfinite().all()):
        raise ValueError(
            "network must give finite logits, got NaN or infinity. Its weights are damaged (check the bundle), or its "
            "values overflow the precision (try precision='fp32')."
        )
