"""Exported folders as whole processes: level by precision by format, with size, memory, time and accuracy."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.launching import instruction_sets, launch
from monai_unetpp.bundles import find_bundle, read_network_def
from monai_unetpp.data import load_datalist
from monai_unetpp.data.datasets.labelled import LabelledCase, list_cases
from monai_unetpp.data.formats.reader import read_label_map
from monai_unetpp.errors import counted
from monai_unetpp.export import export_runner
from monai_unetpp.measuring.environment import Environment, describe_environment
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.rounds import shuffled_rounds
from monai_unetpp.metrics import METRICS, CaseScorer, spacing_of_affine
from monai_unetpp.pruning.decision import compare_points
from monai_unetpp.pruning.points.tradeoffs import mean_accuracy
from monai_unetpp.pruning.results import Comparison, PointOutcome, ScoreRow
from monai_unetpp.reporting.markdown import format_table
from monai_unetpp.runner import Segmenter

QUICK: dict[str, Any] = {"repeats": 1, "most_cases": 2}
"""Arguments for a run that only shows that it works."""

_POINTS = (("fp32", "openvino"), ("bf16", "openvino"), ("int8", "openvino"), ("fp32", "onnx"))
#: Of the surface Dice.
_TOLERANCE_MM = 1.0
_STATES = {"pass": "as good", "fail": "worse", "inconclusive": "not shown"}


@dataclasses.dataclass(frozen=True)
class FolderFigures:
    """What one exported folder takes and gives.

    Attributes:
        point: its name, such as ``"L2 int8 openvino"``.
        level: such as ``"L2"``.
        precision: ``"fp32"``, ``"bf16"`` or ``"int8"``.
        network_format: ``"openvino"`` or ``"onnx"``.
        size_bytes: of the folder.
        peak_bytes: resident memory of a process that segments one volume.
        seconds: of such a process from start to end, by the number of threads.
        dice: mean over labels and cases.
        nsd: the same of the normalised surface Dice at 1 mm.
    """

    point: str
    level: str
    precision: str
    network_format: str
    size_bytes: int
    peak_bytes: int
    seconds: dict[int, Quartiles]
    dice: float
    nsd: float


@dataclasses.dataclass(frozen=True)
class RunnerBenchmark:
    """All points of one bundle, with the scores of every case in ``rows``.

    The ``outcomes`` are those of all points beside the ``reference``, the deepest level in fp32, by the rule of
    pruning: Dice and surface Dice of each label, and single cases.
    """

    bundle: str
    cases: int
    folders: tuple[FolderFigures, ...]
    reference: str
    outcomes: tuple[PointOutcome, ...]
    rows: tuple[ScoreRow, ...]
    environment: Environment
    instruction_sets: str


def measure_runner(
    bundle: str,
    dataset_dir: str,
    device: str = "cpu",
    repeats: int = 5,
    most_cases: int = 30,
    threads: Sequence[int] = (1, 2),
    levels: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
) -> RunnerBenchmark:
    """Export a bundle in every way, and measure what each takes and how well it segments validation cases.

    Args:
        bundle: name or folder.
        dataset_dir: folder with ``dataset.json``: ``validation`` is segmented, ``training`` calibrates int8.
        device: only ``"cpu"``; for the call that all benchmarks have.
        repeats: processes for each time, in turns of shuffled order.
        most_cases: of the validation list.
        threads: how many to measure with.
        levels: such as ``("L4",)``; None for all.
        precisions: such as ``("fp32", "int8")``, with fp32, the reference; None for all.
    """
    cases = list_cases(load_datalist(dataset_dir, "validation")[:most_cases])
    with tempfile.TemporaryDirectory() as temporary:
        folders = _export_all(bundle, dataset_dir, Path(temporary), levels, precisions)
        image, out = cases[0].image[0], Path(temporary) / "out"
        took: dict[tuple[Path, int], list[tuple[float, int]]] = {}
        for order in shuffled_rounds(itertools.product(folders.values(), threads), repeats):
            for folder, count in order:
                took.setdefault((folder, count), []).append(_run_process(folder, image, out, count))
        rows = tuple(row for point, folder in folders.items() for row in _score(point, folder, cases))
        points = [" ".join(point) for point in folders]
        means = {metric: mean_accuracy(rows, points, metric) for metric in ("dice", "nsd")}
        figures = tuple(
            FolderFigures(
                " ".join(point),
                *point,
                sum(file.stat().st_size for file in folder.iterdir()),
                max(peak for count in threads for _, peak in took[folder, count]),
                {count: Quartiles.of([seconds for seconds, _ in took[folder, count]]) for count in threads},
                *(means[metric][" ".join(point)] for metric in ("dice", "nsd")),
            )
            for point, folder in folders.items()
        )
    reference = [each.point for each in figures if (each.precision, each.network_format) == _POINTS[0]][-1]
    return RunnerBenchmark(
        find_bundle(bundle).name,
        len(cases),
        figures,
        reference,
        compare_points(rows, points, reference),
        rows,
        describe_environment(device, "fp32", "openvino"),
        instruction_sets(),
    )


def format_runner_benchmark(result: RunnerBenchmark) -> str:
    """The table in Markdown, and the smallest folder that is as good as the reference."""
    counts = sorted(result.folders[0].seconds)
    header = [
        "level",
        "precision",
        "format",
        "MB",
        "peak MB",
        *(f"s, {counted(n, 'thread')}" for n in counts),
        "Dice",
        "NSD",
    ]
    judged = ["weakest difference (bounds)", "worst case", "verdict"]
    outcomes = {outcome.point: outcome for outcome in result.outcomes}
    rows = [
        [
            each.level,
            each.precision,
            each.network_format,
            f"{each.size_bytes / 1e6:.2f}",
            f"{each.peak_bytes / 1e6:.0f}",
            *(each.seconds[n].text(".2f") for n in counts),
            f"{each.dice:.4f}",
            f"{each.nsd:.4f}",
            *_judged(outcomes.get(each.point)),
        ]
        for each in result.folders
    ]
    good = [each for each in result.folders if each.point == result.reference or outcomes[each.point].state == "pass"]
    least = min(good, key=lambda each: each.size_bytes)
    return "\n".join(
        [
            f"{result.bundle}, {result.cases} validation cases; {result.environment.line()}; {result.instruction_sets}",
            "",
            format_table([*header, *judged], rows, [False] * 3 + [True] * (len(header) - 3) + [False] * len(judged)),
            "",
            f"The smallest that is as good as {result.reference}: {least.point}.",
        ]
    )


def _judged(outcome: PointOutcome | None) -> list[str]:
    """The difference nearest to its margin, the largest drop of a case, and the verdict."""
    if outcome is None:
        return ["", "", "reference"]
    if not outcome.comparisons:
        return ["", "", _STATES[outcome.state]]
    weakest = min(outcome.comparisons, key=_room)
    worst = min(outcome.comparisons, key=lambda each: each.worst_difference)
    bounds = f"{weakest.lower_bound:+.4f} to {weakest.upper_bound:+.4f}"
    return [
        f"{_named(weakest)} {weakest.mean_difference:+.4f} ({bounds})",
        f"{_named(worst)} {worst.worst_difference:+.3f} ({worst.worst_case})",
        _STATES[outcome.state],
    ]


def _room(comparison: Comparison) -> float:
    room = comparison.lower_bound + comparison.margin
    return -math.inf if math.isnan(room) else room


def _named(comparison: Comparison) -> str:
    return f"{METRICS[comparison.metric].name} of {comparison.label}"


def _export_all(
    bundle: str, dataset_dir: str, root: Path, levels: Sequence[str] | None, precisions: Sequence[str] | None
) -> dict[tuple[str, str, str], Path]:
    """The folders by level, precision and format; what needs a package that is not there is left out."""
    depth = len(read_network_def(find_bundle(bundle))["features"]) - 1
    known = [f"L{index}" for index in range(1, depth + 1)]
    if unknown := [level for level in levels or () if level not in known]:
        raise ValueError(f"levels must be of {', '.join(known)}, got {', '.join(unknown)}.")
    points = [point for point in _POINTS if precisions is None or point[0] in precisions]
    folders = {}
    for level, (precision, form) in itertools.product([each for each in known if each in (levels or known)], points):
        missing = {"int8": "nncf"}.get(precision) or {"onnx": "onnxruntime"}.get(form)
        if missing is not None and importlib.util.find_spec(missing) is None:
            continue
        folder = root / f"{level}_{precision}_{form}"
        calibration = dataset_dir if precision == "int8" else None
        export_runner(bundle, folder, level=level, precision=precision, network_format=form, calibration=calibration)
        folders[level, precision, form] = folder
    return folders


def _run_process(folder: Path, image: Path, out: Path, threads: int) -> tuple[float, int]:
    """Seconds and peak resident memory of a process that segments one image."""
    command = [sys.executable, "-m", "monai_unetpp.runner", str(folder), str(image), "-o", str(out)]
    done = launch([*command, "--threads", str(threads)])
    return done.seconds, done.peak_bytes


def _score(point: tuple[str, str, str], folder: Path, cases: Sequence[LabelledCase]) -> Iterator[ScoreRow]:
    segmenter = Segmenter(folder)
    labels = {name: int(value) for value, name in segmenter.pipeline.labels.items() if int(value) > 0}
    for case in cases:
        truth = read_label_map(case.label)
        spacing = spacing_of_affine(truth.affine, truth.data.ndim)
        scorer = CaseScorer(truth.data, spacing, labels, dict.fromkeys(labels, _TOLERANCE_MM))
        found = segmenter.label(case.image[0]).reshape(truth.data.shape)
        for label, score in scorer.score(found).items():
            yield ScoreRow("validation", case.name, case.subject, " ".join(point), label, score)
