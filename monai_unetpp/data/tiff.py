"""TIFF of many kinds, read as grey values or refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC, PLANARCONFIG, TiffFile, TiffPage

from monai_unetpp.data.errors import ImageFileError, damaged_file
from monai_unetpp.data.itk_images import open_itk_file

__all__ = ["TIFF_SIGNATURES", "mean_of_colours", "read_tiff", "read_tiff_shape"]

#: How TIFF and BigTIFF begin, in either order of bytes.
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_COLOURS = 3
_ROWS_AT_ONCE = 1024
_GREY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE)
_COLOURED = (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR)
_COMPRESSIONS_OF_ITK = (
    COMPRESSION.NONE,
    COMPRESSION.LZW,
    COMPRESSION.JPEG,
    COMPRESSION.DEFLATE,
    COMPRESSION.ADOBE_DEFLATE,
)


def read_tiff_shape(path: Path) -> tuple[int, ...]:
    """Width and height in pixels, and the number of pages where there are several, from the headers alone.

    Raises:
        ImageFileError: see :func:`read_tiff`.
    """
    with _usable_pages(path) as pages:
        return _shape(pages)


def read_tiff(path: Path, labels: bool = False) -> np.ndarray[Any, Any]:
    """The grey values of a TIFF; reduced copies and masks of its pages are left out.

    Args:
        path: a file of grey values, with transparency or without, of red, green and blue, or of a palette.
        labels: whether it is a label map, of which the numbers are taken that are stored: indices into a palette
            instead of its colours, and one bit as 0 and 1 instead of 255.

    Returns:
        ``(W, H)``, or ``(W, H, pages)``. Grey values keep their type, and grow with brightness; colours become their
        mean in float32.

    Raises:
        ImageFileError: the file is damaged; has other channels, whose meaning is not known; has pages that do not
            make one volume; or is stored in a way that takes ``imagecodecs`` to read.
    """
    with _usable_pages(path) as pages:
        try:
            rows = _grey_rows(pages[0], labels)
        except (ImportError, NotImplementedError, ValueError) as e:
            if not _needs_imagecodecs(e):
                raise
            return _read_with_itk(path, pages)
        if len(pages) == 1:
            return np.transpose(rows)
        volume = np.empty((len(pages), *rows.shape), dtype=rows.dtype)
        volume[0] = rows
        for index, page in enumerate(pages[1:], start=1):
            volume[index] = _grey_rows(page, labels)
        return np.transpose(volume)


def mean_of_colours(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mean of red, green and blue in float32, in the memory of its result.

    Args:
        pixels: ``(..., channels)``; what follows the third channel is left out.
    """
    grey = np.empty(pixels.shape[:-1], dtype=np.float32)
    for start in range(0, len(grey), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        pixels[rows, ..., :_COLOURS].mean(axis=-1, dtype=np.float32, out=grey[rows])
    return grey


@contextmanager
def _usable_pages(path: Path) -> Iterator[list[TiffPage]]:
    try:
        with TiffFile(path) as file:
            pages = [page for page in file.pages if isinstance(page, TiffPage)]
            _check_last(file, path)
            pages = [page for page in pages if not page.is_reduced and not page.is_mask]
            _check_pages(pages, file, path)
            yield pages
    except (ImageFileError, MemoryError):
        raise
    except Exception as e:  # what is broken makes tifffile and the decoders fail in many ways
        raise damaged_file(path) from e


def _check_last(file: TiffFile, path: Path) -> None:
    """See that the last page is the last: tifffile only logs that it cannot find a further one."""
    end = file.pages.next_page_offset
    if end is not None:
        file.filehandle.seek(end)
        if any(file.filehandle.read(file.tiff.offsetsize)):
            raise damaged_file(path)


def _check_pages(pages: list[TiffPage], file: TiffFile, path: Path) -> None:
    if not pages:
        raise ImageFileError(f"{path}: must hold a picture, got none. Export it again.")
    listed = (file.imagej_metadata or {}).get("images", 1)
    if listed > len(file.pages) or any(entry.get("truncated") for entry in file.shaped_metadata or ()):
        raise ImageFileError(
            f"{path}: must list each of its pages, got only the first of several. Save them with one entry for each."
        )
    first = pages[0]
    for page in pages:
        _check_page(page, path)
        _check_data(page, file, path)
        if (page.shaped, page.dtype, page.photometric) != (first.shaped, first.dtype, first.photometric):
            raise ImageFileError(
                f"{path}: its pages must be of one size and kind, got {_described(first)} and {_described(page)}. "
                "Save one of them, or pages that are alike."
            )


def _check_page(page: TiffPage, path: Path) -> None:
    samples, photometric = page.samplesperpixel, page.photometric
    if page.imagedepth != 1 or page.dtype is None or page.dtype.kind not in "buif":
        raise ImageFileError(f"{path}: must hold pictures of plain numbers, got {_described(page)}. Convert it.")
    transparent = samples == 2 and page.extrasamples[:1] in ((EXTRASAMPLE.ASSOCALPHA,), (EXTRASAMPLE.UNASSALPHA,))
    usable = (
        (photometric in _GREY and (samples == 1 or transparent))
        or (photometric == PHOTOMETRIC.RGB and samples in (_COLOURS, _COLOURS + 1))
        # only decoders of JPEG turn these into red, green and blue
        or (photometric == PHOTOMETRIC.YCBCR and samples == _COLOURS and page.compression == COMPRESSION.JPEG)
        or (photometric == PHOTOMETRIC.PALETTE and samples == 1 and page.colormap is not None)
    )
    if not usable:
        raise ImageFileError(
            f"{path}: must hold grey values or red, green and blue, got {samples} channels of kind {_kind(page)}. "
            "Save one channel, or RGB."
        )
    if photometric == PHOTOMETRIC.MINISWHITE and page.dtype.kind not in "bu":
        raise ImageFileError(
            f"{path}: its values must grow with brightness, got {page.dtype} where the least is white. "
            "Save it with black as the least."
        )


def _check_data(page: TiffPage, file: TiffFile, path: Path) -> None:
    ends = (offset + length for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True))
    if max(ends, default=0) > file.filehandle.size:
        raise damaged_file(path)


def _shape(pages: list[TiffPage]) -> tuple[int, ...]:
    size = pages[0].imagewidth, pages[0].imagelength
    return size if len(pages) == 1 else (*size, len(pages))


def _described(page: TiffPage) -> str:
    depth = f" x {page.imagedepth}" if page.imagedepth > 1 else ""
    channels = f", {page.samplesperpixel} channels" if page.samplesperpixel > 1 else ""
    dtype = page.dtype or "unknown type"
    return f"{page.imagewidth} x {page.imagelength}{depth} pixels of {dtype}{channels} ({_kind(page)})"


def _kind(page: TiffPage) -> str:
    known = page.photometric in list(PHOTOMETRIC)
    return PHOTOMETRIC(page.photometric).name if known else str(page.photometric)


def _grey_rows(page: TiffPage, labels: bool) -> np.ndarray[Any, Any]:
    """Grey values ``(H, W)`` of one page."""
    # separate channels stand first, joint ones last
    stored: np.ndarray[Any, Any] = page.asarray(squeeze=False)[:, 0]
    pixels = np.moveaxis(stored, 0, -1)[..., 0, :] if page.samplesperpixel == len(stored) else stored[0]
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if page.photometric in _COLOURED:
        return mean_of_colours(pixels)
    grey = pixels[..., 0]
    if page.photometric == PHOTOMETRIC.PALETTE and not labels:
        palette = np.asarray(page.colormap).T >> 8  # to the 8 bits of other palettes
        return np.asarray(mean_of_colours(palette)[grey])
    if page.dtype == bool:
        grey = grey.astype(np.uint8) * np.uint8(1 if labels else 255)
    if page.photometric == PHOTOMETRIC.MINISWHITE and not labels:
        return np.asarray((1 << max(page.bitspersample, 8)) - 1 - grey, dtype=grey.dtype)
    return grey


def _needs_imagecodecs(error: Exception) -> bool:
    """Whether tifffile lacks a decoder: its own message, or that of a module of later Pythons."""
    return isinstance(error, ImportError) or "imagecodecs" in str(error)


def _read_with_itk(path: Path, pages: list[TiffPage]) -> np.ndarray[Any, Any]:
    """Read what tifffile cannot, where ITK is known to keep the values."""
    page = pages[0]
    reader = open_itk_file(path)
    if not all(_is_right_in_itk(page) for page in pages) or reader.GetSize() != _shape(pages):
        stored = COMPRESSION(page.compression).name if page.compression in list(COMPRESSION) else page.compression
        raise ImageFileError(
            f"{path}: its way of storing pixels ({stored}, {_described(page)}) takes another package to read. "
            "Install it with: pip install imagecodecs, or save the picture without compression, with 8 or 16 bits."
        )
    image = reader.Execute()
    array: np.ndarray[Any, Any] = SimpleITK.GetArrayViewFromImage(image)
    if page.samplesperpixel > 1:
        return np.transpose(mean_of_colours(array))
    # tiles of grey values come as colours
    return np.array(np.transpose(array if image.GetNumberOfComponentsPerPixel() == 1 else array[..., 0]))


def _is_right_in_itk(page: TiffPage) -> bool:
    """Whether ITK reads a page as it is, and not by way of colours with 8 bits."""
    if page.compression not in _COMPRESSIONS_OF_ITK or page.photometric not in (PHOTOMETRIC.MINISBLACK, *_COLOURED):
        return False
    if page.samplesperpixel == 2 or page.bitspersample not in (8, 16, 32):
        return False
    return page.dtype == np.uint8 or (
        page.dtype in (np.uint16, np.float32) and not page.is_tiled and page.planarconfig == PLANARCONFIG.CONTIG
    )
