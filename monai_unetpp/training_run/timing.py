"""How long a case takes, measured before the training with an untrained network."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from monai_unetpp.bundles import BundleConfig
from monai_unetpp.data.datasets.case_check import check_case
from monai_unetpp.data.datasets.labelled import LabelledCase, list_cases
from monai_unetpp.data.formats.reader import read_label_map
from monai_unetpp.devices import synchronize
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.inferers.windows import WindowGrid
from monai_unetpp.metrics import CaseScorer, spacing_of_affine
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning import PruningPlan
from monai_unetpp.pruning.preflight import check_plan
from monai_unetpp.pruning.scoring.prediction import Pipeline, list_sources, networks_ready
from monai_unetpp.training_run.judging import pruning_plan
from monai_unetpp.training_run.sharing import CaseTime

_T = TypeVar("_T")

#: What is faster than this is timed twice, as the first time includes one-time initialisation.
_WARM_S = 2.0
#: The largest factor by which other work on the machine is taken to slow this down.
_MOST_SLOWDOWN = 8.0


def time_case(
    bundle: Path, entry: Mapping[str, Any], values: Mapping[str, Any], trained: Mapping[str, Any] | None = None
) -> tuple[CaseTime, int]:
    """The time that a case takes, measured with an untrained network, and the number of levels.

    ``entry`` is scored, and ``trained``, by default the same, prepared for training; ``values`` override those of the
    bundle's configurations. What the verdict would refuse fails here.
    """
    began, worked = time.monotonic(), time.thread_time()
    config = BundleConfig(bundle, "train.json", values=values)
    network: NestedUNet = config.parse("network_def")
    plan = pruning_plan(bundle, **values, network=network)
    check_plan(plan)
    case, device = list_cases([entry])[0], torch.device(plan.pipeline.device)
    found = _time_scoring(plan, case, network, device)
    prepared, preparing = _timed(lambda: config.parse("train#preprocessing")(dict(trained or entry)), device)
    _, checking = _timed(lambda: check_case(case), device)
    # the places of each class are a list of arrays
    kept = [part for value in prepared.values() for part in (value if isinstance(value, list) else [value])]
    held = sum(int(part.nbytes) for part in kept if hasattr(part, "nbytes"))
    slowdown = (time.monotonic() - began) / max(time.thread_time() - worked, 1e-3)
    time_of_case = dataclasses.replace(
        found,
        preparing=preparing,
        checking=checking,
        prepared_bytes=held,
        slowdown=min(max(slowdown, 1.0), _MOST_SLOWDOWN),
    )
    return time_of_case, len(network.levels)


def _time_scoring(plan: PruningPlan, case: LabelledCase, network: NestedUNet, device: torch.device) -> CaseTime:
    """Score a case step by step; instead of a result, the truth is compared with itself, moved by a voxel."""
    pipeline = Pipeline(**plan.pipeline.steps)
    (source,) = list_sources(network, None, {})
    with networks_ready([source], device):
        image, loading = _timed(lambda: pipeline.load(case), device)
        part, times = _part(image, pipeline.inferer)
        # with the passes that the whole image takes
        _, seconds = _timed(lambda: _compute(source.pick(pipeline.infer(part, source, device, image.shape))), device)
        truth, reading = _timed(lambda: read_label_map(case.label, network.spatial_dims), device)
        logits = torch.zeros(1, int(network.config["out_channels"]), *image.shape[1:], device=device)
        _, returning = _timed(lambda: pipeline.label_map(logits, image, truth.data.shape), device)
        spacing = spacing_of_affine(truth.affine, truth.data.ndim)
        scorer = CaseScorer(truth.data, spacing, plan.pipeline.labels, plan.pipeline.tolerance_mm)
        _, comparing = _timed(lambda: scorer.score(np.roll(truth.data, 1, axis=0)), device)
    return CaseTime(seconds * times, loading + reading + len(source.levels) * (returning + comparing))


def _compute(logits: Mapping[Any, torch.Tensor]) -> None:
    """Compute what is computed only on access, without keeping it."""
    for name in logits:
        logits[name]


def _part(image: torch.Tensor, inferer: Callable[..., Any]) -> tuple[torch.Tensor, float]:
    """A part of an image ``(C, H, W[, D])`` of a few windows, and how many times as many the image has."""
    if not isinstance(inferer, NestedSlidingWindowInferer) or isinstance(inferer.roi_size, str):
        return image, 1.0
    whole = WindowGrid.over(image.shape[1:], inferer.roi_size, inferer.overlap)
    lengths = [2 * edge if axis == 0 else edge for axis, edge in enumerate(whole.window_size)]
    cut: Any = (..., *(slice(length) for length in lengths))
    part = image[cut]
    few = WindowGrid.over(part.shape[1:], inferer.roi_size, inferer.overlap)
    return part, len(whole.positions) / len(few.positions)


def _timed(work: Callable[[], _T], device: torch.device) -> tuple[_T, float]:
    """The result of some work, and its seconds until the device has finished it; the faster of two where it is fast."""
    fastest = math.inf
    while True:
        started = time.monotonic()
        result = work()
        synchronize(device)
        seconds = time.monotonic() - started
        if fastest < math.inf or seconds >= _WARM_S:
            return result, min(seconds, fastest)
        fastest = seconds
