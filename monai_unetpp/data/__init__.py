"""From files to cases: lists, readers, checks and writers.

Public names are loaded on first use, so modules that do not need torch can be imported without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_unetpp.lazy import lazy_names

if TYPE_CHECKING:
    from monai_unetpp.data.datasets.cases import find_cases
    from monai_unetpp.data.datasets.check import check_dataset, check_labelled_data
    from monai_unetpp.data.datasets.datalist import load_datalist
    from monai_unetpp.data.datasets.dataset import CaseDataset, SeededCacheDataset
    from monai_unetpp.data.datasets.description import DataSetDescription, describe_data_set
    from monai_unetpp.data.datasets.label_names import find_ignore_label
    from monai_unetpp.data.formats.exhaustion import describe_case_failure
    from monai_unetpp.data.formats.grid import ImageGeometry, check_grid, compare_geometry
    from monai_unetpp.data.formats.image_errors import ImageFileError, describe_failure
    from monai_unetpp.data.formats.naming import case_name
    from monai_unetpp.data.formats.reader import VolumeReader, read_geometry
    from monai_unetpp.data.transforms.background import (
        AboveMean,
        ClearBackgroundd,
        CropBackgroundd,
        LevelSurroundd,
        find_surround,
    )
    from monai_unetpp.data.transforms.instances import SplitInstances, SplitInstancesd
    from monai_unetpp.data.transforms.intensity import (
        ImageKind,
        InvertBrightBackground,
        InvertBrightBackgroundd,
        kind_weights,
    )
    from monai_unetpp.data.transforms.inversion import InvertProbabilitiesd
    from monai_unetpp.data.transforms.label_transforms import CheckLabelsd, OneHotLabelsd, RandCropByKnownLabeld
    from monai_unetpp.data.transforms.spacing import BlockwiseSpacingd
    from monai_unetpp.data.transforms.standardization import StandardizeIntensityd
    from monai_unetpp.data.transforms.surround_search import Surround
    from monai_unetpp.data.writer import SegmentationSaveImaged, write_volume

_HOMES = {
    ".transforms.background": ("AboveMean", "ClearBackgroundd", "CropBackgroundd", "LevelSurroundd", "find_surround"),
    ".datasets.cases": ("find_cases",),
    ".datasets.check": ("check_dataset", "check_labelled_data"),
    ".datasets.datalist": ("load_datalist",),
    ".datasets.dataset": ("CaseDataset", "SeededCacheDataset"),
    ".datasets.description": ("DataSetDescription", "describe_data_set"),
    ".formats.exhaustion": ("describe_case_failure",),
    ".formats.grid": ("ImageGeometry", "check_grid", "compare_geometry"),
    ".formats.image_errors": ("ImageFileError", "describe_failure"),
    ".transforms.instances": ("SplitInstances", "SplitInstancesd"),
    ".transforms.intensity": ("ImageKind", "InvertBrightBackground", "InvertBrightBackgroundd", "kind_weights"),
    ".transforms.inversion": ("InvertProbabilitiesd",),
    ".datasets.label_names": ("find_ignore_label",),
    ".transforms.label_transforms": ("CheckLabelsd", "OneHotLabelsd", "RandCropByKnownLabeld"),
    ".formats.naming": ("case_name",),
    ".formats.reader": ("VolumeReader", "read_geometry"),
    ".transforms.spacing": ("BlockwiseSpacingd",),
    ".transforms.standardization": ("StandardizeIntensityd",),
    ".transforms.surround_search": ("Surround",),
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
