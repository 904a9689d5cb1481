"""What lies in and below a folder of images and is not segmented with it."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from monai_unetpp.data.datasets.forms import VOXEL_SUFFIXES
from monai_unetpp.data.formats.dicom import dicom_files, is_dicom_image, read_series_uid
from monai_unetpp.data.formats.itk_images import ITK_SUFFIXES
from monai_unetpp.data.formats.nifti import NIFTI_SUFFIXES
from monai_unetpp.data.formats.pictures import PICTURE_SUFFIXES
from monai_unetpp.data.formats.result_marks import is_result
from monai_unetpp.errors import counted, list_values

__all__ = ["KNOWN_SUFFIXES", "divided_series", "folders_below", "told_of"]

KNOWN_SUFFIXES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES, *PICTURE_SUFFIXES, *VOXEL_SUFFIXES)
"""Of files that are no DICOM: raw voxels can look like the beginning of one."""

#: Of images in formats that are not read.
_UNREAD = (".mgz", ".mgh", ".mnc", ".bmp", ".gif", ".webp", ".jp2", ".svs", ".czi", ".nd2", ".lif", ".vtk")
#: How many folders below are searched, and files of each looked at.
_MOST_FOLDERS, _MOST_FILES = 1000, 20


def folders_below(folder: Path, segmented: Collection[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """Folders below ``folder`` with images that are not ``segmented`` as a DICOM series; links are not followed."""
    found: list[Path] = []
    for number, (place, folders, files) in enumerate(os.walk(folder)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(place)
        # of a DICOM series, dcm2niix puts the NIfTI file beside it
        ends = suffixes if here in segmented else ""
        seen = sorted(name for name in files if not name.startswith(".") and name.lower().endswith(ends))[:_MOST_FILES]
        if number and any(_is_image(here / name, suffixes) for name in seen):
            found.append(here)
        if number >= _MOST_FOLDERS:
            break
    return found


def _is_image(path: Path, suffixes: tuple[str, ...]) -> bool:
    name = path.name.lower()
    try:
        if name.endswith(suffixes):
            return os.path.isfile(path) and not is_result(path)
        return not name.endswith(KNOWN_SUFFIXES) and is_dicom_image(path)
    except OSError:
        return False


def divided_series(folders: Sequence[Path]) -> list[list[Path]]:
    """Folders that hold files of the same DICOM series, together."""
    by_uid: dict[str, list[Path]] = {}
    for folder in folders if len(folders) > 1 else ():
        uid = read_series_uid(next(dicom_files(folder)))
        if uid:
            by_uid.setdefault(uid, []).append(folder)
    return [places for places in by_uid.values() if len(places) > 1]


def told_of(folder: Path, content: Sequence[Path], series: Sequence[Path], suffixes: tuple[str, ...]) -> list[str]:
    """What a user must know of a folder of images that are segmented: one sentence for each thing that is left out.

    Args:
        folder: the folder.
        content: what it holds.
        series: the folders of its DICOM series.
        suffixes: of the files that are images.
    """
    told = []
    unread = [path.name for path in content if path.suffix.lower() in _UNREAD and path.is_file()]
    if unread:
        told.append(f"{counted(len(unread), 'file')} in other formats left out: {list_values(unread)}. Convert them.")
    below = folders_below(folder, series, suffixes)
    if below:
        names = list_values([os.path.relpath(path, folder) for path in below])
        told.append(f"images in folders below are left out: {names}. Name these folders to segment them.")
    for places in divided_series(series):
        names = list_values([path.name for path in places])
        told.append(f"files of one DICOM series in several folders: {names}. If each has a part, join them in one.")
    return told
