"""Run 2D networks on volumes, slice by slice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer

from monai_unetpp.inferers.windows import check_axes
from monai_unetpp.measuring.stage_timer import StageTimer
from monai_unetpp.measuring.sums import summed


class SlicewiseInferer(Inferer):
    """Run a 2D inferer over each slice of a volume; 2D images are passed through.

    Unlike MONAI's ``SliceInferer``, which uses sliding windows with a depth of one voxel, this one works with any
    inferer, so label maps in bounded memory, flips and runtimes are available for slices too.

    Args:
        inferer: the inferer for ``(B, C, H, W)``; it must return one tensor.
        slice_axis: spatial axis of volumes perpendicular to the slices, 0 the first, -1 the last.

    Attributes:
        depths: windows of the last run by depth, summed over the slices, if the inferer reports them.

    Raises:
        ValueError: a volume has no such axis.

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
        self.depths: dict[str, dict[str, int]] = {}

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
        """Runtime and precision of the last run, if the inferer reports them."""
        ran: tuple[str, str] | None = getattr(self.inferer, "ran", None)
        return ran

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Infer on ``inputs`` ``(B, C, H, W)`` or ``(B, C, H, W, D)``; results have the same spatial size.

        Raises:
            TypeError: the inferer does not return a tensor for a slice.
            ValueError: ``inputs`` has another shape, or an empty axis, or results of slices have another batch or
                spatial size, or differ in channels or type.
        """
        self.depths = {}
        if inputs.ndim not in (4, 5):
            raise ValueError(
                f"inputs must have shape (B, C, H, W[, D]), got {list(inputs.shape)}. Add the batch and channel axes."
            )
        check_axes(inputs.shape[2:])
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
                channels = found.shape[1] if found.ndim == inputs.ndim - 1 else volume.shape[1]
                result = found.new_empty([len(volume), channels, *volume.shape[2:]])
            place = result.select(axis, index)
            if (found.shape, found.dtype) != (place.shape, place.dtype):
                raise ValueError(
                    f"the inferer must give {list(place.shape)} of {place.dtype} for each slice, got "
                    f"{list(found.shape)} of {found.dtype}. Give every slice the same channels, at its own size."
                )
            place.copy_(found)
        return MetaTensor(result).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else result

    def _infer(self, images: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        found = self.inferer(images, network, *args, **kwargs)
        for name, counts in getattr(self.inferer, "depths", {}).items():
            self.depths[name] = summed([self.depths.get(name, {}), counts])
        return found
