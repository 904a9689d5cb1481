"""From paired scores to a verdict on how shallow is good enough."""

from monai_unetpp.pruning.decision.comparing import compare_points, passing_points
from monai_unetpp.pruning.decision.verdicts import confirm, decide, decide_all, join, trust

__all__ = ["compare_points", "confirm", "decide", "decide_all", "join", "passing_points", "trust"]
