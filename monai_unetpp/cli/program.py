"""The program: its commands and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from monai_unetpp.cli.benchmark_command import BENCHMARK
from monai_unetpp.cli.bundles_command import BUNDLES
from monai_unetpp.cli.check_command import CHECK
from monai_unetpp.cli.command import EXIT_CODES, Command
from monai_unetpp.cli.completion_command import completion_command
from monai_unetpp.cli.demo_command import DEMO
from monai_unetpp.cli.export_command import EXPORT
from monai_unetpp.cli.failures_command import FAILURES
from monai_unetpp.cli.parser import Parser
from monai_unetpp.cli.plan_command import PLAN
from monai_unetpp.cli.prune_command import PRUNE
from monai_unetpp.cli.quiet import logging_to_stderr
from monai_unetpp.cli.segment_command import SEGMENT
from monai_unetpp.cli.study_command import STUDY
from monai_unetpp.cli.terminal import BAD_INPUT, INTERRUPTED, fail, muted
from monai_unetpp.cli.train_command import TRAIN
from monai_unetpp.errors import cause_of, in_encoding_of, is_deliberate
from monai_unetpp.files import naming_full_disk
from monai_unetpp.progress import let_go_of, silenced
from monai_unetpp.version import __version__

_COMMANDS = (DEMO, BUNDLES, SEGMENT, PLAN, TRAIN, PRUNE, EXPORT, CHECK, FAILURES, STUDY, BENCHMARK)
#: What is printed, in messages of a full disk.
_OUTPUT = "the program's output"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Exit codes: 0 done, 1 some cases failed or problems were found, 2 bad arguments or input, 3 inconclusive (prune,
    train), 130 interrupted.

    Args:
        arguments: the command line without the program's name; by default that of the process.

    Raises:
        SystemExit: after ``--help`` or ``--version``, and with code 2 for invalid arguments.
    """
    options = vars(make_parser().parse_args(arguments))
    command: Command = options.pop("command")
    verbose: bool = options.pop("verbose")
    quiet: bool = options.pop("quiet")
    # JSON is the requested output, so --quiet does not mute it
    mute = quiet and not options.get("json_output")
    _name_the_user()
    _let_waiting_threads_sleep()
    with _ending_on_request(), _heard_or_not(), logging_to_stderr(verbose, quiet), silenced(quiet), muted(mute):
        try:
            code = command.run(**options)
            _deliver(sys.stdout)
            return code
        except KeyboardInterrupt:
            fail(f"interrupted; {command.kept} are kept." if command.kept else "interrupted.")
            return INTERRUPTED
        except Exception as e:
            if verbose:
                logging.getLogger(__name__).exception("the command failed")
            fail(_told(cause_of(e)))
            return BAD_INPUT
        finally:
            let_go_of(sys.stdout)


def make_parser() -> Parser:
    """The parser of all commands."""
    common = Parser(add_help=False)
    loudness = common.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="show log messages and details of errors")
    loudness.add_argument("-q", "--quiet", action="store_true", help="show errors only; --json is still printed")
    parser = Parser(
        prog="monai-unetpp",
        description="Nested U-Nets (UNet++) for MONAI: segment images, and prune the network to the level you need.",
        epilog="first steps:\n"
        "  monai-unetpp demo                    segment a real MRI template, no data needed\n"
        "  monai-unetpp bundles                 what can be segmented, and in which images\n"
        "  monai-unetpp segment scan.nii.gz --bundle hippocampus_mri_unetpp -o segmentations\n"
        "  monai-unetpp train DATASET_DIR -o my_bundle --minutes 20\n"
        "  monai-unetpp COMMAND --help          options and examples of a command\n\n"
        "In all commands, inputs are given alone or after -i, and -o sets the output. --list-key and --list_key\n"
        "are the same, as are the levels 2 and L2 and the devices gpu and cuda. The beginning of a bundle's name\n"
        "is enough.\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"monai-unetpp {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (*_COMMANDS, completion_command(make_parser)):
        each = commands.add_parser(
            command.name,
            parents=[common],
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"examples:\n{command.examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.declare(each)
        each.set_defaults(command=command)
    return parser


@contextlib.contextmanager
def _ending_on_request() -> Iterator[None]:
    """Make a request to end, such as of a cluster at its time limit, an interruption that keeps what is finished."""

    def interrupt(*_: object) -> None:
        # worker processes may be asked at the same time; PyTorch would raise an error when they end
        if sys.platform != "win32":
            signal.signal(signal.SIGCHLD, lambda *_: None)
        raise KeyboardInterrupt

    # only the main thread can be interrupted so
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextlib.contextmanager
def _heard_or_not() -> Iterator[None]:
    """Let a command go on, and end with its own code, where the reader of its output, such as head, has closed it.

    Where a stream was closed from the start, as Python tells by None, what is printed goes nowhere.
    """
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sys.stdout, sys.stderr = (_Heard(nowhere if stream is None else stream) for stream in before)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


class _Heard:
    """A stream for text that nobody may read any more, or whose encoding may lack characters of it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write to the stream, or nowhere once its reader has closed it; what it cannot show is escaped."""
        with contextlib.suppress(BrokenPipeError), naming_full_disk(_OUTPUT):
            try:
                return self._stream.write(text)
            except UnicodeEncodeError:
                return self._stream.write(in_encoding_of(self._stream, text))
        let_go_of(self._stream)
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        with contextlib.suppress(BrokenPipeError), naming_full_disk(_OUTPUT):
            return self._stream.flush()
        let_go_of(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _deliver(output: TextIO) -> None:
    """Pass on what is printed, where a disk has room for it; whether anybody reads it does not matter."""
    try:
        output.flush()
    except OSError as e:
        if e.errno is None:  # named by the stream
            raise


def _name_the_user() -> None:
    """MONAI needs the user's name on import; in a container the user may have only a number."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())


def _let_waiting_threads_sleep() -> None:
    """Have torch's threads sleep soon where they wait for each other, unless the user has chosen how they wait.

    By default libgomp lets them spin, which makes each wait for a thread that another program has taken the core from:
    one busy process beside two threads made steps of a training several times slower. Torch reads it on import.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"


def _told(error: BaseException) -> str:
    """An error in one line, with its type if it is unexpected."""
    message = str(error).strip()
    # RuntimeError: torch raises it if a device or memory fails
    foreseen = (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError)
    if isinstance(error, MemoryError) and not message:
        return "there is not enough memory. Close other programs, or give smaller images."
    if message and isinstance(error, foreseen) and not isinstance(error, RecursionError) and is_deliberate(error):
        return message
    return (
        f"{type(error).__name__}{': ' if message else ''}{message}. This is a bug in monai-unetpp, or invalid input "
        "without a proper message. Please report it, with the output of -v."
    )
