"""Volumes through networks for images, slice by slice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from monai_unetpp.measuring.stage_timer import StageTimer

__all__ = ["SlicewiseInferer"]


class SlicewiseInferer(Inferer):
    """Run an inferer for images over each slice of a volume; images go through as they are.

    Unlike MONAI's ``SliceInferer``, which makes sliding windows of one voxel's depth, this one leaves the windows to
    any inferer, so that label maps in bounded memory, flips and runtimes work for slices too.

    Args:
        inferer: what to run on ``(B, C, H, W)``; it must give one tensor.
        slice_axis: spatial axis of volumes across which the slices lie, 0 the first, -1 the last.

    Raises:
        ValueError: ``slice_axis`` is none of a volume's.

    Example:
        >>> import torch
        >>> from monai.inferers import SimpleInferer
        >>> inferer = SlicewiseInferer(SimpleInferer(), slice_axis=0)
        >>> inferer(torch.zeros(1, 1, 3, 8, 9), lambda images: images + 1).shape
        torch.Size([1, 1, 3, 8, 9])
    """

    def __init__(self, inferer: Inferer, slice_axis: int = -1) -> None:
        super().__init__()
        if slice_axis not in range(-3, 3):
            raise ValueError(f"slice_axis must be an axis of a volume, 0, 1 or 2, got {slice_axis!r}.")
        self.inferer = inferer
        self.slice_axis = slice_axis % 3
        self._depths: dict[str, dict[str, int]] = {}

    @property
    def timer(self) -> StageTimer | None:
        """The timer of the inferer, if it takes one."""
        timer: StageTimer | None = self.inferer.timer  # type: ignore[attr-defined]  # hasattr tells that it has none
        return timer

    @timer.setter
    def timer(self, timer: StageTimer | None) -> None:
        self.inferer.timer = timer  # type: ignore[attr-defined]

    @property
    def ran(self) -> tuple[str, str] | None:
        """Runtime and precision of the last run, of an inferer that tells."""
        ran: tuple[str, str] | None = getattr(self.inferer, "ran", None)
        return ran

    @property
    def depths(self) -> dict[str, dict[str, int]]:
        """How deep the windows of the last run went, of an inferer that tells; summed over the slices."""
        return self._depths

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Infer on ``inputs`` ``(B, C, H, W)`` or ``(B, C, H, W, D)``; results have the same spatial size.

        Raises:
            TypeError: the inferer gives something else than a tensor for a slice.
        """
        self._depths = {}
        if inputs.ndim == 4:
            return self._infer(inputs, network, *args, **kwargs)
        axis = self.slice_axis + 2
        volume = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        result: torch.Tensor | None = None
        for index in range(volume.shape[axis]):
            found = self._infer(volume.select(axis, index), network, *args, **kwargs)
            if not isinstance(found, torch.Tensor):
                raise TypeError(
                    f"the inferer must give a tensor for a slice, got {type(found).__name__}. Ask for one level."
                )
            if result is None:
                shape = list(volume.shape)
                shape[1] = found.shape[1]
                result = found.new_empty(shape)
            result.select(axis, index).copy_(found)
        return MetaTensor(result).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else result

    def _infer(self, images: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        found = self.inferer(images, network, *args, **kwargs)
        for name, counts in getattr(self.inferer, "depths", {}).items():
            total = self._depths.setdefault(name, dict.fromkeys(counts, 0))
            for level, count in counts.items():
                total[level] += count
        return found
