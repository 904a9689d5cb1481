"""What a training step costs in time and memory, beside MONAI's BasicUNetPlusPlus."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNetPlusPlus
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from monai_unetpp.losses import NestedDeepSupervisionLoss
from monai_unetpp.measuring.environment import Environment, describe_environment
from monai_unetpp.measuring.memory import PeakMemory, measure_in_new_processes
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.rounds import time_rounds
from monai_unetpp.measuring.size import count_parameters
from monai_unetpp.networks import NestedUNet
from monai_unetpp.reporting.markdown import format_table

QUICK: dict[str, Any] = {"features": (4, 8, 8, 8, 8), "patch_size": (32,) * 3, "batch_size": 1, "repeats": 2}
"""Arguments for a run that only shows that it works."""

_MONAI = "BasicUNetPlusPlus"
_OURS = "NestedUNet"
_CHECKPOINTED = "NestedUNet, use_checkpoint"
_CONTENDERS = (_MONAI, _OURS, _CHECKPOINTED)


@dataclasses.dataclass(frozen=True)
class TrainingCost:
    """What training one network costs.

    Attributes:
        name: the network.
        parameters: number of parameters.
        step_s: seconds per training step: forward, loss of all heads, backward, optimizer.
        time_ratio: its time as a share of that of the first network in the same round.
        activation_bytes: memory that the forward pass keeps for the backward pass: parameters, input and target are
            not counted.
        peak_memory_bytes: most memory in use during a step: device memory on CUDA, on a CPU the growth of the
            resident set of a separate process, without what libraries load once.
    """

    name: str
    parameters: int
    step_s: Quartiles
    time_ratio: Quartiles
    activation_bytes: int
    peak_memory_bytes: int


@dataclasses.dataclass(frozen=True)
class TrainingBenchmark:
    """Training costs measured in one run; the first network is what the others are compared with."""

    features: tuple[int, ...]
    patch_size: tuple[int, ...]
    batch_size: int
    costs: tuple[TrainingCost, ...]
    environment: Environment

    def ratios(self, cost: TrainingCost) -> dict[str, float]:
        """Time, activation memory and peak memory of ``cost`` as shares of those of the first network."""
        first = self.costs[0]
        return {
            "time": cost.time_ratio.median,
            "activations": cost.activation_bytes / first.activation_bytes,
            "peak_memory": cost.peak_memory_bytes / first.peak_memory_bytes,
        }


@dataclasses.dataclass(frozen=True)
class _Task:
    features: tuple[int, ...]
    patch_size: tuple[int, ...]
    batch_size: int
    device: str


def measure_training(
    features: Sequence[int] = (16, 32, 64, 128, 256),
    patch_size: Sequence[int] = (64, 64, 64),
    batch_size: int = 2,
    repeats: int = 10,
    warm_up: int = 2,
    device: str = "cpu",
) -> TrainingBenchmark:
    """Compare ``NestedUNet``, with and without ``use_checkpoint``, with ``BasicUNetPlusPlus`` in training.

    All have deep supervision, the same features, norm and activation, the same loss (cross-entropy plus Dice, at
    every head) and the same data. Steps alternate between the networks, so that a noisy machine hits all alike. Patches
    may have two or three axes, of 32 or more.
    """
    task = _Task(tuple(features), tuple(patch_size), batch_size, device)
    memory = _measure_memory(task)
    steps = {name: _training_step(*_build(name, task)) for name in _CONTENDERS}
    seconds = time_rounds(steps, repeats=repeats, warm_up=warm_up, device=device, name="Training step")
    costs = tuple(
        TrainingCost(
            name=name,
            step_s=Quartiles.of(seconds[name]),
            time_ratio=Quartiles.of_ratios(seconds[name], seconds[_MONAI]),
            **memory[name],
        )
        for name in _CONTENDERS
    )
    environment = describe_environment(device, "fp32")
    return TrainingBenchmark(task.features, task.patch_size, task.batch_size, costs, environment)


def format_training_benchmark(result: TrainingBenchmark) -> str:
    """The results as a table in Markdown, each network beside the first one."""
    shape = " x ".join(str(size) for size in result.patch_size)
    columns = ["network", "parameters", "step (quartiles)", "share of time (quartiles, per round)"]
    columns += ["kept for backward", "share", "peak memory", "share"]
    rows = []
    for cost in result.costs:
        ratios = result.ratios(cost)
        row = [cost.name, f"{cost.parameters / 1e6:.2f} M", cost.step_s.text(".3f", " s"), cost.time_ratio.text(".2f")]
        row += [f"{cost.activation_bytes / 2**20:.0f} MiB", f"{ratios['activations']:.2f}"]
        rows.append([*row, f"{cost.peak_memory_bytes / 2**20:.0f} MiB", f"{ratios['peak_memory']:.2f}"])
    return (
        f"Training in {len(result.patch_size)}D, features {', '.join(map(str, result.features))}, {result.batch_size} "
        f"x {shape}, deep supervision, {result.environment.precision}\n{result.environment.line()}\n\n"
        f"{format_table(columns, rows)}\n"
    )


def _build(name: str, task: _Task) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    common: dict[str, Any] = {"spatial_dims": len(task.patch_size), "in_channels": 1, "out_channels": 2}
    if name == _MONAI:
        network: nn.Module = BasicUNetPlusPlus(
            **common, features=(*task.features, task.features[0]), deep_supervision=True
        )
    else:
        network = NestedUNet(**common, features=task.features, use_checkpoint=name == _CHECKPOINTED)
    shape = (task.batch_size, 1, *task.patch_size)
    image = torch.rand(shape, device=task.device)
    label = (torch.rand(shape, device=task.device) > 0.5).float()
    return network.to(task.device).train(), image, label


def _training_step(network: nn.Module, image: torch.Tensor, label: torch.Tensor) -> Callable[[], None]:
    loss = NestedDeepSupervisionLoss(DiceCELoss(softmax=True, to_onehot_y=True))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(network(image), label).backward()
        optimizer.step()

    return step


def _measure_memory(task: _Task) -> dict[str, dict[str, int]]:
    if torch.device(task.device).type == "cuda":
        return {name: _measured_memory(name, task) for name in _CONTENDERS}
    jobs = {name: (name, task) for name in _CONTENDERS}
    return measure_in_new_processes(_memory_after_first_step, jobs, remedy="give a smaller patch_size or batch_size")


def _memory_after_first_step(name: str, task: _Task) -> dict[str, int]:
    smallest = dataclasses.replace(task, patch_size=(32,) * len(task.patch_size), batch_size=1)
    # what the first step of any network brings (threads, libraries, compiled kernels) is not this network's cost
    _training_step(*_build(name, smallest))()
    return _measured_memory(name, task)


def _measured_memory(name: str, task: _Task) -> dict[str, int]:
    peak = PeakMemory(task.device)
    network, image, label = _build(name, task)
    _training_step(network, image, label)()
    return {
        "peak_memory_bytes": peak.bytes(),
        "parameters": count_parameters(network),
        "activation_bytes": activation_bytes(network, image),
    }


class _StorageRecorder(TorchDispatchMode):
    """Notes the storage of every tensor that is made, without keeping it alive."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                reference = StorageWeakRef(storage)
                self.storages[reference.cdata] = (reference, storage.nbytes())
        return result


def activation_bytes(network: nn.Module, image: torch.Tensor) -> int:
    """Bytes of all tensors made in the forward pass that are still there after it, the outputs included."""
    recorder = _StorageRecorder()
    own = {
        StorageWeakRef(tensor.untyped_storage()).cdata for tensor in (*network.parameters(), *network.buffers(), image)
    }
    with recorder:
        outputs = network(image)
    alive = sum(
        size for key, (reference, size) in recorder.storages.items() if key not in own and not reference.expired()
    )
    del outputs
    return alive
