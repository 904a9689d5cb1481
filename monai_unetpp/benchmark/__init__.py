"""Measurements that compare: what training costs beside MONAI's own network, and what scoring all levels costs."""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_unetpp.benchmark.scoring import ScoringBenchmark, format_scoring_benchmark, measure_scoring
    from monai_unetpp.benchmark.training import (
        TrainingBenchmark,
        TrainingCost,
        format_training_benchmark,
        measure_training,
    )

__all__ = [
    "KINDS",
    "ScoringBenchmark",
    "TrainingBenchmark",
    "TrainingCost",
    "format_scoring_benchmark",
    "format_training_benchmark",
    "measure_scoring",
    "measure_training",
    "run_benchmark",
]

KINDS = ("training", "scoring")
"""What can be measured."""


def run_benchmark(kind: str, device: str | None = None, quick: bool = False) -> tuple[str, dict[str, Any]]:
    """Measure on this machine.

    See :func:`~monai_unetpp.benchmark.training.measure_training` and
    :func:`~monai_unetpp.benchmark.scoring.measure_scoring`.

    Args:
        kind: ``"training"`` or ``"scoring"``.
        device: such as ``"cpu"``; by default a GPU if there is one.
        quick: small networks and few repeats, only to see that it works.

    Returns:
        Text in Markdown, and the same figures ready for JSON.

    Raises:
        ValueError: no such kind or device.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}. Choose one.")
    from monai_unetpp.devices import resolve_device

    name = str(resolve_device(device))
    if kind == "training":
        from monai_unetpp.benchmark.training import format_training_benchmark, measure_training

        small: dict[str, Any] = {"features": (4, 8, 8, 8, 8), "patch_size": (32,) * 3, "batch_size": 1, "repeats": 2}
        training = measure_training(device=name, **(small if quick else {}))
        return format_training_benchmark(training), dataclasses.asdict(training)

    from monai_unetpp.benchmark.scoring import format_scoring_benchmark, measure_scoring

    small = {"features": (4, 8, 8, 8, 8), "volume_shape": (24,) * 3, "window_shape": (24,) * 3, "repeats": 2}
    scoring = measure_scoring(device=name, **(small if quick else {}))
    return format_scoring_benchmark(scoring), dataclasses.asdict(scoring)


def __getattr__(name: str) -> Any:
    # torch is only imported when something is measured
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    kind = "scoring" if "scoring" in name.lower() else "training"
    return getattr(importlib.import_module(f"{__name__}.{kind}"), name)
