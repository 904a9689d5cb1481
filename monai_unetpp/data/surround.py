"""The constant surround of an image, such as the 0 around a skull-stripped brain, found from the border inwards."""

from __future__ import annotations

import dataclasses

import torch
from monai.data import MetaTensor

from monai_unetpp.data.surround_search import search_surround

__all__ = ["Surround", "find_surround"]


@dataclasses.dataclass(frozen=True, eq=False)
class Surround:
    """What surrounds the content of an image.

    Attributes:
        values: the constant, one number per channel; where there are several, one inside the other or side by side,
            that with the largest part of the border.
        mask: ``(H, W[, D])`` of truth, on the device of the image.
        constants: how many constants there are.
        share: part of the image that is surround, from 0 to 1.
    """

    values: tuple[float, ...]
    mask: torch.Tensor
    constants: int
    share: float

    def __str__(self) -> str:
        values = ", ".join(f"{value:g}" for value in self.values)
        others = f" and {self.constants - 1} more constants" if self.constants > 1 else ""
        return f"{values}{others}, {100 * self.share:.0f} % of the image"


def find_surround(image: torch.Tensor) -> Surround | None:
    """The part of an image that is constant and reaches its border, whatever its value.

    The value is what more of the border of the field of view has than any other. That may be as little as 5 % of it,
    where a brain reaches the border, but what has this value must hang together as noise does not. All voxels with it
    that are connected to the border through their faces are surround. So holes of the same value inside are not, a
    wall of one voxel keeps the surround out, and a gap of one voxel lets it in. Then the same is asked of the box
    around the rest, for images that were padded with another value than that of their background; what is left must
    vary, or the constant before is the last.

    Voxels must have the value exactly. But where it is not the lowest, and much of the image is within 0.02 standard
    deviations of its channel around it, as interpolation leaves traces of either sign, these voxels count as well.

    Args:
        image: ``(C, H, W[, D])`` on any device. All channels must be constant at the same place.

    Returns:
        The surround, or None where there is none, as in a whole head with noise around it. An image that has one value
        everywhere is all surround.

    It needs a few bytes of memory per voxel, in addition to the image.

    Example:
        >>> image = torch.zeros(1, 8, 8)
        >>> image[0, 3:6, 2:6] = torch.tensor([-1.0, 0.0, 2.0, 1.0])
        >>> print(find_surround(image))
        0, 81 % of the image
    """
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    found = search_surround(plain.cpu().numpy())
    if found is None:
        return None
    return Surround(found.values, torch.from_numpy(found.mask).to(plain.device), found.constants, found.share)
