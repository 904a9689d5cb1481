"""Which network learns on which patches, within memory and time. Imports no torch."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from monai_unetpp.planning.data_rules import ISENSEE, OWN, Choice
from monai_unetpp.planning.values import LEAST_LEVELS, MOST_LEVELS

if TYPE_CHECKING:
    from monai_unetpp.planning.machine import Machine, StepCost

__all__ = ["NetworkTask", "choose_network", "choose_window", "kernels_of", "patch_of", "strides_of", "training_minutes"]

logger = logging.getLogger(__name__)

#: Width at the top and edge of a cubic or square patch of as many voxels, the most expensive first.
_CANDIDATES = {
    2: ((32, 512), (32, 384), (32, 320), (32, 256), (24, 256), (24, 192), (16, 192), (16, 128), (16, 96), (12, 96)),
    3: (
        *((32, 128), (32, 112), (24, 112), (24, 96), (16, 96), (16, 80), (12, 80), (12, 64), (12, 48), (8, 48)),
        *((8, 40), (8, 32)),
    ),
}
_MOST_FEATURES = {2: 512, 3: 320}
#: An axis is not pooled to fewer voxels than this.
_LEAST_EDGE = 4
#: Axes whose voxels are less than this many times as long as the shortest are treated alike.
_ALIKE = 2.0
#: Voxels of a step that batches aim at, and the fewest and most patches of one.
_STEP_VOXELS = {2: 4 * 192**2, 3: 2 * 48**3}
_BATCHES = {2: (4, 8), 3: (2, 4)}
#: Steps that a training must at least have time for, and the most that it needs.
_LEAST_STEPS = 1500
#: With fewer a network hardly finds anything.
_USEFUL_STEPS = 300
_MOST_STEPS = 25_000
#: Share of the time that is for training, and share of that in which the network computes: patches and curves take the
#: rest of it. Scores and the report take what is left of the whole.
_TRAINING_SHARE, _COMPUTING_SHARE = 0.8, 0.7
#: The limit of steps in what is expected: time ends a training before it, unless the machine is faster than its class.
_MARGIN = 2
#: Share of the memory that is counted on for what a step keeps.
_MEMORY_SHARE = 0.5
#: Voxels of a window at inference, at most.
_MOST_WINDOW_VOXELS = {2: 1024**2, 3: 128**3}


@dataclasses.dataclass(frozen=True)
class NetworkTask:
    """What a network is chosen for.

    Attributes:
        spatial_dims: 2 or 3.
        in_channels: channels of an image.
        out_channels: classes with the background.
        shape: typical number of voxels by axis after preprocessing.
        spacing_mm: voxel size by axis; None counts all axes alike.
        square: whether patches must have edges of one length.
        minutes: of the whole training.
        folds: further networks that share the time with the last, 0 for none.
    """

    spatial_dims: int
    in_channels: int
    out_channels: int
    shape: Sequence[int]
    spacing_mm: Sequence[float] | None
    square: bool
    minutes: float
    folds: int


def choose_network(
    task: NetworkTask,
    machine: Machine,
    count: Callable[[Mapping[str, Any], list[int], int], StepCost],
    given: Mapping[str, Any],
) -> dict[str, Choice]:
    """Patch, strides, kernels, features, norm, batch and steps: the most expensive that memory and time allow.

    Args:
        task: what the network is for.
        machine: what computes.
        count: says what a step of a network costs, as :func:`monai_unetpp.planning.machine.count_step` does.
        given: values that are set by hand, which the others follow.
    """
    norm = given.get("norm", "batch")
    seconds = _COMPUTING_SHARE * 60 * training_minutes(task.minutes, task.folds)
    limit = _MEMORY_SHARE * machine.memory_bytes
    seen: list[dict[str, Any]] = []
    for values in _candidates(task, given):
        if values in seen:
            continue
        seen.append(values)
        config = {name: values[name] for name in ("features", "strides", "kernel_size")}
        config |= {"spatial_dims": task.spatial_dims, "in_channels": task.in_channels, "norm": norm}
        cost = count({**config, "out_channels": task.out_channels}, values["patch_size"], values["batch_size"])
        steps = int(seconds * machine.operations_per_s / cost.operations)
        if cost.memory_bytes <= limit and steps >= _LEAST_STEPS:
            break
    if steps < _USEFUL_STEPS and "steps" not in given:
        logger.warning(
            "%g minutes leave time for about %d training steps, and a network needs some hundreds to find anything. "
            "Give --minutes %d or more.",
            task.minutes,
            steps,
            math.ceil(task.minutes * _USEFUL_STEPS / max(steps, 1)),
        )
    return _explained({**values, "norm": norm}, task, cost.operations / machine.operations_per_s, steps)


def training_minutes(minutes: float, folds: int) -> float:
    """The time of one training, of all that a bundle may take.

    Args:
        minutes: of everything.
        folds: networks that are trained in addition to the last one.
    """
    return _TRAINING_SHARE * minutes / (folds + 1)


def _candidates(task: NetworkTask, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Candidate networks, the most expensive first; what is set by hand is the same in all."""
    for width, edge in _CANDIDATES[task.spatial_dims]:
        patch = list(given.get("patch_size") or patch_of(task, edge))
        most = len(given["features"]) - 1 if "features" in given else MOST_LEVELS
        strides = given.get("strides") or strides_of(patch, task.spacing_mm)[:most]
        most_features = _MOST_FEATURES[task.spatial_dims]
        features = [min(width * 2**depth, most_features) for depth in range(len(strides) + 1)]
        fewest, largest = _BATCHES[task.spatial_dims]
        batch = min(max(round(_STEP_VOXELS[task.spatial_dims] / math.prod(patch)), fewest), largest)
        kernels = kernels_of(strides, task.spacing_mm, task.spatial_dims)
        yield {
            "patch_size": patch,
            "strides": strides,
            "kernel_size": given.get("kernel_size") or kernels,
            "features": given.get("features") or features,
            "batch_size": given.get("batch_size") or batch,
        }


def patch_of(task: NetworkTask, edge: int) -> list[int]:
    """A patch of ``edge ** spatial_dims`` voxels or fewer, alike in mm along all axes, and no longer than the images.

    Its lengths are multiples of the steps down, so that no row is padded.
    """
    dims = task.spatial_dims
    if task.square:
        return [_rounded(min(edge, max(task.shape)), 2**MOST_LEVELS)] * dims
    spacing = task.spacing_mm or [1.0] * dims
    wanted = float(edge**dims)
    low, high = 0.0, max(task.shape) * max(spacing)
    for _ in range(60):
        middle = (low + high) / 2
        lengths = [min(middle / mm, size) for mm, size in zip(spacing, task.shape, strict=True)]
        low, high = (middle, high) if math.prod(lengths) <= wanted else (low, middle)
    lengths = [min(low / mm, size) for mm, size in zip(spacing, task.shape, strict=True)]
    rough = [max(1, round(length)) for length in lengths]
    strides = strides_of(rough, task.spacing_mm)
    steps = [math.prod(stride[axis] for stride in strides) for axis in range(dims)]
    return [
        _rounded(length, step, up=length >= size) for length, step, size in zip(rough, steps, task.shape, strict=True)
    ]


def _rounded(length: float, step: int, up: bool = False) -> int:
    return max(step, step * (math.ceil(length / step) if up else round(length / step)))


def strides_of(patch: Sequence[int], spacing_mm: Sequence[float] | None) -> list[list[int]]:
    """Steps down by axis: 2 where voxels are not longer than twice the shortest, and enough of them are left.

    At least two steps, so that there is a level to prune to, and no more than
    :data:`~monai_unetpp.planning.values.MOST_LEVELS`.

    Example:
        >>> strides_of([40, 56, 40], [1.0, 1.0, 1.0])
        [[2, 2, 2], [2, 2, 2], [2, 2, 2]]
        >>> strides_of([64, 64, 12], [0.5, 0.5, 3.0])
        [[2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 1]]
    """
    edges, spacing = [float(edge) for edge in patch], list(spacing_mm or [1.0] * len(patch))
    strides: list[list[int]] = []
    while len(strides) < MOST_LEVELS:
        large = [edge / 2 >= _LEAST_EDGE for edge in edges]
        finest = min((mm for mm, enough in zip(spacing, large, strict=True) if enough), default=0.0)
        pooled = [enough and mm < _ALIKE * finest for mm, enough in zip(spacing, large, strict=True)]
        if not any(pooled):
            break
        strides.append([2 if each else 1 for each in pooled])
        edges = [edge / 2 if each else edge for edge, each in zip(edges, pooled, strict=True)]
        spacing = [2 * mm if each else mm for mm, each in zip(spacing, pooled, strict=True)]
    while len(strides) < LEAST_LEVELS:
        strides.append([2 if edge >= 2 else 1 for edge in edges] if max(edges) >= 2 else [2] * len(patch))
        edges = [edge / step for edge, step in zip(edges, strides[-1], strict=True)]
    return strides


def kernels_of(strides: Sequence[Sequence[int]], spacing_mm: Sequence[float] | None, dims: int) -> list[list[int]]:
    """Sizes of kernels by resolution and axis: 1 along an axis while its voxels are at least twice as long, else 3."""
    spacing = list(spacing_mm or [1.0] * dims)
    kernels = []
    for stride in [*strides, [1] * dims]:
        kernels.append([3 if mm < _ALIKE * min(spacing) else 1 for mm in spacing])
        spacing = [step * mm for step, mm in zip(stride, spacing, strict=True)]
    return kernels


def choose_window(patch: Sequence[int], shape: Sequence[int], strides: Sequence[Sequence[int]], norm: str) -> Choice:
    """Size of the windows at inference."""
    dims = len(patch)
    if norm != "batch":
        return Choice(list(patch), "Instance norm sees other statistics in windows of another size.")
    steps = [math.prod(stride[axis] for stride in strides) for axis in range(dims)]
    window = [
        max(edge, min(2 * edge, _rounded(size, step, up=True)))
        for edge, size, step in zip(patch, shape, steps, strict=True)
    ]
    # the longest axis gives way first
    while math.prod(window) > _MOST_WINDOW_VOXELS[dims] and any(a > b for a, b in zip(window, patch, strict=True)):
        axis = max(range(dims), key=lambda each: window[each] / patch[each])
        window[axis] = max(patch[axis], window[axis] - steps[axis])
    return Choice(
        window,
        "Up to twice the patch, as far as images are that large: batch norm does not depend on the size, and larger "
        "windows overlap less.",
    )


def _explained(values: Mapping[str, Any], task: NetworkTask, seconds: float, steps: int) -> dict[str, Choice]:
    """The values with their reasons."""
    shape = " x ".join(map(str, task.shape))
    budget = (
        f"The largest of a series, from wide networks on large patches to narrow ones on small patches, that has "
        f"{_LEAST_STEPS} steps in the time and fits the memory here"
        if steps >= _LEAST_STEPS
        else f"The smallest of the series, as about {steps} steps are all that the time allows"
    )
    shared = f", shared by {task.folds + 1} trainings" if task.folds else ""
    limit = min(max(_MARGIN * steps, 1), _MOST_STEPS)
    reasons = {
        "patch_size": (
            f"{budget}; alike in mm along all axes, and no longer than a typical image, {shape} voxels.",
            ISENSEE,
        ),
        "strides": (
            f"{len(values['strides'])} level(s): an axis is halved while {_LEAST_EDGE} voxels are left and its voxels "
            f"are not twice as long as the shortest, at most {MOST_LEVELS} times.",
            ISENSEE,
        ),
        "kernel_size": ("Convolutions look along an axis once its voxels are about as short as the others.", ISENSEE),
        "features": (f"{budget}; they double with every step down.", "UNet++, arXiv:1912.05074"),
        "norm": ("Batch norm folds into the convolutions at inference and suits windows of any size.", OWN),
        "batch_size": ("Small patches come in larger batches, for steadier gradients.", OWN),
        "steps": (
            f"A limit: {task.minutes:g} minutes{shared} allow about {steps} steps of {seconds:.2g} s, and the clock "
            f"ends the training; at most {_MOST_STEPS}.",
            OWN,
        ),
    }
    return {name: Choice({**values, "steps": limit}[name], *reason) for name, reason in reasons.items()}
