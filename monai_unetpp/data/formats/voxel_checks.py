"""Voxels that a network can use: finite, and not all the same."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np

from monai_unetpp.data.formats.grid import warn_once
from monai_unetpp.data.formats.image_errors import ImageFileError

#: Steps of single precision that are a larger part of an image's range are worth a warning.
_COARSE = 0.01


def make_finite(
    voxels: np.ndarray[Any, Any], path: str | PathLike[str], fill: float | None = None
) -> np.ndarray[Any, Any]:
    """The voxels, with ``fill`` for NaN and infinity of float32; if it is None, these are an ``ImageFileError``."""
    if voxels.dtype.kind != "f":
        return voxels
    # MONAI computes in float32, where larger values are infinite
    largest = np.finfo(np.float32).max
    if voxels.min() >= -largest and voxels.max() <= largest:  # False if there is a NaN
        return voxels
    usable = np.abs(voxels) <= largest
    if fill is not None:
        return np.where(usable, voxels, np.asarray(fill, dtype=voxels.dtype))
    raise ImageFileError(
        f"{path}: {voxels.size - int(np.count_nonzero(usable))} of {voxels.size} voxels are NaN or infinite. Replace "
        "them, for example with the background value."
    )


def check_not_constant(channels: Sequence[np.ndarray[Any, Any]], path: str | PathLike[str]) -> None:
    """Refuse, by an ``ImageFileError``, an image with a channel that has the same value everywhere.

    Networks compute in single precision, in which values may become equal; if it is coarse for them, a warning is
    logged. Channels that mean something only together, as colours do, are given as one.
    """
    for number, voxels in enumerate(channels):
        of_channel = f" of channel {number}" if len(channels) > 1 else ""
        low, high = float(voxels.min()), float(voxels.max())
        if low == high:
            raise ImageFileError(
                f"{path}: all voxels{of_channel} have the value {voxels.flat[0]}, so there is nothing to segment. "
                "Export it again."
            )
        step = max(abs(low), abs(high)) * float(np.finfo(np.float32).eps)
        if step > _COARSE * (high - low):
            told = (
                f"{path}: the values{of_channel} lie between {low:.10g} and {high:.10g}, where those of single "
                f"precision, in which networks compute, are {step:.2g} apart. Subtract a constant and save it again"
            )
            if np.float32(low) == np.float32(high):
                raise ImageFileError(f"{told}.")
            warn_once(f"{told}, or expect coarse results.")
