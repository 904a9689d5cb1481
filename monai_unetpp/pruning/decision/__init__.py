"""From paired scores to a verdict on how shallow is good enough."""

from monai_unetpp.pruning.decision.many_points import compare_points
from monai_unetpp.pruning.decision.verdicts import confirm, confirm_jointly, decide, decide_all, trust

__all__ = ["compare_points", "confirm", "confirm_jointly", "decide", "decide_all", "trust"]
