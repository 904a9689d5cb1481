"""Bundles in the layout of MONAI's model zoo: finding, reading, loading and checking them offline."""

from monai_unetpp.bundles.checking import check_bundle
from monai_unetpp.bundles.configuration import BundleConfig, bundle_code
from monai_unetpp.bundles.finding import BUNDLES_VARIABLE, find_bundle, list_bundles
from monai_unetpp.bundles.integrity import WEIGHTS_FILE, hash_file, weights_entry
from monai_unetpp.bundles.loading import load_network, read_metadata, read_metadata_entry, read_network_def
from monai_unetpp.bundles.training_record import TrainingRecord, read_training_record, write_training_record

__all__ = [
    "BUNDLES_VARIABLE",
    "WEIGHTS_FILE",
    "BundleConfig",
    "TrainingRecord",
    "bundle_code",
    "check_bundle",
    "find_bundle",
    "hash_file",
    "list_bundles",
    "load_network",
    "read_metadata",
    "read_metadata_entry",
    "read_network_def",
    "read_training_record",
    "weights_entry",
    "write_training_record",
]
