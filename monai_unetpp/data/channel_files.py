"""Combine files of one channel each into cases."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_unetpp.data.image_errors import ImageFileError
from monai_unetpp.data.naming import channel_of
from monai_unetpp.errors import printable

__all__ = ["join_channels"]

_Case = dict[str, Any]


def join_channels(cases: Sequence[_Case], channels: int, strict: bool) -> list[_Case]:
    """Combine the files ``case_0000``, ``case_0001`` and so on of a folder into one case.

    Args:
        cases: dicts with ``image``, one path or several.
        channels: channels of the network; with one, nothing is joined.
        strict: whether a case with missing or surplus channels is an error; otherwise it gets a ``failure``.

    Returns:
        The cases in order; a joined case takes the place of its first file.

    Raises:
        ImageFileError: if ``strict``: a case with missing or surplus channels.
    """
    if channels == 1:
        return list(cases)
    files: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    joined: list[_Case] = []
    for case in cases:
        image = case["image"]
        parts = channel_of(image) if isinstance(image, str) and not os.path.isdir(image) else None
        if parts is None or "failure" in case:
            joined.append(case)
            continue
        key = (os.path.dirname(image), parts[0])
        if key not in files:
            joined.append({"image": key, "case": parts[0]})
        files[key][parts[1]] = image
    return [_joined(case, files[case["image"]], channels, strict) if _is_open(case) else case for case in joined]


def _is_open(case: _Case) -> bool:
    return isinstance(case["image"], tuple)


def _joined(case: _Case, files: dict[int, str], channels: int, strict: bool) -> _Case:
    image = [files[number] for number in sorted(files)]
    if sorted(files) == list(range(channels)):
        return {**case, "image": image}
    reason = (
        f"{image[0]}: the case {case['case']!r} must have a file for each of the network's {channels} channels, 0000 "
        f"to {channels - 1:04d}, got {', '.join(Path(file).name for file in image)}. Add or rename files."
    )
    if strict:
        raise ImageFileError(reason)
    return {**case, "image": image, "failure": printable(reason)}
