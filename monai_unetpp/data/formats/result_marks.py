"""Recognize results by the mark in their file, which also identifies their image, or by the record of their folder."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel

from monai_unetpp.data.formats import nifti_marks
from monai_unetpp.data.formats.dicom import dicom_files
from monai_unetpp.data.formats.itk_images import detached_files
from monai_unetpp.data.formats.nifti_marks import READ_ERRORS, ImageIdentity
from monai_unetpp.data.formats.suffixes import is_nifti_name, is_picture_name
from monai_unetpp.files import MARK

RUN_FILE = "run.json"
"""The record in a folder of results, which lists them."""
#: Folders of a BIDS derivative from its record down to a result: subject, session and kind.
_MOST_FOLDERS = 3


def identify_image(*images: str | PathLike[str]) -> ImageIdentity:
    """The identity of an image, by its file, the folder of its DICOM series, or its channels or slices in order.

    Every byte is read once.
    """
    try:
        hashes = [file for image in images for file in sorted(map(nifti_marks.hash_file, image_files(Path(image))))]
    except OSError:
        hashes = []
    return ImageIdentity.from_hashes(images[0], hashes)


def is_result(path: str | PathLike[str]) -> bool:
    """Whether a file carries the mark of this package, or lost it when another program saved a corrected result."""
    return read_mark(Path(path)) is not None or _is_recorded(Path(os.path.abspath(path)))


def read_identity(path: str | PathLike[str]) -> ImageIdentity | None:
    """The identity of a result's image; None for other files, and for results of early versions."""
    return ImageIdentity.from_mark(read_mark(Path(path)))


def is_of_runner(path: Path) -> bool:
    """Whether a file is a result of the runner, which keeps no record beside it."""
    return nifti_marks.names_runner(read_mark(path))


def is_as_marked(path: Path) -> bool | None:
    """Whether the labels in a result are those that its mark tells.

    None if no mark tells the labels; False if they have changed, or can no longer be read.
    """
    told = nifti_marks.marked_voxels(read_mark(path))
    if told is None:
        return None
    try:
        return told == nifti_marks.hash_voxels(_read_labels(path))
    except (*READ_ERRORS, MemoryError):  # damaged
        return False


def _read_labels(path: Path) -> Any:
    if not is_picture_name(path):
        image: Any = nibabel.load(path)
        return image.dataobj
    from monai_unetpp.data.formats.pictures import read_picture

    return read_picture(path, labels=True)


def read_mark(path: Path) -> str | None:
    """The mark of a result; None for other files."""
    if is_picture_name(path):
        # needs packages that the runner can do without
        from monai_unetpp.data.formats.pictures import read_picture_mark

        return read_picture_mark(path)
    return nifti_marks.read_nifti_mark(path) if is_nifti_name(path) else None


def _is_recorded(path: Path) -> bool:
    """Whether the record in the folder of a file, or in one above as in BIDS, lists it."""
    for depth, folder in enumerate(path.parents[: _MOST_FOLDERS + 1], start=1):
        record = folder / RUN_FILE
        try:
            found = record.stat()
        except OSError:
            continue
        return path.parts[-depth:] in _listed(record, found.st_mtime_ns, found.st_size)
    return False


@lru_cache(maxsize=8)
def _listed(record: Path, *state: int) -> frozenset[tuple[str, ...]]:
    """The ends of the paths of all results in a record, with up to ``_MOST_FOLDERS`` folders; none if it is none."""
    try:
        cases = [case for run in read_runs(record) for case in run["cases"]]
        outputs = [Path(case["output"]) for case in cases]
        masks = [
            output.with_name(name)
            for output, case in zip(outputs, cases, strict=True)
            for name in case.get("beside_sha256") or ()
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        return frozenset()
    return frozenset(path.parts[-depth:] for path in (*outputs, *masks) for depth in range(1, _MOST_FOLDERS + 2))


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The runs in an earlier record; empty if there is no file. A file that is no such record is a ``ValueError``."""
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["software"] == MARK and all(isinstance(run["cases"], list) for run in content["runs"]):
            return list(content["runs"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise ValueError(f"{path}: exists and was not written by monai-unetpp. Move it away, or name another folder.")


def image_files(image: Path) -> list[Path]:
    """The files that hold an image; empty if unknown."""
    if os.path.isdir(image):
        return list(dicom_files(image))
    suffix = image.suffix.lower()
    if suffix in (".hdr", ".img"):
        return nifti_marks.nifti_pair(image)
    if suffix in (".mhd", ".nhdr"):
        voxels = [file for file in detached_files(image) if os.path.isfile(file)]
        return [image, *voxels] if voxels else []
    return [image]
