"""Labels on the grid of the file from logits, class by class."""

from __future__ import annotations

import numpy as np

from monai_unetpp.runner.volume import Array, Volume

__all__ = ["likeliest_labels"]


def likeliest_labels(logits: Array, volume: Volume) -> Array:
    """Find the class of the highest probability at each voxel of the file, like ``InvertProbabilitiesd``.

    Args:
        logits: ``(C, H, W[, D])`` of ``C >= 2`` classes, of the preprocessed image.
        volume: that image, with the inverses of its steps.

    Returns:
        ``(H, W[, D])``, uint8 for up to 256 classes, else int32; 0 where the preprocessing cropped.

    Raises:
        ValueError: the logits are not finite.
    """
    total = logits[0].copy()
    for channel in logits[1:]:
        np.logaddexp(total, channel, out=total)
    if not np.isfinite(total).all():
        raise ValueError("the network gave NaN or infinity. Its weights are damaged: export the bundle again.")
    best = volume.bring_back(np.exp(logits[0] - total), linear=True).copy()
    labels = np.zeros(best.shape, dtype=np.uint8 if len(logits) <= 256 else np.int32)
    for label, channel in enumerate(logits[1:], start=1):
        values = volume.bring_back(np.exp(channel - total), linear=True)
        labels[values > best] = label
        np.maximum(best, values, out=best)
    return labels
