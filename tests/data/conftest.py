"""DICOM series for the tests of reading, writing and finding."""

from __future__ import annotations

import locale
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK

SPACING = (0.8, 0.9, 2.0)
ORIGIN = (10.0, 20.0, 30.0)
ANGLE = 0.3
# columns are the directions of rows, columns and slices in DICOM's LPS space: sagittal slices, tilted
DIRECTION = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]) @ np.array(
    [[np.cos(ANGLE), -np.sin(ANGLE), 0.0], [np.sin(ANGLE), np.cos(ANGLE), 0.0], [0.0, 0.0, 1.0]]
)


def _write_series(folder: Path, voxels: np.ndarray, uid: str = "1.2.3.4", first: int = 0) -> Path:
    """Write ``voxels`` ``(x, y, z)`` as DICOM slices with a position computed by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(voxels.shape[2]):
        image = SimpleITK.GetImageFromArray(voxels[:, :, k : k + 1].T.astype(np.int16))
        image.SetSpacing(SPACING)
        position = np.array(ORIGIN) + DIRECTION[:, 2] * SPACING[2] * k
        tags = {
            "0008|0060": "MR",
            "0008|0018": f"{uid}.{k + 1}",
            "0008|0021": "20200101",
            "0018|0050": str(SPACING[2]),
            "0020|000d": "1.2.3",
            "0020|000e": uid,
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{v:.8f}" for v in position),
            "0020|0037": "\\".join(f"{v:.10f}" for v in (*DIRECTION[:, 0], *DIRECTION[:, 1])),
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        # names whose order is not that of the slices
        writer.SetFileName(str(folder / f"slice{(first + 7 * k) % 100:02d}.dcm"))
        writer.Execute(image)
    return folder


@pytest.fixture
def write_series() -> Callable[..., Path]:
    """A function that writes voxels ``(x, y, z)`` as a DICOM series into a folder and returns the folder."""

    def write(*arguments: Any, **options: Any) -> Path:
        # writing DICOM leaves the locale "C" behind, which other tests would notice
        before = locale.setlocale(locale.LC_ALL)
        try:
            return _write_series(*arguments, **options)
        finally:
            locale.setlocale(locale.LC_ALL, before)

    return write


@pytest.fixture
def series_affine() -> np.ndarray:
    """The affine of such a series in RAS, from its tags."""
    affine = np.eye(4)
    affine[:3, :3] = DIRECTION * SPACING
    affine[:3, 3] = ORIGIN
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
