"""``monai-unetpp benchmark``: its options and output."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from monai_unetpp.benchmark.speed_options import SpeedOptions
from monai_unetpp.choices import DEVICE_HELP
from monai_unetpp.cli.command import Command
from monai_unetpp.cli.terminal import DONE
from monai_unetpp.files import make_output_dir, write_json
from monai_unetpp.options import OUTPUT_FLAGS, add_options

_EXAMPLES = """\
  monai-unetpp benchmark --quick
  monai-unetpp benchmark -o figures.json --plot figures.png
  monai-unetpp benchmark --bundle hippocampus_mri_unetpp --levels L1,L3 --runtimes torch,compile,openvino
"""


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="DEVICE", help=DEVICE_HELP)
    parser.add_argument(*OUTPUT_FLAGS, dest="output", metavar="FILE", help="write the figures to this file as JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw the speed-ups into this PNG file")
    add_options(parser, SpeedOptions, defaults=True)


def _run(output: str | None, **options: Any) -> int:
    from monai_unetpp.benchmark import run_benchmark

    if output is not None:
        # before minutes of measuring
        if os.path.isdir(output):
            raise ValueError(f"output must be a file, got the folder {output!r}. Give it a name, such as figures.json.")
        make_output_dir(Path(output).parent)
    given = {name: value for name, value in options.items() if value is not None}
    text, figures = run_benchmark(**given, progress=True)
    print(text)
    error = figures.pop("plot_error", None)
    if output is not None:
        write_json(output, figures, indent=2)
    if error is not None:
        raise OSError(error)
    return DONE


BENCHMARK = Command(
    "benchmark", "compare the speed of our networks with MONAI's on this machine", _EXAMPLES, _declare, _run
)
