"""The mark in the header of a NIfTI result, which identifies its image."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import re
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError as NibabelFileError
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from monai_unetpp.files import MARK

READ_ERRORS = (NibabelFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error, OverflowError)
"""What nibabel raises for damaged files."""

#: Beginning of the description in the header.
_NIFTI_MARK = f"written by {MARK}"
_IDENTITY = re.compile(r" src=([0-9a-f]{12})(?: data=([0-9a-f]{12}))?")
#: End of a mark, with a hash of the voxels; results of the runner are known by it.
_VOXELS = re.compile(" (voxels|runner)=([0-9a-f]{12})$")
_HASH_BYTES = 6
_CHUNK = 2**20


@dataclasses.dataclass(frozen=True)
class ImageIdentity:
    """Identifies the image of a result without revealing its path.

    Attributes:
        path: short hash of the absolute path.
        content: short hash of the bytes of its files; None if they could not be read.
    """

    path: str
    content: str | None

    def is_same(self, other: ImageIdentity) -> bool:
        """Whether both are the same image, possibly moved or changed."""
        return self.path == other.path or (self.content is not None and self.content == other.content)

    @classmethod
    def from_hashes(cls, path: str | PathLike[str], hashes: Sequence[str]) -> ImageIdentity:
        """The identity of an image from the :func:`hash_file` of each of its files; none if they could not be read."""
        content = hashes[0] if len(hashes) == 1 else hash_bytes(map(str.encode, hashes)) if hashes else None
        # in normal form, because systems compose letters differently
        absolute = unicodedata.normalize("NFC", os.path.abspath(path))
        return cls(hash_bytes([os.fsencode(absolute)]), content)

    @classmethod
    def from_mark(cls, mark: str | None) -> ImageIdentity | None:
        """Parse a mark; None if there is none, or it is of an early version without identity."""
        found = _IDENTITY.search(mark or "")
        return None if found is None else cls(found[1], found[2])

    def __str__(self) -> str:
        return f"src={self.path}" + ("" if self.content is None else f" data={self.content}")


def nifti_mark(image: ImageIdentity, voxels: str | None = None, by_runner: bool = False) -> bytes:
    """The description in the header of a result of ``image``, at most 80 bytes; ``voxels`` is a hash of its labels."""
    of_voxels = "" if voxels is None else mark_of_voxels(voxels, by_runner)
    return f"{_NIFTI_MARK} {image}{of_voxels}".encode()


def mark_of_voxels(voxels: str, by_runner: bool) -> str:
    """The end of a mark, from a hash of the labels."""
    return f" {'runner' if by_runner else 'voxels'}={voxels}"


def names_runner(mark: str | None) -> bool:
    """Whether a mark is of a result of the runner, which keeps no record beside it."""
    found = _VOXELS.search(mark or "")
    return found is not None and found[1] == "runner"


def marked_voxels(mark: str | None) -> str | None:
    """The :func:`hash_voxels` of the labels that a mark tells; None if it tells none."""
    found = _VOXELS.search(mark or "")
    return None if found is None else found[2]


def hash_voxels(labels: npt.ArrayLike) -> str:
    """A short hash of labels, whatever number type they are stored in."""
    # part by part, as large volumes would take several times their size
    return hash_bytes(part.astype(np.int32).tobytes() for part in np.asarray(labels))


def read_nifti_mark(path: Path) -> str | None:
    """The mark of a NIfTI file; None if this package did not write it."""
    if path.suffix.lower() == ".img":
        path = next((other for other in nifti_pair(path) if other.suffix.lower() == ".hdr"), path)
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


def nifti_pair(path: Path) -> list[Path]:
    """The existing files of a header and its voxels."""
    pair = {path, *(path.with_suffix(suffix) for suffix in (".hdr", ".img", ".HDR", ".IMG"))}
    return [file for file in pair if os.path.isfile(file)]


def hash_file(path: Path) -> str:
    """A short hash of the bytes of a file."""
    with path.open("rb") as file:
        return hash_bytes(iter(lambda: file.read(_CHUNK), b""))


def hash_bytes(parts: Iterable[bytes]) -> str:
    """A short hash of bytes given in parts."""
    digest = hashlib.blake2b(digest_size=_HASH_BYTES)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
