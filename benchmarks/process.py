"""Whole process against whole process: one image by MONAI's route, by ``segment`` and by the runner.

Run ``python -m benchmarks.process BUNDLE IMAGE``. All take turns, with the windows and overlap of the bundle and
without flips, after one round that nobody counts, in which OpenVINO's converted networks are put where later runs find
them. MONAI's route is ``python -m monai.bundle run`` with MONAI's own transforms, inferer and, where it can have the
features of the bundle, network. ``--windows`` takes other windows; MONAI's route with the first of them is what the
others are compared with, and ``auto`` gives ``segment`` and the runner those that they choose for the image.
``--nnunet PYTHON`` adds nnU-Net's predictor, from an environment with ``nnunetv2``, with a plain U-Net of the same
features, windows and overlap, random weights and no flips. ``--hold_to avx2`` holds oneDNN, in torch and in OpenVINO,
and torch's own kernels to AVX2, as processors without AVX-512 have it; OpenVINO's instance norm does not heed it, and
takes AVX-512 where there is some.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from benchmarks.command import run_command
from benchmarks.launching import HOLDS, Launched, instruction_sets, launch
from benchmarks.monai_route import write_monai_route
from monai_unetpp.bundles import find_bundle, read_network_def
from monai_unetpp.bundles.json_files import read_object
from monai_unetpp.errors import counted
from monai_unetpp.export import export_runner
from monai_unetpp.files import write_json, write_text
from monai_unetpp.measuring.environment import Environment, describe_environment
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.rounds import shuffled_rounds
from monai_unetpp.measuring.size import count_parameters
from monai_unetpp.networks import NestedUNet
from monai_unetpp.reporting.markdown import format_table
from monai_unetpp.window_layout import AUTO

_MONAI, _SEGMENT, _RUNNER, _NNUNET = "MONAI", "segment", "runner", "nnU-Net"
_BUNDLE = "bundle"


@dataclasses.dataclass(frozen=True)
class ProcessFigures:
    """What one way takes.

    Attributes:
        route: ``"MONAI"``, ``"segment"``, ``"runner"`` or ``"nnU-Net"``.
        level: such as ``"L2"``.
        precision: such as ``"fp32"``.
        windows: their shape, such as ``"96x96x96"``, or ``"auto"``: chosen for the image.
        seconds: of the whole process.
        cpu_seconds: of all its threads, which a busy machine changes less.
        speed_up: how many times as fast as the reference in the same round.
        start_s: of a process that only starts: imports, and for the runner also the network read and compiled.
        peak_bytes: resident memory.
        same_labels: share of the voxels with the label that ``segment`` gives at this level in fp32 with the first of
            the windows; None for routes whose weights may be random.
    """

    route: str
    level: str
    precision: str
    windows: str
    seconds: Quartiles
    cpu_seconds: Quartiles
    speed_up: Quartiles
    start_s: Quartiles
    peak_bytes: int
    same_labels: float | None


@dataclasses.dataclass(frozen=True)
class ProcessBenchmark:
    """All ways for one image.

    ``network`` is that of MONAI's route; each process was given ``threads``; ``processor`` tells its instruction sets,
    and what the libraries are held to; ``parameters`` are those of the networks of the bundle and of nnU-Net, if that
    was measured.
    """

    bundle: str
    network: str
    image_shape: tuple[int, ...]
    threads: int
    processor: str
    figures: tuple[ProcessFigures, ...]
    environment: Environment
    parameters: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class _Way:
    """A contender: the command for the image, the one that only starts, and the result."""

    route: str
    level: str
    precision: str
    windows: str
    command: list[str]
    start: list[str]
    output: Path


def measure_process(
    bundle: str,
    image: str,
    levels: Sequence[str] | None = None,
    precisions: Sequence[str] = ("fp32",),
    windows: Sequence[str] = (_BUNDLE,),
    repeats: int = 5,
    threads: int | None = None,
    hold_to: str | None = None,
    calibration: str | None = None,
    nnunet: str | None = None,
) -> ProcessBenchmark:
    """Measure all ways in turns.

    Args:
        bundle: name or folder.
        image: NIfTI file.
        levels: to measure; by default the deepest and the shallowest. MONAI's route computes all of them always.
        precisions: ``"fp32"``, ``"bf16"``, ``"int8"`` (the runner alone); MONAI's route is fp32.
        windows: shapes such as ``"96x96x96"``, ``"bundle"`` for the bundle's, and ``"auto"``, which only ``segment``
            and the runner have. MONAI's route with the first of them is the reference; nnU-Net has them too.
        repeats: rounds.
        threads: for each process; by default as many as there are logical cores, which nnU-Net uses always.
        hold_to: ``"avx2"``, or None for all that the processor has.
        calibration: data set for int8.
        nnunet: Python interpreter of an environment with ``nnunetv2``, to measure its predictor too.

    Raises:
        RuntimeError: a process failed; its message is in the error's.
    """
    source = find_bundle(bundle)
    depth = len(read_network_def(source)["features"]) - 1
    chosen = [f"L{depth}", "L1"] if levels is None else list(levels)
    count = threads or os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copied = folder / f"image{'.nii.gz' if image.endswith('.gz') else '.nii'}"
        shutil.copyfile(image, copied)
        own = "x".join(map(str, read_object(source / "configs" / "inference.json")["window_shape"]))
        shapes = list(dict.fromkeys(own if each == _BUNDLE else each for each in windows))
        ways, parameters = [], None
        for shape in shapes:
            if shape != AUTO:
                way, network = _way_of_monai(source, copied, folder, f"L{depth}", shape)
                ways.append(way)
        for level, precision, shape in itertools.product(chosen, precisions, shapes):
            ways += _own_ways(source, copied, folder, level, precision, shape, count, calibration)
        if nnunet is not None:
            way, size = _way_of_nnunet(source, copied, folder, f"L{depth}", shapes[0], Path(nnunet).absolute())
            ways.append(way)
            parameters = count_parameters(NestedUNet(**read_network_def(source))), size
        variables = {"OMP_NUM_THREADS": str(count), "XDG_CACHE_HOME": str(folder / "cache")}
        took = _take_turns(ways, repeats, {**variables, **HOLDS.get(hold_to or "", {})})
        image_shape = tuple(nibabel.load(copied).shape)  # type: ignore[attr-defined]
        figures = _figures(ways, took)
    return ProcessBenchmark(
        source.name,
        network,
        image_shape,
        count,
        instruction_sets(hold_to),
        figures,
        describe_environment("cpu", "fp32", "openvino"),
        parameters,
    )


def _way_of_monai(source: Path, image: Path, folder: Path, level: str, windows: str) -> tuple[_Way, str]:
    """The way, and the name of its network."""
    own = folder / f"monai_{windows}"
    own.mkdir()
    route = write_monai_route(source, image, own, [sys.executable], _sizes(windows))
    imports = "import monai.bundle.scripts, monai.engines, monai.inferers, monai.networks.nets"
    start = [sys.executable, "-c", imports]
    return _Way(_MONAI, level, "fp32", windows, route.command, start, own / "monai"), route.network


def _sizes(windows: str) -> list[int]:
    return [int(size) for size in windows.split("x")]


def _own_ways(
    source: Path,
    image: Path,
    folder: Path,
    level: str,
    precision: str,
    windows: str,
    threads: int,
    calibration: str | None,
) -> list[_Way]:
    ways = []
    name = f"{level}_{precision}_{windows}"
    if precision != "int8":
        out = folder / f"segment_{name}"
        command = [sys.executable, "-m", "monai_unetpp", "segment", str(image), "-o", str(out)]
        command += ["--bundle", str(_with_windows(source, folder, windows)), "--level", level]
        command += ["--precision", precision, "--no_flips", "--device", "cpu"]
        command += ["--window_shape", "auto"] if windows == AUTO else []
        start = [sys.executable, "-c", "import monai_unetpp.segmentation"]
        ways.append(_Way(_SEGMENT, level, precision, windows, command, start, out))
    exported, out = folder / f"folder_{name}", folder / f"runner_{name}"
    export_runner(
        source,
        exported,
        level=level,
        precision=precision,
        window_shape=AUTO if windows == AUTO else _sizes(windows),
        calibration=calibration if precision == "int8" else None,
    )
    described = json.loads((exported / "pipeline.json").read_text(encoding="utf-8"))
    described["windows"]["flips"] = []
    (exported / "pipeline.json").write_text(json.dumps(described), encoding="utf-8")
    own = ["--threads", str(threads)]
    command = [sys.executable, "-m", "monai_unetpp.runner", str(exported), str(image), "-o", str(out), *own]
    code = "import sys; from monai_unetpp.runner import Segmenter; Segmenter(sys.argv[1], int(sys.argv[2]))"
    start = [sys.executable, "-c", code, str(exported), str(threads)]
    ways.append(_Way(_RUNNER, level, precision, windows, command, start, out))
    return ways


def _with_windows(source: Path, folder: Path, windows: str) -> Path:
    """The bundle, or a copy of it with other windows."""
    config = read_object(source / "configs" / "inference.json")
    if windows == AUTO or _sizes(windows) == config["window_shape"]:
        return source
    copied = folder / f"bundle_{windows}" / source.name
    if not copied.is_dir():
        shutil.copytree(source, copied)
        write_text(copied / "configs" / "inference.json", json.dumps({**config, "window_shape": _sizes(windows)}))
    return copied


def _way_of_nnunet(source: Path, image: Path, folder: Path, level: str, windows: str, python: Path) -> tuple[_Way, int]:
    """The way, and the number of parameters of its network."""
    network = read_network_def(source)
    config = read_object(source / "configs" / "inference.json")
    if network["spatial_dims"] != 3:
        raise ValueError(f"{source.name}: nnU-Net is measured for networks of volumes. Leave --nnunet out.")
    described = {name: network[name] for name in ("features", "in_channels", "out_channels")}
    # nnU-Net keeps the axes of the file, which bundles turn
    turned = nibabel.as_closest_canonical(nibabel.load(image))
    # SimpleITK's arrays have the axes z, y, x
    described["patch_size"] = _sizes(windows)[::-1]
    described["spacing"] = _spacing_mm(config, turned)[::-1]
    # its interpreter must not find the packages of this one
    alone = ["env", "-u", "PYTHONPATH"]
    script = Path(__file__).parent / "nnunet" / "random_model.py"
    launch([*alone, str(python), str(script), str(folder / "nnunet"), json.dumps(described)])
    inputs, out = folder / "nnunet_images", folder / "nnunet_out"
    inputs.mkdir()
    nibabel.save(turned, inputs / "image_0000.nii.gz")
    command = [*alone, str(python.parent / "nnUNetv2_predict_from_modelfolder"), "-i", str(inputs), "-o", str(out)]
    command += ["-m", str(folder / "nnunet"), "-f", "0", "-step_size", str(1 - config["overlap"]), "--disable_tta"]
    command += ["-device", "cpu", "-npp", "1", "-nps", "1"]
    start = [*alone, str(python), "-c", "import nnunetv2.inference.predict_from_raw_data"]
    count = int((folder / "nnunet" / "parameters.json").read_text(encoding="utf-8"))
    return _Way(_NNUNET, level, "fp32", windows, command, start, out), count


def _spacing_mm(config: Mapping[str, Any], image: Any) -> list[float]:
    """The voxel size along x, y and z that the network works at: the bundle's, else the image's."""
    own = [float(size) for size in image.header.get_zooms()[:3]]
    wanted = config.get("spacing_mm") or own
    return list(wanted) if isinstance(wanted, list) else [float(wanted)] * len(own)


def _take_turns(
    ways: Sequence[_Way], repeats: int, variables: dict[str, str]
) -> dict[int, list[tuple[Launched, Launched]]]:
    """Each round's process and start, by the number of the way; the first round is not counted."""
    took: dict[int, list[tuple[Launched, Launched]]] = {number: [] for number in range(len(ways))}
    for number, order in enumerate(shuffled_rounds(took, repeats + 1)):
        for key in order:
            done = launch(ways[key].command, variables), launch(ways[key].start, variables)
            if number:
                took[key].append(done)
    return took


def _figures(ways: Sequence[_Way], took: dict[int, list[tuple[Launched, Launched]]]) -> tuple[ProcessFigures, ...]:
    reference = [whole.seconds for whole, _ in took[0]]
    figures = []
    for number, way in enumerate(ways):
        wholes, starts = zip(*took[number], strict=True)
        seconds = [whole.seconds for whole in wholes]
        figures.append(
            ProcessFigures(
                way.route,
                way.level,
                way.precision,
                way.windows,
                Quartiles.of(seconds),
                Quartiles.of([whole.cpu_seconds for whole in wholes]),
                Quartiles.of_ratios(reference, seconds),
                Quartiles.of([start.seconds for start in starts]),
                max(whole.peak_bytes for whole in wholes),
                _same_labels(way, ways),
            )
        )
    return tuple(figures)


def _same_labels(way: _Way, ways: Sequence[_Way]) -> float | None:
    """Share of the voxels with the label of ``segment`` in fp32 with the first windows, where that was run."""
    wanted = (_SEGMENT, way.level, "fp32", ways[0].windows)
    peer = next((each for each in ways if (each.route, each.level, each.precision, each.windows) == wanted), None)
    if way.route in (_MONAI, _NNUNET) or peer is None:
        return None
    found, expected = (np.asarray(nibabel.load(next(each.output.glob("*.nii*"))).dataobj) for each in (way, peer))  # type: ignore[attr-defined]
    return float((found == expected).mean())


def format_process_benchmark(result: ProcessBenchmark) -> str:
    """The table in Markdown."""
    header = ["route", "level", "precision", "windows", "seconds (quartiles)", "of them start-up", "CPU seconds"]
    header += ["times as fast as MONAI (quartiles, per round)", "peak MB", "labels of segment fp32"]
    rows = [
        [
            each.route,
            each.level,
            each.precision,
            each.windows,
            each.seconds.text(".2f"),
            f"{each.start_s.median:.2f}",
            f"{each.cpu_seconds.median:.1f}",
            each.speed_up.text(".2f"),
            f"{each.peak_bytes / 1e6:.0f}",
            "" if each.same_labels is None else f"{100 * each.same_labels:.3f} %",
        ]
        for each in result.figures
    ]
    shape = " x ".join(map(str, result.image_shape))
    networks = f"MONAI's route runs {result.network}"
    if result.parameters is not None:
        ours, peer = (f"{count / 1e6:.2f} M" for count in result.parameters)
        networks += f", nnU-Net's a plain U-Net of {peer} parameters (the bundle's network has {ours})"
    return (
        f"{result.bundle}, an image of {shape}, whole processes with {counted(result.threads, 'thread')}, {len(rows)} "
        f"ways in turns, {result.figures[0].seconds.count} rounds; {networks}\n"
        f"{result.environment.line()}\n{result.processor}\n\n{format_table(header, rows, [False] * 4 + [True] * 6)}\n"
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, and write it and the figures where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.process", description=__doc__)
    parser.add_argument("bundle", help="name or folder of a bundle")
    parser.add_argument("image", help="NIfTI file")
    parser.add_argument("--levels", nargs="+", metavar="LEVEL", help="default: the deepest, and L1")
    parser.add_argument("--precisions", nargs="+", default=["fp32"], choices=["fp32", "bf16", "int8"])
    windows = "bundle, a shape such as 96x96x96, or auto: chosen for the image, not by MONAI's route (default: bundle)"
    parser.add_argument("--windows", nargs="+", default=[_BUNDLE], metavar="SHAPE", help=windows)
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--threads", type=int, help="for each process (default: all logical cores)")
    parser.add_argument("--hold_to", choices=HOLDS, help="fewer instruction sets than the processor has")
    parser.add_argument("--calibration", metavar="DATASET_DIR", help="for int8")
    parser.add_argument("--nnunet", metavar="PYTHON", help="interpreter of an environment with nnunetv2")
    parser.add_argument("-o", "--output", metavar="NAME", help="write NAME.md and NAME.json")
    return run_command(parser, arguments, _measure)


def _measure(output: str | None, **options: Any) -> Iterator[str]:
    if "int8" in options["precisions"] and options["calibration"] is None:
        raise ValueError("give --calibration for int8")
    if options["nnunet"] is not None and options["threads"] not in (None, os.cpu_count()):
        raise ValueError(
            f"--threads must be left out with --nnunet, got {options['threads']}. nnU-Net uses all logical cores."
        )
    wrong = [
        each for each in options["windows"] if each not in (_BUNDLE, AUTO) and not re.fullmatch(r"\d+(x\d+)+", each)
    ]
    if wrong or options["windows"][0] == AUTO:
        raise ValueError(
            f"--windows must be bundle or shapes such as 96x96x96, and then auto, got {' '.join(options['windows'])}."
        )
    result = measure_process(**options)
    text = format_process_benchmark(result)
    yield text
    if output is not None:
        write_text(f"{output}.md", text)
        write_json(f"{output}.json", dataclasses.asdict(result), indent=2)


if __name__ == "__main__":
    raise SystemExit(main())
