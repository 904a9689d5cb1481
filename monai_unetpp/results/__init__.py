"""What lies beside label maps in a folder of results: tables of colours and volumes, and how they were made."""

from monai_unetpp.results.colour_tables import TABLE_FILES, itk_snap_table, slicer_table
from monai_unetpp.results.folder import ResultFolder
from monai_unetpp.results.run_record import RUN_FILE, RecordedCase, collecting_warnings, hash_image, read_runs
from monai_unetpp.results.volumes import VOLUMES_FILE, LabelVolume, measure_labels

__all__ = [
    "RUN_FILE",
    "TABLE_FILES",
    "VOLUMES_FILE",
    "LabelVolume",
    "RecordedCase",
    "ResultFolder",
    "collecting_warnings",
    "hash_image",
    "itk_snap_table",
    "measure_labels",
    "read_runs",
    "slicer_table",
]
