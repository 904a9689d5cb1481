"""Measurements that compare: segmenting and training beside MONAI's own route, scoring all levels, skipping windows."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from monai_unetpp.benchmark.inference import InferenceBenchmark, measure_inference
    from monai_unetpp.benchmark.plots import save_speed_plot
    from monai_unetpp.benchmark.scoring import ScoringBenchmark, format_scoring_benchmark, measure_scoring
    from monai_unetpp.benchmark.skipping import SkippingBenchmark, format_skipping_benchmark, measure_skipping
    from monai_unetpp.benchmark.tables import format_inference_benchmark
    from monai_unetpp.benchmark.training import (
        TrainingBenchmark,
        TrainingCost,
        format_training_benchmark,
        measure_training,
    )

__all__ = [
    "KINDS",
    "InferenceBenchmark",
    "ScoringBenchmark",
    "SkippingBenchmark",
    "TrainingBenchmark",
    "TrainingCost",
    "format_inference_benchmark",
    "format_scoring_benchmark",
    "format_skipping_benchmark",
    "format_training_benchmark",
    "measure_inference",
    "measure_scoring",
    "measure_skipping",
    "measure_training",
    "run_benchmark",
    "save_speed_plot",
]

KINDS = ("inference", "training", "scoring", "skipping")
"""What can be measured."""


def run_benchmark(
    kind: str = "inference",
    device: str | None = None,
    quick: bool = False,
    *,
    plot: str | PathLike[str] | None = None,
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> tuple[str, dict[str, Any]]:
    """Measure on this machine.

    See :func:`~monai_unetpp.benchmark.inference.measure_inference`,
    :func:`~monai_unetpp.benchmark.training.measure_training`,
    :func:`~monai_unetpp.benchmark.scoring.measure_scoring` and
    :func:`~monai_unetpp.benchmark.skipping.measure_skipping`.

    Args:
        kind: ``"inference"``, ``"training"``, ``"scoring"`` or ``"skipping"``.
        device: such as ``"cpu"``; by default a GPU if there is one.
        quick: small networks and few repeats, only to see that it works.
        plot: a PNG file for a plot of the speed-ups; only for inference.
        progress: is told in a line what is going on; only for inference.
        **options: further arguments of ``measure_inference``; only for inference.

    Returns:
        Text in Markdown, and the same figures ready for JSON.

    Raises:
        ValueError: no such kind or device, or options that the kind has not.
        ImportError: matplotlib, for a plot, or nilearn, for the head that skipping takes, is not installed.
        RuntimeError: MONAI's route, with which all is compared, failed.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}. Choose one.")
    from monai_unetpp.devices import resolve_device

    resolved = resolve_device(device)
    if kind == "inference":
        return _run_inference(resolved, plot, quick=quick, progress=progress, **options)
    given = next((name for name, value in {"plot": plot, **options}.items() if value is not None), None)
    if given is not None:
        raise ValueError(f"{given} must be left out for kind {kind!r}. Only inference has it.")
    name = str(resolved)
    if kind == "training":
        from monai_unetpp.benchmark.training import format_training_benchmark, measure_training

        small: dict[str, Any] = {"features": (4, 8, 8, 8, 8), "patch_size": (32,) * 3, "batch_size": 1, "repeats": 2}
        training = measure_training(device=name, **(small if quick else {}))
        return format_training_benchmark(training), dataclasses.asdict(training)
    if kind == "skipping":
        from monai_unetpp.benchmark.skipping import format_skipping_benchmark, measure_skipping

        small = {"features": (4, 8, 8, 8, 8), "window_sizes": (64,), "repeats": 2}
        skipping = measure_skipping(device=name, **(small if quick else {}))
        return format_skipping_benchmark(skipping), dataclasses.asdict(skipping)

    from monai_unetpp.benchmark.scoring import format_scoring_benchmark, measure_scoring

    small = {"features": (4, 8, 8, 8, 8), "volume_shape": (24,) * 3, "window_shape": (24,) * 3, "repeats": 2}
    scoring = measure_scoring(device=name, **(small if quick else {}))
    return format_scoring_benchmark(scoring), dataclasses.asdict(scoring)


def _run_inference(
    device: torch.device, plot: str | PathLike[str] | None, **options: Any
) -> tuple[str, dict[str, Any]]:
    from monai_unetpp.benchmark.inference import measure_inference
    from monai_unetpp.benchmark.tables import format_inference_benchmark

    if plot is not None:
        from monai_unetpp.benchmark.plots import check_plot_path, save_speed_plot

        # before minutes of measuring are in vain
        check_plot_path(plot)
    result = measure_inference(device=device, **options)
    if plot is not None:
        save_speed_plot(result, plot)
    return format_inference_benchmark(result), dataclasses.asdict(result)


def __getattr__(name: str) -> Any:
    # torch is only imported when something is measured
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    modules = {"format_inference_benchmark": "tables", "save_speed_plot": "plots"}
    kind = next((kind for kind in KINDS if kind in name.lower()), "inference")
    module = modules.get(name, kind)
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
