"""Find the constant surround of an image, such as the 0 around a skull-stripped brain."""

from __future__ import annotations

import dataclasses

import torch
from monai.data import MetaTensor

from monai_unetpp.data.transforms.surround_search import Surround, search_surround


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
        0, 81 % of the image
    """
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    found = search_surround(plain.cpu().numpy())
    return None if found is None else dataclasses.replace(found, mask=torch.from_numpy(found.mask).to(plain.device))
