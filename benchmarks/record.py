"""Note in a bundle which cases its weights come from: ``python -m benchmarks.record BUNDLE DATASET_DIR``.

For the bundles of this package, whose weights are those of the best epoch on the validation list of the data set that
they were trained on; ``monai_unetpp.bundles.write_training_record`` does the same from Python.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from monai_unetpp.bundles import find_bundle, write_training_record
from monai_unetpp.bundles.training_record import BEST_ON_VALIDATION
from monai_unetpp.data import load_datalist

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the record of a bundle.

    Args:
        arguments: of the command line.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("bundle", help="name or folder of the bundle")
    parser.add_argument("dataset_dir", help="folder with dataset.json: its lists training and validation")
    parser.add_argument("--rule", default=BEST_ON_VALIDATION, help="how the weights were chosen (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        lists = {key: load_datalist(options.dataset_dir, key) for key in ("training", "validation")}
        record = write_training_record(
            find_bundle(options.bundle), training=lists["training"], selecting=lists["validation"], rule=options.rule
        )
    except (OSError, ValueError) as e:
        parser.error(str(e))
    sys.stdout.write(f"{len(record.training)} training and {len(record.selecting)} selecting cases, {record.rule}.\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
