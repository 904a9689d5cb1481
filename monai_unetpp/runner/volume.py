"""An image in the steps of the pipeline, with the inverses for its labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_unetpp.data.formats.grid import channel_axes, check_grid, spatial_axes, transform_affine
from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.formats.nifti import is_nifti_name, open_nifti, read_voxels
from monai_unetpp.data.formats.voxel_checks import check_not_constant, make_finite
from monai_unetpp.errors import counted

Array = npt.NDArray[Any]
#: Labels, or the probability of one, ``(H, W[, D])`` and the affine of their grid.
OnGrid = tuple[Array, Array]


@dataclasses.dataclass
class Volume:
    """An image.

    Attributes:
        voxels: ``(C, H, W[, D])`` in float32.
        affine: ``(4, 4)``, from voxel indices to mm.
        path: the file.
        inverses: the inverses of the steps so far, called in reverse order, with True to interpolate linearly.
        moving: number of first steps that only move voxels.
    """

    voxels: Array
    affine: Array
    path: Path
    inverses: list[Callable[[OnGrid, bool], OnGrid]] = dataclasses.field(default_factory=list)
    moving: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each spatial axis."""
        return self.voxels.shape[1:]

    def add_inverse(self, inverse: Callable[[OnGrid, bool], OnGrid], *, is_moving: bool = True) -> None:
        """Add the inverse of a step, which may only move voxels."""
        self.moving += is_moving and self.moving == len(self.inverses)
        self.inverses.append(inverse)

    def bring_back(self, found: OnGrid, steps: slice = slice(None), linear: bool = False) -> OnGrid:
        """Bring a map ``(H, W[, D])`` of the preprocessed image to the grid of the file.

        Args:
            found: labels, or the probabilities of one label.
            steps: the steps to undo.
            linear: whether to resample linearly, for probabilities.
        """
        for inverse in reversed(self.inverses[steps]):
            found = inverse(found, linear)
        return found


def read_volume(path: Path, reading: Mapping[str, Any]) -> Volume:
    """Read a NIfTI file for the pipeline.

    Args:
        path: the file.
        reading: ``reading`` of a :class:`monai_unetpp.runner.Pipeline`.

    Raises:
        ImageFileError: the file is missing, damaged or not NIfTI, has another number of axes or channels, or voxels
            that are not finite or all the same.
    """
    if not is_nifti_name(path):
        raise ImageFileError(
            f"{path}: the runner reads NIfTI (.nii, .nii.gz, .hdr, .img) only. Convert it; monai-unetpp segment reads "
            "DICOM, NRRD, MetaImage and, for networks of images, pictures."
        )
    image = open_nifti(path)
    axes, channels = _find_axes(image.shape, reading, path)
    voxels = make_finite(read_voxels(image, path, single=True), path, reading["fill_nonfinite"])
    check_grid(image.shape, image.affine, path)
    affine = image.affine[:, [*axes, *(axis for axis in range(4) if axis not in axes)]]
    size = tuple(image.shape[axis] for axis in axes)
    channels_first = np.moveaxis(voxels.reshape((*size, channels)), -1, 0)
    if not reading["allow_constant"]:
        check_not_constant(list(channels_first), path)
    return Volume(channels_first.astype(np.float32), transform_affine(affine, len(axes)), path)


def _find_axes(shape: tuple[int, ...], reading: Mapping[str, Any], path: Path) -> tuple[tuple[int, ...], int]:
    dims, wanted = reading["spatial_dims"], reading["channels"]
    if wanted == 1:
        axes, channels = spatial_axes(shape, dims), 1
    else:
        axes, channels = channel_axes(shape, dims[0])
    if axes is None or channels != wanted:
        needed = " or ".join(f"{count}" for count in dims)
        remedy = (
            "Store the part that the network needs in a separate file."
            if wanted == 1
            else "Join the channels on the last axis of one file, or use monai-unetpp segment."
        )
        raise ImageFileError(
            f"{path}: must have {needed} axes and {counted(wanted, 'channel')}, got shape {tuple(shape)}. {remedy}"
        )
    return axes, channels
