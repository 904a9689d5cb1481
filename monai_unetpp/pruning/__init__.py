"""Score every level, measure its cost, decide how shallow is good enough, explain and write the result.

The public names are loaded when they are first used, so that the command line can read the options of a
:class:`PruningPlan` without waiting for torch. No module of this package has the name of one of its functions.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_unetpp.pruning.cost import describe_environment, measure_costs, measure_setting_costs
    from monai_unetpp.pruning.decision import compare_points, confirm, decide, decide_all
    from monai_unetpp.pruning.evaluation import prune, verdict
    from monai_unetpp.pruning.from_bundle import prune_bundle
    from monai_unetpp.pruning.plan import CostSettings, EvaluatedNetwork, EvaluationData, Outputs, PruningPlan
    from monai_unetpp.pruning.report import read_report, write_report
    from monai_unetpp.pruning.rules import Margin, Rules
    from monai_unetpp.pruning.score import evaluate_levels, predict_case
    from monai_unetpp.pruning.write import write_pruned_bundle

_HOMES = {
    "cost": ("describe_environment", "measure_costs", "measure_setting_costs"),
    "decision": ("compare_points", "confirm", "decide", "decide_all"),
    "evaluation": ("prune", "verdict"),
    "from_bundle": ("prune_bundle",),
    "plan": ("CostSettings", "EvaluatedNetwork", "EvaluationData", "Outputs", "PruningPlan"),
    "report": ("read_report", "write_report"),
    "rules": ("Margin", "Rules"),
    "score": ("evaluate_levels", "predict_case"),
    "write": ("write_pruned_bundle",),
}

__all__ = [
    "CostSettings",
    "EvaluatedNetwork",
    "EvaluationData",
    "Margin",
    "Outputs",
    "PruningPlan",
    "Rules",
    "compare_points",
    "confirm",
    "decide",
    "decide_all",
    "describe_environment",
    "evaluate_levels",
    "measure_costs",
    "measure_setting_costs",
    "predict_case",
    "prune",
    "prune_bundle",
    "read_report",
    "verdict",
    "write_pruned_bundle",
    "write_report",
]


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
