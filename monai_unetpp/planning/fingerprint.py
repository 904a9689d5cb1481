"""Properties of a labelled data set: sizes, spacings, intensities and labels, measured case by case."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence, Set
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from monai_unetpp.files import write_text
from monai_unetpp.guard import ImageRecord, TrainingRanges
from monai_unetpp.plain_values import from_plain, to_plain

_Entry = TypeVar("_Entry", int, float)

LONGEST_AXIS = 2**16 - 2
"""Most voxels of an image along an axis: MONAI keeps the ends of the centres of patches in 16 bits."""

QUANTILES = (0.0, *(0.5 + number for number in range(100)), 100.0)
"""Percentiles at which the intensities inside labels are known over all cases."""

_FORM = 1
"""Version of the file format; increased when the meaning of an entry changes."""


@dataclasses.dataclass(frozen=True)
class IntensityStatistics:
    """The distribution of intensities.

    Attributes:
        p0_5: the 0.5th percentile, in the units of the file, as are the following.
        p5: the 5th percentile.
        p50: the median.
        p95: the 95th percentile.
        p99_5: the 99.5th percentile.
        mean: arithmetic mean.
        sd: standard deviation.
    """

    p0_5: float
    p5: float
    p50: float
    p95: float
    p99_5: float
    mean: float
    sd: float


@dataclasses.dataclass(frozen=True)
class ChannelIntensity:
    """The intensities of one channel.

    Attributes:
        whole: of all voxels.
        foreground: of the voxels inside labels; None if there are none.
    """

    whole: IntensityStatistics
    foreground: IntensityStatistics | None


@dataclasses.dataclass(frozen=True)
class CaseFingerprint:
    """Properties of one case. Axes are in the order R, A, S; for 2D images in the order of storage.

    Attributes:
        name: name of the case.
        subject: the person or animal; the case's own name if subjects are unknown.
        shape: voxels by axis.
        spacing_mm: voxel size by axis.
        size_mm: physical size by axis, without the constant surround.
        constant_surround: whether the image has a constant surround, like a skull-stripped brain.
        voxels: number of voxels by label name; 0 if the case lacks the label.
        parts: number of connected components (through faces, edges and corners) by label name.
        intensity: by channel.
        bounds: by channel, the 0.5th and the 99.5th percentile in the box around the content, without the constant
            surround outside of it.
        medians: median intensity inside each label by name, one per channel; labels that the case lacks are left out.
        in_surround: share of the voxels of each label that lie in the constant surround, above 0 and up to 1, by name;
            other labels are left out.
        faces: number of faces of voxels across each axis on the surface of each label, by name; empty in older
            fingerprints.
        surround_share: share of the voxels of the image that its constant surround has; 0 in older fingerprints.
        stored_axes: axis of the stored array nearest to each of R, A and S, in which order the other entries are; in 2D
            and in older fingerprints, as if stored in this order.
        tilt_degrees: largest angle between an axis of the array and the one of R, A and S nearest to it; 0 likewise.
        left_handed: whether the axes of the array are a mirror image of R, A and S; False likewise.
        ignored: number of voxels that nobody labelled, where the data set has a label for these; 0 in older
            fingerprints.
        ignored_in_surround: share of these that lie in the constant surround, 0 to 1; 0 likewise.
        cut: share of the surface of each label that borders on ignored voxels, above 0 and up to 1, by name; other
            labels are left out. ``faces`` are those of the rest, and ``parts`` may be pieces of one.
    """

    name: str
    subject: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    size_mm: tuple[float, ...]
    constant_surround: bool
    voxels: dict[str, int]
    parts: dict[str, int]
    intensity: tuple[ChannelIntensity, ...]
    bounds: tuple[tuple[float, float], ...] = ()
    medians: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    in_surround: dict[str, float] = dataclasses.field(default_factory=dict)
    faces: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    surround_share: float = 0.0
    stored_axes: tuple[int, ...] = ()
    tilt_degrees: float = 0.0
    left_handed: bool = False
    ignored: int = 0
    ignored_in_surround: float = 0.0
    cut: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Labelled volume by label name; 2D images count as 1 mm thick."""
        voxel_ml = math.prod(self.spacing_mm, start=1e-3)
        return {name: count * voxel_ml for name, count in self.voxels.items()}

    @property
    def area_shares(self) -> dict[str, float]:
        """Share of the image with each label, 0 to 1, by name."""
        return {name: count / math.prod(self.shape) for name, count in self.voxels.items()}

    def as_stored(self) -> CaseFingerprint:
        """The same, with axes in the order of the file."""
        places = sorted(range(len(self.stored_axes)), key=self.stored_axes.__getitem__) or range(len(self.shape))

        def ordered(values: Sequence[_Entry]) -> tuple[_Entry, ...]:
            return tuple(values[place] for place in places)

        return dataclasses.replace(
            self,
            shape=ordered(self.shape),
            spacing_mm=ordered(self.spacing_mm),
            size_mm=ordered(self.size_mm),
            faces={name: ordered(found) for name, found in self.faces.items()},
            stored_axes=(),
        )


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Properties of a labelled data set.

    Attributes:
        spatial_dims: 2 or 3.
        channels: names of the channels.
        modality: ``"CT"``, ``"MR"`` or ``"other"``.
        labels: value by name, without the background and without ``ignore``.
        ignore_label: value of unlabelled voxels; None if there are none.
        cases: the properties of each case.
        median_spacing_mm: median voxel size by axis.
        median_shape: median number of voxels by axis, at the cases' own voxel sizes.
        left_right: pairs of label names: left and right of one structure, by their names; where none has a side in its
            name, pairs of labels in volumes that lie like mirror images of each other.
        intensity: by channel over all cases, each of which counts the same.
        quantiles: by channel, the intensities inside labels at the percentiles :data:`QUANTILES` over all cases; empty
            if there are none.
        is_stored: whether the axes of the cases are in the order of their files, not R, A and S.
    """

    spatial_dims: int
    channels: tuple[str, ...]
    modality: str
    labels: dict[str, int]
    ignore_label: int | None
    cases: tuple[CaseFingerprint, ...]
    median_spacing_mm: tuple[float, ...]
    median_shape: tuple[int, ...]
    left_right: tuple[tuple[str, str], ...]
    intensity: tuple[ChannelIntensity, ...]
    quantiles: tuple[tuple[float, ...], ...] = ()
    is_stored: bool = False

    def as_stored(self) -> Fingerprint:
        """The same, with the axes of each case in the order in which its file has them, as always in 2D."""
        if self.spatial_dims == 2:
            return self
        cases = tuple(case.as_stored() for case in self.cases)
        return dataclasses.replace(
            self,
            cases=cases,
            median_spacing_mm=tuple(np.median([case.spacing_mm for case in cases], axis=0).tolist()),
            median_shape=tuple(map(round, np.median([case.shape for case in cases], axis=0).tolist())),
            is_stored=True,
        )

    @property
    def label_names(self) -> list[str]:
        """Names of the labels, in the order of their values."""
        return sorted(self.labels, key=self.labels.__getitem__)

    @property
    def in_surround(self) -> dict[str, float]:
        """Mean share of the voxels of each label in the constant surround, 0 to 1, over the cases that have it."""
        shares = {
            name: [case.in_surround.get(name, 0.0) for case in self.cases if case.voxels.get(name)]
            for name in self.label_names
        }
        return {name: statistics.fmean(found) for name, found in shares.items() if found}

    @property
    def ranges(self) -> TrainingRanges:
        """The ranges of the cases, for the guard of a bundle.

        The sizes of labels are those of cases without ignored voxels, as far as these have the labels that others have.

        Raises:
            ValueError: there are no cases.
        """
        complete, partial = ([case for case in self.cases if bool(case.ignored) == has] for has in (False, True))
        unknown = _labels_in(partial) - _labels_in(complete)
        records = [
            ImageRecord(
                spacing_mm=case.spacing_mm,
                size_mm=case.size_mm,
                constant_surround=case.constant_surround,
                lowest=tuple(channel.whole.p0_5 for channel in case.intensity),
                highest=tuple(channel.whole.p99_5 for channel in case.intensity),
                volumes_ml={} if case.ignored else _without(case.volumes_ml, unknown),
                area_shares={} if case.ignored else _without(case.area_shares, unknown),
            )
            for case in self.cases
        ]
        found = TrainingRanges.of(records, self.modality)
        if not self.is_stored:
            return found
        mirrored = statistics.fmean(case.left_handed for case in self.cases)
        return dataclasses.replace(found, as_stored=True, left_handed=mirrored)

    def without_names(self) -> Fingerprint:
        """The same, with cases and subjects numbered in their order instead of named: for a bundle that is shared."""
        numbers: dict[str, int] = {}
        cases = tuple(
            dataclasses.replace(
                case, name=f"case_{number}", subject=f"subject_{numbers.setdefault(case.subject, 1 + len(numbers))}"
            )
            for number, case in enumerate(self.cases, 1)
        )
        return dataclasses.replace(self, cases=cases)

    def as_dict(self, with_cases: bool = True) -> dict[str, Any]:
        """Plain values for JSON, including the ranges that the guard of a bundle reads.

        Args:
            with_cases: whether to include every case by name, or only the statistics over all.
        """
        content = {"form": _FORM, **to_plain(self)}
        if self.cases:
            content["ranges"] = self.ranges.as_dict()
        if not with_cases:
            del content["cases"]
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Fingerprint:
        """The inverse of :meth:`as_dict`.

        Raises:
            ValueError: ``content`` is not a fingerprint.
        """
        if content.get("form") != _FORM:
            raise ValueError(f"a fingerprint must have form {_FORM}, got {content.get('form')!r}. Write it again.")
        return from_plain(cls, {"cases": [], **content}, "fingerprint")

    def write(self, path: str | PathLike[str], with_cases: bool = True) -> None:
        """Write it as JSON, atomically, with a line for each case.

        Args:
            path: the file, such as ``configs/fingerprint.json`` of a bundle.
            with_cases: see :meth:`as_dict`.
        """
        write_text(path, fingerprint_text(self.as_dict(with_cases)))

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Fingerprint:
        """Read what :meth:`write` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is not a fingerprint.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError as e:
            raise ValueError(f"{path}: {e}") from e


def _labels_in(cases: Sequence[CaseFingerprint]) -> set[str]:
    return {name for case in cases for name, count in case.voxels.items() if count}


def _without(sizes: Mapping[str, float], names: Set[str]) -> dict[str, float]:
    return {name: size for name, size in sizes.items() if name not in names}


def fingerprint_text(content: Mapping[str, Any]) -> str:
    """The JSON of a fingerprint as plain values, with a line for each entry and each case, the cases last."""
    cases = [json.dumps(case) for case in content.get("cases", ())]
    entries = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items() if key != "cases"]
    if cases:
        entries.append('"cases": [\n  {}\n ]'.format(",\n  ".join(cases)))
    return "{\n " + ",\n ".join(entries) + "\n}\n"
