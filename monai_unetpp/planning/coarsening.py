"""A coarser grid for images of which patches would show too little."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from monai_unetpp.planning.data_rules import ISENSEE, Choice
from monai_unetpp.planning.fingerprint import CaseFingerprint, Fingerprint
from monai_unetpp.reporting.numbers import percent

__all__ = ["best_dice", "choose_coarser_spacing"]

#: A patch should show this share of an image, or be this many times as long as objects are.
_LEAST_SEEN, _LENGTHS = 0.05, 2.0
#: How many times coarser than its finest axis a grid may become.
_FACTORS = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
#: Least mean Dice that the coarser grid must allow; less where a patch would show hardly anything.
_LEAST_DICE, _LEAST_DICE_IF_BLIND, _BLIND = 0.97, 0.92, 0.002


def choose_coarser_spacing(
    fingerprint: Fingerprint,
    spacing_mm: Sequence[float] | None,
    patch_at: Callable[[Sequence[float] | None], tuple[Sequence[int], Sequence[int]]],
) -> Choice | None:
    """A coarser voxel size if patches would see too little at the usual one, and labels allow it; else None.

    Args:
        fingerprint: of the data.
        spacing_mm: the usual voxel size; None keeps the images' own grids.
        patch_at: returns the typical shape of an image and the patch that time and memory allow, both in voxels, at a
            voxel size.
    """
    usual = list(fingerprint.median_spacing_mm if spacing_mm is None else spacing_mm)
    extent = _typical_extent(fingerprint)

    def is_enough(patch: Sequence[int], seen: float, spacing: Sequence[float]) -> bool:
        is_long = all(edge * mm >= _LENGTHS * extent for edge, mm in zip(patch, spacing, strict=True))
        return seen >= _LEAST_SEEN or is_long

    shape, patch = patch_at(spacing_mm)
    before = _share(patch, shape)
    are_known = all(case.faces or not any(case.voxels.values()) for case in fingerprint.cases)
    if is_enough(patch, before, usual) or not are_known:
        return None
    least = _LEAST_DICE_IF_BLIND if before < _BLIND else _LEAST_DICE
    found = None
    for factor in _FACTORS:
        coarser = [float(f"{max(edge, factor * min(usual)):.6g}") for edge in usual]
        dice = best_dice(fingerprint, coarser)
        if dice < least:
            break
        shape, patch = patch_at(coarser)
        seen = _share(patch, shape)
        found = Choice(
            coarser,
            f"Coarser than usual, {' x '.join(f'{edge:.3g}' for edge in usual)} mm, where a patch that time and memory "
            f"allow would show {percent(before)} of an image instead of {percent(seen)}. Segmentations on this grid "
            f"can reach a mean Dice of about {dice:.2f}. To keep the fine grid, set spacing_mm.",
            ISENSEE,
        )
        if is_enough(patch, seen, coarser):
            break
    return found


def best_dice(fingerprint: Fingerprint, spacing_mm: Sequence[float]) -> float:
    """Roughly the mean Dice over the labels that segmentations on a grid can reach.

    On average, a grid moves surfaces across an axis by a quarter of its voxel size there; what labels already suffer
    from their own grid is subtracted in squares.

    Args:
        fingerprint: of the data.
        spacing_mm: voxel size of the grid.
    """
    labels = [
        statistics.fmean(_dice(case, name, spacing_mm) for case in cases)
        for name in fingerprint.labels
        if (cases := [case for case in fingerprint.cases if case.voxels.get(name)])
    ]
    return statistics.fmean(labels) if labels else 0.0


def _dice(case: CaseFingerprint, name: str, spacing_mm: Sequence[float]) -> float:
    wrong = 0.0
    for faces, own, edge in zip(case.faces[name], case.spacing_mm, spacing_mm, strict=True):
        area = math.prod(case.spacing_mm) / own
        wrong += faces * area * math.sqrt(max(edge**2 - own**2, 0.0)) / 4
    return max(0.0, 1 - wrong / (2 * case.voxels[name] * math.prod(case.spacing_mm)))


def _share(patch: Sequence[int], shape: Sequence[int]) -> float:
    return math.prod(min(edge, length) / length for edge, length in zip(patch, shape, strict=True))


def _typical_extent(fingerprint: Fingerprint) -> float:
    """Edge in mm of a cube with the volume of a connected part of the label whose parts are largest."""
    extents = [
        statistics.median(
            (case.voxels[name] * math.prod(case.spacing_mm) / case.parts[name]) ** (1 / fingerprint.spatial_dims)
            for case in cases
        )
        for name in fingerprint.labels
        if (cases := [case for case in fingerprint.cases if case.voxels.get(name)])
    ]
    return max(extents, default=math.inf)
