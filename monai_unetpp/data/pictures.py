"""PNG and TIFF, read as grey values and written as label maps."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from PIL import Image, PngImagePlugin, TiffImagePlugin

from monai_unetpp.data.errors import ImageFileError
from monai_unetpp.data.itk_images import open_itk_file
from monai_unetpp.files import atomic_path

__all__ = [
    "PICTURE_SUFFIXES",
    "is_picture_name",
    "read_picture",
    "read_picture_shape",
    "was_written_here",
    "write_picture",
]

PICTURE_SUFFIXES = (".png", ".tif", ".tiff")

#: What every picture that is written names as its software, by which an earlier result is known.
_MARK = "monai-unetpp"
_PNG_SOFTWARE, _TIFF_SOFTWARE = "Software", 305
_COLOURS = 3
_LARGEST_IN_PNG = np.iinfo(np.uint16).max
_ROWS_AT_ONCE = 1024


def is_picture_name(path: str | PathLike[str]) -> bool:
    """Whether the name of ``path`` ends as those of PNG and TIFF files do."""
    return Path(path).name.lower().endswith(PICTURE_SUFFIXES)


def read_picture_shape(path: Path) -> tuple[int, ...]:
    """Width and height in pixels, and the number of pages of a TIFF that has several.

    Raises:
        ImageFileError: the file is missing, empty, damaged or of another format.
    """
    if _is_transparent_grey(path):
        with _opened(path) as picture:
            return picture.size
    return tuple(int(length) for length in open_itk_file(path).GetSize())


def read_picture(path: Path) -> np.ndarray[Any, Any]:
    """The grey values of a picture.

    Args:
        path: PNG or TIFF with 8 or 16 bits, or real numbers, per channel.

    Returns:
        ``(W, H)``, or ``(W, H, pages)`` for a TIFF of several pages. Grey values keep their type; colours become the
        mean of red, green and blue in float32. Transparency is left out.

    Raises:
        ImageFileError: the file is missing, empty, damaged or of another format.
    """
    if _is_transparent_grey(path):
        return _grey_of(path)
    reader = open_itk_file(path)
    try:
        image = reader.Execute()
    except RuntimeError as e:
        raise ImageFileError(f"{path}: damaged or cut off. Export or copy it again.") from e
    array = SimpleITK.GetArrayViewFromImage(image)
    channels = image.GetNumberOfComponentsPerPixel()
    if channels == 1:
        values: np.ndarray[Any, Any] = np.array(array.T)
        return values
    grey = np.empty(array.shape[:-1], dtype=np.float32)
    for start in range(0, len(grey), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        array[rows, ..., :_COLOURS].mean(axis=-1, dtype=np.float32, out=grey[rows])
    return np.transpose(grey)


def write_picture(path: str | PathLike[str], labels: np.ndarray[Any, Any]) -> None:
    """Write a label map as PNG or TIFF without loss, whole or not at all.

    Args:
        path: the file to write, with one of the suffixes.
        labels: ``(W, H)`` or, for TIFF, ``(W, H, pages)``; uint8, uint16 or int32.

    Raises:
        ValueError: labels that the format cannot hold.
        OSError: the file cannot be written.
    """
    path = Path(path)
    is_png = path.suffix.lower() == ".png"
    if is_png and (labels.ndim != 2 or labels.dtype.itemsize > 2):
        raise ValueError(
            f"{path}: PNG holds one picture with labels up to {_LARGEST_IN_PNG}, got shape {labels.shape} and labels "
            f"up to {labels.max()}. Give the image as TIFF."
        )
    # numpy's first axis is that of the rows in pictures
    pages = [Image.fromarray(np.ascontiguousarray(page)) for page in np.atleast_3d(labels).T]
    with atomic_path(path) as temporary:
        if is_png:
            note = PngImagePlugin.PngInfo()
            note.add_text(_PNG_SOFTWARE, _MARK)
            pages[0].save(temporary, format="PNG", pnginfo=note)
        else:
            tags = TiffImagePlugin.ImageFileDirectory_v2()
            tags[_TIFF_SOFTWARE] = _MARK
            pages[0].save(
                temporary,
                format="TIFF",
                tiffinfo=tags,
                compression="tiff_adobe_deflate",
                save_all=len(pages) > 1,
                append_images=pages[1:],
            )


def was_written_here(path: Path) -> bool:
    """Whether a picture was written by :func:`write_picture`."""
    try:
        with _opened(path) as picture:
            software = picture.info.get(_PNG_SOFTWARE) or dict(getattr(picture, "tag_v2", {})).get(_TIFF_SOFTWARE)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return bool(software == _MARK)


def _is_transparent_grey(path: Path) -> bool:
    """Whether a picture has grey and transparency, which ITK cannot read."""
    try:
        with _opened(path) as picture:
            return bool(picture.mode == "LA")
    # missing and broken files, and kinds that only ITK knows, such as TIFF with colours of 16 bits
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def _grey_of(path: Path) -> np.ndarray[Any, Any]:
    try:
        with _opened(path) as picture:
            rows: np.ndarray[Any, Any] = np.asarray(picture.getchannel(0))
            return np.transpose(rows)
    except (OSError, SyntaxError, ValueError) as e:
        raise ImageFileError(f"{path}: damaged or cut off. Export or copy it again.") from e


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        # large pictures are welcome
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as picture:
            yield picture
