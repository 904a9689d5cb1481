"""The whole path in one call: check, score, cost, decide, report, write."""

from __future__ import annotations

import logging

from monai_unetpp.distributed import from_first, rank, waiting_group
from monai_unetpp.measuring.environment import command_line, describe_environment
from monai_unetpp.pruning.plan import PruningPlan
from monai_unetpp.pruning.report import write_report
from monai_unetpp.pruning.results import Decision, PruningResult
from monai_unetpp.pruning.stages import (
    Prepared,
    Scored,
    compare_settings,
    decide_cases,
    inferer_precision,
    measure_levels,
    prepare,
    score_data_sets,
    trade_offs,
)
from monai_unetpp.pruning.summary import headline
from monai_unetpp.pruning.worst_cases import level_to_show, save_worst_cases
from monai_unetpp.pruning.write import write_pruned_bundle

__all__ = ["prune", "verdict"]

logger = logging.getLogger(__name__)


def prune(plan: PruningPlan) -> PruningResult:
    """Find out how shallow a network may be, explain it in a report, and write the pruned bundle.

    The stages are :func:`~monai_unetpp.pruning.evaluate_levels`, :func:`~monai_unetpp.pruning.measure_costs`,
    :func:`~monai_unetpp.pruning.decide_all`, :func:`~monai_unetpp.pruning.write_report` and
    :func:`~monai_unetpp.pruning.write_pruned_bundle`; each can be called alone. Finished cases are kept in
    ``output_dir/scores``, and an interrupted run goes on from there. Under ``torchrun`` the processes share the cases;
    the first one measures, decides and writes. What can be refused is refused before the first case is scored.

    Args:
        plan: what to evaluate, by which rules, and what to write.

    Returns:
        The result.

    Raises:
        TypeError: a network that is no ``NestedUNet``; see ``evaluate_levels`` for others. An inferer that cannot run
            at the settings asked for.
        ValueError: parts of the plan that do not go together, or data with problems, all named.
        FileNotFoundError: a data set, checkpoint or bundle is missing.
        FileExistsError: the folder for the pruned bundle exists and may not be replaced.
        ImportError: what draws the report, or a runtime of the settings, is not installed.
        RuntimeError: not a single case could be scored.
    """
    prepared = prepare(plan)
    with waiting_group() as group:
        scored = score_data_sets(prepared)
        if rank() > 0:
            # the first process measures, decides and writes; the others wait for its result
            return from_first(None, group)
        result = _evaluate(prepared, scored)
        paths = write_report(result, plan.outputs.output_dir)
        _write_pruned(prepared, result)
        logger.info("%s", verdict(result).summary)
        if result.grid is not None:
            logger.info("%s", result.grid.reason)
        logger.info("The report is %s.", paths["html"])
        return from_first(result, group)


def verdict(result: PruningResult) -> Decision:
    """The decision that counts: the confirmation if there is one, else the choice; on all data sets if several.

    Raises:
        ValueError: there is no decision.
    """
    return headline(result)


def _evaluate(prepared: Prepared, scored: Scored) -> PruningResult:
    """Costs, decisions and pictures."""
    plan = prepared.plan
    decisions = decide_cases(scored, plan.rules, prepared.kept_back)
    costs = measure_levels(prepared, scored)
    result = PruningResult(
        title=plan.outputs.title,
        points=scored.points,
        labels=tuple(plan.pipeline.labels),
        tolerance_mm=dict(plan.pipeline.tolerance_mm),
        rows=scored.all_rows,
        problems=tuple(problem for each in scored.data_sets for problem in each.problems),
        costs=costs,
        environment=describe_environment(
            prepared.device, inferer_precision(plan.pipeline.inferer), prepared.own.runtime if prepared.own else "torch"
        ),
        rules=plan.rules,
        decisions=decisions,
        trade_offs=trade_offs(scored, costs, plan.rules),
        command=command_line(),
        error_auroc=scored.error_auroc,
        settings=prepared.settings | scored.left_out,
        grid=compare_settings(prepared, scored, costs),
    )
    shown = level_to_show(verdict(result), decisions, plan.pipeline.network.levels)
    return result.with_overlays(save_worst_cases(plan.outputs.output_dir, plan.pipeline, shown, scored.data_sets))


def _write_pruned(prepared: Prepared, result: PruningResult) -> None:
    outputs, bundle, final = prepared.plan.outputs, prepared.plan.pipeline.bundle, verdict(result)
    if outputs.write is None or bundle is None:
        return
    if final.verdict == "prune":
        write_pruned_bundle(
            bundle,
            final.level,
            outputs.write,
            decision=final,
            result=result,
            inference=prepared.inference,
            overwrite=outputs.overwrite,
        )
        return
    logger.warning("No pruned bundle was written, as the verdict is not to prune.")
    if outputs.write.exists():
        logger.warning("%s is of an earlier run and does not belong to this verdict.", outputs.write)
