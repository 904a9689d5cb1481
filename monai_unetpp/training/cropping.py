"""Cropping patches around voxels of drawn classes, whatever a case holds."""

from __future__ import annotations

import math
from typing import Any

import torch
from monai.transforms import RandCropByLabelClassesd

__all__ = ["RandCropByPresentClassesd"]


class RandCropByPresentClassesd(RandCropByLabelClassesd):
    """MONAI's ``RandCropByLabelClassesd``, also for cases that hold none of the classes to draw.

    MONAI fails where no class that a case holds has a ratio above 0, as in a label map with nothing but voxels to
    ignore. Here patches of such a case lie anywhere. All others are those of MONAI. Arguments are MONAI's, too;
    ``indices_key`` and ``ratios`` must be given.

    Example:
        >>> crop = RandCropByPresentClassesd("label", "label", (1, 1), [1, 1], 2, indices_key="places")
        >>> item = {"label": torch.full((1, 4, 4), 2.0), "places": [[], []]}
        >>> crop.set_random_state(0)(item)[0]["label"].item()
        2.0
    """

    def randomize(
        self, label: torch.Tensor, indices: list[Any] | None = None, image: torch.Tensor | None = None
    ) -> None:
        """Choose the centres of the patches."""
        if indices is not None and not any(
            ratio and len(places) for ratio, places in zip(self.cropper.ratios or (), indices, strict=True)
        ):
            indices = [torch.arange(math.prod(label.shape[1:]))] * len(indices)
        super().randomize(label, indices, image)
