"""Segment with a second bundle in the region found by a first one."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import CommonKeys

from monai_unetpp.chaining.crops import cut_crop, find_crop, mask_of
from monai_unetpp.chaining.loaded_bundle import LoadedBundle
from monai_unetpp.chaining.pair import Pair
from monai_unetpp.data.formats.grid import voxel_ml
from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.formats.source_files import file_of
from monai_unetpp.data.transforms.after_loading import steps_after_loading
from monai_unetpp.measuring.sums import summed

logger = logging.getLogger(__name__)

SCAN = "scan"
"""Key of the scan as loaded, beside the label map of the first bundle."""

_Array = npt.NDArray[Any]


class SegmentWithind(MapTransform):
    """Replace the label map of a first bundle with the labels of a second one in crops around it.

    The item must hold the scan as loaded under :data:`SCAN`, on the grid of the label map. Where crops overlap, the
    first label counts.

    Args:
        keys: label maps ``(1, H, W, D)`` of the first bundle.
        pair: the crops.
        first: the first bundle; its guard checks its labels.
        last: the second bundle; its guard checks every crop and its labels.

    Attributes:
        found: voxels of each label of the first bundle, and millilitres of a voxel, by scan.
        depths: windows of all crops by the level at which they stopped, by scan; empty unless the second bundle chooses
            the depth of each.

    Raises:
        ValueError: the second bundle does not load its images with ``LoadImaged``.
    """

    def __init__(self, keys: str, pair: Pair, first: LoadedBundle, last: LoadedBundle) -> None:
        super().__init__(keys)
        self.pair, self.first, self.last = pair, first, last
        self.found: dict[str, tuple[dict[int, int], float]] = {}
        self.depths: dict[str, dict[str, int]] = {}
        preprocessing = steps_after_loading(last.transform)
        if preprocessing is None:
            raise ValueError(
                "within needs a bundle whose preprocessing is a Compose that begins with LoadImaged. Use another "
                "bundle, or leave it out."
            )
        self.preprocessing = preprocessing

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Segment one scan; an ``ImageFileError`` says that the first bundle found none of the labels."""
        d = dict(data)
        scan: MetaTensor = d[SCAN]
        file = file_of(scan, CommonKeys.IMAGE)
        self.depths[file] = {}
        for key in self.key_iterator(d):
            found = np.asarray(d[key].cpu())[0].astype(np.int64)
            self._note_found(found, scan, file)
            d[key] = MetaTensor(torch.from_numpy(self._segment(found, scan, file))[None], meta=dict(d[key].meta))
        return d

    def _note_found(self, found: _Array, scan: MetaTensor, file: str) -> None:
        counts, size_ml = np.bincount(found.ravel()), voxel_ml(scan.affine.cpu())
        sizes = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
        self.found[file] = sizes, size_ml
        if self.first.guard is not None:
            volumes = {name: sizes.get(value, 0) * size_ml for value, name in self.first.labels.items()}
            self.first.guard.check_result(file, volumes)

    def _segment(self, found: _Array, scan: MetaTensor, file: str) -> _Array:
        # torch has few operations for uint16
        result = np.zeros(found.shape, np.uint8 if max(self.pair.names) <= np.iinfo(np.uint8).max else np.int32)
        keep = mask_of(found, self.pair.mask) if self.pair.mask else None
        missing = []
        for number, rule in enumerate(self.pair.crops):
            box = find_crop(np.isin(found, rule.values), np.asarray(scan.affine.cpu()), self.pair.margin_mm)
            if box is None:
                missing.append(rule.name)
                continue
            name = f"{file}: {rule.name}" if len(self.pair.crops) > 1 else file
            labels = self._labels(cut_crop(scan, box, rule.mirrored, keep), name)
            self.depths[file] = summed([self.depths[file], self.last.evaluator.depths])
            part = result[box]
            new = (labels > 0) & (part == 0)
            part[new] = labels[new] + self.pair.value(number, 0)
        if len(missing) == len(self.pair.crops):
            raise ImageFileError(
                f"{file}: the region to segment was not found. Check the image, and that it is of the kind that the "
                "bundle of --within segments."
            )
        if missing:
            logger.warning(
                "%s: the region to segment was not found for %s, which is left empty. Check the image.",
                file,
                ", ".join(missing),
            )
        return result

    def _labels(self, image: MetaTensor, name: str) -> _Array:
        """Label a crop on its own grid, ``(H, W, D)``."""
        guard = self.last.guard
        if guard is not None:
            guard.look(name, image, image.affine)
        done = self.last.evaluator.process(self.preprocessing({CommonKeys.IMAGE: image}))[CommonKeys.PRED]
        labels: _Array = np.asarray(done.cpu())[0].astype(np.int64)
        if labels.shape != image.shape[1:]:
            raise ValueError(
                f"{name}: postprocessing must bring labels back to the grid of the image {tuple(image.shape[1:])}, got "
                f"{labels.shape}. Use Invertd first."
            )
        if guard is not None:
            size_ml = voxel_ml(image.affine.cpu())
            volumes = {label: int((labels == value).sum()) * size_ml for value, label in self.pair.labels.items()}
            guard.check_result(name, volumes)
        return labels
