"""The opening of a pruning report: the verdict in plain words, what it saves, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from monai_unetpp.errors import counted
from monai_unetpp.metrics import METRICS
from monai_unetpp.pruning.points.tradeoffs import accuracy_of_each
from monai_unetpp.pruning.results import Exposure, PruningResult, SetDifference, Stability
from monai_unetpp.pruning.summary import ALL, Summary, deepest_point, is_confirmed, judged_rows, shown_loser, verdict
from monai_unetpp.pruning.wording import (
    data_set_in_words,
    format_difference,
    format_metric,
    role_in_words,
    speed_up,
)
from monai_unetpp.reporting.numbers import rough_percent

_MOST_NAMES = 3
_MOST_DIFFERENCES = 3

OF_OTHER_NETWORKS = "These figures are of other networks, not of this one."
"""For documents of a bundle, before what :func:`out_of_fold_sentences` says."""


class Fact(NamedTuple):
    """A figure on the first screen, and its meaning."""

    value: str
    meaning: str


def plain_verdict(result: PruningResult) -> str:
    """What to do, in a few words without figures."""
    decision, name = verdict(result), deepest_point(result).name
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
    if shown is None:
        return []
    cost = next(each for each in summary.costs if each.point == shown.name)
    facts = []
    if cost.volume_speed_up is not None:
        facts.append(Fact(speed_up(cost.volume_speed_up) or "", f"speed of {shown.name} compared with {deepest.name}"))
    for share, what in ((cost.parameter_share, "parameters"), (cost.memory_share, "peak memory")):
        if share is not None:
            facts.append(Fact(rough_percent(share), f"of the {what} of {deepest.name}"))
    means = accuracy_of_each(judged_rows(result, verdict(result)), [shown.name, deepest.name])
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


class TrustLine(NamedTuple):
    """A sentence and its topic."""

    topic: str
    sentence: str


def trust_lines(result: PruningResult) -> list[TrustLine]:
    """What a reader should know before relying on the verdict, the most important first."""
    sentences = {
        "Warning": verdict(result).warnings,
        "Stability": [_stability_sentence(result, each) for each in result.stability],
        "Cases and weights": _exposure_sentences(result.exposures),
        "Other data sets": _set_sentences(result),
        "Overfitting": _gap_sentences(result),
        "Settings in doubt": result.doubts,
    }
    return [TrustLine(topic, sentence) for topic, found in sentences.items() for sentence in found]


def trust_sentences(result: PruningResult) -> list[str]:
    """The sentences of :func:`trust_lines` alone."""
    return [line.sentence for line in trust_lines(result)]


def honesty(result: PruningResult) -> str:
    """Whether the figures are optimistic, and what would make them less so; empty where no level was chosen."""
    if not any(d.optimistic for d in result.decisions):
        return "The figures are not optimistic: no case both chose the level and gave its figures."
    confirmed = [d.dataset for d in result.decisions if d.role == "confirm" and d.dataset != ALL]
    taught = {
        each.dataset
        for each in result.exposures or ()
        if each.role == "confirm" and (each.training or each.selecting) and not each.out_of_fold
    }
    known = [name for name in confirmed if name in taught]
    tested = f"The level was tested on cases that took no part in choosing it ({', '.join(confirmed)})"
    if known:
        return (
            f"{tested}, but these took part in the weights ({', '.join(known)}): their figures are optimistic too. "
            "Confirm the level on cases that the training never saw."
        )
    if confirmed:
        return f"{tested}: their figures are not optimistic, those of the choosing cases are."
    return "Confirm it on cases that took no part in the choice." if verdict(result).verdict == "prune" else ""


def verdict_in_words(result: PruningResult, name: str) -> str:
    """A verdict of a sample, which is the name of a level or ``"inconclusive"``."""
    if name == "inconclusive":
        return "no verdict"
    return f"keep {name}" if name == deepest_point(result).name else f"prune to {name}"


def _stability_sentence(result: PruningResult, stability: Stability) -> str:
    several = len({each.dataset for each in result.stability} | {each.dataset for each in result.decisions}) > 1
    of_set = f" of {data_set_in_words(stability.dataset)}" if several else ""
    those, name_of_verdict = f"those{of_set}" if several else "these", "verdict"
    if is_confirmed(result):
        those, name_of_verdict = f"those{of_set} that chose the level", "choice"
    turning = stability.turning
    if not turning:
        left_out = "Leaving out any single subject changes nothing."
    else:
        names = ", ".join(turning[:_MOST_NAMES]) + (" ..." if len(turning) > _MOST_NAMES else "")
        left_out = f"Leaving out a single subject changes the {name_of_verdict} for {len(turning)} of them ({names})."
    return (
        f"The same test on {counted(stability.subjects, 'other subject')} like {those} would say: "
        f"{_shares(result, stability.new_samples)}; on half of these subjects: {_shares(result, stability.halves)}. "
        f"{left_out}"
    )


def _shares(result: PruningResult, shares: Mapping[str, float]) -> str:
    """Text such as ``"prune to L2 in 62 %, keep L3 in 8 % and no verdict in 30 % of samples"``."""
    texts = [f"{verdict_in_words(result, name)} in {rough_percent(share)}" for name, share in shares.items()]
    if not texts:
        return "no verdict"
    joined = texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
    return f"{joined} of samples"


def _set_sentences(result: PruningResult) -> list[str]:
    """Whether the loss of a level depends on the data set; the largest differences first, relative to the margins."""
    differences = result.between_sets
    found = [each for each in differences if each.depends_on_set]
    choosing = ""
    if differences and any(decision.role != "choose and report" for decision in result.decisions):
        names = dict.fromkeys(name for each in differences for name in (each.first, each.second))
        choosing = f", among the cases that choose ({', '.join(names)})"

    def at_least(one: SetDifference) -> float:
        return max(-one.upper, one.lower) / (result.rules.margin_of(one.metric, one.label) or math.inf)

    sentences = []
    for each in sorted(found, key=at_least, reverse=True)[:_MOST_DIFFERENCES]:
        metric = METRICS[each.metric]
        worse, other = (each.first, each.second) if each.difference < 0 else (each.second, each.first)
        bounds = sorted(abs(end) for end in (each.lower, each.upper))
        sentences.append(
            f"Depends on the set: relative to the deepest level, {metric.in_words} of {each.label} at {each.point} is "
            f"{abs(each.difference):.4f} worse on {worse} than on {other} (95 % interval {bounds[0]:.4f} to "
            f"{bounds[1]:.4f})."
        )
    if found:
        listed = " The table in the report lists them all." if len(found) > _MOST_DIFFERENCES else ""
        sentences.append(
            f"Of {len(differences)} such intervals{choosing}, {len(found)} exclude{'s' * (len(found) == 1)} 0; without "
            f"any difference, one in twenty does by chance.{listed}"
        )
    elif differences:
        sentences.append(
            f"No level is shown to lose more on one data set than on another{choosing} (all 95 % intervals include 0)."
        )
    return sentences


def _exposure_sentences(exposures: Sequence[Exposure] | None) -> list[str]:
    """Whether the judging cases took part in the weights."""
    if exposures is None:
        return ["The bundle does not say which cases trained or chose its weights: judge on cases that did neither."]
    single = [each for each in exposures if each.dataset != ALL] or list(exposures)
    selecting = [each for each in single if each.selecting and not each.training and not each.out_of_fold]
    sentences = out_of_fold_sentences([each for each in single if each.out_of_fold])
    trained = [each for each in single if each.training and not each.out_of_fold]
    sentences += [
        f"{each.training} of {_cases_of(each)} trained the network: figures on them are optimistic, and only other "
        "cases can confirm a choice by them."
        for each in trained
    ]
    for rule in dict.fromkeys(each.rule for each in selecting):
        counts = ", ".join(f"{each.selecting} of {_cases_of(each)}" for each in selecting if each.rule == rule)
        sentences.append(
            f"{counts} also chose the weights ({rule}), by the deepest level: accuracies are optimistic, especially "
            "that of the deepest. This works against shallow levels, so a verdict to prune stands; any other should be "
            "tested on unseen cases."
        )
    untouched = all(not each.training and not each.selecting for each in exposures)
    return sentences or (
        ["No judging case trained the network or chose its weights."] if untouched and exposures else []
    )


def _cases_of(exposure: Exposure) -> str:
    return f"{exposure.cases} cases of {exposure.dataset}{role_in_words(exposure.role)}"


def out_of_fold_sentences(exposures: Sequence[Exposure]) -> list[str]:
    """Which networks scored the cases of each data set, where these are not the one that is pruned."""
    sentences = []
    for dataset in dict.fromkeys(each.dataset for each in exposures):
        own = [each for each in exposures if each.dataset == dataset]
        sentence = f"Each case of {dataset} was scored by a network that was not trained on its subject"
        sentence += ", if the given scores are those of folds, which was not checked." if own[0].unchecked else "."
        training = sum(each.training for each in own)
        if training:
            sentence += (
                f" The network of the bundle was trained on {training} of these {sum(each.cases for each in own)} "
                "cases: its own accuracy is not measured here."
            )
        sentences.append(sentence)
    return sentences


def _gap_sentences(result: PruningResult) -> list[str]:
    """How much better each level is on training cases."""
    gaps = [each for each in result.training_gap if each.label in result.labels]
    sentences = []
    for dataset, label in dict.fromkeys((each.dataset, each.label) for each in gaps):
        own = [each for each in gaps if (each.dataset, each.label) == (dataset, label)]
        texts = ", ".join(f"{each.point} {format_difference('dice', each.training - each.judging)}" for each in own)
        sentences.append(f"Dice of {label} on training cases minus that on judging ones ({dataset}): {texts}.")
    return sentences
