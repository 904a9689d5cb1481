"""Dividing the time of a whole training: some is reserved for the verdict, the rest is for training."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from pathlib import Path

from monai_unetpp.distributed import process_count
from monai_unetpp.files import write_text

__all__ = ["TimeShares", "share_time"]

logger = logging.getLogger(__name__)

#: Share of the training time for all folds together; the final training has the rest.
_FOLDS_SHARE = 0.6
#: Largest share of a training for scoring the observed cases once.
_OBSERVING_SHARE = 0.05
#: Largest share of the time that is reserved for the verdict.
_MOST_KEPT = 0.5
#: Seconds that do not depend on the image size: the report, and a process per level that measures memory.
_REPORT_S, _LEVEL_S = 25.0, 12.0
#: Further reserves: seconds for the start of the program, and a factor for machines that slow down.
_START_S, _RESERVE = 15.0, 1.25
#: Measured runs of each level for its latency: as many as the time allows.
_REPEATS = (10, 5, 3, 1)
_WARM_UP = 2
#: Time of all levels as pruned networks, relative to the deepest one.
_PASSES = 2.0


@dataclasses.dataclass(frozen=True)
class TimeShares:
    """Minutes by task.

    Attributes:
        final: for the final training.
        fold: for each fold's training; 0 without folds.
        verdict: reserved for scores, costs and report.
        repeats: number of measured runs of each level.
        case_s: seconds for scoring one case at all levels; 0 if the file is of a version that did not keep them.
    """

    final: float
    fold: float
    verdict: float
    repeats: int
    case_s: float = 0.0

    def observed(self, most: int, minutes: float) -> int:
        """How many cases a training of some minutes can score from time to time, at most ``most``."""
        return most if self.case_s == 0 else min(most, int(_OBSERVING_SHARE * 60 * minutes / self.case_s))


def share_time(
    path: Path, minutes: float, *, started: float, case_s: float, cases: int, levels: int, folds: int
) -> TimeShares:
    """Divide the time once, and save the shares, so that a resumed training keeps its schedule.

    Args:
        path: the file for the shares.
        minutes: time for everything.
        started: ``time.monotonic()`` at the start.
        case_s: seconds for scoring one case at all levels.
        cases: number of cases to score.
        levels: number of levels of the network.
        folds: number of folds.
    """
    if path.is_file():
        return TimeShares(**json.loads(path.read_text(encoding="utf-8")))
    total_s = 60 * minutes
    scoring_s = case_s * math.ceil(cases / process_count()) + _REPORT_S + _LEVEL_S * levels
    most_s = _MOST_KEPT * total_s
    needed = {n: _START_S + _RESERVE * (scoring_s + (n + _WARM_UP) * _PASSES * case_s) for n in _REPEATS}
    repeats = next((n for n in _REPEATS if needed[n] <= most_s / 2), _REPEATS[-1])
    kept_s = min(needed[repeats], most_s)
    if needed[repeats] > most_s:
        logger.warning(
            "The verdict will take about %.0f minutes, longer than the %.0f that %.0f minutes leave for it.",
            needed[repeats] / 60,
            most_s / 60,
            minutes,
        )
    left = max(total_s - (time.monotonic() - started) - kept_s, 0.05 * total_s) / 60
    fold = left * _FOLDS_SHARE / folds if folds else 0.0
    shares = TimeShares(left - fold * folds, fold, kept_s / 60, repeats, case_s)
    write_text(path, json.dumps(dataclasses.asdict(shares), indent=1) + "\n")
    return shares
