"""Whether a bundle's weights are those that were published with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.files import hash_file

__all__ = ["HASHES_KEY", "WEIGHTS_FILE", "hash_file", "hash_problems", "weights_entry"]

#: The weights, from the folder of the bundle.
WEIGHTS_FILE = "models/model.pt"
#: Key of ``metadata.json`` that maps files of the bundle to their SHA-256. It is kept there, and not in a file beside
#: the weights, because version and changelog are too: new weights and what describes them change in one place.
HASHES_KEY = "sha256"


def weights_entry(bundle: str | PathLike[str]) -> dict[str, dict[str, str]]:
    """What ``metadata.json`` says of the weights that the bundle holds now.

    Raises:
        OSError: the weights cannot be read.
    """
    return {HASHES_KEY: {WEIGHTS_FILE: hash_file(Path(bundle) / WEIGHTS_FILE)}}


def hash_problems(bundle: Path, metadata: Mapping[str, Any]) -> Iterator[str]:
    """Files whose content is not the one that the metadata name, as lines for the user."""
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
