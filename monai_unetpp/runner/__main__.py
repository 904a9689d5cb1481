"""The command line ``python -m monai_unetpp.runner``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from monai_unetpp.data.formats.image_errors import ImageFileError
from monai_unetpp.data.formats.nifti import header_beside
from monai_unetpp.errors import in_encoding_of, printable
from monai_unetpp.files import make_output_dir
from monai_unetpp.progress import let_go_of
from monai_unetpp.runner.pipeline import PIPELINE_FILE
from monai_unetpp.runner.result_files import result_name
from monai_unetpp.runner.segmenter import Segmenter

_DONE, _SOME_FAILED, _BAD_ARGUMENTS, _INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Segment images with an exported folder.

    Returns:
        0, 1 if an image failed, 2 if the folder or another argument is unusable, 130 after an interruption.
    """
    parser = argparse.ArgumentParser(
        prog="python -m monai_unetpp.runner",
        description="Segment images with a folder written by monai-unetpp export --format runner.",
    )
    parser.add_argument("folder", type=Path, help="the exported folder")
    images = "NIfTI, NRRD or MetaImage file, or for networks of pictures PNG, JPEG or TIFF"
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help=images)
    output = "folder for <case>_seg.nii.gz, or .png or .tif for pictures"
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help=output)
    threads = "number of threads (default: OMP_NUM_THREADS, or chosen by the runtime)"
    parser.add_argument("--threads", type=_count, metavar="N", help=threads)
    replaced = "replace results of other images of the same name, and those corrected by hand"
    parser.add_argument("--overwrite", action="store_true", help=replaced)
    given = parser.parse_args(arguments)
    try:
        return _run(given)
    except KeyboardInterrupt:
        _tell(sys.stderr, "Interrupted; finished images are kept.")
        return _INTERRUPTED


def _run(given: argparse.Namespace) -> int:
    by_path: dict[str, Path] = {}
    for image in given.images:
        by_path.setdefault(os.path.abspath(image), image)
    # a wildcard finds both files of a pair
    headers = {image: header_beside(image) for image in by_path.values()}
    images = [image for image, header in headers.items() if not header or os.path.abspath(header) not in by_path]
    names = [result_name(image) for image in images]
    for image, name in zip(images, names, strict=True):
        first = images[names.index(name)]
        if image != first:
            told = f"{image}: its result would have the same name as that of {first}. Use separate output folders."
            _tell(sys.stderr, told)
            return _BAD_ARGUMENTS
    try:
        make_output_dir(given.output)
        segmenter = Segmenter(given.folder, given.threads)
        failed = [image for image in images if not _segment(segmenter, image, given.output, given.overwrite)]
    except (ImportError, OSError, RuntimeError, ValueError) as e:
        _tell(sys.stderr, str(e))
        return _BAD_ARGUMENTS
    except (LookupError, TypeError) as e:
        # some values are needed only by the first image
        path = given.folder / PIPELINE_FILE
        _tell(sys.stderr, f"{path}: a value is missing or has another form ({e!r}). Export the bundle again.")
        return _BAD_ARGUMENTS
    return _SOME_FAILED if failed else _DONE


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text!r}")
    return int(text)


def _segment(segmenter: Segmenter, image: Path, output: Path, overwrite: bool) -> bool:
    try:
        _tell(sys.stdout, f"{image}: {segmenter.segment(image, output, overwrite)}")
    except (OSError, RuntimeError, ValueError, MemoryError) as e:
        message = " ".join(str(e).split()) or type(e).__name__
        is_of_image = isinstance(e, (ImageFileError, OSError, MemoryError))
        if not is_of_image and "export the bundle again" not in message.lower():
            message = f"{message.rstrip('.')}. If {PIPELINE_FILE} was edited, export the bundle again."
        _tell(sys.stderr, message if str(image) in message else f"{image}: {message}")
        return False
    return True


def _tell(stream: TextIO | None, line: str) -> None:
    if stream is None:
        return
    # neither a name that the output cannot show nor a reader that has gone makes a finished image one that failed
    try:
        stream.write(f"{in_encoding_of(stream, printable(line))}\n")
        stream.flush()
    except BrokenPipeError:
        # what is left would fail again when Python ends
        let_go_of(stream)


if __name__ == "__main__":
    sys.exit(main())
