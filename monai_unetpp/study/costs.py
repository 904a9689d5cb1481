"""What each row of a study's table costs: the network as it would really be used."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from monai_unetpp.inferers import PrecisionInferer
from monai_unetpp.inferers.head_averaging import mean_of_heads
from monai_unetpp.measuring.environment import Environment
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.rounds import time_rounds
from monai_unetpp.measuring.size import count_flops, count_parameters
from monai_unetpp.networks import NestedUNet
from monai_unetpp.plain_values import from_plain
from monai_unetpp.study.variants import MEAN_OF_HEADS


@dataclasses.dataclass(frozen=True)
class RowLatency:
    """How long one window takes, and its ratio to the reference in the same round, if there is one."""

    seconds: Quartiles
    ratio: Quartiles | None


@dataclasses.dataclass(frozen=True)
class Latencies:
    """The latency of each row by name, and the environment in which they were measured."""

    environment: Environment
    rows: dict[str, RowLatency]


class MeanOfHeads(nn.Module):
    """A nested U-Net with deep supervision and one more level: the mean of all heads, as ``segment`` takes it."""

    def __init__(self, network: NestedUNet) -> None:
        super().__init__()
        self.network = network
        self.config = network.config
        self.spatial_dims = network.spatial_dims
        self.in_channels = network.in_channels
        self.levels = (*network.levels, MEAN_OF_HEADS)

    def forward_levels(self, x: torch.Tensor, levels: Sequence[str]) -> dict[str, torch.Tensor]:
        """Logits ``(B, C, H, W[, D])`` of each level; those of the mean come from :func:`mean_of_heads`."""
        if MEAN_OF_HEADS not in levels:
            return self.network.forward_levels(x, levels)
        outputs = self.network.forward_levels(x)
        outputs[MEAN_OF_HEADS] = mean_of_heads(list(outputs.values()))
        return {level: outputs[level] for level in levels}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The mean ``(B, C, H, W[, D])`` alone."""
        return self.forward_levels(x, [MEAN_OF_HEADS])[MEAN_OF_HEADS]


def cut_network(network: NestedUNet, level: str) -> nn.Module:
    """The part of ``network`` that ``level`` needs: one head and its nodes, or everything for the mean of heads."""
    return (MeanOfHeads(network) if level == MEAN_OF_HEADS else network.prune(level)).eval()


def network_size(network: NestedUNet, level: str, window_shape: Sequence[int]) -> dict[str, int]:
    """``parameters`` of a network cut to a level, and ``flops`` of one window ``(H, W[, D])``."""
    cut = cut_network(network, level)
    device = next(cut.parameters()).device
    window = torch.zeros((1, network.in_channels, *window_shape), device=device)
    return {"parameters": count_parameters(cut), "flops": count_flops(cut, window)}


def measure_latencies(
    networks: Mapping[str, nn.Module],
    in_channels: int,
    window_shape: Sequence[int],
    *,
    reference: str | None,
    device: torch.device,
    precision: str,
    repeats: int = 15,
    warm_up: int = 2,
) -> dict[str, RowLatency]:
    """Time one window ``(H, W[, D])`` with every network, in rounds of shuffled order, so that noise affects all alike.

    ``networks`` are in eval mode, by name of their row; ratios are to that of the row ``reference``, if there is one.
    """
    inferer = PrecisionInferer(precision=precision)
    window = torch.randn((1, in_channels, *window_shape), generator=torch.Generator().manual_seed(0)).to(device)
    for network in networks.values():
        network.to(device)
    tasks = {name: functools.partial(inferer, window, network) for name, network in networks.items()}
    with torch.no_grad():
        seconds = time_rounds(tasks, repeats=repeats, warm_up=warm_up, device=device, name="Latency")
    base = None if reference is None else seconds.get(reference)
    return {
        name: RowLatency(Quartiles.of(each), None if base is None else Quartiles.of_ratios(each, base))
        for name, each in seconds.items()
    }


def read_latencies(path: Path, names: Sequence[str], environment: Environment) -> Latencies | None:
    """The latencies in a JSON file; None if it is missing or damaged, or of other rows or another environment."""
    try:
        found = from_plain(Latencies, json.loads(path.read_text(encoding="utf-8")), path.name)
    except (FileNotFoundError, ValueError):
        return None
    # measured at another time in the same way
    same = dataclasses.replace(found.environment, date=environment.date) == environment
    return found if same and list(found.rows) == list(names) else None
