"""Draw images with random intensities for each label."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_tensor

__all__ = ["RandLabelsToImaged"]


class RandLabelsToImaged(RandomizableTransform, MapTransform):
    """Draw an image from a label map: each label gets its own normal distribution of intensities.

    Networks that see a new contrast in every step learn shapes, and segment scans of any contrast. Blur, bias field,
    resolution and other noise are left to later transforms.

    Args:
        keys: the label map ``(1, H, W[, D])`` of integers from 0 up, which is not changed.
        image_key: key of the image, float32 and as large as the label map.
        alike: groups of labels that share a distribution, such as the two sides of a structure.
        mean: range of a label's mean intensity.
        deviation: range of a label's standard deviation.
        dark: labels that are black (mean and deviation 0) with probability ``dark_prob``, such as air or removed
            tissue.
        dark_prob: see ``dark``.
        means: pairs of labels and a range that replaces ``mean`` for them, to imitate a common kind of scan such as
            T1-weighted MRI.

    Raises:
        ValueError: a range does not ascend, or a label is in two groups.

    Example:
        >>> import torch
        >>> draw = RandLabelsToImaged("label", alike=[[1, 2]], deviation=(0, 0)).set_random_state(0)
        >>> image = draw({"label": torch.tensor([[[1, 2, 3]]])})["image"]
        >>> bool(image[0, 0, 0] == image[0, 0, 1]), bool(image[0, 0, 0] == image[0, 0, 2])
        (True, False)

    See:
        Billot et al., arXiv:2107.09559.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        alike: Sequence[Sequence[int]] = (),
        mean: tuple[float, float] = (0.0, 1.0),
        deviation: tuple[float, float] = (0.0, 0.1),
        dark: Sequence[int] = (0,),
        dark_prob: float = 0.75,
        means: Sequence[tuple[Sequence[int], tuple[float, float]]] = (),
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=1.0)
        ranges = [("mean", mean), ("deviation", deviation), *(("means", each) for _, each in means)]
        for name, (low, high) in ranges:
            if not low <= high:
                raise ValueError(f"{name} must be a range (lowest, highest), got ({low}, {high}). Swap the two.")
        members = [label for group in alike for label in group]
        if len(set(members)) < len(members):
            raise ValueError(f"alike must name each label once, got {members}. Merge the groups that share a label.")
        self.image_key = image_key
        self.alike = [list(group) for group in alike]
        self.mean = mean
        self.deviation = deviation
        self.dark = list(dark)
        self.dark_prob = dark_prob
        self.means = [(list(labels), (float(low), float(high))) for labels, (low, high) in means]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the image to one item."""
        d = dict(data)
        for key in self.key_iterator(d):
            label = convert_to_tensor(d[key], track_meta=False)
            values = label.to(torch.int64)
            mean, deviation = self._draw(int(values.max()) + 1)
            generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
            image = torch.randn(label.shape, generator=generator).mul_(deviation[values]).add_(mean[values])
            d[self.image_key] = MetaTensor(image, meta=d[key].meta) if isinstance(d[key], MetaTensor) else image
        return d

    def _draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw mean and standard deviation of the labels 0 to ``count`` - 1."""
        drawn = torch.as_tensor(self.R.uniform(size=(2, count)), dtype=torch.float32)
        dark = self.R.uniform(size=len(self.dark)) < self.dark_prob
        for group in self.alike:
            known = [label for label in group if label < count]
            drawn[:, known] = drawn[:, known[:1]]
        mean, deviation = (
            low + (high - low) * share for (low, high), share in zip((self.mean, self.deviation), drawn, strict=True)
        )
        for labels, (low, high) in self.means:
            known = [label for label in labels if label < count]
            mean[known] = low + (high - low) * drawn[0, known]
        for label in (label for label, is_dark in zip(self.dark, dark, strict=True) if is_dark and label < count):
            mean[label] = deviation[label] = 0.0
        return mean, deviation
