"""Record how the label maps of a folder were made, so that they can be reproduced."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.data.formats.grid import warn_once
from monai_unetpp.data.formats.result_marks import image_files
from monai_unetpp.files import MARK, hash_file


@dataclasses.dataclass(frozen=True)
class RecordedCase:
    """The record of a finished case.

    Attributes:
        case: its name.
        image: the input file or folder.
        sha256: hash of the image, see :func:`hash_image`.
        output: the output file.
        seconds: processing time.
        warnings: warnings to consider before using the result.
        details: other results, such as the number of objects.
        output_sha256: hash of the output file as it was written, which tells later changes; None if it is not known.
        beside_sha256: the same of other files of the case, such as its mask, by name.
    """

    case: str
    image: str
    sha256: str | None
    output: str
    seconds: float
    warnings: tuple[str, ...] = ()
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    output_sha256: str | None = None
    beside_sha256: dict[str, str] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = dataclasses.asdict(self)
        return {**{key: value for key, value in plain.items() if key != "details"}, **self.details}


def hash_image(*images: str | PathLike[str]) -> str | None:
    """SHA-256 of an image file; for several files, such as a DICOM series, of their sorted hashes, one per line.

    Args:
        *images: files, or a folder with a DICOM series.

    Returns:
        The hash, or None if they cannot be read.
    """
    try:
        hashes = sorted(hash_file(path) for image in images for path in image_files(Path(image)))
    except OSError:
        return None
    if len(hashes) < 2:
        return hashes[0] if hashes else None
    return hashlib.sha256("".join(f"{line}\n" for line in hashes).encode()).hexdigest()


def result_name(case: Mapping[str, Any]) -> str:
    """The name of the result's file in the record of a case: unique in a folder, which may have been moved."""
    return Path(str(case.get("output"))).name


def format_runs(
    run: Mapping[str, Any], cases: Sequence[RecordedCase], earlier: Sequence[Mapping[str, Any]]
) -> str | None:
    """The record as text, with each result once, in the run that made it; None if there is no run to record.

    Finished runs without remaining cases are dropped; others may have been killed before they recorded all results.
    ``cases`` are those that this run has finished; its entry comes without them.
    """
    # the results of a.png and a.tif differ, though in runs of their own both are called a
    redone = {Path(case.output).name for case in cases}
    kept = [{**run, "cases": [case for case in run["cases"] if result_name(case) not in redone]} for run in earlier]
    kept.append({**run, "cases": [case.as_dict() for case in cases]})
    runs = [run for run in kept if run["cases"] or not is_finished(run)]
    return json.dumps({"software": MARK, "runs": runs}, indent=2) + "\n" if runs else None


def is_finished(run: Mapping[str, Any]) -> bool:
    """Whether a run in the record came to its end, and so has recorded all of its results."""
    return bool(run.get("finished"))


@contextmanager
def collecting_warnings() -> Iterator[list[str]]:
    """Collect the warnings of this package inside the block, one line each; they are still logged.

    Warnings that are logged once per file are logged again, so that none is missing from the block. They are collected
    also where the caller has chosen to be shown the errors of this package alone.
    """
    warn_once.cache_clear()
    logger = logging.getLogger("monai_unetpp")
    with _passing_warnings(logger):
        handler = _Collector(None if logger.hasHandlers() else logging.lastResort)
        logger.addHandler(handler)
        try:
            yield handler.lines
        finally:
            logger.removeHandler(handler)


class _Collector(logging.Handler):
    """Keeps warnings; errors are recorded as failures. What would reach no other handler goes to ``otherwise``."""

    def __init__(self, otherwise: logging.Handler | None) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self.otherwise = otherwise

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:
            self.lines.append(record.getMessage())
        if self.otherwise is not None:
            self.otherwise.handle(record)


class _Above(logging.Handler):
    """Passes records on to the logger above."""

    def __init__(self, parent: logging.Logger) -> None:
        super().__init__()
        self.parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        self.parent.callHandlers(record)


def _is_shown(record: logging.LogRecord, above: logging.Logger, level: int) -> bool:
    """Whether a logger below ``above`` would log a record if ``above`` had this level."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger is not above and not logger.level:
        logger = logger.parent
    return logger is not above or record.levelno >= level


_lock = threading.Lock()
#: Blocks, in threads of their own, that need warnings, and what undoes the first one's changes.
_passing = 0
_restoring = ExitStack()


@contextmanager
def _passing_warnings(logger: logging.Logger) -> Iterator[None]:
    """Let a further handler of a logger have warnings, though its caller may be shown only what is above them."""
    global _passing
    with _lock:
        level, shown = logger.level, logger.getEffectiveLevel()
        if not _passing and shown > logging.WARNING:
            if logger.propagate and logger.parent is not None:
                above = _Above(logger.parent)
                logger.addHandler(above)
                logger.propagate = False
                _restoring.callback(logger.removeHandler, above)
                _restoring.callback(setattr, logger, "propagate", True)
            hiding = functools.partial(_is_shown, above=logger, level=shown)
            for handler in logger.handlers:
                handler.addFilter(hiding)
                _restoring.callback(handler.removeFilter, hiding)
            logger.setLevel(logging.WARNING)
            _restoring.callback(logger.setLevel, level)
        _passing += 1
    try:
        yield
    finally:
        with _lock:
            _passing -= 1
            if not _passing:
                _restoring.close()
