"""Cropping patches around voxels of drawn classes, whatever a case holds."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.transforms import RandCropByLabelClassesd
from monai.transforms.utils import create_translate
from monai.utils import ImageMetaKey


class RandCropByPresentClassesd(RandCropByLabelClassesd):
    """MONAI's ``RandCropByLabelClassesd`` with the same share of background in all cases, and room around patches.

    The first ratio, that of the background, holds for a case with all classes. In others it is reduced with the ratios
    of the classes that they lack, so that few classes do not mean little foreground. Patches of cases that hold none of
    the classes to draw, where MONAI fails, lie anywhere.

    MONAI moves crops into the image. A crop that leaves room for an affine transform would so lose its centre near
    borders, and the patch in its middle what it was drawn for. With ``crop_size``, only the patch is moved into the
    image, and what the crop lacks around it is filled. Its affine is that of its own voxels; it has no inverse.

    Args:
        *args: MONAI's; ``spatial_size`` is that of the patch.
        crop_size: spatial size of the crops around the patches; by default, crops are patches, and cut as by MONAI.
        padding_mode: ``"reflection"`` or ``"border"``, as in affine transforms: what is outside of the image.
        **kwargs: MONAI's; ``indices_key`` and ``ratios`` must be given.

    Example:
        >>> crop = RandCropByPresentClassesd("label", "label", (1, 1), [1, 1], 2, indices_key="places")
        >>> item = {"label": torch.full((1, 4, 4), 2.0), "places": [[], []]}
        >>> crop.set_random_state(0)(item)[0]["label"].item()
        2.0
    """

    def __init__(
        self, *args: Any, crop_size: Sequence[int] | None = None, padding_mode: str = "reflection", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if padding_mode not in ("reflection", "border"):
            raise ValueError(f"padding_mode must be 'reflection' or 'border', got {padding_mode!r}.")
        self.crop_size = crop_size
        self.padding_mode = padding_mode
        self._ratios = list(self.cropper.ratios or ())

    def randomize(
        self, label: torch.Tensor, indices: list[Any] | None = None, image: torch.Tensor | None = None
    ) -> None:
        """Choose the centres of the patches."""
        self.cropper.ratios = list(self._ratios)
        if indices is not None:
            held = [ratio if len(places) else 0 for ratio, places in zip(self._ratios[1:], indices[1:], strict=True)]
            share = sum(held) / max(sum(self._ratios[1:]), 1e-9)
            background = self._ratios[0] if len(indices[0]) else 0
            self.cropper.ratios = [background * (share or 1), *held]
            if not any(self.cropper.ratios):
                self.cropper.ratios = [1] * len(indices)
                indices = [torch.arange(math.prod(label.shape[1:]))] * len(indices)
        super().randomize(label, indices, image)

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> list[dict[Hashable, torch.Tensor]]:
        """Cut the patches of a case, or the crops around them."""
        if self.crop_size is None:
            return super().__call__(data, lazy)
        d = dict(data)
        self.randomize(d[self.label_key], d.pop(self.indices_key, None), d.get(self.image_key))
        found = []
        for number, centre in enumerate(self.cropper.centers or ()):
            cut = {key: _cut(d[key], centre, self.crop_size, self.padding_mode) for key in self.key_iterator(d)}
            for patch in cut.values():
                if isinstance(patch, MetaTensor):
                    patch.meta |= {ImageMetaKey.PATCH_INDEX: number, "crop_center": centre}
            found.append({key: cut[key] if key in cut else deepcopy(value) for key, value in d.items()})
        return found


def _cut(image: torch.Tensor, centre: Sequence[int], size: Sequence[int], padding_mode: str) -> torch.Tensor:
    """Cut a part of ``(C, *spatial)`` around a voxel; what is outside repeats the border, or mirrors the image."""
    starts = [place - length // 2 for place, length in zip(centre, size, strict=True)]
    for axis, (start, length) in enumerate(zip(starts, size, strict=True), start=1):
        whole = image.shape[axis]
        if start >= 0 and start + length <= whole:
            image = image.narrow(axis, start, length)
            continue
        indices = torch.arange(start, start + length)
        if padding_mode == "border":
            indices = indices.clamp(0, whole - 1)
        else:
            indices = indices % (2 * whole)
            indices = torch.minimum(indices, 2 * whole - 1 - indices)
        image = image.index_select(axis, indices)
    image = image.clone()
    if isinstance(image, MetaTensor):
        shift = to_affine_nd(len(image.affine) - 1, create_translate(len(starts), starts))
        image.affine = image.affine @ torch.as_tensor(shift).to(image.affine)
    return image
