"""Files beside the label maps in a folder of results: tables of colours and volumes, and the record of the run."""

from monai_unetpp.data.formats.result_marks import RUN_FILE, read_runs
from monai_unetpp.results.bids import write_bids_description
from monai_unetpp.results.colour_tables import TABLE_FILES, itk_snap_table, slicer_table
from monai_unetpp.results.earlier import EarlierResults
from monai_unetpp.results.folder import ResultFolder
from monai_unetpp.results.inputs import RunInputs, leave_out_finished, outdated_beside
from monai_unetpp.results.run_record import RecordedCase, collecting_warnings, hash_image
from monai_unetpp.results.volumes import VOLUMES_FILE, LabelVolume, measure_file, measure_labels

__all__ = [
    "RUN_FILE",
    "TABLE_FILES",
    "VOLUMES_FILE",
    "EarlierResults",
    "LabelVolume",
    "RecordedCase",
    "ResultFolder",
    "RunInputs",
    "collecting_warnings",
    "hash_image",
    "itk_snap_table",
    "leave_out_finished",
    "measure_file",
    "measure_labels",
    "outdated_beside",
    "read_runs",
    "slicer_table",
    "write_bids_description",
]
