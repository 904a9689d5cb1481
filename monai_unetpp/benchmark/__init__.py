"""Measurements that compare: what training costs beside MONAI's own network."""

from monai_unetpp.benchmark.training import (
    TrainingBenchmark,
    TrainingCost,
    format_training_benchmark,
    measure_training,
)

__all__ = ["TrainingBenchmark", "TrainingCost", "format_training_benchmark", "measure_training"]
