"""Hippocampi of whole brains from one command, beside manual labels: ``python -m benchmarks.hippocampi DATASET_DIR O``.

Segments the images of one list of ``dataset.json`` with ``hippocampus_mri_unetpp`` within ``head_mri_unetpp``, and with
the latter alone, and compares both with label maps in FreeSurfer's numbers (17 and 53): Dice, and volumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice

from benchmarks.command import run_command
from monai_unetpp.bundles import find_bundle, label_names
from monai_unetpp.data import case_name, load_datalist
from monai_unetpp.data.formats.grid import voxel_ml
from monai_unetpp.data.formats.nifti import open_nifti, read_voxels
from monai_unetpp.files import write_json
from monai_unetpp.segmentation import segment_files

_HEAD, _HIPPOCAMPUS = "head_mri_unetpp", "hippocampus_mri_unetpp"
_MANUAL = {"left": 17, "right": 53}
#: Anterior and posterior part of each side, as the chain numbers them.
_PARTS = {"left": [1, 2], "right": [3, 4]}


def compare(found: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> float:
    """Dice coefficient of two masks; 1 if both are empty."""
    prediction, manual = (torch.from_numpy(mask)[None, None] for mask in (found, truth))
    return float(compute_dice(prediction, manual, ignore_empty=False))


def _segment(images: Sequence[str], folder: Path, bundle: str, within: str | None) -> list[Path]:
    summary = segment_files(images, folder, bundle, within=within)
    if summary.failures:
        raise ValueError(summary.failures[0])
    written = {case.image: Path(case.output) for case in summary.cases}
    return [written[image] for image in images]


def main(arguments: Sequence[str] | None = None) -> int:
    """Segment, compare, print and write ``O/hippocampi.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hippocampi", description=__doc__)
    for name in ("dataset_dir", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--list_key", default="brains", help="list of dataset.json (%(default)s)")
    return run_command(parser, arguments, _compare_routes)


def _compare_routes(dataset_dir: Path, output: Path, list_key: str) -> Iterator[str]:
    cases = load_datalist(dataset_dir, list_key)
    images = [case["image"] for case in cases]
    head_names = label_names(find_bundle(_HEAD))
    of_head = {side: [v for v, name in head_names.items() if name == f"{side} hippocampus"] for side in _MANUAL}
    routes = {
        "chain": (_segment(images, output / "chain", _HIPPOCAMPUS, _HEAD), _PARTS),
        "head alone": (_segment(images, output / "head", _HEAD, None), of_head),
    }
    rows: list[dict[str, Any]] = []
    for number, case in enumerate(cases):
        manual = open_nifti(case["label"])
        truth, size_ml = read_voxels(manual, case["label"]), voxel_ml(manual.affine)
        for route, (outputs, values) in routes.items():
            labels = read_voxels(open_nifti(outputs[number]), outputs[number])
            for side, value in _MANUAL.items():
                found, expected = np.isin(labels, values[side]), truth == value
                sizes = {"ml": float(found.sum()) * size_ml, "manual_ml": float(expected.sum()) * size_ml}
                row = {"case": case_name(case["image"]), "route": route, "side": side}
                rows.append({**row, "dice": compare(found, expected), **sizes})
    write_json(output / "hippocampi.json", rows, indent=1)
    yield "\n".join(_summary(route, [row for row in rows if row["route"] == route]) for route in routes)


def _summary(route: str, rows: Sequence[Mapping[str, Any]]) -> str:
    dice, found_ml, manual_ml = (np.array([row[key] for row in rows]) for key in ("dice", "ml", "manual_ml"))
    correlation = float(np.corrcoef(found_ml, manual_ml)[0, 1]) if len(rows) > 2 else float("nan")
    return (
        f"{route}: {len(rows)} hippocampi, mean Dice {dice.mean():.3f}, least {dice.min():.3f}; "
        f"{found_ml.mean():.2f} ml, manually {manual_ml.mean():.2f} ml; correlation {correlation:.2f}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
