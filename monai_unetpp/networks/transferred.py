"""Which parts of a network start from the weights of another one. Does not import torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

__all__ = ["IN_BUNDLE", "Transfer"]

IN_BUNDLE = Path("models") / "model.pt"
"""The weights in the folder of a bundle."""


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Which parts of a network start from other weights than random ones.

    Attributes:
        source: the file of weights; in a plan, as it was given: the name of a bundle, its folder, or a checkpoint.
        taken: nodes and heads with weights of the source.
        averaged: nodes with other input channels: their first convolution has the mean over those of the source.
        fresh: nodes and heads with random weights, as the source has none of their shape.
        weights: number of weights taken from the source.
        all_weights: number of all weights of the network.
    """

    source: str
    taken: tuple[str, ...]
    averaged: tuple[str, ...]
    fresh: tuple[str, ...]
    weights: int
    all_weights: int

    def __str__(self) -> str:
        count = len(self.taken) + len(self.averaged) + len(self.fresh)
        parts = [f"{len(self.taken)} of {count} nodes and heads ({self.weights:,} of {self.all_weights:,} weights)"]
        parts += [f"the first layer of {name} as the mean over its channels" for name in self.averaged]
        fresh = f"; fresh: {', '.join(self.fresh)}" if self.fresh else ""
        return f"from {self._name}: {' and '.join(parts)}{fresh}"

    @property
    def _name(self) -> str:
        """That of the bundle or the file, without the folders of the machine."""
        path = Path(self.source)
        return path.parents[1].name if path.parts[-2:] == IN_BUNDLE.parts else path.name
