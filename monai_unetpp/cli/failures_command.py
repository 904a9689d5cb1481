"""``monai-unetpp failures``: its options and output."""

from __future__ import annotations

import argparse
import os
from typing import Any

from monai_unetpp.cli.command import Command
from monai_unetpp.cli.terminal import show_failures, show_table
from monai_unetpp.errors import printable
from monai_unetpp.failures.failure_options import FailureOptions
from monai_unetpp.options import add_options

_EXAMPLES = """\
  monai-unetpp failures --dataset_dir DATA --segmentations segmentations -o failures
  monai-unetpp failures --dataset_dir DATA --segmentations segmentations -o failures --label tumour --worst 20
  monai-unetpp failures --dataset_dir DATA --list_key training -o kinds

Make the segmentations with: monai-unetpp segment DATA --bundle BUNDLE --list_key validation -o segmentations
Images are grouped by size and by background (dark or bright), volumes by the largest voxel spacing. Output:
failures.md, failures.png with the worst cases, and failures.json with the figures of all cases.
"""


def _declare(parser: argparse.ArgumentParser) -> None:
    add_options(parser, FailureOptions, defaults=True)


def _run(output_dir: str, **options: Any) -> int:
    from monai_unetpp.failures import find_failures
    from monai_unetpp.failures.kind_tables import kind_table

    report = find_failures(output_dir=output_dir, **options, progress=True)
    if report.cases:
        show_table(kind_table(report))
    if report.worst:
        print(f"Worst cases: {', '.join(map(printable, report.worst))}")
    print(f"Report: {printable(os.path.join(output_dir, 'failures.md'))}")
    return show_failures(report.failures.values(), len(report.cases), "the others are in the report", "no case is left")


FAILURES = Command(
    "failures", "show which kinds of images and which cases are segmented badly", _EXAMPLES, _declare, _run
)
