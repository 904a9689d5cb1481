"""Score every level, measure its cost, decide how shallow is good enough, explain and write the result.

Public names are loaded on first use, so that the command line can read the options of a :class:`PruningPlan` without
importing torch. No module here has the name of a public function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_unetpp.lazy import lazy_names

if TYPE_CHECKING:
    from monai_unetpp.measuring.environment import describe_environment
    from monai_unetpp.pruning.cost import measure_costs, measure_setting_costs
    from monai_unetpp.pruning.decision import compare_points, confirm, decide, decide_all
    from monai_unetpp.pruning.evaluation import judge, prune
    from monai_unetpp.pruning.from_bundle import prune_bundle
    from monai_unetpp.pruning.plan import CostSettings, EvaluatedNetwork, EvaluationData, Outputs, PruningPlan
    from monai_unetpp.pruning.report.report_files import read_report, write_report
    from monai_unetpp.pruning.rules import Margin, Rules
    from monai_unetpp.pruning.scoring.arguments import Scoring
    from monai_unetpp.pruning.scoring.levels import evaluate_levels
    from monai_unetpp.pruning.scoring.prediction import predict_case
    from monai_unetpp.pruning.summary import verdict
    from monai_unetpp.pruning.write import write_pruned_bundle

_HOMES = {
    "monai_unetpp.measuring.environment": ("describe_environment",),
    ".cost": ("measure_costs", "measure_setting_costs"),
    ".decision": ("compare_points", "confirm", "decide", "decide_all"),
    ".evaluation": ("judge", "prune"),
    ".from_bundle": ("prune_bundle",),
    ".plan": ("CostSettings", "EvaluatedNetwork", "EvaluationData", "Outputs", "PruningPlan"),
    ".scoring.prediction": ("predict_case",),
    ".report.report_files": ("read_report", "write_report"),
    ".rules": ("Margin", "Rules"),
    ".scoring.levels": ("evaluate_levels",),
    ".scoring.arguments": ("Scoring",),
    ".summary": ("verdict",),
    ".write": ("write_pruned_bundle",),
}

__all__ = [
    "CostSettings",
    "EvaluatedNetwork",
    "EvaluationData",
    "Margin",
    "Outputs",
    "PruningPlan",
    "Rules",
    "Scoring",
    "compare_points",
    "confirm",
    "decide",
    "decide_all",
    "describe_environment",
    "evaluate_levels",
    "judge",
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


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
