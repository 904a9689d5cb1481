"""Checking that a bundle's weights are those published with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.files import hash_file

#: The weights, relative to the bundle's folder.
WEIGHTS_FILE = "models/model.pt"
#: Key of ``metadata.json`` that maps files of the bundle to their SHA-256: beside version and changelog, so that the
#: description of new weights changes in one place.
HASHES_KEY = "sha256"


def weights_entry(bundle: str | PathLike[str]) -> dict[str, dict[str, str]]:
    """The entry of ``metadata.json`` for the bundle's current weights.

    Raises:
        OSError: the weights cannot be read.
    """
    return {HASHES_KEY: {WEIGHTS_FILE: hash_file(Path(bundle) / WEIGHTS_FILE)}}


def hash_problems(bundle: Path, metadata: Mapping[str, Any]) -> Iterator[str]:
    """Problems with files that do not match the hashes in the metadata, one line each."""
    hashes = metadata.get(HASHES_KEY, {})
    if not isinstance(hashes, dict) or not all(isinstance(value, str) for value in hashes.values()):
        yield f"configs/metadata.json: {HASHES_KEY} must map files of the bundle to their SHA-256, got {hashes!r:.60}."
        return
    for name, expected in hashes.items():
        path = bundle / name
        if not path.resolve().is_relative_to(bundle.resolve()):
            yield f"configs/metadata.json: {HASHES_KEY} must name files of the bundle, got {name!r}."
        elif not path.is_file():
            yield f"{name}: missing, though configs/metadata.json has its SHA-256."
        elif hash_file(path) != expected.lower():
            yield (
                f"{name}: not the file that configs/metadata.json describes: its SHA-256 is {hash_file(path)} instead "
                f"of {expected}. Copy the bundle again or, if you have retrained it, write the new value under "
                f"{HASHES_KEY}."
            )
