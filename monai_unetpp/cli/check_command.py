"""``monai-unetpp check``: its options and output."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_unetpp.choices import FORMS_HELP
from monai_unetpp.cli.command import Command
from monai_unetpp.cli.terminal import CASES_FAILED, DONE, fail
from monai_unetpp.errors import counted, printable
from monai_unetpp.options import add_input

_EXAMPLES = """\
  monai-unetpp check hippocampus_mri_unetpp
  monai-unetpp check path/to/my_bundle --schema meta_schema.json
  monai-unetpp check path/to/Task04_Hippocampus
  monai-unetpp check path/to/Task04_Hippocampus --fingerprint own_bundle/configs/fingerprint.json

For a bundle it also lists the Python code in its configurations: MONAI runs every value that begins with $. This is
not a problem in itself, but use only bundles that you trust.
"""


def _declare(parser: argparse.ArgumentParser) -> None:
    add_input(
        parser,
        "target",
        ("-i", "--input"),
        metavar="BUNDLE_OR_DATASET",
        help=f"name or folder of a bundle, or folder with {FORMS_HELP}",
    )
    parser.add_argument("--schema", metavar="FILE", help="JSON schema to check the bundle's metadata against")
    parser.add_argument(
        "--fingerprint",
        metavar="FILE",
        help="if the data set has no problems, write the ranges of its training cases to this file: as "
        "configs/fingerprint.json of a bundle it makes segment warn about images that differ from them",
    )


def _run(target: str, schema: str | None, fingerprint: str | None) -> int:
    from monai_unetpp.data.datasets.forms import is_data_set

    if is_data_set(target):
        if schema is not None:
            raise ValueError(f"{target}: must be a bundle for --schema. Name one, or leave --schema out.")
        from monai_unetpp.data.datasets.check import check_dataset

        problems = check_dataset(target, progress=True)
        if fingerprint is not None and not problems:
            _write_fingerprint(target, fingerprint)
    elif fingerprint is not None:
        raise ValueError(f"{target}: must be a data set for --fingerprint. Name one, or leave --fingerprint out.")
    elif Path(target).is_dir() and not (Path(target) / "configs").is_dir():
        raise ValueError(
            f"{target}: neither a bundle (it has no configs folder) nor a data set (it has no dataset.json, "
            "nor images and labels). Name the folder that holds one of them."
        )
    else:
        from monai_unetpp.bundles import bundle_code, check_bundle, find_bundle

        bundle = find_bundle(target)
        problems = check_bundle(bundle, schema=schema)
        if code := bundle_code(bundle):
            print("Python code in the configurations, which MONAI runs when they are used (for information):")
        for text, places in code.items():
            print(printable(f"  {text}    ({', '.join(places)})"))
    for problem in problems:
        fail(problem)
    print(f"{target}: {'no problems found' if not problems else counted(len(problems), 'problem') + ' found'}.")
    return CASES_FAILED if problems else DONE


def _write_fingerprint(target: str, path: str) -> None:
    from monai_unetpp.planning import take_fingerprint
    from monai_unetpp.planning.training_plan import PLAN_FILE

    if Path(path).with_name(Path(PLAN_FILE).name).is_file():
        raise ValueError(
            f"{path}: is of a planned bundle, which has the ranges of its training cases. Leave --fingerprint out, or "
            "name another file."
        )
    take_fingerprint(target, progress=True).write(path, with_cases=False)
    print(printable(f"{path}: the ranges of the training cases."))


CHECK = Command("check", "check a bundle against the model zoo's rules, or a data set", _EXAMPLES, _declare, _run)
