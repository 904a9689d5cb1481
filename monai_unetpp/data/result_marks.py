"""Results, known by a mark in their file that says of which image they are, never by their name."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import re
import unicodedata
import zlib
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from monai_unetpp.data.dicom import dicom_files
from monai_unetpp.data.itk_images import detached_files
from monai_unetpp.data.nifti import is_nifti_name
from monai_unetpp.data.pictures import is_picture_name, read_picture_mark
from monai_unetpp.files import MARK

__all__ = [
    "ImageIdentity",
    "identify_image",
    "image_files",
    "is_result",
    "nifti_mark",
    "picture_mark",
    "read_identity",
]

#: How the description in the header of a NIfTI result begins; that of a picture begins with the package's name.
_NIFTI_MARK = f"written by {MARK}"
_IDENTITY = re.compile(r" src=([0-9a-f]{12})(?: data=([0-9a-f]{12}))?")
_HASH_BYTES = 6
_CHUNK = 2**20


@dataclasses.dataclass(frozen=True)
class ImageIdentity:
    """Of which image a result is, without giving away its path.

    Attributes:
        path: short hash of the absolute path.
        content: short hash of the bytes of its files; None where they could not be read.
    """

    path: str
    content: str | None

    def is_same(self, other: ImageIdentity) -> bool:
        """Whether it is one image: one that was moved, or one whose file has changed."""
        return self.path == other.path or (self.content is not None and self.content == other.content)

    def __str__(self) -> str:
        return f"src={self.path}" + ("" if self.content is None else f" data={self.content}")


def identify_image(image: str | PathLike[str]) -> ImageIdentity:
    """The identity of an image file or of a folder with a DICOM series; every byte of it is read once."""
    # systems differ in how they compose letters in names
    path = unicodedata.normalize("NFC", os.path.abspath(image))
    try:
        hashes = sorted(_hash_of_file(file) for file in image_files(Path(image)))
    except OSError:
        hashes = []
    content = hashes[0] if len(hashes) == 1 else _hash(map(str.encode, hashes)) if hashes else None
    return ImageIdentity(_hash([os.fsencode(path)]), content)


def nifti_mark(image: ImageIdentity) -> bytes:
    """The description in the header of a result of ``image``; it has room for 80 bytes."""
    return f"{_NIFTI_MARK} {image}".encode()


def picture_mark(image: ImageIdentity) -> str:
    """What a picture that is a result of ``image`` names as its software."""
    return f"{MARK} {image}"


def is_result(path: str | PathLike[str]) -> bool:
    """Whether a file was written by this package, by what it says of itself."""
    return _read_mark(Path(path)) is not None


def read_identity(path: str | PathLike[str]) -> ImageIdentity | None:
    """Of which image a result is; None for other files, and for results of versions that did not note it."""
    found = _IDENTITY.search(_read_mark(Path(path)) or "")
    return None if found is None else ImageIdentity(found[1], found[2])


def _read_mark(path: Path) -> str | None:
    if is_picture_name(path):
        return read_picture_mark(path)
    return _read_nifti_mark(path) if is_nifti_name(path) else None


def _read_nifti_mark(path: Path) -> str | None:
    if path.suffix.lower() == ".img":
        path = next((other for other in _pair_of(path) if other.suffix.lower() == ".hdr"), path)
    if not os.path.isfile(path):
        return None
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            start = file.read(Nifti2Header.template_dtype.itemsize)
    except (OSError, EOFError, zlib.error):
        return None
    header = Nifti2Header if start[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else Nifti1Header
    if len(start) < header.template_dtype.itemsize:
        return None
    fields = np.frombuffer(start, header.template_dtype, count=1)
    text = bytes(fields["descrip"][0]).rstrip(b"\0").decode("latin-1")
    return text if text == _NIFTI_MARK or text.startswith(f"{_NIFTI_MARK} ") else None


def image_files(image: Path) -> list[Path]:
    """The files that hold an image; none where it is not known which."""
    if os.path.isdir(image):
        return list(dicom_files(image))
    suffix = image.suffix.lower()
    if suffix in (".hdr", ".img"):
        return _pair_of(image)
    if suffix in (".mhd", ".nhdr"):
        voxels = [file for file in detached_files(image) if os.path.isfile(file)]
        return [image, *voxels] if voxels else []
    return [image]


def _pair_of(path: Path) -> list[Path]:
    """A header and its voxels."""
    pair = {path, *(path.with_suffix(suffix) for suffix in (".hdr", ".img", ".HDR", ".IMG"))}
    return [file for file in pair if os.path.isfile(file)]


def _hash_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return _hash(iter(lambda: file.read(_CHUNK), b""))


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=_HASH_BYTES)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
