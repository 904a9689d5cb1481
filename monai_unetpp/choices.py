"""Names that users choose by: runtimes, precisions, devices, bundles. Importing this module takes no torch."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = [
    "BUNDLE_HELP",
    "DEVICE_HELP",
    "FORMS_HELP",
    "PRECISIONS",
    "RUNTIMES",
    "Precision",
    "Runtime",
]

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

Runtime = Literal["auto", "torch", "compile", "openvino"]
RUNTIMES: tuple[str, ...] = get_args(Runtime)

BUNDLE_HELP = (
    "folder of a bundle, or one that comes with the package: brain_tissue_mri_unetpp, fetal_brain_mri_unetpp, "
    "head_mri_unetpp, hippocampus_mri_unetpp or nuclei_microscopy_unetpp, or the beginning of its name"
)
DEVICE_HELP = "cpu, gpu (or cuda), cuda:1, ... (default: a GPU if there is one, else the CPU)"
FORMS_HELP = "dataset.json in Decathlon or nnU-Net form, or with images and labels of the same names in two folders"
