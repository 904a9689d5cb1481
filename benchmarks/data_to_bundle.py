"""What ``monai-unetpp train`` makes of four kinds of data: ``python -m benchmarks.data_to_bundle DATA_DIR --work W``.

``DATA_DIR`` holds the data sets ``hippocampus``, ``nuclei`` and ``fetal_brain``. Of the first two, copies are made: two
labels merged into one of another value; slices three times as thick, in two channels, with labels of other values; PNG
files. Each is then trained by the command that a user types, with nothing set by hand but the minutes, its
bundle is checked, and the first validation case segmented. A run that was interrupted goes on; what is done is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.altered import join_slices
from benchmarks.command import claim_work, offer_table, run_command
from benchmarks.launching import run_package
from monai_unetpp.bundles import check_bundle
from monai_unetpp.data.datasets.datalist import load_datalist, read_content
from monai_unetpp.data.formats.nifti import open_nifti, read_voxels
from monai_unetpp.files import write_json
from monai_unetpp.measuring.environment import describe_environment
from monai_unetpp.metrics import FOREGROUND
from monai_unetpp.reporting.markdown import format_table

_LISTS = ("training", "validation")
_THICKNESS = 3
_MERGED = 17
_OTHER_VALUES = {1: 40, 2: 7}

_Array = npt.NDArray[Any]
#: Writes a case of image, label and affine; the last argument is the folder and the beginning of the file names.
_Write = Callable[[_Array, _Array, _Array, Path], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one data set.

    ``minutes`` are those of the whole process, from the data to the bundle with its report; ``cases`` are of training
    and validation; ``dice`` is the mean over the labels and the validation cases, by level; ``problems`` are what the
    checks of the bundle found; ``segmented`` tells whether the first validation case was.
    """

    minutes: float
    steps: int
    cases: tuple[int, int]
    dice: Mapping[str, float]
    verdict: str
    problems: tuple[str, ...]
    segmented: bool


def merge_labels(image: _Array, label: _Array, affine: _Array, place: Path) -> dict[str, Any]:
    """Write a case whose labels are one, with a value of its own."""
    merged = np.where(label > 0, _MERGED, 0).astype(np.uint8)
    return {"image": _save(image, affine, place, "image"), "label": _save(merged, affine, place, "label")}


def thicken(image: _Array, label: _Array, affine: _Array, place: Path) -> dict[str, Any]:
    """Write a case of means of three slices in a row, with its negative as a second channel, and labels of 40 and 7."""
    slices, kept, thick = join_slices(image, label, affine, 2, _THICKNESS)
    renamed = np.zeros(kept.shape, np.uint8)
    for value, other in _OTHER_VALUES.items():
        renamed[kept == value] = other
    channels = [_save(slices, thick, place, "0000"), _save(slices.max() - slices, thick, place, "0001")]
    return {"image": channels, "label": _save(renamed, thick, place, "label")}


def to_pictures(image: _Array, label: _Array, affine: _Array, place: Path) -> dict[str, Any]:
    """Write a 2D case as PNG files of 8 bits, which have no affine."""
    low, high = float(image.min()), float(image.max())
    grey = (255 * (image - low) / max(high - low, 1e-6)).round()
    files = {}
    for key, pixels in (("image", grey), ("label", label)):
        path = place.with_name(f"{place.name}_{key}.png")
        # the first axis of an array of pixels runs from top to bottom
        Image.fromarray(np.ascontiguousarray(pixels.astype(np.uint8).T)).save(path)
        files[key] = path.name
    return files


#: By name: the folder that holds the data, what writes a case of the copy (None for the data themselves), its labels.
DATA_SETS: Mapping[str, tuple[str, _Write | None, Mapping[str, int]]] = {
    "merged": ("hippocampus", merge_labels, {"background": 0, "hippocampus": _MERGED}),
    "thick": ("hippocampus", thicken, {"background": 0, "front": 40, "back": 7}),
    "pictures": ("nuclei", to_pictures, {"background": 0, "nucleus": 1}),
    "fetal_brain": ("fetal_brain", None, {}),
}


def _save(array: _Array, affine: _Array, place: Path, name: str) -> str:
    path = place.with_name(f"{place.name}_{name}.nii.gz")
    nib.save(nib.Nifti1Image(array if array.dtype == np.uint8 else array.astype(np.float32), affine), path)
    return path.name


def make_copy(source: Path, folder: Path, name: str) -> Path:
    """Write a copy of a data set, one of :data:`DATA_SETS`, as far as there is none: the folder to train on."""
    _, write, labels = DATA_SETS[name]
    if write is None:
        return source
    if (folder / "dataset.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    content = read_content(source / "dataset.json")
    lists: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for key in _LISTS:
        for number, case in enumerate(load_datalist(source, key)):
            opened = {kind: open_nifti(case[kind]) for kind in ("image", "label")}
            image, label = (read_voxels(opened[kind], case[kind]) for kind in opened)
            affine = opened["image"].affine
            lists[key].append(write(image.astype(np.float32), label, affine, folder / f"{key}{number:03d}"))
    channels = ["T1", "negative"] if isinstance(lists["training"][0]["image"], list) else content["modality"].values()
    described = {
        "name": f"{content['name']}, {name}",
        "labels": {str(value): label for label, value in labels.items()},
        "modality": {str(number): channel for number, channel in enumerate(channels)},
    }
    write_json(folder / "dataset.json", {**described, **lists}, indent=1)
    return folder


def make_bundle(dataset_dir: Path, work: Path, minutes: float) -> Outcome:
    """Train for so many minutes, check and segment, as far as that is not done; ``work`` is for all that is made.

    Raises:
        RuntimeError: a command failed.
    """
    done, bundle = work / "outcome.json", work / "bundle"
    if not done.is_file():
        start = time.monotonic()
        # 3 is the exit code of a verdict that is inconclusive
        run_package(["train", str(dataset_dir), "-o", str(bundle), "--minutes", str(minutes)], codes=(0, 3))
        write_json(done, {"minutes": (time.monotonic() - start) / 60})
    took = json.loads(done.read_text(encoding="utf-8"))["minutes"]
    trained = json.loads((bundle / "training" / "outcome.json").read_text(encoding="utf-8"))
    case = load_datalist(dataset_dir, "validation")[0]["image"]
    images = case if isinstance(case, list) else [case]
    results = work / "segmentations"
    run_package(["segment", *images, "--bundle", str(bundle), "-o", str(results)])
    return Outcome(
        minutes=took,
        steps=trained["steps"],
        cases=(len(load_datalist(dataset_dir, "training")), len(load_datalist(dataset_dir, "validation"))),
        dice=_mean_dice(bundle / "pruning" / "report.json"),
        verdict=trained["summary"],
        problems=tuple(check_bundle(bundle)),
        segmented=any("_seg." in path.name for path in results.iterdir()),
    )


def _mean_dice(report: Path) -> dict[str, float]:
    found: dict[str, list[float]] = defaultdict(list)
    for row in json.loads(report.read_text(encoding="utf-8"))["summary"]["accuracy"]:
        if row["label"] != FOREGROUND:
            found[row["point"]].append(row["metrics"]["dice"]["mean"])
    return {level: float(np.mean(values)) for level, values in found.items()}


def format_outcomes(outcomes: Mapping[str, Outcome], minutes: float) -> str:
    """A table in Markdown, by name of the data set; ``minutes`` is what each training was given."""
    levels = sorted({level for outcome in outcomes.values() for level in outcome.dice})
    rows = []
    for name, each in outcomes.items():
        dice = [f"{each.dice[level]:.3f}" if level in each.dice else "" for level in levels]
        fine = "; ".join(each.problems) or "none"
        cases = f"{each.cases[0]} + {each.cases[1]}"
        rows.append([name, cases, f"{each.minutes:.1f}", str(each.steps), *dice, each.verdict, fine])
    header = ["data", "cases", "minutes", "steps", *levels, "verdict", "problems of the bundle"]
    table = format_table(header, rows, [False, *[True] * (3 + len(levels)), False, False])
    segmented = all(outcome.segmented for outcome in outcomes.values())
    return (
        f"`monai-unetpp train ... --minutes {minutes:g}`, nothing set by hand; {describe_environment().line()}. Cases "
        "of the training and, never looked at, the validation list; minutes of the whole process; mean Dice over "
        f"the labels on the validation cases.{' Every bundle segments.' if segmented else ''}\n\n{table}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train on all data sets and print the table; it is renewed after each of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_to_bundle", description=__doc__)
    parser.add_argument("data_dir", type=Path, help="folder that holds the folders of the data sets")
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is made; a run goes on there")
    parser.add_argument("--minutes", type=float, default=20.0, help="for each (default: 20)")
    parser.add_argument("--only", nargs="+", choices=DATA_SETS, default=list(DATA_SETS), help="which (default: all)")
    offer_table(parser)
    return run_command(parser, arguments, _train_all)


def _train_all(data_dir: Path, work: Path, minutes: float, only: Sequence[str]) -> Iterator[str]:
    outcomes: dict[str, Outcome] = {}
    for name in only:
        own = work.resolve() / name
        claim_work(own, {"data": str(data_dir.resolve()), "minutes": minutes})
        copy = make_copy(data_dir.resolve() / DATA_SETS[name][0], own / "data", name)
        outcomes[name] = make_bundle(copy, own, minutes)
        yield format_outcomes(outcomes, minutes)


if __name__ == "__main__":
    raise SystemExit(main())
