"""``monai-unetpp demo``: its options and output."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from monai_unetpp.choices import DEVICE_HELP
from monai_unetpp.cli.command import Command
from monai_unetpp.cli.terminal import DONE, say, show_rows
from monai_unetpp.options import OUTPUT_FLAGS
from monai_unetpp.reporting.numbers import percent

if TYPE_CHECKING:
    from monai_unetpp.demo import DemoPart

_EXAMPLES = """\
  monai-unetpp demo
  monai-unetpp demo hippocampus -o results --device cpu
"""

#: With more labels than this, only their total volume is printed.
_MOST_VOLUMES = 6


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        default=["structures", "brain", "hippocampus"],
        help="structures (30 brain structures), brain (tissues) or hippocampus (its two parts); default: all",
    )
    folder = "folder (default: %(default)s)"
    parser.add_argument(*OUTPUT_FLAGS, dest="output_dir", default="demo", metavar="DIR", help=folder)
    parser.add_argument("--device", metavar="DEVICE", help=DEVICE_HELP)


def _run(**options: Any) -> int:
    from monai_unetpp.demo import demo

    result = demo(**options, progress=say)
    for part in result.parts:
        _show_part(part)
    return DONE


def _show_part(part: DemoPart) -> None:
    names = part.levels[0].labels
    shown = names if len(names) <= _MOST_VOLUMES else ()
    compared = list(part.levels[0].dice)
    deepest = part.levels[-1]
    relative = f"% of {deepest.level}"
    print(f"\n{part.name}: {part.bundle} on {part.device}, {part.runtime}, {part.precision}")
    volumes, dice = [f"{name} (ml)" for name in shown] or ["all (ml)"], [f"Dice {name}" for name in compared]
    show_rows(
        ["level", "parameters", relative, *volumes, *dice, "seconds", relative, "network"],
        [
            [
                each.level,
                f"{each.parameters:,}",
                f"{100 * each.parameters / deepest.parameters:.1f}",
                *([f"{each.case.volumes_ml[name]:.2f}" for name in shown] or [f"{each.total_ml:.2f}"]),
                *(f"{each.dice[name]:.3f}" for name in compared),
                f"{each.seconds:.2f}",
                f"{100 * each.seconds / deepest.seconds:.0f}",
                percent(each.network_s / each.seconds),
            ]
            for each in part.levels
        ],
    )
    print(f"Image:   {part.image}")
    for each in part.levels:
        print(f"{each.level}:      {each.case.output}")
    print(f"Picture: {part.picture}")


DEMO = Command(
    "demo", "segment a real MRI template at every level; works offline, needs no data", _EXAMPLES, _declare, _run
)
