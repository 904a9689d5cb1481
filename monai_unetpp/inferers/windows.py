"""The windows that cover an image, and the weights of their voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from monai.utils import fall_back_tuple

from monai_unetpp.window_layout import WindowLayout, gaussian_weights

__all__ = ["WindowGrid", "check_axes", "importance_of", "summed_importance"]


@dataclass(frozen=True)
class WindowGrid(WindowLayout):
    """The windows that cover an image, with methods to cut them out; see :class:`WindowLayout` for its attributes."""

    @classmethod
    def over(
        cls, image_size: Sequence[int], roi_size: Sequence[int | None] | int | None, overlap: Sequence[float] | float
    ) -> WindowGrid:
        """The grid for an image.

        Args:
            image_size: its spatial size.
            roi_size: size of the windows; ``None``, 0 or -1 stands for the image's own size, for all axes or one.
            overlap: fraction of a window that overlaps with the next one, from 0 to below 1, for all axes or each.

        Raises:
            ValueError: sizes or overlaps are for another number of axes, or an axis is empty.
        """
        check_axes(image_size, roi_size=roi_size, overlap=overlap)
        window = tuple(int(size) for size in fall_back_tuple(roi_size, image_size))
        return cls.overlapping(image_size, window, overlap)

    def cut(self, image: torch.Tensor, position: Sequence[int], padding_mode: str, cval: float) -> torch.Tensor:
        """Cut one window out of an image.

        Args:
            image: ``(C, *image_size)``.
            position: where the window starts.
            padding_mode: as in ``torch.nn.functional.pad``; mirror images and copies repeat as often as it takes.
            cval: the padding value for ``padding_mode="constant"``.

        Returns:
            ``(C, *window_size)``: a view of the image if nothing is padded, else its values, integers as float32.
        """
        view = image
        for axis, (start, length, size) in enumerate(
            zip(position, self.window_size, self.image_size, strict=True), start=1
        ):
            view = view.narrow(axis, start, min(length, size))
        if self.padded_size == self.image_size:
            return view
        if not view.is_floating_point():
            view = view.float()
        if padding_mode == "constant":
            return F.pad(view, [amount for pair in reversed(self.padding) for amount in pair], value=cval)
        for axis, (before, after) in enumerate(self.padding, start=1):
            if before or after:
                places = torch.arange(-before, view.shape[axis] + after, device=view.device)
                view = view.index_select(axis, _sources(places, view.shape[axis], padding_mode))
        return view

    def crop(self, padded: torch.Tensor) -> torch.Tensor:
        """The view of ``(..., *padded_size)`` without the padding."""
        for axis, ((before, _), size) in enumerate(zip(self.padding, self.image_size, strict=True)):
            padded = padded.narrow(padded.dim() - len(self.image_size) + axis, before, size)
        return padded


def check_axes(image_size: Sequence[int], **arguments: Any) -> None:
    """Check the size of an image, and arguments for all axes or each.

    Raises:
        ValueError: an axis is empty, or an argument is for another number of axes.
    """
    if min(image_size) < 1:
        raise ValueError(f"inputs must have no empty axis, got spatial size {list(image_size)}. Check the image.")
    for name, value in arguments.items():
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value) != len(image_size):
            raise ValueError(
                f"{name} must have one entry per spatial axis of the image, {len(image_size)}, got {list(value)}. "
                "Give one number for all axes, or check the shape of inputs: (B, C, *spatial)."
            )


def _sources(places: torch.Tensor, length: int, padding_mode: str) -> torch.Tensor:
    """The voxel along an axis of ``length`` that stands at each place, some of which lie outside."""
    if padding_mode == "replicate" or length == 1:
        return places.clamp(0, length - 1)
    if padding_mode == "circular":
        return places % length
    there_and_back = places % (2 * (length - 1))
    return torch.minimum(there_and_back, 2 * (length - 1) - there_and_back)


def importance_of(
    grid: WindowGrid, mode: str, sigma_scale: Sequence[float] | float, device: torch.device | str = "cpu"
) -> torch.Tensor | None:
    """The weight of each voxel of a window, ``window_size`` in float32; ``None`` for equal weights.

    Args:
        grid: the windows; a single one needs no weights.
        mode: ``"gaussian"`` or ``"constant"``.
        sigma_scale: standard deviation of the Gaussian in window lengths, for all axes or each.
        device: device of the result.
    """
    if mode == "constant" or grid.has_one_window:
        return None
    return torch.from_numpy(gaussian_weights(grid.window_size, sigma_scale)).to(device)


def summed_importance(grid: WindowGrid, importance: torch.Tensor | None, device: torch.device | str) -> torch.Tensor:
    """The summed weights of all windows at each voxel, ``padded_size`` in float32.

    Args:
        grid: the windows.
        importance: weight of each voxel of a window; ``None`` for 1.
        device: device of the result.
    """
    total = torch.ones(grid.window_size, device=device) if importance is None else importance.to(device)
    # windows are all combinations of starts, so the axes can be summed one by one
    for axis, starts in enumerate(grid.starts):
        shape = list(total.shape)
        shape[axis] = grid.padded_size[axis]
        longer = torch.zeros(shape, device=device)
        for start in starts:
            longer.narrow(axis, start, grid.window_size[axis]).add_(total)
        total = longer
    return total
