"""Open NIfTI files, with errors that name the file and the remedy, and make results on their grid."""

from __future__ import annotations

import gzip
import math
import os
import struct
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header, Nifti1Image, Nifti1Pair
from nibabel.nifti2 import Nifti2Header, Nifti2Image
from nibabel.spatialimages import HeaderDataError

from monai_unetpp.data.formats.grid import (
    ImageGeometry,
    channel_axes,
    check_grid,
    check_spacing,
    compare_geometry,
    warn_once,
)
from monai_unetpp.data.formats.image_errors import ImageFileError, check_regular_file, read_start, without_log
from monai_unetpp.data.formats.nifti_marks import READ_ERRORS

_GZIP_MAGIC = b"\x1f\x8b"
#: Longest axis of NIfTI-1, which NIfTI-2 exceeds.
_LONGEST = np.iinfo(np.int16).max
_HEADER_SIZES = {struct.pack(order + "i", size) for order in "<>" for size in (348, 540)}  # of NIfTI-1 and -2
#: Voxels of a large file read at once.
_SLAB_VOXELS = 2**22
#: Relative difference between the voxel sizes of ``pixdim`` and sform above which a warning is logged.
_NOTICEABLE_DIFFERENCE = 0.01
#: Bits of ``xyzt_units`` for the unit of length, and its codes.
_LENGTH_BITS, _MM, _OTHER_UNITS = 7, 2, {1: "meter", 3: "micron"}
#: Replaces unknown codes of sform and qform: "aligned".
_ALIGNED = 2
#: Beginning of nibabel's message about an invalid quaternion.
_NO_ROTATION = "w2 should be positive"
#: Deflated data hold at most this many times their size.
_MOST_DEFLATED = 1032


def header_beside(path: Path) -> Path | None:
    """The header whose voxels ``path`` holds, which lies beside it; None if there is none."""
    if path.suffix.lower() != ".img":
        return None
    return next((header for header in map(path.with_suffix, (".hdr", ".HDR")) if header.is_file()), None)


def open_nifti(path: str | PathLike[str]) -> Nifti1Pair:
    """Open a NIfTI file (single, or an ``.hdr``/``.img`` pair) and check its header, without reading voxels.

    An ``ImageFileError`` says why it is unusable.
    """
    path = Path(path)
    _check_content(path)
    try:
        with without_log(nibabel.imageglobals.logger):
            image = nibabel.load(path, mmap=False)
    except READ_ERRORS as e:
        if str(e).startswith(_NO_ROTATION):
            raise _no_rotation(path) from e
        reason = f" ({_first_line(e)})" if isinstance(e, HeaderDataError) else ""
        raise ImageFileError(f"{path}: not a NIfTI image, or damaged{reason}. Export or copy it again.") from e
    if not isinstance(image, Nifti1Pair):
        raise ImageFileError(
            f"{path}: an image of type {type(image).__name__} of unknown orientation. Convert it to NIfTI."
        )
    return _check_header(image, path)


def read_voxels(image: Nifti1Pair, path: str | Path, single: bool = False) -> np.ndarray[Any, Any]:
    """Read the voxels of an image from :func:`open_nifti`, scaled as in the header, in the machine's byte order.

    With ``single``, floats become float32, in half the memory; values too large for it become infinite. Damage, colours
    and complex numbers are an ``ImageFileError``.
    """
    image_class: Any = type(image)
    stored = image.get_data_dtype()
    if stored.fields is not None or stored.kind not in "biuf":
        kind = "colours" if stored.fields is not None else f"values of type {stored}"
        raise ImageFileError(f"{path}: holds {kind} instead of one real number per voxel. Convert it to grey values.")
    try:
        _check_size(image, stored.itemsize)
        if Path(path).name.lower().endswith(".gz"):
            with gzip.open(path) as stream, without_log(nibabel.imageglobals.logger):
                voxels = _scaled(image_class.from_stream(stream).dataobj, single)
                while stream.read(2**20):  # the checksum is only verified at the end of the stream
                    pass
        else:
            voxels = _scaled(image.dataobj, single)
    except READ_ERRORS as e:
        raise ImageFileError(f"{path}: damaged or cut off ({_first_line(e)}). Export or copy it again.") from e
    if voxels.dtype.itemsize > 8:
        return voxels.astype(np.float64)
    return voxels.astype(voxels.dtype.newbyteorder("="), copy=False)


def smallest_dtype(greatest: int) -> npt.DTypeLike:
    """The smallest of uint8, uint16 and int32 that holds labels up to ``greatest``."""
    return next(t for t in (np.uint8, np.uint16, np.int32) if greatest <= np.iinfo(t).max)


def nifti_class(shape: Sequence[int]) -> type[Nifti1Image]:
    """NIfTI-1, or NIfTI-2 if an axis is too long for it."""
    return Nifti2Image if max(shape, default=0) > _LONGEST else Nifti1Image


def on_affine(array: npt.NDArray[Any], affine: npt.NDArray[Any]) -> Nifti1Image:
    """An image of ``array`` ``(H, W[, D])`` with an affine ``(4, 4)``, in RAS and mm, of a source that is not NIfTI."""
    image = nifti_class(array.shape)(array, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    # a qform cannot hold shear, and SimpleITK prefers it to the sform
    if compare_geometry(ImageGeometry(array.shape, affine), ImageGeometry(array.shape, image.get_qform())) is not None:
        image.set_qform(None, code=0)
    image.header.set_xyzt_units("mm")
    return image


def on_nifti_grid(array: npt.NDArray[Any], source: Path) -> Nifti1Image:
    """Make an image of ``array`` ``(H, W[, D])`` with the header of ``source``, except for fields that describe values.

    Another shape than that of ``source`` is a ``ValueError``.
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


def _check_size(image: Nifti1Pair, itemsize: int) -> None:
    """Refuse a header that tells of more voxels than the file can hold, as nibabel would reserve their memory."""
    path = Path(image.file_map["image"].filename or "")
    told, held = math.prod(image.shape) * itemsize, path.stat().st_size
    if told > held * (_MOST_DEFLATED if path.name.lower().endswith(".gz") else 1):
        raise OSError(f"Expected {told} bytes, got {held} bytes from {path.name}")


def _check_content(path: Path) -> None:
    start = read_start(path, 4)
    # nibabel opens the other file of a pair as well
    for other in (path.with_suffix(suffix) for suffix in (".hdr", ".img") if path.suffix.lower() in (".hdr", ".img")):
        if os.path.lexists(other):
            check_regular_file(other)
    compressed, named_so = start.startswith(_GZIP_MAGIC), path.name.lower().endswith(".gz")
    if compressed and not named_so:
        raise ImageFileError(f"{path}: compressed with gzip, but its name says otherwise. Rename it to .nii.gz.")
    if named_so and not compressed:
        if start in _HEADER_SIZES:
            raise ImageFileError(f"{path}: not compressed, although its name ends in .gz. Rename it to .nii.")
        raise ImageFileError(f"{path}: not a NIfTI image, despite its name. Export or copy it again.")


def stored_step(image: Nifti1Pair) -> float:
    """The distance between neighbouring values in a file of scaled integers; 0 in a file of floats."""
    data: Any = image.dataobj
    return abs(float(data.slope)) if image.get_data_dtype().kind in "biu" else 0.0


def _scaled(data: Any, single: bool) -> np.ndarray[Any, Any]:
    unscaled = data.slope == 1 and data.inter == 0
    if unscaled and not (single and data.dtype.kind == "f"):
        return np.asarray(data)
    # nibabel scales in float64: slab by slab this takes little memory
    voxels = np.empty(data.shape, np.float32, order="F")
    step = max(1, _SLAB_VOXELS * data.shape[-1] // voxels.size)
    with np.errstate(over="ignore"):
        for start in range(0, data.shape[-1], step):
            voxels[..., start : start + step] = data[..., start : start + step]
    return voxels


def _check_header(image: Nifti1Pair, path: Path) -> Nifti1Pair:
    """Check the header, and apply the codes of sform and qform."""
    # nibabel corrects what it considers wrong, and only logs it
    with image.file_map.get("header", image.file_map["image"]).get_prepare_fileobj("rb") as file:
        stored: Nifti1Header = type(image).header_class.from_fileobj(file, check=False)
    offset, first = float(stored["vox_offset"]), stored.single_vox_offset
    if stored["magic"].item() == stored.single_magic and not offset >= first:
        raise ImageFileError(
            f"{path}: its header puts the voxels at byte {offset:g}, inside the header itself. Set "
            f"vox_offset to {first} if they begin there, or export it again."
        )
    image = _with_known_codes(image, stored, path)
    _check_voxel_size(image, stored, path)
    check_grid(image.shape, image.affine, path)
    _warn_of_doubtful_geometry(image, path)
    return image


def _with_known_codes(image: Nifti1Pair, stored: Nifti1Header, path: Path) -> Nifti1Pair:
    """Use sform and qform if their code is above 0, even if the standard does not know it."""
    header = image.header.copy()
    for name in ("sform", "qform"):
        code, known = int(stored[f"{name}_code"]), int(header[f"{name}_code"])
        if code != known:
            used = "used anyway" if code > 0 else "not used"
            header[f"{name}_code"] = _ALIGNED if code > 0 else 0
            warn_once(
                f"{path}: its {name}_code {code} is not in the standard; the {name} is {used}. Set the code to 0 to 5."
            )
    if header == image.header:
        return image
    try:
        affine = header.get_best_affine()
    except (HeaderDataError, ValueError) as e:
        raise _no_rotation(path) from e
    check_grid(image.shape, affine, path)
    return type(image)(image.dataobj, affine, header, file_map=image.file_map)


def _no_rotation(path: Path) -> ImageFileError:
    return ImageFileError(
        f"{path}: its qform is not a rotation. Correct the quaternion in its header, or export it again."
    )


def _check_voxel_size(image: Nifti1Pair, stored: Nifti1Header, path: Path) -> None:
    """Check that ``pixdim`` is possible, and compare it with the sform."""
    header = image.header
    long = [axis for axis, length in enumerate(image.shape[:3]) if length > 1]
    given = np.asarray(stored["pixdim"][1:4], dtype=np.float64)[long]
    if header["sform_code"] <= 0:
        check_spacing([float(size) for size in given], path)
        return
    size = np.linalg.norm(image.affine[:3, :3], axis=0)[long]
    if not np.allclose(given, size, rtol=_NOTICEABLE_DIFFERENCE, atol=0):
        shown = [" x ".join(f"{length:.4g}" for length in lengths) for lengths in (given, size)]
        warn_once(
            f"{path}: its pixdim gives the voxel size {shown[0]} mm, its sform {shown[1]} mm; the sform is used. If it "
            "is wrong, set sform_code to 0."
        )
    elif header["qform_code"] > 0:
        _compare_forms(image, path)


def _compare_forms(image: Nifti1Pair, path: Path) -> None:
    try:
        qform: npt.NDArray[np.float64] | None = image.header.get_qform()
    except (HeaderDataError, ValueError):  # an invalid quaternion
        qform = None
    if qform is None or not np.isfinite(qform).all():
        warn_once(f"{path}: its qform is not a rotation; the sform is used. Set qform_code to 0.")
        return
    shape = image.shape[:3]
    difference = compare_geometry(ImageGeometry(shape, image.affine), ImageGeometry(shape, qform))
    if difference is not None:
        warn_once(
            f"{path}: sform and qform disagree: by the qform {difference}; the sform is used. If it is wrong, set "
            "sform_code to 0."
        )


def _warn_of_doubtful_geometry(image: Nifti1Pair, path: Path) -> None:
    header = image.header
    if header["sform_code"] <= 0 and header["qform_code"] <= 0:
        warn_once(
            f"{path}: neither sform nor qform is set, so its orientation is unknown; axes are assumed to run from "
            "right to left, posterior to anterior, inferior to superior. Left and right may be swapped: set the sform, "
            "or convert the image again."
        )
    code = int(header["xyzt_units"]) & _LENGTH_BITS
    unit = _OTHER_UNITS.get(code, f"a unit of unknown code {code}")
    if code not in (0, _MM):
        warn_once(
            f"{path}: its header gives lengths in {unit}; they are read as mm. If that is wrong, convert them and the "
            "unit in xyzt_units."
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
