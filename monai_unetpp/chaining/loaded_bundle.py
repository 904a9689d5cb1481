"""A bundle that is ready to segment: its evaluator, set up by the options, and its labels."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from os import fspath
from pathlib import Path
from typing import Any

from monai_unetpp.bundles import BundleConfig, label_names
from monai_unetpp.data.datasets.cases import expand_home
from monai_unetpp.devices import resolve_device
from monai_unetpp.distributed import own_device
from monai_unetpp.engines import CaseEvaluator
from monai_unetpp.guard import CaseGuard, find_guard
from monai_unetpp.inferers.predictors.adaptive import check_several_levels
from monai_unetpp.networks import NestedUNet
from monai_unetpp.results import RunInputs
from monai_unetpp.segmentation_options import SegmentationOptions
from monai_unetpp.topology import level_index


@dataclasses.dataclass(frozen=True)
class LoadedBundle:
    """A bundle with its network loaded.

    Attributes:
        folder: its folder.
        labels: the labels that it finds, name by value.
        evaluator: the evaluator of its ``inference.json``.
        network: the network of the evaluator.
        guard: compares images with its training cases; None if these are not described.
    """

    folder: Path
    labels: dict[int, str]
    evaluator: CaseEvaluator
    network: NestedUNet
    guard: CaseGuard | None

    @classmethod
    def load(
        cls,
        folder: Path,
        chosen: SegmentationOptions,
        inputs: RunInputs,
        settings: Mapping[str, Any],
        is_second: bool = False,
    ) -> LoadedBundle:
        """Load a bundle.

        Args:
            folder: folder of the bundle.
            chosen: the user's options.
            inputs: the images of the run.
            settings: values to set in ``inference.json``, by key.
            is_second: whether another bundle takes the cases, and this one gets crops of them.

        Raises:
            FileNotFoundError: none of the inputs exists, or a file of the bundle is missing.
            ValueError: the bundle lacks a setting, or is of another kind.
        """
        labels = label_names(folder)
        config = BundleConfig(folder, "inference.json")
        if not any(os.path.lexists(expand_home(path)) for path in chosen.paths):
            raise FileNotFoundError(f"{', '.join(chosen.paths)}: no such file or folder. Check the path.")
        config["output_dir"], config["input"] = fspath(inputs.output_dir), inputs.paths
        if is_second and "dataset#data" in config:
            config["dataset#data"] = []
        if chosen.device is not None:
            config["device"] = own_device(resolve_device(chosen.device))
        elif "LOCAL_RANK" in os.environ:
            config["device"] = own_device()
        config.change(settings)
        if "level" in settings:
            level_index(settings["level"], _check_network(config, "network_def", config.parse("network_def")).levels)
        evaluator = _check_evaluator(config)
        evaluator.profile = chosen.profile
        network = _check_network(config, "network", evaluator.network)
        if settings.get("adaptive_tolerance") is not None:
            check_several_levels(network.levels)
        guard = find_guard(folder, getattr(evaluator.inferer, "slice_axis", None))
        return cls(folder, labels, evaluator, network, guard)

    @property
    def transform(self) -> Any:
        """The transform that prepares its images."""
        return getattr(getattr(self.evaluator.data_loader, "dataset", None), "transform", None)


def _check_evaluator(config: BundleConfig) -> CaseEvaluator:
    evaluator = config.parse("evaluator")
    if not isinstance(evaluator, CaseEvaluator):
        raise ValueError(
            f"{config}: the evaluator must be monai_unetpp.engines.CaseEvaluator, got {type(evaluator).__name__}. "
            "Run this bundle with python -m monai.bundle run."
        )
    if not evaluator.has_postprocessing:
        raise ValueError(f"{config}: the evaluator must have postprocessing that writes results, got none. Add it.")
    return evaluator


def _check_network(config: BundleConfig, key: str, network: Any) -> NestedUNet:
    if not isinstance(network, NestedUNet):
        raise ValueError(f"{config}: {key} must be a monai_unetpp.NestedUNet, got {type(network).__name__}.")
    return network
