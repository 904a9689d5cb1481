"""Write the pruned bundle: a copy of its source with the network and weights of one level."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import os
import re
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from monai_unetpp.bundles import (
    WEIGHTS_FILE,
    check_bundle,
    hash_file,
    load_network,
    read_metadata,
    read_network_def,
    weights_entry,
)
from monai_unetpp.bundles.json_files import METADATA_FILE, read_object
from monai_unetpp.bundles.training_record import find_training_record, put_training_record
from monai_unetpp.errors import counted
from monai_unetpp.files import (
    make_writable,
    naming_full_disk,
    put_in_place,
    remove_leftovers,
    temporary_folder,
    write_json,
)
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.size import count_parameters
from monai_unetpp.metrics import GUARDED, METRICS
from monai_unetpp.networks import NestedUNet
from monai_unetpp.networks.config import NestedUNetConfig
from monai_unetpp.plain_values import to_plain
from monai_unetpp.pruning.cost import check_pruned_networks
from monai_unetpp.pruning.pairing import PairedScores
from monai_unetpp.pruning.report.opening import OF_OTHER_NETWORKS, out_of_fold_sentences
from monai_unetpp.pruning.results import Decision, Exposure, PointCost, PruningResult
from monai_unetpp.pruning.rules import Margin
from monai_unetpp.pruning.summary import judged_rows, verdict
from monai_unetpp.pruning.wording import data_set_in_words, format_difference, format_metric
from monai_unetpp.reporting.markdown import code, escape, format_table

logger = logging.getLogger(__name__)

#: The parts of a bundle. Other files in its folder (data, outputs, exports of the full network) are not copied.
_PARTS = ("LICENSE", "configs", "docs", "scripts")
_NEEDED = ("LICENSE", METADATA_FILE, "configs/inference.json", "docs/README.md", "models/model.pt")


@dataclasses.dataclass(frozen=True)
class _Accuracy:
    """Mean of a metric of one label at the deepest level and at the level to keep."""

    metric: str
    label: str
    deepest: float
    level: float
    cases: int
    lower_bound: float | None = None
    margin: float | None = None


def write_pruned_bundle(
    source_bundle: str | PathLike[str],
    level: str,
    target: str | PathLike[str],
    *,
    decision: Decision | None = None,
    result: PruningResult | None = None,
    inference: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a bundle with one level of another bundle's network, and nothing that the level does not need.

    Configurations define the pruned network; metadata and README name its source and the verdict. The new bundle is
    built beside ``target`` and moved there only if it passes :func:`monai_unetpp.bundles.check_bundle` and reproduces
    the level's output exactly: a failure leaves nothing behind.

    Args:
        source_bundle: folder of the bundle to prune.
        level: the level to keep, such as ``"L2"``.
        target: folder of the new bundle.
        decision: the verdict; by default the final decision of ``result``.
        result: of the pruning evaluator, for the table of accuracy and cost.
        inference: values such as ``{"precision": "fp32", "flips": [0]}`` with which the level was evaluated; they
            replace those at the top of ``inference.json`` and ``evaluate.json``.
        overwrite: whether ``target`` may be replaced, if it is a bundle.

    Returns:
        The absolute path of the new bundle.

    Raises:
        FileExistsError: ``target`` exists and may not be replaced.
        FileNotFoundError: the source lacks a required file.
        PermissionError: ``target`` cannot be written to.
        ValueError: an unknown level, a source that cannot be pruned, or a pruned bundle that fails the checks.
        RuntimeError: the pruned network does not give the level's output.
    """
    source, target = Path(source_bundle).resolve(), Path(target).resolve()
    _check_folders(source, target, overwrite)
    if decision is None and result is not None:
        decision = verdict(result)
    full = load_network(source / WEIGHTS_FILE, network_def=read_network_def(source))
    if result is not None:
        _check_result(result, full, level)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent)
    with naming_full_disk(target), temporary_folder(target.parent) as temporary:
        new = temporary / "new" / target.name
        _build(source, new, full, level, decision, result, inference or {})
        _check_written(source, new, full, level)
        put_in_place(new, target, temporary)
    logger.info("Wrote %s: level %s of %s.", target, level, source)
    return target


def _build(
    source: Path,
    new: Path,
    full: NestedUNet,
    level: str,
    decision: Decision | None,
    result: PruningResult | None,
    inference: Mapping[str, Any],
) -> None:
    """Build the pruned bundle in the folder ``new``, without checks."""
    pruned = full.prune(level).eval()
    origin = _origin(source, level, decision, result)
    accuracy = _accuracy(level, decision, result)
    _copy_parts(source, new)
    (new / "models").mkdir()
    torch.save(pruned.state_dict(), new / WEIGHTS_FILE)
    _rewrite_configs(new / "configs", pruned.config, inference)
    _rewrite_metadata(new / METADATA_FILE, origin, accuracy)
    record = find_training_record(source / WEIGHTS_FILE)
    if record is not None:
        put_training_record(new, record)
    sizes = tuple((bundle / WEIGHTS_FILE).stat().st_size for bundle in (source, new))
    text = _readme_section(origin, decision, accuracy, result, (full, pruned), sizes)
    readme = new / "docs" / "README.md"
    readme.write_text(text + readme.read_text(encoding="utf-8"), encoding="utf-8")


def check_writable(source_bundle: str | PathLike[str], target: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse, before long work, what :func:`write_pruned_bundle` would refuse for any level."""
    source = Path(source_bundle).resolve()
    _check_folders(source, Path(target).resolve(), overwrite)
    problems = check_bundle(source, sizes=False)
    if problems:
        raise ValueError(
            f"{source}: the bundle that is pruned must pass the checks. Correct it first: " + " ".join(problems)
        )
    _version_parts(str(read_metadata(source).get("version", "")))


def _version_parts(version: str) -> re.Match[str]:
    parts = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version)
    if parts is None:
        raise ValueError(f"version of the bundle that is pruned must have the form 1.2.3, got {version!r}.")
    return parts


def _check_folders(source: Path, target: Path, overwrite: bool) -> None:
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such folder. source_bundle must be the folder of a bundle.")
    for name in _NEEDED:
        if not (source / name).is_file():
            raise FileNotFoundError(f"{source / name}: no such file. A bundle must have it.")
    if source == target or source in target.parents or target in source.parents:
        raise ValueError(f"target must lie outside of the bundle that is pruned, got {target}. Give another folder.")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target}: exists already. Give another folder, or set overwrite.")
    if target.exists() and not (target / METADATA_FILE).is_file():
        raise FileExistsError(f"{target}: is no bundle, so it is not replaced. Give another folder.")
    nearest = next(folder for folder in target.parents if folder.exists())
    for folder in filter(Path.exists, (nearest, target)):
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder}: is read-only, but the pruned bundle goes there. Give another folder.")


def _point_names(result: PruningResult) -> dict[str, str]:
    """Names of the embedded operating points by level, shallowest first."""
    return {point.level: point.name for point in result.points if point.kind == "embedded"}


def _check_result(result: PruningResult, full: NestedUNet, wanted: str) -> None:
    """Refuse a result of another network, as far as levels and numbers of parameters tell."""
    names, rule = _point_names(result), "result must be of the network that is pruned"
    if wanted not in names:
        raise ValueError(f"{rule}, got one without level {wanted}. It has {', '.join(names)}.")
    for level, name in names.items():
        cost, has = result.costs.get(name), count_parameters(full.prune(level)) if level in full.levels else 0
        if cost is not None and cost.parameters != has:
            told = f"{cost.parameters:,} parameters, not {has:,}"
            raise ValueError(f"{rule}, got one whose level {level} has {told}. Give the result of this bundle.")


def _copy_parts(source: Path, new: Path) -> None:
    new.mkdir(parents=True)
    unwanted = shutil.ignore_patterns(".*", "__pycache__")
    for part in _PARTS:
        path = source / part
        if path.is_dir():
            shutil.copytree(path, new / part, ignore=unwanted)
        elif path.is_file():
            shutil.copy2(path, new / part)
    make_writable(new)
    # it makes no sense with a single level
    (new / "configs" / "prune.json").unlink(missing_ok=True)


def _rewrite_configs(folder: Path, config: Mapping[str, Any], inference: Mapping[str, Any]) -> None:
    """Make every configuration define the pruned network, without a choice of level, run as it was evaluated."""
    required = {name: config[name] for name in ("spatial_dims", "in_channels", "out_channels")}
    defaults = NestedUNetConfig.check(**required).as_dict()
    contents = {path: read_object(path) for path in sorted(folder.glob("*.json"))}
    # evaluate.json is read on top of train.json, which provides its missing keys
    below: dict[str, dict[str, Any]] = {"inference.json": {}, "evaluate.json": contents.get(folder / "train.json", {})}
    for path, content in contents.items():
        changed = dict(content)
        defined = content.get("network_def")
        if isinstance(defined, dict):
            kept = {key: value for key, value in defined.items() if re.fullmatch("_.*_", key)}
            arguments = {name: value for name, value in config.items() if name in defined or value != defaults[name]}
            # what refers to a value of the file goes on doing so
            keys = {name: str(defined.get(name)).removeprefix("@") for name in arguments}
            keys = {name: key for name, key in keys.items() if defined.get(name) == f"@{key}" and key in content}
            changed |= {key: arguments[name] for name, key in keys.items()}
            changed["network_def"] = {**kept, **arguments, **{name: f"@{key}" for name, key in keys.items()}}
        # one level is left to choose
        changed |= {key: None for key in ("level", "adaptive_tolerance") if key in content}
        if path.name in below:
            known = {**content, **below[path.name]}
            changed |= {key: value for key, value in inference.items() if key in known}
        if changed != content:
            write_json(path, changed, indent=4, ensure_ascii=False)


def _origin(source: Path, level: str, decision: Decision | None, result: PruningResult | None) -> dict[str, Any]:
    """The source of the pruned bundle and the verdict, as plain values for its metadata."""
    metadata = read_metadata(source)
    origin: dict[str, Any] = {
        "name": source.name,
        "version": str(metadata.get("version", "")),
        "level": level,
        "sha256": hash_file(source / WEIGHTS_FILE),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "verdict": None,
    }
    if metadata.get("eval_metrics"):
        origin["eval_metrics"] = metadata["eval_metrics"]
    if decision is not None:
        told = ("verdict", "summary", "dataset", "role", "optimistic", "cases", "subjects")
        origin |= {name: getattr(decision, name) for name in told}
        used = dict.fromkeys(Margin(each.metric, each.margin, (each.label,)) for each in decision.comparisons)
        margins = list(used) if result is None else result.rules.margins
        origin |= {"verdict_level": decision.level, "margins": to_plain(margins)}
    if result is not None:
        origin["alpha"] = result.rules.alpha
    exposure = _exposure(decision, result)
    if exposure is not None:
        origin["out_of_fold"] = exposure.out_of_fold
    return origin


def _exposure(decision: Decision | None, result: PruningResult | None) -> Exposure | None:
    """Whether the cases of a decision took part in the weights; None if unknown."""
    if decision is None or result is None:
        return None
    asked = (decision.dataset, decision.role)
    return next((each for each in result.exposures or () if (each.dataset, each.role) == asked), None)


def _accuracy(level: str, decision: Decision | None, result: PruningResult | None) -> list[_Accuracy]:
    """By metric and label, what the verdict compared, else means over the cases that can distinguish both levels."""
    point = _point_names(result)[level] if result is not None else level
    compared = [
        _Accuracy(
            each.metric, each.label, each.mean_reference, each.mean_point, each.cases, each.lower_bound, each.margin
        )
        for each in (decision.comparisons if decision is not None else ())
        if each.point == point
    ]
    if compared or result is None:
        return compared
    deepest = list(_point_names(result).values())[-1]
    rows = [row for row in judged_rows(result, decision) if row.point in (deepest, point)]
    names = dict.fromkeys(row.dataset for row in rows)
    sets = [PairedScores.from_rows(rows, list(dict.fromkeys((deepest, point))), name) for name in names]
    means = []
    for metric in GUARDED:
        for label in result.labels:
            before, after = (_values(sets, name, label, metric, (point, deepest)) for name in (deepest, point))
            if before:
                means.append(_Accuracy(metric, label, statistics.fmean(before), statistics.fmean(after), len(after)))
    return means


def _values(sets: Sequence[PairedScores], name: str, label: str, metric: str, compared: tuple[str, str]) -> list[float]:
    """A metric of the point ``name`` on the cases that can distinguish two points, the same for both."""
    return [
        paired.value(name, label, case, metric) for paired in sets for case in paired.comparable_cases(label, *compared)
    ]


def _rewrite_metadata(path: Path, origin: Mapping[str, Any], accuracy: list[_Accuracy]) -> None:
    metadata = read_object(path)
    level, version = origin["level"], origin["version"]
    parts = _version_parts(version)
    metadata["version"] = f"{parts[1]}.{int(parts[2]) + 1}.0"
    entry = f"pruned to level {level}, cut out of {origin['name']} {version}"
    metadata["changelog"] = {metadata["version"]: entry, **metadata.get("changelog", {})}
    if "name" in metadata:
        metadata["name"] = f"{metadata['name'].rstrip('. ')} (pruned to level {level})"
    if "description" in metadata:
        metadata["description"] = f"Level {level}, cut out of this network: {metadata['description']}"
    metadata.pop("eval_metrics", None)
    if accuracy and not origin.get("out_of_fold"):
        metadata["eval_metrics"] = {f"{each.metric}_{each.label}": round(each.level, 4) for each in accuracy}
    # drop hashes of other files, which were not copied
    metadata |= weights_entry(path.parents[1])
    metadata["pruned_from"] = dict(origin)
    write_json(path, metadata, indent=4, ensure_ascii=False)


def _readme_section(
    origin: Mapping[str, Any],
    decision: Decision | None,
    accuracy: list[_Accuracy],
    result: PruningResult | None,
    networks: tuple[NestedUNet, NestedUNet],
    sizes: tuple[int, ...],
) -> str:
    level, deepest = origin["level"], networks[0].levels[-1]
    parameters = [count_parameters(network) for network in networks]
    parts = [
        f"# Pruned to level {level}",
        f"This bundle is level {level} of {code(origin['name'])} {origin['version']}, cut out on {origin['date']} "
        f"(SHA-256 of the full weights: `{origin['sha256']}`). Its output is exactly that of this level there, with "
        f"{parameters[1]:,} instead of {parameters[0]:,} parameters in a file of {_megabytes(sizes[1])} instead of "
        f"{_megabytes(sizes[0])}.",
        *_verdict_parts(level, decision, _exposure(decision, result)),
    ]
    if accuracy:
        parts += _accuracy_parts(level, deepest, accuracy)
    if result is not None:
        points = _point_names(result)
        costs = [result.costs.get(name) for name in (list(points.values())[-1], points[level])]
        if costs[0] is not None and costs[1] is not None:
            parts += _cost_parts(costs[0], costs[1], result)
    parts += [
        "It holds this one level, so `level` can be left out. The text below was written for the full bundle, and so "
        "were the plan and the curves of its training (`docs/plan.md`, `configs/plan.json` and others beside them, if "
        "there are any): their figures are those of the full network, and what they say about other levels and about "
        "pruning does not apply here.",
        "---",
        "",
    ]
    return "\n\n".join(parts)


def _verdict_parts(level: str, decision: Decision | None, exposure: Exposure | None) -> list[str]:
    if decision is None:
        return ["The level was chosen by hand, without the pruning evaluator's verdict."]
    parts = [
        f"Verdict on {counted(decision.cases, 'case')} ({escape(data_set_in_words(decision.dataset))}): "
        f"{escape(decision.summary)}"
    ]
    if decision.level != level:
        by_hand = f"The level was chosen by hand: the verdict was '{decision.verdict}' with level {decision.level}."
        parts.append(f"**{by_hand}**")
    if decision.optimistic and decision.role == "confirm":
        parts.append("These cases chose the weights, though not the level, so the figures are optimistic.")
    elif exposure is not None and exposure.out_of_fold:
        parts.append(f"**{OF_OTHER_NETWORKS}** {escape(' '.join(out_of_fold_sentences([exposure])))}")
    elif exposure is not None and exposure.selecting:
        parts.append(
            f"{exposure.selecting} of {counted(exposure.cases, 'case')} also chose the weights "
            f"({escape(exposure.rule)}), so the figures are optimistic."
        )
    return parts


def _accuracy_parts(level: str, deepest: str, accuracy: list[_Accuracy]) -> list[str]:
    # a verdict compares means in which every subject counts the same
    of_verdict = any(each.lower_bound is not None for each in accuracy)
    first = "Mean over subjects" if of_verdict else "Mean over cases"
    columns = [first, deepest, level, "Difference", "Lower bound", "Margin", "Cases"]
    rows = []
    for each in accuracy:
        better = METRICS[each.metric].larger_is_better
        difference = each.level - each.deepest if better else each.deepest - each.level
        bound = "-" if each.lower_bound is None else format_difference(each.metric, each.lower_bound)
        margin = "-" if each.margin is None else f"{each.margin:g}"
        means = [format_metric(each.metric, value) for value in (each.deepest, each.level)]
        name = f"{METRICS[each.metric].name}, {escape(each.label)}"
        rows.append([name, *means, format_difference(each.metric, difference), bound, margin, str(each.cases)])
    return [format_table(columns, rows), "Differences and bounds are signed so that negative is worse."]


def _cost_parts(deepest: PointCost, pruned: PointCost, result: PruningResult) -> list[str]:
    window, volume = ("x".join(map(str, shape)) for shape in (pruned.window_shape, pruned.volume_shape))
    rows: list[tuple[str, str, Callable[[Any], str]]] = [
        ("Parameters", "parameters", "{:,}".format),
        (f"Operations per window of {window}", "flops_per_window", lambda count: f"{count / 1e9:.3g} GFLOP"),
        ("File of weights", "checkpoint_bytes", _megabytes),
        (f"Time per window of {window}", "window_latency_s", lambda time: time.text(".3g", " s")),
        (f"Time per volume of {volume}", "volume_latency_s", lambda time: time.text(".3g", " s")),
        ("Peak memory per volume", "peak_memory_bytes", _megabytes),
    ]
    cells = []
    for name, attribute, show in rows:
        values = [getattr(cost, attribute) for cost in (deepest, pruned)]
        before, after = (value.median if isinstance(value, Quartiles) else value for value in values)
        cells.append([name, *map(show, values), f"{before / after:.1f} times" if after else "-"])
    parts = [format_table(["Cost", deepest.point, pruned.point, "Ratio"], cells)]
    where = result.environment
    if where is not None:
        parts.append(
            f"Measured on {where.device} with {counted(where.threads, 'thread')}, {where.precision}, {where.runtime}; "
            "times are medians with quartiles."
        )
    return parts


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB"


def _check_written(source: Path, new: Path, full: NestedUNet, level: str) -> None:
    problems = check_bundle(new, sizes=False)
    if problems:
        raise ValueError(
            f"{source}: its pruned bundle does not pass the checks. Correct the source first: " + " ".join(problems)
        )
    written = load_network(new / WEIGHTS_FILE)
    size = [max(32, smallest) for smallest in NestedUNetConfig.check(**full.config).smallest_size()]
    check = check_pruned_networks(full, {level: written}, size)[level]
    if not check.equal:
        raise RuntimeError(
            f"{source}: the pruned network does not give the output of level {level} (largest difference "
            f"{check.max_difference:g}). Nothing was written."
        )
