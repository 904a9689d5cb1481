"""Read label maps as stored."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_unetpp.data.formats.reader import VolumeReader

__all__ = ["Volume", "read_label_map"]


@dataclasses.dataclass(frozen=True)
class Volume:
    """Voxels and their affine.

    Attributes:
        data: ``(H, W[, D])``.
        affine: ``(4, 4)``, from voxel indices to mm; in 2D the third column is that of an axis of length one.
    """

    data: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]


def read_label_map(path: Path, spatial_dims: int | None = None) -> Volume:
    """Read a label map as stored, ``(H, W[, D])`` of integers.

    Args:
        path: the file.
        spatial_dims: 2 or 3, not counting axes of length 1; None takes that of the file without trailing ones.

    Raises:
        ImageFileError: the file cannot be read, has other dimensions, or holds non-integers.
    """
    reader = VolumeReader(spatial_dims or (2, 3), allow_constant=True, labels=True)
    data, metadata = reader.get_data(reader.read(path))
    return Volume(data, np.asarray(metadata["original_affine"], dtype=np.float64))
