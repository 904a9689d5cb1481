"""Scores of one segmentation against its truth that cannot be gamed by missing structures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from monai.metrics.utils import get_code_to_measure_table, get_surface_distance
from nibabel.affines import voxel_sizes
from scipy import ndimage

__all__ = [
    "EMPTY_RULES",
    "FOREGROUND",
    "RULES",
    "EmptyRule",
    "LabelScore",
    "State",
    "check_labels",
    "check_tolerances",
    "score_case",
    "scored_labels",
    "spacing_of_affine",
]

State = Literal["ok", "missed", "false_positive", "both_empty"]
FOREGROUND = "foreground"
"""Name of the row that pools all labels."""

_Array = npt.NDArray[Any]
_Mask = npt.NDArray[np.bool_]

_ROUNDING = 1e-5
"""Share of a voxel by which a distance may exceed the tolerance: affines in NIfTI files are rounded to float32."""


@dataclasses.dataclass(frozen=True)
class LabelScore:
    """The score of one label of one case; ``None`` only where the state is ``both_empty``.

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


@dataclasses.dataclass(frozen=True)
class EmptyRule:
    """What a label scores where prediction or truth has no voxel of it, so that no metric is defined.

    Attributes:
        overlap: Dice, IoU and normalised surface Dice; None leaves the case out of their means.
        distance: ``"diagonal"`` gives HD95 the diagonal of the image in mm, the largest distance there could be;
            None leaves the case out.
        text: the rule in words.
    """

    overlap: float | None
    distance: Literal["diagonal"] | None
    text: str


EMPTY_RULES: Mapping[State, EmptyRule] = MappingProxyType(
    {
        "missed": EmptyRule(
            overlap=0.0,
            distance="diagonal",
            text="Missed (truth, but no prediction): Dice 0, IoU 0, NSD 0, HD95 = diagonal of the image in mm.",
        ),
        "false_positive": EmptyRule(
            overlap=0.0,
            distance="diagonal",
            text="False positive (prediction, but no truth): Dice 0, IoU 0, NSD 0, HD95 = diagonal of the image in mm; "
            "its volume is the volume difference.",
        ),
        "both_empty": EmptyRule(
            overlap=None,
            distance=None,
            text="Both empty (neither prediction nor truth): counted, and left out of every mean.",
        ),
    }
)

RULES = "\n".join(
    (
        *(rule.text for rule in EMPTY_RULES.values()),
        "Dice and IoU count voxels. The foreground pools all labels.",
        "HD95 is the larger of the two directed 95th percentiles of the distances between boundary voxels, in mm.",
        "NSD is the share of both surfaces, weighted by area, that lies within the label's tolerance in mm of the "
        "other one; the foreground has the smallest tolerance of its labels unless it is given one.",
        "Everything is measured on the label's own grid. Voxel sizes are the lengths of the affine's columns: exact "
        "for oblique volumes; a shear is not taken into account. A 2D image counts as 1 mm thick.",
    )
)
"""The rules of scoring in words, one a line, as reports print them."""


def score_case(
    prediction: npt.ArrayLike,
    truth: npt.ArrayLike,
    spacing_mm: Sequence[float],
    labels: Mapping[str, int],
    tolerance_mm: Mapping[str, float],
) -> dict[str, LabelScore]:
    """Score one label map against the truth, label by label and pooled.

    The rules, also those for structures that are missing, are in :data:`RULES`. Nothing becomes NaN.

    Args:
        prediction: integer label map ``(H, W[, D])``; values that ``labels`` does not name count as background.
        truth: integer label map of the same shape.
        spacing_mm: voxel size in mm, one number per axis; see :func:`spacing_of_affine`. A volume of a single
            slice is scored as a 2D image, else every voxel would lie on its surface.
        labels: value of each label by name, without the background 0.
        tolerance_mm: tolerance of the normalised surface Dice by label: take the disagreement between two experts.
            An entry ``"foreground"`` is optional.

    Returns:
        The score of each label in the order of ``labels``; for several labels, ``"foreground"`` last.

    Raises:
        TypeError: label maps that do not hold integers, labels or tolerances of another kind.
        ValueError: shapes, spacing, labels or tolerances that do not go together.

    Example:
        >>> import numpy as np
        >>> truth = np.zeros((8, 8, 8), dtype=np.uint8)
        >>> truth[2:6, 2:6, 2:6] = 1
        >>> shifted = np.roll(truth, 1, axis=2)
        >>> score = score_case(shifted, truth, (1.0, 1.0, 3.0), {"cube": 1}, {"cube": 1.0})["cube"]
        >>> score.state, score.dice, score.hd95_mm
        ('ok', 0.75, 3.0)

    See:
        Reinke et al., "Metrics reloaded", doi:10.1038/s41592-023-02151-z, on overlap beside boundary metrics and on
        empty masks; Nikolov et al., arXiv:1809.04430, on the surface Dice.
    """
    predicted, true = _label_map(prediction, "prediction"), _label_map(truth, "truth")
    spacing = _check_grid(predicted, true, spacing_mm)
    check_labels(labels)
    tolerances = check_tolerances(tolerance_mm, labels)
    scores = {
        name: _score_mask(predicted == value, true == value, spacing, tolerances[name])
        for name, value in labels.items()
    }
    if len(labels) > 1:
        values = list(labels.values())
        pooled = np.isin(predicted, values), np.isin(true, values)
        scores[FOREGROUND] = _score_mask(*pooled, spacing, tolerances[FOREGROUND])
    return scores


def scored_labels(labels: Mapping[str, int]) -> tuple[str, ...]:
    """The keys of what :func:`score_case` returns, in their order."""
    return (*labels, FOREGROUND) if len(labels) > 1 else tuple(labels)


def spacing_of_affine(affine: npt.ArrayLike, spatial_dims: int = 3) -> tuple[float, ...]:
    """Voxel sizes along the first ``spatial_dims`` array axes: the lengths of the affine's columns.

    They are the true distances along each axis for every rotation. A sheared affine has axes that are not at right
    angles; distances are then measured as if they were.

    Args:
        affine: ``(4, 4)``, from voxel indices to mm.
        spatial_dims: 2 or 3.
    """
    return tuple(float(size) for size in voxel_sizes(np.asarray(affine, dtype=float))[:spatial_dims])


def check_labels(labels: Mapping[str, int]) -> None:
    """Refuse labels that cannot be scored.

    Raises:
        TypeError: not a mapping of names to integers.
        ValueError: none at all, the background, one value twice, or the name of the pooled row.
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
            f"labels must not be called {FOREGROUND!r} where there are several, got {dict(labels)!r}. That is the name "
            "of all labels pooled: give this one another."
        )


def check_tolerances(tolerance_mm: Mapping[str, float], labels: Mapping[str, int]) -> dict[str, float]:
    """The tolerance of every label, and of the foreground: the smallest one unless it has its own.

    Raises:
        TypeError: not a mapping.
        ValueError: a label without a tolerance, a name that is no label, a negative or infinite number.
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
    tolerances = {name: float(tolerance_mm[name]) for name in labels}
    tolerances[FOREGROUND] = float(tolerance_mm.get(FOREGROUND, min(tolerances.values())))
    return tolerances


def _label_map(values: npt.ArrayLike, name: str) -> _Array:
    array = np.asarray(values)
    if array.dtype.kind not in "iub":
        raise TypeError(f"{name} must hold integer labels, got {array.dtype}. Take the argmax of logits first.")
    return array


def _check_grid(prediction: _Array, truth: _Array, spacing_mm: Sequence[float]) -> tuple[float, ...]:
    if prediction.shape != truth.shape or truth.ndim not in (2, 3) or 0 in truth.shape:
        raise ValueError(
            f"prediction and truth must be 2D or 3D and of one shape, got {prediction.shape} and {truth.shape}. "
            "Bring the prediction back to the label's grid."
        )
    spacing = tuple(float(size) for size in spacing_mm)
    if len(spacing) != truth.ndim or not all(math.isfinite(size) and size > 0 for size in spacing):
        raise ValueError(
            f"spacing_mm must be {truth.ndim} positive numbers, got {spacing}. Give one voxel size per axis of the "
            "label map; spacing_of_affine reads them from an affine."
        )
    return spacing


def _score_mask(prediction: _Mask, truth: _Mask, spacing: tuple[float, ...], tolerance_mm: float) -> LabelScore:
    voxel_ml = math.prod(spacing) / 1000.0
    predicted, true = int(prediction.sum()), int(truth.sum())
    volumes = {
        "volume_difference_ml": (predicted - true) * voxel_ml,
        "prediction_ml": predicted * voxel_ml,
        "truth_ml": true * voxel_ml,
    }
    state = _state(predicted, true)
    if state in EMPTY_RULES:
        rule = EMPTY_RULES[state]
        diagonal = math.hypot(*(size * step for size, step in zip(truth.shape, spacing, strict=True)))
        distance = diagonal if rule.distance == "diagonal" else None
        return LabelScore(state, rule.overlap, rule.overlap, distance, rule.overlap, **volumes)
    shared = int((prediction & truth).sum())
    hd95_mm, nsd = _surface_scores(prediction, truth, spacing, tolerance_mm)
    return LabelScore(
        state=state,
        dice=2 * shared / (predicted + true),
        iou=shared / (predicted + true - shared),
        hd95_mm=hd95_mm,
        nsd=nsd,
        **volumes,
    )


def _state(predicted: int, true: int) -> State:
    if predicted and true:
        return "ok"
    if true:
        return "missed"
    return "false_positive" if predicted else "both_empty"


def _surface_scores(
    prediction: _Mask, truth: _Mask, spacing: tuple[float, ...], tolerance_mm: float
) -> tuple[float, float]:
    """HD95 in mm and normalised surface Dice of two masks that are not empty."""
    if truth.ndim == 3 and 1 in truth.shape:
        axis = truth.shape.index(1)
        prediction, truth = prediction.squeeze(axis), truth.squeeze(axis)
        spacing = tuple(size for i, size in enumerate(spacing) if i != axis)
    # surfaces and the distances between them depend on nothing outside the box that holds both masks
    box = ndimage.find_objects((prediction | truth).astype(np.uint8))[0]
    prediction, truth = np.pad(prediction[box], 1), np.pad(truth[box], 1)

    boundary, true_boundary = (mask & ~ndimage.binary_erosion(mask) for mask in (prediction, truth))
    hd95_mm = max(float(np.percentile(each, 95)) for each in _distances(boundary, true_boundary, spacing))

    predicted_area, true_area = _surface_areas([prediction, truth], spacing)
    there, back = _distances(predicted_area > 0, true_area > 0, spacing)
    limit = tolerance_mm + _ROUNDING * max(spacing)
    predicted_area, true_area = predicted_area[predicted_area > 0], true_area[true_area > 0]
    within = predicted_area[there <= limit].sum() + true_area[back <= limit].sum()
    return hd95_mm, float(within / (predicted_area.sum() + true_area.sum()))


def _surface_areas(masks: Sequence[_Mask], spacing: tuple[float, ...]) -> list[_Array]:
    """Area in mm² (in 2D, length in mm) of each mask's surface at every corner between voxels.

    The same surface elements as in MONAI's ``compute_surface_dice``, whose convolution takes most of its time.
    """
    table, kernel = get_code_to_measure_table(spacing)
    areas = np.asarray(table, dtype=np.float64)
    weights = np.asarray(kernel).squeeze().astype(np.uint8)
    found = []
    for mask in masks:
        codes = np.zeros([size - 1 for size in mask.shape], dtype=np.uint8)
        for corner in np.ndindex(weights.shape):
            neighbours = mask[tuple(slice(at, at + size) for at, size in zip(corner, codes.shape, strict=True))]
            codes += neighbours * weights[corner]
        found.append(areas[codes])
    return found


def _distances(first: _Mask, second: _Mask, spacing: tuple[float, ...]) -> tuple[_Array, _Array]:
    return _distances_to(first, second, spacing), _distances_to(second, first, spacing)


def _distances_to(source: _Mask, target: _Mask, spacing: tuple[float, ...]) -> _Array:
    """Distance in mm from each point of ``source`` to the nearest of ``target``."""
    # points on both have distance 0; most points of a good segmentation are such, and need no search
    apart = source & ~target
    distances = np.zeros(source.shape, dtype=np.float32)
    if apart.any():
        distances[apart] = np.asarray(get_surface_distance(apart, target, spacing=spacing))
    return distances[source]
