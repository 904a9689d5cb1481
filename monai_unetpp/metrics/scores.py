"""Score a segmentation against its truth, without rewarding missing structures."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from monai.metrics.utils import get_code_to_measure_table
from nibabel.affines import voxel_sizes
from scipy import ndimage
from scipy.spatial import KDTree

State = Literal["ok", "missed", "false_positive", "both_empty"]
FOREGROUND = "foreground"
"""Name of the row that pools all labels."""

_Array = npt.NDArray[Any]
_Mask = npt.NDArray[np.bool_]

_ROUNDING = 1e-5
"""Fraction of a voxel by which a distance may exceed the tolerance: affines in NIfTI files are rounded to float32."""


@dataclasses.dataclass(frozen=True)
class LabelScore:
    """The score of one label of one case; metrics are ``None`` only in the state ``both_empty``.

    Attributes:
        state: ``"ok"``; ``"missed"`` (truth, but no prediction); ``"false_positive"`` (prediction, but no truth);
            ``"both_empty"``.
        dice: Dice similarity, 0 to 1.
        iou: intersection over union, 0 to 1.
        hd95_mm: 95th percentile of the Hausdorff distance in mm.
        nsd: normalised surface Dice at the label's tolerance, 0 to 1.
        volume_difference_ml: predicted minus true volume.
        prediction_ml: predicted volume.
        truth_ml: true volume.
    """

    state: State
    dice: float | None
    iou: float | None
    hd95_mm: float | None
    nsd: float | None
    volume_difference_ml: float
    prediction_ml: float
    truth_ml: float


EMPTY_RULES: Mapping[State, str] = {
    "missed": "Missed (truth, but no prediction): Dice 0, IoU 0, NSD 0, HD95 = diagonal of the image in mm.",
    "false_positive": "False positive (prediction, but no truth): Dice 0, IoU 0, NSD 0, HD95 = diagonal of the image "
    "in mm; its volume is the volume difference.",
    "both_empty": "Both empty (neither prediction nor truth): counted, and left out of every mean.",
}
"""The score of a label without voxels in prediction or truth, where metrics are undefined, in words."""

RULES = "\n".join(
    (
        *EMPTY_RULES.values(),
        "Dice and IoU count voxels. The foreground pools all labels.",
        "HD95 is the larger of the two directed 95th percentiles of the distances between boundary voxels, in mm.",
        "NSD is the share of both surfaces, weighted by area, that lies within the label's tolerance in mm of the "
        "other one; the foreground has the smallest tolerance of its labels unless it is given one.",
        "Everything is measured on the label's own grid. Voxel sizes are the lengths of the affine's columns: exact "
        "for oblique volumes. Where axes are sheared, distances are measured as if they were perpendicular; volumes "
        "are exact. A 2D image counts as 1 mm thick.",
    )
)
"""The rules of scoring in words, one per line, as printed in reports."""


def score_case(
    prediction: npt.ArrayLike,
    truth: npt.ArrayLike,
    spacing_mm: Sequence[float],
    labels: Mapping[str, int],
    tolerance_mm: Mapping[str, float],
    ignore_label: int | None = None,
    voxel_ml: float | None = None,
) -> dict[str, LabelScore]:
    """Score one label map against the truth, label by label and pooled.

    The rules, including those for missing structures, are in :data:`RULES`. Nothing becomes NaN.

    Args:
        prediction: integer label map ``(H, W[, D])``; values not in ``labels`` count as background.
        truth: integer label map of the same shape.
        spacing_mm: voxel size in mm, one number per axis; see :func:`spacing_of_affine`. A volume with a single slice
            is scored as a 2D image; otherwise every voxel would be on the surface.
        labels: value of each label by name, without the background 0.
        tolerance_mm: tolerance of the normalised surface Dice by label, such as the disagreement between two experts.
            An entry ``"foreground"`` is optional.
        ignore_label: value of unlabelled voxels in ``truth``, where prediction and truth count as background:
            structures end at the border of such a region in both.
        voxel_ml: volume of a voxel in millilitres; by default the product of ``spacing_mm``, which is too much where
            axes are sheared.

    Returns:
        The score of each label in the order of ``labels``; for several labels, ``"foreground"`` last.

    Raises:
        TypeError: label maps do not hold integers, or labels or tolerances have the wrong type.
        ValueError: shapes, spacing, labels or tolerances do not match.

    Example:
        >>> import numpy as np
        >>> truth = np.zeros((8, 8, 8), dtype=np.uint8)
        >>> truth[2:6, 2:6, 2:6] = 1
        >>> shifted = np.roll(truth, 1, axis=2)
        >>> score = score_case(shifted, truth, (1.0, 1.0, 3.0), {"cube": 1}, {"cube": 1.0})["cube"]
        >>> score.state, score.dice, score.hd95_mm
        ('ok', 0.75, 3.0)

    See:
        Reinke et al., "Metrics reloaded", doi:10.1038/s41592-023-02151-z, on overlap and boundary metrics and on
        empty masks; Nikolov et al., arXiv:1809.04430, on the surface Dice.
    """
    predicted, true = _label_map(prediction, "prediction"), _label_map(truth, "truth")
    _check_shapes(predicted.shape, true.shape)
    return CaseScorer(true, spacing_mm, labels, tolerance_mm, ignore_label, voxel_ml).score(predicted)


class CaseScorer:
    """Score several label maps against one truth, computing its surfaces and search trees only once.

    Arguments and errors are those of :func:`score_case`.

    Example:
        >>> import numpy as np
        >>> truth = np.zeros((8, 8, 8), dtype=np.uint8)
        >>> truth[2:6, 2:6, 2:6] = 1
        >>> scorer = CaseScorer(truth, (1.0, 1.0, 3.0), {"cube": 1}, {"cube": 1.0})
        >>> [scorer.score(np.roll(truth, step, axis=2))["cube"].dice for step in (0, 1)]
        [1.0, 0.75]
    """

    def __init__(
        self,
        truth: npt.ArrayLike,
        spacing_mm: Sequence[float],
        labels: Mapping[str, int],
        tolerance_mm: Mapping[str, float],
        ignore_label: int | None = None,
        voxel_ml: float | None = None,
    ) -> None:
        true = _label_map(truth, "truth")
        self._ignored = None if ignore_label is None else true == ignore_label
        self._shape = true.shape
        self._spacing = _check_grid(true, spacing_mm)
        check_labels(labels)
        self._labels = dict(labels)
        self._tolerances = check_tolerances(tolerance_mm, labels)
        self._voxel_ml = math.prod(self._spacing) / 1000.0 if voxel_ml is None else voxel_ml
        self._diagonal_mm = math.hypot(*(size * step for size, step in zip(self._shape, self._spacing, strict=True)))
        self._truth = self._structures(self._scored(true))

    def score(self, prediction: npt.ArrayLike) -> dict[str, LabelScore]:
        """Score each label of a label map; argument, result and errors are those of :func:`score_case`."""
        predicted = _label_map(prediction, "prediction")
        _check_shapes(predicted.shape, self._shape)
        return {
            name: self._score(structure, self._truth[name], self._tolerances[name])
            for name, structure in self._structures(self._scored(predicted)).items()
        }

    def _scored(self, label_map: _Array) -> _Array:
        """The label map with ignored voxels set to background."""
        return label_map if self._ignored is None else np.where(self._ignored, 0, label_map)

    def _structures(self, label_map: _Array) -> dict[str, _Structure]:
        """The voxels of each label, and of all pooled if there are several."""
        spacing = self._spacing
        if label_map.ndim == 3 and 1 in label_map.shape:
            axis = label_map.shape.index(1)
            label_map, spacing = label_map.squeeze(axis), spacing[:axis] + spacing[axis + 1 :]
        named = np.isin(label_map, list(self._labels.values()))
        # nothing outside the box around all labels matters, so crop once
        box = _box(named)
        origin = tuple(part.start for part in box)
        structures = {
            name: _Structure(label_map[box] == value, origin, spacing) for name, value in self._labels.items()
        }
        if len(structures) > 1:
            structures[FOREGROUND] = _Structure(named[box], origin, spacing)
        return structures

    def _score(self, predicted: _Structure, true: _Structure, tolerance_mm: float) -> LabelScore:
        volumes = {
            "volume_difference_ml": (predicted.size - true.size) * self._voxel_ml,
            "prediction_ml": predicted.size * self._voxel_ml,
            "truth_ml": true.size * self._voxel_ml,
        }
        state = _state(predicted.size, true.size)
        if state in EMPTY_RULES:
            # no distance is larger than the diagonal
            overlap, distance = (None, None) if state == "both_empty" else (0.0, self._diagonal_mm)
            return LabelScore(state, overlap, overlap, distance, overlap, **volumes)
        shared = predicted.overlap(true)
        return LabelScore(
            state=state,
            dice=2 * shared / (predicted.size + true.size),
            iou=shared / (predicted.size + true.size - shared),
            hd95_mm=_hd95_mm(predicted.boundary, true.boundary),
            nsd=_surface_dice(predicted, true, tolerance_mm),
            **volumes,
        )


def scored_labels(labels: Mapping[str, int]) -> tuple[str, ...]:
    """The keys of the result of :func:`score_case`, in order."""
    return (*labels, FOREGROUND) if len(labels) > 1 else tuple(labels)


def spacing_of_affine(affine: npt.ArrayLike, spatial_dims: int = 3) -> tuple[float, ...]:
    """Voxel sizes along the first ``spatial_dims`` array axes: the lengths of the affine's columns.

    They are exact for every rotation. For a sheared affine, distances are measured as if axes were perpendicular.

    Args:
        affine: ``(4, 4)``, from voxel indices to mm.
        spatial_dims: 2 or 3.
    """
    return tuple(float(size) for size in voxel_sizes(np.asarray(affine, dtype=float))[:spatial_dims])


def check_labels(labels: Mapping[str, int]) -> None:
    """Refuse labels that cannot be scored.

    Raises:
        TypeError: they are not a mapping of names to integers.
        ValueError: there are none, a value is repeated or below 1, or a label has the name of the pooled row.
    """
    if not isinstance(labels, Mapping) or not all(
        isinstance(name, str) and isinstance(value, int) and not isinstance(value, bool)
        for name, value in labels.items()
    ):
        raise TypeError(
            f"labels must map names to integers, got {labels!r}. Write it like {{'liver': 1, 'tumour': 2}}."
        )
    values = list(labels.values())
    if not values or min(values) < 1 or len(set(values)) < len(values):
        raise ValueError(
            f"labels must have at least one entry, with different values from 1 up, got {dict(labels)!r}. Leave out "
            "the background, and name each value once."
        )
    if len(labels) > 1 and FOREGROUND in labels:
        raise ValueError(
            f"labels must not include {FOREGROUND!r} if there are several, got {dict(labels)!r}. This is the name of "
            "all labels pooled: choose another."
        )


def check_tolerances(tolerance_mm: Mapping[str, float], labels: Mapping[str, int]) -> dict[str, float]:
    """Check the tolerances, and add that of the foreground: the smallest one unless given.

    Raises:
        TypeError: they are not a mapping.
        ValueError: a label has no tolerance or is unknown, or a number is negative or infinite.
    """
    if not isinstance(tolerance_mm, Mapping):
        raise TypeError(f"tolerance_mm must map names of labels to mm, got {tolerance_mm!r}. Give one per label.")
    names = set(labels)
    if not names <= set(tolerance_mm) or not set(tolerance_mm) <= names | {FOREGROUND}:
        raise ValueError(
            f"tolerance_mm must have one entry for each of {', '.join(labels)}, got {dict(tolerance_mm)!r}. Give the "
            "tolerance of the surface Dice in mm per label."
        )
    for name, value in tolerance_mm.items():
        if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
            raise ValueError(
                f"tolerance_mm of {name!r} must be a number from 0 up, got {value!r}. Give it in mm, such as 1.0."
            )
    return with_foreground({name: float(value) for name, value in tolerance_mm.items()})


def with_foreground(tolerance_mm: Mapping[str, float]) -> dict[str, float]:
    """The tolerances by label with that of the foreground, the smallest one unless given."""
    if not tolerance_mm or FOREGROUND in tolerance_mm:
        return dict(tolerance_mm)
    return {**tolerance_mm, FOREGROUND: min(tolerance_mm.values())}


def _label_map(values: npt.ArrayLike, name: str) -> _Array:
    array = np.asarray(values)
    if array.dtype.kind not in "iub":
        raise TypeError(f"{name} must hold integer labels, got {array.dtype}. Take the argmax of logits first.")
    return array


def _check_shapes(prediction: tuple[int, ...], truth: tuple[int, ...]) -> None:
    if prediction != truth or len(truth) not in (2, 3) or 0 in truth:
        raise ValueError(
            f"prediction and truth must be 2D or 3D and have the same shape, got {prediction} and {truth}. "
            "Bring the prediction back to the label's grid."
        )


def _check_grid(truth: _Array, spacing_mm: Sequence[float]) -> tuple[float, ...]:
    if truth.ndim not in (2, 3) or 0 in truth.shape:
        raise ValueError(f"truth must be 2D or 3D and not empty, got shape {truth.shape}. Give one label map.")
    spacing = tuple(float(size) for size in spacing_mm)
    if len(spacing) != truth.ndim or not all(math.isfinite(size) and size > 0 for size in spacing):
        raise ValueError(
            f"spacing_mm must be {truth.ndim} positive numbers, got {spacing}. Give one voxel size per axis of the "
            "label map; spacing_of_affine reads them from an affine."
        )
    return spacing


def _state(predicted: int, true: int) -> State:
    if predicted and true:
        return "ok"
    if true:
        return "missed"
    return "false_positive" if predicted else "both_empty"


# Own surfaces: MONAI's compute_hausdorff_distance and compute_surface_dice take several times as long on one CPU core,
# and compute the surface Dice in single precision, 8e-8 off.
class _Points:
    """Points of a grid, ready for nearest-neighbour search."""

    def __init__(self, mask: _Mask, origin: npt.NDArray[np.intp], spacing: tuple[float, ...]) -> None:
        self._mask = mask
        self._origin = origin
        self._spacing = np.asarray(spacing)
        self._indices = np.argwhere(mask) + self._origin

    @cached_property
    def _tree(self) -> KDTree:
        return KDTree(self._indices * self._spacing, leafsize=32)

    def distances_to(self, others: _Points, *, share: float = 1.0, limit_mm: float = math.inf) -> _Array:
        """Distance in mm from each point to the nearest of ``others``.

        Args:
            others: the points to be near to.
            share: only the distances up to this quantile are needed, and the one after it, with which it is
                interpolated; larger ones may be infinite.
            limit_mm: only distances up to this one are needed; larger ones may be infinite.
        """
        distances = np.full(len(self._indices), np.inf, dtype=np.float32)
        needed = min(math.floor(share * (len(distances) - 1)) + 2, len(distances))
        left = np.arange(len(distances))
        # most points of a good segmentation have a neighbour at once, without a search
        for offset, distance in _near_offsets(tuple(self._spacing)):
            if distance > limit_mm or len(distances) - len(left) >= needed:
                return distances
            held = others._hold(self._indices[left] + offset)
            distances[left[held]] = distance
            left = left[~held]
        if len(distances) - len(left) < needed:
            places = self._indices[left] * self._spacing
            # the bound itself is excluded
            bound = np.nextafter(limit_mm, np.inf)
            distances[left] = others._tree.query(places, distance_upper_bound=bound)[0]
        return distances

    def _hold(self, indices: npt.NDArray[np.intp]) -> _Mask:
        local = indices - self._origin
        inside = ((local >= 0) & (local < self._mask.shape)).all(axis=1)
        held = np.zeros(len(indices), dtype=bool)
        held[inside] = self._mask[tuple(local[inside].T)]
        return held


@lru_cache(maxsize=64)
def _near_offsets(spacing: tuple[float, ...]) -> tuple[tuple[npt.NDArray[np.intp], float], ...]:
    """The steps on the grid up to twice the shortest edge of a voxel, with their lengths in mm, the shortest first."""
    longest = 2 * min(spacing)
    reach = [math.floor(longest / step) for step in spacing]
    steps = itertools.product(*(range(-count, count + 1) for count in reach))
    lengths = ((np.array(step), math.hypot(*(n * mm for n, mm in zip(step, spacing, strict=True)))) for step in steps)
    return tuple(sorted((each for each in lengths if each[1] <= longest), key=lambda each: each[1]))


class _Structure:
    """All voxels of one label; its surface is computed on demand and cached.

    ``mask`` has its voxels in a part of the grid that contains them all and begins at the voxel ``origin``; ``spacing``
    is in mm.
    """

    def __init__(self, mask: _Mask, origin: Sequence[int], spacing: tuple[float, ...]) -> None:
        box = _box(mask)
        self._origin = np.array([start + part.start for start, part in zip(origin, box, strict=True)], dtype=np.intp)
        self._mask = np.ascontiguousarray(mask[box])
        self._spacing = spacing
        self.size = int(np.count_nonzero(self._mask))

    def overlap(self, other: _Structure) -> int:
        """Number of voxels in both structures."""
        low = np.maximum(self._origin, other._origin)
        high = np.minimum(self._origin + self._mask.shape, other._origin + other._mask.shape)
        if (high <= low).any():
            return 0
        mine, theirs = (
            each._mask[tuple(map(slice, low - each._origin, high - each._origin))] for each in (self, other)
        )
        return int(np.count_nonzero(mine & theirs))

    @cached_property
    def boundary(self) -> _Points:
        """Voxels with a face to the outside."""
        # ndimage.binary_erosion gives the same, and takes longer
        padded = np.pad(self._mask, 1)
        inside = self._mask.copy()
        for axis in range(padded.ndim):
            for step in (0, 2):
                part = [slice(1, -1)] * padded.ndim
                part[axis] = slice(step, padded.shape[axis] - 2 + step)
                inside &= padded[tuple(part)]
        return _Points(self._mask & ~inside, self._origin, self._spacing)

    @cached_property
    def surface(self) -> tuple[_Points, _Array]:
        """Corners between voxels on the surface, and its area in mm² (in 2D, length in mm) at each.

        Surface elements are those of MONAI's ``compute_surface_dice``, without its slow convolution.
        """
        table, kernel = get_code_to_measure_table(self._spacing)
        weights = np.asarray(kernel).squeeze().astype(np.uint8)
        mask = np.pad(self._mask, 1).view(np.uint8)
        codes = np.zeros([size - 1 for size in mask.shape], dtype=np.uint8)
        for corner in np.ndindex(weights.shape):
            neighbours = mask[tuple(slice(at, at + size) for at, size in zip(corner, codes.shape, strict=True))]
            codes += neighbours * weights[corner]
        areas = np.asarray(table, dtype=np.float64)
        passed = (areas > 0)[codes]
        return _Points(passed, self._origin, self._spacing), areas[codes[passed]]


def _box(mask: _Mask) -> tuple[slice, ...]:
    """The bounding box of a mask; empty for an empty mask."""
    box: tuple[slice, ...] | None = ndimage.find_objects(mask.view(np.uint8), max_label=1)[0]
    return box or (slice(0, 0),) * mask.ndim


def _hd95_mm(first: _Points, second: _Points) -> float:
    directed = (first.distances_to(second, share=0.95), second.distances_to(first, share=0.95))
    return max(float(np.percentile(each, 95)) for each in directed)


def _surface_dice(first: _Structure, second: _Structure, tolerance_mm: float) -> float:
    limit = tolerance_mm + _ROUNDING * max(first._spacing)
    (points, areas), (other_points, other_areas) = first.surface, second.surface
    within = (
        areas[points.distances_to(other_points, limit_mm=limit) <= limit].sum()
        + other_areas[other_points.distances_to(points, limit_mm=limit) <= limit].sum()
    )
    return float(within / (areas.sum() + other_areas.sum()))
