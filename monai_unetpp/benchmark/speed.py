"""The cost of segmenting a whole volume at each level, runtime and precision, compared with MONAI."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from monai_unetpp.benchmark.contenders import (
    Contender,
    ContenderProcess,
    InferenceTask,
    SegmentedVolume,
    StartedContender,
    build_own_network,
    has_form_of_monai,
    measure_matrix_ceiling,
)
from monai_unetpp.benchmark.speed_options import SpeedOptions
from monai_unetpp.benchmark.speed_results import InferenceBenchmark, InferenceCost, MissingContender, VolumeTask
from monai_unetpp.bundles import WEIGHTS_FILE, BundleConfig, find_bundle, load_network, read_network_def
from monai_unetpp.choices import PRECISIONS, RUNTIMES
from monai_unetpp.devices import resolve_device, resolve_precision
from monai_unetpp.files import scratch_folder
from monai_unetpp.measuring.environment import describe_environment, software_versions
from monai_unetpp.measuring.quartiles import Quartiles
from monai_unetpp.measuring.rounds import shuffled_rounds
from monai_unetpp.progress import Progress, teller
from monai_unetpp.window_layout import AUTO

__all__ = ["choose_contenders", "make_task", "measure_inference"]

logger = logging.getLogger(__name__)

#: BasicUNetPlusPlus cannot normalise smaller windows.
_LEAST_WINDOW = 32


def measure_inference(
    *, device: torch.device | str = "cpu", progress: Progress = False, **options: Any
) -> InferenceBenchmark:
    """Compare ``NestedUNet`` in our sliding windows with ``BasicUNetPlusPlus`` in MONAI's, over a whole volume.

    All contenders segment the same volume with the same windows, overlap, blending and batches, from the volume on the
    device to the label map there. Our network is converted from MONAI's, so the outputs must agree. This is checked in
    the first window (every level against MONAI's, in fp32) and in the volume (the deepest level). Each contender runs
    in a separate process. The rounds alternate between the reference and the contenders of one runtime and precision,
    so that noise affects all alike, and ratios are taken within a round.

    MONAI's route is made as fast as possible: only the deepest output is stitched, in inference mode. The reference is
    fp32 on a CPU and automatic mixed precision on a GPU; MONAI's route is measured in the other precisions as well.

    With a bundle, its network, windows and overlap are used. The reference is then a ``BasicUNetPlusPlus`` with the
    same channels and random weights if the number of resolutions allows it, else the bundle's whole network in MONAI's
    sliding windows; outputs are compared with the bundle's own network.

    In a script, call this below ``if __name__ == "__main__":``, as with all of Python's ``multiprocessing``.

    Args:
        device: ``"cpu"`` or a CUDA device.
        progress: True shows progress on standard error; a function is called with each line.
        **options: fields of :class:`~monai_unetpp.benchmark.speed_options.SpeedOptions`, such as ``quick=True``.

    Returns:
        Frozen results; ``dataclasses.asdict`` makes them ready for JSON.

    Raises:
        TypeError: an unknown option.
        ValueError: an invalid value.
        FileNotFoundError: no such bundle.
        RuntimeError: the reference cannot run here.
    """
    device = resolve_device(str(device))
    chosen = SpeedOptions(**options)
    with scratch_folder() as folder:
        task = make_task(chosen, device, str(folder))
        known = build_own_network(task).levels
        contenders = choose_contenders(chosen, known, device)
        contest = _Contest(task, contenders, known[-1], teller(progress, logger))
        ceilings, costs = contest.measure(chosen.rounds)
    environment = describe_environment(device, "fp32", "torch")
    return InferenceBenchmark(
        reference=contenders[0].name,
        reference_network="BasicUNetPlusPlus" if has_form_of_monai(task.features) else "NestedUNet",
        bundle=None if task.bundle is None else Path(task.bundle).name,
        levels=tuple(known),
        **{field.name: getattr(task, field.name) for field in dataclasses.fields(VolumeTask)},
        windows=task.windows,
        ceilings=ceilings,
        costs=costs,
        missing=tuple(contest.missing),
        environment=dataclasses.replace(environment, versions=environment.versions | software_versions("openvino")),
        on_gpu=device.type == "cuda",
    )


# -- the task --------------------------------------------------------------------------------------------------------


def make_task(chosen: SpeedOptions, device: torch.device, folder: str) -> InferenceTask:
    """The task that all contenders share; ``folder`` is for converted and compiled networks.

    Raises:
        ValueError: invalid values.
        FileNotFoundError: no such bundle.
    """
    of_bundle = None if chosen.bundle is None else _of_bundle(chosen.bundle, chosen.window_shape)
    return _checked_task(
        InferenceTask(
            **chosen.task_values(of_bundle),
            sw_batch_size=chosen.sw_batch_size,
            device=str(device),
            threads=torch.get_num_threads(),
            folder=folder,
        )
    )


def _of_bundle(bundle: str | PathLike[str], window_shape: Sequence[int] | None) -> dict[str, Any]:
    folder = find_bundle(bundle)
    config = BundleConfig(folder, "inference.json")
    inferer = config.parse("inferer")
    while not hasattr(inferer, "roi_size") and hasattr(inferer, "inferer"):
        inferer = inferer.inferer
    if not hasattr(inferer, "roi_size"):
        raise ValueError(
            f"{config}: the inferer must have windows, got {type(inferer).__name__}. Only bundles "
            "with sliding windows can be measured."
        )
    network_def = load_network(folder / WEIGHTS_FILE, network_def=read_network_def(folder)).config
    roi_size, dims = window_shape or inferer.roi_size, network_def["spatial_dims"]
    if roi_size == AUTO:
        raise ValueError(
            f"{config}: its windows are chosen for each image, and contenders share one size. Give it as window_shape "
            "(--window)."
        )
    if window_shape is not None and len(window_shape) != dims:
        raise ValueError(
            f"window_shape must have {dims} sizes, as the images of {folder.name} have axes, got {tuple(window_shape)}."
        )
    return {
        "features": network_def["features"],
        "in_channels": network_def["in_channels"],
        "out_channels": network_def["out_channels"],
        "window_shape": (roi_size,) * dims if isinstance(roi_size, int) else tuple(roi_size),
        "overlap": inferer.overlap,
        "bundle": str(folder),
    }


def _checked_task(task: InferenceTask) -> InferenceTask:
    dims = len(task.window_shape)
    if dims not in (2, 3) or min(task.window_shape) < 1:
        raise ValueError(f"window_shape must have 2 or 3 positive sizes, got {task.window_shape}.")
    if len(task.volume_shape) != dims or min(task.volume_shape) < 1:
        raise ValueError(
            f"volume_shape must have {dims} positive sizes like the windows, got {task.volume_shape}. Give one per "
            "axis."
        )
    if task.bundle is None and (not has_form_of_monai(task.features) or min(task.features) < 1):
        raise ValueError(
            f"features must have 5 positive entries, got {task.features}. BasicUNetPlusPlus has a fixed depth."
        )
    if has_form_of_monai(task.features) and min(task.window_shape) < _LEAST_WINDOW:
        raise ValueError(
            f"window_shape must have sizes of {_LEAST_WINDOW} or more, got {task.window_shape}. Smaller ones leave "
            "BasicUNetPlusPlus a single voxel to normalise."
        )
    for name in ("in_channels", "out_channels", "sw_batch_size"):
        value = getattr(task, name)
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number, 1 or more, got {value!r}.")
    if any(not 0 <= part < 1 for part in np.atleast_1d(task.overlap)):
        raise ValueError(f"overlap must be from 0 to below 1, got {task.overlap}.")
    # counting the windows checks the rest
    _ = task.windows
    return task


def choose_contenders(chosen: SpeedOptions, known: Sequence[str], device: torch.device) -> list[Contender]:
    """MONAI's route, with the reference first, then ours, the deepest of the ``known`` levels first.

    Raises:
        ValueError: unknown level, runtime or precision.
    """
    cpu = device.type == "cpu"
    possible = [name for name in PRECISIONS if name != "auto" and not (cpu and name == "fp16")]
    levels = _checked_choice("levels", chosen.levels or ([known[0], known[-1]] if chosen.quick else known), known)
    runtimes = _checked_choice("runtimes", chosen.runtimes, [name for name in RUNTIMES if name != "auto"])
    # a processor without bf16 takes a hundred times as long in torch
    native = ["fp32"] if cpu and resolve_precision("auto", device) == "fp32" else possible
    precisions = _checked_choice("precisions", chosen.precisions, possible) or native
    if not runtimes:
        # on a CPU torch.compile is slow to prepare, and slower than OpenVINO
        other = "openvino" if cpu and importlib.util.find_spec("openvino") else "compile"
        runtimes = ["torch", other]
    reference = "fp32" if cpu else next(name for name in ("fp16", "bf16", "fp32") if name in precisions)
    monai = [Contender(None, "torch", name) for name in dict.fromkeys([reference, *precisions])]
    ours = [Contender(level, runtime, name) for runtime in runtimes for name in precisions for level in levels[::-1]]
    return monai + ours


def _checked_choice(name: str, chosen: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    for value in chosen or ():
        if value not in known:
            raise ValueError(f"{name} must be among {', '.join(known)}, got {value!r}.")
    # in the order of the known values
    return [value for value in known if value in (chosen or ())]


# -- measuring -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(eq=False)
class _Entrant:
    """A contender that was started, and what was measured: its runs, the reference's in the same rounds, and stages."""

    contender: Contender
    process: ContenderProcess
    started: StartedContender
    runs: list[SegmentedVolume] = dataclasses.field(default_factory=list)
    reference_s: list[float] = dataclasses.field(default_factory=list)
    stages: list[dict[str, float]] = dataclasses.field(default_factory=list)
    same_labels: float | None = None


class _Contest:
    """Runs the contenders in turn, drops those that fail, and keeps the measurements."""

    def __init__(
        self, task: InferenceTask, contenders: Sequence[Contender], deepest: str, tell: Callable[[str], None]
    ) -> None:
        self.task = task
        self.missing: list[MissingContender] = []
        self._contenders = contenders
        self._deepest = deepest
        self._tell = tell
        #: Those that have not failed.
        self._entrants: dict[Contender, _Entrant] = {}
        self._expected: dict[str, npt.NDArray[np.float32]] = {}

    def measure(self, rounds: int) -> tuple[dict[str, float], tuple[InferenceCost, ...]]:
        """Run every contender ``rounds`` times, with a run of the reference in each round.

        One group of contenders after the other, as all together would not fit into memory.

        Returns:
            The ceilings by precision, and the costs of the contenders that completed.
        """
        with contextlib.ExitStack() as stack:
            reference = self._start(self._contenders[0], stack)
            before = self._measure_ceilings()
            for group in _groups(self._contenders[1:]):
                with contextlib.ExitStack() as of_group:
                    started = [reference, *(self._start(contender, of_group) for contender in group)]
                    self._run_group([entrant for entrant in started if entrant is not None], rounds)
            ceilings = {name: max(before[name], rate) for name, rate in self._measure_ceilings().items()}
        completed = [self._entrants[each] for each in self._contenders if each in self._entrants]
        return ceilings, tuple(self._cost(entrant, ceilings) for entrant in completed)

    def _measure_ceilings(self) -> dict[str, float]:
        precisions = dict.fromkeys(contender.precision for contender in self._contenders)
        return {name: measure_matrix_ceiling(name, torch.device(self.task.device)) for name in precisions}

    def _run_group(self, group: Sequence[_Entrant], repeats: int) -> None:
        """Run entrants, of which the first is the reference."""
        # on a GPU, measuring stages prevents overlapping work, so it gets a separate round
        on_cpu, reference = torch.device(self.task.device).type == "cpu", group[0]
        for number, order in enumerate(shuffled_rounds(group, repeats), start=1):
            done: dict[_Entrant, SegmentedVolume] = {}
            for entrant in order:
                compared = self._comparable and entrant.contender.level in (None, self._deepest)
                run = self._run(entrant, stages=on_cpu, labels=number == 1 and compared)
                if run is not None:
                    done[entrant] = run
            beside = done[reference]
            for entrant, run in done.items():
                entrant.runs.append(run)
                entrant.reference_s.append(beside.seconds)
                if run.labels is not None and beside.labels is not None and entrant is not reference:
                    entrant.same_labels = float((run.labels == beside.labels).mean())
            seconds = {entrant.contender.name: done[entrant].seconds for entrant in group if entrant in done}
            self._tell(f"Round {number} of {repeats}: {_round_summary(seconds, reference.contender.name)}.")
        if not on_cpu:
            for entrant in group:
                self._run(entrant, stages=True, labels=False)

    @property
    def _comparable(self) -> bool:
        """Whether the reference computes what our deepest level computes."""
        return self.task.bundle is None or not has_form_of_monai(self.task.features)

    def _start(self, contender: Contender, stack: contextlib.ExitStack) -> _Entrant | None:
        number, total = self._contenders.index(contender) + 1, len(self._contenders)
        self._tell(f"Preparing {contender.name} ({number} of {total}).")
        process = stack.enter_context(ContenderProcess(contender, self.task))
        try:
            if contender == self._contenders[0]:
                # in a process of its own, as memory that this one keeps would not count for the reference
                with ContenderProcess(contender, self.task) as extra:
                    self._expected = extra.expect()
            self._entrants[contender] = _Entrant(contender, process, process.start())
        except RuntimeError as e:
            self._drop(contender, process, e)
        return self._entrants.get(contender)

    def _run(self, entrant: _Entrant, *, stages: bool, labels: bool) -> SegmentedVolume | None:
        """Run an entrant once; None if it fails, or has failed before."""
        if entrant.contender not in self._entrants:
            return None
        try:
            done = entrant.process.run(stages=stages, labels=labels)
        except RuntimeError as e:
            self._drop(entrant.contender, entrant.process, e)
            return None
        if stages:
            entrant.stages.append({**done.stages_s, "total": done.seconds})
        return done

    def _drop(self, contender: Contender, process: ContenderProcess, error: RuntimeError) -> None:
        process.close()
        if contender == self._contenders[0]:
            raise RuntimeError(
                f"{contender.name}: MONAI's route failed ({error}), so there is nothing to compare with. If memory ran "
                "out, give a smaller volume_shape or window_shape, or fewer features."
            ) from error
        self._entrants.pop(contender, None)
        self.missing.append(MissingContender(contender.name, str(error)))
        self._tell(f"{contender.name} is left out: {error}.")

    def _cost(self, entrant: _Entrant, ceilings: Mapping[str, float]) -> InferenceCost:
        contender, started, runs = entrant.contender, entrant.started, entrant.runs
        seconds = [run.seconds for run in runs]
        stages = _median_stages(entrant.stages)
        flops = started.flops_per_window * self.task.windows
        rate = flops / Quartiles.of(seconds).median
        return InferenceCost(
            **dataclasses.asdict(contender),
            name=contender.name,
            parameters=started.parameters,
            flops=flops,
            seconds=Quartiles.of(seconds),
            speed_up=Quartiles.of_ratios(entrant.reference_s, seconds),
            stages_s=stages,
            outside_network=1 - stages["network"] / sum(stages.values()),
            preparation_s=started.preparation_s,
            peak_memory_bytes=max(run.peak_memory_bytes for run in runs),
            flops_per_s=rate,
            ceiling_share=rate / ceilings[contender.precision],
            same_labels_volume=entrant.same_labels,
            **self._difference(contender, started.logits),
        )

    def _difference(self, contender: Contender, found: npt.NDArray[np.float32]) -> dict[str, Any]:
        if contender.level is None and not self._comparable:
            return dict.fromkeys(("max_difference", "relative_difference", "same_labels"))
        expected = self._expected[contender.level or self._deepest]
        difference = float(np.abs(found - expected).max())
        return {
            "max_difference": difference,
            "relative_difference": difference / float(np.abs(expected).max()),
            "same_labels": float((_labels_of(found) == _labels_of(expected)).mean()),
        }


def _round_summary(seconds: Mapping[str, float], reference: str) -> str:
    """The seconds of a round by name, in short."""
    fastest = min(seconds, key=lambda name: seconds[name])
    return (
        f"{reference} {seconds[reference]:.2f} s, fastest {fastest} {seconds[fastest]:.2f} s "
        f"({seconds[reference] / seconds[fastest]:.1f} times as fast)"
    )


def _groups(contenders: Sequence[Contender]) -> list[list[Contender]]:
    """Contenders grouped by runtime and precision; MONAI's route in further precisions joins our first group."""
    groups: dict[tuple[str, str], list[Contender]] = {}
    for contender in contenders:
        if contender.level is not None:
            groups.setdefault((contender.runtime, contender.precision), []).append(contender)
    found = list(groups.values()) or [[]]
    found[0] = [contender for contender in contenders if contender.level is None] + found[0]
    return found


def _labels_of(logits: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    labels: npt.NDArray[Any] = logits[0] > 0 if len(logits) == 1 else logits.argmax(axis=0)
    return labels


def _median_stages(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median seconds by stage, with the rest as ``other``."""
    names = [name for name in measured[0] if name != "total"]
    medians = {name: float(np.median([each.get(name, 0.0) for each in measured])) for name in names}
    other = [each["total"] - sum(each[name] for name in each if name != "total") for each in measured]
    return {**medians, "other": max(float(np.median(other)), 0.0)}
