"""How cases are scored: the arguments of :func:`monai_unetpp.pruning.evaluate_levels` as one checked object."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy.typing as npt
import torch

from monai_unetpp.data.datasets.case_check import CheckedCase
from monai_unetpp.data.datasets.labelled import LabelledCase
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.metrics.scores import check_labels, check_tolerances
from monai_unetpp.pruning.results import OperatingPoint
from monai_unetpp.pruning.scoring.prediction import Network

PredictionHook = Callable[[LabelledCase, OperatingPoint, npt.NDArray[Any], npt.NDArray[Any]], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
    """How the levels of a network are scored.

    Attributes:
        preprocessing: MONAI ``Compose`` that loads and prepares key ``"image"`` to ``(C, H, W[, D])``. Transforms of
            other keys, such as the label's, are skipped.
        inferer: MONAI inferer; ``inferer(batch, network)`` must return the network's dict of levels, as with
            ``SimpleInferer`` and ``SlidingWindowInferer`` (without ``buffer_steps``). A ``NestedSlidingWindowInferer``
            gets the levels itself, so that it can compile or convert the network; leave its ``levels`` and ``output``
            at their defaults.
        postprocessing: MONAI ``Compose`` that turns ``{"pred": logits, "image": image}`` of one level, without the
            batch axis, into integer labels ``"pred"`` on the image's original grid, for example by
            ``AsDiscreted(argmax)`` and ``Invertd``.
        labels: value of each label by name, without the background. Other values above 0 are a problem in a label
            file, and background in a prediction.
        tolerance_mm: tolerance of the normalised surface Dice by label in mm; ``"foreground"`` is optional.
        ignore_label: value of voxels in label files that are left out of every score.
        levels: names of the levels to score, shallowest first; by default ``network.levels``.
        adaptive: tolerances for choosing the depth of each window, from the same pass as the levels; the inferer must
            then be a :class:`~monai_unetpp.inferers.NestedSlidingWindowInferer`.
        extra: further networks, each an operating point, scored on the same cases with the same transforms; a network
            returns logits, a dict of levels that includes the point's level, or has ``forward_levels``.
        dataset: name of the data set in all results.
        device: where the networks run.
        spatial_dims: 2 or 3; by default ``network.spatial_dims``, else that of each label.
        subjects: subject by name of the case (image file name without suffix), or a CSV file with the columns
            ``case`` and ``subject``.
        subject_pattern: regular expression with one group that finds the subject in the case's name. A case's own
            ``subject`` takes precedence, then ``subjects``, then the pattern, then a subject in the case's name
            (``sub-01_...``); else each case is a subject.
        configuration: text of all settings of transforms and inferer; when it changes, finished cases are scored
            again. Required with ``store``.
        store: folder for finished cases. A rerun scores only cases that are new or whose weights, configuration or
            data changed; an interrupted run loses at most one case.
        exclude_problems: leave out cases with problems in their data, instead of stopping before scoring.
        checked: results of an earlier check of the cases by name; by default they are checked.
        uncertainty: measure how well disagreement between the levels finds errors of the deepest one.
        uncertainty_dir: folder for ``<case>_uncertainty.nii.gz``, the disagreement per voxel (0 to 1) on the image's
            own grid; implies ``uncertainty``. Use one folder per data set.
        progress: called with the numbers of finished and of all cases, by process 0 for its own share.
        on_prediction: called with the case, the operating point, its label map ``(H, W[, D])`` and the label's affine
            (in mm) after each prediction, but not for cases from ``store``. See
            :func:`~monai_unetpp.pruning.predict_case`.

    Raises:
        TypeError: labels, tolerances or a name of the wrong type.
        ValueError: inconsistent labels or tolerances, or a name that cannot be that of a folder.
    """

    preprocessing: Callable[..., Any]
    inferer: Callable[..., Any]
    postprocessing: Callable[..., Any]
    labels: Mapping[str, int]
    tolerance_mm: Mapping[str, float]
    ignore_label: int | None = None
    levels: Sequence[str] | None = None
    adaptive: Sequence[float] = ()
    extra: Mapping[OperatingPoint, Network] | None = None
    dataset: str = "dataset"
    device: torch.device | str = "cpu"
    spatial_dims: int | None = None
    subjects: Mapping[str, str] | str | PathLike[str] | None = None
    subject_pattern: str | None = None
    configuration: str = ""
    store: str | PathLike[str] | None = None
    exclude_problems: bool = False
    checked: Mapping[str, CheckedCase] | None = None
    uncertainty: bool = False
    uncertainty_dir: str | PathLike[str] | None = None
    progress: Callable[[int, int], None] | None = None
    on_prediction: PredictionHook | None = None

    def __post_init__(self) -> None:
        check_labels(self.labels)
        if self.adaptive and not isinstance(self.inferer, NestedSlidingWindowInferer):
            raise TypeError(
                f"inferer must be a NestedSlidingWindowInferer where adaptive is given, got "
                f"{type(self.inferer).__name__}. Use it, or leave adaptive out."
            )
        check_tolerances(self.tolerance_mm, self.labels)
        if not isinstance(self.dataset, str):
            raise TypeError(f"dataset must be a name, got {self.dataset!r}. Pass a string.")
        if not self.dataset or self.dataset in (".", "..") or "/" in self.dataset or "\\" in self.dataset:
            raise ValueError(f"dataset must be a name that a folder can have, got {self.dataset!r}. Leave out slashes.")

    @property
    def measures_uncertainty(self) -> bool:
        """Whether the disagreement between the levels is measured."""
        return self.uncertainty or self.uncertainty_dir is not None

    @property
    def label_values(self) -> list[int]:
        """Values other than 0 that label files may hold."""
        return [*self.labels.values(), *([] if self.ignore_label is None else [self.ignore_label])]
