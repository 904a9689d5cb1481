"""The stages of an evaluation, each working on the result of the one before."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from monai_unetpp.bundles import TrainingRecord
from monai_unetpp.data import load_datalist, read_geometry
from monai_unetpp.data.datasets.case_check import CheckedCase
from monai_unetpp.data.datasets.labelled import LabelledCase, list_cases
from monai_unetpp.data.formats.naming import entry_name
from monai_unetpp.distributed import rank
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.measuring.energy import find_counter
from monai_unetpp.measuring.environment import measuring_device
from monai_unetpp.metrics.scores import scored_labels
from monai_unetpp.networks import NestedUNet
from monai_unetpp.progress import counting
from monai_unetpp.pruning import preflight
from monai_unetpp.pruning.confirmation import confirming_cases
from monai_unetpp.pruning.cost import checked_shape, measure_costs, measure_setting_costs
from monai_unetpp.pruning.decision import confirm, decide_all, join
from monai_unetpp.pruning.doubts import doubts_of_names
from monai_unetpp.pruning.exposure import exposures_of, record_of
from monai_unetpp.pruning.inference import inference_of
from monai_unetpp.pruning.pipeline_text import describe_settings
from monai_unetpp.pruning.plan import EvaluationData, PruningPlan
from monai_unetpp.pruning.points import tradeoffs
from monai_unetpp.pruning.points.adaptive_points import check_adaptive, evaluate_adaptive
from monai_unetpp.pruning.points.operating_points import compare_grid, points_at_settings
from monai_unetpp.pruning.points.settings import (
    adaptive_tolerances,
    check_grid_inferer,
    list_settings,
    parse_settings,
    with_setting,
)
from monai_unetpp.pruning.provenance import earlier_rules, run_settings
from monai_unetpp.pruning.results import (
    AdaptiveDepth,
    DataProblem,
    Decision,
    Exposure,
    InferenceSetting,
    OperatingGrid,
    OperatingPoint,
    PointCost,
    ScoreRow,
    TradeOff,
)
from monai_unetpp.pruning.rules import parse_budget
from monai_unetpp.pruning.scoring.arguments import Scoring
from monai_unetpp.pruning.scoring.case_scores import remove_other_maps
from monai_unetpp.pruning.scoring.folds import check_complete, check_truth, join_folds
from monai_unetpp.pruning.scoring.levels import NothingScoredError, Scores, evaluate_levels, refuse_problems
from monai_unetpp.pruning.scoring.prediction import Pipeline

logger = logging.getLogger(__name__)

_ALL_COSTS = ("latency_ms", "memory_mb", "checkpoint_mb")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A checked plan, with everything that scoring needs.

    Attributes:
        own: the inferer's own setting; None for inferers without settings.
        inference: values with which the pruned bundle must segment; empty if none is written.
        entries: the cases of all data sets by name, the confirming data set last.
        training: the training cases to score, by name of each data set that chooses; empty if the plan asks for none.
        ignore_labels: by data set, the label value that is not scored, if any.
        kept_back: data set and name of the cases that only confirm.
        settings: how images are segmented and cases chosen, in words.
        configurations: text of all that scores depend on, by setting; None for the inferer as given.
        record: which cases trained the weights, from the bundle; None if it does not say.
        given: out-of-fold scores of the only data set that chooses; None where the network scores it.
    """

    plan: PruningPlan
    device: torch.device
    own: InferenceSetting | None
    others: tuple[InferenceSetting, ...]
    inference: dict[str, Any]
    entries: dict[str, list[dict[str, Any]]]
    training: dict[str, list[dict[str, Any]]]
    ignore_labels: dict[str, int | None]
    kept_back: frozenset[tuple[str, str]]
    extra: dict[OperatingPoint, NestedUNet]
    settings: dict[str, str]
    configurations: dict[InferenceSetting | None, str]
    checked: dict[str, dict[str, CheckedCase]]
    checked_training: dict[str, dict[str, CheckedCase]]
    record: TrainingRecord | None
    given: Scores | None = None


@dataclasses.dataclass(frozen=True)
class Scored:
    """The scores of all data sets at the points that worked on every case.

    Attributes:
        points: the levels and further networks.
        data_sets: the scores of each data set, the confirming one last.
        at_settings: the scores of the choosing data sets at each further setting.
        training: those of the training cases.
        left_out: further networks that failed, for the report.
    """

    prepared: Prepared
    points: tuple[OperatingPoint, ...]
    data_sets: tuple[Scores, ...]
    at_settings: dict[InferenceSetting, list[Scores]]
    training: tuple[Scores, ...]
    left_out: dict[str, str]

    @property
    def choosing(self) -> tuple[Scores, ...]:
        """The scores of the data sets that choose."""
        return self.data_sets[: len(self.prepared.plan.data.dataset_dir)]

    @property
    def cases(self) -> list[LabelledCase]:
        """The cases of the data sets that choose."""
        return [case for each in self.choosing for case in each.cases]

    @property
    def rows(self) -> tuple[ScoreRow, ...]:
        """The rows of the data sets that choose."""
        return tuple(row for each in self.choosing for row in each.rows)

    @property
    def all_rows(self) -> tuple[ScoreRow, ...]:
        """The rows of all data sets."""
        return tuple(row for each in self.data_sets for row in each.rows)

    @property
    def choosing_rows(self) -> tuple[ScoreRow, ...]:
        """The rows of the cases that choose."""
        return tuple(row for row in self.all_rows if (row.dataset, row.case) not in self.prepared.kept_back)

    @property
    def error_auroc(self) -> float | None:
        """How well disagreement finds errors, mean over the data sets; None if not measured."""
        known = [each.error_auroc for each in self.data_sets if each.error_auroc is not None]
        return float(np.mean(known)) if known else None


def prepare(plan: PruningPlan, folds: Sequence[Scores] | None = None) -> Prepared:
    """Check everything that can be checked before the first case is scored, and collect what scoring needs."""
    given = None if folds is None else join_folds(folds, plan.data.names[0])
    pipeline = plan.pipeline
    device = measuring_device(pipeline.device)
    own, others = _settings(plan, device)
    if any(parse_budget(budget).key == "energy_j" for budget in plan.rules.budgets) and find_counter(device) is None:
        raise ValueError("budget must not limit energy_j here, as this machine does not report it (RAPL or NVML).")
    inference = preflight.check_write(pipeline, plan.outputs)
    entries, training = _entries(plan, given), _training_entries(plan.data)
    ignore_labels = preflight.check_label_names(plan)
    preflight.check_channel_names(plan)
    if rank() == 0:
        for doubt in doubts_of_names(pipeline.labels, plan.data.folders):
            logger.warning("%s", doubt)
    checked = preflight.check_data_sets(plan, entries, ignore_labels)
    checked_training = preflight.check_training(plan, training, ignore_labels)
    if given is not None:
        name = plan.data.names[0]
        # such as an image that is in two folds under two names
        refuse_problems(
            {name: checked[name]},
            "of the folds",
            "or leave them out, and split the folds again. exclude_problems does not leave them out, as networks of "
            "other folds may know these images.",
        )
        check_complete(given, scored_labels(pipeline.labels))
        check_truth(given, {case: each.volumes_ml for case, each in checked[name].items()}, pipeline.labels, name)
    return Prepared(
        plan=plan,
        device=device,
        own=own,
        others=others,
        inference=inference,
        entries=entries,
        training=training,
        ignore_labels=ignore_labels,
        extra=preflight.load_extra(pipeline),
        kept_back=confirming_cases(entries, plan.data, plan.rules.seed),
        settings=run_settings(plan, own, 0 if folds is None else len(folds)),
        configurations=_configurations(plan, own, others, device),
        checked=checked,
        checked_training=checked_training,
        record=record_of(pipeline.network, pipeline.bundle, pipeline.checkpoint),
        given=given,
    )


def _entries(plan: PruningPlan, given: Scores | None) -> dict[str, list[dict[str, Any]]]:
    """The cases of each data set; those of the first are the ones that have been scored, where there are any."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, directory in zip(plan.data.names, plan.data.folders, strict=True):
        rules = plan.data.subject_rules(directory)
        if given is not None and not found:
            told = any(rule is not None for rule in rules.values())
            found[name] = [{**case.as_entry(), **({"subject": case.subject} if told else {})} for case in given.cases]
        else:
            # data sets without a validation list write down how they were split
            folder = plan.outputs.output_dir / "splits" / name
            listed = load_datalist(directory, plan.data.list_key, folder, **rules)
            some = bool(plan.data.only) and directory != plan.data.confirm_dir
            found[name] = [entry for entry in listed if entry_name(entry) in plan.data.only] if some else listed
    return found


def _training_entries(data: EvaluationData) -> dict[str, list[dict[str, Any]]]:
    """The cases of the training list of each data set that chooses; empty if the plan names none."""
    if data.training_list is None:
        return {}
    return {
        name: load_datalist(directory, data.training_list, **data.subject_rules(directory))
        for name, directory in zip(data.names, data.dataset_dir, strict=False)
    }


def _settings(plan: PruningPlan, device: torch.device) -> tuple[InferenceSetting | None, tuple[InferenceSetting, ...]]:
    """The inferer's own setting, None for inferers without settings, and the further ones."""
    asked, inferer = parse_settings(plan.costs.settings), plan.pipeline.inferer
    tolerances = adaptive_tolerances(plan.costs.settings)
    if asked or tolerances:
        check_grid_inferer(inferer)
    if tolerances:
        check_adaptive(plan.pipeline.network, inferer)
    if not isinstance(inferer, NestedSlidingWindowInferer):
        return None, ()
    own, *others = list_settings(inferer, asked, plan.pipeline.network, device)
    return own, tuple(others)


def _configurations(
    plan: PruningPlan, own: InferenceSetting | None, others: Sequence[InferenceSetting], device: torch.device
) -> dict[InferenceSetting | None, str]:
    """Everything that scores depend on except weights and data, as text by setting."""
    # precision "auto" depends on the device, and results differ slightly between devices
    machine = [inference_of(plan.pipeline.inferer, device)["precision"], device.type, *([own.runtime] if own else [])]
    # all at once, since transforms may describe themselves differently after use
    return {
        setting: json.dumps([describe_settings(_steps(plan, setting)), *([device.type] if setting else machine)])
        for setting in (None, *others)
    }


def _steps(plan: PruningPlan, setting: InferenceSetting | None) -> dict[str, Any]:
    """Transforms and inferer, as fields of :class:`Scoring`."""
    steps = plan.pipeline.steps
    return steps | {"inferer": with_setting(steps["inferer"], setting)} if setting else steps


def score_data_sets(prepared: Prepared) -> Scored:
    """Score the levels on every data set, at the further settings on those that choose, and on training cases."""
    names, given = list(prepared.entries), prepared.given
    count = len(prepared.plan.data.dataset_dir)
    data_sets = [score(prepared, name) if given is None or number else given for number, name in enumerate(names)]
    at_settings = {setting: [score(prepared, name, setting) for name in names[:count]] for setting in prepared.others}
    # leave out a further network that failed on any data set
    points = tuple(point for point in data_sets[0].points if all(point in each.points for each in data_sets))
    failed = [point.name for point in prepared.extra if point not in points]
    kept = {point.name for point in points}
    data_sets = [
        dataclasses.replace(each, points=points, rows=tuple(row for row in each.rows if row.point in kept))
        for each in data_sets
    ]
    return Scored(
        prepared,
        points,
        tuple(data_sets),
        at_settings,
        tuple(score(prepared, name, training=cases) for name, cases in prepared.training.items()),
        {"left out, as they fail on a case": ", ".join(failed)} if failed else {},
    )


def all_problems(scored: Scored) -> tuple[DataProblem, ...]:
    """Cases that were left out; of a training case, the reason names its list."""
    listed = f"in the list {scored.prepared.plan.data.training_list!r}: "
    known = [problem for each in scored.training for problem in each.problems]
    return (
        *(problem for each in scored.data_sets for problem in each.problems),
        *(dataclasses.replace(problem, reason=listed + problem.reason) for problem in known),
    )


def score(
    prepared: Prepared,
    name: str,
    setting: InferenceSetting | None = None,
    training: Sequence[Mapping[str, Any]] | None = None,
) -> Scores:
    """Score levels and further networks as given, or only the levels at another setting or on training cases."""
    plan, folder = prepared.plan, prepared.plan.outputs.output_dir
    as_given = not setting and not training
    what, memory, told = "", "scores", ""
    if setting:
        what, memory = f", {setting.name}", f"operating_points/{setting.name.replace(' ', '_')}"
        told = f"settings must work on the cases, got a failure at {setting.name}"
    elif training:
        what, memory = ", training cases", "training_scores"
        told = f"training_list must name cases that can be scored, got a failure in {plan.data.training_list!r}"
    try:
        entries = training or prepared.entries[name]
        if setting:
            # operating points are compared on the cases that choose
            found = zip(list_cases(entries), entries, strict=True)
            entries = [entry for case, entry in found if (name, case.name) not in prepared.kept_back]
        with counting(rank() == 0 and plan.outputs.progress, f"scoring {name}{what}") as count:
            scoring = Scoring(
                **_steps(plan, setting),
                labels=plan.pipeline.labels,
                tolerance_mm=plan.pipeline.tolerance_mm,
                ignore_label=prepared.ignore_labels[name],
                adaptive=adaptive_tolerances(plan.costs.settings) if as_given else (),
                extra=prepared.extra if as_given else None,
                dataset=name,
                device=prepared.device,
                configuration=prepared.configurations[setting],
                store=folder / memory,
                exclude_problems=plan.data.exclude_problems,
                checked=(prepared.checked_training if training else prepared.checked)[name],
                uncertainty_dir=folder / "uncertainty" / name if as_given and plan.outputs.save_uncertainty else None,
                progress=count,
            )
            scores = evaluate_levels(plan.pipeline.network, entries, scoring)
            if scoring.uncertainty_dir is not None and rank() == 0:
                remove_other_maps(scoring.uncertainty_dir, {row.case for row in scores.rows})
            return scores
    except (ValueError, RuntimeError) as e:
        if as_given:
            raise
        if setting and isinstance(e, NothingScoredError) and plan.data.exclude_problems:
            # as a setting that fails on some cases, it is left out of the comparison
            return Scores((), (), (DataProblem(name, "all cases", str(e)),), ())
        # its own type may need other arguments
        raise (ValueError if isinstance(e, ValueError) else RuntimeError)(f"{told}: {e}") from e


def measure_levels(scored: Scored) -> dict[str, PointCost]:
    """The cost of every level as a pruned network, and of the further networks."""
    prepared, plan = scored.prepared, scored.prepared.plan
    logger.info("Measuring the cost of %d operating points ...", len(scored.points))
    network = plan.pipeline.network
    embedded = {point.name: point.level for point in scored.points if point.kind == "embedded"}
    pruned = {name: network.prune(level).eval() for name, level in embedded.items()}
    return measure_costs(
        {point.name: pruned.get(point.name) or prepared.extra[point] for point in scored.points},
        plan.pipeline.window_shape,
        _median_shape(scored),
        plan.pipeline.inferer,
        device=prepared.device,
        precision=prepared.settings["precision"],
        repeats=plan.costs.repeats,
        warm_up=plan.costs.warm_up,
        seed=plan.rules.seed,
        full_network=network.eval(),
        levels=embedded,
    )


def all_settings(scored: Scored) -> dict[str, str]:
    """How this run judged, and earlier rules of the report that it replaces."""
    plan, settings = scored.prepared.plan, scored.prepared.settings
    subjects = {(row.dataset, row.case): row.subject for row in scored.all_rows}
    return settings | earlier_rules(plan.outputs.output_dir, plan, settings, subjects) | scored.left_out


def _median_shape(scored: Scored) -> tuple[int, ...]:
    """The shape of the preprocessed volume of median size among the choosing cases, or of the share to measure on."""
    plan = scored.prepared.plan
    cases = sorted(scored.cases, key=lambda case: math.prod(read_geometry(case.label).shape))
    image = Pipeline(**plan.pipeline.steps).load(cases[len(cases) // 2])
    scale = plan.costs.volume_share ** (1 / (image.ndim - 1))
    windows = checked_shape("window_shape", plan.pipeline.window_shape, image.ndim - 1)
    edges = zip(image.shape[1:], windows, strict=True)
    return tuple(min(edge, max(window, round(edge * scale))) for edge, window in edges)


def expose(scored: Scored, decisions: Sequence[Decision], unchecked: bool) -> tuple[Exposure, ...] | None:
    """Whether the cases of each decision took part in the weights; None if the bundle does not say."""
    prepared = scored.prepared
    names = sorted({(row.dataset, row.case) for row in scored.all_rows})
    voxels = {case: prepared.checked[case[0]][case[1]].voxels or "" for case in names}
    out_of_fold = () if prepared.given is None else prepared.plan.data.names[:1]
    return exposures_of(decisions, voxels, prepared.kept_back, prepared.record, out_of_fold, unchecked)


def decide_cases(scored: Scored) -> tuple[Decision, ...]:
    """The verdict on each data set and on all; with held-out cases, the choice and its confirmation."""
    kept_back, rules = scored.prepared.kept_back, scored.prepared.plan.rules
    if not kept_back:
        return decide_all(scored.rows, scored.points, rules)
    confirming = tuple(row for row in scored.all_rows if (row.dataset, row.case) in kept_back)
    choice = decide_all(scored.choosing_rows, scored.points, rules, role="choose")
    if choice[-1].verdict != "prune":
        return choice
    names = list(dict.fromkeys(row.dataset for row in confirming))
    if missing := sorted({name for name, _ in kept_back} - set(names)):
        raise ValueError(
            f"confirming cases must be scored, got none of {', '.join(missing)}: all have problems. Correct them, or "
            "leave out the option that keeps cases back."
        )
    confirmations = [confirm(choice[-1], confirming, scored.points, rules, dataset=name) for name in names]
    return (*choice, *confirmations, *([join(confirmations)] if len(confirmations) > 1 else []))


def compare_settings(scored: Scored, level_costs: dict[str, PointCost]) -> OperatingGrid | None:
    """The levels at all settings in the plan, with costs and outcomes; None without settings, or without labels."""
    plan, own = scored.prepared.plan, scored.prepared.own
    if own is None or not parse_settings(plan.costs.settings):
        return None
    rows = scored.choosing_rows
    if not tradeoffs.with_labels(rows):
        logger.warning("No choosing case has a label: the settings are not compared.")
        return None
    points, at_points, left_out = points_at_settings(scored.points, rows, own, scored.at_settings)
    logger.info("Measuring the time of %d operating points ...", len(points))
    network = plan.pipeline.network
    reference = points[len(network.levels) - 1].name
    costs, ratios = measure_setting_costs(
        {level: network.prune(level).eval() for level in network.levels},
        points,
        plan.pipeline.inferer,
        level_costs,
        reference=reference,
        device=scored.prepared.device,
        repeats=plan.costs.settings_repeats,
        seed=plan.rules.seed,
    )
    return compare_grid(points, at_points, costs, ratios, plan.rules, reference=reference, left_out=left_out)


def compare_adaptive(scored: Scored, costs: dict[str, PointCost]) -> AdaptiveDepth | None:
    """Depths chosen per window, with their cost on real cases; None without tolerances."""
    prepared, plan = scored.prepared, scored.prepared.plan
    tolerances = adaptive_tolerances(plan.costs.settings)
    if not tolerances or prepared.own is None:
        return None
    inferers: dict[str, NestedSlidingWindowInferer] = {}
    for setting in (prepared.own, *prepared.others):
        # torch.compile takes the network as a whole
        if setting.runtime != "compile":
            inferers.setdefault(setting.runtime, with_setting(check_grid_inferer(plan.pipeline.inferer), setting))
    return evaluate_adaptive(
        plan.pipeline.network,
        inferers,
        [each for each in scored.choosing if each.gate_rows],
        tolerances,
        plan.rules,
        kept_back=prepared.kept_back,
        load=Pipeline(**plan.pipeline.steps).load,
        window_shape=next(iter(costs.values())).window_shape,
        device=prepared.device,
        repeats=plan.costs.settings_repeats,
    )


def trade_offs(scored: Scored, costs: dict[str, PointCost], adaptive: AdaptiveDepth | None) -> tuple[TradeOff, ...]:
    """What rules other than non-inferiority pick on the choosing cases: fronts, budgets, utility.

    Depths chosen per window take part in the front of time, the only cost that is measured of them.
    """
    rules, names = scored.prepared.plan.rules, [point.name for point in scored.points]
    timed = {name: costs[name] for name in names} | tradeoffs.times_of_depths(adaptive, costs)
    rows = tradeoffs.with_labels((*scored.choosing_rows, *(adaptive.rows if adaptive else ())))
    if not rows:
        return ()
    accuracy = tradeoffs.mean_accuracy(rows, list(timed))
    resampled = tradeoffs.resampled_accuracy(rows, list(timed), seed=rules.seed)
    own = {name: accuracy[name] for name in names}
    energy = ("energy_j",) if all(costs[name].volume_energy_j for name in names) else ()
    picked = [tradeoffs.pareto_front(accuracy, timed, ("latency_ms",), resampled)]
    picked += [tradeoffs.pareto_front(own, costs, (key,), resampled) for key in ("memory_mb", "parameters", *energy)]
    picked.append(tradeoffs.front_of_labels({name: costs[name] for name in names}, resampled, (*_ALL_COSTS, *energy)))
    levels = [point.name for point in scored.points if point.kind == "embedded"]
    return (*picked, *tradeoffs.picked_levels(levels, costs, rows, rules))
