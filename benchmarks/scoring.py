"""What scoring all levels from one pass costs, beside scoring the deepest level alone."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.inferers import Inferer, SlidingWindowInferer
from monai.transforms import AsDiscreted, Compose, Invertd, LoadImaged, Orientationd, Spacingd
from scipy import ndimage
from torch import nn

from monai_unetpp.data import VolumeReader
from monai_unetpp.measuring.environment import Environment, describe_environment
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.rounds import time_rounds, time_task
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning.scoring.levels import evaluate_levels
from monai_unetpp.reporting.markdown import format_table

QUICK: dict[str, Any] = {
    "features": (4, 8, 8, 8, 8),
    "volume_shape": (24,) * 3,
    "window_shape": (24,) * 3,
    "repeats": 2,
}
"""Arguments for a run that only shows that it works."""

TARGET_RATIO = 1.15
"""What scoring all levels may cost at most, with the deepest alone as 1."""

_LABELS = {"first": 1, "second": 2}
_TOLERANCE_MM = {"first": 1.0, "second": 1.0}


@dataclasses.dataclass(frozen=True)
class PassTime:
    """How long scoring one volume took, from the files to the scores.

    ``network_s`` is in the inferer: the network, and stitching its outputs; the rest is checks, reading, inversion to
    the label's grid, and metrics.
    """

    levels: tuple[str, ...]
    total_s: Quartiles
    network_s: Quartiles
    rest_s: Quartiles


@dataclasses.dataclass(frozen=True)
class ScoringBenchmark:
    """The cost of scoring all levels relative to that of the deepest alone, within each round.

    ``ratio`` is of the total times, ``network_ratio`` of those in the inferer.
    """

    features: tuple[int, ...]
    volume_shape: tuple[int, ...]
    window_shape: tuple[int, ...]
    all_levels: PassTime
    deepest: PassTime
    ratio: Quartiles
    network_ratio: Quartiles
    environment: Environment


def measure_scoring(
    features: Sequence[int] = (16, 32, 64, 128, 256),
    volume_shape: Sequence[int] = (96, 96, 96),
    window_shape: Sequence[int] = (96, 96, 96),
    repeats: int = 7,
    warm_up: int = 1,
    device: str = "cpu",
) -> ScoringBenchmark:
    """Compare scoring all levels of a 3D ``NestedUNet`` from one pass with scoring the deepest level alone.

    Both are the whole way of :func:`monai_unetpp.pruning.evaluate_levels` over one volume with two labels, from the
    files to the scores, in rounds, so that a noisy machine hits both alike. The weights are random; so that metrics
    have surfaces as smooth as those of a trained network, logits that follow the image's grey values are added to
    every level's own.
    """
    torch.manual_seed(0)
    network = _FollowsImage(NestedUNet(3, 1, 1 + len(_LABELS), features=features))
    windows = SlidingWindowInferer(roi_size=list(window_shape), sw_batch_size=1, overlap=0.25)
    levels = {"all": network.levels, "deepest": network.levels[-1:]}
    inferers = {name: _TimedInferer(windows, torch.device(device)) for name in levels}
    with tempfile.TemporaryDirectory() as folder:
        score = _scoring(network, _write_case(Path(folder), volume_shape), device)
        tasks = {name: functools.partial(score, levels[name], inferers[name]) for name in levels}
        total = time_rounds(tasks, repeats=repeats, warm_up=warm_up, device=device, name="Scoring")
    inside = {name: inferer.seconds[warm_up:] for name, inferer in inferers.items()}
    return ScoringBenchmark(
        features=tuple(features),
        volume_shape=tuple(volume_shape),
        window_shape=tuple(window_shape),
        all_levels=_pass_time(levels["all"], total["all"], inside["all"]),
        deepest=_pass_time(levels["deepest"], total["deepest"], inside["deepest"]),
        ratio=Quartiles.of_ratios(total["all"], total["deepest"]),
        network_ratio=Quartiles.of_ratios(inside["all"], inside["deepest"]),
        environment=describe_environment(device, "fp32"),
    )


def format_scoring_benchmark(result: ScoringBenchmark) -> str:
    """The results in Markdown: a table, and whether the ratio is within :data:`TARGET_RATIO`."""
    volume, window = (" x ".join(map(str, shape)) for shape in (result.volume_shape, result.window_shape))
    ratio, network = result.ratio, result.network_ratio
    rows = [
        [
            ", ".join(each.levels),
            each.total_s.text(".3f", " s"),
            f"{each.network_s.median:.3f} s",
            f"{each.rest_s.median:.3f} s",
        ]
        for each in (result.all_levels, result.deepest)
    ]
    table = format_table(["levels", "total (quartiles)", "network", "the rest"], rows)
    verdict = "within" if ratio.median <= TARGET_RATIO else "above"
    return (
        f"Scoring a volume of {volume} in windows of {window}, features {', '.join(map(str, result.features))}, "
        f"{result.environment.precision}\n{result.environment.line()}\n\n{table}\n\n"
        f"All levels cost {ratio.median:.3f} times the deepest alone (quartiles {ratio.lower:.3f}-{ratio.upper:.3f}, "
        f"{ratio.count} rounds): {verdict} {TARGET_RATIO}. In the network alone: {network.text('.3f')}.\n"
    )


class _FollowsImage(nn.Module):
    """A network whose label maps are what the image shows, a little different at each level."""

    spatial_dims = 3
    in_channels = 1

    def __init__(self, network: NestedUNet) -> None:
        super().__init__()
        self.network = network
        self.levels = tuple(network.levels)

    def forward_levels(self, x: torch.Tensor, levels: Sequence[str]) -> dict[str, torch.Tensor]:
        # grey values are 1 in the first structure, -1 in the second and 0 elsewhere
        shown = torch.cat([torch.full_like(x, 0.5), x, -x], dim=1).mul_(10)
        outputs: Mapping[str, torch.Tensor] = self.network.forward_levels(x, list(levels))
        return {level: logits.mul_(0.2).add_(shown) for level, logits in outputs.items()}


class _TimedInferer(Inferer):
    """Notes the seconds that each run of another inferer takes."""

    def __init__(self, inferer: Inferer, device: torch.device) -> None:
        super().__init__()
        self.inferer = inferer
        self.device = device
        self.seconds: list[float] = []

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        found, seconds = time_task(lambda: self.inferer(inputs, network, *args, **kwargs), self.device)
        self.seconds.append(seconds)
        return found


def _scoring(network: nn.Module, case: Mapping[str, str], device: str) -> Callable[[Sequence[str], Inferer], object]:
    preprocessing = Compose(
        [
            LoadImaged("image", reader=VolumeReader, ensure_channel_first=True),
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=(1.0, 1.0, 1.0)),
        ]
    )
    postprocessing = Compose(
        [
            AsDiscreted("pred", argmax=True),
            Invertd("pred", transform=preprocessing, orig_keys="image", nearest_interp=True),
        ]
    )

    def score(levels: Sequence[str], inferer: Inferer) -> object:
        return evaluate_levels(
            network,
            [case],
            preprocessing=preprocessing,
            inferer=inferer,
            postprocessing=postprocessing,
            labels=_LABELS,
            tolerance_mm=_TOLERANCE_MM,
            levels=levels,
            device=device,
        )

    return score


def _write_case(folder: Path, shape: Sequence[int]) -> dict[str, str]:
    """A volume with two neighbouring balls, and its label map; both in LPS, so that predictions must be turned."""
    size = np.asarray(shape)
    grid = np.moveaxis(np.indices(shape), 0, -1)
    label = np.zeros(shape, dtype=np.uint8)
    for value, centre in ((1, 0.32), (2, 0.68)):
        label[np.linalg.norm(grid - size * (centre, 0.5, 0.5), axis=-1) < 0.2 * size.min()] = value
    noise = np.random.default_rng(0).normal(0.0, 0.5, shape)
    shown = (label == 1).astype(float) - (label == 2)
    image = ndimage.gaussian_filter(shown + noise, 1.0).astype(np.float32)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    case = {}
    for key, voxels in (("image", image), ("label", label)):
        path = folder / f"balls_{key}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
        case[key] = str(path)
    return case


def _pass_time(levels: Sequence[str], total: Sequence[float], network: Sequence[float]) -> PassTime:
    return PassTime(
        levels=tuple(levels),
        total_s=Quartiles.of(total),
        network_s=Quartiles.of(network),
        rest_s=Quartiles.of([whole - part for whole, part in zip(total, network, strict=True)]),
    )
