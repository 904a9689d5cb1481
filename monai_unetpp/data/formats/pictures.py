"""Read PNG, JPEG and TIFF as grey values, and write label maps as PNG and TIFF."""

from __future__ import annotations

import logging
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import ExifTags, Image, PngImagePlugin

from monai_unetpp.data.formats import tiff
from monai_unetpp.data.formats.grid import warn_once
from monai_unetpp.data.formats.image_errors import ImageFileError, damaged_file, read_start
from monai_unetpp.data.formats.itk_images import open_itk_file
from monai_unetpp.data.formats.nifti_marks import ImageIdentity, mark_of_voxels
from monai_unetpp.data.formats.tiff import COLOURS, TIFF_SIGNATURES, labels_of_colours, take_colours
from monai_unetpp.files import MARK, atomic_path

logger = logging.getLogger(__name__)

_Array = np.ndarray[Any, Any]

#: Metadata field for the software, by which earlier results are recognized.
_PNG_SOFTWARE = "Software"
_ORIENTATION = ExifTags.Base.Orientation
_LARGEST_IN_PNG = np.iinfo(np.uint16).max
_PNG_SIGNATURE, _JPEG_SIGNATURE = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
#: Bytes of a PNG with bit depth and colour type, with the chunk around them, and with its checksum.
_PNG_KIND, _PNG_HEADER, _PNG_CHECKSUM = slice(24, 26), slice(12, 29), slice(29, 33)
_GREY, _COLOURS, _PALETTE, _GREY_ALPHA, _COLOURS_ALPHA = 0, 2, 3, 4, 6


def read_picture_shape(path: Path) -> tuple[int, ...]:
    """Width and height in pixels, and the pages of a TIFF with several; errors as for :func:`read_picture`."""
    if _head(path).startswith(TIFF_SIGNATURES):
        return tiff.read_tiff_shape(path)
    if _head(path).startswith(_JPEG_SIGNATURE) or _is_transparent_grey(path):
        with _opened_by_pillow(path) as picture:
            return picture.size
    return tuple(int(length) for length in open_itk_file(path).GetSize())


def read_picture(path: Path, labels: bool = False, colours: bool = False) -> _Array:
    """Read the grey values of a picture, or its colours.

    Args:
        path: PNG, JPEG or TIFF with 8 or 16 bits, or floats, per channel.
        labels: whether it is a label map. Values are then read as stored: palette indices instead of colours, and grey
            values of fewer than 8 bits without stretching to 255. Colours are refused, and JPEG, which changes values.
        colours: whether colours are kept as red, green and blue, on a first axis that grey values lack.

    Returns:
        ``(W, H)``, or ``(W, H, pages)`` for a TIFF of several pages. Grey values keep their type, and so do colours
        that are kept; others become the mean of red, green and blue in float32. Transparency is ignored.

    Raises:
        ImageFileError: the file is missing, empty, damaged or of another format.
    """
    if _head(path).startswith(TIFF_SIGNATURES):
        return tiff.read_tiff(path, labels, colours)
    is_jpeg = _head(path).startswith(_JPEG_SIGNATURE)
    if is_jpeg and labels:
        raise ImageFileError(
            f"{path}: the label must be stored without loss, got JPEG, which changes values. Save it as PNG, with one "
            "number per label."
        )
    if labels and (stored := _read_stored_labels(path)) is not None:
        return stored
    if is_jpeg or _is_transparent_grey(path):
        return _read_by_pillow(path, colours)
    reader = open_itk_file(path)
    try:
        image = reader.Execute()
    except RuntimeError as e:
        raise damaged_file(path) from e
    import SimpleITK

    array = SimpleITK.GetArrayViewFromImage(image)
    has_colours = image.GetNumberOfComponentsPerPixel() > 1
    if has_colours and not labels:
        return np.transpose(take_colours(array, colours))
    return np.transpose(np.array(labels_of_colours(array, path) if has_colours else array))


def read_colours(path: Path) -> _Array:
    """Red, green and blue of a picture, ``(3, W, H[, pages])``; grey is all three, with a warning.

    Errors are those of :func:`read_picture`.
    """
    pixels = read_picture(path, colours=True)
    if pixels.shape != read_picture_shape(path):
        return pixels
    warn_once(
        f"{path}: has no colours. Its grey values are taken as red, green and blue, as the network has three channels. "
        "If these are something else, give one file per channel."
    )
    return np.stack([pixels] * COLOURS)


def shown_orientation(path: str | PathLike[str]) -> int:
    """How a picture is turned when it is shown, as EXIF numbers it; 1, as stored, if nothing says so."""
    try:
        with _opened(Path(path)) as picture:
            return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # what PIL cannot open is told by those who read it
        return 1


def has_colours(path: str | PathLike[str]) -> bool:
    """Whether a picture holds colours, also by a palette; False if it cannot be told without decoding it."""
    path = Path(path)
    try:
        head = _head(path)
        if head.startswith(TIFF_SIGNATURES):
            return tiff.tiff_has_colours(path)
        if head.startswith(_PNG_SIGNATURE):
            return _png_kind(path)[1] in (_COLOURS, _PALETTE, _COLOURS_ALPHA)
        with _opened(path) as picture:
            return picture.mode in ("RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")
    except Exception:  # what libraries cannot open is told by those who read it
        return False


def is_coloured(path: str | PathLike[str]) -> bool:
    """Whether red, green and blue of a picture differ anywhere; False if it cannot be read."""
    if not has_colours(path):
        return False
    try:
        pixels = read_picture(Path(path), colours=True)
    except ImageFileError:  # told by those who read it
        return False
    return bool((pixels[1:] != pixels[:1]).any())


def write_picture(
    path: str | PathLike[str], labels: _Array, source: str | PathLike[str] | None = None, mark: str = MARK
) -> None:
    """Write a label map as PNG or TIFF, by the suffix of ``path``, without loss, whole or not at all.

    Args:
        path: the file to write.
        labels: ``(W, H)`` or, for TIFF, ``(W, H, pages)``; uint8, uint16 or int32.
        source: the picture whose orientation, resolution, pixel size and units are copied, so that viewers show both
            alike; pixels are in storage order.
        mark: name of the software in the file, beginning with that of this package.

    Raises:
        ValueError: the format cannot hold the labels.
        OSError: the file cannot be written.
    """
    path = Path(path)
    is_png = path.suffix.lower() == ".png"
    if is_png and (labels.ndim != 2 or labels.dtype.itemsize > 2):
        raise ValueError(
            f"{path}: PNG holds one picture with labels up to {_LARGEST_IN_PNG}, got shape {labels.shape} and labels "
            f"up to {labels.max()}. Give the image as TIFF."
        )
    rows = np.ascontiguousarray(labels.T)  # pictures have rows on the first axis
    appearance = {} if source is None else _appearance(Path(source), rows)
    try:
        content = _encoded(rows, is_png, mark, appearance)
    except Exception:  # what libraries read they may not write, such as a resolution of 72/0
        if not appearance:
            raise
        logger.debug("%s: its metadata cannot be copied", source, exc_info=True)
        content = _encoded(rows, is_png, mark, {})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _encoded(rows: _Array, is_png: bool, mark: str, appearance: Mapping[str, Any]) -> bytes:
    content = BytesIO()
    if is_png:
        note = PngImagePlugin.PngInfo()
        note.add_text(_PNG_SOFTWARE, mark)
        Image.fromarray(rows).save(content, format="PNG", pnginfo=note, **appearance)
    else:
        options = {"photometric": "minisblack", "compression": "zlib", "metadata": None, **appearance}
        tifffile.imwrite(content, rows, software=mark, **options)
    return content.getvalue()


def _appearance(source: Path, rows: _Array) -> dict[str, Any]:
    """Options to save ``rows`` so that viewers show them like ``source``; none if its metadata is broken."""
    try:
        if _head(source).startswith(TIFF_SIGNATURES):
            options = tiff.tiff_appearance(source)
            fits = len(options["metadata"]["axes"]) == rows.ndim if options["metadata"] else True
            if fits and not (options.get("imagej") and rows.dtype.itemsize > 2):  # ImageJ lacks larger integers
                return options
            return {key: value for key, value in options.items() if key not in ("imagej", "ome", "metadata")}
        with _opened(source) as picture:
            options = {key: picture.info[key] for key in ("dpi",) if key in picture.info}
            if _ORIENTATION in (given := picture.getexif()):
                options["exif"] = Image.Exif()
                options["exif"][_ORIENTATION] = given[_ORIENTATION]
            return options
    except Exception:  # libraries fail in many ways on broken metadata, which the labels do not depend on
        logger.debug("%s: its metadata cannot be read", source, exc_info=True)
        return {}


def picture_mark(image: ImageIdentity, voxels: str, by_runner: bool = False) -> str:
    """The software to name in a picture that is a result of ``image``; ``voxels`` is a hash of its labels."""
    return f"{MARK} {image}{mark_of_voxels(voxels, by_runner)}"


def read_picture_mark(path: Path) -> str | None:
    """The software named in a picture of any size written by this package; None for any other file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if _head(path).startswith(TIFF_SIGNATURES):
                software = tiff.read_tiff_software(path)
            else:
                # without the limit of Image.open on the number of pixels, which are not decoded
                with PngImagePlugin.PngImageFile(path) as picture:
                    software = picture.info.get(_PNG_SOFTWARE)
    except Exception:  # libraries raise almost anything for damaged files
        return None
    return software if str(software).split(" ")[0] == MARK else None


def _head(path: Path) -> bytes:
    """The beginning of a file, up to a PNG's bit depth and colour type."""
    return read_start(path, _PNG_KIND.stop)


def _png_kind(path: Path) -> tuple[int, int]:
    """Bit depth and colour type of a PNG; -1 for other files."""
    head = _head(path)
    if not head.startswith(_PNG_SIGNATURE) or len(head) < _PNG_KIND.stop:
        return -1, -1
    bits, colours = head[_PNG_KIND]
    return bits, colours


def _is_transparent_grey(path: Path) -> bool:
    """Whether a picture is grey with transparency, which ITK cannot read."""
    _, colours = _png_kind(path)
    if colours != _GREY:
        return colours == _GREY_ALPHA
    try:
        with _opened(path) as picture:
            return "transparency" in picture.info
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def _read_stored_labels(path: Path) -> _Array | None:
    """The stored values of a PNG with palette or fewer than 8 bits; None for any other picture."""
    bits, colours = _png_kind(path)
    if colours != _PALETTE and not (colours == _GREY and bits < 8):
        return None
    with _opened_by_pillow(path) as picture:
        pixels = np.asarray(picture, dtype=np.uint8)
    # Pillow reads one bit as bool, and stretches two and four
    stretched = colours == _GREY and bits > 1
    return np.transpose(pixels // (255 // (2**bits - 1)) if stretched else pixels)


def _read_by_pillow(path: Path, colours: bool = False) -> _Array:
    """The values of a JPEG, of which ITK would read one that is cut off, or of grey with transparency."""
    with _opened_by_pillow(path) as picture:
        plain = {"1": "L", "CMYK": "RGB"}.get(picture.mode)
        pixels: _Array = np.asarray(picture.convert(plain) if plain else picture)
    if _png_kind(path) == (16, _GREY_ALPHA):
        pixels = np.ascontiguousarray(pixels[..., :2]).view(">u2").astype(np.uint16)
    if pixels.ndim > 2:
        pixels = take_colours(pixels, colours) if pixels.shape[2] == COLOURS else pixels[..., 0]
    return np.transpose(pixels)


@contextmanager
def _opened_by_pillow(path: Path) -> Iterator[Image.Image]:
    """Open a picture by Pillow; grey and transparency of 16 bits each are read as four bytes.

    Pillow would cut such values to 8 bits. With a changed header it reads their bytes as red, green, blue and alpha.
    """
    file: Path | BytesIO = path
    if _png_kind(path) == (16, _GREY_ALPHA):
        content = bytearray(path.read_bytes())
        content[_PNG_KIND] = bytes([8, _COLOURS_ALPHA])
        content[_PNG_CHECKSUM] = zlib.crc32(content[_PNG_HEADER]).to_bytes(4, "big")
        file = BytesIO(content)
    try:
        with _opened(file) as picture:
            yield picture
    except Image.DecompressionBombError as e:
        raise ImageFileError(f"{path}: too large for this kind of picture. Save it as TIFF.") from e
    except (OSError, SyntaxError, ValueError) as e:
        raise damaged_file(path) from e


@contextmanager
def _opened(file: Path | BytesIO) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        # such as of large pictures, which are fine
        warnings.simplefilter("ignore")
        with Image.open(file) as picture:
            yield picture
