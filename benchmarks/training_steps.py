"""How much faster training steps on a CPU are by what ``monai_unetpp.training.accelerate`` does.

Run ``python -m benchmarks.training_steps BUNDLE ...``, with bundles that ``monai-unetpp plan`` wrote. Steps of the
planned network on random patches, with and without one of its means, take turns in one process: memory that a step
frees is kept for the next one, only with the GNU C library; or, with ``--means depth``, convolutions of volumes pad
the first axis themselves, only on processors with AVX2 and no AVX-512.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.command import offer_table, run_command
from monai_unetpp.bundles import BundleConfig
from monai_unetpp.measuring.environment import describe_environment
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.rounds import shuffled_rounds
from monai_unetpp.reporting.markdown import format_table
from monai_unetpp.reporting.numbers import join_shape
from monai_unetpp.training import accelerate
from monai_unetpp.training.acceleration import DepthPaddedConv3d, keep_freed_memory, return_freed_memory

_MEMORY, _DEPTH = "memory", "depth"
#: By means: how a step is without it, and with it.
_NAMES = {_MEMORY: ("given back", "kept"), _DEPTH: ("padded by the library", "by themselves")}
_Step = Callable[[], None]


def time_steps(config: BundleConfig, means: str, rounds: int, steps: int) -> tuple[list[float], list[float]]:
    """Seconds of a training step of ``train.json`` without and with a means, for each round.

    In a turn, so many steps are timed after one that is not.

    Raises:
        ValueError: the means does nothing here.
    """
    network = config.parse("network").train()
    ways = _memory_ways(config, network) if means == _MEMORY else _depth_ways(config, network)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _, step in ways:
        step()
    for order in shuffled_rounds(range(len(ways)), rounds):
        for way in order:
            switch, step = ways[way]
            switch()
            step()
            start = time.perf_counter()
            for _ in range(steps):
                step()
            seconds[way].append((time.perf_counter() - start) / steps)
    return seconds


def _memory_ways(config: BundleConfig, network: nn.Module) -> list[tuple[Callable[[], Any], _Step]]:
    if not keep_freed_memory():
        raise ValueError("memory can be kept only by the GNU C library. Run it on a usual Linux system.")
    step = _step(config, _accelerated(config, network))
    return [(return_freed_memory, step), (keep_freed_memory, step)]


def _depth_ways(config: BundleConfig, network: nn.Module) -> list[tuple[Callable[[], Any], _Step]]:
    without, padding = copy.deepcopy(network), _accelerated(config, network)
    if not any(isinstance(module, DepthPaddedConv3d) for module in padding.modules()):
        raise ValueError(
            "no convolution pads the first axis itself: that is for volumes, few channels, channels_last, and "
            "processors with AVX2 and no AVX-512. Name a bundle for volumes, or run it on such a processor."
        )
    without.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if config.parse("compile"):
        without.compile(dynamic=False)
    return [(keep_freed_memory, _step(config, each)) for each in (without, padding)]


def _accelerated(config: BundleConfig, network: nn.Module) -> nn.Module:
    return accelerate(network, config.parse("channels_last"), config.parse("compile"))


def _step(config: BundleConfig, network: nn.Module) -> _Step:
    channels, classes, size = (config.parse(key) for key in ("in_channels", "out_channels", "patch_size"))
    shape = config.parse("batch_size"), 1, *size
    image = torch.randn(shape[0], channels, *size)
    label = torch.randint(0, classes, shape)
    loss, optimizer = config.parse("loss"), torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        loss(network(image), label).backward()
        optimizer.step()

    return step


def main(arguments: list[str] | None = None) -> int:
    """Time the steps of all bundles, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_steps", description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="planned or trained bundle")
    parser.add_argument("--means", choices=list(_NAMES), default=_MEMORY, help=f"what to compare (default: {_MEMORY})")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each (default: 10)")
    parser.add_argument("--steps", type=int, default=4, help="timed steps in a turn (default: 4)")
    offer_table(parser)
    return run_command(parser, arguments, _time_all)


def _time_all(bundles: list[Path], means: str, rounds: int, steps: int) -> Iterator[str]:
    rows = []
    for bundle in bundles:
        config = BundleConfig(bundle, "train.json", values={"device": "cpu"})
        without, with_it = time_steps(config, means, rounds, steps)
        rows.append(
            [
                bundle.name,
                ", ".join(map(str, config.parse("features"))),
                f"{config.parse('batch_size')} of {join_shape(config.parse('patch_size'))}",
                "yes" if config.parse("compile") else "no",
                *(Quartiles.of(seconds).text(".2f") for seconds in (without, with_it)),
                Quartiles.of_ratios(without, with_it).text(".2f"),
            ]
        )
        first, second = _NAMES[means]
        header = ["bundle", "features", "patches", "compiled", f"s per step, {first}", second, "times as fast"]
        environment = describe_environment(torch.device("cpu"), "fp32", "torch")
        yield f"{format_table(header, rows)}\n\nMedian and quartiles of {rounds} rounds; {environment.line()}"


if __name__ == "__main__":
    raise SystemExit(main())
