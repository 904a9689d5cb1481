"""Pictures of the cases on which the chosen level loses most against the deepest."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np

from monai_unetpp.data import read_geometry
from monai_unetpp.data.datasets.case_check import read_image
from monai_unetpp.data.datasets.labelled import LabelledCase
from monai_unetpp.data.formats.pictures import is_picture_name
from monai_unetpp.data.formats.reader import read_label_map
from monai_unetpp.errors import printable
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning.plan import EvaluatedNetwork
from monai_unetpp.pruning.report.case_pictures import save_overlay
from monai_unetpp.pruning.scoring.levels import Scores
from monai_unetpp.pruning.scoring.prediction import predict_case
from monai_unetpp.pruning.summary import WorstCase, losses_of_cases

logger = logging.getLogger(__name__)


def save_worst_cases(
    folder: Path,
    pipeline: EvaluatedNetwork,
    chosen: str,
    scores: Sequence[Scores],
    networks: Mapping[tuple[str, str], NestedUNet] | None = None,
    most: int = 4,
    ignore_labels: Mapping[str, int | None] | None = None,
) -> tuple[str, ...]:
    """Draw the worst cases of a level into ``folder/overlays``, in a folder for each data set.

    A picture that cannot be written is the last: the first one is always that of the worst case.

    Args:
        folder: folder of the report.
        pipeline: the network and how it segments.
        chosen: the level to show beside the deepest one.
        scores: of all data sets.
        networks: by data set and case, the network that scored it instead of that of the pipeline.
        most: how many are drawn.
        ignore_labels: by data set, the label value that is not scored, if any.

    Returns:
        Paths relative to ``folder``, the worst case first.
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
    maps = predict_case(
        pipeline.network,
        case,
        preprocessing=pipeline.preprocessing,
        inferer=pipeline.inferer,
        postprocessing=pipeline.postprocessing,
        levels=list(levels),
        device=pipeline.device,
    )
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
