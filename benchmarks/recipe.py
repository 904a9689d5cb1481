"""What each part of the training recipe brings: one network per variant, trained on the same patches, scored alike.

Run ``python -m benchmarks.recipe DATASET_DIR --work DIR --steps 1500``. Each variant is the plan of
``monai-unetpp plan`` with some values set, trained for the same number of steps with the same seed, and scored at every
level on the validation list, which selects nothing. A run that was interrupted goes on; one that is done is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from monai_unetpp.data.datalist import load_datalist
from monai_unetpp.files import write_text
from monai_unetpp.measuring.environment import describe_environment
from monai_unetpp.metrics import FOREGROUND
from monai_unetpp.planning import load_plan, plan
from monai_unetpp.planning.values import parse_settings
from monai_unetpp.pruning.score import Scores
from monai_unetpp.reporting.markdown import format_table
from monai_unetpp.training_run.fitting import fit
from monai_unetpp.training_run.judging import score_fold


def halve(levels: int) -> list[float]:
    """Weights of the losses by level, the shallowest first: each level counts half as much as the next."""
    return [0.5 ** (levels - level) for level in range(1, levels + 1)]


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "recipe": {},
    "instance norm": {"norm": "instance"},
    "last weights, not averaged": {"ema": None},
    "averaged over five times as many steps": {"ema": 0.2},
    "self-distillation 1": {"distillation": 1.0},
    "light augmentation": {"augmentation": "light"},
    "strong augmentation to the end": {"late_share": 0.0},
    "weight decay 0.01": {"weight_decay": 0.01},
    "all classes weigh the same": {"class_weights": None},
    "dropout 0.1": {"dropout": 0.1},
    "each level weighs half of the next": {"level_weights": halve},
}
"""Values of the plan that are set, by name of the variant; the first one is what others are compared with. A function
gives the value for a number of levels."""

_Cases = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Result:
    """What a variant reached.

    Attributes:
        seconds: of training.
        dice: mean over the labels, by level and case.
        whole: the same with one window over the whole image; None where that was not asked for.
        training: the same as ``dice`` for cases of the training list.
    """

    seconds: float
    dice: Mapping[str, _Cases]
    whole: Mapping[str, _Cases] | None
    training: Mapping[str, _Cases]


def run_variant(dataset_dir: Path, work: Path, settings: Mapping[str, Any], whole: bool) -> Result:
    """Plan, train and score one variant, as far as that is not done.

    Args:
        dataset_dir: folder of the data set.
        work: folder of the variant.
        settings: values of the plan that are set.
        whole: whether to score with one window over the whole image too.
    """
    bundle, folder = work / "bundle", work / "training"
    plan_variant(dataset_dir, bundle, settings)
    values = {"dataset_dir": str(dataset_dir)}
    training = {"steps": load_plan(bundle)["steps"], "checkpoint_seconds": 30.0, "checkpoint_steps": 10}
    fitted = fit(bundle, folder, {**values, **training}, _tell, name=work.name)
    unseen, seen = (load_datalist(dataset_dir, key, work) for key in ("validation", "training"))

    def score(name: str, cases: Sequence[Mapping[str, Any]], **others: Any) -> dict[str, dict[str, float]]:
        kept = work / name  # finished scores are kept beside the weights, so each list gets a folder of its own
        kept.mkdir(exist_ok=True)
        shutil.copyfile(fitted.weights, kept / fitted.weights.name)
        return _mean_dice(score_fold(bundle, cases, kept, {**values, **others}))

    return Result(
        fitted.seconds,
        score("unseen", unseen),
        score("whole", unseen, window_shape=_whole_window(bundle)) if whole else None,
        score("seen", seen[: len(unseen)]),
    )


def plan_variant(dataset_dir: Path, bundle: Path, settings: Mapping[str, Any]) -> None:
    """Plan a variant unless it is planned: first without what depends on the number of levels, if anything does.

    Args:
        dataset_dir: folder of the data set.
        bundle: folder of the bundle, which is made.
        settings: values of the plan that are set.
    """
    if bundle.is_dir():
        return
    plain = {name: value for name, value in settings.items() if not callable(value)}
    if len(plain) == len(settings):
        plan(dataset_dir, bundle, settings=plain)
        return
    levels = len(plan(dataset_dir, bundle.with_name("levels"), settings=plain)["strides"])
    given = {name: value(levels) if callable(value) else value for name, value in settings.items()}
    plan(dataset_dir, bundle, settings=given)


def _whole_window(bundle: Path) -> list[int]:
    """A window that holds the largest image after resampling."""
    made = load_plan(bundle)
    content = json.loads((bundle / "configs" / "fingerprint.json").read_text(encoding="utf-8"))
    largest = np.zeros(made.spatial_dims)
    for case in content["cases"]:
        spacing = np.array(case["spacing_mm"])
        target = spacing if made["spacing_mm"] is None else np.array(made["spacing_mm"])
        largest = np.maximum(largest, np.array(case["shape"]) * spacing / target)
    steps = np.prod(made["strides"], axis=0)
    return [int(step * math.ceil(size / step)) for size, step in zip(largest, steps, strict=True)]


def _mean_dice(scores: Scores) -> dict[str, dict[str, float]]:
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
        "training",
        *levels,
        *(f"{level} - {names[0]}, 95 % interval" for level in levels),
        "training - unseen",
    ]
    rows = []
    for name, result in results.items():
        means = [f"{_mean(result.dice[level]):.4f}" for level in levels]
        differences = ["" if result is base else _difference(result.dice[level], base.dice[level]) for level in levels]
        gap = _mean(result.training[levels[-1]]) - _mean(result.dice[levels[-1]])
        rows.append([name, f"{result.seconds / 60:.1f} min", *means, *differences, f"{gap:+.4f}"])
        if result.whole is not None:
            large = [_difference(result.whole[level], result.dice[level]) for level in levels]
            rows.append([f"{name}: one window - its own windows", "", *large, *[""] * len(levels), ""])
    lines = (
        f"`{data_set}`, {len(next(iter(base.dice.values())))} unseen cases, {steps} steps, "
        f"{describe_environment().line()}. Mean Dice over the labels; the last column is that of the deepest level on "
        "as many training cases minus that on the unseen ones."
    )
    return f"{lines}\n\n{format_table(header, rows, [False, *[True] * (len(header) - 1)])}"


def _mean(cases: _Cases) -> float:
    return float(np.mean(list(cases.values())))


def _difference(cases: _Cases, others: _Cases) -> str:
    found: npt.NDArray[np.float64] = np.array([cases[case] - others[case] for case in cases if case in others])
    half = stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found))
    return f"{found.mean():+.4f} ({found.mean() - half:+.4f} to {found.mean() + half:+.4f})"


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run all variants and print the table; it is renewed after each of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipe", description=__doc__)
    parser.add_argument("dataset_dir", type=Path, help="folder with dataset.json and its validation list")
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is made; a run goes on there")
    parser.add_argument("--steps", type=int, default=1500, help="of each training (default: 1500)")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="a value of the plan for all variants")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="variants (default: all)")
    parser.add_argument("--whole", action="store_true", help="score with one window over the whole image too")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the table to FILE")
    given = parser.parse_args(arguments)
    dataset_dir = given.dataset_dir.resolve()
    common = {**parse_settings(given.set), "steps": given.steps}
    results = {}
    for name in given.only:
        work = given.work.resolve() / name.replace(" ", "_").replace(",", "")
        results[name] = run_variant(dataset_dir, work, {**common, **VARIANTS[name]}, given.whole)
        text = format_results(results, dataset_dir.name, given.steps)
        if given.output is not None:
            write_text(given.output, text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
