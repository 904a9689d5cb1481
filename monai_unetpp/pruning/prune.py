"""The whole path in one call: score, cost, decide, explain, write."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite import distributed as idist
from monai.transforms import LoadImage
from tqdm import tqdm

from monai_unetpp.bundles import load_network
from monai_unetpp.data import VolumeReader, load_datalist, read_geometry
from monai_unetpp.inferers.precision import PrecisionInferer
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning.cases import Case, read_label
from monai_unetpp.pruning.configuration import describe_settings
from monai_unetpp.pruning.cost import describe_environment, measure_costs
from monai_unetpp.pruning.decide import (
    DEFAULT_MARGINS,
    DEFAULT_MAX_CASE_DROP,
    confirm,
    decide_all,
    parse_case_drop,
    parse_margin,
    split_rows,
)
from monai_unetpp.pruning.overlays import save_overlay
from monai_unetpp.pruning.predict import Pipeline
from monai_unetpp.pruning.report import write_report
from monai_unetpp.pruning.results import Decision, Margin, OperatingPoint, PointCost, PruningResult, ScoreRow, TradeOff
from monai_unetpp.pruning.score import Scores, evaluate_levels, predict_case
from monai_unetpp.pruning.tradeoffs import by_utility, mean_accuracy, pareto_front, parse_budget, within_budget
from monai_unetpp.pruning.write import write_pruned_bundle

__all__ = ["prune", "verdict"]

logger = logging.getLogger(__name__)

_OVERLAYS = 4
_FRONTS = (("latency_ms",), ("memory_mb",), ("parameters",))


def prune(
    network: NestedUNet,
    dataset_dir: str | PathLike[str] | Sequence[str | PathLike[str]],
    output_dir: str | PathLike[str],
    *,
    preprocessing: Any,
    inferer: Any,
    postprocessing: Any,
    labels: Mapping[str, int],
    tolerance_mm: Mapping[str, float],
    window_shape: Sequence[int],
    title: str = "nested U-Net",
    list_key: str = "validation",
    confirm_dir: str | PathLike[str] | None = None,
    confirm_share: float | None = None,
    margins: Sequence[str | Margin] | None = None,
    max_case_drop: Sequence[str] | Mapping[str, float] | None = None,
    alpha: float = 0.05,
    bootstrap_samples: int = 9999,
    seed: int = 0,
    budgets: Sequence[str] = (),
    utility_weight: float | None = None,
    extra: Mapping[str, str | PathLike[str]] | None = None,
    subjects: Mapping[str, str] | str | PathLike[str] | None = None,
    subject_pattern: str | None = None,
    exclude_problems: bool = False,
    save_uncertainty: bool = False,
    repeats: int = 10,
    device: torch.device | str = "cpu",
    bundle: str | PathLike[str] | None = None,
    write: str | PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> PruningResult:
    """Find out how shallow a network may be, explain it in a report, and write the pruned bundle.

    The stages are :func:`~monai_unetpp.pruning.evaluate_levels`, :func:`~monai_unetpp.pruning.measure_costs`,
    :func:`~monai_unetpp.pruning.decide_all`, :func:`~monai_unetpp.pruning.write_report` and
    :func:`~monai_unetpp.pruning.write_pruned_bundle`; each can be called alone. Finished cases are kept in
    ``output_dir/scores``, and an interrupted run goes on from there. Under ``torchrun`` the processes share the cases.

    Args:
        network: the trained network with all its heads.
        dataset_dir: folder with ``dataset.json``, or several: each gets a verdict, and one is given for all.
        output_dir: folder for the report.
        preprocessing: transforms of the key ``image``; see ``evaluate_levels``.
        inferer: runs the network over a volume.
        postprocessing: from logits to integer labels on the image's own grid.
        labels: value of every label by name.
        tolerance_mm: tolerance of the normalised surface Dice by label.
        window_shape: spatial shape of the inferer's window, for the cost of one window.
        title: what the report calls the model.
        list_key: list of ``dataset.json`` to take.
        confirm_dir: a further data set that only confirms the level which the others chose.
        confirm_share: share of the subjects that is kept back to confirm the choice, such as 0.5.
        margins: such as ``"dice=0.01"`` or ``"nsd:anterior=0.02"``; by default Dice 0.01 and NSD 0.02.
        max_case_drop: largest drop of a single case, such as ``"dice=0.2"``; see ``decide``.
        alpha: one-sided error level.
        bootstrap_samples: resamples of the bootstrap.
        seed: of the bootstrap, the split and the measurements.
        budgets: such as ``"latency_ms=50"``: pick the most accurate level within all of them.
        utility_weight: accuracy that the whole cost of the dearest level is worth; picks the level of highest utility.
        extra: further checkpoints to compare with, by name, such as ``{"L2 trained alone": "alone/model.pt"}``.
        subjects: subject by case, or a CSV file with the columns ``case`` and ``subject``.
        subject_pattern: regular expression with one group that finds the subject in the case's name.
        exclude_problems: leave out cases whose data have problems instead of stopping.
        save_uncertainty: write a map of where the levels disagree for every case, and measure how it finds errors.
        repeats: measured runs of each level for its latency.
        device: where to run.
        bundle: the bundle that ``network`` comes from; needed with ``write``.
        write: folder for the pruned bundle; it is written if the verdict is to prune.
        overwrite: whether ``write`` may replace an earlier pruned bundle.
        progress: show a progress bar on standard error.

    Returns:
        Everything that was found.

    Raises:
        ValueError: arguments that do not go together, or data with problems, all named.
        FileNotFoundError: a data set, checkpoint or bundle is missing.
    """
    if write is not None and bundle is None:
        raise ValueError(
            "bundle must name the bundle to prune when write is given. Pass bundle=..., or leave write out."
        )
    if confirm_dir is not None and confirm_share is not None:
        raise ValueError("confirm_dir and confirm_share exclude each other. Give the one you want to confirm with.")
    folder = Path(output_dir)
    guarded = _margins(margins)
    drops = _case_drops(max_case_drop)
    limits = [parse_budget(budget) for budget in budgets]
    chosen_device = torch.device(device)
    further = {name: load_network(path, device=chosen_device) for name, path in (extra or {}).items()}
    extra_points = {
        OperatingPoint(name, net.levels[-1], "extra", Path((extra or {})[name]).name): net
        for name, net in further.items()
    }
    pipeline = {"preprocessing": preprocessing, "inferer": inferer, "postprocessing": postprocessing}

    def score(directory: str | PathLike[str]) -> Scores:
        name = Path(directory).resolve().name
        cases = load_datalist(directory, list_key, folder)
        with tqdm(total=len(cases), desc=f"scoring {name}", disable=not progress or idist.get_rank() > 0) as bar:
            return evaluate_levels(
                network,
                cases,
                **pipeline,
                labels=labels,
                tolerance_mm=tolerance_mm,
                extra=extra_points,
                dataset=name,
                device=chosen_device,
                subjects=subjects,
                subject_pattern=subject_pattern,
                configuration=describe_settings(pipeline),
                store=folder / "scores",
                exclude_problems=exclude_problems,
                uncertainty_dir=folder / "uncertainty" / name if save_uncertainty else None,
                progress=lambda done, total: _advance(bar, done, total),
            )

    directories = [dataset_dir] if isinstance(dataset_dir, (str, PathLike)) else list(dataset_dir)
    _check_names([*directories, *([] if confirm_dir is None else [confirm_dir])])
    scores = [score(directory) for directory in directories]
    confirming = None if confirm_dir is None else score(confirm_dir)
    if idist.get_rank() > 0:
        # the first process measures, decides and writes; the others wait for what it found
        return _from_first(None)

    points = scores[0].points
    rows = tuple(row for each in scores for row in each.rows)
    settings = {"alpha": alpha, "max_case_drop": drops, "bootstrap_samples": bootstrap_samples, "seed": seed}
    decisions = _decide(rows, points, guarded, settings, confirming, confirm_share)
    costs = _costs(network, points, further, scores, pipeline, window_shape, chosen_device, repeats, seed)
    all_scores = [*scores, *([] if confirming is None else [confirming])]
    result = PruningResult(
        title=title,
        points=points,
        labels=tuple(labels),
        tolerance_mm=dict(tolerance_mm),
        rows=tuple(row for each in all_scores for row in each.rows),
        problems=tuple(problem for each in all_scores for problem in each.problems),
        costs=costs,
        environment=describe_environment(chosen_device, _precision(inferer)),
        margins=guarded,
        alpha=alpha,
        max_case_drop=drops,
        bootstrap_samples=bootstrap_samples,
        seed=seed,
        decisions=decisions,
        trade_offs=_trade_offs(rows, points, costs, limits, utility_weight),
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        overlays=_overlays(folder, network, decisions, all_scores, pipeline, labels, chosen_device),
        error_auroc=_mean([each.error_auroc for each in all_scores]),
    )
    write_report(result, folder)
    final = verdict(result)
    if write is not None and bundle is not None:
        if final.verdict == "prune":
            write_pruned_bundle(bundle, final.level, write, decision=final, result=result, overwrite=overwrite)
        else:
            logger.warning("No pruned bundle was written, as the verdict is not to prune: %s", final.summary)
    return _from_first(result)


def verdict(result: PruningResult) -> Decision:
    """The decision that counts: the confirmation if there is one, else that on all data sets."""
    return next((d for d in result.decisions if d.role == "confirm"), result.decisions[-1])


def _margins(given: Sequence[str | Margin] | None) -> tuple[Margin, ...]:
    if given is None:
        return tuple(DEFAULT_MARGINS)
    return tuple(each if isinstance(each, Margin) else parse_margin(each) for each in given)


def _case_drops(given: Sequence[str] | Mapping[str, float] | None) -> dict[str, float]:
    if given is None:
        return dict(DEFAULT_MAX_CASE_DROP)
    return dict(given) if isinstance(given, Mapping) else dict(parse_case_drop(each) for each in given)


def _check_names(directories: Sequence[str | PathLike[str]]) -> None:
    names = [Path(directory).resolve().name for directory in directories]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(
            f"data sets must have folders of different names, got {repeated!r} twice. Rename one: the name stands for "
            "the data set in the report."
        )


def _advance(bar: Any, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


def _decide(
    rows: tuple[ScoreRow, ...],
    points: tuple[OperatingPoint, ...],
    margins: tuple[Margin, ...],
    settings: dict[str, Any],
    confirming: Scores | None,
    confirm_share: float | None,
) -> tuple[Decision, ...]:
    if confirming is None and confirm_share is None:
        return decide_all(rows, points, margins, **settings)
    choosing_rows = rows
    if confirming is not None:
        confirm_rows = confirming.rows
    elif confirm_share is not None:
        choosing_rows, confirm_rows = split_rows(rows, confirm_share, settings["seed"])
    choice = decide_all(choosing_rows, points, margins, role="choose", **settings)
    if choice[-1].verdict != "prune":
        return choice
    datasets = list(dict.fromkeys(row.dataset for row in confirm_rows))
    confirmations = [confirm(choice[-1], confirm_rows, points, margins, dataset=name, **settings) for name in datasets]
    return (*choice, *confirmations)


def _costs(
    network: NestedUNet,
    points: tuple[OperatingPoint, ...],
    further: dict[str, NestedUNet],
    scores: list[Scores],
    pipeline: dict[str, Any],
    window_shape: Sequence[int],
    device: torch.device,
    repeats: int,
    seed: int,
) -> dict[str, PointCost]:
    logger.info("Measuring the cost of %d operating points ...", len(points))
    embedded = {point.name: point.level for point in points if point.kind == "embedded"}
    pruned = {name: network.prune(level).eval() for name, level in embedded.items()}
    cases = sorted((case for each in scores for case in each.cases), key=_voxels)
    median_case = cases[len(cases) // 2]
    image = Pipeline(**pipeline).load(median_case)
    return measure_costs(
        {point.name: pruned.get(point.name) or further[point.name] for point in points},
        window_shape,
        tuple(image.shape[1:]),
        pipeline["inferer"],
        device=device,
        precision=_precision(pipeline["inferer"]),
        repeats=repeats,
        seed=seed,
        full_network=network.eval(),
        levels=embedded,
    )


def _voxels(case: Case) -> int:
    return int(np.prod(read_geometry(case.label).shape))


def _precision(inferer: Any) -> str:
    return inferer.precision if isinstance(inferer, PrecisionInferer) else "fp32"


def _trade_offs(
    rows: tuple[ScoreRow, ...],
    points: tuple[OperatingPoint, ...],
    costs: dict[str, PointCost],
    budgets: list[Any],
    utility_weight: float | None,
) -> tuple[TradeOff, ...]:
    accuracy = mean_accuracy(rows, [point.name for point in points])
    embedded = {point.name: accuracy[point.name] for point in points if point.kind == "embedded"}
    found = [pareto_front(accuracy, costs, keys) for keys in _FRONTS]
    if budgets:
        found.append(within_budget(embedded, costs, budgets))
    if utility_weight is not None:
        found.append(by_utility(embedded, costs, utility_weight))
    return tuple(found)


def _overlays(
    folder: Path,
    network: NestedUNet,
    decisions: tuple[Decision, ...],
    scores: list[Scores],
    pipeline: dict[str, Any],
    labels: Mapping[str, int],
    device: torch.device,
) -> tuple[str, ...]:
    """Pictures of the cases in which the chosen level, or the first that was refused, is furthest behind."""
    levels = list(network.levels)
    chosen = decisions[-1].level if decisions[-1].level != levels[-1] else levels[-2]
    drops: dict[tuple[str, str], list[float]] = {}
    for each in scores:
        dice = {(row.case, row.label, row.point): row.score.dice for row in each.rows}
        for (name, label, point), value in dice.items():
            reference = dice.get((name, label, levels[-1]))
            if point == chosen and label in labels and value is not None and reference is not None:
                drops.setdefault((each.rows[0].dataset, name), []).append(value - reference)
    worst = sorted(drops, key=lambda key: min(drops[key]))[:_OVERLAYS]
    found = {(each.rows[0].dataset, case.name): case for each in scores for case in each.cases}
    paths = []
    for dataset, name in worst:
        case = found[dataset, name]
        maps = predict_case(network, case, **pipeline, levels=[chosen, levels[-1]], device=device)
        truth = read_label(case, network.spatial_dims)
        image = LoadImage(reader=VolumeReader(spatial_dims=network.spatial_dims), image_only=True)(case.image[0])
        path = folder / "overlays" / f"{dataset}_{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_overlay(
            np.asarray(image).reshape(truth.data.shape),
            truth.data,
            maps[chosen],
            maps[levels[-1]],
            read_geometry(case.label).spacing_mm,
            path,
            f"{name} ({dataset}): {chosen} loses up to {-min(drops[dataset, name]):.3f} Dice against {levels[-1]}",
            chosen_name=chosen,
            deepest_name=levels[-1],
            label_names=list(labels),
        )
        paths.append(str(path.relative_to(folder)))
    return tuple(paths)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _from_first(result: PruningResult | None) -> PruningResult:
    """What the first process found, in every process."""
    holder = [result]
    if idist.get_world_size() > 1:
        torch.distributed.broadcast_object_list(holder, src=0)
    found = holder[0]
    if found is None:
        raise RuntimeError("the first process ended without a result; its own message says why.")
    return found
