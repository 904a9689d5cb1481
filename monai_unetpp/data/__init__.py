"""From files to cases: lists, readers, checks and writers.

Public names are loaded on first use, so modules that do not need torch can be imported without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_unetpp.lazy import lazy_names

if TYPE_CHECKING:
    from monai_unetpp.data.background import ClearBackgroundd, CropBackgroundd, LevelSurroundd
    from monai_unetpp.data.cases import find_cases
    from monai_unetpp.data.check import check_dataset, check_labelled_data
    from monai_unetpp.data.datalist import load_datalist
    from monai_unetpp.data.dataset import CaseDataset, SeededCacheDataset
    from monai_unetpp.data.description import DataSetDescription, describe_data_set
    from monai_unetpp.data.exhaustion import describe_case_failure
    from monai_unetpp.data.foreground import AboveMean
    from monai_unetpp.data.geometry import read_geometry
    from monai_unetpp.data.grid import ImageGeometry, check_grid, compare_geometry
    from monai_unetpp.data.image_errors import ImageFileError, describe_failure
    from monai_unetpp.data.instances import SplitInstances, SplitInstancesd
    from monai_unetpp.data.intensity import ImageKind, InvertBrightBackground, InvertBrightBackgroundd, kind_weights
    from monai_unetpp.data.inversion import InvertProbabilitiesd
    from monai_unetpp.data.label_names import find_ignore_label
    from monai_unetpp.data.label_transforms import CheckLabelsd, OneHotLabelsd, RandCropByKnownLabeld
    from monai_unetpp.data.naming import case_name
    from monai_unetpp.data.reader import VolumeReader
    from monai_unetpp.data.spacing import BlockwiseSpacingd
    from monai_unetpp.data.standardization import StandardizeIntensityd
    from monai_unetpp.data.surround import Surround, find_surround
    from monai_unetpp.data.writer import SegmentationSaveImaged, write_volume

_HOMES = {
    ".background": ("ClearBackgroundd", "CropBackgroundd", "LevelSurroundd"),
    ".cases": ("find_cases",),
    ".check": ("check_dataset", "check_labelled_data"),
    ".datalist": ("load_datalist",),
    ".dataset": ("CaseDataset", "SeededCacheDataset"),
    ".description": ("DataSetDescription", "describe_data_set"),
    ".exhaustion": ("describe_case_failure",),
    ".geometry": ("read_geometry",),
    ".grid": ("ImageGeometry", "check_grid", "compare_geometry"),
    ".foreground": ("AboveMean",),
    ".image_errors": ("ImageFileError", "describe_failure"),
    ".instances": ("SplitInstances", "SplitInstancesd"),
    ".intensity": ("ImageKind", "InvertBrightBackground", "InvertBrightBackgroundd", "kind_weights"),
    ".inversion": ("InvertProbabilitiesd",),
    ".label_names": ("find_ignore_label",),
    ".label_transforms": ("CheckLabelsd", "OneHotLabelsd", "RandCropByKnownLabeld"),
    ".naming": ("case_name",),
    ".reader": ("VolumeReader",),
    ".spacing": ("BlockwiseSpacingd",),
    ".standardization": ("StandardizeIntensityd",),
    ".surround": ("Surround", "find_surround"),
    ".writer": ("SegmentationSaveImaged", "write_volume"),
}

__all__ = [
    "AboveMean",
    "BlockwiseSpacingd",
    "CaseDataset",
    "CheckLabelsd",
    "ClearBackgroundd",
    "CropBackgroundd",
    "DataSetDescription",
    "ImageFileError",
    "ImageGeometry",
    "ImageKind",
    "InvertBrightBackground",
    "InvertBrightBackgroundd",
    "InvertProbabilitiesd",
    "LevelSurroundd",
    "OneHotLabelsd",
    "RandCropByKnownLabeld",
    "SeededCacheDataset",
    "SegmentationSaveImaged",
    "SplitInstances",
    "SplitInstancesd",
    "StandardizeIntensityd",
    "Surround",
    "VolumeReader",
    "case_name",
    "check_dataset",
    "check_grid",
    "check_labelled_data",
    "compare_geometry",
    "describe_case_failure",
    "describe_data_set",
    "describe_failure",
    "find_cases",
    "find_ignore_label",
    "find_surround",
    "kind_weights",
    "load_datalist",
    "read_geometry",
    "write_volume",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
