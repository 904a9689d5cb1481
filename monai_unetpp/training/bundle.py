"""The template of a bundle's training: written into a folder, and read with values of a caller in place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_unetpp.files import write_text

__all__ = ["TEMPLATE", "read_configs", "write_template"]

TEMPLATE = Path(__file__).with_name("template")
"""Folder of the template: a ``train.json`` for 2D and 3D, and an ``evaluate.json`` to put over it."""

_FILES = ("train.json", "evaluate.json")


def write_template(bundle: str | PathLike[str], settings: Mapping[str, Any]) -> None:
    """Write a bundle's ``configs/train.json`` and ``configs/evaluate.json`` from the package's template.

    Args:
        bundle: the folder of the bundle. Files that are there already must be the same.
        settings: values of keys of the template, as JSON holds them. They become configuration, which MONAI reads by
            its syntax, so texts of users do not belong here.

    Raises:
        ValueError: the folder holds other configurations.
    """
    for name in _FILES:
        content = json.loads((TEMPLATE / name).read_text(encoding="utf-8"))
        content |= {key: value for key, value in settings.items() if key in content}
        text = json.dumps(content, indent=4) + "\n"
        path = Path(bundle) / "configs" / name
        if not path.is_file():
            write_text(path, text)
        elif path.read_text(encoding="utf-8") != text:
            raise ValueError(
                f"{path}: must be what this version writes for these settings, so that all runs are on equal terms, "
                f"but differs. Take another output_dir, or remove {bundle} if the difference does not matter."
            )


def read_configs(files: Sequence[str | PathLike[str]], values: Mapping[str, Any]) -> ConfigParser:
    """Read configurations and put values of a caller in the place of what they say.

    Values are taken as they are: no text in them is read by MONAI's syntax, whatever it begins with.

    Args:
        files: JSON files; later ones go first.
        values: objects by top-level key.
    """
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    parser.parse()
    parser.ref_resolver.resolved_content.update({parser.ref_resolver.normalize_id(k): v for k, v in values.items()})
    return parser
