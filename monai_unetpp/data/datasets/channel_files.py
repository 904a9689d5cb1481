"""Combine files of one channel each into cases."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_unetpp.data.formats.grid import channel_axes
from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.formats.naming import channel_of
from monai_unetpp.data.formats.nifti import is_nifti_name, open_nifti
from monai_unetpp.data.formats.pictures import COLOURS, has_colours, is_picture_name
from monai_unetpp.errors import printable

__all__ = ["join_channels"]

_Case = dict[str, Any]


def join_channels(cases: Sequence[_Case], channels: int, strict: bool, dims: Sequence[int] = (3,)) -> list[_Case]:
    """Combine the files ``case_0000``, ``case_0001`` and so on of a folder into one case.

    Args:
        cases: dicts with ``image``, one path or several.
        channels: channels of the network; with one, nothing is joined.
        strict: whether a case with missing, surplus or repeated channels is an error; otherwise it gets a ``failure``.
        dims: numbers of spatial axes that an image may have.

    Returns:
        The cases in order; a joined case takes the place of its first file. Files that hold all channels stay cases of
        their own, and so do pictures of which one has colours, if the network takes these: the number at the end of
        their names is that of the case.

    Raises:
        ImageFileError: if ``strict``: a case with missing, surplus or repeated channels.
    """
    if channels == 1:
        return list(cases)
    groups: dict[Any, list[_Case]] = defaultdict(list)
    for number, case in enumerate(cases):
        groups[_whole_of(case) or number].append(case)
    joined: list[_Case] = []
    for key, group in groups.items():
        joined += group if isinstance(key, int) else _joined(key[1], group, channels, strict, dims)
    return joined


def _whole_of(case: _Case) -> tuple[str, str] | None:
    """Folder and name of the case that a file may be one channel of, by its name."""
    image = case["image"]
    if "failure" in case or not isinstance(image, str) or os.path.isdir(image):
        return None
    channel = channel_of(image)
    return None if channel is None else (os.path.dirname(image), channel[0])


def _joined(name: str, parts: Sequence[_Case], channels: int, strict: bool, dims: Sequence[int]) -> Sequence[_Case]:
    """The case with the channels in ``parts``; these themselves if each holds all channels, or one has colours."""
    images = sorted(dict.fromkeys(part["image"] for part in parts), key=lambda image: (_number(image), image))
    # a grey picture among coloured ones is no channel of theirs
    coloured = channels == COLOURS and any(is_picture_name(image) and has_colours(image) for image in images)
    if coloured or all(_holds_all(image, channels, dims) for image in images):
        return parts
    case = {"image": images, "case": name}
    if [_number(image) for image in images] == list(range(channels)):
        return [case]
    reason = (
        f"{images[0]}: the case {name!r} must have a file for each of the network's {channels} channels, 0000 "
        f"to {channels - 1:04d}, got {', '.join(Path(image).name for image in images)}. Add, rename or remove files."
    )
    if strict:
        raise ImageFileError(reason)
    return [{**case, "failure": printable(reason)}]


def _number(image: str) -> int:
    channel = channel_of(image)
    return -1 if channel is None else channel[1]


def _holds_all(image: str, channels: int, dims: Sequence[int]) -> bool:
    """Whether the header of a file gives it a further axis with all channels."""
    try:
        shape = open_nifti(image).shape if is_nifti_name(image) else ()
        return any(channel_axes(shape, each)[1] == channels for each in dims if len(shape) > each)
    except ImageFileError:  # reported when the case is loaded
        return False
