"""The results of an inference benchmark, and the targets of this package."""

from __future__ import annotations

import dataclasses

from monai_unetpp.measuring.environment import Environment
from monai_unetpp.measuring.quartiles import Quartiles

__all__ = [
    "OUTPUT_TOLERANCE",
    "InferenceBenchmark",
    "InferenceCost",
    "MissingContender",
    "SpeedTarget",
    "VolumeTask",
    "check_targets",
]

OUTPUT_TOLERANCE = 1e-3
"""Largest difference of fp32 logits from the expected ones to count as equal, as a share of the largest logit."""


@dataclasses.dataclass(frozen=True)
class VolumeTask:
    """What all contenders do: segment the same volume in the same windows.

    Attributes:
        in_channels: channels of the volume.
        out_channels: classes.
        features: channels per resolution.
        volume_shape: spatial shape of the volume.
        window_shape: spatial shape of the windows.
        overlap: of the windows.
        sw_batch_size: windows per batch.
    """

    in_channels: int
    out_channels: int
    features: tuple[int, ...]
    volume_shape: tuple[int, ...]
    window_shape: tuple[int, ...]
    overlap: float | tuple[float, ...]
    sw_batch_size: int


@dataclasses.dataclass(frozen=True)
class InferenceCost:
    """The cost of segmenting the volume for one contender.

    Attributes:
        name: of the contender.
        level: the level that it computes; ``None`` for MONAI's route.
        runtime: ``"torch"``, ``"compile"`` or ``"openvino"``.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        parameters: number of parameters of its network.
        flops: counted operations of the network for the whole volume.
        seconds: from the volume to its label map.
        speed_up: how many times as fast as the reference in the same round.
        stages_s: median seconds by stage.
        outside_network: share of the time spent outside the network.
        preparation_s: one-time conversion and compilation.
        peak_memory_bytes: peak memory: device memory on CUDA, on a CPU the growth of a separate process, without
            libraries.
        flops_per_s: operations per second, including the time outside the network.
        ceiling_share: the same relative to products of large matrices in the same precision.
        max_difference: largest difference of a logit of the first window from MONAI's network in fp32.
        relative_difference: the same as a share of the largest logit.
        same_labels: share of that window's voxels with the same label.
        same_labels_volume: share of the volume's voxels with the same label as the reference, if both compute the same
            level of the same network.
    """

    name: str
    level: str | None
    runtime: str
    precision: str
    parameters: int
    flops: int
    seconds: Quartiles
    speed_up: Quartiles
    stages_s: dict[str, float]
    outside_network: float
    preparation_s: float
    peak_memory_bytes: int
    flops_per_s: float
    ceiling_share: float
    max_difference: float | None
    relative_difference: float | None
    same_labels: float | None
    same_labels_volume: float | None


@dataclasses.dataclass(frozen=True)
class MissingContender:
    """A contender that could not run, with the reason."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class InferenceBenchmark(VolumeTask):
    """The measurements of all contenders in one run; ratios are relative to the reference, MONAI's route.

    Attributes:
        reference: name of the contender that is the reference.
        reference_network: the network of the reference.
        bundle: name of the bundle with the network; ``None`` for random weights.
        levels: all levels of our network, including those that were not measured.
        windows: number of windows that cover the volume.
        ceilings: operations per second of products of large matrices, by precision.
        costs: per contender, the reference first.
        missing: contenders that could not run.
        environment: device, versions, threads and date.
        on_gpu: whether the device is a GPU.
    """

    reference: str
    reference_network: str
    bundle: str | None
    levels: tuple[str, ...]
    windows: int
    ceilings: dict[str, float]
    costs: tuple[InferenceCost, ...]
    missing: tuple[MissingContender, ...]
    environment: Environment
    on_gpu: bool


@dataclasses.dataclass(frozen=True)
class SpeedTarget:
    """A target and the measured value.

    Attributes:
        name: the quantity.
        wanted: the speed-up to reach, or the share not to exceed.
        measured: the median; ``None`` if no such contender was measured.
        contender: the contender that was measured.
        at_most: whether ``wanted`` is an upper limit, not a lower one.
    """

    name: str
    wanted: float
    measured: float | None
    contender: str
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the target is met; False if it was not measured."""
        if self.measured is None:
            return False
        return self.measured <= self.wanted if self.at_most else self.measured >= self.wanted


def check_targets(result: InferenceBenchmark) -> tuple[SpeedTarget, ...]:
    """Compare the measurements with the targets of this package, on a GPU or on a CPU with two cores.

    The fastest of several contenders counts. The time outside the network is the largest share among these contenders.
    """
    deepest, shallowest = result.levels[-1], result.levels[0]
    wanted: list[tuple[str, tuple[str, ...], float]]
    if result.on_gpu:
        wanted = [(deepest, ("bf16", "fp16"), 2.0)]
    else:
        wanted = [(deepest, ("fp32",), 3.5), (deepest, ("bf16",), 6.0), (shallowest, ("bf16",), 20.0)]
    targets = []
    named: list[InferenceCost] = []
    for level, precisions, speed_up in wanted:
        name = f"{level} {' or '.join(precisions)}"
        found = [cost for cost in result.costs if cost.level == level and cost.precision in precisions]
        if not found:
            targets.append(SpeedTarget(name, speed_up, None, ""))
            continue
        fastest = max(found, key=lambda cost: cost.speed_up.median)
        targets.append(SpeedTarget(name, speed_up, fastest.speed_up.median, fastest.name))
        named.append(fastest)
    if named:
        slowest = max(named, key=lambda cost: cost.outside_network)
        targets.append(SpeedTarget("time outside the network", 0.15, slowest.outside_network, slowest.name, True))
    return tuple(targets)
