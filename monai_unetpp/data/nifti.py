"""Opening NIfTI files with errors that name the file and the remedy."""

from __future__ import annotations

import gzip
import logging
import struct
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError as NibabelFileError
from nibabel.nifti1 import Nifti1Pair
from nibabel.spatialimages import HeaderDataError

from monai_unetpp.data.errors import ImageFileError

__all__ = ["NIFTI_SUFFIXES", "check_affine", "is_nifti_name", "open_nifti", "read_voxels", "stored_step"]

logger = logging.getLogger(__name__)

NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img")

_GZIP_MAGIC = b"\x1f\x8b"
_HEADER_SIZES = {struct.pack(order + "i", size) for order in "<>" for size in (348, 540)}  # how NIfTI-1 and -2 begin
#: Voxels of a large file that are read at once.
_SLAB_VOXELS = 2**22
# Beyond this ratio of the longest to the shortest axis a matrix cannot be inverted to the precision of a header.
_LARGEST_CONDITION = 1e6
_READ_ERRORS = (NibabelFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error, OverflowError)


def is_nifti_name(path: str | PathLike[str]) -> bool:
    """Whether the name of ``path`` ends as NIfTI files do."""
    return Path(path).name.lower().endswith(NIFTI_SUFFIXES)


def open_nifti(path: str | PathLike[str]) -> Nifti1Pair:
    """Open a NIfTI file (one file, or an ``.hdr``/``.img`` pair) and check its header; voxels are not read.

    Args:
        path: the file.

    Raises:
        ImageFileError: it is missing, empty, not NIfTI, damaged, or its affine is singular.
    """
    path = Path(path)
    _check_content(path)
    try:
        image = nibabel.load(path, mmap=False)
    except _READ_ERRORS as e:
        raise ImageFileError(f"{path}: not a NIfTI image, or a damaged one. Export or copy it again.") from e
    if not isinstance(image, Nifti1Pair):
        raise ImageFileError(
            f"{path}: an image of type {type(image).__name__}, whose orientation is not known. Convert it to NIfTI."
        )
    if 0 in image.shape or not image.shape:
        raise ImageFileError(f"{path}: empty, its shape is {image.shape}. Export it again.")
    check_affine(image.affine, path)
    _warn_of_doubtful_geometry(image, path)
    return image


def read_voxels(image: Nifti1Pair, path: str | Path, single: bool = False) -> np.ndarray[Any, Any]:
    """The voxels of an image from :func:`open_nifti`, scaled as the header says, in the machine's byte order.

    Args:
        image: the image.
        path: its file.
        single: whether floats become float32, in half the memory; what is too large for it becomes infinite.

    Raises:
        ImageFileError: the file is damaged, or holds colours or complex numbers.
    """
    image_class: Any = type(image)
    stored = image.get_data_dtype()
    if stored.fields is not None or stored.kind not in "biuf":
        kind = "colours" if stored.fields is not None else f"values of type {stored}"
        raise ImageFileError(
            f"{path}: holds {kind}, but one real number per voxel is needed. Convert it to grey values."
        )
    try:
        if Path(path).name.lower().endswith(".gz"):
            with gzip.open(path) as stream:
                voxels = _scaled(image_class.from_stream(stream).dataobj, single)
                while stream.read(2**20):  # the checksum is only verified at the end of the stream
                    pass
        else:
            voxels = _scaled(image.dataobj, single)
    except _READ_ERRORS as e:
        raise ImageFileError(f"{path}: damaged or cut off ({_first_line(e)}). Export or copy it again.") from e
    if voxels.dtype.itemsize > 8:
        return voxels.astype(np.float64)
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)


def check_affine(affine: np.ndarray[Any, Any], path: str | Path) -> None:
    """Refuse an affine from which no position can be computed.

    Raises:
        ImageFileError: the affine has non-finite numbers, or its axes do not span space.
    """
    axes = np.asarray(affine, dtype=np.float64)[:3, :3]
    if not np.isfinite(affine).all() or np.linalg.cond(axes) > _LARGEST_CONDITION:
        raise ImageFileError(
            f"{path}: its affine is singular, axes {axes.round(6).tolist()}, so that no position is known. "
            "Repair the sform or qform of its header."
        )


def _check_content(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError as e:
        raise ImageFileError(f"{path}: no such file. Check the path.") from e
    except OSError as e:
        raise ImageFileError(f"{path}: cannot be opened ({e.strerror}). Check the path and its permissions.") from e
    if not start:
        raise ImageFileError(f"{path}: empty, it has 0 bytes. Export or copy it again.")
    compressed, named_so = start.startswith(_GZIP_MAGIC), path.name.lower().endswith(".gz")
    if compressed and not named_so:
        raise ImageFileError(
            f"{path}: compressed with gzip, but its name does not say so. Let its name end in .nii.gz."
        )
    if named_so and not compressed:
        if start in _HEADER_SIZES:
            raise ImageFileError(f"{path}: not compressed, although its name ends in .gz. Let its name end in .nii.")
        raise ImageFileError(f"{path}: not a NIfTI image, although it is named like one. Export or copy it again.")


def stored_step(image: Nifti1Pair) -> float:
    """The distance of neighbouring values in a file that holds scaled integers; 0 where it holds real numbers.

    Args:
        image: from :func:`open_nifti`.
    """
    data: Any = image.dataobj
    return abs(float(data.slope)) if image.get_data_dtype().kind in "biu" else 0.0


def _scaled(data: Any, single: bool) -> np.ndarray[Any, Any]:
    unscaled = data.slope == 1 and data.inter == 0
    if unscaled and not (single and data.dtype.kind == "f"):
        return np.asarray(data)
    # nibabel scales in float64: slab by slab that takes little memory
    voxels = np.empty(data.shape, np.float32, order="F")
    step = max(1, _SLAB_VOXELS * data.shape[-1] // voxels.size)
    with np.errstate(over="ignore"):
        for start in range(0, data.shape[-1], step):
            voxels[..., start : start + step] = data[..., start : start + step]
    return voxels


def _warn_of_doubtful_geometry(image: Nifti1Pair, path: Path) -> None:
    header = image.header
    if header["sform_code"] <= 0 and header["qform_code"] <= 0:
        logger.warning(
            "%s: neither sform nor qform is set, so its orientation is not known; axes are taken as right to left, "
            "posterior to anterior, inferior to superior. Left and right may be swapped.",
            path,
        )
    unit = header.get_xyzt_units()[0]
    if unit in ("meter", "micron"):
        logger.warning("%s: its header gives lengths in %s; they are taken as mm.", path, unit)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
