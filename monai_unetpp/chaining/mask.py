"""Make a brain mask from labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy.ndimage import find_objects, label


def mask_of(labels: npt.NDArray[Any], values: Sequence[int]) -> npt.NDArray[np.bool_]:
    """The mask of some labels, with holes filled.

    Args:
        labels: ``(H, W, D)``.
        values: the labels in the mask.
    """
    inside = np.isin(labels, values)
    for box in find_objects(inside.view(np.uint8)):
        # many times faster than binary_fill_holes, which goes inwards voxel by voxel
        outside, _ = label(~np.pad(inside[box], 1))
        inside[box] = (outside != outside[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return inside


class BrainMaskd(MapTransform):
    """Make a mask from a label map, 1 inside, under another key.

    Args:
        keys: label maps ``(1, H, W, D)``.
        values: the labels in the mask.
        name: key of the mask.
    """

    def __init__(self, keys: KeysCollection, values: Sequence[int], name: str) -> None:
        super().__init__(keys)
        self.values, self.name = tuple(values), name

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Make the mask of one item."""
        d = dict(data)
        for key in self.key_iterator(d):
            mask = mask_of(np.asarray(d[key].cpu())[0], self.values).astype(np.uint8)
            d[self.name] = MetaTensor(torch.from_numpy(mask)[None], meta=dict(d[key].meta))
        return d
