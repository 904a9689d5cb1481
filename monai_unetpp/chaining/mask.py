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
    """The mask of those of the ``labels``, ``(H, W, D)``, that have one of the ``values``, with holes filled."""
    inside = np.isin(labels, values)
    for box in find_objects(inside.view(np.uint8)):
        # many times faster than binary_fill_holes, which goes inwards voxel by voxel
        outside, _ = label(~np.pad(inside[box], 1))
        inside[box] = (outside != outside[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return inside


class BrainMaskd(MapTransform):
    """Make a mask of some labels, 1 inside, from a label map ``(1, H, W, D)``, under the key ``name``."""

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
