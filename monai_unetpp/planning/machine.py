"""The speed and memory of a machine, and the cost of training a network."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from monai_unetpp.bundles.json_files import read_object
from monai_unetpp.devices import resolve_device, resolve_precision, synchronize
from monai_unetpp.distributed import processes_here
from monai_unetpp.free_memory import container_limit_bytes
from monai_unetpp.losses import NestedDeepSupervisionLoss
from monai_unetpp.measuring.size import count_flops
from monai_unetpp.networks import NestedUNet

#: Classes of machines differ by this factor, so that noise rarely changes the class.
_CLASS_FACTOR = 4.0
#: The timed step: a fraction of a second on one core, and with the most classes a few seconds.
_TIMED_EDGE = {2: 192, 3: 32}
_TIMED_BATCH = 2
_TIMED_FEATURES = (12, 24, 48, 96)
_MOST_TIMED_CLASSES = 32
_ROUNDS = 3
#: Least time of the loss, where a clock is too coarse for it.
_TICK_S = 1e-6
#: One forward pass, and a backward pass that costs twice as much.
_PASSES = 3
#: If the system does not report its memory.
_ASSUMED_MEMORY = 8 * 2**30
#: Quota and period of a container's processor time on Linux: control groups version 2, then version 1.
_QUOTAS = (
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)
#: Definition of the loss, in a package that need not be imported for it.
_TEMPLATE = Path(__file__).parents[1] / "training" / "template" / "configs" / "train.json"
#: Tensors of the size of the logits that the loss of each level keeps in fp32.
_LOSS_TENSORS = 6


@dataclasses.dataclass(frozen=True)
class Machine:
    """The class of a machine, so coarse that repeated measurements give the same class.

    Values are rounded to those of the class. Under ``torchrun`` they are of what one process has of the machine.

    Attributes:
        operations_per_s: floating-point operations per second in training, a power of 4 times 1e9.
        memory_bytes: memory available to a training, the nearest of 8, 12, 16, 24, 32 GiB and so on.
        cores: number of cores of the processor.
        device: ``"cpu"`` or ``"cuda"``.
        host_bytes: memory of the computer, as coarse; None where it is ``memory_bytes``, on a CPU.
        logits_per_s: logits (voxels times classes times heads) per second for which the loss and its gradient are
            computed, a power of 4 times 1e6; infinite if the loss is to take no time.

    Example:
        >>> print(Machine(operations_per_s=9e10, memory_bytes=21 * 2**30, cores=2, device="cpu"))
        cpu of about 64 billion operations/s, 2 cores, 24 GiB
    """

    operations_per_s: float
    memory_bytes: int
    cores: int
    device: str
    host_bytes: int | None = None
    logits_per_s: float = math.inf

    def __post_init__(self) -> None:
        object.__setattr__(self, "operations_per_s", _class_of(self.operations_per_s, 1e9))
        object.__setattr__(self, "memory_bytes", _memory_class_of(self.memory_bytes))
        if self.host_bytes is not None:
            object.__setattr__(self, "host_bytes", _memory_class_of(self.host_bytes))
        object.__setattr__(self, "logits_per_s", _class_of(self.logits_per_s, 1e6))

    def seconds(self, cost: StepCost) -> float:
        """The time of one training step."""
        return cost.operations / self.operations_per_s + cost.logits / self.logits_per_s

    def __str__(self) -> str:
        billions, memory = self.operations_per_s / 1e9, self.memory_bytes / 2**30
        host = "" if self.host_bytes is None else f", {self.host_bytes / 2**30:g} GiB of the computer"
        loss = "" if math.isinf(self.logits_per_s) else f" and {self.logits_per_s / 1e6:g} million logits/s in the loss"
        speed = f"{billions:g} billion operations/s{loss}"
        return f"{self.device} of about {speed}, {self.cores} cores, {memory:g} GiB{host}"


def _memory_class_of(size: int) -> int:
    """The nearest power of 2, or 1.5 times one, in ratio."""
    power = 1 << math.floor(math.log2(size))
    return min((power, power * 3 // 2, power * 2), key=lambda each: abs(math.log(size / each)))


def _class_of(speed: float, unit: float) -> float:
    """The nearest power of 4 times ``unit``, at least ``unit``."""
    if math.isinf(speed):
        return speed
    return float(unit * _CLASS_FACTOR ** round(math.log(max(speed, unit) / unit, _CLASS_FACTOR)))


@dataclasses.dataclass(frozen=True)
class StepCost:
    """The cost of one training step.

    Attributes:
        operations: floating-point operations of the network, forward and backward.
        memory_bytes: activations kept for the backward pass, the loss, and weights with gradients and averages.
        logits: values that the loss takes: voxels times classes times heads.
    """

    operations: float
    memory_bytes: int
    logits: int = 0


def measure_machine(spatial_dims: int, device: str | None = None, classes: int = 2) -> Machine:
    """Time a training step of a small network on this machine, and the loss by itself; the fastest of three counts.

    On a CPU, one core is timed, which is hardly affected by other users of the machine, and multiplied by the cores
    that compute: as many as torch has threads, of which ``torchrun`` leaves one to each process.

    Args:
        spatial_dims: 2 or 3.
        device: such as ``"cpu"``; by default a GPU if there is one.
        classes: number of classes with the background. With many, the loss can take longer than the network.

    Raises:
        ValueError: no such device.
    """
    where = resolve_device(device)
    edge = _TIMED_EDGE[spatial_dims]
    config = {"spatial_dims": spatial_dims, "in_channels": 1, "features": _TIMED_FEATURES}
    config["out_channels"] = min(classes, _MOST_TIMED_CLASSES)
    cost = count_step(config, [edge] * spatial_dims, _TIMED_BATCH)
    processes = processes_here()
    shape, cores = (_TIMED_BATCH, 1, *[edge] * spatial_dims), max(1, _usable_cores() // processes)
    host = _total_bytes() // processes
    if where.type == "cuda":
        memory = int(torch.cuda.get_device_properties(where).total_memory)
        network_s, loss_s = _time_step(config, shape, where)
        return Machine(cost.operations / network_s, memory, cores, where.type, host, cost.logits / loss_s)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network_s, loss_s = _time_step(config, shape, where)
    finally:
        torch.set_num_threads(threads)
    computing = min(cores, threads)
    speed, logits_per_s = cost.operations / network_s * computing, cost.logits / loss_s * computing
    return Machine(speed, host, cores, where.type, logits_per_s=logits_per_s)


def count_step(config: Mapping[str, Any], patch_size: list[int], batch_size: int) -> StepCost:
    """Count the cost of one training step without computing it; a ``ValueError`` if there can be no such network.

    Each is counted once, as a plan asks again for each value that was set by hand.
    """
    try:
        return _count(json.dumps([config, patch_size]), batch_size)
    except RuntimeError as e:
        raise ValueError(
            f"patch_size, features and kernel_size must not be that large, got {patch_size}, {config['features']} and "
            f"{config.get('kernel_size')}: no memory holds such a network. Set smaller ones."
        ) from e


@functools.lru_cache(maxsize=256)
def _count(described: str, batch_size: int) -> StepCost:
    config, patch_size = json.loads(described)
    with torch.device("meta"):
        network = NestedUNet(**config).train()
        patch = torch.empty(1, config["in_channels"], *patch_size)
    weights = sum(parameter.numel() for parameter in network.parameters())
    logits = len(network.levels) * batch_size * config["out_channels"] * math.prod(patch_size)
    # weights, gradients, two averages of the optimizer, and the moving average
    memory = batch_size * _kept_bytes(network, patch) + 5 * 4 * weights + _LOSS_TENSORS * 4 * logits
    return StepCost(float(_PASSES * batch_size * count_flops(network, patch)), memory, logits)


def _kept_bytes(network: torch.nn.Module, patch: torch.Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass, in fp32, beside the weights."""
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    # hold the storages, so that their addresses differ
    storages: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(patch)
    return sum(storage.nbytes() for address, storage in storages.items() if address not in weights)


def _total_bytes() -> int:
    """Total memory of the machine or its container, as the free memory would change from plan to plan."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        total = _ASSUMED_MEMORY
    return min(total, container_limit_bytes() or total)


def _usable_cores() -> int:
    """Cores that this process may use, also by the quota of its container, if the system reports it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(_quota_cores() or cores)))


def _quota_cores() -> float | None:
    """The processor time that the container may take, in cores; None without a limit."""
    for files in _QUOTAS:
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            # "max" means no limit, a ValueError here
            quota, period = map(int, " ".join(Path(file).read_text(encoding="utf-8") for file in files).split())
            return quota / period if quota > 0 else None
    return None


def _time_step(config: Mapping[str, Any], shape: tuple[int, ...], device: torch.device) -> tuple[float, float]:
    """Seconds of the network and of the loss in a training step, after a warm-up; each the fastest of some rounds.

    On a CPU, the time in which it worked for this process.
    """
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(shape, generator=generator).to(device)
    label = (image * config["out_channels"]).long()
    with torch.random.fork_rng(devices=[]):
        network = NestedUNet(**config).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    loss, bf16 = _training_loss(), resolve_precision("auto", device) == "bf16"
    rounds = []
    for _ in range(1 + _ROUNDS):
        marks = [_now(clock, device)]
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            heads = network(image)
        marks.append(_now(clock, device))
        logits = [head.detach().float().requires_grad_() for head in heads]
        gradients = torch.autograd.grad(loss(logits, label), logits)
        marks.append(_now(clock, device))
        torch.autograd.backward(heads, [each.to(head.dtype) for each, head in zip(gradients, heads, strict=True)])
        optimizer.step()
        marks.append(_now(clock, device))
        forward, in_loss, backward = (after - before for before, after in itertools.pairwise(marks))
        rounds.append((forward + backward, in_loss))
    network_s, loss_s = (min(seconds) for seconds in zip(*rounds[1:], strict=True))
    return network_s, max(loss_s, _TICK_S)


def _now(clock: Callable[[], float], device: torch.device) -> float:
    synchronize(device)
    return clock()


def _training_loss() -> NestedDeepSupervisionLoss:
    """The loss of every planned training."""
    parser = ConfigParser({"plain_loss": read_object(_TEMPLATE)["plain_loss"]})
    return NestedDeepSupervisionLoss(parser.get_parsed_content("plain_loss"))
