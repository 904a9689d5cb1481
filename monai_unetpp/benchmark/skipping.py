"""What leaving out constant windows saves, on a brain whose background is empty."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from typing import Any

import torch

from monai_unetpp.devices import resolve_device, synchronize
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.inferers.window_batches import WindowBatches
from monai_unetpp.inferers.windows import WindowGrid
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning.cost import describe_environment
from monai_unetpp.pruning.results import Environment, Quartiles
from monai_unetpp.template import load_template

__all__ = ["SkippingBenchmark", "WindowSaving", "format_skipping_benchmark", "measure_skipping"]

logger = logging.getLogger(__name__)

_CLASSES = 4
_BATCH = 4


@dataclasses.dataclass(frozen=True)
class WindowSaving:
    """What one window size saves.

    Attributes:
        window_size: voxels of a window along every axis.
        windows: how many cover the volume.
        computed: for how many of them the network runs where constant ones are left out.
        all_s: seconds for the volume with all windows.
        skipping_s: seconds without the constant ones.
        time_ratio: the second as a share of the first, within each round.
        same_labels: share of voxels with the same label.
    """

    window_size: int
    windows: int
    computed: int
    all_s: Quartiles
    skipping_s: Quartiles
    time_ratio: Quartiles
    same_labels: float


@dataclasses.dataclass(frozen=True)
class SkippingBenchmark:
    """The effect of ``skip_constant`` for several window sizes.

    Attributes:
        features: channels per resolution.
        volume_shape: voxels of the volume.
        background: share of its voxels that hold 0.
        overlap: of the windows.
        savings: per window size.
        environment: device, versions, threads and date.
    """

    features: tuple[int, ...]
    volume_shape: tuple[int, ...]
    background: float
    overlap: float
    savings: tuple[WindowSaving, ...]
    environment: Environment


def measure_skipping(
    features: Sequence[int] = (16, 32, 64, 128, 256),
    window_sizes: Sequence[int] = (96, 64, 32),
    overlap: float = 0.25,
    repeats: int = 3,
    device: str = "cpu",
    volume: torch.Tensor | None = None,
) -> SkippingBenchmark:
    """Compare sliding windows with and without ``skip_constant`` over a volume with an empty background.

    Both segment the same volume at the deepest level, with random weights, in turns, so that a noisy machine hits both
    alike; the runtime and precision are those of ``"auto"``.

    Args:
        features: channels of each resolution.
        window_sizes: edges of the cubic windows to try, in voxels.
        overlap: of the windows.
        repeats: measured rounds for each size, at least 2.
        device: ``"cpu"`` or a CUDA device.
        volume: ``(H, W, D)``; by default the skull-stripped MNI ICBM152 T1 template at 1 mm, in the box in which
            nilearn carries it.

    Returns:
        Frozen results; ``dataclasses.asdict`` makes them ready for JSON.

    Raises:
        ValueError: an argument with a value that cannot work.
        ImportError: nilearn, which carries the template, is missing.
    """
    if repeats < 2:
        raise ValueError(f"repeats must be 2 or more, got {repeats}. Quartiles need repeats.")
    if not window_sizes or min(window_sizes) < 1:
        raise ValueError(f"window_sizes must be one or more positive sizes, got {tuple(window_sizes)}.")
    resolved = resolve_device(device)
    if volume is None:
        volume = torch.from_numpy(load_template()[0].get_fdata(dtype="float32"))
    if volume.ndim != 3:
        raise ValueError(f"volume must have 3 axes, got shape {tuple(volume.shape)}.")
    inputs = volume[None, None].to(resolved, torch.float32)
    torch.manual_seed(0)
    network = NestedUNet(3, 1, _CLASSES, features=features).eval().to(resolved)
    measured = [_measure(inputs, network, size, overlap, repeats) for size in window_sizes]
    runtime, precision = measured[0][1]
    return SkippingBenchmark(
        features=tuple(features),
        volume_shape=tuple(volume.shape),
        background=(volume == 0).float().mean().item(),
        overlap=overlap,
        savings=tuple(saving for saving, _ in measured),
        environment=describe_environment(resolved, precision, runtime),
    )


def format_skipping_benchmark(result: SkippingBenchmark) -> str:
    """The results as a table in Markdown."""
    environment = result.environment
    lines = [
        f"A volume of {' x '.join(map(str, result.volume_shape))}, {result.background:.0%} of it background, overlap "
        f"{result.overlap:g}, features {', '.join(map(str, result.features))}, {environment.runtime} "
        f"{environment.precision}",
        f"{environment.device}, {environment.threads} thread(s), torch {environment.versions['torch']}, MONAI "
        f"{environment.versions['monai']}, {environment.date}",
        "",
        "| window | windows | constant ones left out | seconds, all (quartiles) | seconds, left out (quartiles) "
        "| share of time (quartiles, per round) | same labels |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for saving in result.savings:
        lines.append(
            f"| {saving.window_size} | {saving.windows} | {saving.windows - saving.computed} "
            f"| {_seconds(saving.all_s)} | {_seconds(saving.skipping_s)} "
            f"| {saving.time_ratio.median:.2f} ({saving.time_ratio.lower:.2f}-{saving.time_ratio.upper:.2f}) "
            f"| {100 * saving.same_labels:.2f} % |"
        )
    return "\n".join(lines) + "\n"


def _measure(
    inputs: torch.Tensor, network: NestedUNet, size: int, overlap: float, repeats: int
) -> tuple[WindowSaving, tuple[str, str]]:
    """What one size of windows saves, and the runtime and precision that were taken."""
    inferers = {
        skip: NestedSlidingWindowInferer(
            size, sw_batch_size=_BATCH, overlap=overlap, output="labels", skip_constant=skip
        )
        for skip in (False, True)
    }
    seconds: dict[bool, list[float]] = {skip: [] for skip in inferers}
    labels: dict[bool, Any] = {}
    order = list(inferers)
    # the round before the measured ones converts or compiles the network
    for number in range(1 + repeats):
        order.reverse()
        for skip in order:
            synchronize(inputs.device)
            start = time.perf_counter()
            labels[skip] = inferers[skip](inputs, network)
            synchronize(inputs.device)
            if number:
                seconds[skip].append(time.perf_counter() - start)
        logger.info("Windows of %s: round %d of %d.", size, number, repeats)
    grid = WindowGrid.over(inputs.shape[2:], size, overlap)
    batches = WindowBatches(inputs, grid, _BATCH, inputs.device, skip_constant=True)
    saving = WindowSaving(
        window_size=size,
        windows=len(grid.positions),
        computed=sum(batch.windows.shape[0] for batch in batches),
        all_s=Quartiles.of(seconds[False]),
        skipping_s=Quartiles.of(seconds[True]),
        time_ratio=Quartiles.of([a / b for a, b in zip(seconds[True], seconds[False], strict=True)]),
        same_labels=(labels[True] == labels[False]).float().mean().item(),
    )
    ran = inferers[True].ran
    if ran is None:
        raise RuntimeError("the inferer must name its runtime after a run, got None.")
    return saving, ran


def _seconds(value: Quartiles) -> str:
    return f"{value.median:.3g} ({value.lower:.3g}-{value.upper:.3g})"
