"""How cases are scored: the arguments of :func:`monai_unetpp.pruning.evaluate_levels` as one checked object."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy.typing as npt
import torch

from monai_unetpp.data.case_check import CheckedCase
from monai_unetpp.data.labelled import LabelledCase
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.metrics.scores import check_labels, check_tolerances
from monai_unetpp.pruning.predict import Network
from monai_unetpp.pruning.results import OperatingPoint

__all__ = ["PredictionHook", "Scoring"]

PredictionHook = Callable[[LabelledCase, OperatingPoint, npt.NDArray[Any], npt.NDArray[Any]], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
    """How the levels of a network are scored.

    Attributes:
        preprocessing: MONAI ``Compose`` that loads and prepares key ``"image"`` to ``(C, H, W[, D])``. Transforms of
            other keys, such as the label's, are left out.
        inferer: MONAI inferer; called as ``inferer(batch, network)`` it must hand the dict of levels through, as
            ``SimpleInferer`` and ``SlidingWindowInferer`` (without ``buffer_steps``) do. A
            ``NestedSlidingWindowInferer`` is asked for the levels itself, so that it can compile or convert the
            network; leave its ``levels`` and ``output`` at their defaults.
        postprocessing: MONAI ``Compose`` that turns ``{"pred": logits, "image": image}`` of one level, without the
            batch axis, into integer labels ``"pred"`` on the image's original grid: such as ``AsDiscreted(argmax)``
            and ``Invertd``.
        labels: value of each label by name, without the background. Values above 0 that are not named are a problem
            in a label file, and background in a prediction.
        tolerance_mm: tolerance of the normalised surface Dice by label in mm; ``"foreground"`` is optional.
        ignore_label: value of voxels in label files that take no part in any score, whatever is predicted there.
        levels: names of the levels to score, shallowest first; by default ``network.levels``.
        adaptive: tolerances at which a depth is chosen for each window, see
            :class:`~monai_unetpp.inferers.NestedSlidingWindowInferer`, which the inferer must then be; from the same
            pass as the levels.
        extra: further networks, each an operating point of its own, scored on the same cases with the same
            transforms; a network returns logits, a dict of levels with the point's own, or has ``forward_levels``.
        dataset: name of the data set in all results.
        device: where the networks run.
        spatial_dims: 2 or 3; by default ``network.spatial_dims``, else what each label has.
        subjects: subject by name of the case (image file name without suffix), or a CSV file with the columns
            ``case`` and ``subject``.
        subject_pattern: regular expression with one group that finds the subject in the case's name. A case's own
            ``subject`` takes precedence, then ``subjects``, then the pattern; without any, what a case's name tells
            (``sub-01_...``), else each case is a subject.
        configuration: text of all settings of transforms and inferer, so that a finished case is scored again when
            they change. Required with ``store``.
        store: folder to keep finished cases in. A rerun scores only cases that are new or whose weights,
            configuration or data changed; an interrupted run loses no more than the case it was at.
        exclude_problems: leave out cases with problems in their data and go on, instead of stopping before any
            network work.
        checked: what an earlier check of the cases found, by name; by default they are checked.
        uncertainty: measure how well disagreement between the levels finds errors of the deepest one.
        uncertainty_dir: folder for ``<case>_uncertainty.nii.gz``, the disagreement per voxel (0 to 1) on the image's
            own grid; implies ``uncertainty``. Use one folder per data set.
        progress: called with the number of finished cases and of all, by process 0 for its own share.
        on_prediction: called with the case, the operating point, its label map ``(H, W[, D])`` and the label's affine
            (in mm) after each prediction; not for cases taken from ``store``. See
            :func:`~monai_unetpp.pruning.predict_case`.

    Raises:
        TypeError: labels, tolerances or a name of another kind.
        ValueError: labels or tolerances that do not go together, or a name that no folder can have.
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
                f"{type(self.inferer).__name__}. Leave adaptive out, or take this one."
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
