"""Bundles in the layout of MONAI's model zoo: finding, reading, loading and checking them offline.

Public names are loaded on first use, so that bundles can be found and listed without importing MONAI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_unetpp.lazy import lazy_names

if TYPE_CHECKING:
    from monai_unetpp.bundles.checking import check_bundle
    from monai_unetpp.bundles.configuration import BundleConfig, bundle_code
    from monai_unetpp.bundles.finding import BUNDLES_VARIABLE, find_bundle, list_bundles
    from monai_unetpp.bundles.integrity import WEIGHTS_FILE, weights_entry
    from monai_unetpp.bundles.loading import (
        label_names,
        load_network,
        read_metadata,
        read_metadata_entry,
        read_network_def,
        read_network_names,
    )
    from monai_unetpp.bundles.overview import BundleLevel, BundleOverview, list_overviews
    from monai_unetpp.bundles.training_record import (
        TrainingRecord,
        read_training_record,
        warn_of_known_cases,
        write_training_record,
    )
    from monai_unetpp.files import hash_file

_HOMES = {
    ".checking": ("check_bundle",),
    ".configuration": ("BundleConfig", "bundle_code"),
    ".finding": ("BUNDLES_VARIABLE", "find_bundle", "list_bundles"),
    ".integrity": ("WEIGHTS_FILE", "weights_entry"),
    ".loading": (
        "label_names",
        "load_network",
        "read_metadata",
        "read_metadata_entry",
        "read_network_def",
        "read_network_names",
    ),
    ".overview": ("BundleLevel", "BundleOverview", "list_overviews"),
    ".training_record": (
        "TrainingRecord",
        "read_training_record",
        "warn_of_known_cases",
        "write_training_record",
    ),
    "monai_unetpp.files": ("hash_file",),
}

__all__ = [
    "BUNDLES_VARIABLE",
    "WEIGHTS_FILE",
    "BundleConfig",
    "BundleLevel",
    "BundleOverview",
    "TrainingRecord",
    "bundle_code",
    "check_bundle",
    "find_bundle",
    "hash_file",
    "label_names",
    "list_bundles",
    "list_overviews",
    "load_network",
    "read_metadata",
    "read_metadata_entry",
    "read_network_def",
    "read_network_names",
    "read_training_record",
    "warn_of_known_cases",
    "weights_entry",
    "write_training_record",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
