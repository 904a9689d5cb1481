"""What counts as foreground where an image is cropped to it."""

from __future__ import annotations

import dataclasses

import torch

__all__ = ["AboveMean"]


@dataclasses.dataclass(frozen=True)
class AboveMean:
    """Voxels brighter than a part of the image's mean, for ``select_fn`` of MONAI's ``CropForegroundd``.

    A lambda says the same, but cannot be read by what exports a bundle.

    Attributes:
        part: of the mean over all voxels and channels, such as 0.25.

    Example:
        >>> AboveMean(0.5)(torch.tensor([[1.0, 3.0, 8.0]])).tolist()
        [[False, True, True]]
    """

    part: float

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Which voxels are foreground, in the shape of ``image``, ``(C, H, W[, D])``."""
        return image.float() > self.part * (image.sum(dtype=torch.float64).item() / image.numel())
