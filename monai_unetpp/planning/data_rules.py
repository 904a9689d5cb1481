"""The values of a plan that depend on the data, each with its reason and source. Does not import torch."""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_unetpp.data.transforms.image_kinds import Kind, have_two_backgrounds, is_bright, place_of_median, sort_kinds
from monai_unetpp.planning.fingerprint import QUANTILES, CaseFingerprint, Fingerprint
from monai_unetpp.planning.sides import sided
from monai_unetpp.planning.values import SCALED
from monai_unetpp.reporting.numbers import percent

ISENSEE = "nnU-Net, doi:10.1038/s41592-020-01008-z"
OWN = "monai-unetpp"
OVERLAP = 0.25
"""Share of a window at inference that overlaps with the next one."""
_RADIOLOGY = ("CT", "MR")
#: Words of the names of channels of pictures with a top and a bottom.
_UPRIGHT = re.compile(
    r"(?<![^\W_])(x[- ]?rays?|radiograph\w*|CR|DX|mammogra\w+|MG|ultrasound|sonogra\w+|US|echo\w*|OCT)(?![^\W_])",
    re.IGNORECASE,
)

#: Names of labels of a data set that names none.
_UNNAMED = re.compile(r"label_\d+")

#: An axis more than this many times coarser than the others is treated as thick slices.
_ANISOTROPY = 3.0
#: Pixels count as square if their edges differ by at most this part.
_SQUARE = 0.05
_FINER_PERCENTILE = 10
#: Angle in degrees between slices and the planes of the body from which it is chance which of these is the nearest.
_TILTED = 20.0
#: Least share of the cases with a constant surround for the data to count as having one.
_MOST = 0.9
#: Share of a label's voxels in the constant surround from which the surround is no background.
_HIDDEN = 0.02
#: Percentiles to which intensities are clipped, and the share of the cases of a label from which this would harm it.
_CLIPPED, _BEYOND = (0.5, 99.5), 0.1
#: Largest factor of a rare label in sampling and in the loss, relative to the most frequent label.
_MOST_OFTEN = 4.0
#: The same for a case of a rare kind of image, relative to the most frequent kind; and how many times rarer than this a
#: kind is at least for there to be a rare one.
_MOST_OF_KIND, _RARE = 5.0, 2
#: Patches around the background for each patch around a label.
_BACKGROUND = 0.25
#: Share of labels in what the surround encloses from which little else is in it.
_FILLED = 0.75
#: Margin around the cropped content, in voxels.
CROP_MARGIN = 4


@dataclasses.dataclass(frozen=True)
class Choice:
    """A value chosen by a rule, as in JSON, with the reason as a sentence, and where the rule comes from."""

    value: Any
    reason: str
    source: str = OWN


def choose_orientation(fingerprint: Fingerprint) -> Choice:
    """The order and direction of axes to which volumes are brought; None takes them as they are stored."""
    if fingerprint.spatial_dims == 2:
        return Choice(None, "Pictures are taken as they are stored.")
    tilted = [case for case in fingerprint.cases if case.tilt_degrees >= _TILTED]
    thick, stored = (
        Counter(
            (axis, in_file and case.left_handed)
            for case in cases
            if (axis := is_anisotropic(case.spacing_mm)) is not None
        )
        for in_file, cases in ((False, tilted), (True, [case.as_stored() for case in fingerprint.cases]))
    )
    count = sum(thick.values())
    is_chance = 2 * count > len(fingerprint.cases) and max(thick.values()) < _MOST * count
    if is_chance and max(stored.values()) >= _MOST * sum(stored.values()):
        return Choice(
            None,
            f"The slices of {percent(count / len(fingerprint.cases))} of the cases are thick and tilted so far that it "
            "is chance which axis of the body lies nearest to theirs, while nearly all are stored alike.",
        )
    return Choice("RAS", "So that axes mean the same in all files.")


def choose_spacing(fingerprint: Fingerprint) -> Choice:
    """The voxel size to which all images are resampled; None keeps their own grids."""
    spacings = np.array([case.spacing_mm for case in fingerprint.cases])
    if fingerprint.spatial_dims == 2 and np.allclose(spacings, spacings[0], rtol=1e-3):
        return Choice(None, "All images have the same pixel size, or it is unknown, so they are not resampled.")
    target = [float(value) for value in fingerprint.median_spacing_mm]
    coarse = int(np.argmax(target))
    others = max(value for axis, value in enumerate(target) if axis != coarse)
    if target[coarse] > _ANISOTROPY * others:
        finer = float(np.percentile(spacings[:, coarse], _FINER_PERCENTILE))
        target[coarse] = max(finer, others)
        reason = (
            f"The median of the cases; axis {coarse} is more than {_ANISOTROPY:g} times coarser than the others, so "
            f"its {_FINER_PERCENTILE}th percentile is taken, so that fine cases lose little detail."
        )
    else:
        reason = "The median of the cases, so that few lose detail and few are upsampled much."
    return Choice([_rounded(value) for value in target], reason, ISENSEE)


def choose_crop_background(fingerprint: Fingerprint) -> Choice:
    """Whether the constant surround is set to 0, cropped away, and cleared in the result."""
    if _is_never_cropped(fingerprint):
        return Choice(False, "Only volumes without a physical intensity scale are cropped to their content.")
    share, hidden = _share_with_surround(fingerprint), hidden_labels(fingerprint)
    if share < _MOST:
        return Choice(False, f"Only {percent(share)} of the cases have a constant value around their content.")
    if hidden:
        parts = [f"{percent(part)} of {name}" for name, part in hidden.items()]
        listed = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
        return Choice(
            False,
            f"{percent(share)} of the cases have a constant value around their content, but {listed} lie in it and "
            "would never be found if it were background.",
        )
    return Choice(
        True,
        f"{percent(share)} of the cases have a constant value around their content; it is set to 0, cropped away, and "
        "background in the result.",
    )


def hidden_labels(fingerprint: Fingerprint, least: float = _HIDDEN) -> dict[str, float]:
    """The labels with voxels in the constant surround, and their mean share of these, 0 to 1."""
    return {name: share for name, share in fingerprint.in_surround.items() if share >= least}


def _is_never_cropped(fingerprint: Fingerprint) -> bool:
    """Whether a constant surround is left alone: in 2D images, and in CT with its physical scale."""
    return fingerprint.spatial_dims == 2 or fingerprint.modality == "CT"


def _share_with_surround(fingerprint: Fingerprint) -> float:
    return statistics.fmean(case.constant_surround for case in fingerprint.cases)


def choose_normalization(fingerprint: Fingerprint, crop_background: bool) -> Choice:
    """How intensities are normalised."""
    if fingerprint.modality == "CT" and len(fingerprint.channels) == 1 and _has_range(fingerprint):
        return Choice(
            "range",
            "CT has a physical scale, so all images are normalised alike: clipped to percentiles inside the labels, "
            "then standardised by the mean and standard deviation there.",
            ISENSEE,
        )
    if crop_background or (not _is_never_cropped(fingerprint) and _share_with_surround(fingerprint) >= _MOST):
        return Choice(
            "inside",
            "Each volume by its own mean and standard deviation, excluding the constant surround, whose size would "
            "affect both.",
            ISENSEE,
        )
    return Choice(
        "volume", "Intensities have no common scale, so each image is normalised to mean 0 and deviation 1.", ISENSEE
    )


def _has_range(fingerprint: Fingerprint) -> bool:
    """Whether the labels have intensities of which a range can be taken, unlike phantoms of one value."""
    foreground = fingerprint.intensity[0].foreground
    if foreground is None or not foreground.sd > 0:
        return False
    low, high = _inside_labels(fingerprint, _CLIPPED)
    return low < high


def choose_clip_percentiles(fingerprint: Fingerprint, normalization: str, crop_background: bool) -> Choice:
    """Percentiles to which intensities are clipped: of each image or, for a fixed range, inside the labels.

    A side is not clipped if most of a label lies beyond the usual bound there, in a tenth of the cases that have it.
    """
    low, high = _CLIPPED
    reason = "The few voxels beyond would affect the scale of all others."
    darker, brighter = _labels_beyond(fingerprint, normalization, crop_background)
    if normalization == "inside":
        low, darker = 0.0, []
        reason = "The few brighter voxels would affect the scale of all others; the lowest value is the surround."
    sides = []
    if darker:
        sides.append(f"below, as most of {' and '.join(darker)} is darker than the {low:g}th percentile in some cases")
        low = 0.0
    if brighter:
        sides.append(
            f"above, as most of {' and '.join(brighter)} is brighter than the {high:g}th percentile in some cases"
        )
        high = 100.0
    if sides:
        reason = f"Nothing is clipped {', nor '.join(sides)}: its voxels would all become alike."
    return Choice([low, high], reason)


def _labels_beyond(fingerprint: Fingerprint, normalization: str, crop_background: bool) -> tuple[list[str], list[str]]:
    """The labels whose median is below, and those whose median is above the usual bounds, in many of their cases."""
    beyond: tuple[list[str], list[str]] = ([], [])
    for name in fingerprint.label_names:
        cases = [case for case in fingerprint.cases if name in case.medians]
        bounds = [_usual_bounds(fingerprint, case, normalization, crop_background) for case in cases]
        for names, sign, end in zip(beyond, (-1, 1), (0, 1), strict=True):
            found = [
                any(sign * median > sign * bound[end] for median, bound in zip(case.medians[name], own, strict=True))
                for case, own in zip(cases, bounds, strict=True)
            ]
            if sum(found) > _BEYOND * len(found):
                names.append(name)
    return beyond


def _usual_bounds(
    fingerprint: Fingerprint, case: CaseFingerprint, normalization: str, crop_background: bool
) -> list[tuple[float, float]]:
    """By channel, the intensities to which a case is clipped by default."""
    if normalization == "range":
        return [_inside_labels(fingerprint, _CLIPPED, channel) for channel in range(len(fingerprint.channels))]
    if crop_background:
        return list(case.bounds)
    return [(channel.whole.p0_5, channel.whole.p99_5) for channel in case.intensity]


def choose_intensity_range(
    fingerprint: Fingerprint, normalization: str, clip_percentiles: Sequence[float] = _CLIPPED
) -> Choice:
    """Lowest and highest intensity, mean and standard deviation; None if each image or channel has its own."""
    foreground = fingerprint.intensity[0].foreground
    if normalization != "range" or foreground is None or len(fingerprint.channels) > 1:
        whose = "channel" if len(fingerprint.channels) > 1 else "image"
        return Choice(None, f"Each {whose} has its own scale.", ISENSEE)
    found = (*_inside_labels(fingerprint, clip_percentiles), foreground.mean, foreground.sd)
    return Choice([_rounded(value) for value in found], "Measured inside the labels of the cases.", ISENSEE)


def _inside_labels(fingerprint: Fingerprint, percentiles: Sequence[float], channel: int = 0) -> tuple[float, float]:
    """The intensities of a channel inside the labels at two percentiles."""
    low, high = np.interp(percentiles, QUANTILES, fingerprint.quantiles[channel])
    return float(low), float(high)


def choose_inversion(fingerprint: Fingerprint, normalization: str) -> Choice:
    """Whether images with a bright background are inverted."""
    if fingerprint.spatial_dims == 3 or fingerprint.modality in _RADIOLOGY:
        return Choice(False, "Only 2D images without a physical scale can have either background.")
    if len(fingerprint.channels) > 1 or normalization not in SCALED:
        return Choice(False, "Only single-channel images, each normalised by itself, can have either background.")
    places = _places(fingerprint)
    if have_two_backgrounds(places):
        bright = statistics.fmean(map(is_bright, places))
        return Choice(
            True,
            f"{percent(bright)} of the images have a bright background and {percent(1 - bright)} a dark one; bright "
            "ones are inverted, so that all look alike.",
        )
    return Choice(False, "The backgrounds are not of two separate kinds, dark and bright.")


def _places(fingerprint: Fingerprint) -> list[float]:
    """Position of the median in the range of each image, in its first channel."""
    ranges = [case.intensity[0].whole for case in fingerprint.cases]
    return [place_of_median(whole.p0_5, whole.p50, whole.p99_5) for whole in ranges]


def find_kinds(fingerprint: Fingerprint) -> list[Kind]:
    """The kind of the image of each case."""
    return sort_kinds([case.shape for case in fingerprint.cases], _places(fingerprint))


def choose_rare_kind_factor(fingerprint: Fingerprint) -> Choice:
    """How many times as often as a case of the most frequent kind of image one of a rare kind is drawn, at most."""
    if fingerprint.spatial_dims == 3:
        return Choice(1.0, "Only 2D images are sorted into kinds.")
    counts = Counter(find_kinds(fingerprint)).values()
    if len(counts) == 1:
        return Choice(1.0, "Shape and background tell no kinds of images apart, so cases are drawn alike.")
    if max(counts) < _RARE * min(counts):
        return Choice(1.0, f"There are {len(counts)} kinds of images, none of which is rare, so cases are drawn alike.")
    return Choice(
        _MOST_OF_KIND,
        f"There are {len(counts)} kinds of images by shape and background. Rare ones would be learned badly, so a case "
        "is drawn more often by the square root of the rarity of its kind, at most by this factor.",
        "square-root sampling, arXiv:1910.09217",
    )


def choose_class_ratios(fingerprint: Fingerprint, crop_background: bool) -> Choice:
    """Relative number of patches around voxels of each class, the background first."""
    ratios = _emphases(fingerprint)
    if crop_background and _filled(fingerprint) >= _FILLED:
        return Choice(
            [0.0, *(round(value, 2) for value in ratios)],
            "No patches are around background: the labels fill what the surround encloses, and the surround becomes "
            "background in every result. Rare labels are drawn more often than they occur.",
        )
    background = _BACKGROUND * sum(ratios)
    return Choice(
        [round(value, 2) for value in (background, *ratios)],
        "A fifth of the patches are around background, also in cases that lack labels; rare labels are drawn more "
        f"often than they occur (by the fourth root of their rarity, at most {_MOST_OFTEN:g} times).",
    )


def _filled(fingerprint: Fingerprint) -> float:
    """Share of labels in what the constant surround encloses, without ignored voxels, the median of the cases."""
    known = [
        (1 - case.surround_share) * math.prod(case.shape) - (1 - case.ignored_in_surround) * case.ignored
        for case in fingerprint.cases
    ]
    shares = [
        sum(case.voxels.values()) / count for case, count in zip(fingerprint.cases, known, strict=True) if count >= 1
    ]
    return statistics.median(shares or [0.0])


def choose_class_weights(fingerprint: Fingerprint) -> Choice:
    """Weights of the classes in the loss, the background first."""
    if len(fingerprint.labels) < 2:
        return Choice(None, "There is only one label.")
    emphases = _emphases(fingerprint)
    mean = statistics.fmean(emphases)
    return Choice(
        [round(value / mean, 2) for value in (min(emphases), *emphases)],
        "A rare label weighs more, by the fourth root of its rarity and at most "
        f"{_MOST_OFTEN:g} times as much, as it would be learned much later otherwise; the background weighs least. In "
        "the last part of the training (late_share) all weigh the same.",
    )


def _emphases(fingerprint: Fingerprint) -> list[float]:
    """Weight of each label, by value, relative to the most frequent one: the fourth root of its rarity.

    Labels without a voxel weigh as little as the most frequent one.
    """
    counts = [sum(case.voxels.get(name, 0) for case in fingerprint.cases) for name in fingerprint.label_names]
    return [min(_MOST_OFTEN, (max(counts) / count) ** 0.25) if count else 1.0 for count in counts]


def choose_augmentation(fingerprint: Fingerprint) -> Choice:
    """Strength of the augmentation."""
    return Choice(
        "strong",
        "The same for every kind of image: rotation, scaling, noise, blur, lower resolution, contrast and brightness "
        f"stand in for scanners and subjects that are not among the {len(fingerprint.cases)} cases. Where images will "
        "always be like these, light does slightly better. Their strength is not tuned to the modality; only "
        "bias_field, rotate90 and flip_axes follow the data.",
        ISENSEE,
    )


def choose_bias_field(fingerprint: Fingerprint) -> Choice:
    """Whether a smooth bias field is simulated."""
    if fingerprint.modality == "MR":
        return Choice(True, "The coils of MR scanners make intensities uneven.", "doi:10.1109/42.811270")
    return Choice(False, "Only MR has bias fields.")


def choose_rotate90(fingerprint: Fingerprint, spacing_mm: Sequence[float] | None = None, square: bool = True) -> Choice:
    """Whether patches, which may be ``square``, are rotated by multiples of 90 degrees."""
    has_sides = fingerprint.left_right or sided(fingerprint.labels)
    if fingerprint.spatial_dims == 3 or _is_upright(fingerprint) or has_sides:
        return Choice(False, "Images of patients, and volumes, have a fixed orientation.")
    width, height = spacing_mm or fingerprint.median_spacing_mm
    if not math.isclose(width, height, rel_tol=_SQUARE):
        return Choice(False, "The pixels are not square, so that rotated images would be stretched.")
    if not square:
        return Choice(False, "patch_size, set by hand, is not square.")
    return Choice(
        True,
        f"Images called {' and '.join(fingerprint.channels)} are taken for ones without a fixed orientation, and have "
        "square pixels; where they have one, false and flip_axes=0 are better.",
    )


def _is_upright(fingerprint: Fingerprint) -> bool:
    """Whether the images have a top and a bottom, by what they are called."""
    return fingerprint.modality in _RADIOLOGY or all(map(_UPRIGHT.search, fingerprint.channels))


def choose_flip_axes(fingerprint: Fingerprint, rotate90: bool, orientation: str | None = "RAS") -> Choice:
    """Axes along which patches are mirrored; volumes have the ``orientation``."""
    if fingerprint.left_right:
        left, right = fingerprint.left_right[0]
        more = len(fingerprint.left_right) - 1
        pairs = f" and {more} more {'pair' if more == 1 else 'pairs'}" if more else ""
        return Choice(
            [], f"There are pairs of left and right labels ({left}, {right}{pairs}), which mirroring would confuse."
        )
    if one_sided := sided(fingerprint.labels):
        return Choice(
            [], f"{one_sided[0]} is on one side, and mirroring would confuse it with the other, which has no label."
        )
    unnamed = len(fingerprint.labels) > 1 and all(map(_UNNAMED.fullmatch, fingerprint.labels))
    advice = " If some are of the left side and others of the right, none is better." if unnamed else ""
    if fingerprint.spatial_dims == 2:
        axes = [0] if _is_upright(fingerprint) and not rotate90 else [0, 1]
        return Choice(axes, f"Mirror images are as likely as the images themselves.{advice}", ISENSEE)
    if orientation is None:
        return Choice([], "Volumes as they are stored have no axis between left and right.")
    return Choice([0], f"Bodies are nearly symmetric between left and right, but along no other axis.{advice}")


def choose_tolerance(fingerprint: Fingerprint) -> Choice:
    """Tolerance in mm of the normalised surface Dice, which is computed on the grids of the images."""
    edges = fingerprint.median_spacing_mm
    edge = math.prod(edges) ** (1 / len(edges))
    if fingerprint.spatial_dims == 2:
        return Choice(_rounded(2 * edge), "Two pixels: manual outlines differ by as much.")
    return Choice(
        _rounded(edge),
        "The edge of a cube with the volume of a typical voxel of the data: surfaces cannot be known more precisely.",
        "doi:10.2196/26151 for the metric",
    )


def _rounded(value: float) -> float:
    """To six significant digits, whatever the unit: pixels of a microscope are fractions of a micrometre."""
    return float(f"{value:.6g}")


def is_anisotropic(spacing_mm: Sequence[float] | None) -> int | None:
    """The axis along which slices are thick; None if there is none."""
    if spacing_mm is None or len(spacing_mm) != 3:
        return None
    coarse = int(np.argmax(spacing_mm))
    others = max(value for axis, value in enumerate(spacing_mm) if axis != coarse)
    return coarse if spacing_mm[coarse] > _ANISOTROPY * others else None


def typical_shape(fingerprint: Fingerprint, spacing_mm: Sequence[float] | None, crop_background: bool) -> list[int]:
    """Median number of voxels by axis after resampling and cropping."""
    shapes = prepared_shapes(fingerprint, spacing_mm, crop_background)
    return [max(1, round(float(value))) for value in np.median(shapes, axis=0)]


def prepared_shapes(
    fingerprint: Fingerprint, spacing_mm: Sequence[float] | None, crop_background: bool
) -> list[list[int]]:
    """Number of voxels of each image by axis after resampling and cropping, as if its axes were perpendicular."""
    shapes = []
    for case in fingerprint.cases:
        spacing = list(case.spacing_mm if spacing_mm is None else spacing_mm)
        if crop_background:
            # spacings are rounded
            sizes = [round(size / mm, 3) for size, mm in zip(case.size_mm, spacing, strict=True)]
            shapes.append([math.ceil(size) + 2 * CROP_MARGIN for size in sizes])
        else:
            counts = zip(case.shape, case.spacing_mm, spacing, strict=True)
            # from centre to centre
            shapes.append([round((count - 1) * own / mm) + 1 for count, own, mm in counts])
    return shapes
