"""``python -m monai_unetpp.cli``, for ``torchrun`` for example."""

import sys

from monai_unetpp.cli.program import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
