"""The whole path in one call: score, cost, decide, explain, write."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.util
import logging
import math
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from tqdm import tqdm

from monai_unetpp import distributed
from monai_unetpp.bundles import load_network, read_network_def
from monai_unetpp.data import VolumeReader, load_datalist, read_geometry
from monai_unetpp.data.nifti import is_nifti_name, open_nifti, read_voxels
from monai_unetpp.inferers.precision import PrecisionInferer
from monai_unetpp.metrics.scores import scored_labels
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning.cases import Case, check_case, list_cases, read_label, repeated_names
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
from monai_unetpp.pruning.statistics import check_alpha
from monai_unetpp.pruning.tables import ALL, headline
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
    ``output_dir/scores``, and an interrupted run goes on from there. Under ``torchrun`` the processes share the cases;
    the first one measures, decides and writes. What can be refused is refused before the first case is scored.

    Args:
        network: the trained network with all its heads.
        dataset_dir: folder with ``dataset.json``, or several: each gets a verdict, and one is given for all. The
            folder's name stands for the data set.
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
        TypeError: a network that is no ``NestedUNet``; see ``evaluate_levels`` for others.
        ValueError: arguments that do not go together, or data with problems, all named.
        FileNotFoundError: a data set, checkpoint or bundle is missing.
        FileExistsError: ``write`` exists and may not be replaced.
        ImportError: what draws the report is not installed.
        RuntimeError: not a single case could be scored.
    """
    _check_network(network)
    guarded, drops = _margins(margins, labels), _case_drops(max_case_drop)
    limits = [parse_budget(budget) for budget in budgets]
    _check_numbers(alpha, bootstrap_samples, utility_weight, repeats)
    if confirm_dir is not None and confirm_share is not None:
        raise ValueError("confirm_dir and confirm_share exclude each other. Give the one you want to confirm with.")
    if confirm_share is not None and not 0 < confirm_share < 1:
        raise ValueError(f"confirm_share must lie between 0 and 1, got {confirm_share}. 0.5 is a good split.")
    _check_report()
    if write is not None:
        _check_write(network, bundle, Path(write), overwrite)
    folder = Path(output_dir)
    directories = [dataset_dir] if isinstance(dataset_dir, (str, PathLike)) else list(dataset_dir)
    directories += [] if confirm_dir is None else [confirm_dir]
    names = _names(directories)
    # data sets without a validation list write down how they were split
    data = {
        name: load_datalist(directory, list_key, folder / "splits" / name)
        for name, directory in zip(names, directories, strict=True)
    }
    if len(data) > 1 and not exclude_problems:
        _check_data(data, network, labels, subjects, subject_pattern)

    chosen_device = torch.device(device)
    further = {name: _load_further(path, chosen_device) for name, path in (extra or {}).items()}
    extra_points = {
        OperatingPoint(name, net.levels[-1], "extra", Path((extra or {})[name]).name): net
        for name, net in further.items()
    }
    pipeline = {"preprocessing": preprocessing, "inferer": inferer, "postprocessing": postprocessing}
    configuration = describe_settings(pipeline)

    def score(name: str) -> Scores:
        with tqdm(total=len(data[name]), desc=f"scoring {name}", disable=not progress or _rank() > 0) as bar:
            return evaluate_levels(
                network,
                data[name],
                **pipeline,
                labels=labels,
                tolerance_mm=tolerance_mm,
                extra=extra_points,
                dataset=name,
                device=chosen_device,
                subjects=subjects,
                subject_pattern=subject_pattern,
                configuration=configuration,
                store=folder / "scores",
                exclude_problems=exclude_problems,
                uncertainty_dir=folder / "uncertainty" / name if save_uncertainty else None,
                progress=lambda done, total: _advance(bar, done, total),
            )

    with _process_group() as group:
        all_scores = [score(name) for name in names]
        if _rank() > 0:
            # the first process measures, decides and writes; the others wait for what it found
            return _from_first(None, group)
        confirming = all_scores[-1] if confirm_dir is not None else None
        scores = all_scores if confirming is None else all_scores[:-1]
        points = scores[0].points
        rows = tuple(row for each in scores for row in each.rows)
        settings = {"alpha": alpha, "max_case_drop": drops, "bootstrap_samples": bootstrap_samples, "seed": seed}
        decisions = _decide(rows, points, guarded, settings, confirming, confirm_share)
        costs = _costs(network, points, further, scores, pipeline, window_shape, chosen_device, repeats, seed)
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
            command=_command(),
            error_auroc=_mean([each.error_auroc for each in all_scores]),
        )
        final = verdict(result)
        overlays = _overlays(folder, network, final, all_scores, pipeline, labels, chosen_device)
        result = dataclasses.replace(result, overlays=overlays)
        paths = write_report(result, folder)
        if write is not None and bundle is not None and final.verdict == "prune":
            write_pruned_bundle(bundle, final.level, write, decision=final, result=result, overwrite=overwrite)
        elif write is not None:
            logger.warning("No pruned bundle was written, as the verdict is not to prune.")
        logger.info("%s", final.summary)
        logger.info("The report is %s.", paths["html"])
        return _from_first(result, group)


def verdict(result: PruningResult) -> Decision:
    """The decision that counts: the confirmation if there is one, else the choice; on all data sets if several.

    Raises:
        ValueError: there is no decision.
    """
    return headline(result)


def _check_network(network: NestedUNet) -> None:
    if not isinstance(network, NestedUNet):
        raise TypeError(
            f"network must be a NestedUNet, got {type(network).__name__}. Convert a BasicUNetPlusPlus with "
            "NestedUNet.from_basic_unetplusplus; evaluate_levels takes any network that returns a dict of levels."
        )
    if len(network.levels) < 2:
        raise ValueError(
            f"network must have two levels or more, got {', '.join(network.levels)} only. It cannot be pruned."
        )


def _check_numbers(alpha: float, bootstrap_samples: int, utility_weight: float | None, repeats: int) -> None:
    check_alpha(alpha)
    if bootstrap_samples < 100:
        raise ValueError(f"bootstrap_samples must be 100 or more, got {bootstrap_samples}. 9999 is a good number.")
    if utility_weight is not None and not (math.isfinite(utility_weight) and utility_weight >= 0):
        raise ValueError(f"utility_weight must be 0 or more, got {utility_weight}. 0.02 is two points of Dice.")
    if repeats < 1:
        raise ValueError(f"repeats must be 1 or more, got {repeats}. Ten give a usable spread.")


def _check_report() -> None:
    """Refuse at the start what would otherwise stop the run at its end."""
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f'Reports need {" and ".join(missing)}: pip install "monai-unetpp[report]"')


def _check_write(network: NestedUNet, bundle: str | PathLike[str] | None, target: Path, overwrite: bool) -> None:
    if bundle is None:
        raise ValueError(
            "bundle must name the bundle to prune when write is given. Pass bundle=..., or leave write out."
        )
    if target.exists() and not overwrite:
        raise FileExistsError(f"write must not exist yet, got {target}. Give another folder, or set overwrite.")
    weights = Path(bundle) / "models" / "model.pt"
    own = load_network(weights, network_def=read_network_def(bundle)).state_dict()
    evaluated = network.state_dict()
    if own.keys() != evaluated.keys() or any(not torch.equal(own[key], evaluated[key].cpu()) for key in own):
        raise ValueError(
            f"write must be left out where the evaluated weights are not the bundle's own, got others than {weights}, "
            "which the pruned bundle would be cut out of. Copy the checkpoint there, or leave write out."
        )


def _names(directories: Sequence[str | PathLike[str]]) -> list[str]:
    if not directories:
        raise ValueError("dataset_dir must name one data set or more, got none.")
    names = [Path(directory).resolve().name for directory in directories]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(
            f"data sets must have folders of different names, got {repeated!r} twice. Rename one: the name stands for "
            "the data set in the report."
        )
    if len(names) > 1 and ALL in names:
        raise ValueError(
            f"data sets must not be called {ALL!r} where there are several. Rename the folder: the name stands for "
            "all of them in the report."
        )
    return names


def _check_data(
    data: Mapping[str, Sequence[Mapping[str, Any]]],
    network: NestedUNet,
    labels: Mapping[str, int],
    subjects: Mapping[str, str] | str | PathLike[str] | None,
    subject_pattern: str | None,
) -> None:
    """Check every data set before the first is scored: ``evaluate_levels`` checks its own only."""
    problems = []
    for dataset, entries in data.items():
        cases = list_cases(entries, subjects, subject_pattern)
        found = dict.fromkeys(repeated_names(cases), "names of cases must differ. Rename the files.")
        for case in cases:
            reason, _ = check_case(case, list(labels.values()), network.spatial_dims, network.in_channels)
            if reason is not None:
                found.setdefault(case.name, reason)
        problems += [f"- {dataset}, {name}: {reason}" for name, reason in found.items()]
    if problems:
        raise ValueError(
            f"cases of all data sets must be sound, got {len(problems)} with a problem:\n" + "\n".join(problems) + "\n"
            "Correct them, or set exclude_problems to leave them out."
        )


def _load_further(path: str | PathLike[str], device: torch.device) -> NestedUNet:
    """The deepest level of a further checkpoint, which is what is scored and measured."""
    network = load_network(path)
    return network.prune(network.levels[-1]).eval().to(device)


@contextlib.contextmanager
def _process_group() -> Iterator[dist.ProcessGroup | None]:
    """A group to wait in for as long as the first process needs; starts the processes' own under ``torchrun``.

    The default group gives up after minutes, and waiting with NCCL occupies the GPU.
    """
    started = dist.is_available() and dist.is_torchelastic_launched() and not dist.is_initialized()
    if started:
        distributed.start()
    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    yield dist.new_group(backend="gloo", timeout=datetime.timedelta(days=1)) if several else None
    # after an error the other processes may never come to the end: then the launcher ends them
    if started:
        distributed.finish()


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _command() -> str:
    """The command line that started the process."""
    module = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = Path(sys.argv[0]).name
    program = [name] if module is None else ["python", "-m", module.name.removesuffix(".__main__")]
    return shlex.join([*program, *sys.argv[1:]])


def _margins(given: Sequence[str | Margin] | None, labels: Mapping[str, int]) -> tuple[Margin, ...]:
    if given is None:
        return tuple(DEFAULT_MARGINS)
    margins = tuple(each if isinstance(each, Margin) else parse_margin(each) for each in given)
    known = scored_labels(labels)
    unknown = next((name for margin in margins for name in margin.labels or () if name not in known), None)
    if unknown is not None:
        raise ValueError(f"margins must name labels among {', '.join(known)}, got {unknown!r}. Correct the name.")
    if not margins:
        raise ValueError("margins must name one metric or more, got none. Leave it out for Dice 0.01 and NSD 0.02.")
    return margins


def _case_drops(given: Sequence[str] | Mapping[str, float] | None) -> dict[str, float]:
    if given is None:
        return dict(DEFAULT_MAX_CASE_DROP)
    return dict(given) if isinstance(given, Mapping) else dict(parse_case_drop(each) for each in given)


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
        # split_rows takes the share of the subjects that choose
        choosing_rows, confirm_rows = split_rows(rows, 1 - confirm_share, settings["seed"])
    choice = decide_all(choosing_rows, points, margins, role="choose", **settings)
    if choice[-1].verdict != "prune":
        return choice
    datasets = list(dict.fromkeys(row.dataset for row in confirm_rows))
    confirmations = [confirm(choice[-1], confirm_rows, points, margins, dataset=name, **settings) for name in datasets]
    return (*choice, *confirmations, *([_joint_confirmation(confirmations)] if len(confirmations) > 1 else []))


def _joint_confirmation(confirmations: Sequence[Decision]) -> Decision:
    """One decision for several confirmations: the choice is confirmed if each of them confirms it."""
    stopping = next(
        (each for state in ("keep", "inconclusive") for each in confirmations if each.verdict == state), None
    )
    deciding = confirmations[0] if stopping is None else stopping
    names = ", ".join(each.dataset for each in confirmations if each.verdict == deciding.verdict)
    texts = {
        "prune": f"Confirmed: prune to {deciding.level}, on each of {len(confirmations)} data sets ({names}).",
        "keep": f"Keep {deciding.level}: the chosen level fails on {names}.",
        "inconclusive": f"Inconclusive, keep {deciding.level} for now: the choice is not confirmed on {names}.",
    }
    needed = [each.cases_needed for each in confirmations if each.cases_needed is not None]
    return dataclasses.replace(
        deciding,
        dataset=ALL,
        cases=sum(each.cases for each in confirmations),
        subjects=sum(each.subjects for each in confirmations),
        comparisons=(),
        blockers=tuple(f"{each.dataset}: {blocker}" for each in confirmations for blocker in each.blockers),
        cases_needed=max(needed) if needed and deciding.verdict == "inconclusive" else None,
        summary=texts[deciding.verdict],
    )


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
    final: Decision,
    scores: list[Scores],
    pipeline: dict[str, Any],
    labels: Mapping[str, int],
    device: torch.device,
) -> tuple[str, ...]:
    """Pictures of the cases in which the chosen level, or the first that was refused, is furthest behind."""
    levels = list(network.levels)
    deepest = levels[-1]
    chosen = final.level if final.level != deepest else levels[-2]
    cases = {(each.rows[0].dataset, case.name): case for each in scores for case in each.cases}
    worst: dict[tuple[str, str], tuple[float, str]] = {}
    for each in scores:
        # a structure that is rightly not found scores nothing, and is worth as much as a perfect one
        dice = {
            (row.dataset, row.case, row.label, row.point): 1.0 if row.score.dice is None else row.score.dice
            for row in each.rows
            if row.label in labels and row.point in (chosen, deepest)
        }
        for dataset, name, label, point in dice:
            if point == chosen:
                before, after = dice[dataset, name, label, deepest], dice[dataset, name, label, chosen]
                text = f"Dice of {label} {after:.3f} at {chosen}, {before:.3f} at {deepest}"
                worst[dataset, name] = min(worst.get((dataset, name), (math.inf, "")), (after - before, text))
    paths = []
    for dataset, name in sorted(worst, key=lambda key: worst[key][0])[:_OVERLAYS]:
        case = cases[dataset, name]
        truth = read_label(case, network.spatial_dims)
        maps = predict_case(network, case, **pipeline, levels=[chosen, deepest], device=device)
        path = folder / "overlays" / f"{dataset}_{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_overlay(
            _background(case, truth.data.shape),
            truth.data,
            maps[chosen],
            maps[deepest],
            read_geometry(case.label).spacing_mm[: truth.data.ndim],
            path,
            f"{name} ({dataset}): {worst[dataset, name][1]}",
            chosen_name=chosen,
            deepest_name=deepest,
            label_names=_names_by_value(labels),
        )
        paths.append(str(path.relative_to(folder)))
    return tuple(paths)


def _background(case: Case, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The first channel of a case's image, on the label's grid of ``shape``."""
    path = case.image[0]
    if is_nifti_name(path):
        data = read_voxels(open_nifti(path), path)
    else:
        reader = VolumeReader(len(shape), allow_constant=True)
        data = reader.get_data(reader.read(path))[0]
    return np.asarray(data).reshape(*shape, -1)[..., 0]


def _names_by_value(labels: Mapping[str, int]) -> list[str]:
    """Names of the labels 1, 2 and so on; numbers where there are gaps."""
    names = {value: name for name, value in labels.items()}
    return [names.get(value, str(value)) for value in range(1, max(names) + 1)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _from_first(result: PruningResult | None, group: dist.ProcessGroup | None) -> PruningResult:
    """What the first process found, in every process."""
    holder = [result]
    if group is not None:
        dist.broadcast_object_list(holder, src=0, group=group)
    found = holder[0]
    if found is None:
        raise RuntimeError("the first process ended without a result; its own message says why.")
    return found
