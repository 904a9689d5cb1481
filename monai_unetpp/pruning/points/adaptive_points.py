"""Whether choosing the depth per window pays: accuracy, operations and time at several tolerances."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from torch._subclasses.fake_tensor import FakeTensorMode

from monai_unetpp.data.datasets.labelled import LabelledCase
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.inferers.depth_gate import ADAPTIVE, gate_name
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.rounds import time_rounds
from monai_unetpp.measuring.size import count_flops
from monai_unetpp.measuring.sums import summed
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning.decision import compare_points
from monai_unetpp.pruning.results import AdaptiveDepth, AdaptivePoint, CaseDepth, PointOutcome, ScoreRow
from monai_unetpp.pruning.rules import Rules
from monai_unetpp.pruning.scoring.levels import Scores

logger = logging.getLogger(__name__)

_TIMED_CASES = 8
_NEVER = 0.0
"""The tolerance at which no window stops."""

_Outcomes = tuple[PointOutcome, ...]


def check_adaptive(network: NestedUNet, inferer: NestedSlidingWindowInferer) -> None:
    """Refuse what has no choice of depth."""
    inferer.with_options(levels=ADAPTIVE, adaptive_tolerance=0.0)
    if len(network.levels) < 3:
        raise ValueError(
            f"settings must leave out adaptive for a network with the levels {', '.join(network.levels)}: the first "
            "level at which a window can stop is the second. Leave it out."
        )


#: Time of all stages without a stop, relative to the deepest level alone, that only other work on the machine explains.
_IMPOSSIBLE_STAGING = 0.8


def evaluate_adaptive(
    network: NestedUNet,
    inferers: Mapping[str, NestedSlidingWindowInferer],
    scored: Sequence[Scores],
    tolerances: Sequence[float],
    rules: Rules,
    *,
    kept_back: frozenset[tuple[str, str]],
    load: Callable[[LabelledCase], torch.Tensor],
    window_shape: Sequence[int],
    device: torch.device,
    repeats: int,
) -> AdaptiveDepth:
    """Compare depths chosen per window with the deepest level, and measure their cost.

    The inferers are by runtime, the one at the setting at which cases were scored first. What it costs to run the
    network in stages is measured with each, all else only with the first. Cases in ``kept_back`` are left out.
    """
    rows = [row for each in scored for row in (*each.rows, *each.gate_rows) if (row.dataset, row.case) not in kept_back]
    depths = [depth for each in scored for depth in each.depths if (depth.dataset, depth.case) not in kept_back]
    operations = level_operations(network, window_shape)
    names = [gate_name(each) for each in tolerances]
    middle = [each for each in depths if each.point == names[len(names) // 2]]
    cases = {(depth.dataset, case.name): case for each in scored for depth in each.depths[:1] for case in each.cases}
    timed = _evenly_spaced(sorted(middle, key=lambda each: operations_ratio(each.windows, operations)))
    logger.info("Measuring the time of %d tolerances on %d cases ...", len(tolerances), len(timed))
    images = [load(cases[each.dataset, each.case]) for each in timed]
    ratios, staging = time_adaptive(network, inferers, images, tolerances, device, repeats, rules.seed)
    points = _points(rows, depths, tolerances, network.levels, operations, ratios, rules)
    recommended, reason = recommend(points, network.levels[-1], staging[next(iter(inferers))])
    return AdaptiveDepth(
        reference=network.levels[-1],
        points=points,
        rows=tuple(row for row in rows if row.point in names),
        depths=tuple(depths),
        level_operations=operations,
        timed_cases=len(timed),
        recommended=recommended,
        reason=reason,
        staging=staging,
    )


def compare_in_sequence(
    rows: Sequence[ScoreRow], points: Sequence[str], reference: str, rules: Rules
) -> list[tuple[_Outcomes, bool]]:
    """For each point its outcomes by data set, and whether it and all before it pass on each.

    The order is fixed in advance, starting with the point that differs least from the reference. So each is tested at
    the full error level, and the chance of accepting any point that is worse by the margin stays at ``alpha``: no
    cases need to be held out for the choice. Subjects are the units.

    See:
        Angelopoulos et al., "Learn then Test", arXiv:2110.01052, for fixed sequences of thresholds.
    """
    tested: list[tuple[_Outcomes, bool]] = []
    accepting = True
    for point in points:
        outcomes = _compared(rows, point, reference, rules)
        accepting = accepting and all(each.state == "pass" for each in outcomes)
        tested.append((outcomes, accepting))
    return tested


def operations_ratio(windows: Mapping[str, int], operations: Mapping[str, float]) -> float:
    """Operations of windows that stopped at these levels, relative to running all at the deepest."""
    return sum(count * operations[level] for level, count in windows.items()) / max(sum(windows.values()), 1)


def _compared(rows: Sequence[ScoreRow], point: str, reference: str, rules: Rules) -> _Outcomes:
    """The outcomes of one point by data set, at the full error level."""
    pair = [point, reference]
    return compare_points([row for row in rows if row.point in pair], pair, reference, rules)


def _points(
    rows: Sequence[ScoreRow],
    depths: Sequence[CaseDepth],
    tolerances: Sequence[float],
    levels: Sequence[str],
    operations: Mapping[str, float],
    times: Mapping[float, Quartiles],
    rules: Rules,
) -> tuple[AdaptivePoint, ...]:
    reference, points = levels[-1], []
    compared = compare_in_sequence(rows, [gate_name(each) for each in tolerances], reference, rules)
    for tolerance, (outcomes, accepted) in zip(tolerances, compared, strict=True):
        windows = summed(depth.windows for depth in depths if depth.point == gate_name(tolerance))
        ratio = operations_ratio(windows, operations)
        nearest = min(levels[:-1], key=lambda level: abs(operations[level] - ratio))
        points.append(
            AdaptivePoint(
                name=gate_name(tolerance),
                tolerance=tolerance,
                windows=windows,
                operations_ratio=ratio,
                time_ratio=times[tolerance],
                outcomes=outcomes,
                accepted=accepted,
                equal_cost=nearest,
                equal_cost_outcomes=_compared(rows, nearest, reference, rules),
            )
        )
    return tuple(points)


def recommend(points: Sequence[AdaptivePoint], reference: str, staging: Quartiles) -> tuple[str | None, str]:
    """The accepted point with the fewest operations, if it saves time, and the reason in words.

    ``staging`` is the time of all stages without a stop, relative to the deepest level alone.
    """
    accepted = [point for point in points if point.accepted]
    if not accepted:
        return None, f"No tolerance is shown to be as good as {reference}: run all windows at one level."
    best = min(accepted, key=lambda point: point.operations_ratio)
    cost = (
        f"Tolerance {best.tolerance:g} is not worse than {reference} by more than the margins, with "
        f"{best.operations_ratio:.2f} of its operations and {best.time_ratio.median:.2f} of its time"
    )
    if best.time_ratio.median >= 1 or best.operations_ratio >= 1:
        saved = "time" if best.time_ratio.median >= 1 else "work"
        return None, f"{cost}: it saves no {saved}. Run all windows at one level."
    if staging.median < _IMPOSSIBLE_STAGING:
        stages = f"stages without a stop, more work than {reference} alone, took {staging.median:.2f} of its time"
        remedy = "Measure with a higher --settings_repeats, and nothing beside it."
        return None, f"{cost}. But {stages}: times varied too much to tell. {remedy}"
    level_passes = all(each.state == "pass" for each in best.equal_cost_outcomes)
    versus = (
        f"but {best.equal_cost}, the level of nearest cost, passes too: take the one with the smaller worst drop"
        if level_passes
        else f"{best.equal_cost}, the level of nearest cost, does not pass"
    )
    return best.name, f"{cost}; {versus}."


def _evenly_spaced(cases: Sequence[CaseDepth]) -> list[CaseDepth]:
    """Up to eight cases, evenly spaced in the given order of depth."""
    count = min(len(cases), _TIMED_CASES)
    return [cases[(2 * number + 1) * len(cases) // (2 * count)] for number in range(count)]


def level_operations(network: NestedUNet, window_shape: Sequence[int]) -> dict[str, float]:
    """Operations of a window that stops at a level, relative to the deepest level alone.

    A window that stops at a level has computed all shallower levels and their heads. So reaching the deepest level
    costs a little more than computing it alone.
    """
    levels = network.levels
    device = next(network.parameters()).device
    # operations are counted without computing anything
    with FakeTensorMode(allow_non_fake_inputs=True):
        window = torch.zeros((1, network.in_channels, *window_shape), device=device)
        deepest = count_flops(network.eval(), window)
        return {
            level: count_flops(functools.partial(network.forward_levels, levels=levels[: number + 1]), window) / deepest
            for number, level in enumerate(levels)
        }


def time_adaptive(
    network: NestedUNet,
    inferers: Mapping[str, NestedSlidingWindowInferer],
    images: Sequence[torch.Tensor],
    tolerances: Sequence[float],
    device: torch.device,
    repeats: int,
    seed: int = 0,
) -> tuple[dict[float, Quartiles], dict[str, Quartiles]]:
    """Total time of the images by tolerance, and without a stop by runtime, relative to the deepest level.

    Without a stop, at tolerance 0, it shows what it costs to run the network in stages. Real images are needed: in
    noise, all windows would have the same depth. The first inferer runs the network at the tolerances.
    """
    batches = [image.as_tensor() if isinstance(image, MetaTensor) else image for image in images]
    batches = [image[None].to(device, torch.float32) for image in batches]
    deepest = network.prune(network.levels[-1]).eval().to(device)
    network.eval().to(device)
    own = next(iter(inferers))
    tasks: dict[tuple[str, float | None], Callable[[], Any]] = {}
    for runtime, inferer in inferers.items():
        static = inferer.with_options(levels=None, adaptive_tolerance=None, output="labels")
        tasks[runtime, None] = functools.partial(_segment, static, batches, deepest)
        for tolerance in (_NEVER, *(tolerances if runtime == own else ())):
            staged = inferer.with_options(levels=ADAPTIVE, adaptive_tolerance=tolerance, output="labels")
            tasks[runtime, tolerance] = functools.partial(_segment, staged, batches, network)
    seconds = time_rounds(tasks, repeats=repeats, warm_up=1, device=device, seed=seed, name="Adaptive depth")
    ratios = {key: Quartiles.of_ratios(found, seconds[key[0], None]) for key, found in seconds.items()}
    return {each: ratios[own, each] for each in tolerances}, {runtime: ratios[runtime, _NEVER] for runtime in inferers}


def _segment(inferer: NestedSlidingWindowInferer, images: Sequence[torch.Tensor], network: NestedUNet) -> None:
    for image in images:
        inferer(image, network)
