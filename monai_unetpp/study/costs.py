"""What the rows of a study's table cost, each as the network that would really be used."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from monai_unetpp.inferers import PrecisionInferer
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.rounds import time_rounds
from monai_unetpp.measuring.size import count_flops, count_parameters
from monai_unetpp.networks import NestedUNet
from monai_unetpp.study.evaluate import MeanOfHeads
from monai_unetpp.study.runs import MEAN_OF_HEADS

__all__ = ["RowLatency", "cut_network", "measure_latencies", "network_size"]


@dataclasses.dataclass(frozen=True)
class RowLatency:
    """How long one window takes.

    Attributes:
        seconds: of one window.
        ratio: to the reference within the same round; None without a reference.
    """

    seconds: Quartiles
    ratio: Quartiles | None


def cut_network(network: NestedUNet, level: str) -> nn.Module:
    """What is needed to use ``network`` at ``level``: one head and its nodes, or all of it for the mean of heads."""
    if level == MEAN_OF_HEADS:
        return MeanOfHeads(network).eval()
    return network.prune(level).eval()


def network_size(network: NestedUNet, level: str, window_shape: Sequence[int]) -> dict[str, int]:
    """``parameters``, and ``flops`` of one window (a multiplication and an addition are two).

    Args:
        network: the trained network.
        level: where it is cut, or :data:`~monai_unetpp.study.runs.MEAN_OF_HEADS`.
        window_shape: ``(H, W[, D])``.
    """
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
    """Time one window of every network, in rounds of shuffled order: a noisy machine hits all of them alike.

    Args:
        networks: by name of their row, in eval mode.
        in_channels: of the window.
        window_shape: ``(H, W[, D])``.
        reference: name of the row that ratios refer to, or None.
        device: where to measure.
        precision: such as ``"bf16"``.
        repeats: measured rounds.
        warm_up: rounds before them.

    Raises:
        ValueError: fewer than one round.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be 1 or more, got {repeats}. Fifteen give a usable spread.")
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
