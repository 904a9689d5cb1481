"""Foreground criteria for cropping."""

from __future__ import annotations

import dataclasses

import torch

__all__ = ["AboveMean"]


@dataclasses.dataclass(frozen=True)
class AboveMean:
    """Select voxels brighter than a fraction of the mean, for ``select_fn`` of MONAI's ``CropForegroundd``.

    Unlike a lambda in a configuration, it can be exported with the bundle.

    Attributes:
        part: fraction of the mean over all voxels and channels, such as 0.25.

    Example:
        >>> AboveMean(0.5)(torch.tensor([[1.0, 3.0, 8.0]])).tolist()
        [[False, True, True]]
    """

    part: float

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Mark the foreground of ``image``, ``(C, H, W[, D])``, in the same shape."""
        return image.float() > self.part * (image.sum(dtype=torch.float64).item() / image.numel())
