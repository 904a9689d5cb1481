"""``monai-unetpp export``: what it takes and prints."""

from __future__ import annotations

import argparse
import os
from typing import Any

from monai_unetpp.cli.command import Command
from monai_unetpp.cli.terminal import DONE
from monai_unetpp.options import add_input, as_level

__all__ = ["EXPORT"]

_EXAMPLES = """\
  monai-unetpp export hippocampus_mri_unetpp -o network.onnx --level L2
  monai-unetpp export hippocampus_mri_unetpp -o network.pt2 --dynamic_batch
  monai-unetpp export model.pt -o network.xml --window_shape 96 96 96 --batch_size 2
"""


def _declare(parser: argparse.ArgumentParser) -> None:
    add_input(
        parser,
        "source",
        ("-i", "--input"),
        metavar="BUNDLE_OR_CHECKPOINT",
        help="name or folder of a bundle, or a checkpoint",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="file to write: .pt2 (torch.export), .ts (TorchScript), .onnx, .xml (OpenVINO) or .ep (TensorRT)",
    )
    parser.add_argument(
        "--format",
        choices=["torch_export", "torchscript", "onnx", "openvino", "tensorrt"],
        help="what to write (default: what the file's suffix says)",
    )
    parser.add_argument(
        "--level",
        type=as_level,
        metavar="LEVEL",
        help="L1 or 1, L2, ...: only what this level needs (default: deepest)",
    )
    parser.add_argument(
        "--window_shape",
        nargs="+",
        type=int,
        metavar="SIZE",
        help="spatial size of the input, one per axis (default: what the bundle's metadata say)",
    )
    parser.add_argument("--batch_size", type=int, default=1, metavar="N", help="windows at once (default: %(default)s)")
    parser.add_argument("--dynamic_batch", action="store_true", help="let the file take any number of windows")


def _run(source: str, output: str, format: str | None, **options: Any) -> int:
    from monai_unetpp.export import FORMATS, export_checkpoint

    by_suffix = {entry.suffix: name for name, entry in FORMATS.items()}
    suffix = os.path.splitext(output)[1]
    if format is None and suffix not in by_suffix:
        raise ValueError(f"output must end in one of {', '.join(by_suffix)}, got {output!r}. Or give --format.")
    result = export_checkpoint(source, output, format or by_suffix[suffix], **options)
    shape = " x ".join("any" if size is None else str(size) for size in result.input_shape)
    print(
        f"{result.path}: level {result.level}, {result.parameters:,} parameters, for input {shape}; differs from the "
        f"network by {result.largest_difference:.1e} of its largest logit at most"
    )
    return DONE


EXPORT = Command("export", "write a network for other programs, and check the file", _EXAMPLES, _declare, _run)
