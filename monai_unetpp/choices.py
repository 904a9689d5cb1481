"""Allowed names of runtimes and precisions, and help texts shared by several commands. Does not import torch."""

from __future__ import annotations

from typing import Any

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
RUNTIMES = ("auto", "torch", "compile", "openvino")

EXPORT_SUFFIXES = {
    "torch_export": ".pt2",
    "torchscript": ".ts",
    "onnx": ".onnx",
    "openvino": ".xml",
    "tensorrt": ".ep",
}
"""Suffixes of exported networks by format."""

RUNNER_NETWORKS = ("openvino", "onnx")
"""Formats of the network in the folder of a runner."""

RUNNER_PRECISIONS = ("fp32", "bf16", "int8")
"""Precisions of the folder of a runner."""

NORMS: tuple[Any, ...] = ("batch", "instance", ["instance", {"affine": True}])
"""Norms of planned networks, as MONAI's factories take them."""

BUNDLE_HELP = (
    "folder of a bundle, or the name of one that comes with the package: brain_tissue_mri_unetpp, "
    "fetal_brain_mri_unetpp, head_mri_unetpp, hippocampus_mri_unetpp or nuclei_microscopy_unetpp; the beginning of "
    "the name is enough"
)
DEVICE_HELP = "cpu, gpu (or cuda), cuda:1, ... (default: a GPU if there is one, else the CPU)"
FORMS_HELP = (
    "dataset.json in Decathlon or nnU-Net form, or with two subfolders, images and labels, whose files have the same "
    "names"
)
SUBJECTS_HELP = "CSV file with the columns case and subject"
SUBJECT_PATTERN_HELP = (
    "regular expression whose one group is the subject in a case's name (default: recognises names that start with "
    "sub-01, patient012 and the like; any other case is its own subject)"
)
