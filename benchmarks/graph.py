"""Where the time of an exported network goes in OpenVINO, and what decoder nodes without concatenations would bring.

Run ``python -m benchmarks.graph FOLDER``, with a folder of ``monai-unetpp export --format runner``. The convolution of
a concatenation equals the sum of the convolutions of its parts, so that the graph can be written without: both ways
take turns. Times are those of the processor, which a busy machine changes less than those of the clock.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import run_command
from benchmarks.launching import HOLDS, instruction_sets
from monai_unetpp.openvino_loading import import_openvino, openvino_core
from monai_unetpp.reporting.markdown import format_table
from monai_unetpp.runner.pipeline import read_pipeline


@dataclasses.dataclass(frozen=True)
class GraphProfile:
    """What one window takes.

    ``shares`` of the time and ``counts`` are those of all operations by kind and how they are computed; ``cpu_seconds``
    is the least of several runs, by name of the graph; ``largest_difference`` is that of the logits of both graphs,
    relative to the largest.
    """

    shares: dict[tuple[str, str], float]
    counts: dict[tuple[str, str], int]
    cpu_seconds: dict[str, float]
    largest_difference: float


def profile_graph(folder: str, repeats: int = 5, precision: str = "f32") -> GraphProfile:
    """Profile the network of a folder of ``export --format runner`` on one thread; both graphs run in turns."""
    pipeline = read_pipeline(folder)
    model = openvino_core().read_model(Path(folder) / pipeline.network["files"][0])
    rewritten = without_concatenations(model)
    requests = {"as it is": _request(model, precision), "without concatenations": _request(rewritten, precision)}
    window = np.random.default_rng(0).standard_normal(list(model.input(0).shape)).astype(np.float32)
    took: dict[str, list[float]] = collections.defaultdict(list)
    logits = {}
    for _ in range(repeats + 1):
        for name, request in requests.items():
            before = _cpu_seconds()
            request.infer([window])
            took[name].append(_cpu_seconds() - before)
            logits[name] = np.array(request.get_output_tensor(0).data)
    spent: dict[tuple[str, str], float] = collections.defaultdict(float)
    counts: dict[tuple[str, str], int] = collections.defaultdict(int)
    for each in requests["as it is"].profiling_info:
        key = each.node_type, each.exec_type
        spent[key] += each.real_time.total_seconds()
        counts[key] += 1
    total = sum(spent.values())
    first, second = logits.values()
    return GraphProfile(
        {key: value / total for key, value in spent.items() if value > 0},
        dict(counts),
        {name: min(seconds[1:]) for name, seconds in took.items()},
        float(np.abs(first - second).max() / np.abs(first).max()),
    )


def without_concatenations(model: Any) -> Any:
    """A copy of a model in which each convolution of a concatenation is a sum of convolutions of its parts."""
    opset = import_openvino().opset15
    copy = model.clone()
    for convolution in [node for node in copy.get_ordered_ops() if node.get_type_name() == "Convolution"]:
        joined, weights = (convolution.input_value(index).get_node() for index in (0, 1))
        if joined.get_type_name() != "Concat" or weights.get_type_name() != "Constant":
            continue
        begin, parts = 0, []
        for part in joined.input_values():
            end = begin + part.get_partial_shape()[1].get_length()
            sliced = opset.constant(np.ascontiguousarray(weights.data[:, begin:end]))
            given = convolution.get_attributes()
            places = (given[name] for name in ("strides", "pads_begin", "pads_end", "dilations"))
            parts.append(opset.convolution(part, sliced, *places))
            begin = end
        total = functools.reduce(opset.add, parts)
        for target in convolution.output(0).get_target_inputs():
            target.replace_source_output(total.output(0))
    copy.validate_nodes_and_infer_types()
    return copy


def _request(model: Any, precision: str) -> Any:
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
    return openvino_core().compile_model(model, "CPU", {**settings, "PERF_COUNT": True}).create_infer_request()


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(arguments: list[str] | None = None) -> int:
    """Profile and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graph", description=__doc__)
    parser.add_argument("folder", help="exported folder with an OpenVINO network")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each graph (default: 5)")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--hold_to", choices=HOLDS, help="fewer instruction sets than the processor has")
    return run_command(parser, arguments, _profile)


def _profile(folder: str, repeats: int, precision: str, hold_to: str | None) -> Iterator[str]:
    os.environ.update(HOLDS.get(hold_to or "", {}))
    result = profile_graph(folder, repeats, precision)
    rows = [
        [kind, way, str(result.counts[kind, way]), f"{100 * share:.1f} %"]
        for (kind, way), share in sorted(result.shares.items(), key=lambda item: -item[1])
    ]
    table = format_table(["operation", "computed by", "number", "share of time"], rows, [False, False, True, True])
    seconds = ", ".join(f"{name} {value:.3f}" for name, value in result.cpu_seconds.items())
    yield (
        f"{folder}, one window on one thread; {instruction_sets(hold_to)}\n\n{table}\n\n"
        f"CPU seconds of a window: {seconds}; logits differ by {result.largest_difference:.1e} of the largest."
    )


if __name__ == "__main__":
    raise SystemExit(main())
