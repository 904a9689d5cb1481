"""Simulate thick slices along one axis, as in most clinical scans."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_tensor
from torch.nn import functional

__all__ = ["RandThickSlicesd"]


class RandThickSlicesd(RandomizableTransform, MapTransform):
    """Average an image over thick slices along a random axis, and interpolate it back to its own grid.

    MONAI's ``RandSimulateLowResolutiond`` lowers the resolution along all axes; this transform averages along one, so
    structures thinner than a slice get partial volume effects.

    Args:
        keys: images ``(C, H, W[, D])``, all along the same axis.
        prob: probability of the transform.
        thickness: range of the slice thickness in voxels, at least 1.

    Raises:
        ValueError: ``thickness`` is not a range of numbers from 1 up.

    Example:
        >>> import torch
        >>> thick = RandThickSlicesd("image", prob=1.0, thickness=(3, 3))
        >>> image = thick({"image": torch.rand(1, 9, 9, 9)})["image"]
        >>> tuple(image.shape)
        (1, 9, 9, 9)
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.5, thickness: tuple[float, float] = (1.0, 4.0)) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=prob)
        if not 1 <= thickness[0] <= thickness[1]:
            raise ValueError(f"thickness must be a range of voxels from 1 up, got {tuple(thickness)}. Correct it.")
        self.thickness = thickness

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Thicken the slices of one item, or leave it unchanged."""
        d = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return d
        share, thickness = self.R.uniform(), self.R.uniform(*self.thickness)
        for key in self.key_iterator(d):
            image = convert_to_tensor(d[key], track_meta=False, dtype=torch.float32)
            thick = _thicken(image, int(share * (image.ndim - 1)), thickness)
            d[key] = MetaTensor(thick, meta=d[key].meta) if isinstance(d[key], MetaTensor) else thick
        return d


def _thicken(image: torch.Tensor, axis: int, thickness: float) -> torch.Tensor:
    """``image`` ``(C, *spatial)`` with slices of ``thickness`` voxels along one spatial axis."""
    moved = image.movedim(axis + 1, -1)
    rows = moved.reshape(1, -1, moved.shape[-1])
    count = max(1, round(moved.shape[-1] / thickness))
    coarse = functional.adaptive_avg_pool1d(rows, count)
    fine = functional.interpolate(coarse, size=moved.shape[-1], mode="linear", align_corners=False)
    return fine.reshape(moved.shape).movedim(-1, axis + 1).contiguous()
