"""``monai-unetpp train``: what it takes and prints."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from monai_unetpp.cli.command import Command
from monai_unetpp.cli.terminal import CASES_FAILED, DONE, INCONCLUSIVE, INTERRUPTED, fail, is_first_process
from monai_unetpp.options import add_options
from monai_unetpp.progress import spaced
from monai_unetpp.training_run.train_options import TrainOptions

__all__ = ["TRAIN"]

_EXAMPLES = """\
  monai-unetpp train Task04_Hippocampus -o my_bundle --minutes 60
  monai-unetpp train DATA -o my_bundle --folds 3 --set patch_size=[64,64,32]
  monai-unetpp train DATA -o my_bundle --init brain_tissue_mri_unetpp
  torchrun --nproc_per_node=2 -m monai_unetpp train DATA -o my_bundle
  monai-unetpp segment --bundle my_bundle scan.nii.gz -o segmentations

It plans where the folder has no plan yet; monai-unetpp plan writes one to look at first. The minutes and folds of that
plan hold unless others are given, and no other values can be set. With --init the plan follows the network whose
weights are given, and my_bundle/docs/plan.md says which layers start from them. Then it trains, finds out how shallow
the network may be, writes my_bundle/pruning/report.html and my_bundle/docs/README.md and, if the verdict is to prune,
the pruned bundle beside it. The same command continues after an interruption, by Ctrl-C or otherwise, with the minutes,
folds and initial weights that it began with.
"""


def _declare(parser: argparse.ArgumentParser) -> None:
    add_options(parser, TrainOptions)


def _run(**options: Any) -> int:
    from monai_unetpp.training_run import train

    try:
        outcome = train(TrainOptions(**options), progress=spaced(lambda line: print(line, flush=True)))
    except KeyboardInterrupt:
        if is_first_process():
            fail(f"interrupted. The same command continues from there: monai-unetpp {' '.join(sys.argv[1:])}")
        return INTERRUPTED
    if is_first_process():
        print(outcome.summary)
        print(f"Bundle: {outcome.bundle}\nReport: {outcome.report}")
        if outcome.pruned is not None:
            print(f"Pruned bundle: {outcome.pruned}")
        for reason in outcome.left_out:
            fail(f"left out: {reason}")
    if outcome.verdict == "inconclusive":
        return INCONCLUSIVE
    return CASES_FAILED if outcome.left_out else DONE


TRAIN = Command("train", "train a network on your own labelled images, in the time you have", _EXAMPLES, _declare, _run)
