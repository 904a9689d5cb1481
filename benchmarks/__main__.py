"""``python -m benchmarks`` with one of ``KINDS``: tables of what was measured or tried on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
from pathlib import Path

from benchmarks.command import one_line_errors
from monai_unetpp.devices import resolve_device
from monai_unetpp.files import write_text

KINDS = {
    "training": "time and memory of a training step, beside MONAI's BasicUNetPlusPlus",
    "scoring": "all levels from one pass, beside the deepest alone",
    "skipping": "what leaving out empty windows saves on a brain (needs the extra demo)",
    "streaming": "memory and time of a volume of 512 x 512 x 600 voxels: one level, and all levels in one pass",
    "runner": "exported folders: level by precision by format (needs --bundle and --dataset_dir)",
    "robustness": "how unusual and hostile inputs are handled; ends with exit code 1 if anything is wrong",
}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, and write it, or the figures as JSON, where that is asked for.

    Returns:
        The exit code: 1 if something that was tried has gone wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("kind", choices=KINDS, help="; ".join(f"{kind}: {text}" for kind, text in KINDS.items()))
    parser.add_argument("--device", help="such as cpu or cuda:0 (default: a GPU if there is one)")
    parser.add_argument("--bundle", help="of kind runner: name or folder of a bundle")
    parser.add_argument("--dataset_dir", help="of kind runner: folder with dataset.json, training and validation cases")
    parser.add_argument("--levels", nargs="+", help="of kind runner: such as L2 L4 (default: all)")
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("fp32", "bf16", "int8"),
        help="of kind runner: fp32, which the others are compared with, and others (default: all)",
    )
    parser.add_argument("--repeats", type=int, help="of kind runner: processes for each time (default: 5)")
    parser.add_argument("--quick", action="store_true", help="small network and few rounds, to see that it works")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write the figures to FILE as JSON, or the text if it ends in .md"
    )
    given = parser.parse_args(arguments)
    # in a module of its own, as processes that measure memory import it by its name
    module = importlib.import_module(f"benchmarks.{given.kind}")
    measure, describe = (getattr(module, name.format(given.kind)) for name in ("measure_{}", "format_{}_benchmark"))
    of_runner = ("bundle", "dataset_dir", "levels", "precisions", "repeats")
    named = {name: getattr(given, name) for name in of_runner if getattr(given, name) is not None}
    if (given.kind == "runner") != ({"bundle", "dataset_dir"} <= named.keys()) or (given.kind != "runner" and named):
        parser.error("give --bundle and --dataset_dir for kind runner, and these and its other options for no other")
    if "fp32" not in named.get("precisions", ["fp32"]):
        parser.error("--precisions must have fp32, which the others are compared with")
    quick = module.QUICK if given.quick else {}
    with one_line_errors(parser):
        result = measure(device=str(resolve_device(given.device)), **{**quick, **named})
    text = describe(result)
    print(text)
    if given.output is not None:
        as_tables = Path(given.output).suffix == ".md"
        write_text(given.output, (text if as_tables else json.dumps(dataclasses.asdict(result), indent=2)) + "\n")
    return int(getattr(result, "failed", False))


if __name__ == "__main__":
    sys.exit(main())
