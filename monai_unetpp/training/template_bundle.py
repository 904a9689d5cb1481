"""The bundle that all trainings of this package's own begin with: a template for 2D and 3D."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.files import write_text

__all__ = ["TEMPLATE", "write_template"]

TEMPLATE = Path(__file__).with_name("template")
"""Folder of the template: ``configs/train.json``, and ``configs/evaluate.json`` to put over it."""


def write_template(bundle: str | PathLike[str], settings: Mapping[str, Any]) -> None:
    """Write a bundle's ``configs/train.json`` and ``configs/evaluate.json`` from the template.

    Args:
        bundle: the folder of the bundle. Files that are there already must be the same.
        settings: values of keys of the template, as JSON holds them; others are left out. They become configuration,
            which MONAI reads by its syntax, so texts of users do not belong here.

    Raises:
        ValueError: the folder holds other configurations.
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
                f"{path}: must be what this version writes for these settings, so that all runs are on equal terms, "
                f"but differs. Take another output_dir, or remove {bundle} if the difference does not matter."
            )
