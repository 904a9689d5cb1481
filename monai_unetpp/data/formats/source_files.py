"""The files of an image, and their state when it was read, in its metadata: MONAI keeps only the first of several."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, MutableMapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from monai.utils import ImageMetaKey

from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.formats.result_marks import image_files

#: Metadata key of all files, in one string that data loaders pass on unchanged; no path contains its separator.
_FILES = "source_files"
_SEPARATOR = "\0"
#: Metadata key of their state.
_STATE = "source_state"


def note_sources(metadata: MutableMapping[Any, Any], files: Sequence[str | PathLike[str]], state: str | None) -> None:
    """Keep the files of an image, channels or slices of a DICOM series, in its metadata.

    ``state`` is from :func:`file_state` before they were read; None if they could not be looked at.
    """
    if len(files) > 1:
        metadata[_FILES] = _SEPARATOR.join(fspath(file) for file in files)
    if state is not None:
        metadata[_STATE] = state


def source_files(metadata: Mapping[Any, Any]) -> tuple[str, ...]:
    """All files of an image, from its metadata or those of a batch of one.

    Only the first if the reader has not noted them, and none if it is not from a file.
    """
    names = metadata.get(_FILES) or metadata.get(ImageMetaKey.FILENAME_OR_OBJ)
    name = names[0] if isinstance(names, (list, tuple)) else names
    return () if name is None else tuple(str(name).split(_SEPARATOR))


def file_of(image: Any, key: Hashable) -> str:
    """The file that an image names in its metadata; ``key``, as which it is known, if it names none."""
    return str(getattr(image, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ, key))


def existing_files(path: Path) -> list[Path]:
    """The existing files that hold an image; a header alone if it holds the voxels as well."""
    if path.is_file():
        return sorted(image_files(path)) or [path]
    return image_files(path) if path.is_dir() else []


def file_identity(path: Path) -> list[list[Any]]:
    """Path, size and modification time of a file and of the voxels that its header names, or of a DICOM series.

    Files that do not exist are left out.
    """
    return [
        [os.path.abspath(file), status.st_size, status.st_mtime_ns]
        for file in existing_files(path)
        for status in [file.stat()]
    ]


def file_state(files: Sequence[str | PathLike[str]]) -> str:
    """Text that changes where one of an image's files is changed or removed; an ``OSError`` if one is inaccessible."""
    return repr([file_identity(Path(file)) for file in files])


def check_unchanged(metadata: Mapping[Any, Any]) -> None:
    """Refuse, by an ``ImageFileError``, an image whose files have changed since the reader noted their state."""
    noted = metadata.get(_STATE)
    if noted is None:
        return
    files = source_files(metadata)
    if not all(existing_files(Path(file)) for file in files):
        raise ImageFileError(f"{files[0]}: was removed while it was in work. Put it back.")
    if file_state(files) != (noted[0] if isinstance(noted, (list, tuple)) else noted):
        raise ImageFileError(
            f"{files[0]}: was changed while it was in work. Segment it again once it is complete, not from a cache."
        )
