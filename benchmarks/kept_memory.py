"""How much faster training steps are where the memory that they free is kept for the next step.

Run ``python -m benchmarks.kept_memory BUNDLE ...``, with bundles that ``monai-unetpp plan`` wrote. Steps of the planned
network on random patches, with memory kept and given back to the system, take turns in one process. Only on a CPU, with
the GNU C library.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import offer_table, run_command
from monai_unetpp.bundles import BundleConfig
from monai_unetpp.measuring.environment import describe_environment
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.rounds import shuffled_rounds
from monai_unetpp.reporting.markdown import format_table
from monai_unetpp.reporting.numbers import join_shape
from monai_unetpp.training import accelerate
from monai_unetpp.training.freed_memory import keep_freed_memory, return_freed_memory

_KEPT, _RETURNED = "kept", "given back"
_SWITCHES: dict[str, Callable[[], Any]] = {_KEPT: keep_freed_memory, _RETURNED: return_freed_memory}


def time_steps(config: BundleConfig, rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds of a training step of ``train.json`` with memory kept and given back, for each round.

    In a turn, so many steps are timed after one that is not.

    Raises:
        ValueError: this C library cannot keep memory.
    """
    if not keep_freed_memory():
        raise ValueError("memory can be kept only by the GNU C library. Run it on a usual Linux system.")
    channels, classes, size = (config.parse(key) for key in ("in_channels", "out_channels", "patch_size"))
    shape = config.parse("batch_size"), 1, *size
    image = torch.randn(shape[0], channels, *size)
    label = torch.randint(0, classes, shape)
    network, loss = config.parse("network"), config.parse("loss")
    accelerate(network, config.parse("channels_last"), config.parse("compile"))
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        loss(network(image), label).backward()
        optimizer.step()

    step()
    seconds: dict[str, list[float]] = {name: [] for name in _SWITCHES}
    for order in shuffled_rounds(_SWITCHES, rounds):
        for name in order:
            _SWITCHES[name]()
            step()
            start = time.perf_counter()
            for _ in range(steps):
                step()
            seconds[name].append((time.perf_counter() - start) / steps)
    return seconds


def main(arguments: list[str] | None = None) -> int:
    """Time the steps of all bundles, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kept_memory", description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="planned or trained bundle")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each (default: 10)")
    parser.add_argument("--steps", type=int, default=4, help="timed steps in a turn (default: 4)")
    offer_table(parser)
    return run_command(parser, arguments, _time_all)


def _time_all(bundles: list[Path], rounds: int, steps: int) -> Iterator[str]:
    rows = []
    for bundle in bundles:
        config = BundleConfig(bundle, "train.json", values={"device": "cpu"})
        seconds = time_steps(config, rounds, steps)
        rows.append(
            [
                bundle.name,
                ", ".join(map(str, config.parse("features"))),
                f"{config.parse('batch_size')} of {join_shape(config.parse('patch_size'))}",
                "yes" if config.parse("compile") else "no",
                *(Quartiles.of(seconds[name]).text(".2f") for name in (_RETURNED, _KEPT)),
                Quartiles.of_ratios(seconds[_RETURNED], seconds[_KEPT]).text(".2f"),
            ]
        )
        header = ["bundle", "features", "patches", "compiled", f"s per step, {_RETURNED}", _KEPT, "times as fast"]
        environment = describe_environment(torch.device("cpu"), "fp32", "torch")
        yield f"{format_table(header, rows)}\n\nMedian and quartiles of {rounds} rounds; {environment.line()}"


if __name__ == "__main__":
    raise SystemExit(main())
