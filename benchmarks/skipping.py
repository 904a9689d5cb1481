"""What leaving out constant windows saves, on a brain whose background is empty."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import torch

from monai_unetpp.devices import resolve_device
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.inferers.window_batches import WindowBatches
from monai_unetpp.inferers.windows import WindowGrid
from monai_unetpp.measuring.environment import Environment, describe_environment
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.rounds import time_rounds
from monai_unetpp.networks import NestedUNet
from monai_unetpp.reporting.markdown import format_table
from monai_unetpp.reporting.numbers import percent
from monai_unetpp.template import load_template

QUICK: dict[str, Any] = {"features": (4, 8, 8, 8, 8), "window_sizes": (64,), "repeats": 2}
"""Arguments for a run that only shows that it works."""

_CLASSES = 4
_BATCH = 4


@dataclasses.dataclass(frozen=True)
class WindowSaving:
    """What one size of windows saves.

    Of ``windows`` that cover the volume, the network runs for ``computed`` where constant ones are left out;
    ``time_ratio`` is that time as a share of the time with all windows, within each round.
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
    """The effect of ``skip_constant`` for several sizes of windows.

    ``background`` is the share of the volume's voxels that hold 0.
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

    Both segment the same volume ``(H, W, D)`` at the deepest level, with random weights, in turns, so that a noisy
    machine hits both alike; the runtime and precision are those of ``"auto"``. By default it is the skull-stripped MNI
    ICBM152 T1 template at 1 mm, in the box in which nilearn carries it.

    Raises:
        ImportError: nilearn is missing.
    """
    resolved = resolve_device(device)
    if volume is None:
        volume = torch.from_numpy(load_template()[0].get_fdata(dtype="float32"))
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
    columns = ["window", "windows", "constant ones left out", "seconds, all (quartiles)"]
    columns += ["seconds, left out (quartiles)", "share of time (quartiles, per round)", "same labels"]
    rows = [
        [
            str(saving.window_size),
            str(saving.windows),
            str(saving.windows - saving.computed),
            saving.all_s.text(".3g"),
            saving.skipping_s.text(".3g"),
            saving.time_ratio.text(".2f"),
            f"{100 * saving.same_labels:.2f} %",
        ]
        for saving in result.savings
    ]
    return (
        f"A volume of {' x '.join(map(str, result.volume_shape))}, {percent(result.background)} of it background, "
        f"overlap {result.overlap:g}, features {', '.join(map(str, result.features))}, {environment.runtime} "
        f"{environment.precision}\n{environment.line()}\n\n{format_table(columns, rows, [True] * 7)}\n"
    )


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
    labels: dict[bool, Any] = {}

    def segment(skip: bool) -> None:
        labels[skip] = inferers[skip](inputs, network)

    tasks = {skip: functools.partial(segment, skip) for skip in inferers}
    # the round before the measured ones converts or compiles the network
    seconds = time_rounds(tasks, repeats=repeats, warm_up=1, device=inputs.device, name=f"Windows of {size}")
    grid = WindowGrid.over(inputs.shape[2:], size, overlap)
    batches = WindowBatches(inputs, grid, _BATCH, inputs.device, skip_constant=True)
    saving = WindowSaving(
        window_size=size,
        windows=len(grid.positions),
        computed=sum(batch.windows.shape[0] for batch in iter(batches.next_batch, None)),
        all_s=Quartiles.of(seconds[False]),
        skipping_s=Quartiles.of(seconds[True]),
        time_ratio=Quartiles.of_ratios(seconds[True], seconds[False]),
        same_labels=(labels[True] == labels[False]).float().mean().item(),
    )
    ran = inferers[True].ran
    if ran is None:
        raise RuntimeError("the inferer must name its runtime after a run, got None.")
    return saving, ran
