"""Text and tables of an inference benchmark."""

from __future__ import annotations

from monai_unetpp.benchmark.speed_results import OUTPUT_TOLERANCE, InferenceBenchmark, SpeedTarget, check_targets
from monai_unetpp.reporting.markdown import format_table
from monai_unetpp.reporting.numbers import percent


def format_inference_benchmark(result: InferenceBenchmark) -> str:
    """The results in Markdown: tables of costs and of stages, whether outputs agree, and the targets."""
    parts = [_heading(result), _cost_table(result), _stage_table(result), _agreement(result)]
    if result.missing:
        parts.append(["Missing:", *(f"- {missing.name}: {missing.reason}" for missing in result.missing)])
    parts.append(["Targets:", *(f"- {_target_line(target, result)}" for target in check_targets(result))])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _heading(result: InferenceBenchmark) -> list[str]:
    volume, window = (" x ".join(map(str, shape)) for shape in (result.volume_shape, result.window_shape))
    ceilings = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in result.ceilings.items())
    weights = "random weights" if result.bundle is None else f"weights of {result.bundle}"
    return [
        f"Segmenting a volume of {volume} in {result.windows} windows of {window}, overlap {result.overlap}, "
        f"{result.sw_batch_size} at once, {result.out_channels} classes, features "
        f"{', '.join(map(str, result.features))}, {weights}",
        result.environment.line(),
        f"Reference: {result.reference}, {result.reference_network} in MONAI's SlidingWindowInferer",
        f"Products of large matrices: {ceilings}",
    ]


def _cost_table(result: InferenceBenchmark) -> list[str]:
    columns = ["contender", "seconds (quartiles)", "speed-up (quartiles, per round)", "outside the network"]
    columns += ["peak memory", "preparation, once", "GFLOP/s", "of the ceiling"]
    rows = []
    for cost in result.costs:
        row = [cost.name, cost.seconds.text(".3g"), cost.speed_up.text(".2f"), percent(cost.outside_network)]
        row += [f"{cost.peak_memory_bytes / 2**20:.0f} MiB", f"{cost.preparation_s:.1f} s"]
        rows.append([*row, f"{cost.flops_per_s / 1e9:.0f}", percent(cost.ceiling_share)])
    return [format_table(columns, rows)]


def _stage_table(result: InferenceBenchmark) -> list[str]:
    # MONAI's inferer cannot time windows and stitching separately
    names = ("preparation", "windows", "network", "stitching", "windows, stitching", "argmax", "other")
    used = [name for name in names if any(name in cost.stages_s for cost in result.costs)]
    rows = [
        [cost.name, *(f"{cost.stages_s[name]:.3g}" if name in cost.stages_s else "" for name in used)]
        for cost in result.costs
    ]
    return [format_table(["seconds", *used], rows)]


def _agreement(result: InferenceBenchmark) -> list[str]:
    columns = ("against the same level in fp32", "largest difference of a logit", "relative", "same labels")
    rows = [
        [
            cost.name,
            *("" if value is None else f"{value:.1e}" for value in (cost.max_difference, cost.relative_difference)),
            *("" if part is None else percent(part, ".2f") for part in (cost.same_labels, cost.same_labels_volume)),
        ]
        for cost in result.costs
    ]
    lines = [format_table([*columns, "in the volume"], rows)]
    exact = [
        cost.relative_difference
        for cost in result.costs
        if cost.precision == "fp32" and cost.relative_difference is not None
    ]
    if exact:
        verdict = "agree" if max(exact) <= OUTPUT_TOLERANCE else "DO NOT AGREE"
        lines += [
            "",
            f"Outputs in fp32 {verdict}: {max(exact):.1e} of the largest logit, {OUTPUT_TOLERANCE:.0e} allowed.",
        ]
    return lines


def _target_line(target: SpeedTarget, result: InferenceBenchmark) -> str:
    share, value = target.at_most, target.measured
    wanted = f"at most {percent(target.wanted)}" if share else f"{target.wanted:g} times as fast as {result.reference}"
    if value is None:
        return f"{target.name}: {wanted}; not measured"
    if share:
        measured, missed = percent(value, ".1f"), f"{100 * (value - target.wanted):.1f} points above"
    else:
        measured, missed = f"{value:.2f} times", f"{percent(1 - value / target.wanted)} short"
    return f"{target.name}: {wanted}; {measured} ({target.contender}): {'met' if target.met else f'missed, {missed}'}"
