"""``monai-unetpp train``: its options and output."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

from monai_unetpp.cli.command import Command
from monai_unetpp.cli.terminal import DONE, INTERRUPTED, end_with_verdict, fail, is_first_process, say
from monai_unetpp.options import add_options
from monai_unetpp.progress import spaced
from monai_unetpp.torchrun import torchrun_place
from monai_unetpp.training_run.train_options import TrainOptions

_EXAMPLES = """\
  monai-unetpp train Task04_Hippocampus -o my_bundle --minutes 60
  monai-unetpp train DATA -o my_bundle --folds 3 --set patch_size=64,64,32
  monai-unetpp train DATA -o my_bundle --init brain_tissue_mri_unetpp
  torchrun --nproc_per_node=2 -m monai_unetpp train DATA -o my_bundle
  monai-unetpp segment --bundle my_bundle scan.nii.gz -o segmentations

If the folder has no plan yet, one is made; to look at it first, use monai-unetpp plan. With an existing plan only
--minutes and --folds can be changed. With --init the plan follows the network of these weights, and
my_bundle/docs/plan.md lists the layers that start from them. After training, it finds the shallowest level that is
accurate enough, writes my_bundle/pruning/report.html and my_bundle/docs/README.md and, if the verdict is to prune, the
pruned bundle beside my_bundle. After an interruption, run the same command again to continue, with the minutes, folds
and initial weights that it began with.
"""


def _declare(parser: argparse.ArgumentParser) -> None:
    add_options(parser, TrainOptions)


def _run(**options: Any) -> int:
    from monai_unetpp.training_run import train

    try:
        outcome = train(TrainOptions(**options), progress=spaced(say))
    except KeyboardInterrupt:
        if is_first_process():
            # torchrun keeps its own options to itself
            command = f": monai-unetpp {shlex.join(sys.argv[1:])}" if torchrun_place()[1] == 1 else "."
            fail(f"interrupted. Run the same command again to continue{command}")
        return INTERRUPTED
    # if another process exited with an error, torchrun would end the first one while it prints
    if not is_first_process():
        return DONE
    say(outcome.summary)
    say(f"Bundle: {outcome.bundle}\nReport: {outcome.report}")
    if outcome.pruned is not None:
        say(f"Pruned bundle: {outcome.pruned}")
    for reason in outcome.left_out:
        fail(f"left out: {reason}")
    return end_with_verdict(outcome.verdict, outcome.left_out)


TRAIN = Command(
    "train",
    "train a network on your own labelled images, in the time you have",
    _EXAMPLES,
    _declare,
    _run,
    "what is planned and trained",
)
