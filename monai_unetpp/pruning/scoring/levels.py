"""Score every level of a network on labelled cases, all levels from one pass per case: the first stage of pruning."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from monai_unetpp.data.datasets.case_check import CheckedCase, check_case
from monai_unetpp.data.datasets.check import tell_doubtful
from monai_unetpp.data.datasets.label_names import LabelNames
from monai_unetpp.data.datasets.labelled import LabelledCase, hash_files, list_cases, repeated_names
from monai_unetpp.distributed import gather, rank, share
from monai_unetpp.errors import counted
from monai_unetpp.pruning.results import CaseDepth, DataProblem, OperatingPoint, ScoreRow
from monai_unetpp.pruning.scoring.arguments import Scoring
from monai_unetpp.pruning.scoring.case_scores import CaseEvaluation, CaseScores
from monai_unetpp.pruning.scoring.prediction import Network, networks_ready

__all__ = ["NothingScoredError", "Scores", "evaluate_levels"]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Scores:
    """The result of :func:`evaluate_levels`.

    Attributes:
        points: the operating points: the levels, shallowest first, then the extra ones.
        rows: a score for every case, point and label, in the given order.
        problems: cases without rows, and why.
        cases: the cases with rows, with their files.
        error_auroc: how well disagreement between the levels finds errors of the deepest one: mean over cases of
            the area under the ROC curve; None if not measured or nowhere defined.
        gate_rows: like ``rows``, for depths chosen per window.
        depths: the depths of the windows of every case.
    """

    points: tuple[OperatingPoint, ...]
    rows: tuple[ScoreRow, ...]
    problems: tuple[DataProblem, ...]
    cases: tuple[LabelledCase, ...]
    error_auroc: float | None = None
    gate_rows: tuple[ScoreRow, ...] = ()
    depths: tuple[CaseDepth, ...] = ()


class NothingScoredError(RuntimeError):
    """No case could be scored."""


def evaluate_levels(
    network: Network, cases: Sequence[Mapping[str, Any]], scoring: Scoring | None = None, **fields: Any
) -> Scores:
    """Score all levels of a network on labelled cases, from one pass of the network per case.

    All cases are checked before the network sees the first one. Predictions are compared on the label's own grid, as
    read from the file; see :data:`monai_unetpp.metrics.RULES` for what is measured. The pruning guide shows examples
    for networks of this package, of MONAI and of your own.

    In a process group (``torchrun``, with ``torch.distributed`` initialised) each process scores its share of the
    cases, and every process returns all scores, as a single process would.

    Args:
        network: anything with ``forward_levels(x, levels)`` such as :class:`~monai_unetpp.NestedUNet`, or any callable
            that takes a batch ``(1, C, H, W[, D])`` and returns a dict of logits ``(1, classes, H, W[, D])`` by level.
            It is moved to the device and put in eval mode for the scoring.
        cases: dicts with ``image`` (a path, or one per channel), ``label`` and optionally ``subject``, as
            ``load_datalist`` returns them. Image and label must have the same shape, and the corners of their grids may
            differ by at most a tenth of the shortest voxel edge.
        scoring: how to score.
        **fields: fields of :class:`~monai_unetpp.pruning.Scoring` that override ``scoring`` or the defaults.

    Returns:
        The scores. With ``exclude_problems``, a case on which the network fails becomes a
        :class:`~monai_unetpp.pruning.results.DataProblem`, and a further network that fails on a case is left out as
        a point; a case has rows at every point or at none.

    Raises:
        TypeError: an argument, or an output of the network or inferer, of the wrong type.
        ValueError: inconsistent arguments. Without ``exclude_problems``, also cases with problems in their data
            (before scoring) and cases that failed (after all others were scored and kept in ``store``).
        RuntimeError: no case could be scored.
    """
    how = Scoring(**fields) if scoring is None else dataclasses.replace(scoring, **fields)
    evaluation = CaseEvaluation.of(network, how)
    listed = list_cases(cases, how.subjects, how.subject_pattern)
    contents, problems = _check_cases(listed, evaluation, getattr(network, "in_channels", None))
    sound = [case for case in listed if case.name in contents]
    outcomes = _score_share(sound, contents, evaluation)
    scored = {case: each for case in sound if isinstance(each := outcomes[case.name], CaseScores)}
    problems += [
        DataProblem(how.dataset, case.name, each) for case in sound if isinstance(each := outcomes[case.name], str)
    ]
    if not scored:
        raise NothingScoredError(
            f"no case of {how.dataset!r} could be scored; the first one: {problems[0].case}: {problems[0].reason}"
        )
    # by further point, which has the name of its source: each case on which it failed, and the reason
    failed: dict[str, list[str]] = {}
    for case, each in scored.items():
        for point, reason in each.failures.items():
            failed.setdefault(point, []).append(f"{case.name}: {reason}")
    if not how.exclude_problems:
        _check_failures(how.dataset, problems, failed, len(listed))
    return _collect(evaluation, scored, problems, failed)


def check_cases(
    cases: Sequence[LabelledCase], values: Collection[int], spatial_dims: int | None, in_channels: int | None
) -> dict[str, CheckedCase]:
    """What is found about each case by name; in a process group each process reads its share."""
    repeated = repeated_names(cases)
    single = [case for case in cases if case.name not in repeated]
    checked = gather({case.name: check_case(case, values, spatial_dims, in_channels) for case in share(single)})
    found = {case.name: checked[case.name] for case in single}
    return found | {name: CheckedCase(message) for name, message in repeated.items()}


def refuse_problems(checked: Mapping[str, Mapping[str, CheckedCase]], of: str, remedy: str) -> None:
    """Refuse cases with problems, all of which are listed with their data set."""
    cases = [(dataset, name, each) for dataset, found in checked.items() for name, each in found.items()]
    problems = [f"- {dataset}, {name}: {each.problem}" for dataset, name, each in cases if each.problem]
    if problems:
        raise ValueError(
            f"cases {of} must be sound, got {len(problems)} of {len(cases)} with a problem:\n"
            + "\n".join(problems)
            + f"\nCorrect them, {remedy}"
        )


def _check_cases(
    cases: Sequence[LabelledCase], evaluation: CaseEvaluation, in_channels: int | None
) -> tuple[dict[str, str], list[DataProblem]]:
    """The hash of every sound case's files by name, and the problems of the others."""
    how = evaluation.scoring
    checked = how.checked or check_cases(cases, how.label_values, how.spatial_dims, in_channels)
    found = {case.name: checked[case.name] for case in cases}
    if not how.exclude_problems:
        remedy = "or set exclude_problems (--exclude_problems) to leave them out."
        refuse_problems({how.dataset: found}, f"of {how.dataset!r}", remedy)
    sound = [case for case in cases if found[case.name].problem is None]
    if rank() == 0:
        names_of_labels = LabelNames(dict(how.labels), how.ignore_label)
        tell_doubtful(how.dataset, how.dataset, {case: found[case.name] for case in sound}, names_of_labels)
    contents = gather({case.name: hash_files(case.files) for case in share(sound)})
    problems = [DataProblem(how.dataset, name, each.problem) for name, each in found.items() if each.problem]
    for problem in problems:
        logger.warning("%s is left out. %s", problem.case, problem.reason)
    return contents, problems


def _score_share(
    cases: Sequence[LabelledCase], contents: Mapping[str, str], evaluation: CaseEvaluation
) -> dict[str, CaseScores | str]:
    """The scores of all cases by name, or why there are none; this process scores its share of them."""
    own, progress = share(cases), evaluation.scoring.progress
    outcomes: dict[str, CaseScores | str] = {}
    with networks_ready(evaluation.sources, torch.device(evaluation.scoring.device)):
        for done, case in enumerate(own, start=1):
            outcomes[case.name] = evaluation.score(case, contents[case.name])
            if progress is not None and rank() == 0:
                progress(done, len(own))
    return gather(outcomes)


def _check_failures(
    dataset: str, problems: Sequence[DataProblem], failed: Mapping[str, Sequence[str]], count: int
) -> None:
    lines = [f"- {problem.case}: {problem.reason}" for problem in problems]
    lines += [f"- {point} on {reason}" for point, reasons in failed.items() for reason in reasons]
    if lines:
        raise ValueError(
            f"cases of {dataset!r} must all be scored, got {counted(len(lines), 'failure')} on {count} cases:\n"
            + "\n".join(lines)
            + "\nFinished cases are kept if a store is given. Correct the cause and run again, or set "
            "exclude_problems (--exclude_problems) to leave out these cases and further checkpoints."
        )


def _collect(
    evaluation: CaseEvaluation,
    scored: Mapping[LabelledCase, CaseScores],
    problems: Sequence[DataProblem],
    failed: Mapping[str, Sequence[str]],
) -> Scores:
    for name, reasons in failed.items():
        logger.warning("%s is left out of the comparison: %s", name, " ".join(reasons))
    points = tuple(point for point in evaluation.points if point.name not in failed)
    gates = evaluation.sources[0].gates
    aurocs = [each.error_auroc for each in scored.values() if each.error_auroc is not None]
    return Scores(
        points=points,
        rows=tuple(row for case, each in scored.items() for row in evaluation.rows(case, each, points)),
        problems=tuple(problems),
        cases=tuple(scored),
        error_auroc=float(np.mean(aurocs)) if aurocs else None,
        gate_rows=tuple(row for case, each in scored.items() for row in evaluation.rows(case, each, gates)),
        depths=tuple(
            CaseDepth(evaluation.scoring.dataset, case.name, gate, windows)
            for case, each in scored.items()
            for gate, windows in each.depths.items()
        ),
    )
