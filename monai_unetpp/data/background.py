"""The empty background of an image: cropping to what is not, and keeping what networks find off it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import CropForegroundd, MapTransform
from monai.utils import ImageMetaKey, ensure_tuple_rep

from monai_unetpp.data.errors import ImageFileError

__all__ = ["ClearBackgroundd", "CropBackgroundd"]


class ClearBackgroundd(MapTransform):
    """Let a segmentation be background wherever the image has its lowest value.

    For images whose background was set to one value, such as the 0 around a skull-stripped brain. A window that holds
    nothing else has no contrast, and a network that normalizes each window may find anything in it.

    Args:
        keys: label maps ``(1, H, W[, D])`` of integers, which become 0 there, or logits ``(C, H, W[, D])`` of
            ``C >= 2`` classes, class 0 the background, of which all but the first become minus infinity there.
        image_key: key of the preprocessed image ``(C, H, W[, D])``; where all its channels have their lowest value is
            background. One for all or one for each of ``keys``.
        allow_missing_keys: whether items without a key are passed over.

    Example:
        >>> import torch
        >>> item = {"image": torch.tensor([[[-0.5, -0.5, 2.0]]]), "pred": torch.tensor([[[0, 3, 3]]])}
        >>> ClearBackgroundd("pred")(item)["pred"].tolist()
        [[[0, 0, 3]]]
    """

    def __init__(
        self, keys: KeysCollection, image_key: KeysCollection = "image", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = ensure_tuple_rep(image_key, len(self.keys))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Clear the segmentations of one item.

        Raises:
            ValueError: a segmentation of another size than the image, or logits of a single channel.
        """
        d = dict(data)
        for key, image_key in self.key_iterator(d, self.image_key):
            image, found = d[image_key], d[key]
            if image.shape[1:] != found.shape[1:]:
                raise ValueError(
                    f"{key} must have the size of {image_key}, {list(image.shape[1:])}, got {list(found.shape[1:])}. "
                    "Clear the background before the inversion to the input's grid."
                )
            if found.is_floating_point() and len(found) < 2:
                raise ValueError(
                    f"{key} must be logits with a channel for each class, or a label map of integers, got shape "
                    f"{tuple(found.shape)} of {found.dtype}. Use AsDiscreted first."
                )
            d[key] = _cleared(found, _background_of(image).to(found.device))
        return d


class CropBackgroundd(CropForegroundd):
    """MONAI's ``CropForegroundd``, with an error that helps where an image has no foreground.

    All arguments, and the inverse, are those of ``CropForegroundd``, which would go on with an empty image there.

    Example:
        >>> import torch
        >>> CropBackgroundd("image", "image")({"image": torch.tensor([[[0.0, 2.0, 0.0]]])})["image"].tolist()
        [[[2.0]]]
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Crop the images of one item.

        Raises:
            ImageFileError: the image under ``source_key`` has no foreground.
        """
        source = data[self.source_key]
        if not self.cropper.select_fn(source).any():
            meta: Mapping[Any, Any] = source.meta if isinstance(source, MetaTensor) else {}
            name = meta.get(ImageMetaKey.FILENAME_OR_OBJ, self.source_key)
            raise ImageFileError(
                f"{name}: no voxel is foreground (above 0, unless select_fn says otherwise). Set what is not to be "
                "segmented to 0, and the rest above."
            )
        cropped: dict[Hashable, Any] = super().__call__(data, lazy)
        return cropped


def _background_of(image: torch.Tensor) -> torch.Tensor:
    """``(H, W[, D])``: where each channel has its lowest value."""
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    background = plain[0] <= plain[0].amin()
    for channel in plain[1:]:
        background &= channel <= channel.amin()
    return background


def _cleared(found: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    if not found.is_floating_point():
        return found.masked_fill(background, 0)
    cleared = found.clone()
    cleared[0].masked_fill_(background, 0.0)
    cleared[1:].masked_fill_(background, float("-inf"))
    return cleared
