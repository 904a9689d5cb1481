"""Checks before the first case is scored, so that a run does not fail at its end."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from monai_unetpp.bundles import load_network, read_network_names
from monai_unetpp.data.datasets.case_check import CheckedCase, repeated_images, same_image
from monai_unetpp.data.datasets.label_names import find_label_names
from monai_unetpp.data.datasets.labelled import LabelledCase, list_cases
from monai_unetpp.data.datasets.network_names import check_channel_order, check_label_values, find_channel_names
from monai_unetpp.installing import install_command
from monai_unetpp.metrics.scores import scored_labels
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning.cost import checked_shape
from monai_unetpp.pruning.exposure import has_weights_of
from monai_unetpp.pruning.inference import check_inference
from monai_unetpp.pruning.plan import EvaluatedNetwork, Outputs, PruningPlan
from monai_unetpp.pruning.results import OperatingPoint
from monai_unetpp.pruning.scoring.levels import check_cases, refuse_problems
from monai_unetpp.pruning.write import check_writable


def check_plan(plan: PruningPlan) -> None:
    """Refuse a network without levels, margins for unknown labels, windows without a size, and missing packages."""
    network = plan.pipeline.network
    if not isinstance(network, NestedUNet):
        raise TypeError(
            f"network must be a NestedUNet, got {type(network).__name__}. Convert a BasicUNetPlusPlus with "
            "NestedUNet.from_basic_unetplusplus; evaluate_levels takes any network that returns a dict of levels."
        )
    if len(network.levels) < 2:
        raise ValueError(
            f"network must have two levels or more, got {', '.join(network.levels)} only. It cannot be pruned."
        )
    plan.rules.check_labels(scored_labels(plan.pipeline.labels))
    checked_shape("window_shape", plan.pipeline.window_shape, network.spatial_dims)
    check_report()


def check_report() -> None:
    """Refuse to start without the packages that the report needs at the end."""
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"Reports need {' and '.join(missing)}: {install_command('report')}")


def check_write(pipeline: EvaluatedNetwork, outputs: Outputs) -> dict[str, Any]:
    """Refuse what could not be written at the end, and return the values with which the new bundle must segment."""
    target, bundle = outputs.write, pipeline.bundle
    if target is None:
        return {}
    if bundle is None:
        raise ValueError(
            "bundle must name the bundle to prune when write is given. Pass bundle=..., or leave write out."
        )
    folder = outputs.output_dir.resolve()
    if target.resolve() in (folder, *folder.parents):
        raise ValueError(
            f"write must not hold output_dir, got {target} around {outputs.output_dir}. Give another folder."
        )
    check_writable(bundle, target, overwrite=outputs.overwrite)
    check_weights(pipeline)
    return check_inference(bundle, pipeline.inferer, pipeline.device)


def check_weights(pipeline: EvaluatedNetwork) -> None:
    """Refuse to cut a pruned bundle out of other weights than those that are evaluated."""
    bundle = pipeline.bundle
    if bundle is not None and not has_weights_of(pipeline.network, bundle):
        raise ValueError(
            f"write must be left out where the evaluated weights are not the bundle's own, got weights other than "
            f"{Path(bundle) / 'models' / 'model.pt'}, from which the pruned bundle would be cut. Copy the checkpoint "
            "there, or leave write out."
        )


def check_label_names(plan: PruningPlan) -> dict[str, int | None]:
    """By data set, the label value that is not scored, if any; names of labels with another value are refused."""
    labels = {label: [value] for label, value in plan.pipeline.labels.items()}
    ignored = {}
    for dataset, folder in zip(plan.data.names, plan.data.folders, strict=True):
        names = find_label_names(folder)
        check_label_values(folder / "dataset.json", names, labels)
        ignored[dataset] = None if names is None else names.ignore
    return ignored


def check_channel_names(plan: PruningPlan) -> None:
    """Refuse data sets with the channels of the bundle in another order."""
    if plan.pipeline.bundle is None:
        return
    names = read_network_names(plan.pipeline.bundle)
    for folder in plan.data.folders:
        check_channel_order(folder / "dataset.json", find_channel_names(folder), names)


def check_data_sets(
    plan: PruningPlan, entries: Mapping[str, Sequence[Mapping[str, Any]]], ignore_labels: Mapping[str, int | None]
) -> dict[str, dict[str, CheckedCase]]:
    """What is found about each case, by data set and name, before the first is scored.

    A repeated image would count as another subject, so its later occurrence is a problem. Problems are refused here for
    several data sets, unless the plan leaves them out, and for a single one by ``evaluate_levels``.
    """
    cases = {dataset: list_cases(listed) for dataset, listed in entries.items()}
    files = {(dataset, case.name): str(case.image[0]) for dataset, listed in cases.items() for case in listed}
    found = {
        (dataset, name): each
        for dataset, listed in cases.items()
        for name, each in _check_cases(plan, listed, ignore_labels[dataset]).items()
    }
    found |= {
        case: dataclasses.replace(
            each, problem=same_image(files[case], each, f"{files[first]} ({first[0]})", found[first])
        )
        for case, first in repeated_images(found).items()
        for each in [found[case]]
    }
    checked = {dataset: {name: each for (of, name), each in found.items() if of == dataset} for dataset in entries}
    if len(entries) > 1 and not plan.data.exclude_problems:
        refuse_problems(checked, "of all data sets", "or set exclude_problems (--exclude_problems) to leave them out.")
    return checked


def check_training(
    plan: PruningPlan, entries: Mapping[str, Sequence[Mapping[str, Any]]], ignore_labels: Mapping[str, int | None]
) -> dict[str, dict[str, CheckedCase]]:
    """Check the cases of the training lists like those of :func:`check_data_sets`; an image may be repeated there."""
    checked = {
        dataset: _check_cases(plan, list_cases(listed), ignore_labels[dataset]) for dataset, listed in entries.items()
    }
    none_left = any(all(each.problem for each in cases.values()) for cases in checked.values())
    if none_left or not plan.data.exclude_problems:
        remedy = "." if none_left else ", or set exclude_problems (--exclude_problems) to leave them out."
        refuse_problems(checked, f"of the training_list {plan.data.training_list!r}", f"leave out the list{remedy}")
    return checked


def _check_cases(plan: PruningPlan, cases: Sequence[LabelledCase], ignored: int | None) -> dict[str, CheckedCase]:
    network, values = plan.pipeline.network, list(plan.pipeline.labels.values())
    allowed = values if ignored is None else [*values, ignored]
    return check_cases(cases, allowed, network.spatial_dims, network.in_channels)


def load_extra(pipeline: EvaluatedNetwork) -> dict[OperatingPoint, NestedUNet]:
    """The deepest level of each further checkpoint, to be scored and measured."""
    evaluated, extra = pipeline.network, {}
    for name, path in pipeline.extra.items():
        network = load_network(path)
        for key in ("spatial_dims", "in_channels", "out_channels"):
            if network.config[key] != evaluated.config[key]:
                raise ValueError(
                    f"extra must have the {key} of the network, {evaluated.config[key]}, got {network.config[key]} for "
                    f"{name!r} ({path}). It can only be compared on the same images and labels."
                )
        deepest = network.levels[-1]
        point = OperatingPoint(name, deepest, "extra", Path(path).name)
        extra[point] = network.prune(deepest).eval().to(torch.device(pipeline.device))
    return extra
