"""Read images for MONAI's ``LoadImage``, label maps and grids of any format, with their geometry as stored."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from monai_unetpp.data.formats.dicom import is_dicom_file, read_dicom, stack_series
from monai_unetpp.data.formats.grid import (
    ImageGeometry,
    channel_axes,
    check_grid,
    check_same_grid,
    shorten_shape,
    spatial_axes,
    transform_affine,
)
from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.formats.itk_images import read_itk_file, read_itk_header
from monai_unetpp.data.formats.label_values import as_integers
from monai_unetpp.data.formats.nifti import open_nifti, read_voxels, stored_step
from monai_unetpp.data.formats.pictures import read_colours, read_picture, read_picture_shape
from monai_unetpp.data.formats.source_files import file_state, note_sources
from monai_unetpp.data.formats.suffixes import (
    IMAGE_SUFFIXES,
    ITK_SUFFIXES,
    NIFTI_SUFFIXES,
    PICTURE_SUFFIXES,
    is_itk_name,
    is_nifti_name,
    is_picture_name,
)
from monai_unetpp.data.formats.tiff import COLOURS
from monai_unetpp.data.formats.voxel_checks import check_not_constant, make_finite

# DICOM files often have no suffix, and are recognized by their content.
_SUPPORTED = (
    f"NIfTI ({', '.join(NIFTI_SUFFIXES)}), {', '.join((*ITK_SUFFIXES, *PICTURE_SUFFIXES))}, or a folder with a DICOM "
    "series"
)


_Array = npt.NDArray[Any]
#: An image and its metadata.
_Loaded = tuple[_Array, dict[str, Any]]


class VolumeReader(ImageReader):
    """Read NIfTI, DICOM series, ITK's own formats, PNG, JPEG and TIFF, or say in one line what is wrong with a file.

    MONAI's ``NibabelReader`` may silently replace a file's sform by its qform. Here positions come from the sform if
    its code is set, else from the qform, else, with a warning, from nibabel's default; nothing is corrected.

    Pictures (PNG, JPEG, TIFF) are read as ``(W, H)`` grey values with pixels of 1 mm; colours are averaged, unless the
    image must have three channels. A TIFF of several pages is a volume.

    Args:
        spatial_dims: number of axes that an image must have, 2 or 3, or both if either is allowed; other axes of length
            one are dropped.
        allow_constant: whether an image may have the same value everywhere, as a label map may.
        fill_nonfinite: replaces NaN and infinite voxels; with None they are an error.
        channels: channels of an image. If there are several, they are files of their own, or a single NIfTI file holds
            them on its last axis, as in the Medical Segmentation Decathlon. Three may also be red, green and blue of a
            single picture; one in grey is all three alike, with a warning. With 1 several files are read as well.
        labels: whether images are label maps. They become integers, even if a file stores them scaled or rounded (0.996
            for 1); other fractions are an error; see :func:`.as_integers`. Pictures are
            read as stored: palette indices instead of colours, and grey values of fewer than 8 bits without stretching;
            colours are an error.

    Several files form one image: slices of a DICOM series, or channels on the same grid.

    In a configuration, the reader can be an object with arguments, or a name:

    .. code-block:: json

        {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": true,
         "reader": {"_target_": "monai_unetpp.data.VolumeReader", "spatial_dims": 3}}

    Raises:
        ImageFileError: when loading: a file is missing, empty, damaged or unsupported, or has another number of axes,
            several values per voxel, non-finite or constant voxels, or a singular affine.
    """

    def __init__(
        self,
        spatial_dims: int | Sequence[int] = 3,
        allow_constant: bool = False,
        fill_nonfinite: float | None = None,
        channels: int = 1,
        labels: bool = False,
    ) -> None:
        super().__init__()
        # LoadImage creates all of MONAI's readers. With pydicom installed, one that is never used here warns each time
        # that a GPU decoder is missing.
        warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
        of_plugin = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin")
        if of_plugin.level != logging.ERROR:  # setting it makes all loggers forget what they look up
            of_plugin.setLevel(logging.ERROR)
        self.spatial_dims = ensure_tuple(spatial_dims)
        if not self.spatial_dims or not set(self.spatial_dims) <= {2, 3}:
            raise ValueError(f"spatial_dims must be 2 or 3, or both, got {spatial_dims!r}.")
        if channels < 1 or (channels > 1 and len(self.spatial_dims) > 1):
            raise ValueError(
                f"channels must be 1 or more, and 1 if spatial_dims is (2, 3), got {channels!r}. Give one of "
                "spatial_dims."
            )
        self.channels = channels
        self.allow_constant = allow_constant
        self.fill_nonfinite = fill_nonfinite
        self.labels = labels

    def verify_suffix(self, filename: Sequence[str | PathLike[str]] | str | PathLike[str]) -> bool:
        """Whether all of ``filename`` are DICOM or have a supported suffix."""
        paths = [Path(name) for name in ensure_tuple(filename)]
        return all(path.is_dir() or path.name.lower().endswith(IMAGE_SUFFIXES) or is_dicom_file(path) for path in paths)

    def read(self, data: Sequence[str | PathLike[str]] | str | PathLike[str], **kwargs: Any) -> tuple[Path, ...]:
        """Return the paths; :meth:`get_data` opens them.

        If this method failed, ``LoadImage`` would try other readers, and lose the reason or read the file differently.
        """
        return tuple(Path(path) for path in ensure_tuple(data))

    def get_data(self, img: tuple[Path, ...]) -> _Loaded:
        """Read the files from :meth:`read`.

        Returns:
            Array ``(H, W[, D])``, or ``(C, H, W[, D])`` for several files or channels, and metadata with the affine in
            RAS, mm.
        """
        state = None
        with contextlib.suppress(OSError):  # reading tells what is wrong
            state = file_state(img)
        array, metadata = self._read_image(img)
        found = len(array) if metadata[MetaKeys.ORIGINAL_CHANNEL_DIM] == 0 else 1
        if self.channels > 1 and found != self.channels:
            raise ImageFileError(
                f"{img[0]}: the image must have {self.channels} channels for this network, got {found}. Give one file "
                "per channel, or one NIfTI file with the channels on its last axis."
            )
        note_sources(metadata, img, state)
        return array, metadata

    def _read_image(self, img: tuple[Path, ...]) -> _Loaded:
        if all(not is_nifti_name(path) and is_dicom_file(path) for path in img):
            return self._read_dicom(img)
        if self.channels > 1 and len(img) == 1:
            if self.channels == COLOURS and is_picture_name(img[0]):
                return self._along_axes(read_colours(img[0]), np.eye(4), img[0], channels=(COLOURS,))
            return self._read_channels(img[0])
        images = [self._read_dicom([path]) if path.is_dir() else self._read_file(path) for path in img]
        array, metadata = images[0]
        if len(images) == 1:
            return array, metadata
        grids = [ImageGeometry(voxels.shape, found[MetaKeys.ORIGINAL_AFFINE]) for voxels, found in images]
        for path, grid in zip(img, grids, strict=True):
            check_same_grid(path, grid, img[0], grids[0])
        metadata[MetaKeys.ORIGINAL_CHANNEL_DIM] = 0
        return np.stack([array for array, _ in images]), metadata

    def _read_dicom(self, paths: Sequence[Path]) -> _Loaded:
        array, affine = read_dicom(paths)
        if 2 not in self.spatial_dims and array.shape[2] == 1:
            raise ImageFileError(
                f"{paths[0]}: a single slice instead of a volume. Name the folder of the whole series."
            )
        return self._along_axes(array, affine, paths[0])

    def _read_channels(self, path: Path) -> _Loaded:
        """Read one file with all channels."""
        image = open_nifti(path) if is_nifti_name(path) else None
        axes, channels = ((), 0) if image is None else channel_axes(image.shape, self.spatial_dims[0])
        if image is None or channels != self.channels:
            shape = "another file" if image is None else f"shape {image.shape}"
            raise ImageFileError(
                f"{path}: must be NIfTI with {self.channels} channels on its last axis, got {shape}. Convert it, or "
                "give a folder with one file per channel, such as case_0000 and case_0001."
            )
        spatial = tuple(image.shape[axis] for axis in axes)
        voxels = read_voxels(image, path, single=True).reshape((*spatial, self.channels))
        return self._checked(np.moveaxis(voxels, -1, 0), image.affine, image.shape, axes, path)

    def _read_file(self, path: Path) -> _Loaded:
        if is_nifti_name(path):
            image = open_nifti(path)
            self._find_axes(image.shape, path)  # before the voxels of a long series are read
            voxels = read_voxels(image, path, single=not self.labels)
            if self.labels:
                voxels = as_integers(voxels, path, stored_step(image))
            return self._along_axes(voxels, image.affine, path)
        if is_itk_name(path):
            return self._along_axes(*read_itk_file(path), path)
        if is_picture_name(path):
            return self._along_axes(read_picture(path, self.labels), np.eye(4), path)
        raise _not_supported(path)

    def _along_axes(self, array: _Array, affine: _Array, path: Path, channels: tuple[int, ...] = ()) -> _Loaded:
        """Take the spatial axes of an array, whose first axes are ``channels`` if it has several, and check it."""
        shape = array.shape[len(channels) :]
        axes = self._find_axes(shape, path)
        return self._checked(array.reshape((*channels, *(shape[axis] for axis in axes))), affine, shape, axes, path)

    def _checked(
        self, voxels: _Array, affine: _Array, shape: Sequence[int], axes: tuple[int, ...], path: Path
    ) -> _Loaded:
        """Check the voxels ``([C, ]H, W[, D])`` of one file, which is stored with ``shape``."""
        voxels = as_integers(voxels, path) if self.labels else make_finite(voxels, path, self.fill_nonfinite)
        has_channels = voxels.ndim > len(axes)
        if not self.allow_constant:
            # a picture may lack a colour
            separate = has_channels and not is_picture_name(path)
            check_not_constant(list(voxels) if separate else [voxels], path)
        metadata = _metadata(affine, shape, axes, path)
        if has_channels:
            metadata[MetaKeys.ORIGINAL_CHANNEL_DIM] = 0
        return voxels, metadata

    def _find_axes(self, shape: Sequence[int], path: Path) -> tuple[int, ...]:
        """Find the spatial axes; all others must have length one."""
        axes = spatial_axes(shape, self.spatial_dims)
        if axes is not None:
            return axes
        stored = tuple(int(length) for length in shape)
        if self.labels:
            needed = " or ".join(f"{dims}D" for dims in sorted(self.spatial_dims))
            raise ImageFileError(f"{path}: the label must be {needed}, got shape {stored}. Give one label map.")
        fewest, most = min(self.spatial_dims), max(self.spatial_dims)
        needed = "a volume with three axes" if fewest == 3 else "an image with two axes"
        raise ImageFileError(f"{path}: must be {needed}, got shape {stored}. {_remedy(stored, most)}")


@dataclasses.dataclass(frozen=True)
class Volume:
    """Voxels and their affine.

    Attributes:
        data: ``(H, W[, D])``.
        affine: ``(4, 4)``, from voxel indices to mm; in 2D the third column is that of an axis of length one.
    """

    data: _Array
    affine: npt.NDArray[np.float64]

    @property
    def grid(self) -> ImageGeometry:
        """Shape and affine."""
        return ImageGeometry(self.data.shape, self.affine)


def read_label_map(path: Path, spatial_dims: int | None = None) -> Volume:
    """Read a label map as stored, ``(H, W[, D])`` of integers; anything else is an ``ImageFileError``.

    ``spatial_dims`` does not count axes of length 1; None takes those of the file without trailing ones.
    """
    reader = VolumeReader(spatial_dims or (2, 3), allow_constant=True, labels=True)
    data, metadata = reader.get_data(reader.read(path))
    return Volume(data, np.asarray(metadata["original_affine"], dtype=np.float64))


def read_geometry(path: str | Path) -> ImageGeometry:
    """Read the grid of an image file or a DICOM series from its headers.

    Pixels of PNG, JPEG and TIFF count as 1 mm wide.

    Raises:
        ImageFileError: a header cannot be read; see :class:`monai_unetpp.data.VolumeReader`.
    """
    path = Path(path)
    if is_nifti_name(path):
        image = open_nifti(path)
        return ImageGeometry(shorten_shape(image.shape), np.asarray(image.affine, dtype=np.float64))
    if path.is_dir() or is_dicom_file(path):
        planes, affine = stack_series([path])
        grid = ImageGeometry((*planes[0].size, len(planes)), affine)
        check_grid(grid.shape, affine, path)
        return grid
    if is_itk_name(path):
        shape, affine = read_itk_header(path)
        return ImageGeometry(shorten_shape(shape), affine)
    if is_picture_name(path):
        return ImageGeometry(shorten_shape(read_picture_shape(path), 2), np.eye(4))
    raise _not_supported(path)


def _not_supported(path: Path) -> ImageFileError:
    """The error for a file in an unsupported format."""
    if not path.exists():
        return ImageFileError(f"{path}: no such file or folder. Check the path.")
    return ImageFileError(f"{path}: not a supported image. Give {_SUPPORTED}.")


def _remedy(shape: tuple[int, ...], dims: int) -> str:
    """How to turn an image of ``shape`` into one with ``dims`` axes."""
    if len(shape) < dims:
        return "Join the slices into one volume."
    squeezed = tuple(length for length in shape if length > 1)
    further = [length for length in shape[3:] if length > 1]
    if 1 in shape[:3] and len(squeezed) == dims:
        return (
            f"If it is one image, store it with shape {squeezed} and the affine of these axes; if its last axis is "
            "channels or time, store the one that the network needs."
        )
    if further:
        return (
            f"Beyond its third axis it holds {math.prod(further)} channels, components or time points: store the one "
            "that the network needs in a separate file."
        )
    return "Extract one slice or channel, or use a network for volumes."


def _metadata(stored: _Array, shape: Sequence[int], axes: tuple[int, ...], path: Path) -> dict[str, Any]:
    """Metadata of the image along ``axes``; the columns of the affines are these axes, then the others.

    The original affine is that in space; see :func:`.transform_affine` for the other.
    """
    affine = np.eye(4)
    size = len(stored) - 1
    affine[:size, :size] = stored[:size, :size]
    affine[:size, 3] = stored[:size, size]
    check_grid(shape, affine, path)
    affine = affine[:, [*axes, *(axis for axis in range(4) if axis not in axes)]]
    return {
        MetaKeys.AFFINE: transform_affine(affine, len(axes)),
        MetaKeys.ORIGINAL_AFFINE: affine,
        MetaKeys.SPATIAL_SHAPE: np.asarray([shape[axis] for axis in axes]),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
    }
