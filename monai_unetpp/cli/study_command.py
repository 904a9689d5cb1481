"""``monai-unetpp study``: its options and output."""

from __future__ import annotations

import argparse
from typing import Any

from monai_unetpp.choices import DEVICE_HELP, FORMS_HELP, SUBJECT_PATTERN_HELP, SUBJECTS_HELP
from monai_unetpp.cli.command import Command
from monai_unetpp.cli.terminal import CASES_FAILED, DONE, fail, is_first_process, say, show_rows
from monai_unetpp.errors import counted
from monai_unetpp.options import OUTPUT_FLAGS, add_input, add_options
from monai_unetpp.study.design import RunOptions, StudySettings

_EXAMPLES = """\
  monai-unetpp study --dataset_dir Task04_Hippocampus -o study --list
  monai-unetpp study --dataset_dir nuclei -o study --budget 1500 --seeds 0 1 2
  monai-unetpp study --dataset_dir nuclei -o row --variants unet_L4 unet++_ds
  monai-unetpp study --dataset_dir nuclei -o study --seeds 0 1 2 --shard 1/2
  monai-unetpp study --dataset_dir nuclei -o study --report_only

This trains U-Nets of every depth, a wide U-Net with as many parameters as UNet++ (unless the features are too few),
U-Net^e, UNet+, UNet++ with and without deep supervision, and single levels of UNet++, all on the same patches with the
same loss, schedule and number of steps. The final weights are scored on the validation list. After an interruption,
run the same command again: it continues from the last checkpoint and repeats nothing that is finished. Settings that
are not given are those of the first run in the folder.

For several GPUs: torchrun --nproc_per_node=N -m monai_unetpp study ...
"""


def _declare(parser: argparse.ArgumentParser) -> None:
    add_input(
        parser,
        "dataset_dir",
        ("-i", "--input", "--dataset_dir"),
        metavar="DATASET_DIR",
        help=f"folder with {FORMS_HELP}; 2D or 3D",
    )
    parser.add_argument(
        *OUTPUT_FLAGS,
        dest="output_dir",
        required=True,
        metavar="DIR",
        help="folder for runs, study.md, study.json, accuracy.png and curves.png",
    )
    parser.add_argument("--device", metavar="DEVICE", help=DEVICE_HELP)
    parser.add_argument("--subjects", metavar="FILE", help=SUBJECTS_HELP)
    parser.add_argument("--subject_pattern", metavar="REGEX", help=SUBJECT_PATTERN_HELP)
    parser.add_argument(
        "--list", dest="list_only", action="store_true", help="list the runs and their state; train nothing"
    )
    parser.add_argument("--report_only", action="store_true", help="report the finished runs; train nothing")
    # options that are not given are None: the configuration, the folder or the default then applies
    add_options(parser, RunOptions)
    terms = parser.add_argument_group("settings, the same for all runs in a folder")
    terms.add_argument(
        "--config",
        metavar="FILE",
        help="JSON object with any of these settings, variants and seeds; options on the command line take precedence",
    )
    add_options(terms, StudySettings)


def _run(list_only: bool, **options: Any) -> int:
    from monai_unetpp.study import run_study

    outcome = run_study(**options, list_only=list_only, progress=say)
    # if another process exited with an error, torchrun would end this one
    if not is_first_process():
        return DONE
    if list_only:
        rows = [
            (
                run.variant.name,
                str(run.seed),
                f"{run.parameters:,}",
                " ".join(map(str, run.variant.features)),
                run.state,
            )
            for run in outcome.runs
        ]
        show_rows(["run", "seed", "parameters", "features", "state"], rows)
        return DONE
    if outcome.report is not None:
        say(f"\n{outcome.report.read_text(encoding='utf-8')}\nReport: {outcome.report}")
    for failure in outcome.failures:
        fail(failure)
    if outcome.failures:
        fail(
            f"{counted(len(outcome.failures), 'run')} failed; the others are done. Run the same command again to retry "
            "what failed."
        )
    return CASES_FAILED if outcome.failures else DONE


STUDY = Command(
    "study",
    "train and compare the networks of the UNet++ paper on your data",
    _EXAMPLES,
    _declare,
    _run,
    "finished runs",
)
