"""Resampling large volumes to another voxel size, and back, in bounded memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import DtypeLike, KeysCollection, SequenceStr
from monai.data import MetaTensor, get_track_meta, to_affine_nd
from monai.data.utils import AFFINE_TOL
from monai.networks.layers import AffineTransform
from monai.transforms import Spacingd, SpatialResample
from monai.utils import (
    GridSampleMode,
    GridSamplePadMode,
    TraceKeys,
    convert_to_numpy,
    convert_to_tensor,
    get_equivalent_dtype,
)

__all__ = ["BlockwiseSpacingd"]

#: Values of input and of output that a block has at most: about 100 MB with the coordinates in float64.
_BLOCK_VALUES = 2**20
#: Towards higher indices, in voxels: without it a place exactly between two voxels takes either, as rounding has it.
_TIE_SHIFT = 1e-5
_BLOCKWISE_MODES = (GridSampleMode.BILINEAR, GridSampleMode.NEAREST)
_BLOCKWISE_PADDING = (GridSamplePadMode.BORDER, GridSamplePadMode.ZEROS)


class BlockwiseSpacingd(Spacingd):
    """MONAI's ``Spacingd``, block by block: the same result, but memory for little more than input and output.

    ``Spacingd`` computes in float64 with the coordinates of all voxels at once, about 60 bytes per voxel of the result.
    Here each block of the result is resampled from the voxels that it needs, in about 100 MB, forth and, through
    ``Invertd`` or :class:`monai_unetpp.data.InvertProbabilitiesd`, back. Values agree to rounding; a place
    exactly between two voxels takes the nearest value from the one of higher index, where MONAI leaves it to rounding.
    A volume that has the voxel size already is not copied.

    With ``"nearest"`` integers keep their type, where MONAI returns float32: a label map stays a quarter of the size.

    Args:
        keys: images and label maps ``(C, H, W[, D])``, ``MetaTensor`` with an affine.
        pixdim: voxel size in mm, one number per axis; an axis that has none takes the last one.
        diagonal: whether the result's axes are those of the world.
        mode: ``"bilinear"``, ``"nearest"`` or the order of a spline; one for all or one for each of ``keys``.
        padding_mode: what lies outside: ``"border"``, ``"zeros"`` or ``"reflection"``; one for all or one for each.
        align_corners: as of ``grid_sample``; one for all or one for each.
        dtype: type that is computed in; one for all or one for each.
        options: further arguments of ``Spacingd``.

    Splines, reflection, ``align_corners`` and lazy resampling need the whole volume at once: MONAI does them as ever.

    Example:
        .. code-block:: json

            {
                "_target_": "monai_unetpp.data.BlockwiseSpacingd",
                "keys": "image",
                "pixdim": [1.0, 1.0, 1.0],
                "mode": "bilinear"
            }
    """

    def __init__(
        self,
        keys: KeysCollection,
        pixdim: Sequence[float] | float,
        diagonal: bool = False,
        mode: SequenceStr = GridSampleMode.BILINEAR,
        padding_mode: SequenceStr = GridSamplePadMode.BORDER,
        align_corners: Sequence[bool] | bool = False,
        dtype: Sequence[DtypeLike] | DtypeLike = np.float64,
        **options: Any,
    ) -> None:
        super().__init__(keys, pixdim, diagonal, mode, padding_mode, align_corners, dtype, **options)
        self.spacing_transform.sp_resample = _BlockwiseResample(lazy=self.lazy)


class _BlockwiseResample(SpatialResample):
    """What resamples for MONAI's ``Spacing``, in blocks where it can be done so."""

    def __call__(
        self,
        img: torch.Tensor,
        dst_affine: torch.Tensor | None = None,
        spatial_size: Sequence[int] | torch.Tensor | int | None = None,
        mode: str | int | None = None,
        padding_mode: str | None = None,
        align_corners: bool | None = None,
        dtype: DtypeLike = None,
        lazy: bool | None = None,
    ) -> torch.Tensor:
        mode = self.mode if mode is None else mode
        padding_mode = padding_mode or self.padding_mode
        align_corners = self.align_corners if align_corners is None else align_corners
        lazy = self.lazy if lazy is None else lazy
        blockwise = mode in _BLOCKWISE_MODES and padding_mode in _BLOCKWISE_PADDING and not align_corners and not lazy
        if (
            not blockwise
            or dst_affine is None
            or isinstance(spatial_size, (int, type(None)))
            or not 3 <= img.ndim == len(spatial_size) + 1 <= 4
            or (isinstance(img, MetaTensor) and img.pending_operations)
        ):
            return super().__call__(img, dst_affine, spatial_size, mode, padding_mode, align_corners, dtype, lazy)
        size = tuple(int(length) for length in spatial_size)
        computed = get_equivalent_dtype(dtype or self.dtype or img.dtype, torch.Tensor)
        return self._resample(img, dst_affine, size, str(mode), str(padding_mode), computed)

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        transform = self.pop_transform(data)
        info = transform[TraceKeys.EXTRA_INFO]
        align_corners = info["align_corners"]
        with self.trace_transform(False):
            return self(
                data,
                info["src_affine"],
                transform[TraceKeys.ORIG_SIZE],
                info["mode"],
                info["padding_mode"],
                align_corners != TraceKeys.NONE and bool(align_corners),
                getattr(torch, info["dtype"]),
                lazy=False,
            )

    def _resample(
        self,
        img: torch.Tensor,
        dst_affine: torch.Tensor,
        size: tuple[int, ...],
        mode: str,
        padding_mode: str,
        computed: torch.dtype,
    ) -> torch.Tensor:
        image = convert_to_tensor(img, track_meta=get_track_meta())
        plain = image.as_tensor() if isinstance(image, MetaTensor) else image
        rank = len(size)
        source = to_affine_nd(rank, convert_to_numpy(img.affine) if isinstance(img, MetaTensor) else np.eye(4))
        target = to_affine_nd(rank, convert_to_numpy(dst_affine))
        matrix = np.linalg.solve(source, target)
        unchanged = size == tuple(plain.shape[1:]) and (
            np.allclose(source, target, atol=AFFINE_TOL) or np.allclose(matrix, np.eye(rank + 1), atol=AFFINE_TOL)
        )
        meta = self.track_transform_meta(
            image,
            sp_size=size,
            affine=None if unchanged else torch.as_tensor(matrix),
            extra_info={
                "dtype": str(computed).removeprefix("torch."),
                "mode": mode,
                "padding_mode": padding_mode,
                "align_corners": False,
                "src_affine": torch.as_tensor(source),
            },
            orig_size=tuple(plain.shape[1:]),
            transform_info=self.get_transform_info(),
        )
        kept = mode == GridSampleMode.NEAREST and not plain.is_floating_point()
        stored = plain.dtype if kept else torch.float32
        if unchanged:
            resampled = plain.to(stored)
        else:
            resampled = plain.new_empty((len(plain), *size), dtype=stored)
            _fill_blocks(resampled, plain, matrix, mode, padding_mode, computed)
        result: torch.Tensor = convert_to_tensor(resampled, track_meta=get_track_meta())
        if isinstance(result, MetaTensor):
            result.copy_meta_from(meta)
        return result


def _fill_blocks(
    resampled: torch.Tensor,
    image: torch.Tensor,
    matrix: npt.NDArray[np.float64],
    mode: str,
    padding_mode: str,
    computed: torch.dtype,
) -> None:
    """Resample ``image`` into ``resampled``; ``matrix`` leads from voxels of the result to those of the image."""
    sample = AffineTransform(normalized=False, mode=mode, padding_mode=padding_mode, align_corners=False)
    rank = len(matrix) - 1
    linear = np.abs(matrix[:rank, :rank])
    for block in _list_blocks(resampled.shape, linear):
        first = np.array([part.start for part in block])
        half = np.array([part.stop - part.start - 1 for part in block]) / 2
        centre, reach = matrix[:rank, :rank] @ (first + half) + matrix[:rank, rank], linear @ half
        # one voxel more than is needed, so that rounding never looks for one beyond
        last = np.array(image.shape[1:]) - 1
        low = np.clip(np.floor(centre - reach) - 1, 0, last).astype(int)
        high = np.clip(np.floor(centre + reach) + 2, 0, last).astype(int)
        box = (slice(None), *(slice(int(start), int(stop) + 1) for start, stop in zip(low, high, strict=True)))
        local = matrix.copy()
        local[:rank, rank] += matrix[:rank, :rank] @ first - low + (_TIE_SHIFT if mode == GridSampleMode.NEAREST else 0)
        needed = image[box].to(computed)
        theta = torch.as_tensor(local, dtype=computed, device=needed.device)
        target = (slice(None), *block)
        resampled[target] = sample(needed[None], theta, [part.stop - part.start for part in block])[0]


def _list_blocks(shape: Sequence[int], linear: npt.NDArray[np.float64]) -> Iterator[tuple[slice, ...]]:
    """Cut ``(C, H, W[, D])`` into blocks that have, and need of the image, a bounded number of values."""
    lengths = [int(length) for length in shape[1:]]
    while max(lengths) > 1 and shape[0] * _count_voxels(lengths, linear) > _BLOCK_VALUES:
        longest = lengths.index(max(lengths))
        lengths[longest] = -(-lengths[longest] // 2)
    ranges = [
        [slice(start, min(start + length, whole)) for start in range(0, whole, length)]
        for whole, length in zip(shape[1:], lengths, strict=True)
    ]
    yield from itertools.product(*ranges)


def _count_voxels(lengths: Sequence[int], linear: npt.NDArray[np.float64]) -> int:
    """Of a block or of what it needs, whichever are more."""
    return max(math.prod(lengths), math.prod(int(needed) for needed in linear @ np.array(lengths) + 3))
