"""The whole path in one call: score, cost, decide, explain, write."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.util
import json
import logging
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from monai_unetpp.data import VolumeReader, find_ignore_label, load_datalist, read_geometry
from monai_unetpp.data.case_check import check_case
from monai_unetpp.data.labelled import LabelledCase, hash_files, list_cases, repeated_names
from monai_unetpp.data.labels import read_label_map
from monai_unetpp.data.nifti import is_nifti_name, open_nifti, read_voxels
from monai_unetpp.inferers import NestedSlidingWindowInferer, PrecisionInferer
from monai_unetpp.measuring.environment import describe_environment
from monai_unetpp.metrics.scores import scored_labels
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning.case_pictures import save_overlay
from monai_unetpp.pruning.configuration import describe_settings
from monai_unetpp.pruning.cost import measure_costs, measure_setting_costs
from monai_unetpp.pruning.decide import (
    DEFAULT_MARGINS,
    DEFAULT_MAX_CASE_DROP,
    confirm,
    decide_all,
    parse_case_drop,
    parse_margin,
    split_cases,
)
from monai_unetpp.pruning.inference import check_inference, inference_of
from monai_unetpp.pruning.operating_points import at_setting, compare_grid
from monai_unetpp.pruning.predict import Pipeline
from monai_unetpp.pruning.report import read_report, write_report
from monai_unetpp.pruning.results import (
    Decision,
    InferenceSetting,
    Margin,
    OperatingGrid,
    OperatingPoint,
    PointCost,
    PruningResult,
    ScoreRow,
    TradeOff,
)
from monai_unetpp.pruning.score import Scores, evaluate_levels, predict_case
from monai_unetpp.pruning.settings import check_grid_inferer, list_settings, parse_settings, with_setting
from monai_unetpp.pruning.statistics import check_alpha
from monai_unetpp.pruning.summary import ALL, headline
from monai_unetpp.pruning.tradeoffs import by_utility, mean_accuracy, pareto_front, parse_budget, within_budget
from monai_unetpp.pruning.write import check_writable, write_pruned_bundle

__all__ = ["prune", "verdict"]

logger = logging.getLogger(__name__)

_OVERLAYS = 4
_EARLIER = "earlier rules"
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
    margins: str | Sequence[str | Margin] | None = None,
    max_case_drop: str | Sequence[str] | Mapping[str, float] | None = None,
    alpha: float = 0.05,
    bootstrap_samples: int = 9999,
    seed: int = 0,
    budgets: str | Sequence[str] = (),
    utility_weight: float | None = None,
    extra: Mapping[str, str | PathLike[str]] | None = None,
    subjects: Mapping[str, str] | str | PathLike[str] | None = None,
    subject_pattern: str | None = None,
    exclude_problems: bool = False,
    save_uncertainty: bool = False,
    repeats: int = 10,
    settings: Mapping[str, Any] | Sequence[str] | str | None = None,
    settings_repeats: int = 3,
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
        confirm_dir: a further data set that only confirms the level which the others chose; it must have no image and
            no subject in common with them.
        confirm_share: share of the subjects that is kept back to confirm the choice, such as 0.5.
        margins: such as ``"dice=0.01"`` or ``"nsd:anterior=0.02"``; by default Dice 0.01 and NSD 0.02.
        max_case_drop: largest drop of a single case, such as ``"dice=0.2"``; see ``decide``. What is not named keeps
            its default.
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
        settings: values of overlap, flips, precision and runtime at which every level is evaluated too, in all
            combinations, such as ``{"overlap": [0.0, 0.25], "precision": ["fp32", "bf16"]}`` or ``["overlap=0,0.25",
            "precision=fp32,bf16"]``; ``inferer`` must then be a ``NestedSlidingWindowInferer``. The verdict stays
            that of the levels as ``inferer`` runs them; the report compares the operating points besides.
        settings_repeats: measured runs of each operating point of ``settings`` for its latency.
        device: where to run.
        bundle: the bundle that ``network`` comes from; needed with ``write``.
        write: folder for the pruned bundle; it is written if the verdict is to prune.
        overwrite: whether ``write`` may replace an earlier pruned bundle.
        progress: show a progress bar on standard error.

    Returns:
        Everything that was found.

    Raises:
        TypeError: a network that is no ``NestedUNet``; see ``evaluate_levels`` for others. An inferer that cannot run
            at the ``settings``.
        ValueError: arguments that do not go together, or data with problems, all named.
        FileNotFoundError: a data set, checkpoint or bundle is missing.
        FileExistsError: ``write`` exists and may not be replaced.
        ImportError: what draws the report, or a runtime of ``settings``, is not installed.
        RuntimeError: not a single case could be scored.
    """
    _check_network(network)
    guarded, drops = _margins(margins, labels), _case_drops(max_case_drop)
    limits = [parse_budget(budget) for budget in _listed(budgets)]
    _check_numbers(alpha, bootstrap_samples, utility_weight, repeats, settings_repeats)
    asked = parse_settings(settings)
    if confirm_dir is not None and confirm_share is not None:
        raise ValueError("confirm_dir and confirm_share exclude each other. Give the one you want to confirm with.")
    if confirm_share is not None and not 0 < confirm_share < 1:
        raise ValueError(f"confirm_share must lie between 0 and 1, got {confirm_share}. 0.5 is a good split.")
    _check_report()
    folder, chosen_device = Path(output_dir), torch.device(device)
    # the inferer's own setting comes first; nothing else is in it without a grid
    own, *others = _settings(inferer, asked, network, chosen_device)
    inference: dict[str, Any] = {}
    if write is not None:
        inference = _check_write(network, bundle, Path(write), folder, overwrite, inferer, chosen_device)
    directories = [dataset_dir] if isinstance(dataset_dir, (str, PathLike)) else list(dataset_dir)
    directories += [] if confirm_dir is None else [confirm_dir]
    names = _names(directories)
    # data sets without a validation list write down how they were split
    data = {
        name: load_datalist(directory, list_key, folder / "splits" / name)
        for name, directory in zip(names, directories, strict=True)
    }
    ignored = {name: find_ignore_label(directory) for name, directory in zip(names, directories, strict=True)}
    if len(data) > 1 and not exclude_problems:
        _check_data(data, network, labels, ignored, subjects, subject_pattern)

    further = {name: _load_further(name, path, network, chosen_device) for name, path in (extra or {}).items()}
    kept_back = _confirming_cases(
        data, names[-1], confirm_dir is not None, confirm_share, seed, subjects, subject_pattern
    )
    extra_points = {
        OperatingPoint(name, net.levels[-1], "extra", Path((extra or {})[name]).name): net
        for name, net in further.items()
    }
    pipeline = {"preprocessing": preprocessing, "inferer": inferer, "postprocessing": postprocessing}
    run_settings = _run_settings(inferer, own, chosen_device, list_key, confirm_dir, confirm_share, seed, repeats)
    run_settings |= _earlier_rules(folder, guarded, alpha, drops, run_settings)
    # what precision "auto" is depends on the device, and results are not quite the same on another one
    machine = [inference_of(inferer, chosen_device)["precision"], chosen_device.type, *([own.runtime] if own else [])]
    pipelines = {
        setting: pipeline | {"inferer": with_setting(inferer, setting)} if setting else pipeline
        for setting in (None, *others)
    }
    # all at once: transforms that have been used may not describe themselves as before
    configurations = {
        setting: json.dumps([describe_settings(used), *([chosen_device.type] if setting else machine)])
        for setting, used in pipelines.items()
    }

    def score(name: str, setting: InferenceSetting | None = None) -> Scores:
        """The levels and further checkpoints as the inferer runs them, or the levels at another setting."""
        entries = _choosing(data[name], name, kept_back) if setting else data[name]
        title = f"scoring {name}, {setting.name}" if setting else f"scoring {name}"
        with tqdm(total=len(entries), desc=title, disable=not progress or _rank() > 0) as bar:
            return evaluate_levels(
                network,
                entries,
                **pipelines[setting],
                labels=labels,
                tolerance_mm=tolerance_mm,
                ignore_label=ignored[name],
                extra=None if setting else extra_points,
                dataset=name,
                device=chosen_device,
                subjects=subjects,
                subject_pattern=subject_pattern,
                configuration=configurations[setting],
                store=folder / "operating_points" / setting.name.replace(" ", "_") if setting else folder / "scores",
                exclude_problems=exclude_problems,
                uncertainty_dir=folder / "uncertainty" / name if save_uncertainty and not setting else None,
                progress=lambda done, total: _advance(bar, done, total),
            )

    with _process_group() as group:
        all_scores = [score(name) for name in names]
        choosing_names = names if confirm_dir is None else names[:-1]
        further_scores = {
            setting: [_naming(setting, score, name) for name in choosing_names] for setting in others if setting
        }
        if _rank() > 0:
            # the first process measures, decides and writes; the others wait for what it found
            return _from_first(None, group)
        # a further checkpoint that failed on one data set is left out of all
        points = tuple(point for point in all_scores[0].points if all(point in each.points for each in all_scores))
        left_out = [point.name for point in extra_points if point not in points]
        if left_out:
            run_settings["left out, as they fail on a case"] = ", ".join(left_out)
        all_scores = [_of_points(each, points) for each in all_scores]
        confirming = all_scores[-1] if confirm_dir is not None else None
        scores = all_scores if confirming is None else all_scores[:-1]
        rows = tuple(row for each in scores for row in each.rows)
        rules = {"alpha": alpha, "max_case_drop": drops, "bootstrap_samples": bootstrap_samples, "seed": seed}
        decisions = _decide(rows, points, guarded, rules, confirming, kept_back)
        costs = _costs(network, points, further, scores, pipeline, window_shape, chosen_device, repeats, seed)
        grid = None
        if own is not None and asked:
            choosing = tuple(row for row in rows if (row.dataset, row.case) not in kept_back)
            evaluated = _evaluated_grid(points, choosing, own, further_scores)
            grid = _grid(*evaluated, network, inferer, costs, chosen_device, settings_repeats, guarded, rules)
        result = PruningResult(
            title=title,
            points=points,
            labels=tuple(labels),
            tolerance_mm=dict(tolerance_mm),
            rows=tuple(row for each in all_scores for row in each.rows),
            problems=tuple(problem for each in all_scores for problem in each.problems),
            costs=costs,
            environment=describe_environment(chosen_device, _precision(inferer), own.runtime if own else "torch"),
            margins=guarded,
            alpha=alpha,
            max_case_drop=drops,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
            decisions=decisions,
            trade_offs=_trade_offs(rows, points, costs, limits, utility_weight),
            command=_command(),
            error_auroc=_mean([each.error_auroc for each in all_scores]),
            settings=run_settings,
            grid=grid,
        )
        final = verdict(result)
        shown = _level_to_show(final, decisions, network.levels)
        overlays = _overlays(folder, network, shown, all_scores, pipeline, labels, chosen_device)
        result = dataclasses.replace(result, overlays=overlays)
        paths = write_report(result, folder)
        if write is not None and bundle is not None and final.verdict == "prune":
            write_pruned_bundle(
                bundle, final.level, write, decision=final, result=result, inference=inference, overwrite=overwrite
            )
        elif write is not None:
            logger.warning("No pruned bundle was written, as the verdict is not to prune.")
            if Path(write).exists():
                logger.warning("%s is of an earlier run and does not belong to this verdict.", write)
        logger.info("%s", final.summary)
        if grid is not None:
            logger.info("%s", grid.reason)
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


def _check_numbers(
    alpha: float, bootstrap_samples: int, utility_weight: float | None, repeats: int, settings_repeats: int
) -> None:
    check_alpha(alpha)
    if bootstrap_samples < 100:
        raise ValueError(f"bootstrap_samples must be 100 or more, got {bootstrap_samples}. 9999 is a good number.")
    if utility_weight is not None and not (math.isfinite(utility_weight) and utility_weight >= 0):
        raise ValueError(f"utility_weight must be 0 or more, got {utility_weight}. 0.02 is two points of Dice.")
    if repeats < 1:
        raise ValueError(f"repeats must be 1 or more, got {repeats}. Ten give a usable spread.")
    if settings_repeats < 1:
        raise ValueError(f"settings_repeats must be 1 or more, got {settings_repeats}. Three are the least to compare.")


def _check_report() -> None:
    """Refuse at the start what would otherwise stop the run at its end."""
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f'Reports need {" and ".join(missing)}: pip install "monai-unetpp[report]"')


def _check_write(
    network: NestedUNet,
    bundle: str | PathLike[str] | None,
    target: Path,
    folder: Path,
    overwrite: bool,
    inferer: Any,
    device: torch.device,
) -> dict[str, Any]:
    """Refuse what could not be written at the end, and say with what values the new bundle must segment."""
    if bundle is None:
        raise ValueError(
            "bundle must name the bundle to prune when write is given. Pass bundle=..., or leave write out."
        )
    if target.exists() and not overwrite:
        raise FileExistsError(f"write must not exist yet, got {target}. Give another folder, or set overwrite.")
    if target.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ValueError(f"write must not hold output_dir, got {target} around {folder}. Give another folder.")
    check_writable(bundle, target, overwrite=overwrite)
    weights = Path(bundle) / "models" / "model.pt"
    own = load_network(weights, network_def=read_network_def(bundle)).state_dict()
    evaluated = network.state_dict()
    if own.keys() != evaluated.keys() or any(not torch.equal(own[key], evaluated[key].cpu()) for key in own):
        raise ValueError(
            f"write must be left out where the evaluated weights are not the bundle's own, got others than {weights}, "
            "which the pruned bundle would be cut out of. Copy the checkpoint there, or leave write out."
        )
    return check_inference(bundle, inferer, device)


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
    ignored: Mapping[str, int | None],
    subjects: Mapping[str, str] | str | PathLike[str] | None,
    subject_pattern: str | None,
) -> None:
    """Check every data set before the first is scored: ``evaluate_levels`` checks its own only."""
    problems = []
    for dataset, entries in data.items():
        values = [*labels.values(), *([] if (value := ignored[dataset]) is None else [value])]
        cases = list_cases(entries, subjects, subject_pattern)
        found = dict.fromkeys(repeated_names(cases), "names of cases must differ. Rename the files.")
        for case in cases:
            reason = check_case(case, values, network.spatial_dims, network.in_channels).problem
            if reason is not None:
                found.setdefault(case.name, reason)
        problems += [f"- {dataset}, {name}: {reason}" for name, reason in found.items()]
    if problems:
        raise ValueError(
            f"cases of all data sets must be sound, got {len(problems)} with a problem:\n" + "\n".join(problems) + "\n"
            "Correct them, or set exclude_problems to leave them out."
        )


def _load_further(name: str, path: str | PathLike[str], evaluated: NestedUNet, device: torch.device) -> NestedUNet:
    """The deepest level of a further checkpoint, which is what is scored and measured."""
    network = load_network(path)
    for key in ("spatial_dims", "in_channels", "out_channels"):
        if network.config[key] != evaluated.config[key]:
            raise ValueError(
                f"extra must have the {key} of the network, {evaluated.config[key]}, got {network.config[key]} for "
                f"{name!r} ({path}). It can only be compared on the same images and labels."
            )
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


def _listed(given: str | Sequence[Any]) -> Sequence[Any]:
    """One text is a list of one: its letters are no settings."""
    return [given] if isinstance(given, str) else given


def _margins(given: str | Sequence[str | Margin] | None, labels: Mapping[str, int]) -> tuple[Margin, ...]:
    if given is None:
        return tuple(DEFAULT_MARGINS)
    margins = tuple(each if isinstance(each, Margin) else parse_margin(each) for each in _listed(given))
    known = scored_labels(labels)
    unknown = next((name for margin in margins for name in margin.labels or () if name not in known), None)
    if unknown is not None:
        raise ValueError(f"margins must name labels among {', '.join(known)}, got {unknown!r}. Correct the name.")
    if not margins:
        raise ValueError("margins must name one metric or more, got none. Leave it out for Dice 0.01 and NSD 0.02.")
    return margins


def _case_drops(given: str | Sequence[str] | Mapping[str, float] | None) -> dict[str, float]:
    """The limits of all metrics: what is not named keeps its default."""
    texts = [f"{key}={value}" for key, value in given.items()] if isinstance(given, Mapping) else _listed(given or [])
    limits = [parse_case_drop(text) for text in texts]
    metrics = [metric for metric, _ in limits]
    repeated = next((metric for metric in metrics if metrics.count(metric) > 1), None)
    if repeated is not None:
        raise ValueError(f"max_case_drop must name a metric once, got {repeated!r} twice. Give one limit for it.")
    return {**DEFAULT_MAX_CASE_DROP, **dict(limits)}


def _confirming_cases(
    data: Mapping[str, Sequence[Mapping[str, Any]]],
    last: str,
    separate: bool,
    share: float | None,
    seed: int,
    subjects: Mapping[str, str] | str | PathLike[str] | None,
    subject_pattern: str | None,
) -> frozenset[tuple[str, str]]:
    """Data set and name of the cases that only confirm: those of the ``last`` data set, or a share of all.

    Raises:
        ValueError: they are not other data than what chooses.
    """
    if not separate and share is None:
        return frozenset()
    found: dict[str, list[tuple[LabelledCase, str | None]]] = {}
    for dataset, entries in data.items():
        cases = list_cases(entries, subjects, subject_pattern)
        given = subjects is not None or subject_pattern is not None
        found[dataset] = [
            (case, case.subject if given or entry.get("subject") else None)
            for case, entry in zip(cases, entries, strict=True)
        ]
    if separate:
        confirming = frozenset((last, case.name) for case, _ in found[last])
    else:
        confirming = _keep_back(found, share or 0.0, seed)
    _check_other_data(found, confirming)
    return confirming


def _keep_back(
    found: Mapping[str, Sequence[tuple[LabelledCase, str | None]]], share: float, seed: int
) -> frozenset[tuple[str, str]]:
    """A share of the subjects of each data set; of all together where a subject is in several of them."""
    places: dict[str, set[str]] = {}
    for dataset, cases in found.items():
        for _, subject in cases:
            if subject is not None:
                places.setdefault(subject, set()).add(dataset)
    joint = any(len(datasets) > 1 for datasets in places.values())
    confirming = set()
    for group in [list(found)] if joint else [[dataset] for dataset in found]:
        # without given subjects, cases of one name in two data sets are two subjects
        members = {
            f"{dataset}/{case.name}": subject or (f"{dataset}/{case.name}" if joint else case.name)
            for dataset in group
            for case, subject in found[dataset]
        }
        if len(set(members.values())) < 2:
            raise ValueError(
                f"confirm_share must have two subjects or more to split, got one in {', '.join(group)}. Leave it out."
            )
        # split_cases takes the share of the subjects that choose
        confirming |= {
            (dataset, name) for dataset, name in (key.split("/", 1) for key in split_cases(members, 1 - share, seed)[1])
        }
    for dataset, cases in found.items():
        sides = {(dataset, case.name) in confirming for case, _ in cases}
        if len(sides) < 2:
            raise ValueError(
                f"confirm_share must leave cases of {dataset!r} on both sides, got all to "
                f"{'confirm' if sides == {True} else 'choose'}. Take another share or seed, or add cases."
            )
    return frozenset(confirming)


def _check_other_data(
    found: Mapping[str, Sequence[tuple[LabelledCase, str | None]]], confirming: frozenset[tuple[str, str]]
) -> None:
    """Refuse cases that confirm what they, or others of the same subject, have chosen."""
    choosing: dict[str, str] = {}
    people: dict[str, str] = {}
    images = []
    for dataset, cases in found.items():
        for case, subject in cases:
            # a file that is missing is a problem of its own, which is told elsewhere
            content = hash_files(case.image) if all(path.exists() for path in case.image) else None
            if (dataset, case.name) in confirming:
                images.append((f"{case.name} ({dataset})", content, subject))
                continue
            if content is not None:
                choosing.setdefault(content, f"{case.name} ({dataset})")
            if subject is not None:
                people.setdefault(subject, f"{case.name} ({dataset})")
    same = [f"- {name}: the same image as {choosing[content]}" for name, content, _ in images if content in choosing]
    same += [
        f"- {name}: the same subject, {subject!r}, as {people[subject]}"
        for name, _, subject in images
        if subject in people
    ]
    if same:
        raise ValueError(
            f"cases that confirm must be others than those that choose, got {len(same)} in common:\n"
            + "\n".join(same)
            + "\nTake them out of one of the data sets."
        )


def _settings(
    inferer: Any, asked: Mapping[str, Any], network: NestedUNet, device: torch.device
) -> list[InferenceSetting] | list[None]:
    """The inferer's own setting and those asked for; the own one is None for inferers that have no settings."""
    if asked:
        check_grid_inferer(inferer)
    if not isinstance(inferer, NestedSlidingWindowInferer):
        return [None]
    return list(list_settings(inferer, dict(asked), network, device))


def _naming(setting: InferenceSetting, score: Callable[[str, InferenceSetting], Scores], name: str) -> Scores:
    """The scores at a setting; where there are none, the message says at which."""
    try:
        return score(name, setting)
    except (ValueError, RuntimeError) as e:
        raise type(e)(f"settings must work on the cases, got a failure at {setting.name}: {e}") from e


def _choosing(
    entries: Sequence[Mapping[str, Any]], dataset: str, kept_back: frozenset[tuple[str, str]]
) -> list[Mapping[str, Any]]:
    """The entries whose cases choose; operating points are compared on these only."""
    names = [case.name for case in list_cases(entries)] if kept_back else [""] * len(entries)
    return [entry for entry, name in zip(entries, names, strict=True) if (dataset, name) not in kept_back]


def _evaluated_grid(
    levels: Sequence[OperatingPoint],
    rows: Sequence[ScoreRow],
    own: InferenceSetting,
    further: Mapping[InferenceSetting, Sequence[Scores]],
) -> tuple[tuple[OperatingPoint, ...], tuple[ScoreRow, ...], dict[str, str]]:
    """The points and scores of all settings that were run on every case, and why others are left out."""
    embedded = [point for point in levels if point.kind == "embedded"]
    points, found = at_setting(embedded, rows, own)
    cases = {(row.dataset, row.case) for row in rows}
    left_out = {}
    for setting, scores in further.items():
        new_points, new_rows = at_setting(embedded, [row for each in scores for row in each.rows], setting)
        missing = cases - {(row.dataset, row.case) for row in new_rows}
        if missing:
            reasons = [f"{each.case}: {each.reason}" for some in scores for each in some.problems]
            left_out[setting.name] = f"not run on {len(missing)} case(s). {' '.join(reasons)}"
            logger.warning("%s is left out of the comparison: %s", setting.name, left_out[setting.name])
            continue
        points, found = (*points, *new_points), (*found, *(r for r in new_rows if (r.dataset, r.case) in cases))
    return points, found, left_out


def _grid(
    points: tuple[OperatingPoint, ...],
    rows: tuple[ScoreRow, ...],
    left_out: dict[str, str],
    network: NestedUNet,
    inferer: NestedSlidingWindowInferer,
    level_costs: dict[str, PointCost],
    device: torch.device,
    repeats: int,
    margins: tuple[Margin, ...],
    rules: dict[str, Any],
) -> OperatingGrid:
    """The operating points with their costs and outcomes; the first setting is the inferer's own."""
    logger.info("Measuring the time of %d operating points ...", len(points))
    reference = points[len(network.levels) - 1].name
    costs, ratios = measure_setting_costs(
        {level: network.prune(level).eval() for level in network.levels},
        points,
        inferer,
        level_costs,
        reference=reference,
        device=device,
        repeats=repeats,
        seed=rules["seed"],
    )
    return compare_grid(points, rows, costs, ratios, reference=reference, margins=margins, left_out=left_out, **rules)


def _run_settings(
    inferer: Any,
    own: InferenceSetting | None,
    device: torch.device,
    list_key: str,
    confirm_dir: str | PathLike[str] | None,
    confirm_share: float | None,
    seed: int,
    repeats: int,
) -> dict[str, str]:
    """How images are segmented and cases chosen, in words."""
    used = inference_of(inferer, device)
    found = {}
    if "patch_size" in used:
        size = used["patch_size"]
        found["window"] = "x".join(map(str, size)) if isinstance(size, list) else str(size or "the whole image")
        found["overlap of windows"] = str(used["overlap"])
        found["blending of windows"] = used["blending"]
    else:
        found["inferer"] = type(inferer).__name__
    found["flips along axes"] = ", ".join(map(str, used["flips"])) or "none"
    found["precision"] = used["precision"]
    if own is not None:
        found["runtime"] = own.runtime
    found["list of cases"] = list_key
    if confirm_dir is not None:
        found["confirmed on"] = Path(confirm_dir).resolve().name
    if confirm_share is not None:
        found["share of subjects kept back to confirm"] = f"{confirm_share:g}"
        found["seed of the split"] = str(seed)
    found["runs per latency"] = str(repeats)
    return found


def _earlier_rules(
    folder: Path,
    margins: tuple[Margin, ...],
    alpha: float,
    drops: Mapping[str, float],
    settings: Mapping[str, str],
) -> dict[str, str]:
    """The rules of a report that is already in the folder, if they were others: rules count only where fixed first."""
    path = folder / "report.json"
    if not path.is_file():
        return {}
    try:
        earlier = read_report(path)
    except (ValueError, TypeError, KeyError, OSError) as e:
        logger.warning("%s could not be read (%s): its rules are not compared with those of this run.", path, e)
        return {}
    before = earlier.settings.get(_EARLIER)
    # reports of earlier versions have no settings
    own = {key: value for key, value in earlier.settings.items() if key != _EARLIER and not key.startswith("left out")}
    changed = {
        key: own.get(key, "not given") for key in {**own, **settings} if own and own.get(key) != settings.get(key)
    }
    texts = [] if before is None else [before]
    same_rules = (set(earlier.margins), earlier.alpha, earlier.max_case_drop) == (set(margins), alpha, dict(drops))
    if changed or not same_rules:
        parts = [
            "margins " + ", ".join(f"{_margin_text(margin)}" for margin in earlier.margins),
            f"alpha {earlier.alpha:g}",
            "largest drops " + ", ".join(f"{metric}={value:g}" for metric, value in earlier.max_case_drop.items()),
            *(f"{key} {value}" for key, value in changed.items()),
        ]
        texts.append("; ".join(parts))
    return {_EARLIER: " | ".join(dict.fromkeys(texts))} if texts else {}


def _margin_text(margin: Margin) -> str:
    labels = "" if margin.labels is None else f":{','.join(margin.labels)}"
    return f"{margin.metric}{labels}={margin.value:g}"


def _of_points(scores: Scores, points: tuple[OperatingPoint, ...]) -> Scores:
    names = {point.name for point in points}
    return dataclasses.replace(scores, points=points, rows=tuple(row for row in scores.rows if row.point in names))


def _advance(bar: Any, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


def _decide(
    rows: tuple[ScoreRow, ...],
    points: tuple[OperatingPoint, ...],
    margins: tuple[Margin, ...],
    settings: dict[str, Any],
    confirming: Scores | None,
    kept_back: frozenset[tuple[str, str]],
) -> tuple[Decision, ...]:
    if not kept_back:
        return decide_all(rows, points, margins, **settings)
    available = rows if confirming is None else (*rows, *confirming.rows)
    choosing_rows = tuple(row for row in available if (row.dataset, row.case) not in kept_back)
    confirm_rows = tuple(row for row in available if (row.dataset, row.case) in kept_back)
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
    stopped = [each.cases_needed for each in confirmations if each.verdict == deciding.verdict]
    needed = [number for number in stopped if number is not None]
    return dataclasses.replace(
        deciding,
        dataset=ALL,
        cases=sum(each.cases for each in confirmations),
        subjects=sum(each.subjects for each in confirmations),
        comparisons=(),
        blockers=tuple(f"{each.dataset}: {blocker}" for each in confirmations for blocker in each.blockers),
        # unknown for one of them is unknown for all
        cases_needed=max(needed) if len(needed) == len(stopped) and deciding.verdict == "inconclusive" else None,
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


def _voxels(case: LabelledCase) -> int:
    return int(np.prod(read_geometry(case.label).shape))


def _precision(inferer: Any) -> str:
    return inferer.precision if isinstance(inferer, (PrecisionInferer, NestedSlidingWindowInferer)) else "fp32"


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


def _level_to_show(final: Decision, decisions: Sequence[Decision], levels: Sequence[str]) -> str:
    """The level that was chosen, or the one that failed: the chosen one in its confirmation, else the first tested."""
    if final.verdict == "prune" and final.level != levels[-1]:
        return final.level
    chosen = [each for each in decisions if each.role == "choose" and each.verdict == "prune"]
    if final.role == "confirm" and chosen:
        return chosen[-1].level
    return levels[-2]


def _overlays(
    folder: Path,
    network: NestedUNet,
    chosen: str,
    scores: list[Scores],
    pipeline: dict[str, Any],
    labels: Mapping[str, int],
    device: torch.device,
) -> tuple[str, ...]:
    """Pictures of the cases in which the level ``chosen`` is furthest behind the deepest."""
    levels = list(network.levels)
    deepest = levels[-1]
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
        truth = read_label_map(case.label, network.spatial_dims)
        maps = predict_case(network, case, **pipeline, levels=[chosen, deepest], device=device)
        path = folder / "overlays" / f"{dataset}_{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_overlay(
            _background(case, truth.data.shape),
            np.where(np.isin(truth.data, list(labels.values())), truth.data, 0),
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


def _background(case: LabelledCase, shape: tuple[int, ...]) -> npt.NDArray[Any]:
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
