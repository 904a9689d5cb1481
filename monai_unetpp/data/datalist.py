"""Data sets in the form of the Medical Segmentation Decathlon."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from monai.data import load_decathlon_datalist

from monai_unetpp.files import write_text

__all__ = ["foreground_labels", "load_datalist", "read_datalist"]

logger = logging.getLogger(__name__)

_VALIDATION_SHARE = 0.2
_SPLIT_SEED = 0


def load_datalist(
    dataset_dir: str | PathLike[str],
    key: str,
    split_dir: str | PathLike[str] | None = None,
    label_key: str = "label",
) -> list[dict[str, Any]]:
    """The cases of one list of ``dataset.json``, with absolute paths.

    Where ``dataset.json`` has no ``validation`` list, a fifth of the training cases is drawn for it, always the same
    ones, with a warning, and written down as ``split.json``.

    Args:
        dataset_dir: folder with ``dataset.json``.
        key: such as ``"training"`` or ``"validation"``.
        split_dir: folder for ``split.json``; not written when None.
        label_key: key under which the labels are handed out, for transforms that must leave them alone.

    Returns:
        Dicts with ``image`` and ``label_key``.

    Raises:
        FileNotFoundError: no ``dataset.json``.
        ValueError: it cannot be read, has no such list, an empty one, or entries without image or label.
    """
    path = Path(dataset_dir) / "dataset.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. dataset_dir must name a folder in Decathlon form.")
    cases = read_datalist(path, key, split_dir)
    if not cases or any("image" not in case or "label" not in case for case in cases):
        raise ValueError(f"{path}: the list {key!r} must hold cases with an image and a label.")
    return [{(label_key if name == "label" else name): value for name, value in case.items()} for case in cases]


def read_datalist(
    path: str | PathLike[str], key: str, split_dir: str | PathLike[str] | None = None
) -> list[dict[str, Any]]:
    """The entries of one list, with or without labels; a missing ``validation`` list is drawn as for ``load_datalist``.

    Args:
        path: the ``dataset.json``.
        key: of the list.
        split_dir: folder for ``split.json``; not written when None.

    Raises:
        ValueError: it cannot be read, or has no such list.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if key in ("training", "validation") and "validation" not in content:
            return _drawn_split(path, split_dir)[key]
        if key not in content:
            lists = ", ".join(name for name, value in content.items() if isinstance(value, list)) or "none"
            raise ValueError(f"{path}: must have the list {key!r}, got {lists}. Give one of them as list_key.")
        cases: list[dict[str, Any]] = load_decathlon_datalist(path, data_list_key=key)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as e:
        raise ValueError(f"{path}: not a data list in Decathlon form ({e}).") from e
    return cases


def foreground_labels(path: str | PathLike[str], labels: Any) -> dict[str, int]:
    """Value of each label by its name, without the background.

    Args:
        path: the ``dataset.json`` that ``labels`` comes from, for the message.
        labels: its entry ``labels``, either way round: ``{"0": "background", "1": "liver"}`` or ``{"liver": 1}``.

    Raises:
        ValueError: anything else, or no label above 0.

    Example:
        >>> foreground_labels("dataset.json", {"0": "background", "1": "liver"})
        {'liver': 1}
    """
    problem = (
        f"{path}: labels must map values to names with at least one above 0, got {labels!r}. Write it like "
        '{"0": "background", "1": "liver"}.'
    )
    if not isinstance(labels, Mapping):
        raise ValueError(problem)
    pairs = [(str(name), value) if str(value).isdecimal() else (str(value), name) for name, value in labels.items()]
    try:
        named = {name: int(value) for name, value in pairs if int(value)}
    except (TypeError, ValueError) as e:
        raise ValueError(problem) from e
    if not named or min(named.values()) < 0:
        raise ValueError(problem)
    return named


def _drawn_split(path: Path, split_dir: str | PathLike[str] | None) -> dict[str, list[dict[str, Any]]]:
    cases = load_decathlon_datalist(path, data_list_key="training")
    if len(cases) < 2:
        raise ValueError(f"{path}: {len(cases)} training case(s) cannot be split. Add cases or a 'validation' list.")
    order = sorted(range(len(cases)), key=lambda index: str(cases[index]["image"]))
    random.Random(_SPLIT_SEED).shuffle(order)
    count = max(1, round(len(cases) * _VALIDATION_SHARE))
    split = {
        "validation": [cases[index] for index in sorted(order[:count])],
        "training": [cases[index] for index in sorted(order[count:])],
    }
    logger.warning(
        "%s has no 'validation' list: %d of its %d training cases were drawn for it, and %d are left for training.",
        path,
        len(split["validation"]),
        len(cases),
        len(split["training"]),
    )
    if split_dir is not None:
        write_text(Path(split_dir) / "split.json", json.dumps(split, indent=2, default=str) + "\n")
    return split
