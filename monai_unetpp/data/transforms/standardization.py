"""Standardize intensities to mean 0 and standard deviation 1, in bounded memory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import get_track_meta
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor

from monai_unetpp.data.transforms.background import find_own_surround

_PART = 2**20
"""Values per chunk."""


class StandardizeIntensityd(MapTransform):
    """Give each image mean 0 and standard deviation 1, like ``NormalizeIntensityd`` with its default arguments.

    Values agree to rounding, but it needs memory for one more volume instead of two. A constant image becomes 0.

    Args:
        keys: images ``(C, H, W[, D])``, standardized over all channels together; they become float32.
        allow_missing_keys: whether items without a key are skipped.
        channel_wise: whether each channel is standardized separately.
        inside_surround: whether mean and deviation are computed inside the constant surround, see
            :func:`monai_unetpp.data.find_surround`, which becomes another constant. Images without one are used whole.

    Example:
        >>> import torch
        >>> StandardizeIntensityd("image")({"image": torch.tensor([[[1.0, 3.0]]])})["image"].tolist()
        [[[-1.0, 1.0]]]
    """

    def __init__(
        self,
        keys: KeysCollection,
        allow_missing_keys: bool = False,
        channel_wise: bool = False,
        inside_surround: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.channel_wise = channel_wise
        self.inside_surround = inside_surround

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Standardize the images of one item."""
        d = dict(data)
        for key in self.key_iterator(d):
            image: Any = convert_to_tensor(d[key], dtype=torch.float32, track_meta=get_track_meta())
            surround = find_own_surround(image) if self.inside_surround else None
            kept = None if surround is None else ~surround.mask
            parts = image if self.channel_wise else [image]
            moments = [_statistics(part if kept is None else part[..., kept]) for part in parts]
            means, deviations = torch.tensor(moments, device=image.device).T.reshape(2, -1, *[1] * (image.ndim - 1))
            d[key] = (image - means).div_(torch.where(deviations == 0, 1.0, deviations))
        return d


def _statistics(values: torch.Tensor) -> tuple[float, float]:
    """Mean and standard deviation, summed in float64 to be the same on every device, and in chunks to bound memory."""
    flat = torch.as_tensor(values).reshape(-1)
    parts = flat.split(_PART)
    mean = (torch.stack([part.double().sum() for part in parts]).sum() / flat.numel()).item()
    squares = torch.stack([part.double().sub_(mean).square_().sum() for part in parts])
    return mean, (squares.sum() / flat.numel()).sqrt().item()
