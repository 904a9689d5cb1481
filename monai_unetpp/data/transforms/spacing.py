"""Resample large volumes to another voxel size and back, in bounded memory."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import DtypeLike, KeysCollection, SequenceStr
from monai.data import MetaTensor, get_track_meta
from monai.networks.layers import AffineTransform
from monai.transforms import Spacing, Spacingd, SpatialResample
from monai.utils import (
    GridSampleMode,
    GridSamplePadMode,
    TraceKeys,
    convert_to_numpy,
    convert_to_tensor,
    get_equivalent_dtype,
)

from monai_unetpp.data.formats.source_files import file_of
from monai_unetpp.data.transforms import resampling
from monai_unetpp.data.transforms.target_grid import lead_from_to

_BLOCKWISE_MODES = (GridSampleMode.BILINEAR, GridSampleMode.NEAREST)
_BLOCKWISE_PADDING = (GridSamplePadMode.BORDER, GridSamplePadMode.ZEROS)
#: What MONAI's lazy resampling does, whatever mode and padding mode a transform asks for.
_LAZY = (GridSampleMode.BILINEAR, GridSamplePadMode.BORDER)

_Array = npt.NDArray[np.float64]


class BlockwiseSpacingd(Spacingd):
    """MONAI's ``Spacingd`` block by block: the same result, with little more memory than input and output need.

    ``Spacingd`` computes in float64 with the coordinates of all voxels at once, about 60 bytes per voxel of the result.
    Here each block of the result is resampled from the voxels that it needs, in about 100 MB; so is the inverse through
    ``Invertd`` or :class:`monai_unetpp.data.InvertProbabilitiesd`. Values agree to rounding. A volume that already has
    the voxel size is not copied.

    The first voxels of result and volume have the same centre, even with oblique axes, where MONAI moves the grid by up
    to half a voxel because numbers in headers are rounded. Sheared axes become rectangular; see
    :func:`monai_unetpp.data.transforms.target_grid.find_target_grid`. With ``"nearest"``, a position halfway between
    two voxels takes the one with the even index, so there is no shift on average.

    With ``"nearest"`` integers keep their type, where MONAI returns float32: a label map stays a quarter of the size.

    Args:
        keys: images and label maps ``(C, H, W[, D])``, ``MetaTensor`` with an affine.
        pixdim: voxel size in mm, one number per axis; missing axes take the last one.
        diagonal: whether the result's axes are those of the world.
        mode: ``"bilinear"``, ``"nearest"`` or the order of a spline; one for all or one for each of ``keys``.
        padding_mode: ``"border"``, ``"zeros"`` or ``"reflection"``; one for all or one for each.
        align_corners: as in ``grid_sample``; one for all or one for each.
        dtype: type of the computation; one for all or one for each.
        options: other arguments of ``Spacingd``.

    Splines, reflection, ``align_corners`` and lazy resampling need the whole volume at once and are left to MONAI.
    As its lazy resampling is always bilinear with ``"border"``, other keys, such as label maps, are resampled at once
    in a lazy ``Compose`` as well, after what is pending.
    With ``scale_extent`` or ``recompute_affine`` the grid is MONAI's as well.

    Raises:
        ImageFileError: when resampling: an axis would nearly vanish, or the result does not fit into memory, for
            example because of a wrong voxel size in the header.

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
        given = self.spacing_transform
        self.spacing_transform = _AnchoredSpacing(
            given.pixdim,
            diagonal=given.diagonal,
            recompute_affine=given.recompute_affine,
            min_pixdim=given.min_pixdim,
            max_pixdim=given.max_pixdim,
            lazy=self.lazy,
        )
        self.spacing_transform.sp_resample = _BlockwiseResample(lazy=self.lazy)

    @property
    def requires_current_data(self) -> bool:
        """Whether ``Compose`` has to apply pending transforms first, as a key cannot be resampled lazily."""
        return any(how != _LAZY for how in zip(self.mode, self.padding_mode, strict=True))

    def __call__(self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None) -> dict[Hashable, torch.Tensor]:
        """Resample the images of one item, and leave its other entries alone."""
        # MONAI mistakes entries whose names begin with that of an image for metadata, such as MONAI Label's image_path
        prefixes = tuple(f"{key}_" for key in self.keys)
        kept = {
            name: value
            for name, value in data.items()
            if str(name).startswith(prefixes) and name not in self.keys and not isinstance(value, dict)
        }
        others = {name: value for name, value in data.items() if name not in kept}
        return {**super().__call__(others, lazy), **kept}


class _AnchoredSpacing(Spacing):
    """MONAI's ``Spacing`` on a grid that does not depend on how a header rounds; ``Spacingd`` passes keywords."""

    def __call__(self, data_array: torch.Tensor, **options: Any) -> torch.Tensor:  # type: ignore[override]
        if options.get("scale_extent") or self.recompute_affine or not isinstance(data_array, MetaTensor):
            return super().__call__(data_array, **options)
        shape = tuple(int(length) for length in data_array.peek_pending_shape())
        affine = np.asarray(convert_to_numpy(data_array.peek_pending_affine()), dtype=np.float64)
        size, target = resampling.fit_grid(
            file_of(data_array, "image"),
            shape,
            affine,
            len(data_array) * data_array.element_size(),
            _by_axis(self.pixdim, len(shape), self.pixdim[: len(shape)][-1]),
            self.diagonal,
            (_by_axis(self.min_pixdim, len(shape)), _by_axis(self.max_pixdim, len(shape))),
        )
        lazy, forced = options.get("lazy"), options.get("output_spatial_shape")
        return self.sp_resample(
            data_array,
            dst_affine=torch.as_tensor(target),
            spatial_size=size if forced is None else forced,
            lazy=self.lazy if lazy is None else lazy,
            **{name: options.get(name) for name in ("mode", "padding_mode", "align_corners", "dtype")},
        )


def _by_axis(given: _Array, rank: int, missing: float = np.nan) -> _Array:
    return np.append(given[:rank], [missing] * (rank - len(given)))


class _BlockwiseResample(SpatialResample):
    """MONAI's ``SpatialResample``, in blocks where possible."""

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
        lazy = (self.lazy if lazy is None else lazy) and (mode, padding_mode) == _LAZY
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
        affine = convert_to_numpy(img.affine) if isinstance(img, MetaTensor) else np.eye(rank + 1)
        source = np.asarray(affine, dtype=np.float64)
        matrix = lead_from_to(source, np.asarray(convert_to_numpy(dst_affine), dtype=np.float64), rank)
        unchanged = size == tuple(plain.shape[1:]) and resampling.is_same_place(matrix, size)
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
            for block in resampling.list_blocks(resampled.shape, np.abs(matrix[:rank, :rank])):
                target = (slice(None), *block)
                if mode == GridSampleMode.NEAREST:
                    resampled[target] = _pick_nearest(plain, matrix, block, padding_mode)
                else:
                    resampled[target] = _interpolate(plain, matrix, block, padding_mode, computed)
        result: torch.Tensor = convert_to_tensor(resampled, track_meta=get_track_meta())
        if isinstance(result, MetaTensor):
            result.copy_meta_from(meta)
        return result


def _interpolate(
    image: torch.Tensor, matrix: _Array, block: tuple[slice, ...], padding_mode: str, computed: torch.dtype
) -> torch.Tensor:
    """Interpolate a block of the result linearly; ``matrix`` maps voxels of the result to voxels of the image."""
    box, local = resampling.needed_box(matrix, block, image.shape[1:])
    whole = (slice(None), *box)
    needed = image[whole].to(computed)
    size = [part.stop - part.start for part in block]
    if not needed.any():
        return needed.new_zeros((len(needed), *size))
    linear = local[: len(size), : len(size)]
    if not np.any(linear[~np.eye(len(size), dtype=bool)]):
        return _interpolate_along_axes(needed, np.diagonal(linear), local[: len(size), -1], size, padding_mode)
    sample = AffineTransform(normalized=False, mode="bilinear", padding_mode=padding_mode, align_corners=False)
    theta = torch.as_tensor(local, dtype=computed, device=needed.device)
    sampled: torch.Tensor = sample(needed[None], theta, size)[0]
    # places on a voxel of a surround of 0 are rounded, and its search takes exact zeros
    return sampled.masked_fill_(sampled.abs() < resampling.TRACE * needed.abs().max(), 0)


def _interpolate_along_axes(
    image: torch.Tensor, steps: _Array, starts: _Array, size: Sequence[int], padding_mode: str
) -> torch.Tensor:
    """Interpolate linearly, axis by axis, between grids with the same axes: many times faster.

    ``steps`` and ``starts`` are voxel size and first voxel of the result along each axis, in voxels of the image.
    """
    # the axis that is contiguous in memory is the slowest to select from, so it goes first
    for axis in range(len(size), 0, -1):
        at = axis - 1
        sides = []
        length = image.shape[axis]
        for index, weight in resampling.axis_neighbours(steps[at], starts[at], size[at], length, padding_mode):
            shape = [-1 if each == axis else 1 for each in range(image.ndim)]
            weights = torch.as_tensor(weight, dtype=image.dtype, device=image.device).reshape(shape)
            sides.append((image.index_select(axis, torch.as_tensor(index, device=image.device)), weights))
        (nearer, share), (further, rest) = sides
        image = nearer.mul_(share).addcmul_(further, rest)
    return image


def _pick_nearest(image: torch.Tensor, matrix: _Array, block: tuple[slice, ...], padding_mode: str) -> torch.Tensor:
    """Fill a block of the result from the nearest voxels; ``matrix`` maps voxels of the result to the image."""
    indices: list[slice | torch.Tensor] = [slice(None)]
    outside = torch.zeros((1,) * image.ndim, dtype=torch.bool, device=image.device)
    for index, beyond in resampling.nearest_voxels(matrix, block, image.shape[1:]):
        indices.append(torch.as_tensor(index, device=image.device))
        outside = outside | torch.as_tensor(beyond, device=image.device)
    picked = image[tuple(indices)]
    return picked.masked_fill(outside, 0) if padding_mode == GridSamplePadMode.ZEROS else picked
