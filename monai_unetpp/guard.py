"""Warnings about images unlike the training images of a bundle, and about implausible results.

:class:`TrainingRanges` holds the entry ``ranges`` of a bundle's ``configs/fingerprint.json``. The limits are wide: a
warning is worth a look, but no warning does not mean that the result is right.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import CommonKeys, ImageMetaKey, MetaKeys

from monai_unetpp.data.transforms.after_loading import insert_after_loading
from monai_unetpp.data.transforms.extent import PERCENTILES, is_left_handed, measure_extent
from monai_unetpp.data.transforms.sampling import sample_evenly
from monai_unetpp.errors import counted
from monai_unetpp.plain_values import from_plain, to_plain
from monai_unetpp.reporting.numbers import percent

__all__ = ["FINGERPRINT_FILE", "CaseGuard", "ImageRecord", "Range", "TrainingRanges", "find_guard"]

logger = logging.getLogger(__name__)

FINGERPRINT_FILE = "configs/fingerprint.json"
"""Path within a bundle."""

Range = tuple[float, float]
"""Lowest and highest value of the training cases."""

#: Factors by which values may lie outside the range of the training cases; the last one for sizes of 2D images, whose
#: borders are rather chance, and for the share of them that a label covers.
_SIZE, _SPACING, _VOLUME, _PICTURE = 1.25, 2.0, 2.0, 2.0
#: Share of a limit by which values may differ due to rounding, such as steps computed from positions of slices.
_ROUNDING = 1e-4
#: Pixel size of images whose files do not give one.
_UNKNOWN_MM = (1.0, 1.0)
#: A constant surround is expected if at least this share of the training images has one.
_EXPECTED = 0.95
#: Images in Hounsfield units have air at or below the first value, and soft tissue or bone at or above the second.
_AIR_HU, _TISSUE_HU = -500.0, 30.0
#: Share of an image's range that may lie below 0 due to rounding.
_NEGATIVE = 0.05
#: How far images in Hounsfield units may lie outside the range of the training images, as a share of that range.
_HU_MARGIN = 0.5


@dataclasses.dataclass(frozen=True)
class ImageRecord:
    """The properties of a training case that the ranges are computed from.

    Attributes:
        spacing_mm: voxel size along R, A and S; for 2D images in the order of storage.
        size_mm: physical size by axis, without the constant surround.
        constant_surround: whether the image had one.
        lowest: the 0.5th percentile of each channel.
        highest: the 99.5th percentile of each channel.
        volumes_ml: volume of each label by name; 0 if the case lacks it; without labels whose volume is unknown.
        area_shares: share of the image that each label covers, 0 to 1, by name, likewise; empty for volumes.
    """

    spacing_mm: tuple[float, ...]
    size_mm: tuple[float, ...]
    constant_surround: bool
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    volumes_ml: dict[str, float]
    area_shares: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class TrainingRanges:
    """The ranges of the images that a bundle was trained on; they describe no single case except the extremes.

    Attributes:
        cases: number of training cases.
        modality: ``"CT"``, ``"MR"`` or ``"other"``.
        spacing_mm: voxel size by axis.
        size_mm: physical size by axis, without the constant surround.
        constant_surround: share of the images that had one, 0 to 1.
        lowest: the 0.5th percentile by channel.
        highest: the 99.5th percentile by channel.
        volumes_ml: by label name, with 0 as the lowest if a case lacked the label; empty for 2D images.
        area_shares: share of a 2D image that each label covers, 0 to 1, by name; empty for volumes.
        as_stored: whether the sizes of volumes are by axis as stored, not along R, A and S.
        left_handed: for such volumes, the share of them whose axes are a mirror image of R, A and S.
        complete: number of the cases in which sizes of labels are known; None if they are in all.
    """

    cases: int
    modality: str
    spacing_mm: tuple[Range, ...]
    size_mm: tuple[Range, ...]
    constant_surround: float
    lowest: tuple[Range, ...]
    highest: tuple[Range, ...]
    volumes_ml: dict[str, Range]
    area_shares: dict[str, Range] = dataclasses.field(default_factory=dict)
    as_stored: bool = False
    left_handed: float = 0.0
    complete: int | None = None

    @classmethod
    def of(cls, records: Sequence[ImageRecord], modality: str) -> TrainingRanges:
        """The ranges of some cases.

        Raises:
            ValueError: there are no cases.
        """
        if not records:
            raise ValueError("records must be of at least one case, got none. Measure the training cases.")
        is_volume = len(records[0].size_mm) == 3
        sizes = [record.volumes_ml if is_volume else record.area_shares for record in records]
        complete = sum(map(bool, sizes))
        return cls(
            cases=len(records),
            modality=modality,
            spacing_mm=_ranges(record.spacing_mm for record in records),
            size_mm=_ranges(record.size_mm for record in records),
            constant_surround=sum(record.constant_surround for record in records) / len(records),
            lowest=_ranges(record.lowest for record in records),
            highest=_ranges(record.highest for record in records),
            volumes_ml=_ranges_by_name(sizes) if is_volume else {},
            area_shares={} if is_volume else _ranges_by_name(sizes),
            complete=None if complete == len(records) else complete,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, rounded to four digits."""
        plain: dict[str, Any] = json.loads(
            json.dumps(to_plain(self)), parse_float=lambda text: float(f"{float(text):.4g}")
        )
        return plain

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TrainingRanges:
        """The inverse of :meth:`as_dict`.

        Raises:
            ValueError: ``content`` has another form.
        """
        return from_plain(cls, content, "ranges")

    def unlike(self, image: torch.Tensor, affine: Any, slice_axis: int | None = None) -> list[str]:
        """How an image differs from the training images; empty if it does not.

        Args:
            image: ``(C, H, W[, D])``, as stored in its file.
            affine: ``(4, 4)``, from voxel indices to mm.
            slice_axis: the axis of volumes across which a 2D bundle takes their slices; None compares no sizes of them.
        """
        found = []
        has_surround = False
        if len(self.size_mm) == 3 and image.ndim == 4:
            extent = measure_extent(image, affine, as_stored=self.as_stored)
            has_surround = extent.constant_surround
            if self.as_stored and abs(is_left_handed(affine, 3) - self.left_handed) >= _EXPECTED:
                found.append("its axes are stored as a mirror image of those of the training images")
            found += _outside("size is", extent.size_mm, self.size_mm, _SIZE)
            found += _outside("voxels are", extent.spacing_mm, self.spacing_mm, _SPACING)
            if self.constant_surround >= _EXPECTED and not extent.constant_surround:
                found.append("it has no constant surround; the background of the training images was set to one value")
        elif len(self.size_mm) == 2 and image.ndim == 3:
            found += self._other_size(image, affine)
        elif len(self.size_mm) == 2 and slice_axis is not None:
            found += self._other_size(*_middle_slice(image, np.asarray(affine), slice_axis % 3))
        return [*found, *self._other_intensities(image, has_surround)]

    def _other_size(self, image: torch.Tensor, affine: Any) -> list[str]:
        """How the size of an image with two axes differs, which may lie either way."""
        extent = measure_extent(image, affine)
        sizes, spacings = (_range(end for each in ends for end in each) for ends in (self.size_mm, self.spacing_mm))
        if spacings == _UNKNOWN_MM:
            lengths = tuple(np.divide(extent.size_mm, extent.spacing_mm))
            return _outside("size is", lengths, [sizes] * 2, _PICTURE, "pixels")
        if extent.spacing_mm == _UNKNOWN_MM:
            return []
        return [
            *_outside("size is", extent.size_mm, [sizes] * 2, _PICTURE),
            *_outside("pixels are", extent.spacing_mm, [spacings] * 2, _SPACING),
        ]

    def _other_intensities(self, image: torch.Tensor, has_surround: bool) -> list[str]:
        found = []
        for number, channel in enumerate(np.asarray(image[: len(self.lowest)].cpu())):
            low, _, _, _, high = np.percentile(sample_evenly(channel), PERCENTILES)
            name = f" of channel {number}" if len(self.lowest) > 1 else ""
            seems_ct = low <= _AIR_HU and high >= _TISSUE_HU
            margin = _HU_MARGIN * (self.highest[number][1] - self.lowest[number][0])
            if self.modality == "CT":
                if not (self.lowest[number][0] - margin <= low and high <= self.highest[number][1] + margin):
                    found.append(f"its intensities{name}, {low:.4g} to {high:.4g}, are not Hounsfield units like these")
                elif self.lowest[number][1] <= _AIR_HU / 5 and low >= 0:
                    found.append(f"its intensities{name} are all 0 or above, unlike Hounsfield units")
            elif seems_ct and self.lowest[number][0] > _AIR_HU:
                found.append(f"its intensities{name}, {low:.4g} to {high:.4g}, look like Hounsfield units of CT")
            elif self.lowest[number][0] >= 0 and low < -_NEGATIVE * (high - low) and not has_surround:
                # bundles that expect a constant surround level one of any value
                found.append(f"its intensities{name} go below 0, to {low:.4g}, like those of CT or normalised images")
        return found

    def implausible(self, volumes_ml: Mapping[str, float], area_shares: Mapping[str, float] | None = None) -> list[str]:
        """The sizes of labels in a result that are outside the range of the training cases; empty if none is.

        Args:
            volumes_ml: by label name.
            area_shares: share of a 2D image that each label covers, 0 to 1, by label name.
        """
        found = []
        for name, (low, high) in self.volumes_ml.items():
            volume = volumes_ml.get(name)
            if volume is not None and not _within(volume, (low, high), _VOLUME):
                found.append(f"{name} has {volume:.3g} ml, not {low:.3g} to {high:.3g} ml")
        for name, (low, high) in self.area_shares.items():
            share = (area_shares or {}).get(name)
            if share is not None and not _within(share, (low, high), _PICTURE):
                found.append(
                    f"{name} covers {percent(share, '.3g')} of the image, not {100 * low:.3g} to {percent(high, '.3g')}"
                )
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class CaseGuard:
    """Logs how cases differ from the training cases of a bundle, one line per case.

    Args:
        ranges: of the training cases of the bundle.
        slice_axis: the axis of volumes across which a 2D bundle takes their slices.
    """

    ranges: TrainingRanges
    slice_axis: int | None = None

    def watch(self, transform: Any) -> None:
        """Check every image as soon as it is loaded.

        Args:
            transform: the preprocessing, a ``Compose`` that begins with ``LoadImaged``; any other is left unchanged.
        """
        insert_after_loading(transform, self._look_at_item)

    def _look_at_item(self, item: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        image = item[CommonKeys.IMAGE]
        if isinstance(image, MetaTensor):
            file = str(image.meta.get(ImageMetaKey.FILENAME_OR_OBJ, CommonKeys.IMAGE))
            self.look(file, image, image.meta.get(MetaKeys.ORIGINAL_AFFINE, image.affine))
        return item

    def look(self, file: str, image: torch.Tensor, affine: Any) -> None:
        """Warn about what is unusual in an image."""
        try:
            found = self.ranges.unlike(image, affine, self.slice_axis)
        except (ValueError, RuntimeError, IndexError) as e:  # the check must not fail the case
            logger.debug("%s: not compared with the training images", file, exc_info=e)
            return
        self._tell(file, f"unlike the {counted(self.ranges.cases, 'image')} that the bundle was trained on", found)

    def check_result(
        self, file: str, volumes_ml: Mapping[str, float], area_shares: Mapping[str, float] | None = None
    ) -> None:
        """Warn about what is unusual in a result.

        Args:
            file: the image.
            volumes_ml: by label name.
            area_shares: share of a 2D image that each label covers, 0 to 1, by label name.
        """
        found = self.ranges.implausible(volumes_ml, area_shares)
        complete = self.ranges.complete
        cases = counted(self.ranges.cases if complete is None else complete, "training case")
        which = "" if complete is None else " whose labels are complete"
        self._tell(file, f"the result is unlike the labels of the {cases}{which}", found)

    def _tell(self, file: str, what: str, found: Sequence[str]) -> None:
        if found:
            line = f"{file}: {what}: {'; '.join(found)}. Check that this is the right bundle, and the result."
            logger.warning("%s", line)


def find_guard(bundle: str | PathLike[str], slice_axis: int | None = None) -> CaseGuard | None:
    """The guard of a bundle; None if it has no ``configs/fingerprint.json``.

    Args:
        bundle: its folder.
        slice_axis: the axis of volumes across which a 2D bundle takes their slices.

    Raises:
        ValueError: the file cannot be read.
    """
    path = Path(bundle) / FINGERPRINT_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return CaseGuard(TrainingRanges.from_dict(content["ranges"]), slice_axis)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ValueError(f"{path}: cannot be read ({e}). Copy the bundle again, or remove the file.") from e


def _middle_slice(image: torch.Tensor, affine: Any, axis: int) -> tuple[torch.Tensor, Any]:
    """The slice ``(C, H, W)`` in the middle of a volume, and its affine with the axis of the slices last."""
    order = [*(each for each in range(3) if each != axis), axis]
    in_order = affine.copy()
    in_order[:, :3] = affine[:, order]
    return image.select(axis + 1, image.shape[axis + 1] // 2), in_order


def _range(values: Iterable[float]) -> Range:
    listed = list(values)
    return min(listed), max(listed)


def _ranges(rows: Iterable[Sequence[float]]) -> tuple[Range, ...]:
    return tuple(_range(column) for column in zip(*rows, strict=True))


def _ranges_by_name(records: Sequence[Mapping[str, float]]) -> dict[str, Range]:
    """The range of each name over the records that have it."""
    names = dict.fromkeys(name for record in records for name in record)
    return {name: _range(record[name] for record in records if name in record) for name in names}


def _outside(what: str, values: Sequence[float], ranges: Sequence[Range], factor: float, unit: str = "mm") -> list[str]:
    """What lies outside of the ranges, in words; empty if it does not."""
    if all(_within(value, each, factor) for value, each in zip(values, ranges, strict=True)):
        return []
    ends = [(_short(low), _short(high)) for low, high in ranges]
    limits = " x ".join(low if low == high else f"{low} to {high}" for low, high in ends)
    return [f"its {what} {' x '.join(map(_short, values))} {unit}, not {limits} {unit}"]


def _within(value: float, limits: Range, factor: float) -> bool:
    low, high = limits
    widened = factor * (1 + _ROUNDING)
    return low / widened <= value <= high * widened


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
