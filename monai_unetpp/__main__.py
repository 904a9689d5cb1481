"""``python -m monai_unetpp``: the same as the console script ``monai-unetpp``."""

import sys

from monai_unetpp.cli.program import main

if __name__ == "__main__":
    sys.exit(main())
