"""A coarser grid for images of which patches would show too little."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence

from monai_unetpp.errors import counted
from monai_unetpp.planning.data_rules import ISENSEE, Choice
from monai_unetpp.planning.fingerprint import CaseFingerprint, Fingerprint
from monai_unetpp.reporting.numbers import percent

#: A patch should show this share of an image, or be this many times as long as objects are.
_LEAST_SEEN, _LENGTHS = 0.05, 2.0
#: How many times coarser than its finest axis a grid may become.
_FACTORS = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
#: Where a patch would show less than this, it shows hardly anything.
_BLIND = 0.002
#: The least Dice that a coarser grid must allow: the mean over the labels, and that of the worst one.
_LIMITS, _LIMITS_IF_BLIND = (0.97, 0.9), (0.92, 0.8)
#: The extent of a label is unknown in cases where more than this share of its surface borders on ignored voxels.
_MOST_CUT = 0.05


def choose_coarser_spacing(
    fingerprint: Fingerprint,
    usual: Choice,
    patch_at: Callable[[Sequence[float] | None], tuple[Sequence[int], Sequence[int]]],
) -> Choice:
    """A coarser voxel size if patches would see too little at the usual one, and labels allow it; else the usual one.

    ``patch_at`` returns the typical shape of an image, and the patch that time and memory allow, both in voxels, at a
    voxel size, where None keeps the images' own grids.
    """
    spacing_mm = list(fingerprint.median_spacing_mm if usual.value is None else usual.value)
    # labels that some cases have, but of whose surface ignored voxels hide too much in all of these
    unknown = [
        name
        for name, shown in _cases_showing(fingerprint).items()
        if not shown and any(case.voxels.get(name) for case in fingerprint.cases)
    ]
    extent = math.inf if unknown else _typical_extent(fingerprint)

    def is_enough(patch: Sequence[int], seen: float, spacing: Sequence[float]) -> bool:
        is_long = all(edge * mm >= _LENGTHS * extent for edge, mm in zip(patch, spacing, strict=True))
        return seen >= _LEAST_SEEN or is_long

    shape, patch = patch_at(usual.value)
    before = _share(patch, shape)
    if is_enough(patch, before, spacing_mm) or not _know_surfaces(fingerprint.cases):
        return usual
    if unknown:
        return _because_of_cuts(usual, unknown)
    least_mean, least_worst = _LIMITS_IF_BLIND if before < _BLIND else _LIMITS
    found = None
    for factor in _FACTORS:
        coarser = [float(f"{max(edge, factor * min(spacing_mm)):.6g}") for edge in spacing_mm]
        dice = best_dice(fingerprint, coarser)
        mean, worst = statistics.fmean(dice.values()), min(dice, key=lambda name: dice[name])
        if mean < least_mean or dice[worst] < least_worst:
            break
        shape, patch = patch_at(coarser)
        seen = _share(patch, shape)
        of_worst = f", {dice[worst]:.2f} for {worst}" if len(dice) > 1 else ""
        lost = " Volumes cannot be segmented slice by slice then." if usual.value is None else ""
        found = Choice(
            coarser,
            f"Coarser than usual, {' x '.join(f'{edge:.3g}' for edge in spacing_mm)} mm, where a patch that time and "
            f"memory allow would show {_in_words(before)} of an image instead of {_in_words(seen)}. Segmentations on "
            f"this grid can reach a mean Dice of about {mean:.2f}{of_worst}.{lost} To keep the fine grid, set "
            "spacing_mm.",
            ISENSEE,
        )
        if is_enough(patch, seen, coarser):
            break
    if found is None:
        return Choice(
            usual.value,
            f"{usual.reason} A patch that time and memory allow shows {_in_words(before)} of an image, but a grid "
            f"{factor:g} times as coarse would cost too much: it allows a Dice of about {dice[worst]:.2f} for {worst}"
            f"{f', and a mean of {mean:.2f}' if len(dice) > 1 else ''}.",
            usual.source,
        )
    return found


def _know_surfaces(cases: Sequence[CaseFingerprint]) -> bool:
    """Whether there are labelled voxels, and their surfaces were measured."""
    labelled = [case for case in cases if any(case.voxels.values())]
    return bool(labelled) and all(case.faces for case in labelled)


def _cases_showing(fingerprint: Fingerprint) -> dict[str, list[CaseFingerprint]]:
    """By label, the cases that have it and in which ignored voxels hide hardly any of its surface."""
    return {
        name: [case for case in fingerprint.cases if case.voxels.get(name) and case.cut.get(name, 0.0) <= _MOST_CUT]
        for name in fingerprint.labels
    }


def _because_of_cuts(usual: Choice, names: Sequence[str]) -> Choice:
    """The usual voxel size, with why nobody knows whether labels allow a coarser one."""
    more = f" and {counted(len(names) - 1, 'more label')}" if len(names) > 1 else ""
    return dataclasses.replace(
        usual,
        reason=f"{usual.reason} Whether a coarser grid would cost too much is unknown: in no case can the extent of "
        f"{names[0]}{more} be measured, as more than {percent(_MOST_CUT)} of the surface borders on ignored voxels.",
    )


def best_dice(fingerprint: Fingerprint, spacing_mm: Sequence[float]) -> dict[str, float]:
    """Roughly the mean Dice of each label that segmentations on a grid can reach.

    On average, a grid moves surfaces across an axis by a quarter of its voxel size there; what labels already suffer
    from their own grid is subtracted in squares. Labels without voxels, or with a hidden surface, are left out.
    """
    return {
        name: statistics.fmean(_dice(case, name, spacing_mm) for case in cases)
        for name, cases in _cases_showing(fingerprint).items()
        if cases
    }


def _in_words(share: float) -> str:
    return percent(share) if share >= 0.01 else percent(share, ".2g")


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
        for name, cases in _cases_showing(fingerprint).items()
        if cases
    ]
    return max(extents, default=math.inf)
