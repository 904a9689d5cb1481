"""Changes files of JSON in place, for tests of what others wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any] | None = None, /, **entries: Any) -> None:
    """Let ``change`` edit the object in the file ``path``, then set its ``entries``."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if change is not None:
        change(content)
    path.write_text(json.dumps({**content, **entries}), encoding="utf-8")
