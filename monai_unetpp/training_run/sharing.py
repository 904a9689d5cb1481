"""Dividing the time of a whole training: some is reserved for the verdict, the rest is for training."""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from monai_unetpp.distributed import process_count, processes_here
from monai_unetpp.files import read_json_object, write_json
from monai_unetpp.free_memory import available_bytes
from monai_unetpp.plain_values import from_plain
from monai_unetpp.planning.bundle_writing import has_trained

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

#: Share of the training time for all folds together; the final training has the rest.
_FOLDS_SHARE = 0.6
#: Largest share of a training for scoring the observed cases once.
_OBSERVING_SHARE = 0.05
#: Largest share of a training for preparing its cases before the first step.
_PREPARING_SHARE = 0.5
#: Share of the memory for prepared cases that is planned with: less may be free when a training goes on.
_SLACK = 0.8
#: Cases that are used in any case, and those with a label, if there are as many.
_FEWEST_CASES, _LEAST_WITH_LABEL = 4, 2
#: Steps for which there must be time if cases are prepared again for every patch; as in a plan.
_LEAST_STEPS = 1500
#: Largest share of the time that is reserved for the verdict, and where this leaves out cases.
_MOST_KEPT, _MOST_KEPT_FOR_SOME = 0.5, 0.3
#: Share of it that further cases may take in any case, on top of what the verdict takes with as few as possible.
_MOST_FURTHER = 0.05
#: Largest share if even one case takes longer.
_MOST_KEPT_FOR_ONE = 0.75
#: Where time is short, the share of it for the measured runs, which then are of a part of a volume.
_MOST_MEASURING = 0.1
#: Share of the time below which the rest for training is called little.
_LITTLE = 0.25
#: How many times as long as on two idle cores the following seconds are.
_AMPLE = 2.0
#: Seconds that do not depend on the image size: the report, the start of the process that measures memory, and each
#: level there; elsewhere than on Linux each level has a process of its own.
_REPORT_S, _PROCESS_S, _LEVEL_S = (8.0, 10.0, 3.0) if sys.platform == "linux" else (8.0, 0.0, 12.0)
#: How much longer this may take on a machine that becomes busy, and the share of the time up to which this is allowed
#: for.
_BUSY, _MOST_FOR_BUSY = 2.25, 0.07
#: Further reserves: seconds for the start of the program, and a factor for machines that slow down.
_START_S, _RESERVE = 15.0, 1.25
#: Measured runs of each level for its latency: as many as the time allows.
_REPEATS = (10, 5, 3, 1)
#: Runs before them, and most cases that are drawn, each of which is segmented once more.
_WARM_UP, _PICTURES = 2, 4
#: Where time is short, there are no runs before, and one case is drawn if there are as many as this.
_FEWEST_TO_DRAW = 4
#: Runs of each level that measure its memory.
_MEMORY_RUNS = 1
#: Time of all levels as pruned networks, relative to the deepest one.
_PASSES = 2.0


@dataclasses.dataclass(frozen=True)
class CaseTime:
    """Seconds that a case takes: by the ``network`` for all levels, scoring, preparing for training, and checking.

    ``scoring`` is reading it, bringing the results back to its grid, and comparing them with the truth; ``checking`` is
    reading its files before. Once prepared, it takes ``prepared_bytes``. ``slowdown`` is how many times as long as this
    process worked it took, at least 1, where others use the processor too.
    """

    network: float
    scoring: float = 0.0
    preparing: float = 0.0
    checking: float = 0.0
    prepared_bytes: int = 0
    slowdown: float = 1.0

    @property
    def busy(self) -> float:
        """How many times as long as usual to allow for what does not depend on the case."""
        return max(1.0, self.slowdown / _AMPLE)

    def times(self, judged: float, trained: float) -> CaseTime:
        """What cases take that are so many times as large, the one that is scored and the one that is prepared."""
        return dataclasses.replace(
            self,
            network=judged * self.network,
            scoring=judged * self.scoring,
            preparing=trained * self.preparing,
            checking=judged * self.checking,
            prepared_bytes=round(trained * self.prepared_bytes),
        )


@dataclasses.dataclass(frozen=True)
class TimeShares:
    """Minutes for the final training, for that of each fold (0 without), and for scores, costs and report.

    Attributes:
        repeats: number of measured runs of each level.
        case_s: seconds of the network for one case at all levels.
        prepare_s: seconds for preparing one case for training.
        scored: most cases that the verdict scores; 0 for all of them.
        warm_up: number of runs before those that are measured.
        pictures: most of the worst cases to draw.
        volume_share: share of the voxels of a volume on which the levels are measured.
        case_bytes: memory that a prepared case takes; 0 if it is not known.
        cache_bytes: half of the memory that was free; 0 if it is not known.
        began: the minutes, folds and initial weights that the training began with, by name.
    """

    final: float
    fold: float
    verdict: float
    repeats: int
    case_s: float
    prepare_s: float
    scored: int = 0
    warm_up: int = _WARM_UP
    pictures: int = _PICTURES
    volume_share: float = 1.0
    case_bytes: int = 0
    cache_bytes: int = 0
    began: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def measuring(self) -> dict[str, Any]:
        """The fields of a pruning plan that say how much is measured and drawn."""
        return {name: getattr(self, name) for name in ("repeats", "warm_up", "pictures", "volume_share")}

    def observed(self, most: int, minutes: float) -> int:
        """How many cases a training of some minutes can score from time to time, at most ``most``."""
        return min(most, int(_OBSERVING_SHARE * 60 * minutes / self.case_s))

    def cached(self, cases: int) -> float:
        """The share of some cases that fits into half of the memory that is free now."""
        return _fitting(_half_free(), cases * self.case_bytes)

    def usable(
        self,
        cases: Sequence[_T],
        minutes: float,
        *,
        cache_rate: float,
        workers: int,
        batch_size: int,
        labels: Sequence[AbstractSet[str]] = (),
    ) -> tuple[Sequence[_T], float]:
        """The cases that a training of some minutes uses, and the share of them that is kept in memory.

        They are all of them, unless preparing those that are kept would take too much of the time, or preparing the
        others again for every patch would leave too few steps: then evenly spread ones, which are kept as far as there
        is memory; every label that a case has is in two of these, or in all that have it.

        ``cache_rate`` is the share of the cases for which there is memory; ``workers`` cases are prepared at once, and
        hinder each other; ``labels`` are the names of those that each case has, without which none is looked after.
        """
        cache_rate = min(cache_rate, _fitting(round(_SLACK * self.cache_bytes), len(cases) * self.case_bytes))
        each_s, seconds = self.prepare_s * 2 / (workers + 1), 60 * minutes
        kept, most_kept = cache_rate * len(cases), _PREPARING_SHARE * seconds / each_s
        again_s = (1 - cache_rate) * batch_size * each_s
        count = max(int(min(kept, most_kept)), _FEWEST_CASES)
        if (kept <= most_kept and _LEAST_STEPS * again_s <= seconds) or count >= len(cases):
            return cases, cache_rate
        chosen = _with_labels([number * len(cases) // count for number in range(count)], labels)
        return [cases[number] for number in chosen], min(1.0, kept / len(chosen))


def _half_free() -> int:
    """Half of the memory that is free, of this process under ``torchrun``; 0 if the system does not report it."""
    return (available_bytes() or 0) // (2 * processes_here())


def _fitting(memory: int, wanted: int) -> float:
    """The share of the wanted bytes that fits into the memory, if both are known."""
    return min(1.0, memory / wanted) if memory and wanted else 1.0


def _with_labels(chosen: Sequence[int], labels: Sequence[AbstractSet[str]]) -> list[int]:
    """The chosen cases, and others until each label is in two of them, or in all that have it; rare labels first."""
    found = set(chosen)
    counts = Counter(chain(*labels))
    for name in sorted(counts, key=lambda each: (counts[each], each)):
        having = [number for number, own in enumerate(labels) if name in own]
        lacking = _LEAST_WITH_LABEL - len(found.intersection(having))
        found.update([number for number in having if number not in found][: max(lacking, 0)])
    return sorted(found)


def kept_shares(path: Path) -> TimeShares | None:
    """The shares in a file of :func:`share_time`; None as long as there are no weights or checkpoints beside it."""
    return read_shares(path) if path.is_file() and has_trained(path.parent) else None


def read_shares(path: Path) -> TimeShares:
    """The shares in a file of :func:`share_time`, or a ``ValueError`` where it cannot be read."""
    content = read_json_object(path, "Delete it: the time is then divided anew.")
    return from_plain(TimeShares, content, str(path))


def share_time(
    path: Path,
    minutes: float,
    *,
    started: float,
    case: CaseTime,
    cases: int,
    levels: int,
    folds: int,
    init: str | None = None,
    by_steps: bool = False,
) -> TimeShares:
    """Divide the time, and save the shares, so that a resumed training keeps its schedule.

    Where the verdict would take more than half of the time that is left, it draws and measures less, and where that is
    not enough, it scores some of the ``cases``; all are scored where steps end the trainings instead of the time.

    The shares are written to ``path``; see :func:`kept_shares`. There are ``minutes`` for everything, from ``started``
    on, by ``time.monotonic()``. With ``by_steps``, steps end the trainings.
    """
    total_s, used_s = 60 * minutes, time.monotonic() - started
    rest_s = max(total_s - used_s, 0.0)
    fewest = cases if by_steps else max(folds, 1)
    verdict, most_s = _Verdict.within(rest_s, case, cases, levels, fewest), _MOST_KEPT_FOR_ONE * rest_s
    kept_s = min(verdict.seconds, most_s)
    if verdict.seconds > most_s and not by_steps:
        logger.warning(
            "The verdict will take about %g minutes even with few cases, longer than the %g that there are for it.",
            round(verdict.seconds / 60, 1),
            round(most_s / 60, 1),
        )
    left = max(rest_s - kept_s, 0.05 * total_s) / 60
    if 60 * left < _LITTLE * total_s and used_s > kept_s and not by_steps:
        logger.warning(
            "Checking and measuring the data took %g of the %g minutes, which leaves %.1f for training. To train "
            "for longer, interrupt it now and run the same command again, or with more --minutes: nothing of this is "
            "repeated.",
            round(used_s / 60, 1),
            minutes,
            left,
        )
    fold = left * _FOLDS_SHARE / folds if folds else 0.0
    shares = TimeShares(
        left - fold * folds,
        fold,
        kept_s / 60,
        verdict.repeats,
        case.network,
        case.preparing,
        scored=verdict.cases if verdict.cases < cases else 0,
        warm_up=verdict.warm_up,
        pictures=verdict.pictures,
        volume_share=verdict.volume_share,
        case_bytes=case.prepared_bytes,
        cache_bytes=_half_free(),
        began={"minutes": minutes, "folds": folds, "init": init},
    )
    write_json(path, dataclasses.asdict(shares), indent=1)
    return shares


@dataclasses.dataclass(frozen=True)
class _Verdict:
    """What a verdict does, and the seconds that it takes, by the time of a case and what does not depend on cases."""

    case: CaseTime
    cases: int
    fixed_s: float
    repeats: int
    warm_up: int = _WARM_UP
    pictures: int = _PICTURES
    volume_share: float = 1.0

    @classmethod
    def within(cls, rest_s: float, case: CaseTime, cases: int, levels: int, fewest: int) -> _Verdict:
        """The most thorough verdict for which there is time, or else on the fewest cases."""
        least_s = _REPORT_S + _PROCESS_S + _LEVEL_S * levels
        fixed_s = max(case.busy * least_s, min(_MOST_FOR_BUSY * rest_s, _BUSY * least_s))
        whole = [cls(case, cases, fixed_s, repeats) for repeats in _REPEATS]
        share = _MOST_MEASURING * rest_s / max(_RESERVE * dataclasses.replace(whole[-1], warm_up=0).measuring_s, 1.0)
        part = round(min(max(share, 0.001), 1.0), 3)
        hurried = [
            cls(
                case, count, fixed_s, _REPEATS[-1], warm_up=0, pictures=int(count >= _FEWEST_TO_DRAW), volume_share=part
            )
            for count in range(cases, fewest - 1, -1)
        ]
        most_s = max(_MOST_KEPT_FOR_SOME * rest_s, hurried[-1].seconds + _MOST_FURTHER * rest_s)
        choices = [
            *((each, _MOST_KEPT / 2 * rest_s) for each in whole),
            *((each, _MOST_KEPT * rest_s) for each in (whole[-1], hurried[0])),
            *((each, most_s) for each in hurried),
        ]
        return next((each for each, limit_s in choices if each.seconds <= limit_s), hurried[-1])

    @property
    def measuring_s(self) -> float:
        """Seconds of the runs that measure time and memory."""
        return (self.repeats + self.warm_up + _MEMORY_RUNS) * _PASSES * self.case.network * self.volume_share

    @property
    def seconds(self) -> float:
        """Seconds of everything."""
        case = self.case
        scoring_s = (case.network + case.scoring + case.checking) * math.ceil(self.cases / process_count())
        scoring_s += min(self.cases, self.pictures) * (case.network + case.scoring)
        return case.busy * _START_S + _RESERVE * (scoring_s + self.measuring_s + self.fixed_s)
