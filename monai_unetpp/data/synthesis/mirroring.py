"""Left-right mirroring that swaps the labels of the two sides."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_tensor, ensure_tuple

__all__ = ["RandMirrorLabelsd"]


class RandMirrorLabelsd(RandomizableTransform, MapTransform):
    """Mirror an item at random, and swap the labels of the two sides.

    After a plain flip, structures with a left label are on the right, so a network trained on both cannot tell the
    sides apart. Unlike MONAI's flips this keeps the grid in place and mirrors the content.

    Args:
        keys: images and label maps ``(C, H, W[, D])``, all mirrored together.
        label_keys: the keys of label maps with integers from 0 up.
        pairs: labels of the two sides, such as ``[[17, 53]]``.
        prob: probability of mirroring.
        spatial_axis: the left-right axis.

    Raises:
        ValueError: a label is in two pairs, or a pair does not have two labels.

    Example:
        >>> import torch
        >>> mirror = RandMirrorLabelsd("label", "label", pairs=[[1, 2]], prob=1.0)
        >>> mirror({"label": torch.tensor([[1, 3, 3, 2, 0]])})["label"].tolist()
        [[0, 1, 3, 3, 2]]
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_keys: KeysCollection,
        pairs: Sequence[Sequence[int]],
        prob: float = 0.5,
        spatial_axis: int = 0,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=prob)
        members = [label for pair in pairs for label in pair]
        if len(set(members)) < len(members) or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"pairs must be of two labels each, every label once, got {[list(p) for p in pairs]}.")
        self.label_keys = ensure_tuple(label_keys)
        self.pairs = [list(pair) for pair in pairs]
        self.spatial_axis = spatial_axis

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Mirror one item, or leave it unchanged."""
        d = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return d
        for key in self.key_iterator(d):
            values = convert_to_tensor(d[key], track_meta=False).flip(self.spatial_axis + 1)
            mirrored = self._swap(values) if key in self.label_keys else values
            d[key] = MetaTensor(mirrored, meta=d[key].meta) if isinstance(d[key], MetaTensor) else mirrored
        return d

    def _swap(self, label: torch.Tensor) -> torch.Tensor:
        indices = label.to(torch.int64)
        names = torch.arange(1 + max(int(indices.max()), *(name for pair in self.pairs for name in pair), 0))
        for left, right in self.pairs:
            names[left], names[right] = right, left
        return names[indices].to(label.dtype)
