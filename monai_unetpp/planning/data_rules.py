"""What the data ask of a training, each rule with its source and a sentence of reason. Imports no torch."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_unetpp.planning.fingerprint import Fingerprint

__all__ = [
    "ISENSEE",
    "OWN",
    "Choice",
    "choose_augmentation",
    "choose_bias_field",
    "choose_class_ratios",
    "choose_class_weights",
    "choose_crop_background",
    "choose_flip_axes",
    "choose_intensity_range",
    "choose_inversion",
    "choose_normalization",
    "choose_rotate90",
    "choose_spacing",
    "choose_tolerance",
    "is_anisotropic",
    "typical_shape",
]

ISENSEE = "nnU-Net, doi:10.1038/s41592-020-01008-z"
OWN = "monai-unetpp"
_RADIOLOGY = ("CT", "MR")

#: How many times coarser than the others an axis is, to be treated as thick slices.
_ANISOTROPY = 3.0
_FINER_PERCENTILE = 10
#: Share of the cases from which on the data count as having a constant surround.
_MOST = 0.9
#: Share of images of the rarer kind of background from which on there are two kinds.
_SOME = 0.02
#: A rare label is drawn, and weighs in the loss, at most this many times as often as the most frequent one.
_MOST_OFTEN = 4.0
#: Patches around the background for each patch around a label.
_BACKGROUND = 0.25
#: Margin around the cropped content, in voxels.
CROP_MARGIN = 4


@dataclasses.dataclass(frozen=True)
class Choice:
    """A value that a rule gives.

    Attributes:
        value: as JSON holds it.
        reason: one sentence.
        source: where the rule comes from.
    """

    value: Any
    reason: str
    source: str = OWN


def choose_spacing(fingerprint: Fingerprint) -> Choice:
    """The voxel size that all images are resampled to; None leaves them on their own grids."""
    spacings = np.array([case.spacing_mm for case in fingerprint.cases])
    if fingerprint.spatial_dims == 2 and np.allclose(spacings, spacings[0], rtol=1e-3):
        return Choice(None, "All images have the same pixel size, or none that is known, so they stay as they are.")
    target = [float(value) for value in fingerprint.median_spacing_mm]
    coarse = int(np.argmax(target))
    others = max(value for axis, value in enumerate(target) if axis != coarse)
    if target[coarse] > _ANISOTROPY * others:
        finer = float(np.percentile(spacings[:, coarse], _FINER_PERCENTILE))
        target[coarse] = max(finer, others)
        reason = (
            f"The median of the cases; axis {coarse} is more than {_ANISOTROPY:g} times coarser than the others, so "
            f"its {_FINER_PERCENTILE}th percentile is taken, which spares fine cases most of the loss."
        )
    else:
        reason = "The median of the cases, so that few of them lose detail and few are blown up."
    return Choice([round(value, 4) for value in target], reason, ISENSEE)


def choose_crop_background(fingerprint: Fingerprint) -> Choice:
    """Whether the constant surround is levelled, cropped away and cleared."""
    share = statistics.fmean(case.constant_surround for case in fingerprint.cases)
    if fingerprint.spatial_dims == 2 or fingerprint.modality == "CT":
        return Choice(False, "Only volumes without a physical scale of intensities are cropped to their content.")
    if share >= _MOST:
        return Choice(
            True,
            f"{share:.0%} of the cases have one constant value around their content; it is made 0, cropped away, and "
            "background in the result.",
        )
    return Choice(False, f"Only {share:.0%} of the cases have one constant value around their content.")


def choose_normalization(fingerprint: Fingerprint, crop_background: bool) -> Choice:
    """How intensities are brought to one scale."""
    if fingerprint.modality == "CT" and len(fingerprint.channels) == 1 and fingerprint.intensity[0].foreground:
        return Choice(
            "range",
            "CT has a physical scale, which fixed numbers keep: clipped to the 0.5th and 99.5th percentile inside "
            "the labels, then standardised by their mean and standard deviation.",
            ISENSEE,
        )
    if crop_background:
        return Choice(
            "inside",
            "Each volume by its own mean and standard deviation, without the constant surround, whose size would "
            "change both.",
            ISENSEE,
        )
    return Choice(
        "volume", "Intensities have no common scale, so each image is brought to mean 0 and deviation 1.", ISENSEE
    )


def choose_intensity_range(fingerprint: Fingerprint, normalization: str) -> Choice:
    """Lowest and highest intensity, mean and standard deviation; None where each image has its own."""
    foreground = fingerprint.intensity[0].foreground
    if normalization != "range" or foreground is None:
        return Choice(None, "Each image has its own scale.", ISENSEE)
    found = (foreground.p0_5, foreground.p99_5, foreground.mean, foreground.sd)
    return Choice([round(float(value), 3) for value in found], "What is inside the labels of the cases.", ISENSEE)


def choose_inversion(fingerprint: Fingerprint, normalization: str) -> Choice:
    """Whether images with a bright background become their negatives."""
    if len(fingerprint.channels) > 1 or normalization != "volume" or fingerprint.modality in _RADIOLOGY:
        return Choice(False, "Only images of one channel without a physical scale can have either kind of background.")
    whole = [case.intensity[0].whole for case in fingerprint.cases]
    share = statistics.fmean(each.p50 > (each.p0_5 + each.p99_5) / 2 for each in whole)
    if _SOME <= share <= 1 - _SOME:
        return Choice(
            True,
            f"{share:.0%} of the images have a bright background and the others a dark one; bright ones become "
            "negatives, so that all look alike.",
        )
    return Choice(False, "All images have one kind of background.")


def choose_class_ratios(fingerprint: Fingerprint) -> Choice:
    """How often a patch lies around a voxel of each class, the background first."""
    ratios = _emphases(fingerprint)
    background = _BACKGROUND * sum(ratios)
    return Choice(
        [round(value, 2) for value in (background, *ratios)],
        "A fifth of the patches lies around background; rare labels are drawn more often than they occur (by the "
        f"fourth root of their rarity, at most {_MOST_OFTEN:g} times).",
    )


def choose_class_weights(fingerprint: Fingerprint) -> Choice:
    """How much each class weighs in the loss, the background first."""
    if len(fingerprint.labels) < 2:
        return Choice(None, "There is one label only.")
    emphases = _emphases(fingerprint)
    mean = sum(emphases) / len(emphases)
    return Choice(
        [round(value / mean, 2) for value in (min(emphases), *emphases)],
        "A rare label weighs more, by the fourth root of its rarity and at most "
        f"{_MOST_OFTEN:g} times as much, since it is learned much later otherwise; the background weighs least. In the "
        "last part of the training, `late_share`, all weigh the same.",
    )


def _emphases(fingerprint: Fingerprint) -> list[float]:
    """How many times as much each label, by value, counts as the most frequent one: the fourth root of its rarity."""
    names = sorted(fingerprint.labels, key=lambda name: fingerprint.labels[name])
    counts = [max(1, sum(case.voxels.get(name, 0) for case in fingerprint.cases)) for name in names]
    return [min(_MOST_OFTEN, (max(counts) / count) ** 0.25) for count in counts]


def choose_augmentation(fingerprint: Fingerprint) -> Choice:
    """How strongly patches are varied."""
    return Choice(
        "strong",
        "Rotation, scaling, noise, blur, lower resolution, contrast and brightness stand for scanners and subjects "
        f"that {len(fingerprint.cases)} cases do not show.",
        ISENSEE,
    )


def choose_bias_field(fingerprint: Fingerprint) -> Choice:
    """Whether brightness is varied smoothly over a patch."""
    if fingerprint.modality == "MR":
        return Choice(True, "The coils of MR scanners light volumes unevenly.", "doi:10.1109/42.811270")
    return Choice(False, "Only MR has bias fields.")


def choose_rotate90(fingerprint: Fingerprint) -> Choice:
    """Whether patches are turned by quarters."""
    free = fingerprint.spatial_dims == 2 and fingerprint.modality not in _RADIOLOGY and not fingerprint.left_right
    if free:
        return Choice(True, "Such images have no up and down, and square pixels.")
    return Choice(False, "Patients lie in one way, and so do volumes.")


def choose_flip_axes(fingerprint: Fingerprint, rotate90: bool) -> Choice:
    """Axes along which patches are mirrored."""
    if fingerprint.left_right:
        left, right = fingerprint.left_right[0]
        pairs = "" if len(fingerprint.left_right) == 1 else f" and {len(fingerprint.left_right) - 1} more pair(s)"
        return Choice(
            [], f"Labels are left and right of one kind ({left}, {right}{pairs}), which a mirror image would confuse."
        )
    if fingerprint.spatial_dims == 2:
        axes = [0, 1] if rotate90 or fingerprint.modality not in _RADIOLOGY else [0]
        return Choice(axes, "Mirror images are as likely as the images themselves.", ISENSEE)
    return Choice([0], "Bodies are nearly symmetric from left to right, and along no other axis.")


def choose_tolerance(spacing_mm: Sequence[float] | None, fingerprint: Fingerprint) -> Choice:
    """Distance in mm up to which surfaces count as equal in the normalised surface Dice."""
    edges = list(spacing_mm or fingerprint.median_spacing_mm)
    edge = math.prod(edges) ** (1 / len(edges))
    if fingerprint.spatial_dims == 2:
        return Choice(round(2 * edge, 3), "Two pixels: outlines drawn by hand differ by as much.")
    return Choice(
        round(edge, 3),
        "The edge of a cube of a voxel's volume: surfaces cannot be known better.",
        "doi:10.2196/26151 for the metric",
    )


def is_anisotropic(spacing_mm: Sequence[float] | None) -> int | None:
    """The axis of thick slices, if there is one."""
    if spacing_mm is None or len(spacing_mm) != 3:
        return None
    coarse = int(np.argmax(spacing_mm))
    others = max(value for axis, value in enumerate(spacing_mm) if axis != coarse)
    return coarse if spacing_mm[coarse] > _ANISOTROPY * others else None


def typical_shape(fingerprint: Fingerprint, spacing_mm: Sequence[float] | None, crop_background: bool) -> list[int]:
    """Median number of voxels by axis after resampling, and after the crop where there is one."""
    shapes = []
    for case in fingerprint.cases:
        spacing = list(case.spacing_mm if spacing_mm is None else spacing_mm)
        if crop_background:
            shapes.append([size / mm + 2 * CROP_MARGIN for size, mm in zip(case.size_mm, spacing, strict=True)])
        else:
            sizes = zip(case.shape, case.spacing_mm, spacing, strict=True)
            shapes.append([count * own / mm for count, own, mm in sizes])
    return [max(1, round(float(value))) for value in np.median(shapes, axis=0)]
