"""The files of an image, and their state when it was read, in its metadata: MONAI keeps only the first of several."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from os import PathLike, fspath, stat
from pathlib import Path
from typing import Any

from monai.utils import ImageMetaKey

from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.formats.result_marks import image_files

__all__ = ["check_unchanged", "file_state", "note_file_state", "note_source_files", "source_files"]

#: Metadata key of all files, in one string that data loaders pass on unchanged; no path contains its separator.
_FILES = "source_files"
_SEPARATOR = "\0"
#: Metadata key of their state.
_STATE = "source_state"


def note_source_files(metadata: MutableMapping[Any, Any], files: Sequence[str | PathLike[str]]) -> None:
    """Keep the files of an image in its metadata.

    Args:
        metadata: changed in place.
        files: one file per channel, or the slices of a DICOM series.
    """
    metadata[_FILES] = _SEPARATOR.join(fspath(file) for file in files)


def source_files(metadata: Mapping[Any, Any]) -> tuple[str, ...]:
    """All files of an image; only the first if the reader has not noted them, and none if it is not from a file.

    Args:
        metadata: of the image, or of a batch of one.
    """
    names = metadata.get(_FILES) or metadata.get(ImageMetaKey.FILENAME_OR_OBJ)
    name = names[0] if isinstance(names, (list, tuple)) else names
    return () if name is None else tuple(str(name).split(_SEPARATOR))


def file_state(files: Sequence[str | PathLike[str]]) -> str:
    """Sizes and times of the last change of all files of an image, which show whether one was written to.

    Raises:
        OSError: one is not there.
    """
    states = [stat(path) for file in files for path in image_files(Path(file))]
    return " ".join(f"{state.st_size}:{state.st_mtime_ns}" for state in states)


def note_file_state(metadata: MutableMapping[Any, Any], state: str) -> None:
    """Keep the state of an image's files, from :func:`file_state` before they were read, in its metadata."""
    metadata[_STATE] = state


def check_unchanged(metadata: Mapping[Any, Any]) -> None:
    """Refuse to go on with an image whose files were written to since they were read, if the reader noted their state.

    Args:
        metadata: of the image, or of a batch of one.

    Raises:
        ImageFileError: they were, or are no longer there.
    """
    noted = metadata.get(_STATE)
    if noted is None:
        return
    files = source_files(metadata)
    try:
        state = file_state(files)
    except OSError as e:
        raise ImageFileError(f"{files[0]}: was removed while it was in work ({e.strerror}). Put it back.") from e
    if state != (noted[0] if isinstance(noted, (list, tuple)) else noted):
        raise ImageFileError(
            f"{files[0]}: was changed while it was in work. Segment it again once it is complete, not from a cache."
        )
