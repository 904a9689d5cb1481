"""The weights that a training starts from: whose they are, and which parts of a planned network take them."""

from __future__ import annotations

import dataclasses
import os
from os import PathLike
from pathlib import Path

import torch

from monai_unetpp.bundles import WEIGHTS_FILE, find_bundle, read_network_def, read_network_names
from monai_unetpp.choices import NORMS
from monai_unetpp.data.datasets.network_names import check_channel_order
from monai_unetpp.networks import NestedUNet
from monai_unetpp.networks.checkpoint import read_checkpoint
from monai_unetpp.networks.transfer import compare_weights, shapes_in_weights, shaping_arguments
from monai_unetpp.networks.transferred import Transfer
from monai_unetpp.planning.network_rules import Source
from monai_unetpp.planning.training_plan import TrainingPlan


def find_start(init: str | PathLike[str]) -> Path:
    """The file of weights, or the folder of the bundle, that ``init`` names; a ``FileNotFoundError`` without either."""
    return Path(init).resolve() if Path(init).is_file() else find_bundle(init)


def read_source(init: str | PathLike[str]) -> Source | None:
    """The network of the weights in a bundle or checkpoint, as the file says or as their shapes tell; None if neither.

    A file without weights is a ``ValueError``.
    """
    path = find_start(init)
    file = path / WEIGHTS_FILE if path.is_dir() else path
    weights, config = read_checkpoint(file)
    if config is None and path.is_dir():
        config = read_network_def(path)
    try:
        found = shapes_in_weights(weights) if config is None else shaping_arguments(config)
    except (TypeError, ValueError) as e:
        raise ValueError(f"{file}: {e}") from e
    if found is None:
        return None
    values = {name: found[name] for name in ("spatial_dims", "features", "strides", "kernel_size")}
    return Source(path.name, **values, norm=found["norm"] if found["norm"] in NORMS else None)


def compare_start(plan: TrainingPlan, init: str | PathLike[str]) -> Transfer:
    """Which parts of the planned network start from the weights that ``init`` names.

    None that fit, or those of a bundle for channels in another order, are a ``ValueError``.
    """
    shape = {name: plan[name] for name in ("features", "strides", "kernel_size", "norm")}
    with torch.device("meta"):
        network = NestedUNet(plan.spatial_dims, len(plan.channels), plan.out_channels, **shape)
    path = find_start(init)
    if path.is_dir():
        check_channel_order(Path(plan.dataset_dir) / "dataset.json", plan.channels, read_network_names(path))
    # a bundle that is found by its name is found so on other machines too
    source = os.path.abspath(init) if os.path.exists(init) else path.name
    return dataclasses.replace(compare_weights(network, path), source=source)
