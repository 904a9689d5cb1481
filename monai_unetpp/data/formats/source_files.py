"""The files of an image, in its metadata: MONAI keeps only the first of several."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from os import PathLike, fspath
from typing import Any

from monai.utils import ImageMetaKey

__all__ = ["note_source_files", "source_files"]

#: Metadata key of all files, in one string that data loaders pass on unchanged; no path contains its separator.
_FILES = "source_files"
_SEPARATOR = "\0"


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
