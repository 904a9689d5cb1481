"""Intensities of mean 0 and standard deviation 1, in bounded memory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor, get_track_meta
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor

__all__ = ["StandardizeIntensityd"]


class StandardizeIntensityd(MapTransform):
    """Give each image mean 0 and standard deviation 1, as ``NormalizeIntensityd`` does without further arguments.

    The same values to rounding, but memory for one further volume where MONAI takes two. A constant image becomes 0.

    Args:
        keys: images ``(C, H, W[, D])``, standardized over all channels together; they become float32.
        allow_missing_keys: whether items without a key are passed over.

    Example:
        >>> import torch
        >>> StandardizeIntensityd("image")({"image": torch.tensor([[[1.0, 3.0]]])})["image"].tolist()
        [[[-1.0, 1.0]]]
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Standardize the images of one item."""
        d = dict(data)
        for key in self.key_iterator(d):
            image: Any = convert_to_tensor(d[key], dtype=torch.float32, track_meta=get_track_meta())
            mean, deviation = _statistics(image)
            d[key] = (image - mean).div_(deviation or 1.0)
        return d


def _statistics(image: torch.Tensor) -> tuple[float, float]:
    """Mean and standard deviation, summed up in float64, so that they are the same on every device.

    Squares are taken of one plane at a time, which bounds the memory.
    """
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    mean = (plain.sum(dtype=torch.float64) / plain.numel()).item()
    squares = torch.stack([(part.double() - mean).square_().sum() for channel in plain for part in channel])
    return mean, (squares.sum() / plain.numel()).sqrt().item()
