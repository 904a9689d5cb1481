"""Exported folders as whole processes: level by precision by format, with size, memory, time and accuracy."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.launching import launch
from monai_unetpp.bundles import find_bundle, read_network_def
from monai_unetpp.data import load_datalist
from monai_unetpp.export import export_runner
from monai_unetpp.measuring.environment import Environment, describe_environment
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.reporting.markdown import format_table
from monai_unetpp.runner import Segmenter

__all__ = ["QUICK", "FolderFigures", "RunnerBenchmark", "format_runner_benchmark", "measure_runner"]

QUICK: dict[str, Any] = {"repeats": 1, "most_cases": 2}
"""Arguments for a run that only shows that it works."""

#: By how much the mean Dice may be lower than that of the deepest level in fp32.
_MARGIN = 0.01
_POINTS = (("fp32", "openvino"), ("bf16", "openvino"), ("int8", "openvino"), ("fp32", "onnx"))


@dataclasses.dataclass(frozen=True)
class FolderFigures:
    """What one exported folder takes and gives.

    Attributes:
        level: such as ``"L2"``.
        precision: ``"fp32"``, ``"bf16"`` or ``"int8"``.
        network_format: ``"openvino"`` or ``"onnx"``.
        size_bytes: of the folder.
        peak_bytes: resident memory of a process that segments one volume.
        seconds: of such a process from start to end, by the number of threads.
        dice: mean over labels and cases.
        difference: of ``dice`` to that of the deepest level in fp32.
        lower_bound: of the difference, one-sided 95 %.
    """

    level: str
    precision: str
    network_format: str
    size_bytes: int
    peak_bytes: int
    seconds: dict[int, Quartiles]
    dice: float
    difference: float
    lower_bound: float


@dataclasses.dataclass(frozen=True)
class RunnerBenchmark:
    """All points of one bundle.

    Attributes:
        bundle: its name.
        cases: how many the accuracy comes from.
        folders: one for each level, precision and format.
        environment: where it was measured.
    """

    bundle: str
    cases: int
    folders: tuple[FolderFigures, ...]
    environment: Environment


def measure_runner(
    bundle: str,
    dataset_dir: str,
    device: str = "cpu",
    repeats: int = 5,
    most_cases: int = 30,
    threads: Sequence[int] = (1, 2),
) -> RunnerBenchmark:
    """Export a bundle in every way, and measure what each takes and how well it segments validation cases.

    Args:
        bundle: name or folder.
        dataset_dir: folder with ``dataset.json``: ``validation`` is segmented, ``training`` calibrates int8.
        device: only ``"cpu"``; for the call that all benchmarks have.
        repeats: processes for each time, in turns.
        most_cases: of the validation list.
        threads: how many to measure with.
    """
    cases = load_datalist(dataset_dir, "validation")[:most_cases]
    with tempfile.TemporaryDirectory() as temporary:
        points = _export_all(bundle, dataset_dir, Path(temporary))
        image, out = Path(cases[0]["image"]), Path(temporary) / "out"
        took: dict[tuple[Path, int], list[tuple[float, int]]] = {}
        for _ in range(repeats):
            for (_, _, _, folder), count in itertools.product(points, threads):
                took.setdefault((folder, count), []).append(_run_process(folder, image, out, count))
        scores = {folder: _score(folder, cases) for _, _, _, folder in points}
        reference = scores[[folder for _, precision, form, folder in points if (precision, form) == _POINTS[0]][-1]]
        folders = tuple(
            FolderFigures(
                level,
                precision,
                form,
                sum(file.stat().st_size for file in folder.iterdir()),
                max(peak for count in threads for _, peak in took[folder, count]),
                {count: Quartiles.of([seconds for seconds, _ in took[folder, count]]) for count in threads},
                float(scores[folder].mean()),
                *_compare(scores[folder], reference),
            )
            for level, precision, form, folder in points
        )
    return RunnerBenchmark(
        find_bundle(bundle).name, len(cases), folders, describe_environment(device, "fp32", "openvino")
    )


def format_runner_benchmark(result: RunnerBenchmark) -> str:
    """The table in Markdown, and the smallest folder that is not inferior."""
    counts = sorted(result.folders[0].seconds)
    header = ["level", "precision", "format", "MB", "peak MB", *(f"s, {n} thread(s)" for n in counts), "Dice"]
    rows = [
        [
            point.level,
            point.precision,
            point.network_format,
            f"{point.size_bytes / 1e6:.2f}",
            f"{point.peak_bytes / 1e6:.0f}",
            *(f"{point.seconds[n].median:.2f}" for n in counts),
            f"{point.dice:.4f}",
            f"{point.difference:+.4f} (from {point.lower_bound:+.4f})",
        ]
        for point in result.folders
    ]
    good = [point for point in result.folders if point.lower_bound > -_MARGIN]
    least = min(good, key=lambda point: point.size_bytes)
    return "\n".join(
        [
            f"{result.bundle}, {result.cases} validation cases; {result.environment}",
            "",
            format_table([*header, "difference"], rows, [False] * 3 + [True] * (len(header) - 2)),
            "",
            f"The smallest that is not inferior by more than {_MARGIN} Dice: {least.level} {least.precision} "
            f"{least.network_format}.",
        ]
    )


def _export_all(bundle: str, dataset_dir: str, root: Path) -> list[tuple[str, str, str, Path]]:
    network = read_network_def(find_bundle(bundle))
    depth = len(network["features"]) - 1
    points = []
    for level, (precision, form) in itertools.product([f"L{index}" for index in range(1, depth + 1)], _POINTS):
        missing = {"int8": "nncf"}.get(precision) or {"onnx": "onnxruntime"}.get(form)
        if missing is not None and importlib.util.find_spec(missing) is None:
            continue
        folder = root / f"{level}_{precision}_{form}"
        calibration = dataset_dir if precision == "int8" else None
        export_runner(bundle, folder, level=level, precision=precision, network_format=form, calibration=calibration)
        points.append((level, precision, form, folder))
    return points


def _run_process(folder: Path, image: Path, out: Path, threads: int) -> tuple[float, int]:
    """Seconds and peak resident memory of a process that segments one image."""
    command = [sys.executable, "-m", "monai_unetpp.runner", str(folder), str(image), "-o", str(out)]
    done = launch([*command, "--threads", str(threads)])
    return done.seconds, done.peak_bytes


def _score(folder: Path, cases: Sequence[dict[str, Any]]) -> npt.NDArray[np.float64]:
    """The mean Dice of each case over the labels."""
    segmenter = Segmenter(folder)
    values = [int(value) for value in segmenter.pipeline.labels if int(value) > 0]
    return np.array([_dice(segmenter.label(case["image"]), case["label"], values) for case in cases])


def _dice(found: npt.NDArray[Any], label: str, values: Sequence[int]) -> float:
    stored: Any = nibabel.load(label)
    truth = np.asarray(stored.dataobj).reshape(found.shape)
    counts = [(np.count_nonzero(found == value), np.count_nonzero(truth == value), value) for value in values]
    overlaps = [
        2 * np.count_nonzero((found == value) & (truth == value)) / (one + other)
        for one, other, value in counts
        if one + other
    ]
    return float(np.mean(overlaps)) if overlaps else 1.0


def _compare(scores: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The mean difference, and its lower bound by Student's t."""
    differences = scores - reference
    mean, count = float(differences.mean()), len(differences)
    error = float(differences.std(ddof=1) / np.sqrt(count)) if count > 1 else float("inf")
    return mean, mean - float(stats.t.ppf(0.95, max(count - 1, 1))) * error if error else mean
