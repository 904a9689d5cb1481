"""The cost of an operating point, measured on the pruned network, never estimated from the full one."""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
import math
import operator
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.inferers.inferer import Inferer

from monai_unetpp.devices import resolve_precision
from monai_unetpp.inferers import FlipInferer, NestedSlidingWindowInferer, PrecisionInferer
from monai_unetpp.measuring.energy import energy_rounds, find_counter
from monai_unetpp.measuring.environment import measuring_device
from monai_unetpp.measuring.memory import PeakMemory, measure_in_new_processes
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.rounds import time_rounds
from monai_unetpp.measuring.size import count_flops, count_parameters
from monai_unetpp.networks import NestedUNet
from monai_unetpp.networks.config import NestedUNetConfig
from monai_unetpp.pruning.plan import check_runs
from monai_unetpp.pruning.points.settings import with_setting
from monai_unetpp.pruning.results import InferenceSetting, OperatingPoint, PointCost, SelfCheck

logger = logging.getLogger(__name__)

_CPU = torch.device("cpu")

_Run = tuple[NestedUNet, Inferer, tuple[int, ...]]
"""Network, inferer, and shape of the volume."""


def measure_costs(
    networks: Mapping[str, NestedUNet],
    window_shape: Sequence[int],
    volume_shape: Sequence[int],
    inferer: Inferer,
    *,
    device: torch.device | str = "cpu",
    precision: str = "auto",
    repeats: int = 10,
    warm_up: int = 2,
    seed: int = 0,
    full_network: NestedUNet | None = None,
    levels: Mapping[str, str] | None = None,
) -> dict[str, PointCost]:
    """Measure parameters, operations, file size, latency, memory and, if available, energy of pruned networks.

    Every round measures the latency of each network once, in random order, so that noise affects all of them alike.
    Memory is that of segmenting one volume, weights included: on CUDA the peak of allocated device memory, on a CPU
    the growth of the resident set of a separate process.

    Args:
        networks: by name of their operating point, pruned and in eval mode; they are moved to ``device``.
        window_shape: spatial shape of one window, ``(H, W[, D])``.
        volume_shape: spatial shape of a whole volume.
        inferer: runs a network over a volume, such as a ``SlidingWindowInferer``; its own precision is ignored. The
            runtime of a ``NestedSlidingWindowInferer`` applies to windows too.
        device: a CPU or a CUDA device.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        repeats: measured runs of each network; more give a narrower spread.
        warm_up: unmeasured runs before them.
        seed: of the inputs, and of the order within the rounds.
        full_network: the network that was scored, for the self-check; None skips the check.
        levels: as for :func:`check_pruned_networks`.

    Returns:
        The costs by name of the operating point, in the order of ``networks``.

    Raises:
        TypeError: a network that is not a ``NestedUNet``.
        ValueError: an invalid argument, or an inferer that cannot be pickled.
        RuntimeError: the process that measures memory failed.
    """
    run = _Measurement.of(device, repeats, warm_up, seed)
    resolve_precision(precision, run.device)
    _check_networks(networks)
    first = next(iter(networks.values()))
    window = checked_shape("window_shape", window_shape, first.spatial_dims)
    volume = checked_shape("volume_shape", volume_shape, first.spatial_dims)
    # one inferer per network, since ours keep what they compiled
    inferers = {point: _over_volumes(inferer, precision) for point in networks}
    runs = {point: (network, _over_volumes(inferer, precision), volume) for point, network in networks.items()}
    memory = measure_peak_memory(runs, run.device, run.seed)
    for network in networks.values():
        network.to(run.device)
    checks = {}
    if full_network is not None:
        checks = check_pruned_networks(full_network, networks, window, levels=levels, device=run.device, seed=seed)
    return _point_costs(run, networks, inferers, window, volume, memory, checks)


def _point_costs(
    run: _Measurement,
    networks: Mapping[str, NestedUNet],
    inferers: Mapping[str, PrecisionInferer | NestedSlidingWindowInferer],
    window: tuple[int, ...],
    volume: tuple[int, ...],
    memory: Mapping[str, int],
    checks: Mapping[str, SelfCheck],
) -> dict[str, PointCost]:
    tasks = {}
    for point, network in networks.items():
        tasks[point, "window"] = run.window_task(inferers[point], network, window)
        tasks[point, "volume"] = run.task(inferers[point], network, volume)
    seconds = run.seconds(tasks)
    energy = run.energy({point: tasks[point, "volume"] for point in networks})
    return {
        point: PointCost(
            point=point,
            parameters=count_parameters(network),
            flops_per_window=count_flops(network, run.image(network, window)),
            checkpoint_bytes=_checkpoint_bytes(network),
            window_latency_s=Quartiles.of(seconds[point, "window"]),
            volume_latency_s=Quartiles.of(seconds[point, "volume"]),
            peak_memory_bytes=memory[point],
            window_shape=window,
            volume_shape=volume,
            self_check=checks.get(point),
            volume_energy_j=energy.get(point),
        )
        for point, network in networks.items()
    }


def measure_setting_costs(
    networks: Mapping[str, NestedUNet],
    points: Sequence[OperatingPoint],
    inferer: NestedSlidingWindowInferer,
    level_costs: Mapping[str, PointCost],
    *,
    reference: str,
    device: torch.device | str = "cpu",
    repeats: int = 3,
    warm_up: int = 1,
    seed: int = 0,
) -> tuple[dict[str, PointCost], dict[str, Quartiles]]:
    """Measure the time of operating points that share networks and differ in how these are run.

    Every round segments one volume at each point, in a new order. Time per window and memory do not depend on overlap
    and flips: they are measured once per level, precision, runtime and choice of windows.

    Args:
        networks: the pruned networks by level, in eval mode.
        points: each with a setting and a level in ``networks``; those at the first point's setting take window time
            and memory from ``level_costs``.
        inferer: runs a network over a volume at each setting.
        level_costs: from :func:`measure_costs` for each level, at the setting of the first point.
        reference: name of the point to compare times with.
        device: a CPU or a CUDA device.
        repeats: measured rounds.
        warm_up: rounds before them, in which networks are compiled or converted.
        seed: of the input, and of the order within the rounds.

    Returns:
        The costs, and the time per volume relative to ``reference`` in the same round, both by name of the point.

    Raises:
        ValueError: ``reference`` is not among the points.
        RuntimeError: the process that measures memory failed.
    """
    names = [point.name for point in points]
    if reference not in names:
        raise ValueError(f"reference must be one of {', '.join(names)}, got {reference!r}.")
    run = _Measurement.of(device, repeats, warm_up, seed)
    kept = {_network_name(dataclasses.replace(points[0], level=level)) for level in level_costs}
    measured = {name: point for name, point in _cheapest_points(points).items() if name not in kept}
    runs = {
        name: (networks[point.level], _all_levels(inferer, point), level_costs[point.level].volume_shape)
        for name, point in measured.items()
    }
    memory = measure_peak_memory(runs, run.device, run.seed)
    for network in networks.values():
        network.to(run.device)
    # one after the other, since the tasks of the first keep their compiled or converted networks
    volumes = run.seconds(_volume_tasks(run, networks, points, inferer, level_costs))
    windows = run.seconds(
        {
            name: run.window_task(
                with_setting(inferer, point.known_setting), networks[point.level], level_costs[point.level].window_shape
            )
            for name, point in measured.items()
        }
    )
    costs = {point.name: _at_point(point, level_costs, volumes, windows, memory) for point in points}
    return costs, {name: Quartiles.of_ratios(volumes[name], volumes[reference]) for name in names}


def _volume_tasks(
    run: _Measurement,
    networks: Mapping[str, NestedUNet],
    points: Sequence[OperatingPoint],
    inferer: NestedSlidingWindowInferer,
    level_costs: Mapping[str, PointCost],
) -> dict[str, Callable[[], Any]]:
    # one inferer for all overlaps and flips of a network, so that it is compiled or converted once
    shared = {name: _all_levels(inferer, point) for name, point in _cheapest_points(points).items()}
    image = run.image(networks[points[0].level], level_costs[points[0].level].volume_shape)
    return {
        point.name: functools.partial(
            _segment_at, shared[_network_name(point)], point.known_setting, image, networks[point.level]
        )
        for point in points
    }


@dataclasses.dataclass(frozen=True)
class _Measurement:
    """Where, how often and on which inputs to measure."""

    device: torch.device
    repeats: int
    warm_up: int
    seed: int

    @classmethod
    def of(cls, device: torch.device | str, repeats: int, warm_up: int, seed: int) -> _Measurement:
        check_runs(repeats, warm_up)
        return cls(measuring_device(device), repeats, warm_up, seed)

    def image(self, network: NestedUNet, shape: tuple[int, ...]) -> torch.Tensor:
        return _random_input(network, shape, self.device, self.seed)

    def task(self, inferer: Callable[..., Any], network: NestedUNet, shape: tuple[int, ...]) -> Callable[[], Any]:
        return functools.partial(inferer, self.image(network, shape), network)

    def window_task(
        self, inferer: PrecisionInferer | NestedSlidingWindowInferer, network: NestedUNet, shape: tuple[int, ...]
    ) -> Callable[[], Any]:
        return self.task(_over_one_window(inferer, shape), network, shape)

    def seconds(self, tasks: Mapping[Any, Callable[[], Any]]) -> dict[Any, list[float]]:
        options: dict[str, Any] = {"repeats": self.repeats, "warm_up": self.warm_up, "seed": self.seed}
        with torch.no_grad():
            return time_rounds(tasks, device=self.device, name="Latency", **options)

    def energy(self, tasks: Mapping[Any, Callable[[], Any]]) -> dict[Any, Quartiles]:
        counter = find_counter(self.device)
        if counter is None:
            return {}
        with torch.no_grad():
            joules = energy_rounds(tasks, counter, repeats=self.repeats, device=self.device, seed=self.seed)
        return {key: Quartiles.of(values) for key, values in joules.items()}


def _cheapest_points(points: Sequence[OperatingPoint]) -> dict[str, OperatingPoint]:
    """By name of the network, the point with the cheapest setting that uses it."""
    cheapest: dict[str, OperatingPoint] = {}
    for point in sorted(points, key=lambda each: (len(each.known_setting.flips), each.known_setting.overlap)):
        cheapest.setdefault(_network_name(point), point)
    return cheapest


def _at_point(
    point: OperatingPoint,
    level_costs: Mapping[str, PointCost],
    volumes: Mapping[str, Sequence[float]],
    windows: Mapping[str, Sequence[float]],
    memory: Mapping[str, int],
) -> PointCost:
    """The cost of the level, updated with what was measured at the point."""
    cost, name = level_costs[point.level], _network_name(point)
    if name in memory:
        cost = dataclasses.replace(cost, window_latency_s=Quartiles.of(windows[name]), peak_memory_bytes=memory[name])
    return dataclasses.replace(
        cost, point=point.name, volume_latency_s=Quartiles.of(volumes[point.name]), volume_energy_j=None
    )


def check_pruned_networks(
    full_network: NestedUNet,
    networks: Mapping[str, NestedUNet],
    window_shape: Sequence[int],
    *,
    levels: Mapping[str, str] | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> dict[str, SelfCheck]:
    """Compare pruned networks with the levels of the full network from one pass, in fp32 on a random window.

    ``levels`` tells the level of each operating point; by default, points are compared that are named like a level. All
    networks are moved to ``device``. A difference is infinite if shapes differ, NaN if an output holds NaN.
    """
    device = measuring_device(device)
    _check_networks(networks)
    _check_networks({"the full network": full_network})
    if levels is None:
        levels = {point: point for point in networks if point in full_network.levels}
    unknown = [point for point in levels if point not in networks]
    if unknown:
        raise ValueError(f"levels must name operating points out of {', '.join(networks)}, got {unknown[0]!r}.")
    if not levels:
        return {}
    shape = checked_shape("window_shape", window_shape, full_network.spatial_dims)
    inputs = _random_input(full_network, shape, device, seed)
    checks = {}
    # otherwise cuDNN may choose another algorithm for the same shape the second time
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        expected = full_network.to(device).forward_levels(inputs, list(dict.fromkeys(levels.values())))
        for point, level in levels.items():
            checks[point] = _compare(networks[point].to(device)(inputs), expected[level])
    return checks


def _check_networks(networks: Mapping[str, NestedUNet]) -> None:
    if not networks:
        raise ValueError("networks must hold at least one network, got none.")
    for point, network in networks.items():
        if not isinstance(network, NestedUNet):
            raise TypeError(f"networks must be of NestedUNet, got {type(network).__name__} for {point}.")
        if network.training:
            raise ValueError(f"networks must be in eval mode, got {point} in train mode. Call eval() first.")
    if len({network.spatial_dims for network in networks.values()}) > 1:
        raise ValueError("networks must all be 2D or all be 3D, got both. Measure them one after the other.")


def checked_shape(name: str, shape: Sequence[int], dims: int) -> tuple[int, ...]:
    """The sizes of a shape; one number stands for all axes."""
    given = [shape] * dims if isinstance(shape, int) else shape
    try:
        sizes = tuple(operator.index(size) for size in given)
    except TypeError:
        sizes = ()
    if len(sizes) != dims or min(sizes) < 1:
        raise ValueError(
            f"{name} must have {dims} sizes of 1 or more, one per spatial axis, got {shape!r}. Costs are measured on "
            "such a shape. Windows chosen for each image are evaluated with windows=auto in settings."
        )
    return sizes


def _random_input(network: NestedUNet, shape: tuple[int, ...], device: torch.device, seed: int) -> torch.Tensor:
    """A standard normal image ``(1, in_channels, *shape)``, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((1, network.in_channels, *shape), generator=generator).to(device)


def _network_name(point: OperatingPoint) -> str:
    """Level, precision, runtime and choice of windows, which determine the compiled or converted network."""
    setting = point.known_setting
    return f"{point.level} {setting.precision} {setting.runtime} {setting.windows}"


def _all_levels(inferer: NestedSlidingWindowInferer, point: OperatingPoint) -> NestedSlidingWindowInferer:
    return with_setting(inferer, point.known_setting).with_options(levels=None)


def _segment_at(
    inferer: NestedSlidingWindowInferer, setting: InferenceSetting, image: torch.Tensor, network: NestedUNet
) -> Any:
    inferer.overlap = setting.overlap[0] if len(setting.overlap) == 1 else setting.overlap
    inferer.flips = setting.flips
    return inferer(image, network)


def _over_volumes(inferer: Inferer, precision: str) -> PrecisionInferer | NestedSlidingWindowInferer:
    """A copy of ``inferer`` for one network at ``precision``."""
    if isinstance(inferer, NestedSlidingWindowInferer):
        return inferer.with_options(precision=precision, levels=None)
    return PrecisionInferer(_without_precision(inferer), precision)


def _without_precision(inferer: Inferer) -> Inferer:
    """The inferer without the precision that wraps it, or what test-time flips run."""
    if isinstance(inferer, PrecisionInferer):
        return _without_precision(inferer.inferer)
    if isinstance(inferer, FlipInferer):
        inferer = copy.copy(inferer)
        inferer.inferer = _without_precision(inferer.inferer)
    return inferer


def _over_one_window(
    over_volumes: PrecisionInferer | NestedSlidingWindowInferer, shape: tuple[int, ...]
) -> PrecisionInferer | NestedSlidingWindowInferer:
    """An inferer that runs a network once over a window of ``shape``, as ``over_volumes`` would."""
    if isinstance(over_volumes, NestedSlidingWindowInferer):
        return over_volumes.with_options(
            roi_size=shape, overlap=0.0, mode="constant", flips=(), sw_batch_size=1, levels=None
        )
    return PrecisionInferer(precision=over_volumes.precision)


def _checkpoint_bytes(network: NestedUNet) -> int:
    with tempfile.TemporaryDirectory() as folder:
        # the name of a file is in it, once for every tensor
        path = Path(folder) / "model.pt"
        torch.save(network.state_dict(), path)
        return path.stat().st_size


def _compare(output: torch.Tensor, expected: torch.Tensor) -> SelfCheck:
    if output.shape != expected.shape:
        return SelfCheck(max_difference=math.inf, equal=False)
    return SelfCheck(max_difference=float((output - expected).abs().max()), equal=torch.equal(output, expected))


def measure_peak_memory(runs: Mapping[str, _Run], device: torch.device, seed: int) -> dict[str, int]:
    """The peak memory of segmenting one random volume, as in :class:`PointCost`; networks are moved to ``device``."""
    logger.info("Measuring the memory of %s.", ", ".join(runs))
    if device.type == "cuda":
        return {
            name: _peak_of_run(network.cpu(), inferer, shape, device, seed)
            for name, (network, inferer, shape) in runs.items()
        }
    jobs = {name: (*run, seed) for name, run in runs.items()}
    return measure_in_new_processes(_peak_in_new_process, jobs, remedy="give a smaller volume_shape")


def _peak_in_new_process(network: NestedUNet, inferer: Any, shape: tuple[int, ...], seed: int) -> int:
    weights: int = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    # what the first run of any network allocates (threads, libraries, compiled kernels) is not this network's cost
    smallest = tuple(max(16, size) for size in NestedUNetConfig.check(**network.config).smallest_size())
    with torch.no_grad():
        _over_one_window(inferer, smallest)(_random_input(network, smallest, _CPU, seed), network)
    return weights + _peak_of_run(network, inferer, shape, _CPU, seed)


def _peak_of_run(network: NestedUNet, inferer: Inferer, shape: tuple[int, ...], device: torch.device, seed: int) -> int:
    """The peak while the network moves from the CPU to ``device`` and segments one volume there."""
    peak = PeakMemory(device)
    inputs = _random_input(network, shape, device, seed)
    network.to(device)
    with torch.no_grad():
        inferer(inputs, network)
    return peak.bytes()
