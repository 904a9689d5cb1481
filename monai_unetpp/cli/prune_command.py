"""``monai-unetpp prune``: its options and output."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from monai_unetpp.choices import BUNDLE_HELP, DEVICE_HELP
from monai_unetpp.cli.command import Command
from monai_unetpp.cli.terminal import DONE, end_with_verdict, fail, is_first_process, say
from monai_unetpp.options import add_options
from monai_unetpp.pruning.plan import CostSettings, EvaluationData, Outputs
from monai_unetpp.pruning.rules import Rules

if TYPE_CHECKING:
    from monai_unetpp.pruning.results import PruningResult

_EXAMPLES = """\
  monai-unetpp prune Task04_Hippocampus --bundle hippocampus_mri_unetpp -o report
  monai-unetpp prune SITE_A SITE_B --bundle my_bundle -o report --margin dice=0.005 --margin nsd=0.01
  monai-unetpp prune DATA --bundle my_bundle --confirm_dir OTHER_DATA -o report --write pruned_bundle
  monai-unetpp prune DATA --bundle my_bundle -o report --budget latency_ms=50 --extra alone=L2_trained_alone.pt
  monai-unetpp prune DATA --bundle my_bundle -o report --settings overlap=0,0.25 --settings precision=fp32,bf16
  monai-unetpp prune DATA --bundle nuclei_microscopy_unetpp -o report --settings adaptive=0.02,0.033,0.05

The report folder keeps finished cases: after an interruption, run the same command again to continue.
"""


def _declare(parser: argparse.ArgumentParser) -> None:
    networks = parser.add_argument_group("networks")
    networks.add_argument("--bundle", metavar="BUNDLE", help=BUNDLE_HELP)
    networks.add_argument("--checkpoint", metavar="FILE", help="weights to evaluate (default: the bundle's)")
    networks.add_argument(
        "--extra",
        action="append",
        metavar="NAME=FILE",
        help="another checkpoint to compare with, such as a level trained alone; repeatable",
    )
    networks.add_argument("--device", metavar="DEVICE", help=DEVICE_HELP)
    # options that are not given are None, flags too: the bundle's own setting then applies
    add_options(parser.add_argument_group("cases"), EvaluationData)
    add_options(parser.add_argument_group("rules"), Rules)
    add_options(parser.add_argument_group("operating points"), CostSettings)
    add_options(parser.add_argument_group("results"), Outputs)


def _run(bundle: str | None, output_dir: str, write: str | None, **options: Any) -> int:
    from monai_unetpp.pruning.from_bundle import prune_bundle
    from monai_unetpp.pruning.summary import verdict

    result = prune_bundle(bundle, output_dir=output_dir, write=write, **options)
    final = verdict(result)
    # if another process exited with an error, torchrun would end the first one while it prints
    if not is_first_process():
        return DONE
    _show(result)
    say(f"Report: {output_dir}/report.html")
    if write is not None and final.verdict == "prune":
        say(f"Pruned bundle: {write}")
    elif write is not None and os.path.exists(write):
        fail(f"{write} is from an earlier run and does not belong to this verdict.")
    return end_with_verdict(final.verdict, result.problems)


def _show(result: PruningResult) -> None:
    from monai_unetpp.pruning.report.opening import trust_sentences
    from monai_unetpp.pruning.wording import data_set_in_words, part_in_words, rule_in_words

    for decision in result.decisions:
        say(f"{data_set_in_words(decision.dataset)}{part_in_words(decision.role)}: {decision.summary}")
    for sentence in trust_sentences(result):
        say(f"note: {sentence}")
    if result.grid is not None:
        say(f"operating points: {result.grid.reason}")
    if result.adaptive is not None:
        say(f"depth per window: {result.adaptive.reason}")
    for trade_off in result.trade_offs:
        picks = ", ".join(trade_off.points) or "none"
        say(f"{rule_in_words(trade_off.rule)}: {picks}. {trade_off.reason}")
    for problem in result.problems:
        fail(f"left out: {problem.case} ({problem.dataset}): {problem.reason}")


PRUNE = Command(
    "prune",
    "find the shallowest level that is accurate enough, by statistical tests",
    _EXAMPLES,
    _declare,
    _run,
    "finished cases",
)
