"""The demonstration: a real MRI template out of an installed package, segmented at every level."""

from __future__ import annotations

import dataclasses
from os import PathLike
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from monai_unetpp.bundles import find_bundle
from monai_unetpp.devices import resolve_device
from monai_unetpp.files import atomic_path
from monai_unetpp.networks import NestedUNet
from monai_unetpp.segmentation import SegmentedCase, label_names, make_output_dir, segment

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["DemoResult", "LevelResult", "demo"]

#: Where the left hippocampus lies in the MNI152 template: centre and size of a box in mm (RAS), of the size of the
#: crops that the bundle was trained on.
_CENTRE_MM = (-23.0, -23.0, -12.0)
_SIZE_MM = (36, 50, 36)
_COLOURS = ("#e69f00", "#56b4e9")
_HALO = "#1a1a1a"

#: What the figure is measured in: inches, at so many pixels per inch.
_DPI = 100
_WIDTH = 15.0
_MARGIN = 0.1
_GAP = 0.06
_ROW_NAMES = 0.3
_HEADINGS = 1.0
_LEGEND = 0.4

_PLANES = (("sagittal", "x"), ("coronal", "y"), ("axial", "z"))
#: What is at the left, the right, the bottom and the top of a plane across each axis, where axes run to R, A and S.
_LETTERS = ("PAIS", "LRIS", "LRPA")


@dataclasses.dataclass(frozen=True)
class LevelResult:
    """What one level made of the demonstration image.

    Attributes:
        level: such as ``"L2"``.
        parameters: of the network pruned to this level.
        case: its segmentation, volumes and seconds.
    """

    level: str
    parameters: int
    case: SegmentedCase

    @property
    def total_ml(self) -> float:
        """Volume of all labels together in millilitres."""
        return sum(self.case.volumes_ml.values())


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """Files and figures of the demonstration.

    Attributes:
        image: the NIfTI file that was segmented.
        picture: the PNG file that shows all levels on it.
        levels: shallowest first.
    """

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
        FileNotFoundError: the hippocampus bundle is not installed.
        ImportError: nilearn or matplotlib is missing; the message holds the command that installs them.
        OSError: ``output_dir`` cannot be written to.
        ValueError: no such device, or the image could not be segmented.
    """
    try:
        from matplotlib.figure import Figure
        from nilearn.datasets import load_mni152_template
    except ImportError as e:
        raise ImportError(f'{e}. The demonstration needs: pip install "monai-unetpp[demo]"') from e

    target = resolve_device(device)
    folder = make_output_dir(output_dir)
    bundle = find_bundle("hippocampus_mri_unetpp")
    crop = crop_box(load_mni152_template(resolution=1), _CENTRE_MM, _SIZE_MM)
    image_path = folder / "mni152_left_hippocampus.nii.gz"
    with atomic_path(image_path) as temporary:
        nib.save(crop, temporary)

    full = NestedUNet.from_checkpoint(bundle / "models" / "model.pt").eval().to(target)
    # the first run pays for starting up: done once beforehand, so that the levels' times can be compared
    with torch.no_grad():
        full(torch.zeros(1, 1, 40, 56, 40, device=target))
    results = []
    for level in full.levels:
        summary = segment(image_path, folder / level, bundle, level, device)
        if summary.failures:
            raise ValueError(summary.failures[0])
        parameters = sum(p.numel() for p in full.prune(level).parameters())
        results.append(LevelResult(level, parameters, summary.cases[0]))

    figure = Figure(facecolor="white")
    _draw(figure, crop, results, label_names(bundle))
    picture = folder / "hippocampus_levels.png"
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, dpi=_DPI)
    return DemoResult(str(image_path), str(picture), tuple(results))


def crop_box(image: Any, centre_mm: tuple[float, ...], size_mm: tuple[int, ...]) -> Any:
    """Cut a box out of a NIfTI image with axes along R, A and S.

    Args:
        image: a 3D nibabel image with positive diagonal affine.
        centre_mm: centre of the box in world coordinates.
        size_mm: its size.

    Returns:
        The cropped image; its affine keeps every voxel where it was in the world.

    Raises:
        ValueError: axes that run otherwise, or a box that is not all in the image.
    """
    axes = "".join(nib.aff2axcodes(image.affine))
    spacing = np.diag(image.affine)[:3]
    if axes != "RAS" or np.count_nonzero(image.affine[:3, :3]) != 3:
        raise ValueError(f"image must have axes exactly along R, A and S, got {axes} with affine {image.affine}.")
    size = np.round(np.array(size_mm) / spacing).astype(int)
    first_mm = np.array(centre_mm) - (size - 1) * spacing / 2
    start = np.round((first_mm - image.affine[:3, 3]) / spacing).astype(int)
    stop = start + size
    if (start < 0).any() or (stop > image.shape).any():
        raise ValueError(f"the box around {centre_mm} mm of size {size_mm} mm must lie in the image, of {image.shape}.")
    return image.slicer[tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))]


def _draw(figure: Any, image: Any, results: list[LevelResult], names: dict[int, str]) -> None:
    """Rows are planes through the middle of the deepest level's label, columns the image and the levels.

    All panels are equally wide and as high as their plane asks for, so that no room is lost; each row has its scale.
    """
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    spacing = np.diag(image.affine)[:3]
    labels = {result.level: _voxels(result.case.output) for result in results}
    found = np.argwhere(labels[results[-1].level] > 0)
    middle = found.mean(axis=0).round().astype(int) if len(found) else np.array(voxels.shape) // 2
    position_mm = image.affine[:3, :3] @ middle + image.affine[:3, 3]
    window = np.percentile(voxels, (3, 97))

    size_mm = [np.delete(np.array(voxels.shape) * spacing, axis) for axis in range(3)]
    columns = len(results) + 1
    width = (_WIDTH - 2 * _MARGIN - _ROW_NAMES - (columns - 1) * _GAP) / columns
    heights = [width * vertical / horizontal for horizontal, vertical in size_mm]
    total = _HEADINGS + sum(heights) + 2 * _GAP + _LEGEND
    figure.set_size_inches(_WIDTH, total)

    top = total - _HEADINGS
    for axis, (plane, coordinate) in enumerate(_PLANES):
        top -= heights[axis]
        for column in range(columns):
            left = _MARGIN + _ROW_NAMES + column * (width + _GAP)
            panel = figure.add_axes((left / _WIDTH, top / total, width / _WIDTH, heights[axis] / total))
            panel.set_axis_off()
            _draw_plane(panel, _slice(voxels, axis, middle[axis]), size_mm[axis], window)
            if column:
                found_labels = _slice(labels[results[column - 1].level], axis, middle[axis])
                for value, colour in zip(names, _COLOURS, strict=False):
                    _draw_contour(panel, found_labels == value, size_mm[axis], colour)
            else:
                _draw_letters(panel, _LETTERS[axis])
                _draw_scale_bar(panel, size_mm[axis])
            if axis == 0:
                panel.set_title("T1-weighted MRI" if column == 0 else _heading(results[column - 1], results[-1]))
        figure.text(
            (_MARGIN + _ROW_NAMES / 2) / _WIDTH,
            (top + heights[axis] / 2) / total,
            f"{plane}, {coordinate} = {position_mm[axis]:.0f} mm",
            rotation="vertical",
            ha="center",
            va="center",
            fontsize=12,
        )
        top -= _GAP
    figure.text(
        (_MARGIN + _ROW_NAMES) / _WIDTH,
        1 - _MARGIN / total,
        "Left hippocampus of the MNI ICBM152 template, segmented by one nested U-Net pruned to each level",
        va="top",
        fontsize=15,
        weight="bold",
    )
    _draw_legend(figure, names, total)


def _draw_plane(panel: Any, plane: npt.NDArray[Any], size_mm: npt.NDArray[Any], window: npt.NDArray[Any]) -> None:
    panel.imshow(
        plane,
        cmap="gray",
        origin="lower",
        extent=(0, size_mm[0], 0, size_mm[1]),
        vmin=window[0],
        vmax=window[1],
        interpolation="bicubic",
        aspect="auto",
    )
    panel.set_autoscale_on(False)


def _draw_contour(panel: Any, mask: npt.NDArray[np.bool_], size_mm: npt.NDArray[Any], colour: str) -> None:
    """The border of a label, with the corners of its voxels rounded."""
    if not mask.any():
        return
    fine = 6
    smooth = gaussian_filter(np.kron(mask, np.ones((fine, fine))).astype(np.float32), 0.6 * fine)
    y, x = (
        (np.arange(count) + 0.5) * length / count for count, length in zip(smooth.shape, size_mm[::-1], strict=True)
    )
    panel.contour(x, y, smooth, levels=[0.5], colors=[_HALO], linewidths=3.4, alpha=0.5)
    panel.contour(x, y, smooth, levels=[0.5], colors=[colour], linewidths=2.2)


def _draw_letters(panel: Any, letters: str) -> None:
    places = (
        (0.015, 0.5, "left", "center"),
        (0.985, 0.5, "right", "center"),
        (0.5, 0.015, "center", "bottom"),
        (0.5, 0.985, "center", "top"),
    )
    for letter, (x, y, ha, va) in zip(letters, places, strict=True):
        _outlined(panel.text(x, y, letter, ha=ha, va=va, transform=panel.transAxes, color="white", fontsize=11))


def _draw_scale_bar(panel: Any, size_mm: npt.NDArray[Any], length_mm: float = 10) -> None:
    x, y = 0.03 * size_mm[0], 0.035 * size_mm[0]
    panel.plot([x, x + length_mm], [y, y], color=_HALO, linewidth=5, solid_capstyle="butt")
    panel.plot([x, x + length_mm], [y, y], color="white", linewidth=3, solid_capstyle="butt")
    text = panel.text(
        x + length_mm / 2, y + 0.01 * size_mm[0], f"{length_mm:g} mm", color="white", ha="center", va="bottom"
    )
    _outlined(text)


def _outlined(text: Any) -> None:
    """Readable on bright and on dark ground."""
    from matplotlib.patheffects import withStroke

    text.set_path_effects([withStroke(linewidth=2.5, foreground=_HALO)])


def _draw_legend(figure: Any, names: dict[int, str], total: float) -> None:
    from matplotlib.lines import Line2D

    figure.legend(
        handles=[
            Line2D([], [], color=colour, linewidth=3, label=f"{name} part")
            for name, colour in zip(names.values(), _COLOURS, strict=False)
        ],
        loc="lower center",
        bbox_to_anchor=(0.5, 0.02 / total),
        ncols=len(names),
        frameon=False,
        fontsize=12,
    )


def _voxels(path: str) -> npt.NDArray[Any]:
    image: Any = nib.load(path)
    return np.asarray(image.dataobj)


def _slice(voxels: npt.NDArray[Any], axis: int, index: int) -> npt.NDArray[Any]:
    """A plane with the later axis upwards."""
    plane: npt.NDArray[Any] = np.take(voxels, index, axis=axis).T
    return plane


def _heading(result: LevelResult, deepest: LevelResult) -> str:
    share = 100 * result.parameters / deepest.parameters
    return f"{result.level}: {result.total_ml:.2f} ml\n{result.parameters / 1e6:.2f} M parameters ({share:.0f} %)"
