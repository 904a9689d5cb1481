"""The documents of a planned bundle: its plan, its README before and after training, and its metadata."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
from collections import Counter
from importlib import metadata as installed
from os import PathLike
from pathlib import Path
from string import Template

from monai_unetpp.bundles.json_files import read_object
from monai_unetpp.data.transforms.image_kinds import Kind, weigh_kinds
from monai_unetpp.errors import counted
from monai_unetpp.files import write_text
from monai_unetpp.guard import FINGERPRINT_FILE
from monai_unetpp.planning.data_rules import find_kinds, hidden_labels, is_anisotropic
from monai_unetpp.planning.fingerprint import Fingerprint
from monai_unetpp.planning.training_plan import TrainingPlan, in_words, load_plan
from monai_unetpp.planning.transforms import tells_objects
from monai_unetpp.reporting.markdown import code, escape, format_table
from monai_unetpp.reporting.numbers import percent
from monai_unetpp.version import __version__

_TEMPLATE = Path(__file__).with_name("template")
#: Share of a label's voxels in the constant surround below which it is not told.
_HARDLY_ANY = 0.001
#: Kinds of images of which each is told, the most frequent ones.
_MOST_KINDS = 12
#: Strings that start with one of these have a meaning for MONAI, also in metadata.
_SIGNS = ("$", "@", "%")
#: What each normalisation does, for one that was set by hand.
_NORMALIZED = {
    "range": "All images are clipped to the same intensities and standardised by the same numbers.",
    "volume": "Each image is normalised to mean 0 and deviation 1.",
    "unit": "Each image is scaled to 0 to 1.",
    "inside": "Each image is normalised to mean 0 and deviation 1 inside its constant surround.",
}
#: What a switch that was set by hand does, where its reason is only that.
_SWITCHED_ON = {
    "crop_background": "A constant surround is set to 0, cropped away, and background in the result.",
    "invert_bright_background": "Images with a bright background are inverted, so that all look alike.",
}
#: What becomes of the colours of pictures, by the number of channels.
_COLOURS = {
    1: "Colours of pictures, where there are any, are averaged to one channel.",
    3: "Colours of pictures are three channels, where a case is a single picture.",
}
#: What every README says of the licence, below the properties of the data, to be filled in.
_LICENCE = (
    "**Licence of the data:** to be filled in, here and in `data_license.txt`. Its terms apply to the weights as well."
)
_OBJECTS = (
    " With `--instances` (`--instances True` with\n`python -m monai.bundle run`) each object has a number of its own: "
    "connected components, those that touch split by a\nwatershed on the distance to the border, those of fewer than "
    "`min_instance_size` pixels removed; in volumes, also across slices."
)
_RUN_TRAIN = "run `monai-unetpp train` with the same data and folder."
_NOT_TRAINED = f"The network has not been trained yet: {_RUN_TRAIN}"
_NOT_COMPARED = f"The levels have not been compared yet: {_RUN_TRAIN}"


def plan_text(plan: TrainingPlan, fingerprint: Fingerprint) -> str:
    """The plan as Markdown: the properties of the data, and every value with its reason."""
    rows = [
        [code(name), escape(value), escape(reason), escape(source), by_hand]
        for name, value, reason, source, by_hand in plan.rows()
    ]
    return _filled(
        "plan.md",
        name=escape(plan.name),
        version=plan.version,
        folds=f"{plan.folds} networks for cross-fitting and " if plan.folds else "",
        minutes=f"{plan.minutes:g}",
        machine=plan.machine,
        by_hand=", ".join(map(code, plan.by_hand)) or "nothing",
        data=_data_text(plan, fingerprint),
        start=_start_text(plan),
        table=format_table(["value", "is", "reason", "source", "by hand?"], rows, [False] * 5),
    )


def _filled(document: str, **texts: str) -> str:
    """A document of the template with its gaps filled in."""
    return Template((_TEMPLATE / "docs" / document).read_text(encoding="utf-8")).substitute(texts)


def _start_text(plan: TrainingPlan) -> str:
    """Which parts of the network start from other weights, as a section; empty where none do."""
    start = plan.start
    if start is None:
        return ""
    count = len(start.taken) + len(start.averaged)
    parts = {
        "Taken": start.taken,
        "Taken, with the first layer as the mean over its channels": start.averaged,
        "New, with random weights": start.fresh,
    }
    listed = "\n".join(f"- {title}: {', '.join(map(code, names))}." for title, names in parts.items() if names)
    return f"""
## The weights to start from

The training starts from {code(os.path.basename(start.source))}: {count} of {count + len(start.fresh)} nodes and heads,
with {start.weights:,} of {start.all_weights:,} weights. `python -m monai.bundle run` needs `--init` with its path.

{listed}
"""


def _init_text(plan: TrainingPlan) -> str:
    """What MONAI's training command needs to start from the same weights; empty where the plan names none."""
    if plan.start is None:
        return ""
    return (
        f" The plan starts from the weights\nof {code(os.path.basename(plan.start.source))}: give their path as "
        "`--init WEIGHTS`, here and in several processes; else random ones are\ntaken."
    )


def _data_text(plan: TrainingPlan, fingerprint: Fingerprint) -> str:
    """The properties of the data, as a Markdown list."""
    cases = fingerprint.cases
    subjects = len({case.subject for case in cases})
    channels = ", ".join(escape(name) for name in plan.channels)
    surround = statistics.fmean(case.constant_surround for case in cases)
    colours = _COLOURS.get(len(plan.channels)) if plan.spatial_dims == 2 else None
    lines = [
        f"{counted(len(cases), 'training case')} of {counted(subjects, 'subject')}{_told_by(plan)} in "
        f"{code(os.path.basename(plan.dataset_dir))}, "
        f"{plan.spatial_dims}D, {counted(len(plan.channels), 'channel')} ({channels}), modality: {plan.modality}.",
        f"Sizes: {_range_text([case.shape for case in cases])} voxels, median {_joined(fingerprint.median_shape)}.",
        _voxels_text(fingerprint),
        *([colours] if colours else []),
        *_kinds_text(plan, fingerprint),
        f"{percent(surround)} of the cases have a constant value around their content{_hidden_text(fingerprint)}.",
        f"Validation: {plan.validation}, "
        f"{'trained on too, and in these figures' if plan.folds else 'not used for planning or training'}.",
        f"Labels: {_labels_text(plan, fingerprint)}.{_ignored_text(plan, fingerprint)}",
    ]
    for name, channel in zip(plan.channels, fingerprint.intensity, strict=True):
        whole = channel.whole
        lines.append(
            f"Intensities of {escape(name)}: mean {whole.mean:.4g}, standard deviation {whole.sd:.4g}, 0.5th to 99.5th "
            f"percentile {whole.p0_5:.4g} to {whole.p99_5:.4g}."
        )
    return "\n".join(f"- {line}" for line in lines)


def _voxels_text(fingerprint: Fingerprint) -> str:
    spacings = [case.spacing_mm for case in fingerprint.cases]
    if fingerprint.spatial_dims == 2 and {edge for spacing in spacings for edge in spacing} == {1.0}:
        return "Pixel sizes: 1 mm, or unknown, as in pictures, whose pixels count as 1 mm in all lengths below."
    return f"Voxel sizes: {_range_text(spacings)} mm, median {_joined(fingerprint.median_spacing_mm)} mm."


def _kinds_text(plan: TrainingPlan, fingerprint: Fingerprint) -> list[str]:
    """How many cases each kind of image has, and how often these are drawn; nothing where there is one kind."""
    kinds = find_kinds(fingerprint)
    times = weigh_kinds(kinds, most=plan["rare_kind_factor"])
    if plan.spatial_dims == 3 or len(times) == 1:
        return []
    counts, usual = Counter(kinds), next(iter(times.values()))
    parts = []
    for kind, often in list(times.items())[:_MOST_KINDS]:
        drawn = f", each drawn {often / usual:.2g} times as often" if often > usual else ""
        parts.append(f"{_kind_text(kind)} ({counted(counts[kind], 'case')}{drawn})")
    if len(times) > _MOST_KINDS:
        rest = list(times)[_MOST_KINDS:]
        parts.append(f"{counted(len(rest), 'rarer kind')} ({counted(sum(counts[kind] for kind in rest), 'case')})")
    return [f"{counted(len(times), 'kind')} of images: {'; '.join(parts)}."]


def _kind_text(kind: Kind) -> str:
    shape, background = kind
    size = "" if shape is None else f"{_joined(shape)} pixels"
    return ", ".join(filter(None, (size, "" if background is None else f"{background} background")))


def _hidden_text(fingerprint: Fingerprint) -> str:
    """The labels with voxels in the surround; empty where there are hardly any."""
    parts = [
        f"{percent(share, '.1f')} of {escape(name)}" for name, share in hidden_labels(fingerprint, _HARDLY_ANY).items()
    ]
    return f"; in it lie {', '.join(parts)}" if parts else ""


def _told_by(plan: TrainingPlan) -> str:
    """What told the subjects, where that was given."""
    if plan.subjects is not None:
        return f" (by {code(os.path.basename(plan.subjects))})"
    return "" if plan.subject_pattern is None else f" (by {code(plan.subject_pattern)})"


def _labels_text(plan: TrainingPlan, fingerprint: Fingerprint) -> str:
    parts = []
    total = sum(sum(case.voxels.values()) for case in fingerprint.cases) or 1
    for name in plan.label_names:
        counts = [case.voxels.get(name, 0) for case in fingerprint.cases]
        missing = sum(not count for count in counts)
        lacking = f", in {len(counts) - missing} of {len(counts)} cases" if missing else ""
        share = sum(counts) / total
        parts.append(f"{plan.labels[name]} {escape(name)} ({percent(share, '.1f')} of the labelled voxels{lacking})")
    return "; ".join(parts)


def _ignored_text(plan: TrainingPlan, fingerprint: Fingerprint) -> str:
    """How many voxels nobody labelled, and what is unknown where there are some; empty if no label tells."""
    if plan.ignore_label is None:
        return ""
    text = f" Voxels with the label {plan.ignore_label} are ignored"
    cases = fingerprint.cases
    partial = [case for case in cases if case.ignored]
    if not partial:
        return f"{text}."
    share = sum(case.ignored for case in partial) / sum(math.prod(case.shape) for case in cases)
    compared = "results with the others only" if len(partial) < len(cases) else "no sizes of results with them"
    return (
        f"{text}: {percent(share, '.3g')} of all, in {len(partial)} of {counted(len(cases), 'case')}. The sizes of "
        f"labels in these cases are unknown, so `segment` compares {compared}."
    )


def _range_text(rows: list[tuple[float, ...]]) -> str:
    """The range along each axis, such as ``31-43 x 40-59``."""
    parts = []
    for values in zip(*rows, strict=True):
        low, high = min(values), max(values)
        parts.append(f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}")
    return " x ".join(parts)


def _joined(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _preprocessing_text(plan: TrainingPlan) -> str:
    """The preprocessing of an image with reasons, as a Markdown list."""
    oriented = plan.spatial_dims == 3 and plan["orientation"] is not None
    lines = [f"Orientation to {plan['orientation']}, so that axes mean the same in all files."] if oriented else []
    if plan.spatial_dims == 3 and not oriented:
        thick = is_anisotropic(plan["spacing_mm"])
        along = "" if thick is None else f", with thick slices along axis {thick} (from 0)"
        lines.append(f"Volumes are taken as they are stored: they must be stored like those of the training{along}.")
    spacing = plan["spacing_mm"]
    if spacing is not None:
        reason = "" if "spacing_mm" in plan.by_hand else f" {escape(plan.reasons['spacing_mm'].text)}"
        lines.append(f"Resampling to {_joined(tuple(spacing))} mm.{reason}")
    for name, does in _SWITCHED_ON.items():
        if plan[name]:
            lines.append(does if name in plan.by_hand else escape(plan.reasons[name].text))
    by_hand = "normalization" in plan.by_hand
    lines.append(_NORMALIZED[plan["normalization"]] if by_hand else escape(plan.reasons["normalization"].text))
    lower, upper = plan["clip_percentiles"]
    fixed = plan["normalization"] == "range"
    # a range that was set by hand is not that of the percentiles
    if (lower, upper) != (0, 100) and not (fixed and "intensity_range" in plan.by_hand):
        of = "the intensities inside the labels" if fixed else "each image"
        lines.append(f"Before that, intensities are clipped to the percentiles {lower:g} and {upper:g} of {of}.")
    if plan["gamma"] != 1:
        then = " and then normalised as above" if plan["normalization"] == "volume" else ""
        lines.append(f"Intensities from 0 to 1 are raised to the power of {plan['gamma']:g}{then}.")
    lines.append("Segmentations are brought back to the input's own grid.")
    return "\n".join(f"- {line}" for line in lines)


def write_readme(
    bundle: str | PathLike[str],
    *,
    training: str | None = None,
    performance: str | None = None,
    folds: int | None = None,
) -> Path:
    """Write or replace a bundle's ``docs/README.md``, from its plan and fingerprint.

    Args:
        bundle: the folder of the bundle.
        training: description of the training, as Markdown without headings; None before the training.
        performance: the results, as Markdown with headings of level four or lower; None before they are known.
        folds: number of networks trained for cross-fitting; None takes that of the plan.

    Returns:
        The file.

    Raises:
        FileNotFoundError: the bundle has no plan or no fingerprint.
        ValueError: one of them cannot be read.
    """
    root = Path(bundle)
    fingerprint = Fingerprint.read(root / FINGERPRINT_FILE)
    path, plan = root / "docs" / "README.md", load_plan(root)
    if folds is not None:
        plan = dataclasses.replace(plan, folds=folds)
    # below the properties of the data, where it may have been filled in
    earlier = path.read_text(encoding="utf-8") if path.is_file() else ""
    section, found, _ = earlier.partition("## Data\n\n")[2].partition("\n### Preprocessing\n")
    licence = (found and section.partition("\n\n")[2].strip()) or _LICENCE
    write_text(path, readme_text(plan, fingerprint, training=training, performance=performance, licence=licence))
    return path


def readme_text(
    plan: TrainingPlan,
    fingerprint: Fingerprint,
    *,
    training: str | None = None,
    performance: str | None = None,
    licence: str = _LICENCE,
) -> str:
    """The README as Markdown; see :func:`write_readme`."""
    count = len(plan["strides"])
    form = "NIfTI file (TIFF for volumes stored as TIFF, which a `dataset.json` must list)"
    if plan.spatial_dims == 2:
        form = "file (NIfTI, PNG or TIFF, as the input)"
    return _filled(
        "README.md",
        name=escape(plan.name),
        levels=f"{count} levels, L1 to L{count}" if count > 1 else "one level, L1",
        spatial_dims=str(plan.spatial_dims),
        labels=", ".join(map(escape, plan.label_names)),
        untrained="" if training or performance else f"{_NOT_TRAINED}\n",
        data=_data_text(plan, fingerprint),
        licence=licence,
        preprocessing=_preprocessing_text(plan),
        configuration=_configuration(plan),
        training=training or _NOT_TRAINED,
        channels=f"{counted(len(plan.channels), 'channel')}: {', '.join(map(escape, plan.channels))}",
        form=form,
        values="; ".join(f"{plan.labels[name]} {escape(name)}" for name in plan.label_names),
        objects=_OBJECTS if tells_objects(plan) else "",
        performance=performance or (_NOT_COMPARED if training else _NOT_TRAINED),
        init=_init_text(plan),
    )


def _weighing(plan: TrainingPlan) -> str:
    if plan["class_weights"] is None:
        return ""
    weights = ":".join(f"{weight:g}" for weight in plan["class_weights"])
    until = f" until the last {percent(plan['late_share'])} of the training" if plan["late_share"] else ""
    return f", with the background and the labels weighted {weights}{until}"


def _heads(plan: TrainingPlan) -> str:
    """The heads with their weights in the loss, and how much the deepest one teaches the others."""
    weights = plan["level_weights"]
    heads = "every head"
    if weights is not None:
        heads = f"the heads, weighted {', '.join(f'L{n} {weight:g}' for n, weight in enumerate(weights, start=1))}"
    return heads + (f", with self-distillation weighted {plan['distillation']:g}" if plan["distillation"] else "")


def _augmentation(plan: TrainingPlan) -> str:
    strength, axes = plan["augmentation"], plan["flip_axes"]
    text = f"{'no' if strength == 'none' else strength} augmentation"
    if strength == "strong" and plan["late_share"]:
        text += f", light in the last {percent(plan['late_share'])} of the training"
    along = f"mirrored along {'axis' if len(axes) == 1 else 'the axes'} {in_words(axes)}"
    text += f"; {along if axes else 'not mirrored'}"
    if plan["invert_bright_background"] and strength != "none":
        text += "; one patch in twenty inverted, as the background of a crowded image can be mistaken"
    return text


def _configuration(plan: TrainingPlan) -> str:
    norm = plan["norm"] if isinstance(plan["norm"], str) else plan["norm"][0]
    dropout = f", dropout of {plan['dropout']:g}" if plan["dropout"] else ""
    lines = [
        f"network: `NestedUNet`, features {in_words(plan['features'])}, {norm} normalisation{dropout};",
        f"loss: cross-entropy plus soft Dice at {_heads(plan)}{_weighing(plan)};",
        f"patches of {' x '.join(map(str, plan['patch_size']))} voxels, {plan['batch_size']} per batch, around voxels "
        f"of the background and of the labels in the ratio {':'.join(f'{ratio:g}' for ratio in plan['class_ratios'])};",
        f"AdamW with a learning rate of {plan['learning_rate']:g} and a cosine schedule;",
        f"{_augmentation(plan)};",
        f"at inference, windows of {' x '.join(map(str, plan['window_shape']))} voxels with Gaussian weights.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def safe_name(name: str) -> str:
    """A name that MONAI's configurations read as plain text."""
    return f"label {name}" if name.startswith(_SIGNS) else name


def bundle_metadata(plan: TrainingPlan) -> str:
    """The metadata of a bundle, without scores and weights."""
    content = read_object(_TEMPLATE / "configs" / "metadata.json")
    labels = ["background", *map(safe_name, plan.label_names)]
    repeated = {name for name, count in Counter(labels).items() if count > 1}
    classes = {str(number): f"{name} {number}" if name in repeated else name for number, name in enumerate(labels)}
    named = ", ".join(f"{plan.labels[name]} is {safe_name(name)}" for name in plan.label_names)
    content |= {
        "name": safe_name(plan.name),
        "task": safe_name(f"Segmentation of {', '.join(labels[1:])}"),
        "description": f"A nested U-Net (UNet++) with {counted(len(plan['strides']), 'level')} that can be pruned",
        "data_type": "nifti, png, tiff" if plan.spatial_dims == 2 else "nifti",
        "image_classes": f"{counted(len(plan.channels), 'channel')}: {', '.join(map(safe_name, plan.channels))}",
        "label_classes": f"single channel data, 0 is background, {named}",
        "pred_classes": f"{plan.out_channels} channels of logits, in the order of the label values",
        "labels": {str(plan.labels[name]): safe_name(name) for name in plan.label_names},
    }
    for key, package in (("monai_version", "monai"), ("pytorch_version", "torch"), ("numpy_version", "numpy")):
        content[key] = installed.version(package).split("+")[0]
    needed = content["required_packages_version"]
    content["required_packages_version"] = {
        name: __version__ if name == "monai-unetpp" else installed.version(name) for name in needed
    }
    form = content["network_data_format"]
    image, pred = form["inputs"]["image"], form["outputs"]["pred"]
    channels = {str(number): safe_name(name) for number, name in enumerate(plan.channels)}
    image |= {"modality": plan.modality, "num_channels": len(channels), "spatial_shape": plan["patch_size"]}
    if len(set(channels.values())) < len(channels):
        channels = {number: f"{name} {number}" for number, name in channels.items()}
    image["channel_def"] = channels
    pred |= {"num_channels": plan.out_channels, "spatial_shape": plan["patch_size"], "channel_def": classes}
    return json.dumps(content, indent=4) + "\n"
