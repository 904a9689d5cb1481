"""The console script ``monai-unetpp``: the only place that prints.

Every subcommand calls one function with the same arguments; what takes long to import is imported when it is needed.
Exit codes: 0 done, 1 some cases failed, 2 bad arguments or input, 3 inconclusive (prune).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from monai_unetpp.version import __version__

__all__ = ["main"]

_DONE, _CASES_FAILED, _BAD_INPUT, _INCONCLUSIVE = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    command: Callable[..., int] = options.pop("command")
    verbose = options.pop("verbose")
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s", stream=sys.stderr)
    if not verbose:
        warnings.simplefilter("ignore")
        # its failed cases are in the summary
        logging.getLogger("monai_unetpp.engines").setLevel(logging.CRITICAL)
    try:
        return command(**options)
    except KeyboardInterrupt:
        _fail("interrupted; finished cases are kept.")
        return 130
    except (ValueError, OSError, ImportError) as e:
        if verbose:
            logging.getLogger(__name__).exception("the command failed")
        _fail(str(e))
        return _BAD_INPUT


def _segment(json_output: bool, **options: Any) -> int:
    from monai_unetpp.segmentation import segment

    summary = segment(**options, progress=not json_output and sys.stderr.isatty())
    if json_output:
        print(json.dumps(summary.as_dict(), indent=2))
    elif summary.cases:
        names = list(summary.cases[0].volumes_ml)
        print(f"{summary.bundle}, level {summary.level}, on {summary.device}")
        _table(
            ["case", *(f"{name} (ml)" for name in names), "seconds"],
            [
                [done.case, *(f"{done.volumes_ml[name]:.3f}" for name in names), f"{done.seconds:.2f}"]
                for done in summary.cases
            ],
        )
        print(f"Segmentations are in {options['output_dir']}")
    for failure in summary.failures:
        _fail(failure)
    if summary.failures:
        total = len(summary.failures) + len(summary.cases)
        _fail(f"{len(summary.failures)} of {total} cases failed; the others are done.")
    return _CASES_FAILED if summary.failures else _DONE


def _demo(**options: Any) -> int:
    from monai_unetpp.demo import demo

    print("Segmenting the left hippocampus of the MNI ICBM152 T1 template at every level ...")
    result = demo(**options)
    names = list(result.levels[0].case.volumes_ml)
    deepest = result.levels[-1].case.seconds
    _table(
        ["level", "parameters", *(f"{name} (ml)" for name in names), "seconds", "time against the deepest"],
        [
            [
                each.level,
                f"{each.parameters:,}",
                *(f"{each.case.volumes_ml[name]:.3f}" for name in names),
                f"{each.case.seconds:.3f}",
                f"{each.case.seconds / deepest:.2f}",
            ]
            for each in result.levels
        ],
    )
    print(f"Image:   {result.image}")
    for each in result.levels:
        print(f"Labels:  {each.case.output}")
    print(f"Picture: {result.picture}")
    return _DONE


def _prune(bundle: str, output_dir: str, save_as: str | None, **options: Any) -> int:
    from monai_unetpp.pruning.from_bundle import prune_bundle
    from monai_unetpp.pruning.prune import verdict

    result = prune_bundle(bundle, output_dir=output_dir, write=save_as, **options)
    final = verdict(result)
    for decision in result.decisions:
        print(f"{decision.dataset} ({decision.role}): {decision.summary}")
    for trade_off in result.trade_offs:
        print(f"{trade_off.rule}: {', '.join(trade_off.points) or 'none'}. {trade_off.reason}")
    for problem in result.problems:
        _fail(f"left out: {problem.case} ({problem.dataset}): {problem.reason}")
    print(f"Report: {output_dir}/report.html")
    if save_as is not None and final.verdict == "prune":
        print(f"Pruned bundle: {save_as}")
    if final.verdict == "inconclusive":
        return _INCONCLUSIVE
    return _CASES_FAILED if result.problems else _DONE


def _check(target: str, schema: str | None) -> int:
    from pathlib import Path

    if (Path(target) / "dataset.json").is_file():
        from monai_unetpp.data import check_dataset

        problems = check_dataset(target)
    else:
        from monai_unetpp.bundles import check_bundle, find_bundle

        problems = check_bundle(find_bundle(target), schema=schema)
    for problem in problems:
        _fail(problem)
    print(f"{target}: {'no problems found' if not problems else f'{len(problems)} problem(s) found'}.")
    return _CASES_FAILED if problems else _DONE


def _benchmark(kind: str, output: str | None, **options: Any) -> int:
    from monai_unetpp.benchmark import run_benchmark

    text, figures = run_benchmark(kind, **options)
    print(text)
    if output is not None:
        from monai_unetpp.files import write_text

        write_text(output, json.dumps(figures, indent=2) + "\n")
    return _DONE


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", help="show log messages, and details of errors")
    parser = argparse.ArgumentParser(
        prog="monai-unetpp", description="Nested U-Nets (UNet++) for MONAI: segment, and prune to the level you need."
    )
    parser.add_argument("--version", action="version", version=f"monai-unetpp {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Callable[..., int], text: str) -> argparse.ArgumentParser:
        each = commands.add_parser(name, parents=[common], help=text, description=text[0].upper() + text[1:] + ".")
        each.set_defaults(command=command)
        return each

    segment = add("segment", _segment, "segment images with a bundle")
    segment.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="NIfTI file, folder of NIfTI files, or DICOM series folder"
    )
    segment.add_argument(
        "-o", "--output", dest="output_dir", required=True, metavar="DIR", help="folder for <case>_seg.nii.gz"
    )
    segment.add_argument(
        "--bundle",
        default="hippocampus_mri_unetpp",
        metavar="BUNDLE",
        help="name or folder of a bundle (default: %(default)s)",
    )
    segment.add_argument(
        "--level", metavar="LEVEL", help="L1, L2, ...: run only what this level needs (default: deepest)"
    )
    segment.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    segment.add_argument("--json", dest="json_output", action="store_true", help="print the summary as JSON")

    demo = add("demo", _demo, "segment a real MRI template at every level; needs no data and no network connection")
    demo.add_argument("-o", "--output", dest="output_dir", default="demo", metavar="DIR", help="folder (default: demo)")
    demo.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")

    prune = add("prune", _prune, "find out how shallow a bundle's network may be, with statistics and a report")
    prune.add_argument(
        "--bundle", default="hippocampus_mri_unetpp", metavar="BUNDLE", help="name or folder (default: %(default)s)"
    )
    prune.add_argument(
        "--dataset_dir",
        action="append",
        required=True,
        metavar="DIR",
        help="folder with dataset.json in Decathlon form; give it again for each further data set",
    )
    prune.add_argument("-o", "--output", dest="output_dir", required=True, metavar="DIR", help="folder for the report")
    prune.add_argument("--checkpoint", metavar="FILE", help="weights to evaluate (default: those of the bundle)")
    prune.add_argument("--list_key", metavar="KEY", help="list of dataset.json to take (default: validation)")
    prune.add_argument("--confirm_dir", metavar="DIR", help="a data set that only confirms the chosen level")
    prune.add_argument(
        "--confirm_share", type=float, metavar="SHARE", help="share of the subjects kept back to confirm"
    )
    prune.add_argument(
        "--margin",
        dest="margins",
        action="append",
        metavar="METRIC[:LABEL]=VALUE",
        help="largest mean loss that still counts as the same; repeatable (default: dice=0.01 and nsd=0.02)",
    )
    prune.add_argument(
        "--max_case_drop",
        action="append",
        metavar="METRIC=VALUE",
        help="largest drop of a single case; repeatable (default: dice=0.2 and nsd=0.4)",
    )
    prune.add_argument(
        "--budget",
        dest="budgets",
        action="append",
        metavar="COST=VALUE",
        help="also pick the most accurate level within latency_ms, memory_mb, parameters, ...; repeatable",
    )
    prune.add_argument(
        "--utility_weight", type=float, metavar="W", help="also pick by accuracy minus W times the relative latency"
    )
    prune.add_argument(
        "--extra",
        action="append",
        metavar="NAME=FILE",
        help="a further checkpoint to compare with, such as a level trained alone; repeatable",
    )
    prune.add_argument("--subject_pattern", metavar="REGEX", help="finds the subject in a case's name by its one group")
    prune.add_argument("--exclude_problems", action="store_true", help="leave out cases with problems in their data")
    prune.add_argument("--save_uncertainty", action="store_true", help="write maps of where the levels disagree")
    prune.add_argument(
        "--write", dest="save_as", metavar="DIR", help="write the pruned bundle if the verdict is to prune"
    )
    prune.add_argument("--overwrite", action="store_true", help="replace an earlier pruned bundle")
    prune.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")

    check = add("check", _check, "check a bundle against the rules of the model zoo, or a data set in Decathlon form")
    check.add_argument(
        "target", metavar="BUNDLE_OR_DATASET", help="name or folder of a bundle, or folder of a data set"
    )
    check.add_argument("--schema", metavar="FILE", help="JSON schema for the bundle's metadata")

    benchmark = add("benchmark", _benchmark, "measure our networks against MONAI's on this machine")
    benchmark.add_argument(
        "kind",
        choices=["training", "scoring"],
        help="training: time and memory of a training step; scoring: all levels from one pass against the deepest alone",
    )
    benchmark.add_argument("--device", metavar="DEVICE", help="cpu, cuda, ... (default: a GPU if there is one)")
    benchmark.add_argument("--quick", action="store_true", help="small networks and few repeats: to see that it works")
    benchmark.add_argument("--json", dest="output", metavar="FILE", help="write the figures as JSON too")
    return parser


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    for line in (header, ["-" * width for width in widths], *rows):
        cells = [
            cell.ljust(widths[0]) if not column else cell.rjust(widths[column]) for column, cell in enumerate(line)
        ]
        print("  ".join(cells).rstrip())


def _fail(message: str) -> None:
    print(f"monai-unetpp: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
