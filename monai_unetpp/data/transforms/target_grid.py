"""Find the grid to resample a volume to: its origin and its shape."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["HEADER_ROUNDING", "find_target_grid", "lead_from_to", "round_half_to_even"]

_Array = npt.NDArray[np.float64]

#: Relative error of a number in a header (float32, quaternions, six digits of text). Positions closer than this
#: fraction of the volume's length count as the same.
HEADER_ROUNDING = 2e-6
#: Cosine up to which axes count as perpendicular: text headers have at least four digits.
_RIGHT_ANGLE = 1e-4


def find_target_grid(
    shape: Sequence[int], affine: _Array, spacing_mm: Sequence[float] | _Array, diagonal: bool = False
) -> tuple[tuple[int, ...], _Array]:
    """Find the grid with voxels of ``spacing_mm`` over a volume.

    Perpendicular axes keep their directions, and the centre of the first voxel stays in place, whether they are
    straight or oblique: rounding in the header changes nothing. Sheared axes become rectangular, with the direction of
    the first one; with ``diagonal`` the axes are those of the world. In both cases the grid begins at the lowest corner
    of the box around all voxel centres. The centre of the last voxel lies within half a voxel of the volume's.

    Args:
        shape: voxels along each of the volume's two or three axes.
        affine: ``(4, 4)``, or ``(3, 3)`` for two axes: from voxel indices to mm. Two axes may lie anywhere in space.
        spacing_mm: voxel size of the grid, one number per axis.
        diagonal: whether the grid's axes are those of the world.

    Returns:
        Its shape, and its affine, of the same size as ``affine``.
    """
    rank = len(shape)
    target = np.array(affine, dtype=np.float64)
    axes = _scale_axes(target[:-1, :rank], np.asarray(spacing_mm, dtype=np.float64), diagonal)
    corners = np.array(list(itertools.product(*((0, length - 1) for length in shape))), dtype=np.float64).T
    reached = _express(axes, target[:-1, :rank]) @ corners
    extent = np.ptp(reached, axis=1)
    least = reached.min(axis=1, keepdims=True)
    rounding = HEADER_ROUNDING * max(1.0, extent.max())
    first = np.flatnonzero((reached - least < rounding).all(axis=0))
    start = target[:-1, :rank] @ corners[:, first[0]] if len(first) else axes @ least[:, 0]
    target[:-1, -1] += start
    target[:-1, :rank] = axes
    return tuple(int(length) for length in round_half_to_even(extent + 1, rounding)), target


def round_half_to_even(values: _Array, tolerance: float) -> _Array:
    """Round; values within ``tolerance`` of a half go to the even integer."""
    halves = np.rint(values * 2) / 2
    return np.rint(np.where(np.abs(values - halves) <= tolerance, halves, values))


def lead_from_to(source: _Array, target: _Array, rank: int) -> _Array:
    """The matrix ``(rank + 1, rank + 1)`` from voxel indices of ``target`` to those of ``source``.

    Args:
        source: affine, ``(4, 4)`` or ``(rank + 1, rank + 1)``.
        target: affine of either size.
        rank: number of axes to resample.
    """
    size = max(len(source), len(target))
    source, target = (_within_plane(_grow(affine, size), rank) for affine in (source, target))
    if len(source) == rank + 1:
        matrix = np.asarray(np.linalg.solve(source, target), dtype=np.float64)
    else:
        matrix = np.eye(rank + 1)
        there = np.column_stack([target[:-1, :rank], target[:-1, -1] - source[:-1, -1]])
        matrix[:rank] = _express(source[:-1, :rank], there)
    # make equal axes exactly equal
    linear = matrix[:rank, :rank]
    linear[np.abs(linear) < HEADER_ROUNDING**2 * np.abs(linear).max()] = 0
    return matrix


def _grow(affine: _Array, size: int) -> _Array:
    grown = np.eye(size)
    grown[: len(affine) - 1, : len(affine) - 1] = affine[:-1, :-1]
    grown[: len(affine) - 1, -1] = affine[:-1, -1]
    return grown


def _within_plane(affine: _Array, rank: int) -> _Array:
    """``affine`` without the world coordinates that do not change along its axes."""
    if len(affine) == rank + 1 or affine[rank:-1, :rank].any():
        return affine
    kept = [*range(rank), len(affine) - 1]
    return affine[np.ix_(kept, kept)]


def _scale_axes(axes: _Array, spacing_mm: _Array, diagonal: bool) -> _Array:
    if diagonal:
        return np.eye(*axes.shape) * spacing_mm
    lengths = np.linalg.norm(axes, axis=0)
    rank = axes.shape[1]
    moved = axes != 0
    if len(axes) == rank and (moved.sum(axis=0) == 1).all() and (moved.sum(axis=1) <= 1).all():
        return np.asarray(np.sign(axes) * spacing_mm, dtype=np.float64)
    cosines = (axes / lengths).T @ (axes / lengths) - np.eye(rank)
    if np.abs(cosines).max() <= _RIGHT_ANGLE:
        return np.asarray(axes * (spacing_mm / lengths), dtype=np.float64)
    directions, lengths_along = np.linalg.qr(axes)
    scaled = directions * np.sign(np.diag(lengths_along)) * spacing_mm
    return np.asarray(scaled, dtype=np.float64)


def _express(axes: _Array, vectors: _Array) -> _Array:
    """The column ``vectors`` in coordinates of ``axes``."""
    if len(axes) == axes.shape[1]:
        return np.asarray(np.linalg.solve(axes, vectors), dtype=np.float64)
    return np.asarray(np.linalg.lstsq(axes, vectors, rcond=None)[0], dtype=np.float64)
