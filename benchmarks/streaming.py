"""The memory of a large volume whose label maps are computed row by row: one level, and all levels in one pass."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import torch

from monai_unetpp.devices import resolve_device
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.inferers.windows import WindowGrid
from monai_unetpp.measuring.environment import Environment, describe_environment
from monai_unetpp.measuring.memory import PeakMemory, measure_in_new_processes
from monai_unetpp.networks import NestedUNet
from monai_unetpp.openvino_loading import has_openvino, openvino_core
from monai_unetpp.reporting.markdown import format_table

QUICK: dict[str, Any] = {"volume_shape": (64, 64, 72), "features": (4, 8, 8), "window_shapes": ((32, 32, 32),)}
"""Arguments for a run that only shows that it works."""


@dataclasses.dataclass(frozen=True)
class StreamedVolume:
    """The cost of a volume.

    Attributes:
        levels: whose label maps were computed.
        window_shape: voxels of a window.
        windows: how many cover the volume.
        estimated_bytes: by ``NestedSlidingWindowInferer.estimate_memory``: the volume and all buffers, without the
            network.
        peak_bytes: measured growth of the process, or of the memory of a GPU, by the volume, the buffers, the runs of
            the network, and what the runtime keeps of it; the libraries and PyTorch's weights were there before.
        seconds: for the volume.
        runtime: that was used.
        precision: that was used.
    """

    levels: tuple[str, ...]
    window_shape: tuple[int, ...]
    windows: int
    estimated_bytes: int
    peak_bytes: int
    seconds: float
    runtime: str
    precision: str


@dataclasses.dataclass(frozen=True)
class StreamingBenchmark:
    """One level beside all levels, in windows of several sizes."""

    features: tuple[int, ...]
    volume_shape: tuple[int, ...]
    classes: int
    volumes: tuple[StreamedVolume, ...]
    environment: Environment


def measure_streaming(
    volume_shape: Sequence[int] = (512, 512, 600),
    window_shapes: Sequence[Sequence[int]] = ((96, 96, 96), (48, 48, 96)),
    features: Sequence[int] = (16, 32, 64, 128, 256),
    classes: int = 3,
    overlap: float = 0.25,
    device: str = "cpu",
) -> StreamingBenchmark:
    """Measure one volume at the deepest level, then at all levels in one pass, each in a process of its own.

    The volume, by default a CT of the trunk, is random, and so are the weights; memory does not depend on either.

    Raises:
        RuntimeError: a process failed, for example because memory ran out.
    """
    levels = NestedUNet(3, 1, classes, features=features).levels
    jobs = {
        f"streaming {', '.join(chosen)} in windows of {_shape_text(shape)}": (
            *(chosen, tuple(volume_shape), tuple(shape), tuple(features), classes, overlap, device),
        )
        for shape in window_shapes
        for chosen in (levels[-1:], levels)
    }
    volumes = tuple(measure_in_new_processes(_stream, jobs, remedy="close other programs").values())
    return StreamingBenchmark(
        features=tuple(features),
        volume_shape=tuple(volume_shape),
        classes=classes,
        volumes=volumes,
        environment=describe_environment(resolve_device(device), volumes[0].precision, volumes[0].runtime),
    )


def format_streaming_benchmark(result: StreamingBenchmark) -> str:
    """The results as a table in Markdown."""
    rows = [
        [
            f"{_shape_text(each.window_shape)} ({each.windows:,})",
            ", ".join(each.levels),
            f"{each.estimated_bytes / 1e6:,.0f}",
            f"{each.peak_bytes / 1e6:,.0f}",
            f"{each.seconds:.0f}",
            f"{each.seconds / result.volumes[0].seconds:.2f}",
        ]
        for each in result.volumes
    ]
    header = ["windows", "levels", "estimated MB, without the network", "measured MB", "seconds", "times the first row"]
    return (
        f"A volume of {_shape_text(result.volume_shape)}, {result.classes} classes, features "
        f"{', '.join(map(str, result.features))}; {result.environment.runtime} {result.environment.precision}\n"
        f"{result.environment.line()}\n\n"
        f"{format_table(header, rows)}\n"
    )


def _shape_text(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _stream(
    levels: tuple[str, ...],
    volume_shape: tuple[int, ...],
    window_shape: tuple[int, ...],
    features: tuple[int, ...],
    classes: int,
    overlap: float,
    device: str,
) -> StreamedVolume:
    torch.manual_seed(0)
    resolved = resolve_device(device)
    network = NestedUNet(3, 1, classes, features=features).eval().to(resolved)
    inferer = NestedSlidingWindowInferer(window_shape, overlap=overlap, output="labels", levels=levels)
    _load_libraries(resolved)
    # before the first window, after which the runtime keeps memory for the network
    peak = PeakMemory(resolved)
    with torch.no_grad():
        inferer(torch.randn(1, 1, *window_shape, device=resolved), network)  # converts what all volumes need
        peak.restart()
        volume = torch.randn(1, 1, *volume_shape, device=resolved)
        start = time.perf_counter()
        inferer(volume, network)
        seconds = time.perf_counter() - start
    runtime, precision = inferer.ran or ("torch", "fp32")
    batch_size = 1 if runtime == "openvino" else None
    estimate = inferer.estimate_memory(tuple(volume.shape), classes, sw_batch_size=batch_size, network=network)
    windows = len(WindowGrid.over(volume_shape, window_shape, overlap).positions)
    costs = estimate.total_bytes, peak.bytes(), seconds
    return StreamedVolume(levels, window_shape, windows, *costs, runtime, precision)


def _load_libraries(device: torch.device) -> None:
    """Load what any network needs, so that its memory does not count for this one."""
    if device.type == "cpu" and has_openvino():
        openvino_core().get_property("CPU", "FULL_DEVICE_NAME")
    ones = torch.ones(1, 1, 3, 3, 3, device=device)
    torch.nn.functional.conv3d(ones, ones)
