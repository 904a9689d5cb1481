"""The cost of choosing the depth per window: operations by depth, time on real cases, and what the stages cost."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from torch._subclasses.fake_tensor import FakeTensorMode

from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.inferers.depth_gate import ADAPTIVE
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.rounds import time_rounds
from monai_unetpp.measuring.size import count_flops
from monai_unetpp.networks import NestedUNet

__all__ = ["level_operations", "time_adaptive"]

_NEVER = 0.0
"""The tolerance at which no window stops."""


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
    inferers: Mapping[str, NestedSlidingWindowInferer],
    images: Sequence[torch.Tensor],
    tolerances: Sequence[float],
    device: torch.device,
    repeats: int,
    seed: int = 0,
) -> tuple[dict[float, Quartiles], dict[str, Quartiles]]:
    """Total time of the images at each tolerance, relative to the deepest level in the same round.

    At tolerance 0 no window stops: this shows what it costs to run the network in stages. Real images are needed: in
    noise, all windows would have the same depth.

    Args:
        network: the whole network.
        inferers: by runtime, the one that runs the network at the tolerances first.
        images: prepared images, ``(C, H, W[, D])`` each.
        tolerances: at which windows stop.
        device: where to run.
        repeats: measured rounds, after one warm-up round.
        seed: of the order within the rounds.

    Returns:
        The times by tolerance, and the times without a stop by runtime.
    """
    batches = [image.as_tensor() if isinstance(image, MetaTensor) else image for image in images]
    batches = [image[None].to(device, torch.float32) for image in batches]
    deepest = network.prune(network.levels[-1]).eval().to(device)
    network.eval().to(device)
    own = next(iter(inferers))
    tasks: dict[tuple[str, float | None], Callable[[], Any]] = {}
    for runtime, inferer in inferers.items():
        static = inferer.with_options(levels=None, adaptive_tolerance=None, output="labels")
        tasks[runtime, None] = functools.partial(_segment, static, batches, deepest)
        for tolerance in (_NEVER, *(tolerances if runtime == own else ())):
            staged = inferer.with_options(levels=ADAPTIVE, adaptive_tolerance=tolerance, output="labels")
            tasks[runtime, tolerance] = functools.partial(_segment, staged, batches, network)
    seconds = time_rounds(tasks, repeats=repeats, warm_up=1, device=device, seed=seed, name="Adaptive depth")
    ratios = {key: Quartiles.of_ratios(found, seconds[key[0], None]) for key, found in seconds.items()}
    return {each: ratios[own, each] for each in tolerances}, {runtime: ratios[runtime, _NEVER] for runtime in inferers}


def _segment(inferer: NestedSlidingWindowInferer, images: Sequence[torch.Tensor], network: NestedUNet) -> None:
    for image in images:
        inferer(image, network)
