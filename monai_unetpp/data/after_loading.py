"""Putting a step behind those that load an image, in a pipeline that a bundle has."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, MapTransform

__all__ = ["KeepLoadedd", "insert_after_loading", "steps_after_loading"]


class KeepLoadedd(MapTransform):
    """Keep an image as it was loaded under a further key.

    Args:
        keys: of the image.
        name: the further key.
    """

    def __init__(self, keys: KeysCollection, name: str) -> None:
        super().__init__(keys)
        self.name = name

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Copy the image of one item."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[self.name] = d[key].clone()
        return d


def insert_after_loading(transform: Any, step: Callable[[Any], Any]) -> bool:
    """Let ``step`` see every image as soon as it is loaded.

    Args:
        transform: the preprocessing, a ``Compose`` that begins with ``LoadImaged``; others are left alone.
        step: what is put behind it.

    Returns:
        Whether it was put there.
    """
    place = _loading_steps(transform)
    if place:
        steps = list(transform.transforms)
        transform.transforms = (*steps[:place], step, *steps[place:])
    return place > 0


def steps_after_loading(transform: Any) -> Compose | None:
    """The same without the steps that load, for images in memory; None where it does not begin with ``LoadImaged``."""
    place = _loading_steps(transform)
    return Compose(list(transform.transforms)[place:]) if place else None


def _loading_steps(transform: Any) -> int:
    """How many steps at the beginning load."""
    if type(transform) is not Compose:
        return 0
    loading = [isinstance(each, (LoadImaged, EnsureChannelFirstd)) for each in transform.transforms]
    if not loading or not loading[0]:
        return 0
    return loading.index(False) if False in loading else len(loading)
