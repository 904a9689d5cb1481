"""Benchmark of segmenting whole volumes at each level, runtime and precision, compared with MONAI."""

from __future__ import annotations

import dataclasses
from os import PathLike
from typing import Any

__all__ = ["run_benchmark"]


def run_benchmark(
    device: str | None = None, *, plot: str | PathLike[str] | None = None, **options: Any
) -> tuple[str, dict[str, Any]]:
    """Run the benchmark on this machine, see :func:`~monai_unetpp.benchmark.speed.measure_inference`.

    Args:
        device: such as ``"cpu"``; by default a GPU if there is one.
        plot: a PNG file for a plot of the speed-ups.
        **options: further arguments of ``measure_inference``.

    Returns:
        Text in Markdown, and the same figures ready for JSON; with ``"plot_error"`` if the plot could not be written.

    Raises:
        ValueError: no such device, or an invalid option.
        OSError: the folder of the plot cannot be written to.
        ImportError: matplotlib, for a plot, is not installed.
        RuntimeError: MONAI's route, the reference, failed.
    """
    # torch is only imported when something is measured
    from monai_unetpp.benchmark.speed import measure_inference
    from monai_unetpp.benchmark.speed_plot import check_plot_path, save_speed_plot
    from monai_unetpp.benchmark.speed_tables import format_inference_benchmark
    from monai_unetpp.devices import resolve_device

    if plot is not None:
        # fail before minutes of measuring
        check_plot_path(plot)
    result = measure_inference(device=resolve_device(device), **options)
    figures = dataclasses.asdict(result)
    if plot is not None:
        try:
            save_speed_plot(result, plot)
        except OSError as e:
            # what was measured must not be lost
            figures["plot_error"] = str(e)
    return format_inference_benchmark(result), figures
