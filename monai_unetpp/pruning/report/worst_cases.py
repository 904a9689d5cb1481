"""Pictures of the cases on which the chosen level loses most against the deepest: contours where errors are largest."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import numpy.typing as npt

from monai_unetpp.data import read_geometry
from monai_unetpp.data.datasets.case_check import read_image
from monai_unetpp.data.datasets.labelled import LabelledCase
from monai_unetpp.data.formats.label_table import make_labels
from monai_unetpp.data.formats.reader import read_label_map
from monai_unetpp.data.formats.suffixes import is_picture_name
from monai_unetpp.errors import printable
from monai_unetpp.files import write_figure
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning.plan import EvaluatedNetwork
from monai_unetpp.pruning.scoring.levels import Scores
from monai_unetpp.pruning.scoring.prediction import predict_case
from monai_unetpp.pruning.summary import WorstCase, losses_of_cases
from monai_unetpp.reporting.figures import NEUTRAL, new_figure
from monai_unetpp.reporting.overlays import (
    PLANES,
    draw_contour,
    draw_grey,
    draw_letters,
    draw_scale_bar,
    error_slice,
    tint,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

_Array = npt.NDArray[Any]

#: Sizes of the picture and its legend, in inches.
_WIDTH = 11.0
_HANDLE_WIDTH = 0.7
_LETTER_WIDTH = 0.075
_ROW_HEIGHT = 0.22
_MOST_COLUMNS = 6
_DIFFERS = "differs from the truth"
_COLOURS = ("#F0E442", "#56B4E9", "#E69F00", "#CC79A7", "#009E73", "#D55E00")
_ERROR = "#FF3B30"
_CONTEXT = 0.6
_LEAST_CONTEXT_VOXELS = 6


def save_worst_cases(
    folder: Path,
    pipeline: EvaluatedNetwork,
    chosen: str,
    scores: Sequence[Scores],
    networks: Mapping[tuple[str, str], NestedUNet] | None = None,
    most: int = 4,
    ignore_labels: Mapping[str, int | None] | None = None,
) -> tuple[str, ...]:
    """Draw the worst cases of a level beside the deepest, in ``folder/overlays`` and there by data set; their paths.

    A picture that cannot be written is the last: the first one is always that of the worst case. ``networks``, by data
    set and case, scored the cases instead of that of the pipeline.
    """
    deepest = pipeline.network.levels[-1]
    cases = {(each.rows[0].dataset, case.name): case for each in scores for case in each.cases}
    worst: dict[tuple[str, str], WorstCase] = {}
    for loss in losses_of_cases([row for each in scores for row in each.rows], pipeline.labels, chosen, deepest):
        worst.setdefault((loss.dataset, loss.case), loss)
    drawn: list[str] = []
    for (dataset, name), loss in list(worst.items())[:most]:
        evaluated = dataclasses.replace(pipeline, network=(networks or {}).get((dataset, name), pipeline.network))
        ignored, path = (ignore_labels or {}).get(dataset), folder / "overlays" / dataset / f"{name}.png"
        try:
            _save_case(path, evaluated, (chosen, deepest), cases[dataset, name], loss, ignored)
        except OSError as e:
            logger.warning("The pictures of %s (%s) and of what follows it are left out: %s", name, dataset, e)
            break
        drawn.append(str(path.relative_to(folder)))
    return tuple(drawn)


def _save_case(
    path: Path,
    pipeline: EvaluatedNetwork,
    levels: tuple[str, str],
    case: LabelledCase,
    loss: WorstCase,
    ignore_label: int | None,
) -> None:
    chosen, deepest = levels
    text = f"Dice of {loss.label} {loss.chosen_dice:.3f} at {chosen}, {loss.deepest_dice:.3f} at {deepest}"
    truth = read_label_map(case.label, pipeline.network.spatial_dims)
    maps = predict_case(pipeline.network, case, **pipeline.steps, levels=levels, device=pipeline.device)
    # what is not scored must not show as an error
    scored, known = list(pipeline.labels.values()), truth.data != ignore_label
    true, less, most = (
        np.where(known & np.isin(labels, scored), labels, 0) for labels in (truth.data, maps[chosen], maps[deepest])
    )
    geometry = read_geometry(case.label)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_overlay(
        # voxels outside of the scanned region may be NaN
        read_image(case, truth.data.ndim, allow_constant=True, fill_nonfinite=0.0).data[0],
        true,
        less,
        most,
        geometry.spacing_mm[: truth.data.ndim],
        path,
        printable(f"{case.name} ({loss.dataset}): {text}"),
        chosen_name=chosen,
        deepest_name=deepest,
        label_names={value: name for name, value in pipeline.labels.items()},
        # pictures have no size in mm
        unit="pixels" if is_picture_name(case.label) else "mm",
        orientation="".join(nibabel.aff2axcodes(geometry.affine)) if truth.data.ndim == 3 else None,
    )


def save_overlay(
    image: _Array,
    truth: _Array,
    chosen: _Array,
    deepest: _Array,
    spacing: tuple[float, ...],
    path: Path,
    title: str,
    *,
    label_names: Mapping[int, str],
    chosen_name: str = "chosen level",
    deepest_name: str = "deepest level",
    unit: str = "mm",
    orientation: str | None = None,
) -> None:
    """Draw image, truth, chosen and deepest level side by side at the slice where the chosen level errs most.

    The slice is perpendicular to the coarsest axis of a volume (the last one of equals) and cropped around the
    structures. Without errors, it is the one with most of the structures. The first remaining axis runs to the right,
    the second upwards (a RAS volume is seen from above: the patient's right is on the right), or downwards in 2D.
    Contours are coloured by label; wrong voxels are tinted red. The background is transparent.

    Intensities and label maps are ``(H, W[, D])``, and voxels have a size of ``spacing`` in ``unit``. The title, taken
    literally, and a description (for alternative text) are also in the metadata of the PNG ``path``. ``orientation``
    are the directions of the axes, such as ``"RAS"``, for the name of the plane and for letters at the edges; None if
    unknown, and in 2D.
    """
    values = np.asarray(image, dtype=float)
    masks = {"truth": truth, "chosen": chosen, "deepest": deepest}
    values, masks, sizes, where, letters = _view(values, masks, spacing, orientation)
    headings, description = _words(title + where, masks, chosen_name, deepest_name)
    names = {int(value): label_names[value] for value in np.unique(list(masks.values())) if value}
    rows = math.ceil((len(names) + 1) / _legend_columns(names))
    ratio = (values.shape[1] * sizes[1]) / (values.shape[0] * sizes[0])
    height = float(np.clip(2.6 * ratio, 1.2, 5.2)) + 1.0 + _ROW_HEIGHT * (rows - 1)
    with new_figure(_WIDTH, height, 1, 4) as (figure, grid):
        _draw(grid[0], values, masks, sizes, headings, names)
        draw_scale_bar(grid[0][0], values.shape, sizes, unit)
        if letters:
            draw_letters(grid[0][0], *letters)
        _legend(figure, names)
        figure.suptitle(title + where, fontsize=11, x=0.01, ha="left", color=NEUTRAL)
        figure.patch.set_alpha(0.0)
        write_figure(path, figure, dpi=110, metadata={"Title": title, "Description": description})


def _view(
    image: _Array, masks: dict[str, _Array], spacing: tuple[float, ...], orientation: str | None
) -> tuple[_Array, dict[str, _Array], tuple[float, ...], str, str]:
    """The slice with most errors, cropped around the structures: its voxel sizes, description, and orientation letters.

    The letters are empty if the orientation is unknown.
    """
    axis, index = error_slice(masks["truth"], masks["chosen"], spacing)
    if image.ndim == 3:
        image = np.take(image, index, axis)
        masks = {name: np.take(mask, index, axis) for name, mask in masks.items()}
        spacing = tuple(size for i, size in enumerate(spacing) if i != axis)
    window = _window(masks, spacing)
    image, masks = image[window], {name: mask[window] for name, mask in masks.items()}
    if axis is None:
        return image[:, ::-1], {name: mask[:, ::-1] for name, mask in masks.items()}, spacing, "", ""
    if orientation is None:
        return image, masks, spacing, f", slice {index} across axis {axis}", ""
    where = f", {PLANES[orientation[axis]]} slice {index}"
    return image, masks, spacing, where, orientation[:axis] + orientation[axis + 1 :]


def _window(masks: dict[str, _Array], spacing: tuple[float, ...]) -> tuple[slice, slice]:
    """A window around all labels with some context, roughly square in physical size."""
    union = np.any([mask != 0 for mask in masks.values()], axis=0)
    shape = union.shape
    if not union.any():
        return slice(0, shape[0]), slice(0, shape[1])
    bounds = [np.flatnonzero(union.any(axis=1 - axis))[[0, -1]] for axis in range(2)]
    longest = max((last - first + 1) * size for (first, last), size in zip(bounds, spacing, strict=True))
    window = []
    for (first, last), size, count in zip(bounds, spacing, shape, strict=True):
        wanted = max(longest * (1 + _CONTEXT) / size, last - first + 1 + 2 * _LEAST_CONTEXT_VOXELS)
        start = max(0, int(np.floor((first + last + 1 - wanted) / 2)))
        window.append(slice(start, min(count, int(np.ceil((first + last + 1 + wanted) / 2)))))
    return window[0], window[1]


def _words(place: str, masks: dict[str, _Array], chosen: str, deepest: str) -> tuple[dict[str, str], str]:
    """The headings of the label maps, and the description of the picture."""
    wrong = {name: int(np.count_nonzero(masks[name] != masks["truth"])) for name in ("chosen", "deepest")}
    headings = {
        "truth": "truth",
        "chosen": f"{chosen}: {wrong['chosen']} voxels wrong",
        "deepest": f"{deepest}: {wrong['deepest']} voxels wrong",
    }
    return headings, (
        f"{place}: image, truth, {chosen} and {deepest}. In this view {chosen} differs from the truth in "
        f"{wrong['chosen']} voxels, {deepest} in {wrong['deepest']}."
    )


def _draw(
    row: Sequence[Axes],
    image: _Array,
    masks: dict[str, _Array],
    spacing: tuple[float, ...],
    headings: dict[str, str],
    names: dict[int, str],
) -> None:
    finite = image[np.isfinite(image)]
    limits = np.percentile(finite, (1, 99)) if finite.size else (0.0, 1.0)
    for axes, name in zip(row, ("", *headings), strict=True):
        draw_grey(axes, image, limits, aspect=spacing[1] / spacing[0])
        axes.set_axis_off()
        axes.set_title(headings.get(name, "image"), color=NEUTRAL)
        if not name:
            continue
        mask = masks[name]
        tint(axes, mask != masks["truth"], _ERROR, 0.45)
        for value in names:
            draw_contour(axes, mask == value, _colour(value), 1.6, closed=True)
        axes.set_xlim(-0.5, mask.shape[0] - 0.5)
        axes.set_ylim(-0.5, mask.shape[1] - 0.5)


def _colour(value: int) -> str:
    return _COLOURS[value - 1] if value <= len(_COLOURS) else make_labels({value: ""})[0].hex_colour


def _legend_columns(names: dict[int, str]) -> int:
    """As many columns as fit if each holds the longest name."""
    longest = max(len(name) for name in (*names.values(), _DIFFERS))
    return min(_MOST_COLUMNS, max(1, int(_WIDTH / (_HANDLE_WIDTH + _LETTER_WIDTH * longest))))


def _legend(figure: Any, names: dict[int, str]) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor="none", edgecolor=_colour(value), linewidth=2.4, label=name) for value, name in names.items()
    ]
    handles.append(Patch(facecolor=_ERROR, alpha=0.6, label=_DIFFERS))
    columns = _legend_columns(names)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=9.5, labelcolor=NEUTRAL)
