"""Make images with dark and bright backgrounds look alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.transforms import LoadImage, MapTransform, Transform

from monai_unetpp.data.formats.reader import VolumeReader
from monai_unetpp.data.transforms.image_kinds import is_bright, place_of_median, sort_kinds, weigh_kinds
from monai_unetpp.data.transforms.sampling import sample_evenly, sampled_median


class InvertBrightBackground(Transform):
    """Invert an image with a bright background, so that dark-field and bright-field images look alike.

    Most of an image is background: if the median is above the middle of the range, the image becomes its negative,
    ``low + high - image``. Nuclei in fluorescence are bright on dark and stay so; in bright-field images they are dark
    on bright and become bright on dark.

    Args:
        low: value of black.
        high: value of white.

    Raises:
        ValueError: ``low`` is not below ``high``.

    Example:
        >>> import torch
        >>> InvertBrightBackground()(torch.tensor([[[1.0, 1.0, 0.25]]])).tolist()
        [[[0.0, 0.0, 0.75]]]
    """

    def __init__(self, low: float = 0.0, high: float = 1.0) -> None:
        if not low < high:
            raise ValueError(f"low must be below high, got {low} and {high}. Give the range of the image.")
        self.low = low
        self.high = high

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Invert ``img`` ``(C, H, W[, D])`` if its background is bright."""
        if sampled_median(torch.as_tensor(img).cpu().numpy()) <= (self.low + self.high) / 2:
            return img
        return (self.low + self.high) - img


class InvertBrightBackgroundd(MapTransform):
    """:class:`InvertBrightBackground` for dictionaries.

    Args:
        keys: the images.
        low: value of black.
        high: value of white.
        allow_missing_keys: whether items without a key are skipped.
    """

    def __init__(
        self, keys: KeysCollection, low: float = 0.0, high: float = 1.0, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = InvertBrightBackground(low, high)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Invert the images of one item that have a bright background."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key])
        return d


@dataclasses.dataclass(frozen=True)
class ImageKind:
    """Traits that images of one microscope and preparation mostly share.

    Attributes:
        shape: pixels along each axis.
        background: the end of the grey values that most of the image is nearer to.

    Example:
        >>> import numpy as np
        >>> ImageKind.of(np.array([[200, 210, 220], [215, 205, 30]]))
        ImageKind(shape=(2, 3), background='bright')
    """

    shape: tuple[int, ...]
    background: Literal["dark", "bright"]

    @classmethod
    def of(cls, image: npt.ArrayLike | torch.Tensor) -> ImageKind:
        """Find the kind of an image ``(H, W[, D])``, on any grey scale.

        As in :func:`kind_weights`, the background is bright if the median is above the middle of the range from
        percentile 0.5 to 99.5. A constant image counts as dark.
        """
        values = np.asarray(image)
        return cls(values.shape, "bright" if is_bright(_place_of_median(values)) else "dark")


def _place_of_median(image: npt.NDArray[Any]) -> float:
    return place_of_median(*np.percentile(sample_evenly(image), (0.5, 50, 99.5)).tolist())


def kind_weights(
    data: Sequence[Mapping[str, Any]],
    power: float = 0.5,
    image_key: str = "image",
    spatial_dims: int = 2,
    most: float = math.inf,
    channels: int = 1,
) -> list[float]:
    """Compute sampling weights that oversample rare kinds of images.

    Images of the same shape and background, dark or bright, are of one kind. Shapes count if ten images or more share
    one on average, and backgrounds if they are of two separate kinds. A case of a kind with ``n`` cases gets the weight
    ``n ** -power``.

    Args:
        data: cases with the path of an image, or one path per channel. The first channel tells the background.
        power: from 0 (all cases equally often) to 1 (all kinds equally often).
        image_key: key of the path.
        spatial_dims: 2 or 3.
        most: the largest weight, relative to that of the most frequent kind.
        channels: channels of an image.

    Returns:
        A weight per case, for ``torch.utils.data.WeightedRandomSampler``, MONAI's
        ``DistributedWeightedRandomSampler`` or :class:`monai_unetpp.training.NumberedPatches`.

    Raises:
        ImageFileError: an image cannot be read.
        ValueError: ``power`` or ``most`` is out of range.
    """
    reader = VolumeReader(spatial_dims, allow_constant=True, channels=channels)
    load = LoadImage(reader, image_only=True, ensure_channel_first=True)
    shapes, places = [], []
    for case in data:
        first = np.asarray(load(case[image_key])[0])
        shapes.append(first.shape)
        places.append(_place_of_median(first))
    kinds = sort_kinds(shapes, places)
    weights = weigh_kinds(kinds, power, most)
    return [weights[kind] for kind in kinds]
