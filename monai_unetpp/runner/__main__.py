"""The command line ``python -m monai_unetpp.runner``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from monai_unetpp.errors import printable
from monai_unetpp.runner.segmenter import Segmenter

__all__ = ["main"]

_DONE, _SOME_FAILED, _BAD_ARGUMENTS = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Segment NIfTI files with an exported folder; returns 0, 1 if an image failed, 2 if the folder is unusable."""
    parser = argparse.ArgumentParser(
        prog="python -m monai_unetpp.runner",
        description="Segment NIfTI files with a folder written by monai-unetpp export --format runner.",
    )
    parser.add_argument("folder", type=Path, help="the exported folder")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="NIfTI file")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="folder for <case>_seg.nii.gz")
    parser.add_argument("--threads", type=int, metavar="N", help="number of threads (default: chosen by the runtime)")
    parser.add_argument("--overwrite", action="store_true", help="replace results of other images of the same name")
    given = parser.parse_args(arguments)
    try:
        segmenter = Segmenter(given.folder, given.threads)
    except (ImportError, OSError, RuntimeError, ValueError) as e:
        _tell(sys.stderr, str(e))
        return _BAD_ARGUMENTS
    failed = [image for image in given.images if not _segment(segmenter, image, given.output, given.overwrite)]
    return _SOME_FAILED if failed else _DONE


def _segment(segmenter: Segmenter, image: Path, output: Path, overwrite: bool) -> bool:
    try:
        _tell(sys.stdout, f"{image}: {segmenter.segment(image, output, overwrite)}")
    except (OSError, RuntimeError, ValueError, MemoryError) as e:
        message = str(e) or type(e).__name__
        _tell(sys.stderr, message if str(image) in message else f"{image}: {message}")
        return False
    return True


def _tell(stream: TextIO, line: str) -> None:
    stream.write(f"{printable(line)}\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
