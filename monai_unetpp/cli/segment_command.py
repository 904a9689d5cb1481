"""``monai-unetpp segment``: its options and output."""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from monai_unetpp.cli.command import Command
from monai_unetpp.cli.quiet import shown
from monai_unetpp.cli.terminal import CASES_FAILED, DONE, fail, is_first_process, show_failures, show_rows, show_table
from monai_unetpp.errors import printable
from monai_unetpp.options import add_options
from monai_unetpp.reporting.numbers import decimal, percent
from monai_unetpp.reporting.tables import Table
from monai_unetpp.segmentation_options import SegmentationOptions

if TYPE_CHECKING:
    from monai_unetpp.segmentation import SegmentationSummary

#: With more labels than this, each gets a row instead of a column.
_WIDEST = 8

_EXAMPLES = """\
  monai-unetpp segment scan.nii.gz --bundle head_mri_unetpp -o segmentations
  monai-unetpp segment scans dicom_series --bundle head_mri_unetpp --mask -o segmentations --level L2
  monai-unetpp segment cells.png --bundle nuclei --instances -o results
  monai-unetpp segment cells --bundle nuclei_microscopy_unetpp -o results --adaptive 0.033
  monai-unetpp segment my_dataset --bundle my_bundle --list_key validation -o segmentations
  monai-unetpp segment scans --bundle my_bundle -o segmentations --json > volumes.json
  monai-unetpp segment bids_data_set --bundle my_bundle --suffix T1w --skip_existing
  monai-unetpp segment cohort --bundle my_bundle -o segmentations --skip_existing --shard 3/40
  monai-unetpp segment study --bundle my_bundle -o segmentations --series all --dicom_seg
  monai-unetpp segment scan.nii.gz --bundle hippocampus_mri_unetpp --within head_mri_unetpp -o segmentations
  monai-unetpp segment scans --bundle my_bundle -o segmentations --no_flips --overlap 0.25 --precision auto --profile

The configurations of a bundle can run Python code (values that begin with $): use only bundles that you trust.
monai-unetpp check BUNDLE lists this code. File names and other arguments are never run as code.
"""


def _declare(parser: argparse.ArgumentParser) -> None:
    add_options(
        parser,
        SegmentationOptions,
        defaults=True,
        groups={
            "speed and accuracy": "the defaults are the bundle's own settings",
            "2D bundles": "for bundles that have these settings",
            "BIDS and DICOM": "for such folders",
        },
    )
    parser.add_argument(
        "--json", dest="json_output", action="store_true", help="print the summary as JSON instead of a table"
    )


def _run(json_output: bool, **options: Any) -> int:
    from monai_unetpp.segmentation import segment_files

    with nullcontext() if json_output else shown("monai_unetpp.inferers.sliding_windows"):
        summary = segment_files(**options, progress=is_first_process())
    # if another process exited with an error, torchrun would end the first one while it prints
    if not is_first_process():
        return DONE
    if json_output:
        print(json.dumps(summary.as_dict(), indent=2))
    elif summary.cases:
        _show_cases(summary)
        if summary.stages:
            print("Where the time went, in seconds:")
            _show_stages(summary)
        print(printable(f"Segmentations are in {summary.output_dir}"))
    if summary.skipped and not json_output:
        print(f"{summary.skipped} skipped, as they were segmented before.")
    for done in summary.cases:
        for problem in done.problems:
            fail(problem)
    code = show_failures(summary.failures, len(summary.cases), "the others are done", "nothing was segmented")
    return CASES_FAILED if summary.problems else code


def _show_cases(summary: SegmentationSummary) -> None:
    names = list(summary.cases[0].volumes_ml)
    counted = any(done.instances is not None for done in summary.cases)
    ran = ", ".join(filter(None, (summary.device, summary.runtime, summary.precision)))
    within = f" within {summary.within}" if summary.within else ""
    print(f"{summary.bundle}{within}, level {summary.level}, on {ran}")
    if summary.depths:
        windows = sum(summary.depths.values())
        shares = ", ".join(f"{level} {percent(count / windows)}" for level, count in summary.depths.items())
        print(f"depth chosen for each of {windows} windows: {shares}")
    if len(names) > _WIDEST:
        _show_long(summary, names)
        return
    show_rows(
        ["case", *(f"{name} (ml)" for name in names), *(["objects"] if counted else []), "seconds"],
        [
            [
                done.case,
                *(decimal(done.volumes_ml[name], 3) for name in names),
                *([str(done.instances)] if counted else []),
                f"{done.seconds:.2f}",
            ]
            for done in summary.cases
        ],
    )


def _show_long(summary: SegmentationSummary, names: list[str]) -> None:
    """The table with a row for each label, if there are too many for columns."""
    cells = ((done.case, name, decimal(done.volumes_ml[name], 3)) for done in summary.cases for name in names)
    show_table(Table.of_rows("", ["case", "label", "ml"], cells, ["case", "label"]))
    show_rows(["case", "seconds"], [[done.case, f"{done.seconds:.2f}"] for done in summary.cases])


def _show_stages(summary: SegmentationSummary) -> None:
    total = sum(summary.stages.values())
    # in the order of the first case, "other" last
    names = sorted(summary.stages, key=lambda name: name == "other")
    rows = [(done.case, done.stages) for done in summary.cases]
    if len(rows) > 1:
        rows.append(("all cases", summary.stages))
    seconds = [
        [case, *(f"{stages.get(name, 0.0):.2f}" for name in names), f"{sum(stages.values()):.2f}"]
        for case, stages in rows
    ]
    shares = ["share (%)", *(f"{100 * summary.stages[name] / total:.0f}" for name in names), "100"]
    show_rows(["case", *names, "sum"], [*seconds, shares])


SEGMENT = Command("segment", "segment images with a bundle", _EXAMPLES, _declare, _run, "finished cases")
