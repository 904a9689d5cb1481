"""What scoring all levels from one pass costs, beside scoring the deepest level alone."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import time
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
from monai_unetpp.devices import synchronize
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning.cost import describe_environment
from monai_unetpp.pruning.results import Environment, Quartiles
from monai_unetpp.pruning.score import evaluate_levels

__all__ = ["TARGET_RATIO", "PassTime", "ScoringBenchmark", "format_scoring_benchmark", "measure_scoring"]

logger = logging.getLogger(__name__)

TARGET_RATIO = 1.15
"""What scoring all levels may cost at most, with the deepest alone as 1."""

_LABELS = {"first": 1, "second": 2}
_TOLERANCE_MM = {"first": 1.0, "second": 1.0}


@dataclasses.dataclass(frozen=True)
class PassTime:
    """How long scoring one volume took.

    Attributes:
        levels: the levels that were scored.
        total_s: seconds for everything, from the files to the scores.
        network_s: seconds of it in the inferer: the network, and stitching its outputs.
        rest_s: the other seconds: checks, reading, inversion to the label's grid, metrics.
    """

    levels: tuple[str, ...]
    total_s: Quartiles
    network_s: Quartiles
    rest_s: Quartiles


@dataclasses.dataclass(frozen=True)
class ScoringBenchmark:
    """The cost of scoring all levels relative to that of the deepest alone, round by round.

    Attributes:
        features: channels per resolution.
        volume_shape: voxels of the volume.
        window_shape: voxels of a window.
        all_levels: time of one pass that scores all levels.
        deepest: time of one that scores the deepest level only.
        ratio: of the total times within each round.
        network_ratio: of the times in the inferer within each round.
        environment: device, versions, threads and date.
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

    Args:
        features: channels of each resolution; one level less than entries.
        volume_shape: voxels of the volume, 16 or more along each axis.
        window_shape: voxels of the sliding windows.
        repeats: measured rounds, at least 2.
        warm_up: rounds before them.
        device: ``"cpu"`` or a CUDA device.

    Returns:
        Frozen results; ``dataclasses.asdict`` makes them ready for JSON.

    Raises:
        ValueError: an argument with a value that cannot work.
    """
    if repeats < 2 or warm_up < 0:
        raise ValueError(
            f"repeats must be 2 or more and warm_up 0 or more, got {repeats} and {warm_up}. Quartiles need repeats."
        )
    for name, shape in (("volume_shape", volume_shape), ("window_shape", window_shape)):
        if len(shape) != 3 or min(shape) < 16:
            raise ValueError(f"{name} must have 3 sizes of 16 or more, got {tuple(shape)}. Give larger ones.")
    torch.manual_seed(0)
    network = _FollowsImage(NestedUNet(3, 1, 1 + len(_LABELS), features=features))
    inferer = _TimedInferer(SlidingWindowInferer(roi_size=list(window_shape), sw_batch_size=1, overlap=0.25))
    levels = {"all": network.levels, "deepest": network.levels[-1:]}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in levels}
    with tempfile.TemporaryDirectory() as folder:
        score = _scoring(network, _write_case(Path(folder), volume_shape), inferer, device)
        order = list(levels)
        for number in range(warm_up + repeats):
            # whoever comes first in a round pays for what the other left in the caches
            order.reverse()
            for name in order:
                inferer.seconds, start = 0.0, time.perf_counter()
                score(levels[name])
                if number >= warm_up:
                    seconds[name].append((time.perf_counter() - start, inferer.seconds))
            logger.info("Scoring: round %d of %d.", number + 1, warm_up + repeats)
    rounds = list(zip(seconds["all"], seconds["deepest"], strict=True))
    return ScoringBenchmark(
        features=tuple(features),
        volume_shape=tuple(volume_shape),
        window_shape=tuple(window_shape),
        all_levels=_pass_time(levels["all"], seconds["all"]),
        deepest=_pass_time(levels["deepest"], seconds["deepest"]),
        ratio=Quartiles.of([every[0] / deepest[0] for every, deepest in rounds]),
        network_ratio=Quartiles.of([every[1] / deepest[1] for every, deepest in rounds]),
        environment=describe_environment(device, "fp32", "torch"),
    )


def format_scoring_benchmark(result: ScoringBenchmark) -> str:
    """The results in Markdown: a table, and whether the ratio is within :data:`TARGET_RATIO`."""
    volume, window = (" x ".join(map(str, shape)) for shape in (result.volume_shape, result.window_shape))
    environment, ratio, network = result.environment, result.ratio, result.network_ratio
    lines = [
        f"Scoring a volume of {volume} in windows of {window}, features {', '.join(map(str, result.features))}, "
        f"{environment.precision}",
        f"{environment.device}, {environment.threads} thread(s), torch {environment.versions['torch']}, MONAI "
        f"{environment.versions['monai']}, {environment.date}",
        "",
        "| levels | total (quartiles) | network | the rest |",
        "|---|---:|---:|---:|",
    ]
    for each in (result.all_levels, result.deepest):
        total = each.total_s
        lines.append(
            f"| {', '.join(each.levels)} | {total.median:.3f} s ({total.lower:.3f}-{total.upper:.3f}) "
            f"| {each.network_s.median:.3f} s | {each.rest_s.median:.3f} s |"
        )
    verdict = "within" if ratio.median <= TARGET_RATIO else "above"
    lines += [
        "",
        f"All levels cost {ratio.median:.3f} times the deepest alone (quartiles {ratio.lower:.3f}-{ratio.upper:.3f}, "
        f"{ratio.count} rounds): {verdict} {TARGET_RATIO}. In the network alone: {network.median:.3f} "
        f"({network.lower:.3f}-{network.upper:.3f}).",
    ]
    return "\n".join(lines) + "\n"


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
    """Adds up the time that another inferer takes."""

    def __init__(self, inferer: Inferer) -> None:
        super().__init__()
        self.inferer = inferer
        self.seconds = 0.0

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        synchronize(inputs.device)
        start = time.perf_counter()
        outputs = self.inferer(inputs, network, *args, **kwargs)
        synchronize(inputs.device)
        self.seconds += time.perf_counter() - start
        return outputs


def _scoring(
    network: nn.Module, case: Mapping[str, str], inferer: Inferer, device: str
) -> Callable[[Sequence[str]], object]:
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

    def score(levels: Sequence[str]) -> object:
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


def _pass_time(levels: Sequence[str], seconds: Sequence[tuple[float, float]]) -> PassTime:
    return PassTime(
        levels=tuple(levels),
        total_s=Quartiles.of([total for total, _ in seconds]),
        network_s=Quartiles.of([network for _, network in seconds]),
        rest_s=Quartiles.of([total - network for total, network in seconds]),
    )
