"""JSON files of bundles."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["METADATA_FILE", "default_level", "read_object"]

#: The metadata, relative to the bundle's folder.
METADATA_FILE = "configs/metadata.json"


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. A bundle must have it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ValueError(f"{path}: not a JSON file ({e}). Correct it, or copy the bundle again.") from e
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold a JSON object, got {type(content).__name__}. Correct the file.")
    return content


def default_level(bundle: str | PathLike[str]) -> str | None:
    """The level that a bundle runs by default, as its ``inference.json`` says; None if that leaves it at the deepest.

    Raises:
        FileNotFoundError: the bundle has no such file.
        ValueError: it is not a JSON object.
    """
    level = read_object(Path(bundle) / "configs" / "inference.json").get("level")
    return level if isinstance(level, str) else None
