"""The console script ``monai-unetpp``: the only place that prints.

Every subcommand calls one function with the same arguments; what takes long to import is imported when it is needed.
Exit codes: 0 done, 1 some cases failed or problems were found, 2 bad arguments or input, 3 inconclusive (prune),
130 interrupted.
"""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from monai_unetpp.errors import is_deliberate, printable
from monai_unetpp.version import __version__

if TYPE_CHECKING:
    from monai_unetpp.segmentation import SegmentationSummary

__all__ = ["main"]

_DONE, _CASES_FAILED, _BAD_INPUT, _INCONCLUSIVE, _INTERRUPTED = 0, 1, 2, 3, 130

#: What they log is in the summary as well, or tells that a decoder is not there that nobody asked for.
_REPEATING_LOGGERS = (
    "monai_unetpp.engines",
    "ignite.engine.engine.CaseEvaluator",
    # MONAI says on import that a GPU decoder for DICOM is not installed
    "monai.data.nvimgcodec_pydicom_plugin",
)
#: What they log is, where all goes well, of no use, and else in the one line that ends a run.
_DETAILED_LOGGERS = ("ignite.engine.engine.SupervisedTrainer", "monai.handlers.StatsHandler")

_EXIT_CODES = """\
exit codes:
  0    done
  1    some cases failed, or problems were found; the rest is done
  2    bad arguments or input, or too little memory or disk
  3    prune: the cases do not suffice for a verdict
  130  interrupted; finished cases are kept
"""
_RUNTIMES = ("auto", "torch", "compile", "openvino")
_PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_DEVICE_HELP = "cpu, cuda, cuda:1, ... (default: a GPU if there is one, else the CPU)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code.

    Args:
        arguments: what follows the program's name; by default those of the process.

    Raises:
        SystemExit: after ``--help`` or ``--version``, and with code 2 where ``arguments`` do not fit the command.
    """
    options = vars(_parser().parse_args(arguments))
    command: Callable[..., int] = options.pop("command")
    verbose: bool = options.pop("verbose")
    _name_the_user()
    with _logging(verbose):
        try:
            return command(**options)
        except KeyboardInterrupt:
            _fail("interrupted; finished cases are kept.")
            return _INTERRUPTED
        except Exception as e:
            if verbose:
                logging.getLogger(__name__).exception("the command failed")
            _fail(_told(e))
            return _BAD_INPUT


def _name_the_user() -> None:
    """MONAI asks for the user's name when it is imported; in a container the user may be a number without one."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())


def _told(error: Exception) -> str:
    """An error in one line; what nobody foresaw is called by its name."""
    message = str(error).strip()
    # RuntimeError: what torch raises where a device or memory fails
    foreseen = (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError)
    if isinstance(error, MemoryError) and not message:
        return "there is not enough memory. Close other programs, or give smaller images."
    if message and isinstance(error, foreseen) and not isinstance(error, RecursionError) and is_deliberate(error):
        return message
    return (
        f"{type(error).__name__}{': ' if message else ''}{message}. This is an error in monai-unetpp, or input that it "
        "should refuse by name. Please report it, with what -v shows."
    )


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


@contextmanager
def _logging(verbose: bool) -> Iterator[None]:
    """Log to standard error while a command runs; without ``verbose`` only what the summary does not say anyway."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr)
    names = _REPEATING_LOGGERS if verbose else (*_REPEATING_LOGGERS, *_DETAILED_LOGGERS)
    repeating = [logging.getLogger(name) for name in names]
    disabled = [logger.disabled for logger in repeating]
    # nibabel's logger has a handler of its own: what it says would be there twice
    nibabel = logging.getLogger("nibabel.global")
    propagated, nibabel.propagate = nibabel.propagate, False
    filtered: list[tuple[logging.Filterer, logging.Filter]] = [
        (filterer, _Once()) for filterer in (nibabel, *logging.getLogger().handlers)
    ]
    for filterer, once in filtered:
        filterer.addFilter(once)
    thread_hook = threading.excepthook
    with warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore")
            # a thread that loads cases may die of a broken configuration
            threading.excepthook = lambda died: _fail(f"{died.exc_type.__name__}: {died.exc_value}")
        # nothing is lost where a network for pictures takes them as they are
        warnings.filterwarnings("ignore", message="inverse has been called but no invertible transforms")
        for logger in repeating:
            logger.disabled = True
        try:
            yield
        finally:
            threading.excepthook = thread_hook
            nibabel.propagate = propagated
            for filterer, once in filtered:
                filterer.removeFilter(once)
            for logger, before in zip(repeating, disabled, strict=True):
                logger.disabled = before


@contextmanager
def _shown(name: str) -> Iterator[None]:
    """Show what a logger says, such as the memory that windows will take."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)


def _segment(json_output: bool, **options: Any) -> int:
    from monai_unetpp.segmentation import segment

    with nullcontext() if json_output else _shown("monai_unetpp.inferers.sliding_windows"):
        summary = segment(**options, progress=not json_output and sys.stderr.isatty())
    if json_output:
        print(json.dumps(summary.as_dict(), indent=2))
    elif summary.cases:
        names = list(summary.cases[0].volumes_ml)
        counted = any(done.instances is not None for done in summary.cases)
        ran = ", ".join(filter(None, (summary.device, summary.runtime, summary.precision)))
        print(f"{summary.bundle}, level {summary.level}, on {ran}")
        _table(
            ["case", *(f"{name} (ml)" for name in names), *(["objects"] if counted else []), "seconds"],
            [
                [
                    done.case,
                    *(f"{done.volumes_ml[name]:.3f}" for name in names),
                    *([str(done.instances)] if counted else []),
                    f"{done.seconds:.2f}",
                ]
                for done in summary.cases
            ],
        )
        if summary.stages:
            print("Where the time went, in seconds:")
            _stage_table(summary)
        print(printable(f"Segmentations are in {options['output_dir']}"))
    for failure in summary.failures:
        _fail(failure)
    if summary.failures:
        total = len(summary.failures) + len(summary.cases)
        rest = "the others are done" if summary.cases else "nothing was segmented"
        _fail(f"{len(summary.failures)} of {total} cases failed; {rest}.")
    return _CASES_FAILED if summary.failures else _DONE


def _stage_table(summary: SegmentationSummary) -> None:
    total = sum(summary.stages.values())
    # one after the other, as they come in the first case; "other" is what is left
    names = sorted(summary.stages, key=lambda name: name == "other")
    rows = [(done.case, done.stages) for done in summary.cases]
    if len(rows) > 1:
        rows.append(("all cases", summary.stages))
    _table(
        ["case", *names, "sum"],
        [
            *(
                [case, *(f"{stages.get(name, 0.0):.2f}" for name in names), f"{sum(stages.values()):.2f}"]
                for case, stages in rows
            ),
            ["share (%)", *(f"{100 * summary.stages[name] / total:.0f}" for name in names), "100"],
        ],
    )


def _demo(**options: Any) -> int:
    from monai_unetpp.demo import demo

    print("Segmenting the MNI ICBM152 T1 template, which comes with nilearn ...", flush=True)
    result = demo(**options, progress=lambda line: print(f"  {line}", flush=True))
    for part in result.parts:
        names = list(part.levels[0].case.volumes_ml)
        compared = list(part.levels[0].dice)
        deepest = part.levels[-1]
        relative = f"% of {deepest.level}"
        print(f"\n{part.name}: {part.bundle} on {part.device}, {part.runtime}, {part.precision}")
        _table(
            [
                "level",
                "parameters",
                relative,
                *(f"{name} (ml)" for name in names),
                *(f"Dice {name}" for name in compared),
                "seconds",
                relative,
                "network",
            ],
            [
                [
                    each.level,
                    f"{each.parameters:,}",
                    f"{100 * each.parameters / deepest.parameters:.1f}",
                    *(f"{each.case.volumes_ml[name]:.2f}" for name in names),
                    *(f"{each.dice[name]:.3f}" for name in compared),
                    f"{each.seconds:.2f}",
                    f"{100 * each.seconds / deepest.seconds:.0f}",
                    f"{100 * each.network_s / each.seconds:.0f} %",
                ]
                for each in part.levels
            ],
        )
        print(f"Image:   {part.image}")
        for each in part.levels:
            print(f"{each.level}:      {each.case.output}")
        print(f"Picture: {part.picture}")
    return _DONE


def _prune(bundle: str, output_dir: str, write: str | None, **options: Any) -> int:
    from monai_unetpp.pruning.evaluation import verdict
    from monai_unetpp.pruning.from_bundle import prune_bundle

    result = prune_bundle(bundle, output_dir=output_dir, write=write, **options)
    final = verdict(result)
    # of several processes that torchrun started, one speaks
    if os.environ.get("RANK", "0") == "0":
        for decision in result.decisions:
            print(f"{decision.dataset} ({decision.role}): {decision.summary}")
        if result.grid is not None:
            print(f"operating points: {result.grid.reason}")
        for trade_off in result.trade_offs:
            print(f"{trade_off.rule}: {', '.join(trade_off.points) or 'none'}. {trade_off.reason}")
        for problem in result.problems:
            _fail(f"left out: {problem.case} ({problem.dataset}): {problem.reason}")
        print(f"Report: {output_dir}/report.html")
        if write is not None and final.verdict == "prune":
            print(f"Pruned bundle: {write}")
        elif write is not None and os.path.exists(write):
            _fail(f"{write} is of an earlier run and does not belong to this verdict.")
    if final.verdict == "inconclusive":
        return _INCONCLUSIVE
    return _CASES_FAILED if result.problems else _DONE


def _export(source: str, output: str, format: str | None, **options: Any) -> int:
    from monai_unetpp.export import FORMATS, export_checkpoint

    by_suffix = {entry.suffix: name for name, entry in FORMATS.items()}
    suffix = os.path.splitext(output)[1]
    if format is None and suffix not in by_suffix:
        raise ValueError(f"output must end in one of {', '.join(by_suffix)}, got {output!r}. Or give --format.")
    result = export_checkpoint(source, output, format or by_suffix[suffix], **options)
    shape = " x ".join("any" if size is None else str(size) for size in result.input_shape)
    print(
        f"{result.path}: level {result.level}, {result.parameters:,} parameters, for input {shape}; differs from the "
        f"network by {result.largest_difference:.1e} of its largest logit at most"
    )
    return _DONE


def _check(target: str, schema: str | None) -> int:
    from pathlib import Path

    if (Path(target) / "dataset.json").is_file():
        from monai_unetpp.data.check import check_dataset

        problems = check_dataset(target)
    elif Path(target).is_dir() and not (Path(target) / "configs").is_dir():
        raise ValueError(
            f"{target}: neither a bundle (it has no configs folder) nor a data set (it has no dataset.json). "
            "Name the folder that holds one of them."
        )
    else:
        from monai_unetpp.bundles import bundle_code, check_bundle, find_bundle

        bundle = find_bundle(target)
        problems = check_bundle(bundle, schema=schema)
        _show_code(bundle_code(bundle))
    for problem in problems:
        _fail(problem)
    print(f"{target}: {'no problems found' if not problems else f'{len(problems)} problem(s) found'}.")
    return _CASES_FAILED if problems else _DONE


def _show_code(code: dict[str, list[str]]) -> None:
    if not code:
        return
    print("The configurations run this when they are used, as MONAI evaluates what begins with $ (information only):")
    for text, places in code.items():
        print(printable(f"  {text}    ({', '.join(places)})"))


def _benchmark(output: str | None, **options: Any) -> int:
    from monai_unetpp.benchmark import run_benchmark

    given = {name: value for name, value in options.items() if value is not None}
    text, figures = run_benchmark(**given, progress=lambda line: print(line, file=sys.stderr, flush=True))
    print(text)
    if output is not None:
        from monai_unetpp.files import write_text

        write_text(output, json.dumps(figures, indent=2) + "\n")
    return _DONE


def _failures(output_dir: str, **options: Any) -> int:
    from monai_unetpp.failures import find_failures
    from monai_unetpp.failures.kind_tables import kind_rows

    report = find_failures(output_dir=output_dir, **options, progress=sys.stderr.isatty())
    if report.cases:
        header, *rows = kind_rows(report)
        _table(header, rows)
    if report.worst:
        print(f"The worst: {', '.join(report.worst)}")
    print(f"Report: {os.path.join(output_dir, 'failures.md')}")
    for reason in report.failures.values():
        _fail(reason)
    if report.failures:
        total = len(report.failures) + len(report.cases)
        rest = "the others are in the report" if report.cases else "nothing is left"
        _fail(f"{len(report.failures)} of {total} cases failed; {rest}.")
    return _CASES_FAILED if report.failures else _DONE


def _study(list_only: bool, **options: Any) -> int:
    from monai_unetpp.study import run_study

    outcome = run_study(**options, list_only=list_only, on_message=lambda line: print(line, flush=True))
    # of several processes that torchrun started, one speaks; an error of another would have torchrun end it
    if os.environ.get("RANK", "0") != "0":
        return _DONE
    if list_only:
        _table(
            ["run", "seed", "parameters", "features", "state"],
            [
                [
                    run.variant.name,
                    str(run.seed),
                    f"{run.parameters:,}",
                    " ".join(map(str, run.variant.features)),
                    run.state,
                ]
                for run in outcome.runs
            ],
        )
        return _DONE
    if outcome.report is not None:
        print(f"\n{outcome.report.read_text(encoding='utf-8')}\nReport: {outcome.report}")
    for failure in outcome.failures:
        _fail(failure)
    if outcome.failures:
        _fail(f"{len(outcome.failures)} run(s) failed; the others are done. The same command tries them again.")
    return _CASES_FAILED if outcome.failures else _DONE


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", help="show log messages, and details of errors")
    parser = argparse.ArgumentParser(
        prog="monai-unetpp",
        description="Nested U-Nets (UNet++) for MONAI: segment images, and prune the network to the level you need.",
        epilog="first steps:\n"
        "  monai-unetpp demo                    segment a real MRI template, no data needed\n"
        "  monai-unetpp segment scan.nii.gz -o segmentations\n"
        "  monai-unetpp COMMAND --help          options and examples of a command\n\n" + _EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"monai-unetpp {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Callable[..., int], text: str, examples: str) -> argparse.ArgumentParser:
        each = commands.add_parser(
            name,
            parents=[common],
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        each.set_defaults(command=command)
        return each

    _add_demo(add("demo", _demo, "segment a real MRI template at every level; works offline, needs no data", _DEMO))
    _add_segment(add("segment", _segment, "segment images with a bundle", _SEGMENT))
    _add_prune(add("prune", _prune, "find out how shallow a bundle's network may be, with statistics", _PRUNE))
    _add_export(add("export", _export, "write a network for other programs, and check the file", _EXPORT))
    _add_check(add("check", _check, "check a bundle against the model zoo's rules, or a data set", _CHECK))
    _add_failures(
        add("failures", _failures, "show on which kinds of images, and on which cases, segmentations fail", _FAILURES)
    )
    _add_study(add("study", _study, "train and compare the networks of the UNet++ paper on your data", _STUDY))
    _add_benchmark(add("benchmark", _benchmark, "measure our networks against MONAI's on this machine", _BENCHMARK))
    return parser


_DEMO = """\
  monai-unetpp demo
  monai-unetpp demo hippocampus -o results --device cpu
"""


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        default=["brain", "hippocampus"],
        help="brain (tissues of the whole brain) or hippocampus; both if none is named",
    )
    parser.add_argument(
        "-o", "--output", dest="output_dir", default="demo", metavar="DIR", help="folder (default: %(default)s)"
    )
    parser.add_argument("--device", metavar="DEVICE", help=_DEVICE_HELP)


_SEGMENT = """\
  monai-unetpp segment scan.nii.gz -o segmentations
  monai-unetpp segment scans dicom_series -o segmentations --level L2
  monai-unetpp segment cells.png --bundle nuclei_microscopy_unetpp --instances -o results
  monai-unetpp segment my_dataset --list_key validation -o segmentations
  monai-unetpp segment scans -o segmentations --json > volumes.json
  monai-unetpp segment scans -o segmentations --no-flips --overlap 0.25 --precision auto --profile

The configurations of a bundle can run Python code (what begins with $): use only bundles that you trust.
monai-unetpp check BUNDLE lists it. Names of files and all other arguments are never run.
"""


def _add_segment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image file (NIfTI, .nrrd, .mha, DICOM, ...; for bundles of images also PNG and TIFF), folder of them, "
        "DICOM series folder, or folder with dataset.json",
    )
    parser.add_argument(
        "-o",
        "--output",
        dest="output_dir",
        required=True,
        metavar="DIR",
        help="folder for <case>_seg.nii.gz, .png or .tif, in the form of the input",
    )
    _add_bundle(parser)
    parser.add_argument(
        "--list_key",
        metavar="KEY",
        help="list of dataset.json to segment, such as validation (default: test if there is one, else validation, "
        "else training)",
    )
    parser.add_argument(
        "--level", metavar="LEVEL", help="L1, L2, ...: build and run only what this level needs (default: the deepest)"
    )
    parser.add_argument("--device", metavar="DEVICE", help=_DEVICE_HELP)
    # what is not given is None: then the bundle's own setting holds
    settings = parser.add_argument_group("speed and accuracy", "by default as the bundle says")
    settings.add_argument("--runtime", choices=_RUNTIMES, help="what computes the network; auto: the fastest here")
    settings.add_argument("--precision", choices=_PRECISIONS, help="auto: bf16 where the device has it, else fp32")
    settings.add_argument(
        "--overlap", type=float, metavar="SHARE", help="of neighbouring windows, from 0 to below 1: less is faster"
    )
    settings.add_argument(
        "--no-flips", dest="flips", action="store_const", const=(), help="no flips at test time: as many times faster"
    )
    settings.add_argument(
        "--smooth",
        action="store_true",
        default=None,
        help="interpolate each class on the input's grid: smoother borders, takes longer",
    )
    objects = parser.add_argument_group("bundles of images", "for bundles that have these settings")
    objects.add_argument(
        "--instances",
        action="store_true",
        default=None,
        help="number and count the objects, split where they touch",
    )
    objects.add_argument(
        "--slice_axis", type=int, metavar="AXIS", help="axis of volumes across which the slices lie: 0, 1, 2 or -1"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace results of other images that have the same name (default: these cases fail)",
    )
    parser.add_argument(
        "--profile", action="store_true", help="show where the time goes; nothing is done at the same time then"
    )
    parser.add_argument(
        "--json", dest="json_output", action="store_true", help="print the summary as JSON instead of a table"
    )


_PRUNE = """\
  monai-unetpp prune --dataset_dir Task04_Hippocampus -o report
  monai-unetpp prune --dataset_dir SITE_A --dataset_dir SITE_B -o report --margin dice=0.005
  monai-unetpp prune --dataset_dir DATA --confirm_dir OTHER_DATA -o report --write pruned_bundle
  monai-unetpp prune --dataset_dir DATA -o report --budget latency_ms=50 --extra alone=L2_trained_alone.pt
  monai-unetpp prune --dataset_dir DATA -o report --settings overlap=0,0.25 --settings precision=fp32,bf16

The report folder keeps finished cases: the same command goes on where it was interrupted.
"""


def _add_prune(parser: argparse.ArgumentParser) -> None:
    from monai_unetpp.options import add_options
    from monai_unetpp.pruning.plan import CostSettings, EvaluationData, Outputs
    from monai_unetpp.pruning.rules import Rules

    networks = parser.add_argument_group("networks")
    _add_bundle(networks)
    networks.add_argument("--checkpoint", metavar="FILE", help="weights to evaluate (default: those of the bundle)")
    networks.add_argument(
        "--extra",
        action="append",
        metavar="NAME=FILE",
        help="a further checkpoint to compare with, such as a level trained alone; repeatable",
    )
    networks.add_argument("--device", metavar="DEVICE", help=_DEVICE_HELP)
    # what is not given is None, also a flag: then the bundle's own setting holds
    add_options(parser.add_argument_group("cases"), EvaluationData)
    add_options(parser.add_argument_group("rules"), Rules)
    add_options(parser.add_argument_group("operating points"), CostSettings)
    add_options(parser.add_argument_group("results"), Outputs)


_EXPORT = """\
  monai-unetpp export hippocampus_mri_unetpp -o network.onnx --level L2
  monai-unetpp export hippocampus_mri_unetpp -o network.pt2 --dynamic_batch
  monai-unetpp export model.pt -o network.xml --window_shape 96 96 96 --batch_size 2
"""


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="BUNDLE_OR_CHECKPOINT", help="name or folder of a bundle, or a checkpoint")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="file to write: .pt2 (torch.export), .ts (TorchScript), .onnx, .xml (OpenVINO) or .ep (TensorRT)",
    )
    parser.add_argument(
        "--format",
        choices=["torch_export", "torchscript", "onnx", "openvino", "tensorrt"],
        help="what to write (default: what the file's suffix says)",
    )
    parser.add_argument("--level", metavar="LEVEL", help="L1, L2, ...: only what this level needs (default: deepest)")
    parser.add_argument(
        "--window_shape",
        nargs="+",
        type=int,
        metavar="SIZE",
        help="spatial size of the input, one per axis (default: what the bundle's metadata say)",
    )
    parser.add_argument("--batch_size", type=int, default=1, metavar="N", help="windows at once (default: %(default)s)")
    parser.add_argument("--dynamic_batch", action="store_true", help="let the file take any number of windows")


_CHECK = """\
  monai-unetpp check hippocampus_mri_unetpp
  monai-unetpp check path/to/my_bundle --schema meta_schema.json
  monai-unetpp check path/to/Task04_Hippocampus

Of a bundle it also lists the Python code that the configurations run when they are used: MONAI evaluates every value
that begins with $. That is no problem in itself, but use only bundles whose code you trust.
"""


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", metavar="BUNDLE_OR_DATASET", help="name or folder of a bundle, or folder with dataset.json"
    )
    parser.add_argument("--schema", metavar="FILE", help="JSON schema to check the bundle's metadata against")


_FAILURES = """\
  monai-unetpp failures --dataset_dir DATA --segmentations segmentations -o failures
  monai-unetpp failures --dataset_dir DATA --segmentations segmentations -o failures --label tumour --worst 20
  monai-unetpp failures --dataset_dir DATA --list_key training -o kinds

The segmentations are those of: monai-unetpp segment DATA --list_key validation -o segmentations
Kinds are the size of an image and its background, dark or bright; of volumes, the largest edge of a voxel. Written are
failures.md, failures.png with the worst cases, and failures.json with the figures of all.
"""


def _add_failures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset_dir", required=True, metavar="DIR", help="folder with dataset.json in Decathlon form, 2D or 3D"
    )
    parser.add_argument(
        "--segmentations",
        metavar="DIR",
        help="folder with <case>_seg.nii.gz, .png or .tif, as segment writes them (default: only count the kinds)",
    )
    parser.add_argument("-o", "--output", dest="output_dir", required=True, metavar="DIR", help="folder for the report")
    parser.add_argument(
        "--list_key",
        default="validation",
        metavar="KEY",
        help="list of dataset.json to take, validation or training (default: %(default)s)",
    )
    parser.add_argument(
        "--worst", type=int, default=10, metavar="N", help="cases to list and to draw (default: %(default)s)"
    )
    parser.add_argument(
        "--label",
        dest="labels",
        action="append",
        metavar="NAME",
        help="label to score; repeatable, the others become background (default: all that dataset.json names)",
    )
    parser.add_argument(
        "--instances",
        action="store_true",
        help="the label maps number their objects (segment --instances): all are one label",
    )


_BENCHMARK = """\
  monai-unetpp benchmark --quick
  monai-unetpp benchmark -o figures.json --plot figures.png
  monai-unetpp benchmark --bundle hippocampus_mri_unetpp --levels L1,L3 --runtimes torch,compile,openvino
"""


def _add_benchmark(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="DEVICE", help=_DEVICE_HELP)
    parser.add_argument("--quick", action="store_true", help="small networks and few repeats: to see that it works")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the figures to this file as JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw the speed-ups into this PNG file")
    parser.add_argument("--bundle", metavar="BUNDLE", help="take network, windows and overlap of this bundle")
    parser.add_argument(
        "--features", type=_integers, metavar="N,N,...", help="channels per resolution (default: 16,32,64,128,256)"
    )
    parser.add_argument(
        "--volume",
        dest="volume_shape",
        type=_integers,
        metavar="N,N,N",
        help="voxels of the volume (default: 152,168,152)",
    )
    parser.add_argument(
        "--window", dest="window_shape", type=_integers, metavar="N,N,N", help="voxels of a window (default: 96,96,96)"
    )
    parser.add_argument("--overlap", type=float, metavar="PART", help="of the windows, 0 to below 1 (default: 0.25)")
    parser.add_argument("--classes", dest="out_channels", type=int, metavar="N", help="output channels (default: 4)")
    parser.add_argument("--levels", type=_names, metavar="L,L,...", help="such as L1,L4 (default: all)")
    parser.add_argument(
        "--runtimes",
        type=_names,
        metavar="R,R,...",
        help="of torch, compile, openvino (default: torch, and openvino on a CPU if it is installed, else compile)",
    )
    parser.add_argument(
        "--precisions", type=_names, metavar="P,P,...", help="of fp32, bf16, fp16 (default: all; fp16 on a GPU only)"
    )
    parser.add_argument("--repeats", type=int, metavar="N", help="measured rounds (default: 3)")


def _integers(text: str) -> tuple[int, ...]:
    """For argparse: whole numbers between commas."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"must be whole numbers between commas, got {text!r}") from e


def _names(text: str) -> list[str]:
    """For argparse: names between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


_STUDY = """\
  monai-unetpp study --dataset_dir Task04_Hippocampus -o study --list
  monai-unetpp study --dataset_dir nuclei -o study --budget 1500 --seeds 0 1 2
  monai-unetpp study --dataset_dir nuclei -o row --variants unet_L4 unet++_ds
  monai-unetpp study --dataset_dir nuclei -o study --seeds 0 1 2 --shard 1/2
  monai-unetpp study --dataset_dir nuclei -o study --report_only

Trained are U-Nets of every depth, a wide U-Net with the parameters of UNet++, U-Net^e, UNet+ and UNet++ with and
without deep supervision, and levels of UNet++ alone, all on the same patches, with one loss, schedule and number of
steps. Scored are the last weights, on the validation list. Where features are too small for a wide U-Net, it is left
out. The same command goes on where it was interrupted (by
Ctrl-C, or killed) from the last checkpoint and repeats nothing that is finished; settings that are not given are
those that the folder was begun with. For several GPUs: torchrun --nproc_per_node=N -m monai_unetpp.cli study ...
"""


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset_dir", required=True, metavar="DIR", help="folder with dataset.json in Decathlon form, 2D or 3D"
    )
    parser.add_argument(
        "-o",
        "--output_dir",
        required=True,
        metavar="DIR",
        help="folder for runs, study.md, study.json, accuracy.png and curves.png",
    )
    parser.add_argument("--device", metavar="DEVICE", help=_DEVICE_HELP)

    runs = parser.add_argument_group("runs")
    runs.add_argument(
        "--variants", nargs="+", metavar="NAME", help="names or patterns such as 'unet++*', see --list (default: all)"
    )
    runs.add_argument(
        "--seeds", nargs="+", type=int, metavar="SEED", help="a run of each network per seed (default: 0)"
    )
    runs.add_argument(
        "--shard", metavar="K/N", help="do every N-th run from the K-th on: N processes with one folder share the work"
    )
    runs.add_argument("--list", dest="list_only", action="store_true", help="show the runs and their state, do nothing")
    runs.add_argument("--report_only", action="store_true", help="train nothing, report what is finished")

    terms = parser.add_argument_group("terms, equal for all runs of a folder")
    terms.add_argument(
        "--config",
        metavar="FILE",
        help="JSON object with any of these, variants and seeds; the command line goes first",
    )
    terms.add_argument("--budget", type=int, metavar="STEPS", help="training steps per run (default: 1500)")
    terms.add_argument(
        "--features", nargs="+", type=int, metavar="N", help="channels by resolution (default: 16 32 64 128 256)"
    )
    terms.add_argument(
        "--patch_size", nargs="+", type=int, metavar="N", help="of patches and windows (default: 128 in 2D, 64 in 3D)"
    )
    terms.add_argument("--batch_size", type=int, metavar="N", help="patches per step (default: 8 in 2D, 2 in 3D)")
    terms.add_argument("--learning_rate", type=float, metavar="RATE", help="the highest of the run (default: 0.001)")
    terms.add_argument(
        "--precision", metavar="NAME", help="auto, fp32 or bf16 (default: auto, bf16 where the device has it natively)"
    )
    terms.add_argument(
        "--spacing_mm", nargs="+", type=float, metavar="MM", help="resample to this voxel size (default: do not)"
    )
    terms.add_argument(
        "--flip_axes",
        nargs="*",
        type=int,
        metavar="AXIS",
        help="axes that patches are flipped along (default: 0 1 in 2D, 0 in 3D)",
    )
    terms.add_argument("--overlap", type=float, metavar="SHARE", help="of windows in scoring (default: 0.25)")
    terms.add_argument("--checkpoint_steps", type=int, metavar="STEPS", help="between checkpoints (default: 50)")

    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--num_workers", type=int, default=0, metavar="N", help="processes that draw patches (default: %(default)s)"
    )
    speed.add_argument(
        "--cache_rate",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="share of the training cases that is kept in memory (default: %(default)s)",
    )


def _add_bundle(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--bundle",
        default="hippocampus_mri_unetpp",
        metavar="BUNDLE",
        help="folder of a bundle, or one that comes with the package: brain_tissue_mri_unetpp, hippocampus_mri_unetpp "
        "or nuclei_microscopy_unetpp (default: %(default)s)",
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    for line in (header, ["-" * width for width in widths], *rows):
        cells = [
            cell.ljust(widths[0]) if not column else cell.rjust(widths[column]) for column, cell in enumerate(line)
        ]
        print(printable("  ".join(cells).rstrip()))


def _fail(message: str) -> None:
    print(f"monai-unetpp: {printable(' '.join(message.splitlines()))}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
