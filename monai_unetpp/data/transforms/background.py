"""The constant surround of an image: find it, level it, crop it, or clear the segmentation in it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Hashable, Mapping
from typing import Any, cast

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import CropForegroundd, MapTransform
from monai.transforms.utils import is_positive
from monai.utils import ensure_tuple_rep

from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.formats.source_files import file_of
from monai_unetpp.data.transforms.surround_search import Surround, level_image, search_surround

logger = logging.getLogger(__name__)

#: Metadata keys: the value of the surround and its share of the image; NaN and 0 if there is none.
SURROUND_VALUE, SURROUND_SHARE = "surround_value", "surround_share"
#: MONAI keeps the edges of what is cropped as 16-bit integers.
_LONGEST_AXIS = 2**15 - 1


def find_surround(image: torch.Tensor) -> Surround | None:
    """Find the part of an image that is constant and reaches its border, whatever its value.

    The value is the most frequent one on the border of the field of view. It may cover as little as 5 % of it, where a
    brain reaches the border, but its voxels must be connected, unlike noise. All voxels with this value that are
    connected to the border through faces are surround. Thus holes of the same value are not, a wall of one voxel keeps
    the surround out, and a gap of one voxel lets it in. The search is then repeated in the bounding box of the rest,
    for images that were padded with another value than their background, as long as the remainder varies.

    Voxels must have exactly this value. If it is not the lowest, and much of the image lies within 0.02 standard
    deviations of its channel around it, as after interpolation, these voxels count as well.

    Args:
        image: ``(C, H, W[, D])`` on any device. All channels must be constant in the same region.

    Returns:
        The surround, or None if there is none, as in a whole head surrounded by noise. A constant image is all
        surround.

    Needs a few bytes of memory per voxel besides the image.

    Example:
        >>> image = torch.zeros(1, 8, 8)
        >>> image[0, 3:6, 2:6] = torch.tensor([-1.0, 0.0, 2.0, 1.0])
        >>> print(find_surround(image))
        0, 86 % of the image
    """
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    found = search_surround(plain.cpu().numpy())
    return None if found is None else dataclasses.replace(found, mask=torch.from_numpy(found.mask).to(plain.device))


def find_own_surround(image: torch.Tensor) -> Surround | None:
    """The constant surround of an image ``(C, H, W[, D])``; None if it has none, or is constant as a whole."""
    surround = find_surround(image)
    return None if surround is None or surround.share >= 1 else surround


class LevelSurroundd(MapTransform):
    """Set the surround of an image to 0 and make the rest positive, as in most skull-stripped images.

    For images whose background is not 0, such as -1024, or not the lowest value, such as the 0 around a brain that was
    normalized to mean 0 and standard deviation 1: networks see such a background as grey. See
    :func:`monai_unetpp.data.find_surround` for what counts as surround.

    If the surround is the lowest value, apart from undershoots of interpolation, it is subtracted from the image. If it
    lies within the intensity range inside (percentiles 0.1 to 99.5), or more than the width of this range below it, the
    black level is estimated from the median as in T1-weighted MRI of the brain, 0.1 to 0.4 of the range below the
    range, and subtracted. Negative values then become 0. An image without a surround, or with a surround of 0 and
    nothing below it, is returned unchanged, bit for bit.

    The result is logged in one line per image and kept in its metadata as ``surround_value`` (of the first channel; NaN
    if there is none) and ``surround_share``, a fraction of the image.

    Args:
        keys: images ``(C, H, W[, D])``; each channel is leveled separately. Level them before resampling, which blurs
            the rim of the surround.
        allow_missing_keys: whether items without a key are skipped.

    Example:
        >>> import torch
        >>> image = torch.full((1, 8, 8), -100.0)
        >>> image[0, 3:5, 3:5] = torch.tensor([[5.0, 10.0], [20.0, 1000.0]])
        >>> float(LevelSurroundd("image")({"image": image})["image"].max())
        1100.0
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Level the images of one item."""
        d = dict(data)
        for key in self.key_iterator(d):
            surround = find_surround(d[key])
            _tell(d[key], key, surround)
            image = d[key]
            voxels = image if surround is None or surround.share == 1 else _leveled(image, surround)
            d[key] = _described(voxels, image, surround) if isinstance(image, MetaTensor) else voxels
        return d


class ClearBackgroundd(MapTransform):
    """Set a segmentation to background in the surround of the image.

    For images whose background was set to one value, such as the 0 around a skull-stripped brain; see
    :func:`monai_unetpp.data.find_surround`. A window inside the surround has no contrast, and a network that normalizes
    each window may find anything in it. An image without a surround is left alone.

    Args:
        keys: integer label maps ``(1, H, W[, D])``, set to 0 there, or logits ``(C, H, W[, D])`` of ``C >= 2`` classes,
            of which all but class 0, the background, are set to minus infinity there.
        image_key: key of the preprocessed image ``(C, H, W[, D])``. One for all or one for each of ``keys``.
        allow_missing_keys: whether items without a key are skipped.

    Example:
        >>> import torch
        >>> image = torch.zeros(1, 8, 8)
        >>> image[0, 4, 3:5] = torch.tensor([-1.0, 2.0])
        >>> item = {"image": image, "pred": torch.full((1, 8, 8), 3)}
        >>> ClearBackgroundd("pred")(item)["pred"].count_nonzero().item()
        2
    """

    def __init__(
        self, keys: KeysCollection, image_key: KeysCollection = "image", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = ensure_tuple_rep(image_key, len(self.keys))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Clear the segmentations of one item; a ``ValueError`` says that one does not fit its image."""
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
            surround = find_surround(image)
            if surround is not None:
                d[key] = _cleared(found, surround.mask.to(found.device))
        return d


class CropBackgroundd(CropForegroundd):
    """MONAI's ``CropForegroundd`` with everything but the surround as foreground, whatever its value.

    Arguments and inverse are those of ``CropForegroundd``. Unless ``select_fn`` is given, the surround is cropped; see
    :func:`monai_unetpp.data.find_surround`. In an image without one, voxels above 0 are foreground. An image without
    foreground is an error, where ``CropForegroundd`` would go on with an empty image.

    Example:
        >>> import torch
        >>> image = torch.full((1, 9, 9), -7.0)
        >>> image[0, 4, 3:5] = torch.tensor([-9.0, 2.0])
        >>> CropBackgroundd("image", "image")({"image": image})["image"].tolist()
        [[[-9.0, 2.0]]]
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        select = self.cropper.select_fn
        self.cropper.select_fn = _Foreground(_outside_surround if select is is_positive else select, self.source_key)

    @property
    def select_fn(self) -> Callable[[torch.Tensor], Any]:
        """What selects the foreground, without the check that there is any."""
        return cast(_Foreground, self.cropper.select_fn).select


@dataclasses.dataclass(frozen=True)
class AboveMean:
    """Select voxels brighter than a fraction of the mean, for ``select_fn`` of MONAI's ``CropForegroundd``.

    Unlike a lambda in a configuration, it can be exported with the bundle.

    Attributes:
        part: fraction of the mean over all voxels and channels, such as 0.25.

    Example:
        >>> AboveMean(0.5)(torch.tensor([[1.0, 3.0, 8.0]])).tolist()
        [[False, True, True]]
    """

    part: float

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Mark the foreground of ``image``, ``(C, H, W[, D])``, in the same shape."""
        return image.float() > self.part * (image.sum(dtype=torch.float64).item() / image.numel())


@dataclasses.dataclass(frozen=True)
class _Foreground:
    """Selects the foreground, and refuses an image without any."""

    select: Callable[[torch.Tensor], Any]
    key: str

    def __call__(self, image: torch.Tensor) -> Any:
        if max(image.shape[1:]) > _LONGEST_AXIS:
            raise ImageFileError(
                f"{file_of(image, self.key)}: has an axis of {max(image.shape[1:])} voxels, but the background can be "
                f"cropped only up to {_LONGEST_AXIS}. Leave out the crop (crop_background), or cut the image."
            )
        mask = self.select(image)
        if not mask.any():
            raise ImageFileError(
                f"{file_of(image, self.key)}: has no foreground: all voxels have the same value, or none is above 0 "
                "where that is required. Set the background to one value, and the rest to others."
            )
        return mask


def _outside_surround(image: torch.Tensor) -> Any:
    surround = find_surround(image)
    return is_positive(image) if surround is None else ~surround.mask[None]


def _tell(image: torch.Tensor, key: Hashable, surround: Surround | None) -> None:
    if surround is None:
        logger.info("%s: no constant surround found, as around a skull-stripped brain.", file_of(image, key))
    else:
        logger.info("%s: the surround is %s.", file_of(image, key), surround)


def _described(voxels: torch.Tensor, image: MetaTensor, surround: Surround | None) -> MetaTensor:
    """The voxels with the metadata of the image and the surround; the image keeps its own metadata."""
    plain = voxels.as_tensor() if isinstance(voxels, MetaTensor) else voxels
    described: MetaTensor = MetaTensor(plain).copy_meta_from(image)
    described.meta[SURROUND_VALUE] = float("nan") if surround is None else surround.values[0]
    described.meta[SURROUND_SHARE] = 0.0 if surround is None else surround.share
    return described


def _leveled(image: torch.Tensor, surround: Surround) -> torch.Tensor:
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    leveled = level_image(plain.cpu().numpy(), dataclasses.replace(surround, mask=surround.mask.cpu().numpy()))
    return image if leveled is None else torch.from_numpy(leveled).to(plain.device)


def _cleared(found: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    if not found.is_floating_point():
        return found.masked_fill(background, 0)
    cleared = found.clone()
    cleared[0].masked_fill_(background, 0.0)
    cleared[1:].masked_fill_(background, float("-inf"))
    return cleared
