"""Names that users choose by: runtimes, precisions, devices, bundles. Importing this module takes no torch."""

from __future__ import annotations

from typing import Any, Literal, get_args

__all__ = [
    "BUNDLE_HELP",
    "DEVICE_HELP",
    "FORMS_HELP",
    "NORMS",
    "PRECISIONS",
    "RUNTIMES",
    "SUBJECTS_HELP",
    "SUBJECT_PATTERN_HELP",
    "Precision",
    "Runtime",
]

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

Runtime = Literal["auto", "torch", "compile", "openvino"]
RUNTIMES: tuple[str, ...] = get_args(Runtime)

NORMS: tuple[Any, ...] = ("batch", "instance", ["instance", {"affine": True}])
"""Norms of planned networks, as MONAI's factories take them."""

BUNDLE_HELP = (
    "folder of a bundle, or one that comes with the package: brain_tissue_mri_unetpp, head_mri_unetpp, "
    "hippocampus_mri_unetpp or nuclei_microscopy_unetpp, or the beginning of its name"
)
DEVICE_HELP = "cpu, gpu (or cuda), cuda:1, ... (default: a GPU if there is one, else the CPU)"
FORMS_HELP = "dataset.json in Decathlon or nnU-Net form, or with images and labels of the same names in two folders"
SUBJECTS_HELP = "CSV file with the columns case and subject"
SUBJECT_PATTERN_HELP = (
    "regular expression whose one group is the subject in a case's name (default: sub-..., patient and a number or the "
    "like at the beginning; every other case counts as its own subject)"
)
