"""Altered copies of a data set: ``python -m benchmarks.altered DATASET_DIR O``.

Each is a folder in ``O`` with the images and labels of each list of ``dataset.json``, a data set for ``monai-unetpp
prune``, ``evaluate.json`` and ``benchmarks.recipe --also``. Where intensities change, 0 stays 0, as around a brain:

- ``inverted``: what is bright is dark, and what is dark is bright;
- ``thick``: averaged over slices of 5 mm, with the labels of the middle of each slice;
- ``noisy``: with Gaussian noise of a third of the standard deviation of the image;
- ``blurred``: with a Gaussian of one voxel;
- ``brighter``: with a gamma of 0.5 between the least and the greatest value;
- ``rotated``: by 20 degrees between the first two axes, with the mirrored image beyond the border;
- ``central``: the middle half of each axis;
- ``tight``: cut to the labels and one voxel around them.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from benchmarks.command import run_command
from monai_unetpp.data import load_datalist
from monai_unetpp.data.formats.nifti import open_nifti, read_voxels
from monai_unetpp.files import write_text

#: Thickness of the slices in ``O/thick``.
_THICKNESS_MM = 5.0
#: Noise as a share of the standard deviation of the image, width of the blur in voxels, gamma, and rotation.
_NOISE, _BLUR, _GAMMA, _DEGREES = 1 / 3, 1.0, 0.5, 20.0

_Array = np.ndarray[Any, Any]
_Altered = tuple[_Array, _Array, _Array]


def invert(image: _Array, label: _Array, affine: _Array) -> _Altered:
    """Invert the contrast where the image is not 0; the darkest voxel gets the value of the brightest."""
    inside = image != 0
    values = image[inside]
    inverted = np.where(inside, values.max() + values.min() - image if values.size else image, 0)
    return inverted.astype(np.float32), label, affine


def thicken(image: _Array, label: _Array, affine: _Array) -> _Altered:
    """Average over slices of 5 mm along the axis that runs from foot to head, of voxels of at most 5 mm."""
    axis = next(n for n, name in enumerate(nib.aff2axcodes(affine)) if name in "SI")
    return join_slices(image, label, affine, axis, max(1, round(_THICKNESS_MM / np.linalg.norm(affine[:3, axis]))))


def join_slices(image: _Array, label: _Array, affine: _Array, axis: int, count: int) -> _Altered:
    """Average over ``count`` slices along ``axis``, with the label of the middle one, and cut off what is left."""
    whole = image.shape[axis] // count
    image, label = (np.moveaxis(volume, axis, 0)[: whole * count] for volume in (image, label))
    averaged = image.reshape(whole, count, *image.shape[1:]).mean(axis=1, dtype=np.float32)
    thick = affine.copy()
    thick[:3, axis] *= count
    thick[:3, 3] += affine[:3, axis] * (count - 1) / 2
    return np.moveaxis(averaged, 0, axis), np.moveaxis(label[count // 2 :: count], 0, axis), thick


def add_noise(image: _Array, label: _Array, affine: _Array) -> _Altered:
    """Add noise where the image is not 0; the same image gets the same noise."""
    inside = image != 0
    noise = np.random.default_rng(image.size).normal(0, _NOISE * image[inside].std(), image.shape)
    return np.where(inside, image + noise, 0).astype(np.float32), label, affine


def blur(image: _Array, label: _Array, affine: _Array) -> _Altered:
    """Blur where the image is not 0."""
    blurred = ndimage.gaussian_filter(image, _BLUR)
    return np.where(image != 0, blurred, 0).astype(np.float32), label, affine


def brighten(image: _Array, label: _Array, affine: _Array) -> _Altered:
    """Lift what is dark where the image is not 0."""
    inside = image != 0
    least, greatest = image[inside].min(), image[inside].max()
    lifted = least + (greatest - least) * ((image - least).clip(0) / max(greatest - least, 1e-6)) ** _GAMMA
    return np.where(inside, lifted, 0).astype(np.float32), label, affine


def rotate(image: _Array, label: _Array, affine: _Array) -> _Altered:
    """Rotate the image and the label, not the affine."""
    options = {"angle": _DEGREES, "axes": (0, 1), "reshape": False, "mode": "mirror"}
    turned = ndimage.rotate(image, order=1, **options)
    return turned.astype(np.float32), ndimage.rotate(label, order=0, **options), affine


def cut_to_middle(image: _Array, label: _Array, affine: _Array) -> _Altered:
    """Keep the middle half of each axis."""
    return _cut(image, label, affine, [(size // 4, size - size // 4) for size in label.shape])


def cut_to_labels(image: _Array, label: _Array, affine: _Array) -> _Altered:
    """Cut to the labels and one voxel around them; without labels, nothing is cut."""
    places = [found for found in np.nonzero(label) if len(found)]
    return _cut(image, label, affine, [(max(found.min() - 1, 0), found.max() + 2) for found in places])


def _cut(image: _Array, label: _Array, affine: _Array, bounds: Sequence[tuple[int, int]]) -> _Altered:
    parts = tuple(slice(*pair) for pair in bounds)
    moved = affine.copy()
    for axis, (start, _) in enumerate(bounds):
        moved[:3, 3] += start * affine[:3, axis]
    return image[parts], label[parts], moved


#: Folder of a copy, and what makes it of image, label map and affine.
ALTERATIONS: dict[str, Callable[[_Array, _Array, _Array], _Altered]] = {
    "inverted": invert,
    "thick": thicken,
    "noisy": add_noise,
    "blurred": blur,
    "brighter": brighten,
    "rotated": rotate,
    "central": cut_to_middle,
    "tight": cut_to_labels,
}


def _write_copy(cases: Sequence[dict[str, Any]], folder: Path, name: str) -> list[dict[str, str]]:
    copies = []
    names = Counter((key, Path(case[key]).name) for case in cases for key in ("image", "label"))
    for number, case in enumerate(cases):
        opened = [open_nifti(case[key]) for key in ("image", "label")]
        image, label = (read_voxels(each, case[key]) for each, key in zip(opened, ("image", "label"), strict=True))
        *altered, affine = ALTERATIONS[name](image.astype(np.float32), label, opened[0].affine)
        copy = {}
        for key, array in zip(("image", "label"), altered, strict=True):
            # cases in folders of their own may have files of the same name
            own = Path(case[key]).name
            path = folder / name / f"{key}s" / (own if names[key, own] == 1 else f"{number}_{own}")
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
    parser.add_argument("--only", nargs="+", choices=ALTERATIONS, default=list(ALTERATIONS), help="copies (all)")
    return run_command(parser, arguments, _write_copies)


def _write_copies(dataset_dir: Path, output: Path, lists: Sequence[str], only: Sequence[str]) -> Iterator[str]:
    cases = {key: load_datalist(dataset_dir, key) for key in lists}
    for name in only:
        copies = {key: _write_copy(entries, output, name) for key, entries in cases.items()}
        content = json.dumps({"name": f"{dataset_dir.name}, {name}", **copies}, indent=2)
        write_text(output / name / "dataset.json", content + "\n")
    yield f"{sum(map(len, cases.values()))} cases, {' and '.join(only)}."


if __name__ == "__main__":
    raise SystemExit(main())
