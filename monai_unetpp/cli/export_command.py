"""``monai-unetpp export``: its options and output."""

from __future__ import annotations

import argparse
import os
from typing import Any

from monai_unetpp.choices import EXPORT_SUFFIXES, RUNNER_NETWORKS, RUNNER_PRECISIONS
from monai_unetpp.cli.command import Command
from monai_unetpp.cli.terminal import DONE
from monai_unetpp.options import OUTPUT_FLAGS, OnOrOff, add_input, as_level
from monai_unetpp.reporting.numbers import percent

_EXAMPLES = """\
  monai-unetpp export hippocampus_mri_unetpp -o network.onnx --level L2
  monai-unetpp export hippocampus_mri_unetpp -o network.pt2 --dynamic_batch
  monai-unetpp export model.pt -o network.xml --window_shape 96 96 96 --batch_size 2
  monai-unetpp export hippocampus_mri_unetpp -o folder --format runner --level L2
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
        *OUTPUT_FLAGS,
        dest="output",
        required=True,
        metavar="FILE_OR_FOLDER",
        help="file to write: .pt2 (torch.export), .ts (TorchScript), .onnx, .xml (OpenVINO) or .ep (TensorRT); a "
        "folder for --format runner",
    )
    parser.add_argument(
        "--format",
        choices=[*EXPORT_SUFFIXES, "runner"],
        help="format (default: by the file's suffix); runner: a folder with the whole pipeline from image to "
        "labels, for python -m monai_unetpp.runner",
    )
    parser.add_argument(
        "--level",
        type=as_level,
        metavar="LEVEL",
        help="L1 or 1, L2, ...: export only the nodes that this level needs (default: the one that the bundle "
        "runs; for a checkpoint, the deepest)",
    )
    parser.add_argument(
        "--window_shape",
        nargs="+",
        type=_as_size,
        metavar="SIZE",
        help="spatial size of the input, one number per axis (default: from the bundle's metadata); auto, only for "
        "--format runner: as few and as large windows as memory allows, for networks with batch norm",
    )
    parser.add_argument(
        "--batch_size", type=int, default=1, metavar="N", help="windows per call (default: %(default)s)"
    )
    parser.add_argument(
        "--precision",
        choices=RUNNER_PRECISIONS,
        help=f"precision of the runner (only for --format runner; default: {RUNNER_PRECISIONS[0]}); int8 needs "
        "--calibration",
    )
    parser.add_argument(
        "--calibration",
        metavar="DATASET_DIR",
        help="folder of a data set whose training cases calibrate int8 (only for --format runner)",
    )
    parser.add_argument(
        "--network_format",
        choices=RUNNER_NETWORKS,
        help=f"format of the network in the folder (only for --format runner; default: {RUNNER_NETWORKS[0]})",
    )
    parser.add_argument(
        "--smooth",
        "--no_smooth",
        action=OnOrOff,
        help="interpolate each class on the image's grid, or the labels (format runner only, default: the bundle's)",
    )
    parser.add_argument("--dynamic_batch", action="store_true", help="accept any number of windows per call")


def _as_size(text: str) -> int | str:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"must be whole numbers, or auto, got {text!r}") from e


def _run(source: str, output: str, format: str | None, **options: Any) -> int:
    of_runner = {name: options.pop(name) for name in ("precision", "network_format", "calibration", "smooth")}
    given = {name: value for name, value in of_runner.items() if value is not None}
    if format == "runner":
        return _run_runner(source, output, **given, **options)
    if "auto" in (options["window_shape"] or ()):
        raise ValueError("window_shape must be whole numbers, got auto. Give one size per axis, or --format runner.")
    if given:
        raise ValueError(f"{next(iter(given))} must be left out, or given with --format runner.")
    from monai_unetpp.export import export_checkpoint

    by_suffix = {suffix: name for name, suffix in EXPORT_SUFFIXES.items()}
    suffix = os.path.splitext(output)[1].lower()
    if format is None and suffix not in by_suffix:
        raise ValueError(
            f"output must end in one of {', '.join(by_suffix)}, got {output!r}. For a folder with the whole pipeline, "
            "give --format runner."
        )
    result = export_checkpoint(source, output, format or by_suffix[suffix], **options)
    shape = " x ".join("any" if size is None else str(size) for size in result.input_shape)
    print(
        f"{result.path}: level {result.level}, {result.parameters:,} parameters, input {shape}; differs from the "
        f"network by at most {result.largest_difference:.1e} of its largest logit"
    )
    return DONE


def _run_runner(source: str, output: str, batch_size: int, dynamic_batch: bool, **options: Any) -> int:
    from monai_unetpp.export import export_runner

    if batch_size != 1 or dynamic_batch:
        raise ValueError("batch_size and dynamic_batch must be left out with --format runner. It takes one window.")
    if options["window_shape"] == ["auto"]:
        options["window_shape"] = "auto"
    result = export_runner(source, output, **options)
    same = (
        ""
        if result.same_labels is None
        else f", {percent(result.same_labels, '.2f')} of the voxels tried labelled as in fp32"
    )
    print(
        f"{result.path}: level {result.pipeline.level}, {result.network.parameters:,} parameters, "
        f"{result.size_bytes / 1e6:.1f} MB{same}; run it with python -m monai_unetpp.runner {result.path} IMAGE -o OUT"
    )
    return DONE


EXPORT = Command("export", "export a network for other programs, and check the file", _EXAMPLES, _declare, _run)
