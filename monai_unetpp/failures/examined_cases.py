"""Read the cases of a data set from their files, and score the segmentations that were written for them."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_unetpp.data import ImageFileError
from monai_unetpp.data.datasets.case_check import CheckedCase, label_volumes, read_image, read_truth
from monai_unetpp.data.datasets.label_names import IGNORE, LabelNames, find_label_names
from monai_unetpp.data.datasets.labelled import LabelledCase
from monai_unetpp.data.datasets.voxel_hash import hash_voxels
from monai_unetpp.data.formats.grid import ImageGeometry, check_same_grid, voxel_ml
from monai_unetpp.data.formats.reader import Volume, read_label_map
from monai_unetpp.metrics import FOREGROUND, LabelScore, score_case, spacing_of_affine
from monai_unetpp.metrics.scores import scored_labels

_SUFFIXES = (".nii.gz", ".png", ".tif")
"""Suffixes of the files that :class:`~monai_unetpp.data.SegmentationSaveImaged` writes."""

_Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class ScoredLabels:
    """Which values of the label maps are scored.

    Attributes:
        named: value by name.
        allowed: values other than 0 that the files may hold. None allows any, and all above 0 count as one label.
        ignore: value of voxels in the truth that are not scored; None if there are none.
    """

    named: dict[str, int]
    allowed: tuple[int, ...] | None
    ignore: int | None = None

    def pick(self, data: _Array) -> _Array:
        """The label map with only the values of ``named``; all others become background."""
        if self.allowed is None:
            return (data > 0).astype(np.uint8)
        return np.where(np.isin(data, list(self.named.values())), data, 0)


@dataclasses.dataclass(frozen=True)
class CaseArrays:
    """One case on the grid of its label.

    Attributes:
        image: grey values ``(H, W[, D])`` of the first channel.
        truth: the scored labels, of the same shape.
        segmentation: its labels, of the same shape; 0 everywhere if there is none to score.
        spacing_mm: voxel size by axis.
        voxel_ml: volume of a voxel in millilitres; None for the product of ``spacing_mm``.
        checked: what was found while reading image and label, as in every check of labelled cases.
        ignored: mask of the voxels that are left out; truth and segmentation are 0 there. None if there are none.
    """

    image: _Array
    truth: _Array
    segmentation: _Array
    spacing_mm: tuple[float, ...]
    voxel_ml: float | None = None
    checked: CheckedCase = dataclasses.field(default_factory=lambda: CheckedCase(None))
    ignored: npt.NDArray[np.bool_] | None = None


@dataclasses.dataclass(frozen=True)
class CaseScore:
    """The scores of one case.

    Attributes:
        foreground_iou: intersection over union of all labels pooled; None if neither truth nor segmentation has any.
        dice: the same as Dice similarity.
        background_iou: intersection over union of the background; None if neither has any.
        mean_iou: mean IoU of the background and of every label that is in truth or segmentation.
        missed_voxels: labelled in the truth, background in the segmentation.
        false_positive_voxels: background in the truth, labelled in the segmentation.
        confused_voxels: labelled differently in the two.
        truth_voxels: labelled in the truth.
        segmentation_voxels: labelled in the segmentation.
        labels: all scores of each label, by name.
    """

    foreground_iou: float | None
    dice: float | None
    background_iou: float | None
    mean_iou: float
    missed_voxels: int
    false_positive_voxels: int
    confused_voxels: int
    truth_voxels: int
    segmentation_voxels: int
    labels: dict[str, LabelScore]


def choose_labels(
    dataset_dir: str | PathLike[str], only: Sequence[str] | None = None, instances: bool = False
) -> ScoredLabels:
    """The labels to score: all that ``dataset.json`` names, or only some of them.

    If it names none, or with ``instances``, where label maps number their objects, all values above 0 are one label.
    """
    if isinstance(only, str):
        raise TypeError(f"labels must be a list of names, got {only!r}. Write ['{only}'].")
    listed = find_label_names(dataset_dir)
    names = listed or LabelNames({FOREGROUND: 1})
    named = names.foreground
    unknown = [name for name in only or () if name not in named]
    if unknown:
        raise ValueError(f"labels must be among {', '.join(named)}, got {unknown[0]!r}. Correct the name.")
    if instances and len(named) > 1:
        raise ValueError(
            f"instances must be left out for data with several labels, got {', '.join(named)}. Object numbers and "
            "label values cannot be told apart."
        )
    if instances and names.ignore is not None:
        raise ValueError(
            f"{Path(dataset_dir) / 'dataset.json'}: labels must not have {IGNORE!r} where objects are numbered, got "
            f"{names.ignore}. It could be an object's number: leave instances out."
        )
    if instances or listed is None:
        return ScoredLabels(dict.fromkeys(named, 1), None)
    chosen = {name: value for name, value in named.items() if name in (only or named)}
    return ScoredLabels(chosen, names.values, names.ignore)


def find_segmentation(case: LabelledCase, folder: Path) -> Path:
    """The file ``<case>_seg.nii.gz``, ``.png`` or ``.tif``, of which there must be one."""
    paths = [folder / f"{case.name}_seg{suffix}" for suffix in _SUFFIXES]
    existing = [path for path in paths if path.is_file()]
    if not existing:
        raise ImageFileError(
            f"{paths[0]}: no such file, nor one that ends in {' or '.join(_SUFFIXES[1:])}. Segment {case.image[0]}."
        )
    if len(existing) > 1:
        raise ImageFileError(f"{existing[0]}: {existing[1].name} exists too. Remove the one that should not be scored.")
    return existing[0]


def read_arrays(
    case: LabelledCase, labels: ScoredLabels, segmentation: Path | None, spatial_dims: int | None
) -> CaseArrays:
    """Read the files of a case, of 2 or 3 axes or those of its label: without ``segmentation`` image and label only."""
    label = read_truth(case, labels.allowed, spatial_dims)
    dims = label.data.ndim
    # voxels outside the scanned region are sometimes NaN; the image only serves to find its kind
    image = read_image(case, dims, allow_constant=True, fill_nonfinite=0.0)
    check_same_grid(case.image[0], ImageGeometry(image.data.shape[1:], image.affine), case.label, label.grid)
    ignored = None if labels.ignore is None else label.data == labels.ignore
    if ignored is not None and ignored.all():
        raise ImageFileError(f"{case.label}: every voxel is to be ignored, so nothing can be scored. Remove the case.")
    if segmentation is None:
        segmented = np.zeros_like(label.data)
    else:
        segmented = _read_segmentation(segmentation, label, case.label, labels)
    return CaseArrays(
        image=image.data[0],
        truth=labels.pick(label.data),
        segmentation=segmented if ignored is None else np.where(ignored, 0, segmented),
        spacing_mm=spacing_of_affine(label.affine, dims),
        voxel_ml=voxel_ml(label.affine, dims),
        checked=CheckedCase(None, hash_voxels(np.moveaxis(image.data, 0, -1)), label_volumes(label)),
        ignored=ignored,
    )


def _read_segmentation(path: Path, label: Volume, label_path: Path, labels: ScoredLabels) -> _Array:
    segmentation = read_label_map(path, label.data.ndim)
    check_same_grid(path, segmentation.grid, label_path, label.grid)
    values = [int(value) for value in np.unique(segmentation.data)]
    if labels.allowed is not None and not set(values) <= {0, *labels.allowed}:
        unknown = next(value for value in values if value not in (0, *labels.allowed))
        raise ImageFileError(
            f"{path}: the segmentation must hold 0 and {', '.join(map(str, sorted(labels.allowed)))} only, got "
            f"{unknown}. Segment with a network for these labels, or give instances if objects are numbered."
        )
    return labels.pick(segmentation.data)


def score_arrays(arrays: CaseArrays, labels: Mapping[str, int]) -> CaseScore:
    """Score the segmentation of one case by :func:`monai_unetpp.metrics.score_case`, and its background."""
    true, segmented = arrays.truth != 0, arrays.segmentation != 0
    # the surface Dice needs a tolerance; none suits every data set, so the report leaves it out
    tolerances = dict.fromkeys(labels, max(arrays.spacing_mm))
    scores = score_case(
        arrays.segmentation, arrays.truth, arrays.spacing_mm, labels, tolerances, voxel_ml=arrays.voxel_ml
    )
    pooled = scores[scored_labels(labels)[-1]]
    left_out = 0 if arrays.ignored is None else int(np.count_nonzero(arrays.ignored))
    nowhere = int(np.count_nonzero(~true & ~segmented)) - left_out
    not_both = true.size - int(np.count_nonzero(true & segmented)) - left_out
    background_iou = nowhere / not_both if not_both else None
    by_class = [background_iou, *(scores[name].iou for name in labels)]
    return CaseScore(
        foreground_iou=pooled.iou,
        dice=pooled.dice,
        background_iou=background_iou,
        mean_iou=statistics.fmean(iou for iou in by_class if iou is not None),
        missed_voxels=int(np.count_nonzero(true & ~segmented)),
        false_positive_voxels=int(np.count_nonzero(segmented & ~true)),
        confused_voxels=int(np.count_nonzero(true & segmented & (arrays.truth != arrays.segmentation))),
        truth_voxels=int(np.count_nonzero(true)),
        segmentation_voxels=int(np.count_nonzero(segmented)),
        labels=scores,
    )
