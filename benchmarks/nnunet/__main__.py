"""Train nnU-Net v2 and this package on one data set for the same minutes, and score both on its validation list.

Run ``python -m benchmarks.nnunet DATASET_DIR --work EMPTY_DIR --python NNUNET_PYTHON``, where ``NNUNET_PYTHON`` is the
interpreter of an environment with ``nnunetv2`` (``pip install nnunetv2``). Both get the training list alone, labels and
all, and work one after the other. nnU-Net plans, preprocesses and trains its ``3d_fullres`` (or ``2d``) configuration
as it comes, with a learning rate that follows the time; all of this counts. Prediction is timed apart.
``--trained WORK/merged`` takes what ``benchmarks.data_to_bundle --work WORK`` made of the data set instead of training
this package a second time.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from benchmarks.command import offer_table, run_command
from benchmarks.nnunet.comparison import compare, format_comparison


def main(arguments: list[str] | None = None) -> int:
    """Compare and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nnunet", description=__doc__)
    parser.add_argument("dataset_dir", type=Path, help="folder with dataset.json and its validation list")
    parser.add_argument("--minutes", type=float, default=20.0, help="for each of the two (default: 20)")
    parser.add_argument("--python", type=Path, required=True, help="interpreter of an environment with nnunetv2")
    parser.add_argument("--work", type=Path, required=True, help="empty folder for all that is made")
    parser.add_argument("--trained", type=Path, metavar="FOLDER", help="of this data set, by benchmarks.data_to_bundle")
    offer_table(parser)
    return run_command(parser, arguments, _compare)


def _compare(dataset_dir: Path, minutes: float, python: Path, work: Path, trained: Path | None) -> Iterator[str]:
    yield format_comparison(compare(dataset_dir.resolve(), work.resolve(), minutes, python.absolute(), trained))


if __name__ == "__main__":
    raise SystemExit(main())
