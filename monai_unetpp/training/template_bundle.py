"""The template of all trainings of this package, for 2D and 3D."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.files import write_text

TEMPLATE = Path(__file__).with_name("template")
"""Folder of the template: ``configs/train.json``, and ``configs/evaluate.json`` to combine with it."""


def write_template(bundle: str | PathLike[str], settings: Mapping[str, Any]) -> None:
    """Write a bundle's ``configs/train.json`` and ``configs/evaluate.json`` from the template.

    Args:
        bundle: the folder of the bundle. Existing files must be identical.
        settings: JSON values for keys of the template; other keys are ignored. MONAI interprets strings among them, so
            they must not come from users.

    Raises:
        ValueError: the folder contains other configurations.
    """
    for template in sorted(TEMPLATE.glob("configs/*.json")):
        content = json.loads(template.read_text(encoding="utf-8"))
        content |= {key: value for key, value in settings.items() if key in content}
        text = json.dumps(content, indent=4) + "\n"
        path = Path(bundle) / "configs" / template.name
        if not path.is_file():
            write_text(path, text)
        elif path.read_text(encoding="utf-8") != text:
            raise ValueError(
                f"{path}: differs from what this version writes for these settings, so runs would not be comparable. "
                f"Use another output_dir, or remove {bundle} if the difference does not matter."
            )
