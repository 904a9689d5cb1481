"""One run of a study: train and score a network with the study's bundle and the values of this run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events

from monai_unetpp.bundles import BundleConfig
from monai_unetpp.metrics import FOREGROUND
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning import evaluate_levels
from monai_unetpp.study.accuracy_table import COMPARED, CaseMetrics
from monai_unetpp.study.costs import MeanOfHeads
from monai_unetpp.study.data_set import StudyCases
from monai_unetpp.study.design import StudySettings

_TOLERANCE_MM = 1.0  # of the surface Dice, which the scorer needs and the study ignores


def train_network(bundle: Path, values: Mapping[str, Any], tell: Callable[[str], None]) -> Any:
    """Train a network by the study's bundle, or continue an interrupted training.

    The weights after the last step are kept; none are selected. All networks with the same seed get the same patches.
    ``values`` are those of this run, by key of ``train.json``; at every checkpoint, step and loss are told.

    Returns:
        The prepared training cases, which the next run may use as ``train#cases``; None if it was already complete.
    """
    folder = Path(values["output_dir"])
    if (folder / "model.pt").is_file():
        return None
    config = BundleConfig(bundle, "train.json", values=values)
    config.parse("initialize")
    config.parse("data_check")
    trainer, curve = config.parse("train#trainer"), config.parse("train#curve")

    def tell_step() -> None:
        loss = curve.recent_loss(trainer.state.epoch_length)
        tell(f"step {trainer.state.iteration} of {config.parse('steps')}, loss {loss:.4f}")

    trainer.add_event_handler(Events.EPOCH_COMPLETED, tell_step)
    config.run()
    for path in folder.glob("checkpoint_*.pt"):
        path.unlink()
    return config.parse("train#cases")


def score_network(
    bundle: Path,
    values: Mapping[str, Any],
    levels: Sequence[str],
    cases: StudyCases,
    settings: StudySettings,
) -> tuple[NestedUNet, dict[str, CaseMetrics]]:
    """The trained network, and by level IoU and Dice of every validation case and foreground class.

    They are on the grid of the label file, by the rules of :data:`monai_unetpp.metrics.RULES`. One of the ``levels``
    may be :data:`~monai_unetpp.study.variants.MEAN_OF_HEADS`; ``values`` are those of the training.
    """
    folder = Path(values["output_dir"])
    scored = {**values, "checkpoint": folder / "model.pt"}
    config = BundleConfig(bundle, "train.json", "evaluate.json", values=scored)
    network: NestedUNet = config.parse("network")
    scores = evaluate_levels(
        MeanOfHeads(network),
        cases.validation,
        preprocessing=config.parse("preprocessing"),
        inferer=config.parse("validate#inferer"),
        postprocessing=config.parse("postprocessing"),
        labels=cases.labels,
        tolerance_mm=dict.fromkeys(cases.labels, _TOLERANCE_MM),
        ignore_label=cases.ignore_label,
        levels=levels,
        device=torch.device(values["device"]),
        configuration=json.dumps({**settings.as_dict(), "cases": cases.as_dict()}),
        store=folder / "cases",
    )
    by_level: dict[str, CaseMetrics] = {level: {} for level in levels}
    for row in scores.rows:
        # the pooled foreground would count large structures twice
        if row.label != FOREGROUND or row.label in cases.labels:
            metrics: dict[str, float | None] = {name: getattr(row.score, name) for name in COMPARED}
            by_level[row.point].setdefault(row.case, {})[row.label] = metrics
    shutil.rmtree(folder / "cases", ignore_errors=True)
    return network, by_level
