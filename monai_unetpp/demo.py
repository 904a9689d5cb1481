"""The demonstration: a real MRI template out of an installed package, segmented at every level."""

from __future__ import annotations

import dataclasses
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import torch

from monai_unetpp.bundles import find_bundle
from monai_unetpp.files import atomic_path
from monai_unetpp.networks import NestedUNet
from monai_unetpp.segmentation import SegmentedCase, label_names, segment

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["DemoResult", "LevelResult", "demo"]

#: Where the left hippocampus lies in the MNI152 template: centre and size of a box in mm (RAS), of the size of the
#: crops that the bundle was trained on.
_CENTRE_MM = (-23.0, -23.0, -12.0)
_SIZE_MM = (36, 50, 36)
_COLOURS = ("#e69f00", "#56b4e9")


@dataclasses.dataclass(frozen=True)
class LevelResult:
    """What one level made of the demonstration image."""

    level: str
    parameters: int
    case: SegmentedCase


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """Files and figures of the demonstration."""

    image: str
    picture: str
    levels: tuple[LevelResult, ...]


def demo(output_dir: str | PathLike[str], device: str | None = None) -> DemoResult:
    """Segment the left hippocampus of the MNI ICBM152 T1 template at every level of the hippocampus bundle.

    The template comes with the installed nilearn package; nothing is downloaded. Writes the cropped image, a
    segmentation per level and ``hippocampus_levels.png``.

    Args:
        output_dir: folder for the files.
        device: such as ``"cpu"``; by default a GPU if there is one.

    Raises:
        ImportError: nilearn or matplotlib is missing; the message holds the command that installs them.
    """
    try:
        from matplotlib.figure import Figure
        from nilearn.datasets import load_mni152_template
    except ImportError as e:
        raise ImportError(f'{e}. The demonstration needs: pip install "monai-unetpp[demo]"') from e

    folder = Path(output_dir)
    bundle = find_bundle("hippocampus_mri_unetpp")
    crop = crop_box(load_mni152_template(resolution=1), _CENTRE_MM, _SIZE_MM)
    image_path = folder / "mni152_left_hippocampus.nii.gz"
    with atomic_path(image_path) as temporary:
        nib.save(crop, temporary)

    full = NestedUNet.from_checkpoint(bundle / "models" / "model.pt")
    # the first run pays for starting up: done once beforehand, so that the levels' times can be compared
    with torch.no_grad():
        full.eval()(torch.zeros(1, 1, 40, 56, 40))
    results = []
    for level in full.levels:
        summary = segment(image_path, folder / level, bundle, level, device)
        if summary.failures:
            raise ValueError(summary.failures[0])
        parameters = sum(p.numel() for p in full.prune(level).parameters())
        results.append(LevelResult(level, parameters, summary.cases[0]))

    figure = Figure(figsize=(3.2 * len(results) + 3.2, 9.6), layout="constrained", facecolor="white")
    _draw(figure, crop, results, label_names(bundle))
    picture = folder / "hippocampus_levels.png"
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, dpi=120)
    return DemoResult(str(image_path), str(picture), tuple(results))


def crop_box(image: Any, centre_mm: tuple[float, ...], size_mm: tuple[int, ...]) -> Any:
    """Cut a box out of a NIfTI image with axes along R, A and S.

    Args:
        image: a nibabel image with positive diagonal affine.
        centre_mm: centre of the box in world coordinates.
        size_mm: its size.

    Returns:
        The cropped image; its affine keeps every voxel where it was in the world.
    """
    inverse = np.linalg.inv(image.affine)
    spacing = np.abs(np.diag(image.affine)[:3])
    centre = (inverse @ np.array([*centre_mm, 1.0]))[:3]
    half = np.array(size_mm) / spacing / 2
    start = np.round(centre - half).astype(int)
    stop = start + np.round(2 * half).astype(int)
    return image.slicer[tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))]


def _draw(figure: Any, image: Any, results: list[LevelResult], names: dict[int, str]) -> None:
    """Rows are planes through the middle of the deepest level's label, columns the image and the levels."""
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    labels = {result.level: _voxels(result.case.output) for result in results}
    deepest = labels[results[-1].level]
    found = np.argwhere(deepest > 0)
    middle = found.mean(axis=0).round().astype(int) if len(found) else np.array(voxels.shape) // 2
    axes = figure.subplots(3, len(results) + 1, squeeze=False)
    for row, (axis, plane) in enumerate(((0, "sagittal"), (1, "coronal"), (2, "axial"))):
        for column in range(len(results) + 1):
            panel = axes[row][column]
            panel.imshow(_slice(voxels, axis, middle[axis]), cmap="gray", origin="lower")
            panel.set_xticks([])
            panel.set_yticks([])
            if column:
                result = results[column - 1]
                for value, colour in zip(names, _COLOURS, strict=False):
                    mask = _slice(labels[result.level] == value, axis, middle[axis])
                    if mask.any():
                        panel.contour(mask, levels=[0.5], colors=[colour], linewidths=2)
            if row == 0:
                title = "T1, MNI ICBM152" if column == 0 else _title(results[column - 1])
                panel.set_title(title, fontsize=11)
            if column == 0:
                panel.set_ylabel(plane, fontsize=11)
    handles = [
        figure.gca().plot([], [], color=colour, linewidth=2, label=name)[0]
        for name, colour in zip(names.values(), _COLOURS, strict=False)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def _voxels(path: str) -> npt.NDArray[Any]:
    image: Any = nib.load(path)
    return np.asarray(image.dataobj)


def _slice(voxels: npt.NDArray[Any], axis: int, index: int) -> npt.NDArray[Any]:
    plane: npt.NDArray[Any] = np.take(voxels, index, axis=axis).T
    return plane


def _title(result: LevelResult) -> str:
    return f"{result.level}, {result.parameters / 1e6:.2f} M parameters\n{sum(result.case.volumes_ml.values()):.2f} ml"
