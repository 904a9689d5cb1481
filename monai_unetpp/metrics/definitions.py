"""Definitions of the metrics: name, unit, direction, format and default margins."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class CaseMetric:
    """A metric of one label of one case.

    Attributes:
        key: attribute of :class:`~monai_unetpp.metrics.LabelScore`, also used in files and on the command line.
        name: name in tables.
        unit: such as ``"mm"``; empty for a ratio.
        larger_is_better: the direction.
        perfect: the value of a perfect prediction, also of a structure that is correctly not predicted.
        decimals: decimals of a value.
        difference_decimals: decimals of a difference.
        guarded: whether a margin can be set for it.
        margin: largest mean loss that still counts as equal; None if it is guarded only on request.
        case_drop: largest drop of a single case; None for no limit.
    """

    key: str
    name: str
    unit: str = ""
    larger_is_better: bool = True
    perfect: float = 1.0
    decimals: int = 3
    difference_decimals: int = 4
    guarded: bool = True
    margin: float | None = None
    case_drop: float | None = None

    @property
    def heading(self) -> str:
        """Name and unit, such as ``"HD95 (mm)"``."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def in_words(self) -> str:
        """Name and unit in a sentence, such as ``"HD95 in mm"``."""
        return f"{self.name} in {self.unit}" if self.unit else self.name


# The limit for single cases is twenty times the margin: with a standard deviation of 0.05, one of 155 cases without a
# mean difference drops by 0.10 almost surely, but by 0.20 almost never.
METRICS: dict[str, CaseMetric] = {
    metric.key: metric
    for metric in (
        CaseMetric("dice", "Dice", margin=0.01, case_drop=0.20),
        CaseMetric("iou", "IoU", case_drop=0.20),
        CaseMetric("nsd", "NSD", margin=0.02, case_drop=0.40),
        CaseMetric("hd95_mm", "HD95", "mm", larger_is_better=False, perfect=0.0, decimals=2, difference_decimals=2),
        CaseMetric(
            "volume_difference_ml",
            "Volume difference",
            "ml",
            larger_is_better=False,
            perfect=0.0,
            decimals=2,
            difference_decimals=3,
            guarded=False,
        ),
    )
}
"""All metrics by key, in the order of tables and files."""

GUARDED: dict[str, CaseMetric] = {key: metric for key, metric in METRICS.items() if metric.guarded}
"""The metrics for which a margin can be set."""


def check_metric(metric: str) -> str:
    """Check that ``metric`` can be guarded.

    Raises:
        ValueError: it cannot.
    """
    if metric not in GUARDED:
        raise ValueError(f"metric must be one of {', '.join(GUARDED)}, got {metric!r}.")
    return metric
