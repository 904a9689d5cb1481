"""Crop a scan around labels, keeping its position in space."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms.utils import generate_spatial_bounding_box
from monai.utils import ImageMetaKey, MetaKeys, SpaceKeys

__all__ = ["CropBox", "cut_crop", "find_crop"]

Mask = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class CropBox:
    """A box of a scan.

    Attributes:
        start: first voxel along each axis.
        end: the voxel after the last.
        mirrored: whether left and right are swapped.
    """

    start: tuple[int, ...]
    end: tuple[int, ...]
    mirrored: bool = False

    @property
    def box(self) -> tuple[slice, ...]:
        """The box as an index of arrays ``(H, W, D)``."""
        return tuple(slice(start, end) for start, end in zip(self.start, self.end, strict=True))

    def affine(self, affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The affine of the crop, if ``affine`` ``(4, 4)`` is that of the scan in RAS.

        A mirrored crop has the same voxels, on the other side of space.
        """
        moved = affine.copy()
        moved[:3, 3] += affine[:3, :3] @ np.asarray(self.start, dtype=np.float64)
        return np.asarray(np.diag([-1.0, 1.0, 1.0, 1.0]) @ moved) if self.mirrored else moved


def find_crop(region: Mask, affine: Any, margin_mm: float, mirrored: bool = False) -> CropBox | None:
    """Find the box around a region with a margin, within the scan; None if the region is empty.

    Args:
        region: ``(H, W, D)``.
        affine: ``(4, 4)``, from voxels to mm.
        margin_mm: minimum margin on each side.
        mirrored: whether to mirror the crop.
    """
    if not region.any():
        return None
    margin = [math.ceil(round(margin_mm / size, 6)) for size in affine_to_spacing(np.asarray(affine))]
    start, end = generate_spatial_bounding_box(region[None], margin=margin, allow_smaller=True)
    return CropBox(tuple(map(int, start)), tuple(map(int, end)), mirrored)


def cut_crop(scan: MetaTensor, crop: CropBox, keep: Mask | None = None) -> MetaTensor:
    """Cut out the crop as a separate image.

    Args:
        scan: ``(C, H, W, D)``, with an affine in RAS.
        crop: the box.
        keep: mask ``(H, W, D)``; outside it the image becomes background: 0, or its lowest value if that is negative.
    """
    box = (slice(None), *crop.box)
    image = scan.as_tensor()[box].clone()
    if keep is not None:
        outside = torch.from_numpy(~keep[crop.box]).to(image.device)
        image = image.masked_fill(outside, min(0.0, float(scan.min())))
    affine = torch.from_numpy(crop.affine(np.asarray(scan.affine.cpu(), dtype=np.float64)))
    meta = {
        ImageMetaKey.FILENAME_OR_OBJ: scan.meta.get(ImageMetaKey.FILENAME_OR_OBJ),
        MetaKeys.ORIGINAL_AFFINE: affine.numpy(),
        MetaKeys.SPACE: SpaceKeys.RAS,
    }
    return MetaTensor(image, affine=affine, meta=meta)
