"""From files to cases: lists, readers, checks and writers."""

from monai_unetpp.data.background import ClearBackgroundd, CropBackgroundd, LevelSurroundd
from monai_unetpp.data.cases import case_name, find_cases
from monai_unetpp.data.check import check_dataset
from monai_unetpp.data.datalist import load_datalist
from monai_unetpp.data.dataset import CaseDataset
from monai_unetpp.data.errors import ImageFileError, describe_failure
from monai_unetpp.data.geometry import ImageGeometry, check_same_geometry, compare_geometry, read_geometry
from monai_unetpp.data.instances import SplitInstances, SplitInstancesd
from monai_unetpp.data.intensity import ImageKind, InvertBrightBackground, InvertBrightBackgroundd, kind_weights
from monai_unetpp.data.inversion import InvertProbabilitiesd
from monai_unetpp.data.reader import VolumeReader
from monai_unetpp.data.spacing import BlockwiseSpacingd
from monai_unetpp.data.standardization import StandardizeIntensityd
from monai_unetpp.data.surround import Surround, find_surround
from monai_unetpp.data.writer import SegmentationSaveImaged, write_volume

__all__ = [
    "BlockwiseSpacingd",
    "CaseDataset",
    "ClearBackgroundd",
    "CropBackgroundd",
    "ImageFileError",
    "ImageGeometry",
    "ImageKind",
    "InvertBrightBackground",
    "InvertBrightBackgroundd",
    "InvertProbabilitiesd",
    "LevelSurroundd",
    "SegmentationSaveImaged",
    "SplitInstances",
    "SplitInstancesd",
    "StandardizeIntensityd",
    "Surround",
    "VolumeReader",
    "case_name",
    "check_dataset",
    "check_same_geometry",
    "compare_geometry",
    "describe_failure",
    "find_cases",
    "find_surround",
    "kind_weights",
    "load_datalist",
    "read_geometry",
    "write_volume",
]
