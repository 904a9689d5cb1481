"""Scoring a trained network of a study on the validation cases, at all levels that the table needs, in one pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import AsDiscreted, Compose, Invertd
from torch import nn

from monai_unetpp.inferers import PrecisionInferer
from monai_unetpp.metrics import FOREGROUND
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning import evaluate_levels
from monai_unetpp.study.cases import StudyCases, make_preprocessing
from monai_unetpp.study.runs import MEAN_OF_HEADS
from monai_unetpp.study.settings import StudySettings

__all__ = ["METRICS", "CaseMetrics", "MeanOfHeads", "score_network"]

METRICS = ("iou", "dice")
"""What is compared."""

CaseMetrics = dict[str, dict[str, dict[str, float | None]]]
"""Metrics by case, then label, then name; None where neither the case nor its segmentation has the label."""

_TOLERANCE_MM = 1.0  # of the surface Dice, which the scorer asks for and the study leaves out


class MeanOfHeads(nn.Module):
    """A nested U-Net with one more level: the mean of the class probabilities of all heads (the paper's accurate mode).

    Args:
        network: with deep supervision.

    Attributes:
        levels: those of the network, and :data:`~monai_unetpp.study.runs.MEAN_OF_HEADS`.
    """

    def __init__(self, network: NestedUNet) -> None:
        super().__init__()
        self.network = network
        self.spatial_dims = network.spatial_dims
        self.in_channels = network.in_channels
        self.levels = (*network.levels, MEAN_OF_HEADS)

    def forward_levels(self, x: torch.Tensor, levels: Sequence[str]) -> dict[str, torch.Tensor]:
        """Logits ``(B, C, H, W[, D])`` of each level of the network; of the mean, probabilities."""
        if MEAN_OF_HEADS not in levels:
            return self.network.forward_levels(x, levels)
        outputs = self.network.forward_levels(x)
        heads = torch.stack([logits.float().softmax(dim=1) for logits in outputs.values()])
        outputs[MEAN_OF_HEADS] = heads.mean(dim=0)
        return {level: outputs[level] for level in levels}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The mean ``(B, C, H, W[, D])`` alone."""
        return self.forward_levels(x, [MEAN_OF_HEADS])[MEAN_OF_HEADS]


def score_network(
    network: NestedUNet,
    levels: Sequence[str],
    cases: StudyCases,
    settings: StudySettings,
    *,
    device: torch.device,
    store: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, CaseMetrics]:
    """IoU and Dice of every foreground class, case by case, on the grids of the labels' own files.

    Args:
        network: with the weights to score.
        levels: of the network, or :data:`~monai_unetpp.study.runs.MEAN_OF_HEADS`.
        cases: whose validation list is scored.
        settings: windows have the shape of the training patches.
        device: where to compute.
        store: folder for finished cases, which is removed at the end.
        on_progress: called with the number of finished cases and of all.

    Returns:
        The metrics by level. What is missed or invented scores 0, see :data:`monai_unetpp.metrics.RULES`.

    Raises:
        ValueError: cases that cannot be read or scored.
    """
    preprocessing = make_preprocessing(cases, settings, ["image"])
    windows = SlidingWindowInferer(
        roi_size=settings.patch_size, sw_batch_size=4, overlap=settings.overlap, mode="gaussian"
    )
    steps: list[Callable[..., Any]] = [AsDiscreted("pred", argmax=True)]
    if cases.spatial_dims == 3 or settings.spacing_mm is not None:
        steps.append(Invertd("pred", transform=preprocessing, orig_keys="image", nearest_interp=True))
    steps += cases.map_values("pred", back=True)
    scores = evaluate_levels(
        MeanOfHeads(network),
        cases.validation,
        preprocessing=preprocessing,
        inferer=PrecisionInferer(windows, settings.precision),
        postprocessing=Compose(steps),
        labels=cases.labels,
        tolerance_mm=dict.fromkeys(cases.labels, _TOLERANCE_MM),
        ignore_label=cases.ignore_label,
        levels=levels,
        device=device,
        configuration=json.dumps({**settings.as_dict(), "cases": cases.as_dict()}),
        store=store,
        progress=on_progress,
    )
    found: dict[str, CaseMetrics] = {level: {} for level in levels}
    for row in scores.rows:
        # the pooled foreground would count large structures twice
        if row.label != FOREGROUND or row.label in cases.labels:
            metrics: dict[str, float | None] = {name: getattr(row.score, name) for name in METRICS}
            found[row.point].setdefault(row.case, {})[row.label] = metrics
    shutil.rmtree(store, ignore_errors=True)
    return found
