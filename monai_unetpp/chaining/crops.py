"""Crop a scan around labels, keeping its position in space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms.utils import generate_spatial_bounding_box
from monai.utils import ImageMetaKey, MetaKeys, SpaceKeys

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
