"""Steps that change the grid of an image, with their inverses: orientation, voxel size, crop.

The crops raise an ``ImageFileError`` for an image without foreground.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage

from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.transforms import resampling
from monai_unetpp.data.transforms.surround_search import box_around, search_surround
from monai_unetpp.data.transforms.target_grid import lead_from_to
from monai_unetpp.runner.volume import Array, OnGrid, Volume

__all__ = ["PADDINGS", "crop_above_mean", "crop_background", "crop_foreground", "orient", "spacing"]

#: Padding modes by name in ``grid_sample``, with the name in scipy.
PADDINGS = {"border": "nearest", "zeros": "grid-constant"}


def orient(volume: Volume, axcodes: str) -> None:
    """Permute and flip the axes to the orientation ``axcodes``, such as ``"RAS"``."""
    shape, affine = volume.shape, volume.affine
    own, wanted = io_orientation(affine), axcodes2ornt(tuple(axcodes)[: len(shape)])
    turn, back = ornt_transform(own, wanted), ornt_transform(wanted, own)
    volume.voxels = np.stack([apply_orientation(channel, turn) for channel in volume.voxels])
    volume.affine = affine @ inv_ornt_aff(turn, shape)

    def inverse(found: OnGrid, linear: bool) -> OnGrid:
        return apply_orientation(found[0], back), affine

    volume.add_inverse(inverse)


def spacing(volume: Volume, pixdim: Sequence[float], padding: str, diagonal: bool) -> None:
    """Resample linearly to voxels of ``pixdim`` mm; the inverse uses the nearest label, or is linear.

    A size of 0 or less is the image's own. With ``diagonal`` the axes of the result are those of the world.

    Raises:
        ImageFileError: an axis would nearly vanish.
    """
    shape, affine, rank = volume.shape, np.asarray(volume.affine, dtype=np.float64), len(volume.shape)
    wanted = np.array([*pixdim[:rank], *[pixdim[-1]] * (rank - len(pixdim))], dtype=np.float64)
    voxel_bytes = volume.voxels.itemsize * len(volume.voxels)
    size, target = resampling.fit_grid(volume.path, shape, affine, voxel_bytes, wanted, diagonal)
    matrix = lead_from_to(affine, target, rank)
    if not (size == shape and resampling.is_same_place(matrix, size)):
        volume.voxels = _interpolate(volume.voxels, matrix, size, padding)
    volume.affine = target

    def inverse(found: OnGrid, linear: bool) -> OnGrid:
        there = lead_from_to(np.asarray(found[1], dtype=np.float64), affine, rank)
        if found[0].shape == shape and resampling.is_same_place(there, shape):
            return found[0], affine
        if linear:
            # probabilities, as in InvertProbabilitiesd
            return _interpolate(found[0][None], there, shape, padding, np.float32)[0], affine
        return _pick_nearest(found[0], there, shape, padding), affine

    volume.add_inverse(inverse, is_moving=False)


def crop_background(volume: Volume, margin: int | Sequence[int], allow_smaller: bool) -> None:
    """Crop the surround or, if there is none, voxels that are not above 0; see ``CropBackgroundd``."""
    found = search_surround(volume.voxels)
    _crop(volume, _above_zero(volume) if found is None else ~found.mask, margin, allow_smaller)


def crop_foreground(volume: Volume, margin: int | Sequence[int], allow_smaller: bool) -> None:
    """Crop to voxels above 0, like MONAI's ``CropForegroundd``."""
    _crop(volume, _above_zero(volume), margin, allow_smaller)


def crop_above_mean(volume: Volume, part: float, margin: int | Sequence[int], allow_smaller: bool) -> None:
    """Crop to voxels brighter than a fraction of the mean; see ``AboveMean``."""
    limit = np.float32(part * float(volume.voxels.sum(dtype=np.float64) / volume.voxels.size))
    _crop(volume, np.asarray((volume.voxels > limit).any(axis=0)), margin, allow_smaller)


def _above_zero(volume: Volume) -> Array:
    return np.asarray((volume.voxels > 0).any(axis=0))


def _crop(volume: Volume, foreground: Array, margin: int | Sequence[int], allow_smaller: bool) -> None:
    if not foreground.any():
        raise ImageFileError(
            f"{volume.path}: has no foreground: all voxels have the same value, or none is above 0 where that is "
            "required. Set the background to one value, and the rest to others."
        )
    shape, affine, rank = volume.shape, volume.affine, len(volume.shape)
    margins = [margin] * rank if isinstance(margin, int) else list(margin)
    inner, padding, start = [], [], []
    for box, length, more in zip(box_around(foreground), shape, margins, strict=True):
        low, high = box.start - more, box.stop + more
        if allow_smaller:
            low, high = max(low, 0), min(high, length)
        inner.append(slice(max(low, 0), min(high, length)))
        padding.append((max(-low, 0), max(high - length, 0)))
        start.append(low)
    kept = (slice(None), *inner)
    volume.voxels = np.pad(volume.voxels[kept], [(0, 0), *padding])
    moved = np.array(affine, dtype=np.float64)
    moved[:-1, -1] += moved[:-1, :rank] @ np.array(start)
    volume.affine = moved

    def inverse(found: OnGrid, linear: bool) -> OnGrid:
        sides = zip(padding, found[0].shape, strict=True)
        unpadded = tuple(slice(before, size - after) for (before, after), size in sides)
        whole = np.zeros(shape, dtype=found[0].dtype)
        whole[tuple(inner)] = found[0][unpadded]
        return whole, affine

    volume.add_inverse(inverse)


def _interpolate(
    voxels: Array, matrix: Array, size: tuple[int, ...], padding: str, computed: type[np.floating[Any]] = np.float64
) -> Array:
    """Interpolate linearly, block by block; ``matrix`` maps voxels of the result to voxels of the image."""
    result = np.empty((len(voxels), *size), dtype=np.float32)
    rank = len(size)
    straight = np.count_nonzero(matrix[:rank, :rank]) == np.count_nonzero(np.diag(matrix[:rank, :rank]))
    for block in resampling.list_blocks(result.shape, np.abs(matrix[:rank, :rank])):
        box, local = resampling.needed_box(matrix, block, voxels.shape[1:])
        size_of_block = tuple(part.stop - part.start for part in block)
        for channel, written in zip(voxels, result, strict=True):
            if not channel[box].any():
                written[block] = 0
                continue
            needed = channel[box].astype(computed)
            if straight:
                written[block] = _interpolate_along_axes(needed, local, size_of_block, padding)
                continue
            found = ndimage.affine_transform(
                needed, local[:rank, :rank], local[:rank, rank], size_of_block, order=1, mode=PADDINGS[padding]
            )
            written[block] = np.where(np.abs(found) < resampling.TRACE * np.abs(needed).max(), 0, found)
    return result


def _interpolate_along_axes(image: Array, matrix: Array, size: Sequence[int], padding: str) -> Array:
    """Interpolate linearly between grids with the same axes, with the weights that ``BlockwiseSpacingd`` takes."""
    for axis in reversed(range(image.ndim)):
        shape = [-1 if each == axis else 1 for each in range(image.ndim)]
        step, start = float(matrix[axis, axis]), float(matrix[axis, -1])
        (below, share), (above, rest) = (
            (index, weight.astype(image.dtype).reshape(shape))
            for index, weight in resampling.axis_neighbours(step, start, size[axis], image.shape[axis], padding)
        )
        image = image.take(below, axis) * share + image.take(above, axis) * rest
    return image


def _pick_nearest(labels: Array, matrix: Array, size: tuple[int, ...], padding: str) -> Array:
    result = np.empty(size, dtype=labels.dtype)
    for block in resampling.list_blocks((1, *size), np.abs(matrix[: len(size), : len(size)])):
        found = list(resampling.nearest_voxels(matrix, block, labels.shape))
        result[block] = labels[tuple(index for index, _ in found)]
        if padding == "zeros":
            for _, outside in found:
                result[block] = np.where(outside, 0, result[block])
    return result
