"""The integers of label maps, even if a file stores them scaled."""

from __future__ import annotations

from collections.abc import Collection
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.errors import list_values

__all__ = ["as_integers", "check_label_values"]

_ROUNDING = 0.01
"""Largest distance of a stored value from its integer: more than the error of saving scaled values again."""
_SINGLE = 4 * float(np.finfo(np.float32).eps)
"""Relative error from the single precision of a header's scale factor."""
_LARGEST = np.iinfo(np.int32).max


def as_integers(voxels: npt.NDArray[Any], path: str | PathLike[str], step: float = 0.0) -> npt.NDArray[Any]:
    """Convert the voxels of a label map to integers.

    Programs that save a label map as floats under the header of an integer file scale it: 1 becomes 127 times 2/255,
    which is 0.996. Such values are rounded. Other fractions are refused: they come from interpolated label maps or from
    probabilities.

    Args:
        voxels: voxels of any shape, as stored in the file.
        path: the file, for the message.
        step: distance between neighbouring values if the file holds scaled integers. If it is below 1, integers are
            stored with an error of at most half of it.

    Returns:
        Integers unchanged; floats as int32.

    Raises:
        ImageFileError: there are fractions, NaN, infinity, or numbers too large for a label.

    Example:
        >>> import numpy as np
        >>> as_integers(np.array([0.0, 0.996, 2.004]), "label.nii.gz").tolist()
        [0, 1, 2]
    """
    if voxels.dtype.kind == "b":
        return voxels.astype(np.uint8)
    if voxels.dtype.kind in "iu":
        return voxels
    if not np.isfinite(voxels).all():
        raise ImageFileError(f"{path}: the label must hold integers, got NaN or infinity. Correct the label map.")
    rounded = np.rint(voxels)
    allowed = max(_ROUNDING, step / 2 if step < 1 else 0.0)
    apart = np.abs(voxels - rounded) > allowed + _SINGLE * np.abs(rounded)
    if apart.any():
        raise ImageFileError(
            f"{path}: the label must hold integers, got fractions such as {voxels[apart].flat[0]:.4g} at "
            f"{int(np.count_nonzero(apart))} of {voxels.size} voxels. Correct the label map, or resample it with "
            "nearest neighbours."
        )
    if np.abs(rounded).max(initial=0) > _LARGEST:
        raise ImageFileError(
            f"{path}: the label must hold integers up to {_LARGEST}, got {np.abs(rounded).max():.4g}. Correct it."
        )
    integers: npt.NDArray[np.int32] = rounded.astype(np.int32)
    return integers


def check_label_values(found: Collection[int], values: Collection[int], path: str | PathLike[str]) -> None:
    """Refuse a label map with values that have no name.

    Args:
        found: the values that occur.
        values: the values allowed besides 0.
        path: the file, for the message.

    Raises:
        ImageFileError: other values occur.
    """
    unknown = sorted(set(found) - {0, *values})
    if unknown:
        raise ImageFileError(
            f"{path}: the label must hold 0 and {list_values(sorted({*values} - {0}))} only, got "
            f"{list_values(unknown)}. Correct the label map. For training, name the value in labels; for scoring, set "
            "what the network does not know to 0, in a copy."
        )
