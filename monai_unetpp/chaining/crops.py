"""Regions of a scan by its labels: crops around them, which keep their position in space, and masks."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform
from monai.transforms.utils import generate_spatial_bounding_box
from monai.utils import ImageMetaKey, MetaKeys, SpaceKeys
from scipy.ndimage import find_objects, label

Mask = npt.NDArray[np.bool_]
Box = tuple[slice, ...]
"""Index of arrays ``(H, W, D)``."""


def find_crop(region: Mask, affine: Any, margin_mm: float) -> Box | None:
    """The box around a region ``(H, W, D)`` with a least margin on each side, within the scan; None if it is empty."""
    if not region.any():
        return None
    margin = [math.ceil(round(margin_mm / size, 6)) for size in affine_to_spacing(np.asarray(affine))]
    start, end = generate_spatial_bounding_box(region[None], margin=margin, allow_smaller=True)
    return tuple(slice(int(first), int(last)) for first, last in zip(start, end, strict=True))


def cut_crop(scan: MetaTensor, box: Box, mirrored: bool = False, keep: Mask | None = None) -> MetaTensor:
    """Cut out a box of a scan ``(C, H, W, D)`` as a separate image; if ``mirrored``, on the other side of space.

    Outside of the mask ``keep`` it becomes background: 0, or the lowest value of the scan if that is negative.
    """
    whole = (slice(None), *box)
    image = scan.as_tensor()[whole].clone()
    if keep is not None:
        outside = torch.from_numpy(~keep[box]).to(image.device)
        image = image.masked_fill(outside, min(0.0, float(scan.min())))
    moved = np.asarray(scan.affine.cpu(), dtype=np.float64).copy()
    moved[:3, 3] += moved[:3, :3] @ np.array([side.start for side in box], dtype=np.float64)
    affine = torch.from_numpy(np.diag([-1.0, 1.0, 1.0, 1.0]) @ moved if mirrored else moved)
    meta = {
        ImageMetaKey.FILENAME_OR_OBJ: scan.meta.get(ImageMetaKey.FILENAME_OR_OBJ),
        MetaKeys.ORIGINAL_AFFINE: affine.numpy(),
        MetaKeys.SPACE: SpaceKeys.RAS,
    }
    return MetaTensor(image, affine=affine, meta=meta)


def mask_of(labels: npt.NDArray[Any], values: Sequence[int]) -> Mask:
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
