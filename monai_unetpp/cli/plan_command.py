"""``monai-unetpp plan``: its options and output."""

from __future__ import annotations

import argparse
from typing import Any

from monai_unetpp.cli.command import Command
from monai_unetpp.cli.terminal import DONE, show_rows
from monai_unetpp.options import add_options
from monai_unetpp.planning.plan_options import PlanOptions

_EXAMPLES = """\
  monai-unetpp plan Task04_Hippocampus -o my_bundle
  monai-unetpp plan Task04_Hippocampus -o my_bundle --minutes 20 --set batch_size=4 --set patch_size=40,56,40
  monai-unetpp plan DATA -o my_bundle --init brain_tissue_mri_unetpp

This trains nothing: it checks all cases, measures the training images, times a training step, and writes a bundle
without weights. my_bundle/docs/plan.md lists every value with its reason. An earlier plan in the same folder is
replaced, but never a bundle with weights or one whose training has begun.
"""


def _declare(parser: argparse.ArgumentParser) -> None:
    add_options(parser, PlanOptions)


def _run(**options: Any) -> int:
    from monai_unetpp.planning import plan

    made = plan(**options, progress=True)
    show_rows(["name", "value", "by hand?"], [(name, value, by_hand) for name, value, _, _, by_hand in made.rows()])
    print(f"Machine: {made.machine}. Nothing was trained.\nReasons: {options['output_dir']}/docs/plan.md")
    return DONE


PLAN = Command("plan", "plan the training on your data, and write a bundle without weights", _EXAMPLES, _declare, _run)
