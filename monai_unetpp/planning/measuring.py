"""Measuring a labelled data set in one pass, with one case in memory at a time."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from monai_unetpp.data import ImageFileError, describe_data_set, load_datalist
from monai_unetpp.data.datasets.case_check import read_image, read_truth
from monai_unetpp.data.datasets.datalist import LISTS
from monai_unetpp.data.datasets.description import DataSetDescription
from monai_unetpp.data.datasets.labelled import LabelledCase, list_cases
from monai_unetpp.data.formats.grid import ImageGeometry, check_same_grid
from monai_unetpp.data.formats.image_errors import describe_failure
from monai_unetpp.data.formats.source_files import file_identity
from monai_unetpp.data.transforms.background import find_own_surround
from monai_unetpp.data.transforms.extent import (
    PERCENTILES,
    axes_in_order,
    content_box,
    describe_extent,
    is_left_handed,
    tilt_of,
)
from monai_unetpp.data.transforms.sampling import sample_evenly
from monai_unetpp.errors import counted
from monai_unetpp.files import write_json
from monai_unetpp.plain_values import from_plain, to_plain
from monai_unetpp.planning.fingerprint import (
    LONGEST_AXIS,
    QUANTILES,
    CaseFingerprint,
    ChannelIntensity,
    Fingerprint,
    IntensityStatistics,
)
from monai_unetpp.planning.sides import left_right_pairs, mirrored_pairs
from monai_unetpp.progress import Progress, counting

logger = logging.getLogger(__name__)

_VERSION = 7
"""Version of the measurements; increased when they change, so that older caches are not used."""
#: Without the extremes, which are kept apart: in the sample of all cases they would count as much as other quantiles.
_QUANTILES = QUANTILES[1:-1]
#: Largest label value up to which there is a place in memory for each.
_MOST_IN_TABLE = 2**16
#: Ranges of the lowest and highest intensities of most CT images, for data sets that name no modality.
_LOWEST_HU, _HIGHEST_HU = (-4500.0, -500.0), (50.0, 6000.0)


@dataclasses.dataclass(frozen=True)
class _Measured:
    """A case with what only the statistics over all cases need.

    By channel, ``whole`` are quantiles, and ``foreground`` and ``extremes`` those, and the lowest and highest value,
    inside labels; None if there are none. By label, ``boxes`` are the first voxel along each axis, and the one behind
    the last, with axes as in ``case``.
    """

    case: CaseFingerprint
    whole: tuple[tuple[float, ...], ...]
    foreground: tuple[tuple[float, ...] | None, ...]
    extremes: tuple[tuple[float, float] | None, ...]
    boxes: dict[str, tuple[tuple[int, int], ...]]


@dataclasses.dataclass(frozen=True)
class _MeasuredLabel:
    """One label of a case, with axes as stored; without voxels, it has no box, medians and faces.

    ``faces`` are between it and other known voxels, ``cut`` between it and ignored ones.
    """

    voxels: int = 0
    box: tuple[tuple[int, int], ...] = ()
    faces: tuple[int, ...] = ()
    cut: tuple[int, ...] = ()
    parts: int = 0
    medians: tuple[float, ...] = ()
    in_surround: float = 0.0


def trained_lists(folds: int) -> Sequence[str]:
    """The lists whose cases the network of a bundle is trained on: with folds for cross-fitting both."""
    return LISTS if folds else ("training",)


def take_fingerprint(
    dataset_dir: str | PathLike[str],
    lists: Sequence[str] = ("training",),
    *,
    cache: str | PathLike[str] | None = None,
    progress: Progress = None,
    described: DataSetDescription | None = None,
    **subjects: Any,
) -> Fingerprint:
    """Measure the properties of the labelled cases of a data set.

    Args:
        dataset_dir: folder in any form that :func:`monai_unetpp.data.load_datalist` takes.
        lists: the lists of cases to measure.
        cache: a JSON file for the measurements, written even after an interruption. Cases whose files have the same
            path, size and modification time are not read again. With None nothing is cached.
        progress: True shows a bar on standard error, a function is called with a line of text after each case.
        described: what the data set says about itself, where that is known; it is read where not.
        **subjects: how ``load_datalist`` finds them: ``subjects`` and ``subject_pattern``.

    Raises:
        FileNotFoundError: no data set.
        ValueError: the data set is invalid; cases that cannot be read are counted and named.
    """
    described = described or describe_data_set(dataset_dir, **subjects)
    cases = [case for key in lists for case in list_cases(load_datalist(dataset_dir, key, **subjects))]
    kept = _Cache(cache, described)
    measured: list[_Measured] = []
    problems: list[str] = []
    try:
        with counting(progress, "measuring") as count:
            for number, case in enumerate(cases, 1):
                try:
                    measured.append(kept.measure(case))
                except (ImageFileError, OSError) as e:
                    problems.append(describe_failure(e))
                count(number, len(cases))
    finally:
        kept.write()
    if problems:
        shown = "\n".join(f"- {' '.join(line.splitlines())}" for line in problems[:20])
        raise ValueError(
            f"{dataset_dir}: cases must be sound, got {len(problems)} of {len(cases)} with a problem:\n{shown}\n"
            "Correct these cases, or leave them out; monai-unetpp check lists all of them."
        )
    return _summarise(described, measured)


class _Cache:
    """Earlier measurements, by the identity of the files and of the labels."""

    def __init__(self, path: str | PathLike[str] | None, described: DataSetDescription) -> None:
        self.path = None if path is None else Path(path)
        self.described = described
        self.known = self._read()
        self.changed = False

    def measure(self, case: LabelledCase) -> _Measured:
        key = self._key(case)
        if key not in self.known:
            self.known[key] = to_plain(_measure(case, self.described))
            self.changed = True
        return from_plain(_Measured, self.known[key], "case")

    def write(self) -> None:
        if self.path is not None and self.changed:
            write_json(self.path, {"version": _VERSION, "cases": self.known})

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8")) if self.path is not None else {}
            return dict(content["cases"]) if content.get("version") == _VERSION else {}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            logger.warning("%s: not a cache of measured cases. All cases are measured again.", self.path)
            return {}

    def _key(self, case: LabelledCase) -> str:
        known = self.described
        facts = [known.spatial_dims, len(known.channels), known.labels, known.ignore_label, case.subject]
        return hashlib.sha256(json.dumps([facts, [file_identity(file) for file in case.files]]).encode()).hexdigest()


def _measure(case: LabelledCase, described: DataSetDescription) -> _Measured:
    allowed = [*described.labels.values(), *([] if described.ignore_label is None else [described.ignore_label])]
    label = read_truth(case, allowed, described.spatial_dims)
    options: dict[str, Any] = {"allow_constant": True, "fill_nonfinite": 0.0}
    image = read_image(case, described.spatial_dims, **options, in_channels=len(described.channels))
    check_same_grid(case.image[0], ImageGeometry(image.data.shape[1:], image.affine), case.label, label.grid)
    if len(image.data) != len(described.channels):
        raise ImageFileError(
            f"{case.image[0]}: the image must have {counted(len(described.channels), 'channel')} like the first case, "
            f"got {len(image.data)}. Give one file per channel, or one file with the channels on its last axis."
        )
    if max(image.data.shape[1:]) > LONGEST_AXIS:
        raise ImageFileError(
            f"{case.image[0]}: the image must be at most {LONGEST_AXIS} voxels long, got "
            f"{' x '.join(map(str, image.data.shape[1:]))}. Cut image and label into several cases."
        )
    voxels = np.ascontiguousarray(image.data)
    surround = find_own_surround(torch.from_numpy(voxels))
    hidden = None if surround is None else surround.mask.cpu().numpy()
    inside = np.isin(label.data, list(described.labels.values()))
    ignored = None if described.ignore_label is None else label.data == described.ignore_label
    labels = _measure_labels(label.data, described.labels, voxels, hidden, ignored)
    whole = [sample_evenly(channel) for channel in voxels]
    foreground = [_sampled(channel[inside]) if inside.any() else None for channel in voxels]
    content = content_box(voxels.shape[1:], surround)
    order = axes_in_order(image.affine, label.data.ndim)
    extent = describe_extent(voxels.shape[1:], image.affine, surround)
    record = CaseFingerprint(
        name=case.name,
        subject=case.subject,
        **dataclasses.asdict(extent),
        voxels={name: found.voxels for name, found in labels.items()},
        parts={name: found.parts for name, found in labels.items()},
        intensity=tuple(
            ChannelIntensity(_statistics(all_), None if part is None else _statistics(part[0]))
            for all_, part in zip(whole, foreground, strict=True)
        ),
        bounds=tuple(_bounds(channel[content]) for channel in voxels),
        medians={name: found.medians for name, found in labels.items() if found.voxels},
        in_surround={name: found.in_surround for name, found in labels.items() if found.in_surround},
        faces={name: tuple(found.faces[axis] for axis in order) for name, found in labels.items() if found.voxels},
        surround_share=0.0 if surround is None else surround.share,
        stored_axes=tuple(order),
        tilt_degrees=tilt_of(image.affine, label.data.ndim),
        left_handed=is_left_handed(image.affine, label.data.ndim),
        ignored=0 if ignored is None else int(np.count_nonzero(ignored)),
        ignored_in_surround=_share_in(hidden, ignored),
        cut={name: _cut_share(found, order, extent.spacing_mm) for name, found in labels.items() if any(found.cut)},
    )
    return _Measured(
        record,
        tuple(map(_quantiles, whole)),
        tuple(None if part is None else _quantiles(part[0]) for part in foreground),
        tuple(None if part is None else part[1] for part in foreground),
        {name: tuple(found.box[axis] for axis in order) for name, found in labels.items() if found.voxels},
    )


def _share_in(surround: npt.NDArray[np.bool_] | None, voxels: npt.NDArray[np.bool_] | None) -> float:
    """The share of some voxels that lie in the surround, 0 to 1; 0 if there are none."""
    if surround is None or voxels is None or not (count := np.count_nonzero(voxels)):
        return 0.0
    return np.count_nonzero(voxels & surround) / count


def _cut_share(label: _MeasuredLabel, order: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """The share of the surface of a label that borders on ignored voxels; ``spacing_mm`` has its axes in an order."""
    cut, seen = (
        sum(faces[axis] / edge for axis, edge in zip(order, spacing_mm, strict=True))
        for faces in (label.cut, label.faces)
    )
    return cut / (cut + seen)


def _sampled(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], tuple[float, float]]:
    """A sample of some values, and the lowest and the highest of all of them."""
    return sample_evenly(values), (float(values.min()), float(values.max()))


def _measure_labels(
    label: npt.NDArray[Any],
    values: Mapping[str, int],
    image: npt.NDArray[Any],
    surround: npt.NDArray[np.bool_] | None,
    ignored: npt.NDArray[np.bool_] | None = None,
) -> dict[str, _MeasuredLabel]:
    """Size, connected components (through faces, edges and corners), medians and share in the surround of each label.

    Each is looked at in its own box, as one label may be a small part of many.
    """
    boxes = _boxes(label, values.values())
    found = dict.fromkeys(values, _MeasuredLabel())
    for name, value in values.items():
        if (box := boxes.get(value)) is None:
            continue
        inside = label[box] == value
        faces, cut = _count_faces(label, value, box, ignored)
        found[name] = _MeasuredLabel(
            voxels=int(np.count_nonzero(inside)),
            faces=faces,
            cut=cut,
            box=tuple((part.start, part.stop) for part in box),
            parts=int(ndimage.label(inside, ndimage.generate_binary_structure(label.ndim, label.ndim))[1]),
            medians=tuple(float(np.median(sample_evenly(channel[box][inside]))) for channel in image),
            in_surround=_share_in(None if surround is None else surround[box], inside),
        )
    return found


def _count_faces(
    label: npt.NDArray[Any], value: int, box: tuple[slice, ...], ignored: npt.NDArray[np.bool_] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Faces across each axis between voxels of a label in its box and others, and those towards ignored ones.

    The border of the image is none.
    """
    around = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
    inside = label[around] == value
    all_faces = [np.diff(inside, axis=axis) for axis in range(label.ndim)]
    counts = [int(np.count_nonzero(each)) for each in all_faces]
    if ignored is None:
        return tuple(counts), (0,) * label.ndim
    widened = inside | ignored[around]
    seen = [int(np.count_nonzero(each & np.diff(widened, axis=axis))) for axis, each in enumerate(all_faces)]
    return tuple(seen), tuple(count - known for count, known in zip(counts, seen, strict=True))


def _boxes(label: npt.NDArray[Any], values: Iterable[int]) -> dict[int, tuple[slice, ...]]:
    """The bounding box of the voxels of each value that occurs, from one pass over a label map."""
    known: Sequence[int] = range(1, 1 + max(values, default=0))
    if len(known) > _MOST_IN_TABLE:
        unique, numbers = np.unique(label, return_inverse=True)
        known, label = unique.tolist(), 1 + numbers.reshape(label.shape)
    boxes = ndimage.find_objects(label, max_label=len(known))
    return {value: box for value, box in zip(known, boxes, strict=True) if box is not None}


def _bounds(values: npt.NDArray[Any]) -> tuple[float, float]:
    """The lowest and the highest of the percentiles that describe intensities."""
    low, high = np.percentile(sample_evenly(values), (PERCENTILES[0], PERCENTILES[-1]))
    return float(low), float(high)


def _statistics(sample: npt.NDArray[np.float64]) -> IntensityStatistics:
    return IntensityStatistics(*map(float, (*np.percentile(sample, PERCENTILES), sample.mean(), sample.std())))


def _quantiles(sample: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(each) for each in np.percentile(sample, _QUANTILES))


def _summarise(described: DataSetDescription, measured: Sequence[_Measured]) -> Fingerprint:
    cases = tuple(each.case for each in measured)
    channels = range(len(described.channels))
    return Fingerprint(
        spatial_dims=described.spatial_dims,
        channels=described.channels,
        modality=described.modality or ("CT" if _is_hounsfield(cases) else "other"),
        labels=described.labels,
        ignore_label=described.ignore_label,
        cases=cases,
        median_spacing_mm=tuple(np.median([case.spacing_mm for case in cases], axis=0).tolist()),
        median_shape=tuple(map(round, np.median([case.shape for case in cases], axis=0).tolist())),
        left_right=left_right_pairs(described.labels) or (_mirrored(measured) if described.spatial_dims == 3 else ()),
        intensity=tuple(_pooled(measured, channel) for channel in channels),
        quantiles=tuple(_pooled_quantiles(measured, channel) for channel in channels),
    )


def _mirrored(measured: Sequence[_Measured]) -> tuple[tuple[str, str], ...]:
    """Pairs of labels that lie like left and right, by their names as in the data set.

    Cases with ignored voxels, whose boxes may be too small, count for labels that no other case has both.
    """
    complete, partial = (
        [_boxes_mm(each) for each in measured if bool(each.case.ignored) == has] for has in (False, True)
    )
    others = [
        pair for pair in mirrored_pairs(partial) if not any(all(name in boxes for name in pair) for boxes in complete)
    ]
    return (*mirrored_pairs(complete), *others)


def _boxes_mm(measured: _Measured) -> dict[str, list[tuple[float, float]]]:
    """By label, where its voxels begin and end along each axis, in mm."""
    return {
        name: [(mm * start, mm * stop) for (start, stop), mm in zip(box, measured.case.spacing_mm, strict=True)]
        for name, box in measured.boxes.items()
    }


def _is_hounsfield(cases: Sequence[CaseFingerprint]) -> bool:
    """Whether most images look like CT in Hounsfield units, with air and bone."""
    looks = [
        _LOWEST_HU[0] <= channel.whole.p0_5 <= _LOWEST_HU[1] and _HIGHEST_HU[0] <= channel.whole.p99_5 <= _HIGHEST_HU[1]
        for case in cases
        for channel in case.intensity
    ]
    return sum(looks) > len(looks) / 2


def _pooled(measured: Sequence[_Measured], channel: int) -> ChannelIntensity:
    """The statistics of one channel over all cases, with equal weights."""
    whole = [(each.whole[channel], each.case.intensity[channel].whole) for each in measured]
    inside = [
        (quantiles, statistics)
        for each in measured
        if (quantiles := each.foreground[channel]) is not None
        and (statistics := each.case.intensity[channel].foreground) is not None
    ]
    return ChannelIntensity(_pool(whole), _pool(inside) if inside else None)


def _pooled_quantiles(measured: Sequence[_Measured], channel: int) -> tuple[float, ...]:
    """The intensities of one channel inside labels at :data:`QUANTILES`; empty if there are none."""
    inside = [quantiles for each in measured if (quantiles := each.foreground[channel]) is not None]
    extremes = [pair for each in measured if (pair := each.extremes[channel]) is not None]
    if not inside or not extremes:
        return ()
    lowest, highest = min(low for low, _ in extremes), max(high for _, high in extremes)
    return (lowest, *_quantiles(np.concatenate(inside)), highest)


def _pool(parts: Sequence[tuple[Sequence[float], IntensityStatistics]]) -> IntensityStatistics:
    percentiles = np.percentile(np.concatenate([quantiles for quantiles, _ in parts]), PERCENTILES)
    means = np.array([statistics.mean for _, statistics in parts])
    variance = np.mean([statistics.sd**2 for _, statistics in parts]) + means.var()
    return IntensityStatistics(*map(float, (*percentiles, means.mean(), math.sqrt(variance))))
