"""JSON files of bundles."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.files import read_json_object

#: The metadata, relative to the bundle's folder.
METADATA_FILE = "configs/metadata.json"


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a bundle; a FileNotFoundError without it, a ValueError if it holds anything else."""
    return read_json_object(path, "Correct it, or copy the bundle again.", "A bundle must have it.")


def default_level(bundle: str | PathLike[str]) -> str | None:
    """The level that a bundle runs by default, as its ``inference.json`` says; None if that leaves it at the deepest.

    The errors are those of :func:`read_object`.
    """
    level = read_object(Path(bundle) / "configs" / "inference.json").get("level")
    return level if isinstance(level, str) else None
