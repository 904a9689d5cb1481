"""What is refused before the first case is scored, so that nothing stops a run at its end."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from monai_unetpp.bundles import load_network, read_network_def
from monai_unetpp.data.case_check import CheckedCase, check_case
from monai_unetpp.data.check import tell_shared_images
from monai_unetpp.data.labelled import LabelledCase, list_cases, repeated_names
from monai_unetpp.distributed import rank
from monai_unetpp.metrics.scores import scored_labels
from monai_unetpp.networks import NestedUNet
from monai_unetpp.pruning.inference import check_inference
from monai_unetpp.pruning.plan import EvaluatedNetwork, Outputs, PruningPlan
from monai_unetpp.pruning.write import check_writable

__all__ = ["check_data_sets", "check_plan", "check_write", "load_further"]


def check_plan(plan: PruningPlan) -> None:
    """Refuse a network without levels, margins for unknown labels, and missing packages.

    Raises:
        TypeError: no ``NestedUNet``.
        ValueError: one with a single level, or margins for other labels.
        ImportError: what draws the report is not installed.
    """
    _check_network(plan.pipeline.network)
    plan.rules.check_labels(scored_labels(plan.pipeline.labels))
    _check_report()


def check_write(pipeline: EvaluatedNetwork, outputs: Outputs) -> dict[str, Any]:
    """Refuse what could not be written at the end, and say with what values the new bundle must segment.

    Raises:
        ValueError: no bundle to cut the pruned one out of, or one that segments in another way than is evaluated.
        FileExistsError: the target exists and may not be replaced.
    """
    target, bundle = outputs.write, pipeline.bundle
    if target is None:
        return {}
    if bundle is None:
        raise ValueError(
            "bundle must name the bundle to prune when write is given. Pass bundle=..., or leave write out."
        )
    if target.exists() and not outputs.overwrite:
        raise FileExistsError(f"write must not exist yet, got {target}. Give another folder, or set overwrite.")
    folder = outputs.output_dir.resolve()
    if target.resolve() in (folder, *folder.parents):
        raise ValueError(
            f"write must not hold output_dir, got {target} around {outputs.output_dir}. Give another folder."
        )
    check_writable(bundle, target, overwrite=outputs.overwrite)
    weights = Path(bundle) / "models" / "model.pt"
    own = load_network(weights, network_def=read_network_def(bundle)).state_dict()
    evaluated = pipeline.network.state_dict()
    if own.keys() != evaluated.keys() or any(not torch.equal(own[key], evaluated[key].cpu()) for key in own):
        raise ValueError(
            f"write must be left out where the evaluated weights are not the bundle's own, got others than {weights}, "
            "which the pruned bundle would be cut out of. Copy the checkpoint there, or leave write out."
        )
    return check_inference(bundle, pipeline.inferer, pipeline.device)


def check_data_sets(
    plan: PruningPlan, entries: Mapping[str, Sequence[Mapping[str, Any]]], ignore_labels: Mapping[str, int | None]
) -> None:
    """Check every data set before the first is scored, and tell which images are in several of them.

    ``evaluate_levels`` checks its own data set only.

    Raises:
        ValueError: cases with problems, all named, unless the plan leaves them out.
    """
    if len(entries) < 2:
        return
    network, values = plan.pipeline.network, list(plan.pipeline.labels.values())
    problems = []
    sound: dict[str, dict[LabelledCase, CheckedCase]] = {}
    for dataset, listed in entries.items():
        cases = list_cases(listed, plan.data.subjects, plan.data.subject_pattern)
        ignored = ignore_labels[dataset]
        allowed = values if ignored is None else [*values, ignored]
        reasons = dict.fromkeys(repeated_names(cases), "names of cases must differ. Rename the files.")
        checked = {case: check_case(case, allowed, network.spatial_dims, network.in_channels) for case in cases}
        for case, outcome in checked.items():
            if outcome.problem is not None:
                reasons.setdefault(case.name, outcome.problem)
        sound[dataset] = {case: outcome for case, outcome in checked.items() if case.name not in reasons}
        problems += [f"- {dataset}, {name}: {reason}" for name, reason in reasons.items()]
    if problems and not plan.data.exclude_problems:
        raise ValueError(
            f"cases of all data sets must be sound, got {len(problems)} with a problem:\n" + "\n".join(problems) + "\n"
            "Correct them, or set exclude_problems to leave them out."
        )
    if rank() == 0:
        tell_shared_images(sound)


def load_further(pipeline: EvaluatedNetwork) -> dict[str, NestedUNet]:
    """The deepest level of each further checkpoint, which is what is scored and measured.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a network for other images or labels.
    """
    return {name: _load(name, path, pipeline) for name, path in pipeline.extra.items()}


def _load(name: str, path: str | PathLike[str], pipeline: EvaluatedNetwork) -> NestedUNet:
    evaluated = pipeline.network
    network = load_network(path)
    for key in ("spatial_dims", "in_channels", "out_channels"):
        if network.config[key] != evaluated.config[key]:
            raise ValueError(
                f"extra must have the {key} of the network, {evaluated.config[key]}, got {network.config[key]} for "
                f"{name!r} ({path}). It can only be compared on the same images and labels."
            )
    return network.prune(network.levels[-1]).eval().to(torch.device(pipeline.device))


def _check_network(network: NestedUNet) -> None:
    if not isinstance(network, NestedUNet):
        raise TypeError(
            f"network must be a NestedUNet, got {type(network).__name__}. Convert a BasicUNetPlusPlus with "
            "NestedUNet.from_basic_unetplusplus; evaluate_levels takes any network that returns a dict of levels."
        )
    if len(network.levels) < 2:
        raise ValueError(
            f"network must have two levels or more, got {', '.join(network.levels)} only. It cannot be pruned."
        )


def _check_report() -> None:
    """Refuse at the start what would otherwise stop the run at its end."""
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f'Reports need {" and ".join(missing)}: pip install "monai-unetpp[report]"')
