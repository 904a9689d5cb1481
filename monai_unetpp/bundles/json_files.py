"""JSON files of bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["METADATA_FILE", "read_object"]

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
