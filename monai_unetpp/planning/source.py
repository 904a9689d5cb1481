"""The network whose weights a training starts from, as far as a plan follows it. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

_FOLLOWED = ("features", "strides", "kernel_size", "norm")


@dataclasses.dataclass(frozen=True)
class Source:
    """What the shapes of a trained network's weights come from.

    Attributes:
        name: of its bundle or file.
        spatial_dims: 2 or 3.
        features: channels of each resolution, finest first.
        strides: of each step down, by axis.
        kernel_size: of each resolution, by axis.
        norm: in the form that plans have; None where plans have no such norm.
    """

    name: str
    spatial_dims: int
    features: list[int]
    strides: list[list[int]]
    kernel_size: list[list[int]]
    norm: Any

    def begin(self, name: str, own: list[Any]) -> list[Any]:
        """As many entries as ``own`` has: this network's first, then ``own`` where it has no further ones."""
        entries: list[Any] = getattr(self, name)
        return [*entries[: len(own)], *own[len(entries) :]]

    def reasons(self, values: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
        """Reason and source of the values that are those of this network, as far as both have them."""
        reason = f"As in {self.name}, so that its weights fit: the training starts from them."
        return {name: (reason, "--init") for name in _FOLLOWED if self._agrees(name, values[name])}

    def _agrees(self, name: str, value: Any) -> bool:
        own = getattr(self, name)
        if name == "norm":
            return bool(own == value)
        common = min(len(own), len(value))
        return bool(own[:common] == value[:common])
