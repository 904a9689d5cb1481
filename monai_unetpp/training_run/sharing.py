"""How the time of a whole training is divided: time for the verdict is reserved, the rest is used for training."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from pathlib import Path

from monai_unetpp.distributed import process_count
from monai_unetpp.files import write_text

__all__ = ["TimeShares", "share_time"]

logger = logging.getLogger(__name__)

#: Of the time for training, what the folds have together; the final training has the rest.
_FOLDS_SHARE = 0.6
#: Most of all time that is kept back for the verdict.
_MOST_KEPT = 0.5
#: Seconds for what takes no longer on large images: the report, and a process for the memory of each level.
_REPORT_S, _LEVEL_S = 25.0, 12.0
#: What else is kept back: the program's own start, before the clock runs, and a share for machines that slow down.
_START_S, _RESERVE = 15.0, 1.25
#: Measured runs of each level for its latency: as many as the time allows.
_REPEATS = (10, 5, 3, 1)
_WARM_UP = 2
#: All levels as pruned networks, in passes of the deepest one.
_PASSES = 2.0


@dataclasses.dataclass(frozen=True)
class TimeShares:
    """Minutes by task.

    Attributes:
        final: of the final training.
        fold: of each fold's training; 0 where there are none.
        verdict: that are kept back for scores, costs and report.
        repeats: measured runs of each level.
    """

    final: float
    fold: float
    verdict: float
    repeats: int


def share_time(
    path: Path, minutes: float, *, started: float, case_s: float, cases: int, levels: int, folds: int
) -> TimeShares:
    """Divide the time once, and write the shares down, so that a resumed training keeps its schedule.

    Args:
        path: where it is written down.
        minutes: for everything.
        started: ``time.monotonic()`` when it all began.
        case_s: seconds in which one case is scored at all levels.
        cases: number of judging cases.
        levels: of the network.
        folds: number of them.
    """
    if path.is_file():
        return TimeShares(**json.loads(path.read_text(encoding="utf-8")))
    total_s = 60 * minutes
    scoring_s = case_s * cases / process_count() + _REPORT_S + _LEVEL_S * levels
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
    shares = TimeShares(left - fold * folds, fold, kept_s / 60, repeats)
    write_text(path, json.dumps(dataclasses.asdict(shares), indent=1) + "\n")
    return shares
