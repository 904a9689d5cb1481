"""The files of results: their names, what may be replaced, and how they are written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel

from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.formats.itk_images import detached_files
from monai_unetpp.data.formats.nifti import on_affine, on_nifti_grid, smallest_dtype
from monai_unetpp.data.formats.nifti_marks import ImageIdentity, hash_file, hash_voxels, nifti_mark, nifti_pair
from monai_unetpp.data.formats.result_marks import RUN_FILE, is_as_marked, read_mark
from monai_unetpp.data.formats.suffixes import is_nifti_name, is_picture_name, result_suffix, without_suffix
from monai_unetpp.files import MARK, atomic_path
from monai_unetpp.runner.other_formats import packages_for
from monai_unetpp.runner.volume import Array


def result_name(image: Path) -> str:
    """The file name of an image's result."""
    return f"{without_suffix(image.name)}_seg{result_suffix(image)}"


def is_result(path: Path) -> bool:
    """Whether a file carries the mark of this package; False where packages for its format are missing."""
    try:
        return _read_mark(path) is not None
    except ImageFileError:  # told by those who read it
        return False


def identify(image: Path) -> ImageIdentity:
    """The identity of an image; every byte is read once.

    Raises:
        ImageFileError: the file cannot be read.
    """
    is_pair = image.suffix.lower() in (".hdr", ".img")
    try:
        files = nifti_pair(image) if is_pair else [image, *filter(os.path.isfile, detached_files(image))]
        hashes = sorted(map(hash_file, files))
    except OSError as e:
        raise ImageFileError(f"{image}: cannot be read ({e.strerror}). Check the path and its permissions.") from e
    return ImageIdentity.from_hashes(image, hashes)


def check_writable(path: Path, source: Path, identity: ImageIdentity, overwrite: bool) -> None:
    """Check that the result of an image may be written, before the network runs.

    With ``overwrite`` it may replace the result of another image, or one that was corrected by hand.

    Raises:
        FileExistsError: it may not; or the folder holds results of ``monai-unetpp segment``.
        ImageFileError: a package for the format of the result is not installed.
    """
    record = path.with_name(RUN_FILE)
    if record.is_file() and MARK in record.read_text(encoding="utf-8", errors="replace"):
        raise FileExistsError(
            f"{source}: {path.parent} holds results of monai-unetpp segment, whose tables would no longer be right. "
            "Name another output folder."
        )
    if not path.exists():
        return
    mark = _read_mark(path)
    if mark is None:
        raise FileExistsError(
            f"{source}: its result {path} exists and was not written by monai-unetpp. Move it away, or name another "
            "output folder."
        )
    if overwrite:
        return
    before = ImageIdentity.from_mark(mark)
    if before is None or not before.is_same(identity):
        raise FileExistsError(
            f"{source}: its result would replace {path}, which is of another image. Name another output folder, or "
            "replace it with --overwrite."
        )
    if is_as_marked(path) is False:
        raise FileExistsError(
            f"{source}: its result {path} was changed after it was written, as by hand. Name another output folder, or "
            "replace it with --overwrite."
        )


def write_result(path: Path, labels: Array, source: Path, affine: Array, identity: ImageIdentity) -> None:
    """Write integer labels ``(H, W[, D])``, whole or not at all.

    A NIfTI source gives its header, a picture its orientation and pixel size; for others ``affine`` is in RAS and mm.
    """
    voxels = hash_voxels(labels)
    stored = labels.astype(smallest_dtype(int(labels.max())))
    if is_picture_name(path):
        from monai_unetpp.data.formats.pictures import picture_mark, write_picture

        write_picture(path, stored, source, picture_mark(identity, voxels, by_runner=True))
        return
    result: Any = on_nifti_grid(stored, source) if is_nifti_name(source) else on_affine(stored, affine)
    result.header["descrip"] = nifti_mark(identity, voxels, by_runner=True)
    with atomic_path(path) as temporary:
        nibabel.save(result, temporary)


def _read_mark(path: Path) -> str | None:
    with packages_for(path):
        return read_mark(path)
