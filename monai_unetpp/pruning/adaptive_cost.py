"""The cost of choosing the depth per window: operations by depth, and time on real cases."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from torch._subclasses.fake_tensor import FakeTensorMode

from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.rounds import time_rounds
from monai_unetpp.measuring.size import count_flops
from monai_unetpp.networks import NestedUNet

__all__ = ["level_operations", "time_adaptive"]


def level_operations(network: NestedUNet, window_shape: Sequence[int]) -> dict[str, float]:
    """Operations of a window that stops at a level, relative to the deepest level alone.

    A window that stops at a level has computed all shallower levels and their heads. So reaching the deepest level
    costs a little more than computing it alone.

    Args:
        network: the whole network.
        window_shape: spatial shape of a window.
    """
    levels = network.levels
    device = next(network.parameters()).device
    # operations are counted without computing anything
    with FakeTensorMode(allow_non_fake_inputs=True):
        window = torch.zeros((1, network.in_channels, *window_shape), device=device)
        deepest = count_flops(network.eval(), window)
        return {
            level: count_flops(functools.partial(network.forward_levels, levels=levels[: number + 1]), window) / deepest
            for number, level in enumerate(levels)
        }


def time_adaptive(
    network: NestedUNet,
    inferer: NestedSlidingWindowInferer,
    images: Sequence[torch.Tensor],
    tolerances: Sequence[float],
    device: torch.device,
    repeats: int,
    seed: int = 0,
) -> dict[float, Quartiles]:
    """Total time of the images at each tolerance, relative to the deepest level in the same round.

    Real images are needed: in noise, all windows would have the same depth.

    Args:
        network: the whole network.
        inferer: runs the network.
        images: prepared images, ``(C, H, W[, D])`` each.
        tolerances: at which windows stop.
        device: where to run.
        repeats: measured rounds, after one warm-up round.
        seed: of the order within the rounds.
    """
    batches = [image.as_tensor() if isinstance(image, MetaTensor) else image for image in images]
    batches = [image[None].to(device, torch.float32) for image in batches]
    deepest = network.prune(network.levels[-1]).eval().to(device)
    network.eval().to(device)
    static = inferer.with_options(levels=None, adaptive_tolerance=None, output="labels")
    tasks: dict[float | None, Callable[[], Any]] = {None: functools.partial(_segment, static, batches, deepest)}
    for tolerance in tolerances:
        chosen = inferer.with_options(levels="adaptive", adaptive_tolerance=tolerance, output="labels")
        tasks[tolerance] = functools.partial(_segment, chosen, batches, network)
    seconds = time_rounds(tasks, repeats=repeats, warm_up=1, device=device, seed=seed, name="Adaptive depth")
    return {tolerance: Quartiles.of_ratios(seconds[tolerance], seconds[None]) for tolerance in tolerances}


def _segment(inferer: NestedSlidingWindowInferer, images: Sequence[torch.Tensor], network: NestedUNet) -> None:
    for image in images:
        inferer(image, network)
