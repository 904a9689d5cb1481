"""Hash the voxels of an image, to recognize it under any name and in any format."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_unetpp.data.formats.nifti import open_nifti, read_voxels
from monai_unetpp.data.formats.reader import VolumeReader
from monai_unetpp.data.formats.source_files import file_state
from monai_unetpp.data.formats.suffixes import is_nifti_name

#: Hashes of image files by their paths, sizes and times, so that no file is read twice for its hash.
_known: dict[str, str] = {}

_Image = str | PathLike[str] | Sequence[str | PathLike[str]] | npt.NDArray[Any]


def hash_voxels(image: _Image) -> str:
    """SHA-256 of an image's shape and voxels, whatever the name, format, compression and header of its files.

    After a colon comes a second hash, which stays the same where axes are reversed or exchanged, as when a scan is
    stored again with other directions of its axes: see :func:`split_hash`.

    The image is a file, one file per channel, or the voxels ``(H, W[, D][, C])``. Channels in one or in several files
    give the same hash. Axes of length 1 are ignored, and values are compared as float32. Of the colours of a picture,
    only the mean counts. Files whose hash is known are not read again unless they have changed.
    """
    if isinstance(image, np.ndarray):
        return _hash(image)
    paths = _paths(image)
    identity = file_state(paths)
    if identity not in _known:
        _known[identity] = _hash(_voxels(paths))
    return _known[identity]


def has_one_value(image: str | PathLike[str] | Sequence[str | PathLike[str]]) -> bool:
    """Whether all voxels of an image's files are equal: all empty fields of view are alike, and yet not the same."""
    voxels = _voxels(_paths(image))
    return bool(voxels.min() == voxels.max())


def split_hash(voxels: str) -> list[str]:
    """The parts of a hash by :func:`hash_voxels`: images are the same if they share one.

    Older records have the first part alone, so that other directions of the axes hide the image.
    """
    return voxels.split(":")


def describe_repeat(voxels: str, first: str) -> str:
    """How an image is like an earlier one that is the same, for messages: before its name."""
    turned = "" if voxels == first else ", with other directions or another order of axes,"
    return f"the same image{turned} as"


def keep_hash(paths: Sequence[Path], voxels: str) -> None:
    """Keep the :func:`hash_voxels` of an image's files, for as long as this process runs and they do not change."""
    _known[file_state(paths)] = voxels


def _paths(image: str | PathLike[str] | Sequence[str | PathLike[str]]) -> list[Path]:
    return [Path(image)] if isinstance(image, (str, PathLike)) else [Path(path) for path in image]


def _voxels(paths: Sequence[Path]) -> npt.NDArray[Any]:
    if len(paths) > 1 and all(path.suffix.lower() != ".dcm" for path in paths):
        return np.stack([np.squeeze(_read([path])) for path in paths], axis=-1)
    return _read(paths)


def _read(paths: Sequence[Path]) -> npt.NDArray[Any]:
    if len(paths) == 1 and is_nifti_name(paths[0]):
        # with all axes: the last one may be channels
        return read_voxels(open_nifti(paths[0]), paths[0], single=True)
    reader = VolumeReader((2, 3), allow_constant=True)
    return reader.get_data(reader.read(paths))[0]


def _hash(voxels: npt.NDArray[Any]) -> str:
    # adding 0 makes the only copy, in which zero has one sign
    plain = np.atleast_1d(np.add(np.squeeze(voxels), np.float32(0), dtype="<f4", order="C"))
    digest = hashlib.sha256(repr(plain.shape).encode())
    digest.update(plain.data)
    return f"{digest.hexdigest()}:{_hash_of_axes(plain.view('<u4'))}"


def _hash_of_axes(bits: npt.NDArray[np.uint32]) -> str:
    """SHA-256 of the sums along each axis, in either direction, in any order of axes: of integers they are exact."""
    axes = range(bits.ndim)
    sums = [bits.sum(axis=tuple(other for other in axes if other != axis), dtype="<u8") for axis in axes]
    directions = sorted(
        (min(each.tobytes(), each[::-1].tobytes()) for each in sums), key=lambda each: (len(each), each)
    )
    return hashlib.sha256(b"".join(directions)).hexdigest()
