"""Score every level, measure its cost, decide how shallow is good enough, explain and write the result."""

from monai_unetpp.measuring.environment import describe_environment
from monai_unetpp.pruning.cost import measure_costs, measure_setting_costs
from monai_unetpp.pruning.decide import compare_points, confirm, decide, decide_all
from monai_unetpp.pruning.from_bundle import prune_bundle
from monai_unetpp.pruning.prune import prune, verdict
from monai_unetpp.pruning.report import read_report, write_report
from monai_unetpp.pruning.score import evaluate_levels, predict_case
from monai_unetpp.pruning.write import write_pruned_bundle

__all__ = [
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
