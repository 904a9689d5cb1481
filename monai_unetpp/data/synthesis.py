"""Synthesize training images from label maps alone."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandAffineGrid, RandomizableTransform, Resample
from monai.utils import convert_to_tensor, ensure_tuple
from scipy import ndimage
from torch.nn import functional

__all__ = ["RandDeformLabelsd", "RandLabelsToImaged", "RandMirrorLabelsd", "RandStripSurroundd", "RandThickSlicesd"]


class RandDeformLabelsd(RandomizableTransform, MapTransform):
    """Rotate, shift, scale, shear and warp a label map at random, in a single resampling to a given size.

    MONAI's ``Rand3DElasticd`` smooths a displacement of every voxel, which takes most of a second on a CPU. Here a
    coarse grid of displacements is drawn and interpolated.

    Args:
        keys: integer label maps ``(1, H, W, D)``; resampled with the nearest label, and 0 outside.
        spatial_size: size of the result in voxels.
        scale: range of the ratio between the voxel sizes of result and input, drawn for each axis.
        rotate: largest rotation about each axis in radians, in either direction.
        shear: largest shear, in either direction.
        translate: largest shift of the centre along each axis in voxels of the result, in either direction.
        control_points: range of the number of displacements along each axis.
        displacement: range of their standard deviation, in voxels of the result.

    Raises:
        ValueError: fewer than 2 control points, or a range that does not ascend.

    Example:
        >>> import torch
        >>> halve = RandDeformLabelsd("label", (2, 2, 2), scale=(2, 2), displacement=(0, 0))
        >>> halve({"label": torch.ones(1, 4, 4, 4)})["label"].sum()
        tensor(8.)

    See:
        Billot et al., arXiv:2107.09559.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spatial_size: Sequence[int],
        scale: tuple[float, float] = (0.85, 1.15),
        rotate: float = 0.0,
        shear: float = 0.0,
        translate: Sequence[float] = (0.0, 0.0, 0.0),
        control_points: tuple[int, int] = (4, 10),
        displacement: tuple[float, float] = (0.0, 2.0),
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=1.0)
        _check_ranges(scale=scale, control_points=control_points, displacement=displacement)
        if control_points[0] < 2:
            raise ValueError(f"control_points must be 2 or more, got {control_points[0]}. Correct it.")
        self.spatial_size = [int(size) for size in spatial_size]
        self.control_points = control_points
        self.displacement = displacement
        low, high = scale
        self.affine = RandAffineGrid(
            rotate_range=[rotate] * 3,
            shear_range=[shear] * 6,
            translate_range=list(translate),
            scale_range=[(low - 1, high - 1)] * 3,
        )
        self.resample = Resample(mode="nearest", padding_mode="zeros", dtype="float32")

    def set_random_state(self, seed: Any = None, state: Any = None) -> RandDeformLabelsd:
        """Seed this transform and the affine one inside."""
        super().set_random_state(seed, state)
        self.affine.set_random_state(state=self.R)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Deform the label maps of one item, all alike."""
        d = dict(data)
        self.affine.randomize()
        grid = self.affine(grid=self._bent_grid(), randomize=False)
        for key in self.key_iterator(d):
            label = convert_to_tensor(d[key], track_meta=False)
            moved = convert_to_tensor(self.resample(label, grid=grid), track_meta=False).to(label.dtype)
            d[key] = MetaTensor(moved) if isinstance(d[key], MetaTensor) else moved
        return d

    def _bent_grid(self) -> torch.Tensor:
        """Homogeneous coordinates ``(4, *spatial_size)`` of the displaced voxels, relative to the centre."""
        axes = [torch.arange(size, dtype=torch.float32) - (size - 1) / 2 for size in self.spatial_size]
        grid = torch.stack([*torch.meshgrid(*axes, indexing="ij"), torch.ones(self.spatial_size)])
        count = [int(self.R.randint(self.control_points[0], self.control_points[1] + 1)) for _ in range(3)]
        drawn = self.R.normal(size=(1, 3, *count)) * self.R.uniform(*self.displacement)
        coarse = torch.as_tensor(drawn, dtype=torch.float32)
        grid[:3] += functional.interpolate(coarse, size=self.spatial_size, mode="trilinear", align_corners=True)[0]
        return grid


class RandMirrorLabelsd(RandomizableTransform, MapTransform):
    """Mirror an item at random, and swap the labels of the two sides.

    After a plain flip, structures with a left label are on the right, so a network trained on both cannot tell the
    sides apart. Unlike MONAI's flips this keeps the grid in place and mirrors the content.

    Args:
        keys: images and label maps ``(C, H, W[, D])``, all mirrored together.
        label_keys: the keys of label maps with integers from 0 up.
        pairs: labels of the two sides, such as ``[[17, 53]]``.
        prob: probability of mirroring.
        spatial_axis: the left-right axis.

    Raises:
        ValueError: a label is in two pairs, or a pair does not have two labels.

    Example:
        >>> import torch
        >>> mirror = RandMirrorLabelsd("label", "label", pairs=[[1, 2]], prob=1.0)
        >>> mirror({"label": torch.tensor([[1, 3, 3, 2, 0]])})["label"].tolist()
        [[0, 1, 3, 3, 2]]
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_keys: KeysCollection,
        pairs: Sequence[Sequence[int]],
        prob: float = 0.5,
        spatial_axis: int = 0,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=prob)
        members = [label for pair in pairs for label in pair]
        if len(set(members)) < len(members) or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"pairs must be of two labels each, every label once, got {[list(p) for p in pairs]}.")
        self.label_keys = ensure_tuple(label_keys)
        self.pairs = [list(pair) for pair in pairs]
        self.spatial_axis = spatial_axis

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Mirror one item, or leave it unchanged."""
        d = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return d
        for key in self.key_iterator(d):
            values = convert_to_tensor(d[key], track_meta=False).flip(self.spatial_axis + 1)
            mirrored = self._swap(values) if key in self.label_keys else values
            d[key] = _like(mirrored, d[key])
        return d

    def _swap(self, label: torch.Tensor) -> torch.Tensor:
        indices = label.to(torch.int64)
        names = torch.arange(1 + max(int(indices.max()), *(name for pair in self.pairs for name in pair), 0))
        for left, right in self.pairs:
            names[left], names[right] = right, left
        return names[indices].to(label.dtype)


class RandStripSurroundd(RandomizableTransform, MapTransform):
    """Set the labels around an organ to 0 at random, up to a random distance from it.

    Use it before :class:`RandLabelsToImaged`, so that image and label map agree.

    Args:
        keys: label maps ``(1, H, W[, D])``.
        surround: labels around the organ; all others but 0 are the organ.
        prob: probability of stripping.
        margin: range of the distance in voxels up to which the surround is kept.

    Raises:
        ValueError: ``margin`` is not a range of numbers from 0 up.

    Example:
        >>> import torch
        >>> strip = RandStripSurroundd("label", surround=[7], prob=1.0, margin=(1, 1))
        >>> strip({"label": torch.tensor([[[7, 7, 7, 4, 7]]])})["label"].tolist()
        [[[0, 0, 7, 4, 7]]]
    """

    def __init__(
        self, keys: KeysCollection, surround: Sequence[int], prob: float = 0.5, margin: tuple[int, int] = (0, 3)
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=prob)
        if not 0 <= margin[0] <= margin[1]:
            raise ValueError(f"margin must be a range of voxels from 0 up, got {tuple(margin)}. Correct it.")
        self.surround = list(surround)
        self.margin = margin

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Strip one item, or leave it unchanged."""
        d = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return d
        margin = int(self.R.randint(self.margin[0], self.margin[1] + 1))
        for key in self.key_iterator(d):
            label = convert_to_tensor(d[key], track_meta=False)
            stripped = label.masked_fill(~self._kept(label, margin), 0)
            d[key] = _like(stripped, d[key])
        return d

    def _kept(self, label: torch.Tensor, margin: int) -> torch.Tensor:
        outside = torch.tensor([0, *self.surround], dtype=label.dtype)
        organ = (~torch.isin(label, outside)).numpy()
        size = (1, *[2 * margin + 1] * (label.ndim - 1))
        return torch.from_numpy(ndimage.maximum_filter(organ, size, mode="constant"))


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
        _check_ranges(mean=mean, deviation=deviation)
        for _, each in means:
            _check_ranges(means=each)
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
            d[self.image_key] = _like(image, d[key])
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


class RandThickSlicesd(RandomizableTransform, MapTransform):
    """Average an image over thick slices along a random axis, and interpolate it back to its own grid.

    MONAI's ``RandSimulateLowResolutiond`` lowers the resolution along all axes; this transform averages along one, so
    structures thinner than a slice get partial volume effects.

    Args:
        keys: images ``(C, H, W[, D])``, all along the same axis.
        prob: probability of the transform.
        thickness: range of the slice thickness in voxels, at least 1.

    Raises:
        ValueError: ``thickness`` is not a range of numbers from 1 up.

    Example:
        >>> import torch
        >>> thick = RandThickSlicesd("image", prob=1.0, thickness=(3, 3))
        >>> image = thick({"image": torch.rand(1, 9, 9, 9)})["image"]
        >>> tuple(image.shape)
        (1, 9, 9, 9)
    """

    def __init__(self, keys: KeysCollection, prob: float = 0.5, thickness: tuple[float, float] = (1.0, 4.0)) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=prob)
        if not 1 <= thickness[0] <= thickness[1]:
            raise ValueError(f"thickness must be a range of voxels from 1 up, got {tuple(thickness)}. Correct it.")
        self.thickness = thickness

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Thicken the slices of one item, or leave it unchanged."""
        d = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return d
        share, thickness = self.R.uniform(), self.R.uniform(*self.thickness)
        for key in self.key_iterator(d):
            image = convert_to_tensor(d[key], track_meta=False, dtype=torch.float32)
            thick = _thicken(image, int(share * (image.ndim - 1)), thickness)
            d[key] = _like(thick, d[key])
        return d


def _thicken(image: torch.Tensor, axis: int, thickness: float) -> torch.Tensor:
    """``image`` ``(C, *spatial)`` with slices of ``thickness`` voxels along one spatial axis."""
    moved = image.movedim(axis + 1, -1)
    rows = moved.reshape(1, -1, moved.shape[-1])
    count = max(1, round(moved.shape[-1] / thickness))
    coarse = functional.adaptive_avg_pool1d(rows, count)
    fine = functional.interpolate(coarse, size=moved.shape[-1], mode="linear", align_corners=False)
    return fine.reshape(moved.shape).movedim(-1, axis + 1).contiguous()


def _check_ranges(**ranges: tuple[float, float]) -> None:
    for name, (low, high) in ranges.items():
        if not low <= high:
            raise ValueError(f"{name} must be a range (lowest, highest), got ({low}, {high}). Swap the two.")


def _like(values: torch.Tensor, given: Any) -> torch.Tensor:
    """``values`` with the metadata of ``given``, if it has any."""
    return MetaTensor(values, meta=given.meta) if isinstance(given, MetaTensor) else values
