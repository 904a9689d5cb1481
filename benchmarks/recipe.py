"""What each part of the training recipe brings: one network per variant, trained on the same patches, scored alike.

Run ``python -m benchmarks.recipe DATASET_DIR --work DIR --steps 1500``. Each variant is the plan of
``monai-unetpp plan`` with some values set, trained for the same number of steps with the same seed, and scored at every
level on the validation list. That list selects nothing, but for the variant in which each half of it selects the
weights that the other half is scored with. With ``--also FOLDER ...`` the validation lists of other data sets with the
same labels are scored too, such as the copies of ``benchmarks.altered``. A run that was interrupted goes on; one that
is done is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch.optim.swa_utils import AveragedModel

from benchmarks.command import claim_work, offer_table, run_command
from benchmarks.recipe_variants import CHOICES, CHOOSING, VARIANTS, Variant, whole_window
from monai_unetpp.bundles.json_files import read_object
from monai_unetpp.data.datasets.datalist import load_datalist
from monai_unetpp.files import write_json
from monai_unetpp.measuring.environment import describe_environment
from monai_unetpp.metrics import FOREGROUND
from monai_unetpp.networks import NestedUNet
from monai_unetpp.planning import load_plan, plan
from monai_unetpp.planning.values import parse_settings
from monai_unetpp.pruning.scoring.levels import Scores
from monai_unetpp.reporting.markdown import format_table
from monai_unetpp.training_run.fitting import Fitted, fit
from monai_unetpp.training_run.judging import score_fold, split_folds
from monai_unetpp.training_run.timing import time_case

_Cases = Mapping[str, float]
_ByLevel = Mapping[str, _Cases]


@dataclasses.dataclass(frozen=True)
class Result:
    """What a variant reached.

    Attributes:
        seconds: of training.
        dice: mean over the labels, by level and case.
        whole: the same with one window over the whole image; None where that was not asked for.
        training: the same as ``dice`` for cases of the training list.
        case_s: seconds of the network for an unseen case at all levels, in windows of its own and in one over the whole
            image; None where that was not asked for.
        also: the same as ``dice`` for the validation cases of other data sets, by name of the set.
    """

    seconds: float
    dice: _ByLevel
    whole: _ByLevel | None
    training: _ByLevel
    case_s: Sequence[float] | None = None
    also: Mapping[str, _ByLevel] = dataclasses.field(default_factory=dict)


def run_variant(
    dataset_dir: Path, work: Path, variant: Variant, whole: bool = False, also: Sequence[Path] = ()
) -> Result:
    """Plan, train and score one variant, as far as that is not done.

    With ``whole``, one window over the whole image is scored and timed too; with ``also``, the validation lists of
    other data sets are scored too.
    """
    bundle = work / "bundle"
    plan_variant(dataset_dir, bundle, variant)
    values = {"dataset_dir": str(dataset_dir)}
    unseen, seen = (load_datalist(dataset_dir, key, work) for key in ("validation", "training"))
    if variant.folds:
        fitted = _fit_folds(bundle, values, split_folds(seen, variant.folds))
    else:
        fitted = _fit(bundle, values, split_folds(unseen, len(CHOICES)) if variant.chooses else [])
    folders = [fitted.folder / name for name in CHOICES] if variant.chooses else [fitted.folder]

    def score(name: str, cases: Sequence[Mapping[str, Any]], **others: Any) -> _ByLevel:
        found: dict[str, dict[str, float]] = defaultdict(dict)
        for number, (part, folder) in enumerate(zip(split_folds(cases, len(folders)), folders, strict=True), start=1):
            kept = work / f"{name}_{number}"  # finished scores are kept beside the weights
            kept.mkdir(exist_ok=True)
            shutil.copyfile(folder / fitted.weights.name, kept / fitted.weights.name)
            for level, dice in mean_dice(score_fold(bundle, part, kept, {**values, **others})).items():
                found[level].update(dice)
        return dict(found)

    one_window = {"window_shape": whole_window(bundle)} if whole else {}
    timed = [time_case(bundle, unseen[0], {**values, **others})[0].network for others in ({}, one_window) if whole]
    return Result(
        fitted.seconds,
        score("unseen", unseen),
        score("whole", unseen, **one_window) if whole else None,
        score("seen", seen[: len(unseen)]),
        timed or None,
        {folder.name: score(f"also_{folder.name}", load_datalist(folder, "validation")) for folder in also},
    )


def _fit(bundle: Path, values: Mapping[str, Any], parts: Sequence[Sequence[Mapping[str, Any]]]) -> Fitted:
    """Train; each part of the unseen cases, if any are given, is scored with what the other one chooses."""
    training = fixed_steps(load_plan(bundle)["steps"])
    if parts:
        # the label keeps its grid, and so needs the key of the bundle's own validation
        lists = [[{"image": case["image"], "truth": case["label"]} for case in part] for part in reversed(parts)]
        training[CHOOSING] = lists
    return fit(bundle, bundle.with_name("training"), {**values, **training}, tell, name=bundle.parent.name)


def _fit_folds(bundle: Path, values: Mapping[str, Any], folds: Sequence[Sequence[Mapping[str, Any]]]) -> Fitted:
    """Train a network for each fold, without its cases, all from the same weights, and average them."""
    values = {**values, **fixed_steps(load_plan(bundle)["steps"])}
    trained = []
    for number in range(len(folds)):
        rest = [case for other, fold in enumerate(folds) if other != number for case in fold]
        name = f"{bundle.parent.name}, fold {number + 1}"
        trained.append(fit(bundle, bundle.with_name(f"fold_{number + 1}"), values, tell, name=name, cases=rest))
    networks = [NestedUNet.from_checkpoint(each.weights) for each in trained]
    average = AveragedModel(networks[0], use_buffers=True)
    for network in networks:
        average.update_parameters(network)
    folder = bundle.with_name("training")
    folder.mkdir(exist_ok=True)
    fitted = dataclasses.replace(trained[0], folder=folder, seconds=sum(each.seconds for each in trained))
    torch.save(average.module.state_dict(), fitted.weights)
    return fitted


def fixed_steps(steps: int) -> dict[str, Any]:
    """What a training of a benchmark has besides its plan: a number of steps, and frequent checkpoints."""
    return {"steps": steps, "record_cases": False, "checkpoint_seconds": 30.0, "checkpoint_steps": 10}


def plan_variant(dataset_dir: Path, bundle: Path, variant: Variant) -> None:
    """Plan a variant unless it is planned: first without the values that are derived from a plan, if there are any."""
    if bundle.is_dir():
        return
    first, made = bundle.with_name("first"), bundle.with_name("planned")
    if variant.derived:
        plan(dataset_dir, first, settings=variant.values)
    derived = {name: derive(first) for name, derive in variant.derived.items()}
    plan(dataset_dir, made, settings={**variant.values, **derived})
    if variant.change is not None:
        path = made / "configs" / "train.json"
        content = read_object(path)
        variant.change(content)
        write_json(path, content, indent=4)
    made.rename(bundle)


def mean_dice(scores: Scores) -> dict[str, dict[str, float]]:
    """The mean Dice over the labels, by level and case."""
    by_case: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in scores.rows:
        if row.label != FOREGROUND and row.score.dice is not None:
            by_case[row.point][row.case].append(row.score.dice)
    return {level: {case: float(np.mean(found)) for case, found in cases.items()} for level, cases in by_case.items()}


def format_results(results: Mapping[str, Result], data_set: str, steps: int) -> str:
    """Tables in Markdown: mean Dice by variant and level, and the paired difference from the first variant."""
    names = list(results)
    base = results[names[0]]
    levels = sorted(base.dice)
    header = [
        "variant",
        "time",
        *levels,
        *(f"{level} - {names[0]}, 95 % interval" for level in levels),
        "training - unseen",
    ]
    rows = []
    for name, result in results.items():
        gap = _mean(result.training[levels[-1]]) - _mean(result.dice[levels[-1]])
        scores = _beside(result.dice, base.dice, levels)
        rows.append([name, f"{result.seconds / 60:.1f} min", *scores, f"{gap:+.4f}"])
        if result.whole is not None:
            large = [difference(result.whole[level], result.dice[level]) for level in levels]
            times = "" if result.case_s is None else "{1:.1f} - {0:.1f} s".format(*result.case_s)
            rows.append([f"{name}: one window - its own windows", times, *large, *[""] * len(levels), ""])
        for other, dice in result.also.items():
            rows.append([f"{name}: {other}", "", *_beside(dice, base.also[other], levels), ""])
    lines = (
        f"`{data_set}`, {len(next(iter(base.dice.values())))} unseen cases, {steps} steps, "
        f"{describe_environment().line()}. Mean Dice over the labels; the last column is that of the deepest level on "
        "as many training cases minus that on the unseen ones. Times are those of the training or, for windows, of the "
        "network for the first unseen case at all levels."
    )
    return f"{lines}\n\n{format_table(header, rows)}"


def _beside(dice: _ByLevel, base: _ByLevel, levels: Sequence[str]) -> list[str]:
    """The means by level, and their differences from those of the first variant; empty for itself."""
    differences = ("" if dice is base else difference(dice[level], base[level]) for level in levels)
    return [*(f"{_mean(dice[level]):.4f}" for level in levels), *differences]


def _mean(cases: _Cases) -> float:
    return float(np.mean(list(cases.values())))


def difference(cases: Mapping[str, float], others: Mapping[str, float]) -> str:
    """The mean of paired differences over the cases that are in both, with its 95 % interval."""
    found: npt.NDArray[np.float64] = np.array([cases[case] - others[case] for case in cases if case in others])
    half = stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found))
    return f"{found.mean():+.4f} ({found.mean() - half:+.4f} to {found.mean() + half:+.4f})"


def tell(line: str) -> None:
    """Print a line to standard error."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run all variants and print the table; it is renewed after each of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipe", description=__doc__)
    parser.add_argument("dataset_dir", type=Path, help="folder with dataset.json and its validation list")
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is made; a run goes on there")
    parser.add_argument("--steps", type=int, default=1500, help="of each training (default: 1500)")
    parser.add_argument(
        "--set", dest="settings", action="append", metavar="KEY=VALUE", help="a value of the plan for all variants"
    )
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="variants (default: all)")
    parser.add_argument("--whole", action="store_true", help="score and time one window over the whole image too")
    parser.add_argument(
        "--also", type=Path, nargs="+", default=[], metavar="FOLDER", help="other data sets with these labels to score"
    )
    offer_table(parser)
    return run_command(parser, arguments, _compare)


def _compare(
    dataset_dir: Path,
    work: Path,
    steps: int,
    settings: Sequence[str] | None,
    only: Sequence[str],
    whole: bool,
    also: Sequence[Path],
) -> Iterator[str]:
    others = [folder.resolve() for folder in also]
    common = {**parse_settings(settings), "steps": steps}
    results = {}
    for name in only:
        variant = dataclasses.replace(VARIANTS[name], values={**common, **VARIANTS[name].values})
        own = work.resolve() / name.replace(" ", "_").replace(",", "")
        claim_work(own, {"data": str(dataset_dir.resolve()), **common})
        results[name] = run_variant(dataset_dir.resolve(), own, variant, whole, others)
        yield format_results(results, dataset_dir.resolve().name, steps)


if __name__ == "__main__":
    raise SystemExit(main())
