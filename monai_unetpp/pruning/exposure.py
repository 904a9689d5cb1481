"""Whether the judging cases took part in the weights, and what that means for a verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TypeVar

import torch

from monai_unetpp.bundles import WEIGHTS_FILE, TrainingRecord, load_network, read_network_def
from monai_unetpp.bundles.training_record import find_training_record
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning.points.tradeoffs import mean_accuracy
from monai_unetpp.pruning.results import (
    AdaptiveDepth,
    Decision,
    Exposure,
    OperatingGrid,
    ScoreRow,
    TradeOff,
    TrainingGap,
)

#: The weights of a bundle, and those of a training whose result has not been put into it.
_WEIGHTS = (WEIGHTS_FILE, "training/model.pt", "finetuning/model.pt")

_Case = tuple[str, str]
_Found = TypeVar("_Found", OperatingGrid | None, AdaptiveDepth | None, TradeOff)
_KNOWN_CASES = "some of these cases were used for training, which tells nothing about others."


def has_weights_of(
    network: NestedUNet, bundle: str | PathLike[str], weights: str | PathLike[str] | None = None
) -> bool:
    """Whether a network has the weights of a file, by default those that its bundle runs."""
    own = load_network(weights or Path(bundle) / WEIGHTS_FILE, network_def=read_network_def(bundle)).state_dict()
    found = network.state_dict()
    return own.keys() == found.keys() and all(torch.equal(own[key], found[key].cpu()) for key in own)


def record_of(
    network: NestedUNet, bundle: str | PathLike[str] | None, checkpoint: str | PathLike[str] | None = None
) -> TrainingRecord | None:
    """What the training recorded beside a network's weights, or its bundle says; None if nothing is on these weights.

    The checkpoint is the file that the weights are from, such as one of another folder.
    """
    if bundle is None:
        return None
    files = [Path(bundle) / weights for weights in _WEIGHTS]
    for weights in dict.fromkeys(files if checkpoint is None else [Path(checkpoint), *files]):
        record = find_training_record(weights)
        if record is not None and has_weights_of(network, bundle, weights):
            return record
    return None


def exposures_of(
    decisions: Sequence[Decision],
    voxels: Mapping[_Case, str],
    confirming: Collection[_Case],
    record: TrainingRecord | None,
    out_of_fold: Collection[str] = (),
    unchecked: bool = False,
) -> tuple[Exposure, ...] | None:
    """How many cases of each decision took part in the weights; None if unknown for a network that scored some.

    ``voxels`` are hashes of the images, ``record`` is None if the bundle does not say which cases trained the weights
    and which chose them, and other networks scored the data sets ``out_of_fold``.
    """
    if record is None and any(decision.dataset not in out_of_fold for decision in decisions):
        return None
    exposures = []
    for decision in decisions:
        confirms = decision.role == "confirm"
        roles = [
            None if record is None else record.role_of(found)
            for case, found in voxels.items()
            if (case in confirming) == confirms and decision.dataset in (case[0], "all")
        ]
        exposures.append(
            Exposure(
                dataset=decision.dataset,
                role=decision.role,
                cases=len(roles),
                training=roles.count("training"),
                selecting=roles.count("selecting"),
                rule="" if record is None else record.rule,
                out_of_fold=decision.dataset in out_of_fold,
                unchecked=unchecked and decision.dataset in out_of_fold,
            )
        )
    return tuple(exposures)


def with_exposures(decisions: Sequence[Decision], exposures: Sequence[Exposure], deepest: str) -> tuple[Decision, ...]:
    """The decisions with verdicts on training cases withdrawn, and a warning if the cases chose the weights.

    A decision on out-of-fold scores stands, as the network that knows the cases has not scored them.
    """
    return tuple(_restricted(each, exposure, deepest) for each, exposure in zip(decisions, exposures, strict=True))


def _restricted(decision: Decision, exposure: Exposure, deepest: str) -> Decision:
    if exposure.out_of_fold:
        return decision
    if exposure.training:
        reason = (
            f"{exposure.training} of {exposure.cases} judging cases were used for training. Judge on cases that the "
            "network never saw."
        )
        return dataclasses.replace(
            decision,
            verdict="inconclusive",
            level=deepest,
            subjects_needed=None,
            blockers=(reason, *decision.blockers),
            summary=f"No verdict, keep {deepest} for now: {reason}",
        )
    if exposure.selecting and (decision.verdict == "prune" or decision.role == "confirm"):
        decision = dataclasses.replace(decision, optimistic=True)
    if exposure.selecting and decision.verdict != "prune":
        text = (
            f"{exposure.selecting} of {exposure.cases} cases chose the weights: selection favours the deepest level; "
            "test on unseen cases."
        )
        return dataclasses.replace(decision, warnings=(*decision.warnings, text))
    return decision


def withdrawn(exposures: Sequence[Exposure] | None) -> frozenset[str]:
    """The data sets, or ``"all"``, of which a case that should choose trained the network that is judged."""
    found = (each for each in exposures or () if each.training and not each.out_of_fold and each.role != "confirm")
    return frozenset(each.dataset for each in found)


def without_choice(found: _Found, exposures: Sequence[Exposure] | None) -> _Found:
    """What was found on the choosing cases, recommending nothing where some of these trained the network."""
    if found is None or not withdrawn(exposures):
        return found
    if isinstance(found, TradeOff):
        return dataclasses.replace(found, reason=f"{found.reason} But {_KNOWN_CASES}")
    return dataclasses.replace(found, recommended=None, reason=f"Nothing is recommended: {_KNOWN_CASES}")


def training_gap(
    training: Sequence[ScoreRow], judging: Sequence[ScoreRow], levels: Sequence[str]
) -> tuple[TrainingGap, ...]:
    """Mean Dice of every level and label on training and on judging cases, data set by data set."""
    gaps = []
    for dataset in dict.fromkeys(row.dataset for row in training):
        for label in dict.fromkeys(row.label for row in training if row.dataset == dataset):
            means = []
            for rows in (training, judging):
                kept = [r for r in rows if (r.dataset, r.label) == (dataset, label) and r.point in levels]
                seen = any(row.score.state != "both_empty" for row in kept)
                means.append(mean_accuracy(kept, levels) if seen else {})
            first, second = means
            gaps += [
                TrainingGap(dataset, level, label, first[level], second[level]) for level in levels if first and second
            ]
    return tuple(gaps)
