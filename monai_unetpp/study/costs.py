"""What each row of a study's table costs: the network as it would really be used."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from monai_unetpp.files import write_json
from monai_unetpp.inferers import PrecisionInferer
from monai_unetpp.inferers.head_averaging import mean_of_heads
from monai_unetpp.measuring.environment import Environment
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.rounds import time_rounds
from monai_unetpp.measuring.size import count_flops, count_parameters
from monai_unetpp.networks import NestedUNet
from monai_unetpp.plain_values import from_plain, to_plain
from monai_unetpp.study.variants import MEAN_OF_HEADS


@dataclasses.dataclass(frozen=True)
class RowLatency:
    """How long one window takes.

    Attributes:
        seconds: time for one window.
        ratio: to the reference in the same round; None without a reference.
    """

    seconds: Quartiles
    ratio: Quartiles | None


class MeanOfHeads(nn.Module):
    """A nested U-Net with one more level: the mean of all heads, as ``segment`` takes it.

    Args:
        network: with deep supervision.

    Attributes:
        config: that of the network.
        levels: those of the network, and :data:`~monai_unetpp.study.variants.MEAN_OF_HEADS`.
    """

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
    if level == MEAN_OF_HEADS:
        return MeanOfHeads(network).eval()
    return network.prune(level).eval()


def network_size(network: NestedUNet, level: str, window_shape: Sequence[int]) -> dict[str, int]:
    """``parameters`` of a network cut to a level, and ``flops`` of one window ``(H, W[, D])``.

    A multiplication and an addition count as two.
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
    """Time one window with every network, in rounds of shuffled order, so that noise affects all of them alike.

    Args:
        networks: by name of their row, in eval mode.
        in_channels: channels of the window.
        window_shape: ``(H, W[, D])``.
        reference: name of the row that ratios refer to, or None.
        device: where to measure.
        precision: such as ``"bf16"``.
        repeats: measured rounds.
        warm_up: unmeasured rounds before them.
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


def write_latencies(path: Path, latencies: Mapping[str, RowLatency], environment: Environment) -> None:
    """Write the latencies and the environment in which they were measured."""
    write_json(path, to_plain({"environment": environment, "rows": latencies}), indent=1)


def read_latencies(
    path: Path, names: Sequence[str], environment: Environment
) -> tuple[dict[str, RowLatency], Environment] | None:
    """What :func:`write_latencies` wrote; None if it is missing or damaged, or of other rows or another environment."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        before = from_plain(Environment, content["environment"], "environment")
        latencies = {name: from_plain(RowLatency, row, name) for name, row in content["rows"].items()}
    except (ValueError, TypeError, LookupError, AttributeError):
        return None
    # measured at another time in the same way
    same = dataclasses.replace(before, date=environment.date) == environment
    return (latencies, before) if same and list(latencies) == list(names) else None
