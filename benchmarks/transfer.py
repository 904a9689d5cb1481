"""What weights of another bundle bring to a training, with few cases and with all.

Run ``python -m benchmarks.transfer DATASET_DIR SOURCE --work DIR --cases 3 12 --steps 600``. The plan is that of
``monai-unetpp plan DATASET_DIR --init SOURCE``. For each number of cases it is trained twice, from the weights of the
source and from random ones, on the same cases for the same number of steps with the same seed, and scored at every
level on the validation list, which selects nothing. A run that was interrupted goes on; one that is done is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import claim_work, offer_table, run_command
from benchmarks.recipe import difference, fixed_steps, mean_dice, tell
from monai_unetpp.data.datasets.datalist import load_datalist
from monai_unetpp.measuring.environment import describe_environment
from monai_unetpp.planning import plan
from monai_unetpp.planning.values import parse_settings
from monai_unetpp.reporting.markdown import format_table
from monai_unetpp.training_run.fitting import fit
from monai_unetpp.training_run.judging import score_fold

_ByLevel = Mapping[str, Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Both trainings on some cases: mean Dice over the labels, by level and case.

    ``transferred`` began with the weights of the source, ``fresh`` with random ones.
    """

    cases: int
    transferred: _ByLevel
    fresh: _ByLevel


def measure_transfer(dataset_dir: Path, source: str, work: Path, cases: int, steps: int) -> Transfer:
    """Train from the weights of ``source`` and from random ones, as far as that is not done.

    The cases are taken from the training list, evenly spread. ``work`` holds the planned ``bundle``.

    Raises:
        ValueError: the training list has fewer cases.
    """
    bundle, values = work / "bundle", {"dataset_dir": str(dataset_dir)}
    unseen, seen = (load_datalist(dataset_dir, key, work) for key in ("validation", "training"))
    if not 1 <= cases <= len(seen):
        raise ValueError(f"--cases must be from 1 to {len(seen)}, got {cases}.")
    chosen = [seen[int(place)] for place in np.linspace(0, len(seen) - 1, cases).round()]
    found = {}
    for name, init in (("transferred", source), ("fresh", None)):
        folder = work / f"{name}_{cases}"
        training = {**values, **fixed_steps(steps), "init": init}
        fit(bundle, folder, training, tell, name=f"{name}, {cases} cases", cases=chosen)
        found[name] = mean_dice(score_fold(bundle, unseen, folder, values))
    return Transfer(cases, **found)


def format_transfers(results: Sequence[Transfer], data_set: str, source: str, steps: int) -> str:
    """The table in Markdown: a row for each number of cases and start, and the paired difference."""
    levels = sorted(results[0].fresh)
    rows = []
    for each in results:
        for name, dice in ((source, each.transferred), ("random", each.fresh)):
            rows.append([str(each.cases), name, *(f"{np.mean(list(dice[level].values())):.4f}" for level in levels)])
        gains = (difference(each.transferred[level], each.fresh[level]) for level in levels)
        rows.append([str(each.cases), "difference, 95 % interval", *gains])
    count = len(next(iter(results[0].fresh.values())))
    table = format_table(["training cases", "first weights", *levels], rows, [True, False, *[True] * len(levels)])
    return (
        f"`{data_set}`, {count} unseen cases, {steps} steps, {describe_environment().line()}. Mean Dice over the "
        f"labels.\n\n{table}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run all trainings and print the table; it is renewed after each number of cases."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__)
    parser.add_argument("dataset_dir", type=Path, help="folder with dataset.json and its validation list")
    parser.add_argument("source", help="bundle or checkpoint with the weights")
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is made; a run goes on there")
    parser.add_argument("--cases", type=int, nargs="+", required=True, help="numbers of training cases")
    parser.add_argument("--steps", type=int, default=600, help="of each training (default: 600)")
    parser.add_argument("--set", dest="settings", action="append", metavar="KEY=VALUE", help="a value of the plan")
    offer_table(parser)
    return run_command(parser, arguments, _compare)


def _compare(
    dataset_dir: Path, source: str, work: Path, cases: Sequence[int], steps: int, settings: Sequence[str] | None
) -> Iterator[str]:
    folder, data = work.resolve(), dataset_dir.resolve()
    made: dict[str, Any] = {**parse_settings(settings), "steps": steps}
    claim_work(folder, {"data": str(data), "source": source, **made})
    if not (folder / "bundle").is_dir():
        plan(data, folder / "bundle", settings=made, init=source)
    results = []
    for count in cases:
        results.append(measure_transfer(data, source, folder, count, steps))
        yield format_transfers(results, data.name, Path(source).name, steps)


if __name__ == "__main__":
    raise SystemExit(main())
