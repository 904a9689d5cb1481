"""Choosing the network and its patches within memory and time. Does not import torch."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_unetpp.planning.data_rules import ISENSEE, OVERLAP, OWN, Choice
from monai_unetpp.planning.values import LEAST_LEVELS, MOST_LEVELS, check_levels
from monai_unetpp.window_layout import bytes_per_voxel, overlapping_starts

if TYPE_CHECKING:
    from monai_unetpp.planning.machine import Machine, StepCost

logger = logging.getLogger(__name__)

#: Features at full resolution, and edge of a cubic or square patch of as many voxels, the most expensive first.
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
#: Axes whose spacing is less than this many times the finest are treated alike.
_ALIKE = 2.0
#: Target number of voxels of a batch, and its fewest and most patches.
_STEP_VOXELS = {2: 4 * 192**2, 3: 2 * 48**3}
_BATCHES = {2: (4, 8), 3: (2, 4)}
#: Fewest steps that a training must have time for, and the most that it needs.
_LEAST_STEPS = 1500
#: With fewer steps a network hardly learns anything.
_USEFUL_STEPS = 300
_MOST_STEPS = 25_000
#: Share of the time for training (the rest is for scores and report), and share of the training in which the network
#: computes (the rest is for patches and curves).
_TRAINING_SHARE, _COMPUTING_SHARE = 0.8, 0.7
#: Minutes that ``train`` needs beside the training, for its start and report, however few they are for everything; and
#: the least share that it trains.
_MINUTES_BESIDE, _LEAST_TRAINING_SHARE = 1.2, 0.05
#: The limit of steps relative to the expected number: the time ends a training first, unless the machine is faster than
#: its class. It holds for MONAI's own command; ``train`` ends by time alone.
_MARGIN = 2
#: Share of the memory that a step may take.
_MEMORY_SHARE = 0.5
#: What needs as many times the memory cannot be trained, however rough the estimate.
_HOPELESS = 100
#: Rough memory of a window at inference, at most.
_MOST_WINDOW_BYTES = 4 * 2**30
#: Share of the machine's memory that it may need.
_WINDOW_SHARE = 0.25
#: Images to look at, and lengths along an axis to try.
_MOST_SHAPES, _MOST_LENGTHS = 100, 64
#: What a plan follows in the network whose weights its training starts from, beside its norm.
_FOLLOWED = ("features", "strides", "kernel_size")


@dataclasses.dataclass(frozen=True)
class Source:
    """The network whose weights a training starts from: what their shapes come from.

    Attributes:
        name: of its bundle or file.
        spatial_dims: 2 or 3.
        features: channels of each resolution, finest first.
        strides: of each step down, by axis.
        kernel_size: of each resolution, by axis.
        norm: in the form that plans have; None where plans have no such norm.
    """

    name: str
    spatial_dims: int
    features: list[int]
    strides: list[list[int]]
    kernel_size: list[list[int]]
    norm: Any

    def begin(self, name: str, own: list[Any]) -> list[Any]:
        """As many entries as ``own`` has: this network's first, then ``own`` where it has no further ones."""
        entries: list[Any] = getattr(self, name)
        return [*entries[: len(own)], *own[len(entries) :]]

    def reasons(self, values: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
        """Reason and source of the values that are those of this network, as far as both have them."""
        reason = f"As in {self.name}, so that its weights fit: the training starts from them."
        agreeing = [name for name in _FOLLOWED if all(map(operator.eq, getattr(self, name), values[name]))]
        return dict.fromkeys([*agreeing, *(["norm"] if self.norm == values["norm"] else [])], (reason, "--init"))


@dataclasses.dataclass(frozen=True)
class NetworkTask:
    """The task for which a network is chosen.

    Attributes:
        spatial_dims: 2 or 3.
        in_channels: channels of an image.
        out_channels: classes with the background.
        shape: typical number of voxels by axis after preprocessing.
        spacing_mm: voxel size by axis; None treats all axes alike.
        square: whether all edges of a patch must be equal.
        minutes: time for everything.
        folds: networks for cross-fitting that share the time with the final one, 0 for none.
        source: the network whose weights the training starts from; None starts from random ones.
    """

    spatial_dims: int
    in_channels: int
    out_channels: int
    shape: Sequence[int]
    spacing_mm: Sequence[float] | None
    square: bool
    minutes: float
    folds: int
    source: Source | None = None


def choose_network(
    task: NetworkTask,
    machine: Machine,
    count: Callable[[Mapping[str, Any], list[int], int], StepCost],
    given: Mapping[str, Any],
    check: bool = True,
) -> dict[str, Choice]:
    """Patch, strides, kernels, features, norm, batch and steps: the most expensive that memory and time allow.

    They are adapted to the ``given`` values, set by hand, of which impossible ones are a ``ValueError``. ``count``
    returns the cost of a step, like :func:`monai_unetpp.planning.machine.count_step`. With ``check``, what cannot be
    afforded is refused, and short time warned of.
    """
    norm = given.get("norm") or (task.source and task.source.norm) or "batch"
    seconds = _computing_s(task)
    limit = _MEMORY_SHARE * machine.memory_bytes
    seen: list[dict[str, Any]] = []
    for values in _candidates(task, given):
        if values in seen:
            continue
        seen.append(values)
        check_levels(values)
        check_size("patch_size", values["patch_size"], values["strides"])
        config = {name: values[name] for name in ("features", "strides", "kernel_size")}
        config |= {"spatial_dims": task.spatial_dims, "in_channels": task.in_channels, "norm": norm}
        cost = count({**config, "out_channels": task.out_channels}, values["patch_size"], values["batch_size"])
        steps = int(seconds / machine.seconds(cost))
        fits = cost.memory_bytes <= limit
        if fits and steps >= _LEAST_STEPS:
            break
    step_s = machine.seconds(cost)
    if check and task.source is not None and "features" not in given:
        _check_affordable(task.source, task, step_s if "steps" not in given else None, fits)
    if check and cost.memory_bytes > _HOPELESS * machine.memory_bytes:
        raise ValueError(
            f"patch_size, batch_size, features and kernel_size must fit the memory, got {values['patch_size']}, "
            f"{values['batch_size']}, {values['features']} and {values['kernel_size']}: a training step needs about "
            f"{cost.memory_bytes / 2**30:.3g} GiB, and there are {machine.memory_bytes / 2**30:.3g}. Set smaller ones."
        )
    if check and not fits:
        logger.warning(
            "A training step needs about %.1f GiB of memory, and half of the %.1f GiB here is kept for everything "
            "else: it may run out. Set a smaller patch_size or batch_size.",
            cost.memory_bytes / 2**30,
            machine.memory_bytes / 2**30,
        )
    if check and steps < _USEFUL_STEPS and "steps" not in given:
        logger.warning(
            "There is time for about %d training steps in %g min, but a network needs several hundred to learn "
            "anything. Give --minutes %d or more.",
            steps,
            task.minutes,
            _minutes_for(_USEFUL_STEPS * step_s, task),
        )
    if check and given.get("steps", 0) > steps:
        logger.warning(
            "steps: %d steps take about %d minutes in all, longer than the %g that are given. With steps set by "
            "hand, the time does not end a training. Set fewer steps, or leave them out.",
            given["steps"],
            _minutes_for(given["steps"] * step_s, task),
            task.minutes,
        )
    return _explained({**values, "norm": norm}, task, step_s, steps, fits)


def check_size(name: str, size: Sequence[int], strides: Sequence[Sequence[int]]) -> None:
    """Refuse patches or windows that leave one voxel at the lowest resolution, where norms have nothing to compare."""
    steps = [math.prod(along) for along in zip(*strides, strict=True)]
    if all(edge <= step for edge, step in zip(size, steps, strict=True)):
        raise ValueError(
            f"{name} must leave 2 voxels or more at the lowest resolution, got {list(size)}, which the strides, "
            f"{' x '.join(map(str, steps))} in all, reduce to one. Set a larger {name}, such as "
            f"{[2 * step for step in steps]}."
        )


def _computing_s(task: NetworkTask) -> float:
    """Seconds in which the network of one training computes."""
    least, most = _LEAST_TRAINING_SHARE * task.minutes, training_minutes(task.minutes, 0)
    return _COMPUTING_SHARE * 60 * min(most, max(task.minutes - _MINUTES_BESIDE, least)) / (task.folds + 1)


def _minutes_for(computing_s: float, task: NetworkTask) -> int:
    """Minutes for everything that give the network of one training so many seconds to compute."""
    training = computing_s * (task.folds + 1) / (60 * _COMPUTING_SHARE)
    return math.ceil(max(training / _TRAINING_SHARE, training + _MINUTES_BESIDE))


def _check_affordable(source: Source, task: NetworkTask, step_s: float | None, fits: bool) -> None:
    """Refuse to start from a network that is too large for the time or the memory even on the smallest patches."""
    if step_s is not None and (steps := int(_computing_s(task) / step_s)) < _USEFUL_STEPS:
        problem = f"leave time for about {steps} training steps in {task.minutes:g} minutes"
        advice = f"Give --minutes {_minutes_for(_USEFUL_STEPS * step_s, task)} or more"
    elif not fits:
        problem, advice = "need more memory than there is", "Leave init out"
    else:
        return
    features = json.dumps(source.features[: MOST_LEVELS + 1], separators=(",", ":"))
    raise ValueError(
        f"init: the features of {source.name}, {features}, {problem}. {advice}, or --set features={features} to take "
        "them all the same."
    )


def training_minutes(minutes: float, folds: int) -> float:
    """The minutes for one training, out of those for everything; with ``folds`` further ones of the same length."""
    return _TRAINING_SHARE * minutes / (folds + 1)


def _candidates(task: NetworkTask, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Candidate networks, the most expensive first; values set by hand are the same in all."""
    source, series = task.source, _CANDIDATES[task.spatial_dims]
    if source:
        series = tuple((source.features[0], edge) for edge in dict.fromkeys(edge for _, edge in series))
    for width, edge in series:
        patch = list(given.get("patch_size") or patch_of(task, edge, given.get("strides")))
        most = len(given["features"]) - 1 if "features" in given else MOST_LEVELS
        # as many steps down as the features ask for; where the patch is too small for them, check_size says so
        least = most if "features" in given else LEAST_LEVELS
        strides = given.get("strides") or _lengthened(_strides(patch, task)[:most], patch, least)
        most_features = _MOST_FEATURES[task.spatial_dims]
        features = [min(width * 2**depth, most_features) for depth in range(len(strides) + 1)]
        fewest, largest = _BATCHES[task.spatial_dims]
        batch = min(max(round(_STEP_VOXELS[task.spatial_dims] / math.prod(patch)), fewest), largest)
        kernels = kernels_of(strides, task.spacing_mm, task.spatial_dims)
        yield {
            "patch_size": patch,
            "strides": strides,
            "kernel_size": given.get("kernel_size") or (source.begin("kernel_size", kernels) if source else kernels),
            "features": given.get("features") or (source.begin("features", features) if source else features),
            "batch_size": given.get("batch_size") or batch,
        }


def _strides(patch: Sequence[int], task: NetworkTask) -> list[list[int]]:
    """Steps down: those of the source as long as enough voxels are left, else by the rule."""
    own = strides_of(patch, task.spacing_mm)
    if task.source is None:
        return own
    most = min(len(task.source.strides), MOST_LEVELS)
    kept: list[list[int]] = []
    edges = [float(edge) for edge in patch]
    for stride in task.source.strides[:most]:
        edges = [edge / step for edge, step in zip(edges, stride, strict=True)]
        if any(step > 1 and edge < _LEAST_EDGE for edge, step in zip(edges, stride, strict=True)):
            break
        kept.append(stride)
    return kept if len(kept) >= LEAST_LEVELS else own[: max(most, LEAST_LEVELS)]


def patch_of(task: NetworkTask, edge: int, strides: Sequence[Sequence[int]] | None = None) -> list[int]:
    """A patch of at most ``edge ** spatial_dims`` voxels, equally long in mm on all axes, not longer than the images.

    Its lengths are multiples of the downsampling factors, so that nothing is padded, and twice as long at least along
    one axis.
    """
    dims = task.spatial_dims
    if task.square:
        step = 2**MOST_LEVELS if strides is None else math.lcm(*map(math.prod, zip(*strides, strict=True)))
        return [_rounded(min(edge, max(task.shape)), step)] * dims
    spacing = task.spacing_mm or [1.0] * dims
    wanted = float(edge**dims)
    low, high = 0.0, max(task.shape) * max(spacing)
    for _ in range(60):
        middle = (low + high) / 2
        lengths = [min(middle / mm, size) for mm, size in zip(spacing, task.shape, strict=True)]
        low, high = (middle, high) if math.prod(lengths) <= wanted else (low, middle)
    lengths = [min(low / mm, size) for mm, size in zip(spacing, task.shape, strict=True)]
    rough = [max(1, round(length)) for length in lengths]
    used = strides or _strides(rough, task)
    steps = [math.prod(stride[axis] for stride in used) for axis in range(dims)]
    sizes = zip(rough, steps, task.shape, strict=True)
    patch = [_rounded(length, step, up=length >= size) for length, step, size in sizes]
    # one voxel at the lowest resolution would leave norms nothing to compare
    return patch if patch != steps else [2 * step for step in steps]


def _rounded(length: float, step: int, up: bool = False) -> int:
    return max(step, step * (math.ceil(length / step) if up else round(length / step)))


def strides_of(patch: Sequence[int], spacing_mm: Sequence[float] | None) -> list[list[int]]:
    """Strides by axis: 2 if the spacing is less than twice the finest and enough voxels are left, else 1.

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
    return _lengthened(strides, patch, LEAST_LEVELS)


def _lengthened(strides: list[list[int]], patch: Sequence[int], least: int) -> list[list[int]]:
    """At least ``least`` steps down, along the axes with two voxels or more, or all if none has them."""
    edges = [edge / math.prod(stride[axis] for stride in strides) for axis, edge in enumerate(patch)]
    strides = list(strides)
    while len(strides) < least:
        strides.append([2 if edge >= 2 else 1 for edge in edges] if max(edges) >= 2 else [2] * len(patch))
        edges = [edge / step for edge, step in zip(edges, strides[-1], strict=True)]
    return strides


def kernels_of(strides: Sequence[Sequence[int]], spacing_mm: Sequence[float] | None, dims: int) -> list[list[int]]:
    """Kernel sizes by resolution and axis: 1 along an axis with at least twice the finest spacing, else 3.

    From 3 on they stay 3: that strides made an axis coarser than a short one, which has too few voxels for them, is no
    reason to see less along it.

    Example:
        >>> kernels_of([[2, 2, 1], [2, 2, 1]], [0.5, 0.5, 1.0], dims=3)
        [[3, 3, 1], [3, 3, 3], [3, 3, 3]]
    """
    spacing = list(spacing_mm or [1.0] * dims)
    extended = [False] * dims
    kernels = []
    for stride in [*strides, [1] * dims]:
        extended = [before or mm < _ALIKE * min(spacing) for before, mm in zip(extended, spacing, strict=True)]
        kernels.append([3 if each else 1 for each in extended])
        spacing = [step * mm for step, mm in zip(stride, spacing, strict=True)]
    return kernels


def choose_window(
    patch: Sequence[int],
    shapes: Sequence[Sequence[int]],
    strides: Sequence[Sequence[int]],
    norm: str,
    channels: int,
    memory_bytes: int,
    classes: int = 1,
) -> Choice:
    """The size of the windows at inference."""
    if norm != "batch":
        return Choice(list(patch), "As large as a patch, as the statistics of instance norm depend on the size.")
    most_bytes = int(min(_MOST_WINDOW_BYTES, _WINDOW_SHARE * memory_bytes))
    alone, together = (bytes_per_voxel(channels, classes * levels) for levels in (1, len(strides)))
    # all levels are computed at once for the verdict only
    most = max(min(most_bytes // alone, 2 * most_bytes // together), math.prod(patch))
    steps = [math.prod(stride[axis] for stride in strides) for axis in range(len(patch))]
    sizes = np.array(shapes[:: -(-len(shapes) // _MOST_SHAPES)]).T.tolist()
    lengths = [_lengths(max(along), edge, step) for along, edge, step in zip(sizes, patch, steps, strict=True)]
    voxels = functools.reduce(np.multiply.outer, map(np.array, lengths))
    # along each axis: voxels computed for each length of a window and each image
    computed_along = [
        np.array([[length * _windows(size, length) for size in own] for length in of], dtype=float)
        for of, own in zip(lengths, sizes, strict=True)
    ]
    axes = "ijk"[: len(patch)]
    computed = np.einsum(",".join(f"{axis}n" for axis in axes) + f"->{axes}", *computed_along)
    # of equals the smallest
    cost = np.where(voxels <= most, computed * (1 + 1e-9 * voxels / voxels.max()), np.inf)
    places = np.unravel_index(int(cost.argmin()), cost.shape)
    return Choice(
        [of[place] for of, place in zip(lengths, places, strict=True)],
        f"Of the windows that need at most about {most_bytes / 2**30:.2g} GiB of memory, those with the fewest voxels "
        "to compute for all cases together; batch norm does not depend on the window's size.",
    )


def _lengths(size: int, edge: int, step: int) -> list[int]:
    """Lengths of windows from the edge of a patch to what holds an image, not too many."""
    whole = _rounded(size, step, up=True)
    stride = step * max(1, math.ceil((whole - edge) / step / _MOST_LENGTHS))
    return [edge, *(length for length in range(whole, edge, -stride))]


def _windows(size: int, length: int) -> int:
    return len(overlapping_starts(max(size, length), length, OVERLAP))


def _explained(
    values: Mapping[str, Any], task: NetworkTask, seconds: float, steps: int, fits: bool
) -> dict[str, Choice]:
    """The values with their reasons; ``fits`` tells whether a step fits the memory."""
    shape = " x ".join(map(str, task.shape))
    budget = (
        f"The largest of a series, from wide networks on large patches to narrow ones on small patches, that fits the "
        f"memory and allows {_LEAST_STEPS} steps in the time"
        if steps >= _LEAST_STEPS
        else f"The smallest of the series, as the time allows only about {steps} steps"
    )
    if not fits:
        budget = "The smallest of the series, as none fits the memory"
    shared = f", shared by {task.folds + 1} trainings" if task.folds else ""
    limit = min(max(_MARGIN * steps, 1), _MOST_STEPS)
    reasons: dict[str, tuple[str, str]] = {
        "patch_size": (
            f"{budget}; equally long in mm along all axes, but no longer than a typical image, {shape} voxels, rounded "
            "to multiples of the downsampling.",
            ISENSEE,
        ),
        "strides": (
            f"{len(values['strides'])} levels: an axis is halved while {_LEAST_EDGE} voxels are left and its spacing "
            f"is less than twice the finest, at most {MOST_LEVELS} times.",
            ISENSEE,
        ),
        "kernel_size": ("Kernels extend along an axis once its spacing is about as fine as the others.", ISENSEE),
        "features": (f"{budget}; they double with every downsampling.", "UNet++, arXiv:1912.05074"),
        "norm": ("Batch norm is folded into the convolutions at inference and suits windows of any size.", OWN),
        "batch_size": ("Small patches come in larger batches, for more stable gradients.", OWN),
        "steps": (
            f"{task.minutes:g} minutes{shared} allow about {steps} steps of {seconds:.2g} s. The command train ends "
            "when the time is up, or after this number if it is set by hand; MONAI's own command ends at whichever "
            f"comes first, so the number is larger, but at most {_MOST_STEPS}.",
            OWN,
        ),
    }
    if task.source is not None:
        reasons |= task.source.reasons(values)
    return {name: Choice({**values, "steps": limit}[name], *reason) for name, reason in reasons.items()}
