"""Describe a run and its bundles for ``run.json``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from monai_unetpp.bundles import WEIGHTS_FILE, read_metadata
from monai_unetpp.chaining.chain import Chain
from monai_unetpp.files import hash_file
from monai_unetpp.measuring.environment import command_line, software_versions
from monai_unetpp.segmentation_options import ABOUT_FILES, SegmentationOptions

#: Entries of a bundle's metadata that results depend on.
_SHAPING = ("labels", "network_data_format", "within", "brain_mask", "totals", "label_codes")


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
