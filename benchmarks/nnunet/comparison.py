"""Both trained for the same time and scored on the same unseen cases."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.launching import run_package
from benchmarks.nnunet.peer import NnUNet, link_channels
from monai_unetpp.bundles import read_training_record
from monai_unetpp.data.datasets.datalist import load_datalist, read_content
from monai_unetpp.data.datasets.voxel_hash import hash_voxels
from monai_unetpp.data.formats.reader import read_label_map
from monai_unetpp.files import write_json
from monai_unetpp.measuring.environment import describe_environment
from monai_unetpp.reporting.markdown import format_table

_Dice = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Contestant:
    """What one of the two took, from the data set to a network, and reached.

    The prediction of all unseen cases is a whole process. ``dice`` is by label name, of each unseen case in turn: not a
    number where the case has no such label, and none was found.
    """

    training_minutes: float
    prediction_seconds: float
    dice: Mapping[str, list[float]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Both on one data set."""

    data_set: str
    minutes: float
    cases: int
    ours: Contestant
    nnunet: Contestant


def compare(dataset_dir: Path, work: Path, minutes: float, python: Path, trained: Path | None = None) -> Comparison:
    """Train both, one after the other, and score them.

    Args:
        dataset_dir: of a data set in Decathlon form with a validation list.
        work: folder for all that is made; must be empty.
        minutes: for each.
        python: interpreter of an environment with ``nnunetv2``.
        trained: what ``benchmarks.data_to_bundle`` made of this data set in the same minutes, instead of a training
            of this package here.

    Raises:
        ValueError: ``trained`` took more than the minutes, does not say on which cases, or knows an unseen one.
    """
    training, unseen = (load_datalist(dataset_dir, key) for key in ("training", "validation"))
    content = read_content(dataset_dir / "dataset.json")
    labels = {name: int(value) for value, name in content["labels"].items() if int(value)}
    channels = list(content.get("modality", {"0": "MRI"}).values())
    spatial_dims = read_label_map(Path(training[0]["label"])).data.ndim
    truths = {f"unseen{number:04d}": case["label"] for number, case in enumerate(unseen)}
    images = {f"unseen{number:04d}": case["image"] for number, case in enumerate(unseen)}

    if trained is None:
        bundle, took = _train_ours(training, content, work / "ours", minutes)
    else:
        bundle, took = _take_ours(trained, unseen, minutes)
    ours = _judge_ours(bundle, took, images, truths, labels, work / "ours")
    peer = NnUNet(python, work / "nnunet", spatial_dims)
    peer.write_data(training, labels, channels)
    peer_minutes = peer.train(minutes)
    predicted = peer.predict(images, work / "nnunet" / "segmentations")
    numbers = {name: number for number, name in enumerate(labels, start=1)}
    dice = _score(truths, labels, lambda name: work / "nnunet" / "segmentations" / f"{name}.nii.gz", numbers)
    return Comparison(dataset_dir.name, minutes, len(truths), ours, Contestant(peer_minutes, predicted, dice))


def _train_ours(
    training: list[dict[str, Any]], content: Mapping[str, Any], work: Path, minutes: float
) -> tuple[Path, float]:
    """By the command that a user types, nothing set by hand but the minutes; returns the bundle and what it took."""
    # the lists of the copy: all unseen cases stay out of it
    described = {name: content[name] for name in ("labels", "modality", "name") if name in content}
    write_json(work / "data" / "dataset.json", {**described, "training": training}, indent=2)
    start = time.monotonic()
    # 3 is the exit code of a verdict that is inconclusive
    train = ["train", str(work / "data"), "-o", str(work / "bundle"), "--minutes", str(minutes)]
    run_package(train, codes=(0, 3))
    return work / "bundle", (time.monotonic() - start) / 60


def _take_ours(trained: Path, unseen: list[dict[str, Any]], minutes: float) -> tuple[Path, float]:
    took = float(json.loads((trained / "outcome.json").read_text(encoding="utf-8"))["minutes"])
    if took > minutes:
        raise ValueError(f"{trained}: its training took {took:.1f} minutes. Give at least as many to both.")
    record = read_training_record(trained / "bundle")
    if record is None:
        raise ValueError(f"{trained / 'bundle'}: does not say on which cases it was trained. Train it anew.")
    for case in unseen:
        if record.role_of(hash_voxels(case["image"])) is not None:
            image = case["image"][0] if isinstance(case["image"], list) else case["image"]
            raise ValueError(f"{image}: {trained / 'bundle'} was trained on it. Take the bundle of this data set.")
    return trained / "bundle", took


def _judge_ours(
    bundle: Path,
    minutes: float,
    images: Mapping[str, Any],
    truths: Mapping[str, str],
    labels: Mapping[str, int],
    work: Path,
) -> Contestant:
    for name, image in images.items():
        link_channels(work / "unseen" / name, name, image)
    found = [str(path) for name in images for path in sorted((work / "unseen" / name).iterdir())]
    start = time.monotonic()
    run_package(["segment", *found, "--bundle", str(bundle), "-o", str(work / "segmentations")])
    predicted = time.monotonic() - start
    dice = _score(truths, labels, lambda name: work / "segmentations" / f"{name}_0000_seg.nii.gz", labels)
    return Contestant(minutes, predicted, dice)


def _score(
    truths: Mapping[str, str], labels: Mapping[str, int], place: Callable[[str], Path], values: Mapping[str, int]
) -> dict[str, list[float]]:
    """Dice by label, where ``values`` are those of the segmentation, and ``place`` tells where that of a case is.

    What is missed scores 0, as does what is found where nothing is.
    """
    dice: dict[str, list[float]] = {name: [] for name in labels}
    for case, path in truths.items():
        truth, found = read_label_map(Path(path)).data, read_label_map(place(case)).data
        for name, value in labels.items():
            true, predicted = truth == value, found == values[name]
            total = int(true.sum()) + int(predicted.sum())
            dice[name].append(2 * int((true & predicted).sum()) / total if total else math.nan)
    return dice


def format_comparison(result: Comparison) -> str:
    """The table in Markdown, with the paired difference and its 95 % interval."""
    rows = []
    by_label = [{name: np.array(each.dice[name]) for name in each.dice} for each in (result.ours, result.nnunet)]
    for name in result.ours.dice:
        rows.append([name, *_compared(*(dice[name] for dice in by_label))])
    rows.append(["mean", *_compared(*(np.nanmean(list(dice.values()), axis=0) for dice in by_label))])
    header = ["label", "cases", "monai-unetpp", "nnU-Net", "difference", "95 % interval"]
    table = format_table(header, rows)
    return (
        f"`{result.data_set}`, {result.cases} unseen cases, {result.minutes:g} minutes for each; "
        f"{describe_environment().line()}. From data set to network it took {result.ours.training_minutes:.1f} and "
        f"{result.nnunet.training_minutes:.1f} minutes, and segmenting all unseen cases, as a whole process, "
        f"{result.ours.prediction_seconds:.0f} and {result.nnunet.prediction_seconds:.0f} s.\n\n{table}"
    )


def _compared(ours: _Dice, peer: _Dice) -> list[str]:
    """The means of both and of their difference, over the cases in which both have a value."""
    both = ~np.isnan(ours) & ~np.isnan(peer)
    ours, peer = ours[both], peer[both]
    difference = ours - peer
    half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / math.sqrt(len(difference))
    mean = difference.mean()
    interval = f"{mean - half:+.4f} to {mean + half:+.4f}"
    return [str(len(difference)), f"{ours.mean():.4f}", f"{peer.mean():.4f}", f"{mean:+.4f}", interval]
