"""Insert a step into a bundle's pipeline after the steps that load the image."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from typing import Any

from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged


def insert_after_loading(transform: Any, step: Callable[[Any], Any]) -> bool:
    """Let ``step`` see every image as soon as a ``Compose`` that begins with ``LoadImaged`` has loaded it.

    False says that the preprocessing is another one, which is left alone.
    """
    place = _loading_steps(transform)
    if place:
        steps = list(transform.transforms)
        transform.transforms = (*steps[:place], step, *steps[place:])
    return place > 0


def steps_after_loading(transform: Any) -> Compose | None:
    """The steps after loading, for images in memory; None if the pipeline does not begin with ``LoadImaged``."""
    place = _loading_steps(transform)
    return Compose(list(transform.transforms)[place:]) if place else None


def _loading_steps(transform: Any) -> int:
    """The number of steps at the beginning that load."""
    if type(transform) is not Compose:
        return 0
    return len(list(takewhile(lambda step: isinstance(step, (LoadImaged, EnsureChannelFirstd)), transform.transforms)))
