"""Random deformation of label maps."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandAffineGrid, RandomizableTransform, Resample
from monai.utils import convert_to_tensor
from torch.nn import functional

__all__ = ["RandDeformLabelsd"]


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
        ranges = (("scale", scale), ("control_points", control_points), ("displacement", displacement))
        for name, (low, high) in ranges:
            if not low <= high:
                raise ValueError(f"{name} must be a range (lowest, highest), got ({low}, {high}). Swap the two.")
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
