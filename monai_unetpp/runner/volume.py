"""An image in the steps of the pipeline, with the inverses for its labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_unetpp.data.formats.grid import channel_axes, check_grid, spatial_axes, transform_affine
from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.formats.nifti import open_nifti, read_voxels
from monai_unetpp.data.formats.suffixes import is_nifti_name, is_picture_name
from monai_unetpp.data.formats.voxel_checks import check_not_constant, make_finite
from monai_unetpp.errors import counted
from monai_unetpp.runner.other_formats import read_other

Array = npt.NDArray[Any]
#: Labels, or the probability of one, ``(H, W[, D])`` and the affine of their grid.
OnGrid = tuple[Array, Array]
#: Voxels ``(C, H, W[, D])``, and of the file its affine, its shape, and which of its axes are spatial.
_Stored = tuple[Array, Array, tuple[int, ...], tuple[int, ...]]


@dataclasses.dataclass
class Volume:
    """An image.

    Attributes:
        voxels: ``(C, H, W[, D])`` in float32.
        affine: ``(4, 4)``, from voxel indices to mm.
        path: the file.
        stored_affine: ``(4, 4)``, from indices along the axes of the result to mm.
        inverses: the inverses of the steps so far, called in reverse order, with True to interpolate linearly.
        moving: number of first steps that only move voxels.
    """

    voxels: Array
    affine: Array
    path: Path
    stored_affine: Array
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
        """Bring labels, or with ``linear`` the probabilities of one, from after some steps to the grid before them."""
        for inverse in reversed(self.inverses[steps]):
            found = inverse(found, linear)
        return found


def read_volume(path: Path, reading: Mapping[str, Any]) -> Volume:
    """Read an image file as the ``reading`` of a ``Pipeline`` says.

    Raises:
        ImageFileError: the file is missing, damaged or of a format that cannot be read, has another number of axes or
            channels, or voxels that are not finite or all the same.
    """
    read = _read_nifti if is_nifti_name(path) else _read_other
    voxels, stored_affine, shape, axes = read(path, reading)
    voxels = make_finite(voxels, path, reading["fill_nonfinite"])
    check_grid(shape, stored_affine, path)
    affine = stored_affine[:, [*axes, *(axis for axis in range(4) if axis not in axes)]]
    if not reading["allow_constant"]:
        # a picture may lack a colour
        check_not_constant([voxels] if is_picture_name(path) else list(voxels), path)
    return Volume(voxels.astype(np.float32), transform_affine(affine, len(axes)), path, affine)


def _read_nifti(path: Path, reading: Mapping[str, Any]) -> _Stored:
    image = open_nifti(path)
    dims, wanted = reading["spatial_dims"], reading["channels"]
    if wanted == 1:
        axes, channels = spatial_axes(image.shape, dims), 1
    else:
        axes, channels = channel_axes(image.shape, dims[0])
    if channels != wanted:
        axes = None
    axes = _checked(axes, image.shape, reading, path)
    size = tuple(image.shape[axis] for axis in axes)
    voxels = read_voxels(image, path, single=True).reshape((*size, wanted))
    return np.moveaxis(voxels, -1, 0), image.affine, image.shape, axes


def _read_other(path: Path, reading: Mapping[str, Any]) -> _Stored:
    voxels, affine = read_other(path, reading)
    shape = voxels.shape[1:]
    axes = _checked(spatial_axes(shape, reading["spatial_dims"]), shape, reading, path)
    return voxels.reshape((len(voxels), *(shape[axis] for axis in axes))), affine, shape, axes


def _checked(
    axes: tuple[int, ...] | None, shape: Sequence[int], reading: Mapping[str, Any], path: Path
) -> tuple[int, ...]:
    if axes is not None:
        return axes
    wanted = reading["channels"]
    needed = " or ".join(f"{count}" for count in reading["spatial_dims"])
    if len(shape) < min(reading["spatial_dims"]):
        remedy = "Join the slices into one volume."
    elif wanted == 1:
        remedy = "Store the part that the network needs in a separate file."
    else:
        remedy = "Join the channels on the last axis of one file, or use monai-unetpp segment."
    raise ImageFileError(
        f"{path}: must have {needed} axes and {counted(wanted, 'channel')}, got shape {tuple(shape)}. {remedy}"
    )
