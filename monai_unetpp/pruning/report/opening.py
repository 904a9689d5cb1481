"""The opening of a pruning report: the verdict in plain words, and what it saves."""

from __future__ import annotations

from typing import NamedTuple

from monai_unetpp.pruning.report.front import mean_dice
from monai_unetpp.pruning.report.trust_wording import TrustLine, trust_lines
from monai_unetpp.pruning.results import PruningResult
from monai_unetpp.pruning.summary import Summary, deepest_point, shown_loser, verdict
from monai_unetpp.pruning.wording import format_difference, format_metric, speed_up
from monai_unetpp.reporting.numbers import rough_percent


class Fact(NamedTuple):
    """A figure on the first screen, and its meaning."""

    value: str
    meaning: str


def plain_verdict(result: PruningResult) -> str:
    """What to do, in a few words without figures."""
    decision, deepest = verdict(result), deepest_point(result)
    name = deepest.name if deepest else decision.level
    if decision.verdict == "prune" and decision.level != name:
        known = "Not confirmed on unseen cases yet." if decision.optimistic else "Confirmed on other cases."
        return f"Use {decision.level} instead of {name}: as accurate within the margins, at less cost. {known}"
    if decision.verdict == "keep":
        loser = shown_loser(result)
        return f"Keep {name}: {loser.name if loser else 'a shallower level'} is not accurate enough."
    if decision.verdict == "inconclusive":
        return f"No verdict: keep {decision.level} for now."
    return f"Use {decision.level}."


def levels_in_words(result: PruningResult) -> str:
    """What a reader must know of levels to understand the verdict; empty for a single one."""
    names = [point.name for point in result.points if point.kind == "embedded"]
    if len(names) < 2:
        return ""
    return (
        f"Levels are depths at which the network can be cut, from {names[0]}, the shallowest and cheapest, to "
        f"{names[-1]}, the whole network."
    )


def key_facts(result: PruningResult, summary: Summary) -> list[Fact]:
    """What the chosen or refused level saves and loses: time, parameters, memory and Dice."""
    shown, deepest = shown_loser(result), deepest_point(result)
    if shown is None or deepest is None:
        return []
    cost = next(each for each in summary.costs if each.point == shown.name)
    facts = []
    if cost.volume_speed_up is not None:
        facts.append(Fact(speed_up(cost.volume_speed_up) or "", f"speed of {shown.name} compared with {deepest.name}"))
    for share, what in ((cost.parameter_share, "parameters"), (cost.memory_share, "peak memory")):
        if share is not None:
            facts.append(Fact(rough_percent(share), f"of the {what} of {deepest.name}"))
    means = mean_dice(result, [shown, deepest])
    if means:
        own, other = (format_metric("dice", means[point.name]) for point in (shown, deepest))
        difference = format_difference("dice", means[shown.name] - means[deepest.name])
        facts.append(Fact(difference, f"in mean Dice: {shown.name} {own}, {deepest.name} {other}"))
    return facts


def first_lines(result: PruningResult) -> list[TrustLine]:
    """How far to trust the verdict, and what other settings of the levels would give."""
    lines = trust_lines(result)
    if result.grid is not None:
        lines.append(TrustLine("Other settings", result.grid.reason))
    if result.adaptive is not None:
        lines.append(TrustLine("Depth per window", result.adaptive.reason))
    return lines
