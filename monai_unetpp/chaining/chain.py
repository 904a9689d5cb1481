"""The bundles of a run, a single one, or a second one within a first, and what ``run.json`` records of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from monai.transforms import Compose, CopyItemsd, Orientationd

from monai_unetpp.bundles import WEIGHTS_FILE, find_bundle, read_metadata
from monai_unetpp.bundles.json_files import METADATA_FILE
from monai_unetpp.bundles.loading import read_brain_mask, read_totals
from monai_unetpp.chaining.crops import BrainMaskd
from monai_unetpp.chaining.loaded_bundle import LoadedBundle
from monai_unetpp.chaining.pair import Pair, read_pair
from monai_unetpp.chaining.within import SCAN, SegmentWithind
from monai_unetpp.data import SegmentationSaveImaged
from monai_unetpp.data.transforms.after_loading import insert_after_loading
from monai_unetpp.engines import CaseResult
from monai_unetpp.files import hash_file
from monai_unetpp.measuring.environment import command_line, software_versions
from monai_unetpp.results import LabelVolume, RunInputs, measure_labels
from monai_unetpp.segmentation_options import ABOUT_FILES, SegmentationOptions

_MASK = "mask"
#: Entries of a bundle's metadata that results depend on.
_SHAPING = ("labels", "network_data_format", "within", "brain_mask", "totals", "label_codes")


@dataclasses.dataclass(frozen=True)
class Chain:
    """The bundles that segment the cases of a run.

    Attributes:
        first: the bundle that takes the cases: that of ``within``, if given.
        last: the bundle that finds the labels; the same if there is only one.
        totals: labels of the first to sum, by the name of the sum.
        pair: how the last works within the first; None if there is only one.
        step: the step that runs the last; None likewise.
    """

    first: LoadedBundle
    last: LoadedBundle
    totals: dict[str, tuple[int, ...]]
    pair: Pair | None = None
    step: SegmentWithind | None = None

    @classmethod
    def load(cls, folder: Path, chosen: SegmentationOptions, inputs: RunInputs) -> Chain:
        """Load the bundles of a run.

        Args:
            folder: folder of the bundle that finds the labels.
            chosen: the user's options, including whether it works within another.
            inputs: the images.

        Raises:
            FileNotFoundError: as for :meth:`LoadedBundle.load`, or the bundle of ``within`` is missing.
            ValueError: as for :meth:`LoadedBundle.load`, or the metadata does not say how the bundles work together.
        """
        if chosen.within is None:
            last = first = LoadedBundle.load(folder, chosen, inputs, chosen.settings())
            chain = cls(first, last, read_totals(folder, first.labels))
        else:
            chain = cls._within(find_bundle(chosen.within), folder, chosen, inputs)
        if first_guard := chain.first.guard:
            first_guard.watch(chain.first.transform)
        if chosen.mask:
            values = read_brain_mask(chain.first.folder, chain.first.labels)
            saver = SegmentationSaveImaged(
                _MASK, inputs.output_dir, _MASK, overwrite=chosen.overwrite, labels={1: "brain"}
            )
            chain.first.evaluator.add_postprocessing(BrainMaskd("pred", values, _MASK))
            chain.first.evaluator.add_saver(saver)
        # after the mask, which is made from the labels of the first
        if chain.step is not None:
            chain.first.evaluator.add_postprocessing(chain.step)
        return chain

    @classmethod
    def _within(cls, outer: Path, folder: Path, chosen: SegmentationOptions, inputs: RunInputs) -> Chain:
        first = LoadedBundle.load(outer, chosen, inputs, chosen.settings_within())
        settings = {key: value for key, value in chosen.settings().items() if key not in ABOUT_FILES}
        last = LoadedBundle.load(folder, chosen, inputs, settings, is_second=True)
        for bundle in (first, last):
            if bundle.network.spatial_dims != 3:
                raise ValueError(f"within is for 3D bundles, but {bundle.folder.name} is 2D. Leave it out.")
        pair = read_pair(folder, last.labels, outer, first.labels)
        if any(crop.mirrored for crop in pair.crops) and not _sees_sides(last):
            raise ValueError(
                f"{folder / METADATA_FILE}: within has mirrored crops, but the bundle takes voxels as they are stored, "
                "without Orientationd, and cannot see which side is mirrored. Leave 'mirrored' out, or use a bundle "
                "with an orientation."
            )
        if not insert_after_loading(first.transform, CopyItemsd("image", names=SCAN)):
            raise ValueError(
                f"within needs a bundle whose preprocessing begins with LoadImaged, but that of {outer.name} does "
                "not. Use another bundle."
            )
        step = SegmentWithind("pred", pair, first, last)
        return cls(first, last, read_totals(outer, first.labels), pair, step)

    @property
    def names(self) -> dict[int, str]:
        """The labels in the label maps, name by value; none if these number objects."""
        if self.last.evaluator.numbers_objects:
            return {}
        return dict(self.last.labels) if self.pair is None else self.pair.names

    def measure(self, done: CaseResult) -> tuple[LabelVolume, ...]:
        """The sizes of the labels of a finished case, and their sums."""
        ml = done.volumes_ml if self.first.network.spatial_dims == 3 else None
        if self.step is None:
            return measure_labels(self.names, done.voxels, ml, self.totals)
        voxels, voxel_ml = self.step.found.pop(done.file, ({}, 0.0))
        found_ml = {value: count * voxel_ml for value, count in voxels.items()}
        return (*measure_labels(self.names, done.voxels, ml), *measure_labels({}, voxels, found_ml, self.totals))

    def depths(self, done: CaseResult) -> dict[str, int]:
        """Windows of a finished case by the level at which they stopped; within another bundle those of all crops."""
        return done.depths if self.step is None else self.step.depths.pop(done.file, {})


def _sees_sides(bundle: LoadedBundle) -> bool:
    """Whether a bundle brings images to one orientation, so that its network sees which side of space is mirrored."""
    steps = bundle.transform
    return isinstance(steps, Compose) and any(isinstance(step, Orientationd) for step in steps.flatten().transforms)


def describe_run(chosen: SegmentationOptions, chain: Chain) -> dict[str, Any]:
    """What ``run.json`` records of a run before it starts."""
    return {
        "command": command_line(),
        "options": {key: to_json_value(value) for key, value in chosen.settings().items() if key not in ABOUT_FILES},
        "bundle": _described_bundle(chain.last.folder),
        **({} if chain.pair is None else {"within": _described_bundle(chain.first.folder)}),
        "versions": software_versions("nibabel", "SimpleITK", "highdicom", "openvino"),
    }


def _described_bundle(folder: Path) -> dict[str, Any]:
    metadata = read_metadata(folder)
    shaping = json.dumps({key: metadata[key] for key in _SHAPING if key in metadata}, sort_keys=True)
    weights, settings = folder / WEIGHTS_FILE, folder / "configs" / "inference.json"
    return {
        "name": folder.name,
        "folder": str(folder),
        "version": str(metadata.get("version", "")),
        "weights": WEIGHTS_FILE,
        "sha256": hash_file(weights) if weights.is_file() else None,
        "settings_sha256": hash_file(settings) if settings.is_file() else None,
        "metadata_sha256": hashlib.sha256(shaping.encode()).hexdigest(),
    }


def to_json_value(value: Any) -> Any:
    """``value`` as it is read back from JSON, or as text."""
    return json.loads(json.dumps(value, default=str))
