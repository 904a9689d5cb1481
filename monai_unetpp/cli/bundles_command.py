"""``monai-unetpp bundles``: its options and output."""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import TYPE_CHECKING

from monai_unetpp.cli.command import Command
from monai_unetpp.cli.terminal import DONE, fail, show_rows
from monai_unetpp.errors import printable

if TYPE_CHECKING:
    from monai_unetpp.bundles.overview import BundleOverview

_EXAMPLES = """\
  monai-unetpp bundles
  monai-unetpp bundles --json

Bundles are searched for in the folder named by MONAI_UNETPP_BUNDLES, in ./bundles, and beside the package. The scores
are from the bundle's metadata; its docs/README.md says on which cases they were measured.
"""


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", dest="json_output", action="store_true", help="print the list as JSON")


def _run(json_output: bool) -> int:
    from monai_unetpp.bundles.overview import list_overviews

    found = list_overviews()
    if json_output:
        print(json.dumps([bundle.as_dict() for bundle in found], indent=2))
        return DONE
    for bundle in found:
        _show(bundle)
    if not found:
        fail("no bundles were found. Set MONAI_UNETPP_BUNDLES to the folder that holds them.")
    return DONE


def _show(bundle: BundleOverview) -> None:
    print(printable(f"{bundle.name} {bundle.version}, {bundle.megabytes:.1f} MB"))
    facts = (
        ("task", bundle.task),
        ("images", bundle.images),
        ("use", bundle.intended_use),
        ("data", bundle.data_source),
        ("folder", bundle.path),
    )
    for name, text in facts:
        wrapped = textwrap.wrap(printable(text), 100, break_long_words=False) or ["-"]
        print(f"  {name + ':':8} " + "\n           ".join(wrapped))
    if bundle.levels:
        default = bundle.default_level or bundle.levels[-1].level
        metrics = sorted({name for each in bundle.levels for name in each.scores})
        show_rows(
            ["level", "parameters", *(name.replace("_", " ") for name in metrics)],
            [
                [
                    f"{each.level} (default)" if each.level == default else each.level,
                    f"{each.parameters:,}",
                    *(f"{each.scores[name]:.3f}" if name in each.scores else "" for name in metrics),
                ]
                for each in bundle.levels
            ],
        )
    print()


BUNDLES = Command("bundles", "list the available bundles: task, levels, size, licence", _EXAMPLES, _declare, _run)
