"""Read TIFF of many kinds as grey values, or say why not."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC, TiffFile, TiffPage, TiffPageSeries, xml2dict

from monai_unetpp.data.formats.grid import warn_once
from monai_unetpp.data.formats.image_errors import ImageFileError, damaged_file

logger = logging.getLogger(__name__)

#: Signatures of TIFF and BigTIFF in either byte order.
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

COLOURS = 3
"""Red, green and blue."""
_ROWS_AT_ONCE = 1024
_GREY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE)
_COLOURED = (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR)
_PACKED = (COMPRESSION.LZW, COMPRESSION.DEFLATE, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.PACKBITS, COMPRESSION.JPEG)
#: How many times their size data hold at most, by compression; others have no limit.
_MOST_HELD: dict[int, float] = {COMPRESSION.NONE: 1, **dict.fromkeys(_PACKED, 4096)}
#: tifffile's axes of a single picture, and readable names of others.
_PICTURE_AXES = "YXS"
_NAMES = {"Z": "depth", "T": "time", "C": "channels"}
_ORIENTATION, _RESOLUTION_X, _RESOLUTION_Y, _SOFTWARE = 274, 282, 283, 305
#: Metadata on sizes, by the kind of file.
_SIZES = {
    "ome": tuple(f"PhysicalSize{axis}{unit}" for axis in "XYZ" for unit in ("", "Unit")),
    "imagej": ("spacing", "unit", "finterval"),
}


def read_tiff_shape(path: Path) -> tuple[int, ...]:
    """Width and height in pixels, and the number of slices if there are several; see :func:`read_tiff`."""
    with _usable_pages(path) as pages:
        size = pages[0].imagewidth, pages[0].imagelength
        return size if len(pages) == 1 else (*size, len(pages))


def read_tiff(path: Path, labels: bool = False, colours: bool = False) -> np.ndarray[Any, Any]:
    """Read a TIFF as :func:`.read_picture` does; reduced copies and masks are left out.

    Pages are slices of a volume, along depth as given by OME or ImageJ. Pages along time or an unnamed axis are also
    read as slices, which is logged. Channels are refused, as they would be mistaken for slices, and so are pages that
    form no volume. Voxel sizes are not read, which is logged if the metadata give the distance of slices. Grey values
    increase with brightness. An ``ImageFileError`` also says where ``imagecodecs`` is needed.
    """
    with _usable_pages(path, tell=True) as pages:
        rows = _rows(pages[0], path, labels, colours)
        if len(pages) == 1:
            return np.transpose(rows)
        volume = np.empty((len(pages), *rows.shape), dtype=rows.dtype)
        volume[0] = rows
        for index, page in enumerate(pages[1:], start=1):
            volume[index] = _rows(page, path, labels, colours)
        return np.transpose(volume)


def tiff_has_colours(path: Path) -> bool:
    """Whether the first page holds colours or a palette; a damaged file may raise any error."""
    with TiffFile(path, _multifile=False) as file:
        return file.pages.first.photometric in (*_COLOURED, PHOTOMETRIC.PALETTE)


def read_tiff_software(path: Path) -> str | None:
    """The software that a file names, without reading its pixels; a damaged file may raise any error."""
    with TiffFile(path, _multifile=False) as file:
        tag = file.pages.first.tags.get(_SOFTWARE)
        return None if tag is None else str(tag.value)


def tiff_appearance(path: Path) -> dict[str, Any]:
    """Arguments of ``tifffile.imwrite`` that copy orientation, resolution, and sizes and axes of OME or ImageJ."""
    with TiffFile(path, _multifile=False) as file:
        tags = file.pages.first.tags
        options: dict[str, Any] = {"metadata": None}
        if _RESOLUTION_X in tags and _RESOLUTION_Y in tags:
            options["resolution"] = tags[_RESOLUTION_X].value, tags[_RESOLUTION_Y].value
            options["resolutionunit"] = file.pages.first.resolutionunit
        if _ORIENTATION in tags:
            options["extratags"] = [(_ORIENTATION, "H", 1, int(tags[_ORIENTATION].value), False)]
        if not file.series or file.series[0].kind not in _SIZES:
            return options
        axes = "".join(axis for axis in file.series[0].axes if axis not in "CS")
        return options | {file.series[0].kind: True, "metadata": {"axes": axes, **_sizes(file)}}


def _sizes(file: TiffFile) -> dict[str, Any]:
    """The pixel sizes in the metadata of OME or ImageJ."""
    kind = file.series[0].kind
    found = _ome_pixels(file) if kind == "ome" else file.imagej_metadata or {}
    return {key: found[key] for key in _SIZES.get(kind, ()) if key in found}


def _ome_pixels(file: TiffFile) -> dict[str, Any]:
    """What OME's metadata say about the pixels of the first image."""
    pixels: dict[str, Any] = _listed(xml2dict(file.ome_metadata or "")["OME"]["Image"])[0]["Pixels"]
    return pixels


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def mean_of_colours(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mean of red, green and blue of pixels ``(..., channels)`` in float32, without further memory."""
    grey = np.empty(pixels.shape[:-1], dtype=np.float32)
    for start in range(0, len(grey), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        pixels[rows, ..., :COLOURS].mean(axis=-1, dtype=np.float32, out=grey[rows])
    return grey


def take_colours(pixels: np.ndarray[Any, Any], colours: bool) -> np.ndarray[Any, Any]:
    """A copy of red, green and blue of pixels ``(..., channels)`` if colours are kept, else their mean."""
    return pixels[..., :COLOURS].copy() if colours else mean_of_colours(pixels)


def labels_of_colours(pixels: np.ndarray[Any, Any], path: Path) -> np.ndarray[Any, Any]:
    """The labels in a picture ``(..., channels)`` with equal red, green and blue; others are an ``ImageFileError``."""
    labels = pixels[..., 0]
    if any((pixels[..., channel] != labels).any() for channel in range(1, COLOURS)):
        raise ImageFileError(
            f"{path}: the label must hold one number per pixel, got colours. Save the labels as grey values, or as "
            "palette indices."
        )
    return labels


@contextmanager
def _usable_pages(path: Path, tell: bool = False) -> Iterator[list[TiffPage]]:
    """Open a file and check and order its slices."""
    try:
        with TiffFile(path, _multifile=False) as file:
            pages = [page for page in file.pages if isinstance(page, TiffPage)]
            _check_last(file, path)
            usable = [page for page in pages if not page.is_reduced and not page.is_mask]
            _check_pages(usable, file, path)
            axis = _axis_of_pages(file, path, len(usable))
            if tell and axis not in ("", "Z"):
                logger.info("%s: its %d pages are read as slices; they lie along %s.", path, len(usable), _named(axis))
            if tell and axis == "Z":
                _tell_sizes(file, path)
            yield _in_order(usable, file.series) if axis else usable
    except (ImageFileError, MemoryError):
        raise
    except Exception as e:  # tifffile and the decoders fail in many ways on broken files
        raise damaged_file(path) from e


def _tell_sizes(file: TiffFile, path: Path) -> None:
    """Log once that the voxel sizes in the metadata are not read."""
    with suppress(KeyError, TypeError):  # as in metadata of an unusual form
        if {"spacing", "PhysicalSizeZ"} & set(_sizes(file)):
            warn_once(
                f"{path}: its metadata give the size of its voxels, but a TIFF is read with 1 mm along every axis. "
                "Where the size matters, convert it to NIfTI or NRRD."
            )


def _axis_of_pages(file: TiffFile, path: Path, count: int) -> str:
    """The axis of the pages in tifffile's notation; empty for a single page."""
    if count == 1:
        return ""
    series = file.series
    if len(series) > 1:  # pages were written separately
        if file.is_ome:
            raise ImageFileError(f"{path}: holds {len(series)} images, which may be unrelated. Save one.")
        return "I"
    lengths = {axis: length for axis, length in zip(series[0].axes, series[0].shape, strict=True) if length > 1}
    pages_along = {axis: length for axis, length in lengths.items() if axis not in _PICTURE_AXES}
    if "C" in pages_along:
        names = _channel_names(file, pages_along["C"])
        raise ImageFileError(
            f"{path}: has {pages_along['C']} channels ({names}) in one file. Save each as a file of its own, which "
            "ends in _0000.tif, _0001.tif and so on; or, if one is enough, that one."
        )
    if len(pages_along) > 1 or math.prod(pages_along.values()) != count:
        axes = " and ".join(f"{length} along {_named(axis)}" for axis, length in pages_along.items())
        raise ImageFileError(
            f"{path}: its {count} pages must lie along one axis, got {axes or 'none'}. Save one volume, or one slice."
        )
    return next(iter(pages_along))


def _named(axis: str) -> str:
    return _NAMES.get(axis, "an unnamed axis")


def _channel_names(file: TiffFile, count: int) -> str:
    """The names of the channels in the metadata of OME or ImageJ, or their numbers."""
    names: list[Any] = []
    if file.ome_metadata:
        names = [channel.get("Name") for channel in _listed(_ome_pixels(file).get("Channel", []))]
    elif file.imagej_metadata:
        names = list(file.imagej_metadata.get("Labels") or [])
    return ", ".join(str(name or number) for number, name in enumerate((names + [None] * count)[:count], start=1))


def _in_order(pages: list[TiffPage], series: list[TiffPageSeries]) -> list[TiffPage]:
    """The pages in OME's order, which may differ from that in the file."""
    if len(series) > 1 or series[0].kind != "ome":
        return pages
    by_index = {page.index: page for page in pages}
    return [by_index[page.index] for page in series[0].pages if page is not None]


def _check_last(file: TiffFile, path: Path) -> None:
    """Check that no page is missing: tifffile only logs if it cannot find the next one."""
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
            f"{path}: must list all of its pages, got only the first of several. Save them with one entry each."
        )
    first = pages[0]
    for page in pages:
        _check_page(page, path)
        _check_data(page, file, path)
        if (page.shaped, page.dtype, page.photometric) != (first.shaped, first.dtype, first.photometric):
            raise ImageFileError(
                f"{path}: its pages must have the same size and kind, got {_described(first)} and {_described(page)}. "
                "Save one of them, or make them alike."
            )


def _check_page(page: TiffPage, path: Path) -> None:
    samples, photometric = page.samplesperpixel, page.photometric
    if page.imagedepth != 1 or page.dtype is None or page.dtype.kind not in "buif":
        raise ImageFileError(f"{path}: must hold pictures of plain numbers, got {_described(page)}. Convert it.")
    transparent = samples == 2 and page.extrasamples[:1] in ((EXTRASAMPLE.ASSOCALPHA,), (EXTRASAMPLE.UNASSALPHA,))
    usable = (
        (photometric in _GREY and (samples == 1 or transparent))
        or (photometric == PHOTOMETRIC.RGB and samples in (COLOURS, COLOURS + 1))
        # only JPEG decoders convert these to red, green and blue
        or (photometric == PHOTOMETRIC.YCBCR and samples == COLOURS and page.compression == COMPRESSION.JPEG)
        or (photometric == PHOTOMETRIC.PALETTE and samples == 1 and page.colormap is not None)
    )
    if not usable:
        raise ImageFileError(
            f"{path}: must hold grey values or red, green and blue, got {samples} channels of kind {_kind(page)}. "
            "Save one channel, or RGB."
        )
    if photometric == PHOTOMETRIC.MINISWHITE and page.dtype.kind not in "bu":
        raise ImageFileError(
            f"{path}: its values must increase with brightness, got {page.dtype} with the lowest as white. "
            "Save it with black as the lowest."
        )


def _check_data(page: TiffPage, file: TiffFile, path: Path) -> None:
    ends = (offset + length for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True))
    size = file.filehandle.size
    # parts that are left out take no space
    held = math.inf if 0 in page.databytecounts else size * _MOST_HELD.get(page.compression, math.inf)
    # fewer than 8 bits take a byte only in memory
    if max(ends, default=0) > size or page.size * page.bitspersample > 8 * held:
        raise damaged_file(path)


def _described(page: TiffPage) -> str:
    depth = f" x {page.imagedepth}" if page.imagedepth > 1 else ""
    channels = f", {page.samplesperpixel} channels" if page.samplesperpixel > 1 else ""
    dtype = page.dtype or "unknown type"
    return f"{page.imagewidth} x {page.imagelength}{depth} pixels of {dtype}{channels} ({_kind(page)})"


def _kind(page: TiffPage) -> str:
    known = page.photometric in list(PHOTOMETRIC)
    return PHOTOMETRIC(page.photometric).name if known else str(page.photometric)


def _rows(page: TiffPage, path: Path, labels: bool, colours: bool) -> np.ndarray[Any, Any]:
    """Grey values ``(H, W)`` of one page, or ``(H, W, 3)`` if it has colours and they are kept."""
    pixels = _decoded(page, path)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if page.photometric in _COLOURED:
        return labels_of_colours(pixels, path) if labels else take_colours(pixels, colours)
    grey = pixels[..., 0]
    if page.photometric == PHOTOMETRIC.PALETTE and not labels:
        palette = np.asarray(page.colormap).T
        # to 8 bits like other palettes; some programs write no more than these
        return np.asarray(take_colours(palette >> 8 if palette.max() > 255 else palette, colours)[grey])
    if page.dtype == bool:
        grey = grey.astype(np.uint8) * np.uint8(1 if labels else 255)
    if page.photometric == PHOTOMETRIC.MINISWHITE and not labels:
        return np.asarray((1 << max(page.bitspersample, 8)) - 1 - grey, dtype=grey.dtype)
    return grey


def _decoded(page: TiffPage, path: Path) -> np.ndarray[Any, Any]:
    """Pixels ``(H, W, samples)`` of one page; Pillow decodes some formats for which tifffile needs another package."""
    try:
        # planar channels come first, interleaved ones last
        stored: np.ndarray[Any, Any] = page.asarray(squeeze=False)[:, 0]
        return np.moveaxis(stored, 0, -1)[..., 0, :] if page.samplesperpixel == len(stored) else stored[0]
    except (ImportError, NotImplementedError, ValueError) as e:
        if not isinstance(e, ImportError) and "imagecodecs" not in str(e):
            raise
    pixels = None
    orientation = page.tags.valueof(_ORIENTATION, 1)
    if page.photometric != PHOTOMETRIC.MINISWHITE and orientation == 1:  # Pillow inverts or rotates others
        with suppress(UnidentifiedImageError, Image.DecompressionBombError), Image.open(path) as picture:
            picture.seek(page.index)
            pixels = np.asarray(picture).reshape(page.imagelength, page.imagewidth, -1)
    if pixels is None or pixels.shape[2] != page.samplesperpixel or pixels.dtype != page.dtype:
        stored_as = COMPRESSION(page.compression).name if page.compression in list(COMPRESSION) else page.compression
        raise ImageFileError(
            f"{path}: its pixel format ({stored_as}, {_described(page)}) needs another package. "
            "Install it with: pip install imagecodecs, or save the picture without compression, with 8 or 16 bits."
        )
    return pixels
