"""Logs and warnings while a command runs: without ``--verbose`` only what its own output does not say anyway."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from monai_unetpp.cli.terminal import fail
from monai_unetpp.progress import write_line

__all__ = ["DETAILED_LOGGERS", "REPEATING_LOGGERS", "logging_to_stderr", "shown"]

#: What they log is in the summary as well, or is about a missing decoder that nobody asked for.
REPEATING_LOGGERS = (
    "monai_unetpp.engines",
    "ignite.engine.engine.CaseEvaluator",
    # MONAI says on import that a GPU decoder for DICOM is not installed
    "monai.data.nvimgcodec_pydicom_plugin",
)
#: What they log is of no use where all goes well, and is otherwise in the one line that ends a run.
DETAILED_LOGGERS = ("ignite.engine.engine.SupervisedTrainer", "monai.handlers.StatsHandler")


@contextmanager
def logging_to_stderr(verbose: bool, quiet: bool = False) -> Iterator[None]:
    """Log to standard error; without ``verbose`` only what a command's output does not say anyway.

    Args:
        verbose: log all that is going on.
        quiet: log errors only.
    """
    level = logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", handlers=[_AboveBars()])
    thread_hook = threading.excepthook
    with _each_warning_once(), warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore")
            # a thread that loads cases may die of a broken configuration
            threading.excepthook = lambda died: fail(f"{died.exc_type.__name__}: {died.exc_value}")
        # nothing is lost where a network for pictures takes them as they are
        warnings.filterwarnings("ignore", message="inverse has been called but no invertible transforms")
        with _disabled(REPEATING_LOGGERS if verbose else (*REPEATING_LOGGERS, *DETAILED_LOGGERS)):
            try:
                yield
            finally:
                threading.excepthook = thread_hook


@contextmanager
def shown(name: str) -> Iterator[None]:
    """Show what a logger says, such as the memory that windows will take."""
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
def _each_warning_once() -> Iterator[None]:
    # nibabel's logger has a handler of its own: what it says would be there twice
    nibabel = logging.getLogger("nibabel.global")
    propagated, nibabel.propagate = nibabel.propagate, False
    filtered: list[tuple[logging.Filterer, logging.Filter]] = [
        (filterer, _Once()) for filterer in (nibabel, *logging.getLogger().handlers)
    ]
    for filterer, once in filtered:
        filterer.addFilter(once)
    try:
        yield
    finally:
        nibabel.propagate = propagated
        for filterer, once in filtered:
            filterer.removeFilter(once)


class _AboveBars(logging.Handler):
    """Writes to standard error without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            write_line(self.format(record))
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
