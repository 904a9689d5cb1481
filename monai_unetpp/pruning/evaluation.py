"""The whole evaluation in one call: check, score, measure costs, decide, report, write."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from monai_unetpp.distributed import by_first, process_group, rank
from monai_unetpp.files import claimed, make_output_dir
from monai_unetpp.measuring.environment import command_line, describe_environment
from monai_unetpp.metrics.scores import check_tolerances
from monai_unetpp.networks import NestedUNet
from monai_unetpp.progress import teller
from monai_unetpp.pruning import evaluation_stages as stages
from monai_unetpp.pruning.decision import trust
from monai_unetpp.pruning.doubts import all_doubts
from monai_unetpp.pruning.evaluation_stages import Scored
from monai_unetpp.pruning.exposure import training_gap, with_exposures, withdrawn, without_choice
from monai_unetpp.pruning.plan import PruningPlan
from monai_unetpp.pruning.preflight import check_plan, check_weights
from monai_unetpp.pruning.report.report_files import write_report
from monai_unetpp.pruning.report.worst_cases import save_worst_cases
from monai_unetpp.pruning.results import PruningResult
from monai_unetpp.pruning.scoring.folds import describe_unscored, fold_lists, read_folds
from monai_unetpp.pruning.scoring.levels import Scores
from monai_unetpp.pruning.summary import shown_loser, verdict
from monai_unetpp.pruning.write import write_pruned_bundle

logger = logging.getLogger(__name__)


def prune(plan: PruningPlan) -> PruningResult:
    """Find out how shallow a network can be, explain it in a report, and write the pruned bundle.

    The stages are :func:`~monai_unetpp.pruning.evaluate_levels`, :func:`~monai_unetpp.pruning.measure_costs`,
    :func:`~monai_unetpp.pruning.decide_all`, :func:`~monai_unetpp.pruning.write_report` and
    :func:`~monai_unetpp.pruning.write_pruned_bundle`; each can be called alone. Finished cases are kept in
    ``output_dir/scores``, so that an interrupted run can continue. Under ``torchrun`` the processes share the cases;
    the first one measures, decides and writes. Errors that can be found early are raised before any case is scored.

    Args:
        plan: what to evaluate, by which rules, and what to write.

    Raises:
        TypeError: a network that is no ``NestedUNet`` (see ``evaluate_levels`` for others), or an inferer that cannot
            run at the requested settings.
        ValueError: inconsistent parts of the plan, or data with problems, all named.
        FileNotFoundError: a data set, checkpoint or bundle is missing.
        FileExistsError: the folder for the pruned bundle exists and may not be replaced.
        BlockingIOError: another process evaluates in the same folder.
        OSError: the folder cannot be written to.
        ImportError: a package for the report, or a runtime of the settings, is not installed.
        RuntimeError: no case could be scored.
    """
    if plan.data.scores:
        folder = plan.data.dataset_dir[0]
        lists = fold_lists(folder, plan.data.list_key, **plan.data.subject_rules(folder))
        entries = [entry for listed in lists.values() for entry in listed]
        levels = plan.pipeline.network.levels
        tolerances = check_tolerances(plan.pipeline.tolerance_mm, plan.pipeline.labels)
        folds = read_folds(plan.data.scores, entries, levels, plan.data.names[0], tolerances)
        unscored = describe_unscored(folds, lists)
        if unscored and rank() == 0:
            logger.warning("%s", unscored)
        return judge(folds, plan.with_fields(unscored=unscored) if unscored else plan)
    return _evaluated(plan)


def judge(scores: Sequence[Scores], plan: PruningPlan, *, networks: Sequence[NestedUNet] = ()) -> PruningResult:
    """The rest of :func:`prune` for cases that are already scored, such as out-of-fold ones of cross-fitting.

    Each fold's network scores the cases of subjects that it never saw, by
    :func:`~monai_unetpp.pruning.evaluate_levels` with the name of the data set as ``dataset``; the cases of all folds
    judge the levels. ``plan.pipeline.network`` is the final network, trained on all of them: its costs are measured, it
    is pruned, and it scores the cases of ``confirm_dir``, if any. For tables on disk, such as each fold's
    ``per_case.csv``, use ``scores=[...]`` in the plan, or ``--scores``.

    Args:
        scores: of each fold; no subject may be in two of them.
        plan: as for :func:`prune`, with one ``dataset_dir``.
        networks: of each fold, to draw the worst cases as they were scored; without them none are drawn.

    Raises:
        ValueError: inconsistent folds, cases that must not judge, such as an image that occurs twice, or a plan that
            requires scoring the cases again (``settings``, ``extra`` and ``save_uncertainty``).

    It also raises all that :func:`prune` raises.
    """
    scored_again = plan.costs.settings or plan.pipeline.extra or plan.outputs.save_uncertainty
    if len(plan.data.dataset_dir) > 1 or scored_again:
        raise ValueError(
            "scores must be given without settings, extra, save_uncertainty and a second dataset_dir, which score "
            "cases again. Leave them out, or leave scores out."
        )
    scored_by = {
        (row.dataset, row.case): network
        for fold, network in zip(scores, networks, strict=bool(networks))
        for row in fold.rows
    }
    return _evaluated(plan, scores, scored_by)


def _evaluated(
    plan: PruningPlan,
    scores: Sequence[Scores] | None = None,
    scored_by: Mapping[tuple[str, str], NestedUNet] | None = None,
) -> PruningResult:
    """All stages; of several processes, the first concludes and the others wait for its result."""
    with process_group(plan.pipeline.device):
        check_plan(plan)
        # keeps evaluations by other programs out, for all processes
        with claimed(make_output_dir(plan.outputs.output_dir), "evaluates") if rank() == 0 else nullcontext():
            scored = stages.score_data_sets(stages.prepare(plan, scores))
            return by_first(lambda: _conclude(scored, scored_by or {}))


def _conclude(scored: Scored, scored_by: Mapping[tuple[str, str], NestedUNet]) -> PruningResult:
    """Measure, decide, report and write."""
    prepared, outputs = scored.prepared, scored.prepared.plan.outputs
    tell = teller(outputs.progress, logger)
    result = _evaluate(scored, tell, unchecked=not scored_by)
    if scored_by or prepared.given is None:
        # drawing needs the networks that gave these scores
        tell("drawing the worst cases ...")
        shown = shown_loser(result)
        if shown is not None:
            cases = (shown.level, scored.data_sets, scored_by, outputs.pictures, prepared.ignore_labels)
            found = save_worst_cases(outputs.output_dir, prepared.plan.pipeline, *cases)
            result = dataclasses.replace(result, overlays=found)
    tell("writing the report ...")
    paths = write_report(result, outputs.output_dir)
    _write_pruned(prepared.plan, prepared.inference, result)
    logger.info("%s", verdict(result).summary)
    for compared in (result.grid, result.adaptive):
        if compared is not None:
            logger.info("%s", compared.reason)
    logger.info("The report is %s.", paths["html"])
    return result


def _evaluate(scored: Scored, tell: Callable[[str], None], *, unchecked: bool) -> PruningResult:
    """Costs and decisions; ``tell`` announces each step, as it may take minutes."""
    prepared, plan = scored.prepared, scored.prepared.plan
    tell("deciding: comparing the levels, case by case, on all subjects ...")
    decisions = stages.decide_cases(scored)
    exposures = stages.expose(scored, decisions, unchecked)
    if exposures is not None:
        decisions = with_exposures(decisions, exposures, plan.pipeline.network.levels[-1])
    tell("deciding: repeating the verdict on other samples of the subjects ...")
    known = withdrawn(exposures)
    unseen = [row for row in scored.choosing_rows if row.dataset not in known]
    repeated, between_sets = trust(unseen, scored.points, plan.rules)
    # what is left of all data sets is not all of them
    stability = tuple(each for each in repeated if each.dataset not in known)
    tell(f"measuring the costs of {', '.join(point.name for point in scored.points)} ...")
    costs = stages.measure_levels(scored)
    if plan.costs.settings:
        tell("measuring and comparing the further settings ...")
    adaptive = without_choice(stages.compare_adaptive(scored, costs), exposures)
    problems = stages.all_problems(scored)
    return PruningResult(
        title=plan.outputs.title,
        points=scored.points,
        labels=tuple(plan.pipeline.labels),
        tolerance_mm=dict(plan.pipeline.tolerance_mm),
        rows=scored.all_rows,
        problems=problems,
        costs=costs,
        environment=describe_environment(
            prepared.device, prepared.settings["precision"], prepared.own.runtime if prepared.own else "torch"
        ),
        rules=plan.rules,
        decisions=decisions,
        trade_offs=tuple(without_choice(each, exposures) for each in stages.trade_offs(scored, costs, adaptive)),
        command=command_line(),
        error_auroc=scored.error_auroc,
        settings=stages.all_settings(scored),
        grid=without_choice(stages.compare_settings(scored, costs), exposures),
        adaptive=adaptive,
        stability=stability,
        between_sets=between_sets,
        exposures=exposures,
        doubts=all_doubts(
            plan, prepared.entries, scored.rows, scored.cases, problems, out_of_fold=prepared.given is not None
        ),
        training_gap=training_gap(
            [row for each in scored.training for row in each.rows], scored.rows, plan.pipeline.network.levels
        ),
        confirming=tuple(sorted(prepared.kept_back)),
    )


def _write_pruned(plan: PruningPlan, inference: Mapping[str, Any], result: PruningResult) -> None:
    outputs, bundle, final = plan.outputs, plan.pipeline.bundle, verdict(result)
    if outputs.write is None or bundle is None:
        return
    if final.verdict == "prune":
        # they may have been replaced meanwhile
        check_weights(plan.pipeline)
        write_pruned_bundle(
            bundle, final.level, outputs.write, result=result, inference=inference, overwrite=outputs.overwrite
        )
        return
    logger.warning("No pruned bundle was written, as the verdict is not to prune.")
    if outputs.write.exists():
        logger.warning("%s is from an earlier run and does not belong to this verdict.", outputs.write)
