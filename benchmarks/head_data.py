"""Make the data set of the head bundle: ``python -m benchmarks.head_data MAPS BRAINS LABELS O``.

``MAPS`` is a folder of label maps of heads in FreeSurfer's numbers, from which training draws its images; ``BRAINS`` a
data set of real brains with the lists ``training`` and ``validation``; ``LABELS`` one with label maps in FreeSurfer's
numbers of the same names. ``O/dataset.json`` lists the maps as ``training``; of the brains the first list is
``validation``, the second ``test``, and both are ``brains``. ``O/fingerprint.json`` holds the ranges of the heads,
which the guard knows.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.command import run_command
from monai_unetpp.bundles import find_bundle, label_names
from monai_unetpp.bundles.json_files import read_object
from monai_unetpp.data import load_datalist
from monai_unetpp.files import write_json, write_text
from monai_unetpp.guard import FINGERPRINT_FILE, ImageRecord, TrainingRanges
from monai_unetpp.planning.fingerprint import fingerprint_text

#: What training draws: voxels of 1 to 8 mm, and images that are scaled by their own percentiles.
_SPACINGS_MM = (1.0, 4.0)
#: Stands for what surrounds the brain.
_AROUND = 255
_LOWEST, _HIGHEST = (-1.0, 0.0), (1.0, 4096.0)


def make_datalist(maps: Path, brains: Path, labels: Path) -> dict[str, Any]:
    """The content of ``dataset.json``.

    Args:
        maps: folder of label maps of heads.
        brains: folder with ``dataset.json``, with the lists ``training`` and ``validation``.
        labels: folder with label maps of the same names in ``labelsTr``.

    Raises:
        FileNotFoundError: no label maps, or one of a brain is missing.
        ValueError: ``brains`` cannot be read.
    """
    heads = sorted(maps.glob("*.nii.gz"))
    if not heads:
        raise FileNotFoundError(f"{maps}: holds no .nii.gz. Name the folder of the label maps.")
    lists = {"training": [{"image": os.path.abspath(path), "label": os.path.abspath(path)} for path in heads]}
    for key, name in (("validation", "training"), ("test", "validation")):
        lists[key] = []
        for case in load_datalist(brains, name):
            label = labels / "labelsTr" / Path(case["image"]).name
            if not label.is_file():
                raise FileNotFoundError(f"{label}: no such file. It must label {case['image']}.")
            lists[key].append({"image": case["image"], "label": os.path.abspath(label)})
    lists["brains"] = lists["validation"] + lists["test"]
    return {"name": "head", "modality": {"0": "MRI"}, **lists}


def measure_heads(maps: Sequence[Path], train: Mapping[str, Any], names: Mapping[int, str]) -> TrainingRanges:
    """The ranges of the heads, from the brain alone, as in stripped images, to the whole head.

    ``maps`` are in FreeSurfer's numbers, of which ``train.json`` has the classes; ``names`` are those of the classes.
    """
    class_of = np.zeros(max(train["label_values"]) + 1, np.uint8)
    class_of[train["label_values"]] = train["classes"]
    class_of[train["surround"]] = _AROUND
    fluid = next(value for value, name in names.items() if name == "fluid")
    records = []
    for path in maps:
        image = nib.as_closest_canonical(nib.load(path))
        classes, spacing = class_of[np.asarray(image.dataobj)], np.asarray(image.header.get_zooms()[:3], dtype=float)
        counts = np.bincount(classes.ravel(), minlength=256) * float(spacing.prod()) / 1000
        volumes_ml = {name: float(counts[value]) for value, name in names.items()}
        for region, low, high, spacing_mm, is_stripped in (
            ((classes > 0) & (classes != fluid) & (classes != _AROUND), _LOWEST[0], _HIGHEST[0], _SPACINGS_MM[0], True),
            (classes > 0, _LOWEST[1], _HIGHEST[1], _SPACINGS_MM[1], False),
        ):
            # what is stripped has no fluid around it
            found_ml = volumes_ml | ({"fluid": 0.0} if is_stripped else {})
            size_mm = tuple(length * size for length, size in zip(_extent(region), spacing, strict=True))
            records.append(ImageRecord((spacing_mm,) * 3, size_mm, is_stripped, (low,), (high,), found_ml))
    return dataclasses.replace(TrainingRanges.of(records, "MR"), cases=len(maps))


def _extent(region: np.ndarray[Any, Any]) -> list[float]:
    """Voxels along each axis of the box around a region."""
    found = [np.flatnonzero(region.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return [float(places[-1] - places[0] + 1) for places in found]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.head_data", description=__doc__)
    for name in ("maps", "brains", "labels", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--bundle", default="head_mri_unetpp", help="name or folder of the bundle (%(default)s)")
    return run_command(parser, arguments, _write_both)


def _write_both(maps: Path, brains: Path, labels: Path, output: Path, bundle: str) -> Iterator[str]:
    folder = find_bundle(bundle)
    content = make_datalist(maps, brains, labels)
    heads = [Path(case["image"]) for case in content["training"]]
    ranges = measure_heads(heads, read_object(folder / "configs" / "train.json"), label_names(folder))
    write_json(output / "dataset.json", content, indent=2)
    fingerprint = {"form": 1, "spatial_dims": 3, "channels": ["MRI"], "modality": "MR", "ranges": ranges.as_dict()}
    write_text(output / Path(FINGERPRINT_FILE).name, fingerprint_text(fingerprint))
    yield f"{len(heads)} heads, {len(content['validation'])} and {len(content['test'])} brains."


if __name__ == "__main__":
    raise SystemExit(main())
