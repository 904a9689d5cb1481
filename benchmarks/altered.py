"""Altered copies of a data set: ``python -m benchmarks.altered DATASET_DIR O``.

``O/inverted`` holds the images of each list of ``dataset.json`` with their contrast inverted, what is bright dark and
what is dark bright, over a surround that stays 0; ``O/thick`` the images averaged over slices of 5 mm, with the labels
of the middle of each slice. Both are data sets for ``monai-unetpp prune`` and ``evaluate.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.command import run_command
from monai_unetpp.data import load_datalist
from monai_unetpp.data.nifti import open_nifti, read_voxels
from monai_unetpp.files import write_text

__all__ = ["ALTERATIONS", "invert", "join_slices", "main", "thicken"]

#: Thickness of the slices in ``O/thick``.
_THICKNESS_MM = 5.0

_Array = np.ndarray[Any, Any]


def invert(image: _Array, label: _Array, affine: _Array) -> tuple[_Array, _Array, _Array]:
    """Invert the contrast where the image is not 0; the darkest voxel gets the value of the brightest."""
    inside = image != 0
    values = image[inside]
    inverted = np.where(inside, values.max() + values.min() - image if values.size else image, 0)
    return inverted.astype(np.float32), label, affine


def thicken(image: _Array, label: _Array, affine: _Array) -> tuple[_Array, _Array, _Array]:
    """Average over slices of 5 mm along the axis that runs from foot to head.

    Args:
        image: ``(H, W, D)``.
        label: the same.
        affine: ``(4, 4)``, of voxels of at most 5 mm.
    """
    axis = next(n for n, name in enumerate(nib.aff2axcodes(affine)) if name in "SI")
    return join_slices(image, label, affine, axis, max(1, round(_THICKNESS_MM / np.linalg.norm(affine[:3, axis]))))


def join_slices(image: _Array, label: _Array, affine: _Array, axis: int, count: int) -> tuple[_Array, _Array, _Array]:
    """Average over slices, with the label of the middle one; what is left at the end is cut off.

    Args:
        image: ``(H, W, D)``.
        label: the same.
        affine: ``(4, 4)``.
        axis: along which the slices are stacked.
        count: how many become one.
    """
    whole = image.shape[axis] // count
    image, label = (np.moveaxis(volume, axis, 0)[: whole * count] for volume in (image, label))
    averaged = image.reshape(whole, count, *image.shape[1:]).mean(axis=1, dtype=np.float32)
    thick = affine.copy()
    thick[:3, axis] *= count
    thick[:3, 3] += affine[:3, axis] * (count - 1) / 2
    return np.moveaxis(averaged, 0, axis), np.moveaxis(label[count // 2 :: count], 0, axis), thick


#: Folder of a copy, and what makes it of image, label map and affine.
ALTERATIONS: dict[str, Callable[[_Array, _Array, _Array], tuple[_Array, _Array, _Array]]] = {
    "inverted": invert,
    "thick": thicken,
}


def _write_copy(cases: Sequence[dict[str, Any]], folder: Path, name: str) -> list[dict[str, str]]:
    copies = []
    for case in cases:
        opened = [open_nifti(case[key]) for key in ("image", "label")]
        image, label = (read_voxels(each, case[key]) for each, key in zip(opened, ("image", "label"), strict=True))
        *altered, affine = ALTERATIONS[name](image.astype(np.float32), label, opened[0].affine)
        copy = {}
        for key, array in zip(("image", "label"), altered, strict=True):
            path = folder / name / f"{key}s" / Path(case[key]).name
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, affine), path)
            copy[key] = str(path.relative_to(folder / name))
        copies.append(copy)
    return copies


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the copies."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.altered", description=__doc__)
    for name in ("dataset_dir", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--lists", nargs="+", default=["validation", "test"], help="of dataset.json (%(default)s)")
    return run_command(parser, arguments, _write_copies)


def _write_copies(dataset_dir: Path, output: Path, lists: Sequence[str]) -> Iterator[str]:
    cases = {key: load_datalist(dataset_dir, key) for key in lists}
    for name in ALTERATIONS:
        copies = {key: _write_copy(entries, output, name) for key, entries in cases.items()}
        content = json.dumps({"name": f"{dataset_dir.name}, {name}", **copies}, indent=2)
        write_text(output / name / "dataset.json", content + "\n")
    yield f"{sum(map(len, cases.values()))} cases, {' and '.join(ALTERATIONS)}."


if __name__ == "__main__":
    raise SystemExit(main())
