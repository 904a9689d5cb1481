"""Random removal of the tissue around an organ, as by skull-stripping."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_tensor
from torch.nn import functional

__all__ = ["RandStripSurroundd"]


class RandStripSurroundd(RandomizableTransform, MapTransform):
    """Set the labels around an organ to 0 at random, up to a random distance from it.

    Use it before :class:`RandLabelsToImaged`, so that image and label map agree.

    Args:
        keys: label maps ``(1, H, W[, D])``.
        surround: labels around the organ; all others but 0 are the organ.
        prob: probability of stripping.
        margin: range of the distance in voxels up to which the surround is kept.

    Raises:
        ValueError: ``margin`` is not a range of numbers from 0 up.

    Example:
        >>> import torch
        >>> strip = RandStripSurroundd("label", surround=[7], prob=1.0, margin=(1, 1))
        >>> strip({"label": torch.tensor([[[7, 7, 7, 4, 7]]])})["label"].tolist()
        [[[0, 0, 7, 4, 7]]]
    """

    def __init__(
        self, keys: KeysCollection, surround: Sequence[int], prob: float = 0.5, margin: tuple[int, int] = (0, 3)
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=prob)
        if not 0 <= margin[0] <= margin[1]:
            raise ValueError(f"margin must be a range of voxels from 0 up, got {tuple(margin)}. Correct it.")
        self.surround = list(surround)
        self.margin = margin

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Strip one item, or leave it unchanged."""
        d = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return d
        margin = int(self.R.randint(self.margin[0], self.margin[1] + 1))
        for key in self.key_iterator(d):
            label = convert_to_tensor(d[key], track_meta=False)
            stripped = label.masked_fill(~self._kept(label, margin), 0)
            d[key] = MetaTensor(stripped, meta=d[key].meta) if isinstance(d[key], MetaTensor) else stripped
        return d

    def _kept(self, label: torch.Tensor, margin: int) -> torch.Tensor:
        outside = torch.tensor([0, *self.surround], dtype=label.dtype)
        kept = (~torch.isin(label, outside)).float()[None]
        dims = label.ndim - 1
        for axis in range(dims if margin else 0):
            width = [2 * margin + 1 if a == axis else 1 for a in range(dims)]
            padding = [margin if a == axis else 0 for a in range(dims)]
            pool: Any = functional.max_pool3d if dims == 3 else functional.max_pool2d
            kept = pool(kept, width, stride=1, padding=padding)
        return kept[0].bool()
