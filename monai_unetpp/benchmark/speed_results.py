"""What was measured of each contender, and what this package promises."""

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
    "check_targets",
]

OUTPUT_TOLERANCE = 1e-3
"""How far logits in fp32 may be from the expected ones, as a share of the largest of these, to count as equal."""


@dataclasses.dataclass(frozen=True)
class InferenceCost:
    """What segmenting the volume cost one contender.

    Attributes:
        name: of the contender.
        level: the level that it computes; ``None`` for MONAI's route.
        runtime: ``"torch"``, ``"compile"`` or ``"openvino"``.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        parameters: of its network.
        flops: operations of the network for the whole volume, by count.
        seconds: from the volume to its label map.
        speed_up: how many times as fast as the reference in the same round.
        stages_s: median seconds by stage.
        outside_network: share of the time that is not spent in the network.
        preparation_s: conversion and compilation, once.
        peak_memory_bytes: most memory in use: device memory on CUDA, on a CPU the growth of a separate process,
            without what libraries load once.
        flops_per_s: operations per second, with the time outside the network counted too.
        ceiling_share: of what products of large matrices reach in the same precision.
        max_difference: largest difference of a logit of the first window from MONAI's network in fp32.
        relative_difference: the same as a share of the largest logit.
        same_labels: share of that window's voxels with the same label.
        same_labels_volume: share of the volume's voxels with the label that the reference gave, where both compute the
            same level of the same network.
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
    """A contender that could not run, and why."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class InferenceBenchmark:
    """All contenders, measured in one run; ratios are to the reference, which is MONAI's route.

    Attributes:
        reference: name of the contender that is the reference.
        reference_network: what it runs.
        bundle: name of the bundle whose network was taken; ``None`` for random weights.
        levels: all levels of our network, also those that were not measured.
        features: channels per resolution.
        in_channels: of the volume.
        out_channels: classes.
        volume_shape: spatial shape of the volume.
        window_shape: spatial shape of the windows.
        windows: how many of them cover the volume.
        overlap: of the windows.
        sw_batch_size: windows at once, for all contenders.
        ceilings: operations per second of products of large matrices, by precision.
        costs: per contender, the reference first.
        missing: contenders that could not run.
        environment: device, versions, threads and date.
    """

    reference: str
    reference_network: str
    bundle: str | None
    levels: tuple[str, ...]
    features: tuple[int, ...]
    in_channels: int
    out_channels: int
    volume_shape: tuple[int, ...]
    window_shape: tuple[int, ...]
    windows: int
    overlap: float | tuple[float, ...]
    sw_batch_size: int
    ceilings: dict[str, float]
    costs: tuple[InferenceCost, ...]
    missing: tuple[MissingContender, ...]
    environment: Environment


@dataclasses.dataclass(frozen=True)
class SpeedTarget:
    """A target and what was measured.

    Attributes:
        name: what it is about.
        wanted: the speed-up to reach, or the share not to exceed.
        measured: the median; ``None`` where no contender of this kind was measured.
        contender: whose figure it is.
        at_most: whether the measured value must not be above ``wanted``, instead of not below.
    """

    name: str
    wanted: float
    measured: float | None
    contender: str
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it is reached; what was not measured is not."""
        if self.measured is None:
            return False
        return self.measured <= self.wanted if self.at_most else self.measured >= self.wanted


def check_targets(result: InferenceBenchmark) -> tuple[SpeedTarget, ...]:
    """What this package promises, beside what was measured: on a GPU, and on a CPU with two cores.

    Of several contenders the fastest counts. The time outside the network is that of the named contenders that spends
    the largest share there.
    """
    deepest, shallowest = result.levels[-1], result.levels[0]
    wanted: list[tuple[str, tuple[str, ...], float]]
    if result.reference == "MONAI fp32":
        wanted = [(deepest, ("fp32",), 3.5), (deepest, ("bf16",), 6.0), (shallowest, ("bf16",), 20.0)]
    else:
        wanted = [(deepest, ("bf16", "fp16"), 2.0)]
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
