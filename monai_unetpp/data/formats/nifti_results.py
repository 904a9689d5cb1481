"""Make results on the grid of a NIfTI file, with its header."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.nifti2 import Nifti2Header, Nifti2Image

from monai_unetpp.data.formats.grid import channel_axes
from monai_unetpp.data.formats.nifti import open_nifti

__all__ = ["nifti_class", "on_nifti_grid", "smallest_dtype"]

#: Longest axis of NIfTI-1, which NIfTI-2 exceeds.
_LONGEST = np.iinfo(np.int16).max


def smallest_dtype(greatest: int) -> npt.DTypeLike:
    """The smallest of uint8, uint16 and int32 that holds labels up to ``greatest``."""
    return next(t for t in (np.uint8, np.uint16, np.int32) if greatest <= np.iinfo(t).max)


def nifti_class(shape: Sequence[int]) -> type[Nifti1Image]:
    """NIfTI-1, or NIfTI-2 if an axis is too long for it."""
    return Nifti2Image if max(shape, default=0) > _LONGEST else Nifti1Image


def on_nifti_grid(array: npt.NDArray[Any], source: Path) -> Nifti1Image:
    """Make an image of ``array`` with the header of ``source``, except for fields that describe values.

    Args:
        array: ``(H, W[, D])``, of the type to store.
        source: the NIfTI file that defines the grid.

    Raises:
        ImageFileError: ``source`` can no longer be read.
        ValueError: ``array`` has another shape than ``source``.
    """
    original = open_nifti(source)
    # axes of length one may be anywhere: a 2D slice has three axes in its file; channels come last
    axes, channels = channel_axes(original.shape, array.ndim)
    shape = original.shape if channels == 1 else original.shape[: max(axes) + 1]
    long, given = ([length for length in lengths if length > 1] for lengths in (shape, array.shape))
    if long != given:
        raise ValueError(
            f"array must have the shape of {source}, {original.shape}, got {array.shape}. Use Invertd first."
        )
    image_class, header_class = (
        (Nifti2Image, Nifti2Header) if isinstance(original.header, Nifti2Header) else (Nifti1Image, Nifti1Header)
    )
    # via bytes, because nibabel's conversion from the header of a pair drops sform and qform
    header = header_class(original.header.binaryblock, original.header.endianness, check=False).as_byteswapped("<")
    header.set_data_dtype(array.dtype)
    header.set_intent("none")
    for field in ("cal_min", "cal_max", "aux_file"):
        header[field] = header_class()[field]
    # without an affine, sform and qform of the header are kept
    return image_class(array.reshape(shape), None, header)
