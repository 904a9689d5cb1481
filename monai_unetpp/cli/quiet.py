"""Logs and warnings of a command: without ``--verbose``, only what its own output does not show."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from monai_unetpp.cli.terminal import fail
from monai_unetpp.errors import printable
from monai_unetpp.progress import WRITTEN, write_line

#: Their messages are repeated in the summary, or are about an optional decoder that is missing.
REPEATING_LOGGERS = (
    "monai_unetpp.engines",
    "ignite.engine.engine.CaseEvaluator",
    # on import, MONAI logs that a GPU decoder for DICOM is not installed
    "monai.data.nvimgcodec_pydicom_plugin",
    # without torchvision, the export to ONNX warns of each of its operators, which no network here has
    "torch.onnx._internal.exporter._registration",
)
#: Their messages are of no use if all goes well; otherwise the final line of a run repeats them.
DETAILED_LOGGERS = ("ignite.engine.engine.SupervisedTrainer", "monai.handlers.StatsHandler", "nncf")


@contextmanager
def logging_to_stderr(verbose: bool, quiet: bool = False) -> Iterator[None]:
    """Log to standard error: everything if ``verbose``, else only what the command's output does not show.

    If ``quiet``, only errors are logged; warnings still reach the records of a run.
    """
    handler = _AboveBars(logging.ERROR if quiet and not verbose else logging.NOTSET)
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler])
    thread_hook = threading.excepthook
    with _each_warning_once(quiet), warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore")
            # a broken configuration may kill the thread that loads cases
            threading.excepthook = lambda died: fail(f"{died.exc_type.__name__}: {died.exc_value}")
        # harmless if a 2D network takes pictures without resampling
        warnings.filterwarnings("ignore", message="inverse has been called but no invertible transforms")
        with _disabled(REPEATING_LOGGERS if verbose else (*REPEATING_LOGGERS, *DETAILED_LOGGERS)):
            try:
                yield
            finally:
                threading.excepthook = thread_hook


@contextmanager
def shown(name: str) -> Iterator[None]:
    """Show the messages of a logger, such as the memory that windows will take, unless only errors are wanted."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _disabled(names: tuple[str, ...]) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


@contextmanager
def _each_warning_once(quiet: bool) -> Iterator[None]:
    # nibabel's logger has its own handler: messages would be shown twice
    nibabel = logging.getLogger("nibabel.global")
    propagated, nibabel.propagate = nibabel.propagate, False
    level = nibabel.level
    nibabel.setLevel(logging.ERROR if quiet else level)
    filtered: list[tuple[logging.Filterer, logging.Filter]] = [
        (filterer, _Once()) for filterer in (nibabel, *logging.getLogger().handlers)
    ]
    for filterer, once in filtered:
        filterer.addFilter(once)
    try:
        yield
    finally:
        nibabel.propagate = propagated
        nibabel.setLevel(level)
        for filterer, once in filtered:
            filterer.removeFilter(once)


class _AboveBars(logging.Handler):
    """Writes to standard error without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, WRITTEN):
            return
        try:
            # names of files may hold control characters
            write_line("\n".join(map(printable, self.format(record).split("\n"))))
        except Exception:
            self.handleError(record)


class _Once(logging.Filter):
    """Lets each warning through once: a file may be read several times."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        message = record.getMessage()
        known = message in self.seen
        self.seen.add(message)
        return not known
