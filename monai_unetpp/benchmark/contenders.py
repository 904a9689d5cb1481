"""The contenders of the inference benchmark: MONAI's route and ours, each in a separate process."""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import dataclasses
import io
import multiprocessing
import os
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import BasicUNetPlusPlus
from scipy import ndimage
from torch import nn

from monai_unetpp import topology
from monai_unetpp.benchmark.speed_results import VolumeTask
from monai_unetpp.bundles import WEIGHTS_FILE, load_network, read_network_def
from monai_unetpp.inferers import NestedSlidingWindowInferer
from monai_unetpp.inferers.windows import WindowGrid
from monai_unetpp.measuring.memory import PeakMemory
from monai_unetpp.measuring.rounds import time_task
from monai_unetpp.measuring.size import count_flops, count_parameters
from monai_unetpp.measuring.stage_timer import StageTimer, timed
from monai_unetpp.networks import NestedUNet
from monai_unetpp.openvino_loading import has_openvino, import_openvino

#: Resolutions of BasicUNetPlusPlus, whose depth is fixed.
_RESOLUTIONS = 5
_T = TypeVar("_T")
#: Rows of matrices whose product is timed, from the first on doubled up to the last, by type of device.
_LEAST_MATRIX, _MOST_MATRIX = 256, {"cpu": 2048, "cuda": 8192}
#: Seconds of a product that is long enough.
_LONG_S = 0.25
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to segment a volume; the attributes are those of ``InferenceCost``."""

    level: str | None
    runtime: str
    precision: str

    @property
    def name(self) -> str:
        """The name in tables."""
        if self.level is None:
            return f"MONAI {self.precision}"
        return f"{self.level} {self.runtime} {self.precision}"


@dataclasses.dataclass(frozen=True)
class InferenceTask(VolumeTask):
    """The task, and where it is done.

    ``folder``, initially empty, is for converted and compiled networks; ``bundle`` is that of our network, or None for
    random weights.
    """

    device: str
    threads: int
    folder: str
    bundle: str | None = None

    @property
    def windows(self) -> int:
        """Number of windows that cover the volume."""
        return len(WindowGrid.over(self.volume_shape, self.window_shape, self.overlap).positions)


@dataclasses.dataclass(frozen=True)
class StartedContender:
    """A contender that is ready to run.

    Attributes:
        flops_per_window: operations of one window.
        preparation_s: extra time of the first batch of windows: conversion, compilation.
        logits: logits of the probe, ``(out_channels, *spatial)``.
    """

    parameters: int
    flops_per_window: int
    preparation_s: float
    logits: npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class SegmentedVolume:
    """The result of one run over the volume.

    Attributes:
        seconds: wall time from the volume to its label map.
        stages_s: seconds by stage; empty unless requested.
        peak_memory_bytes: most memory of this contender so far: device memory on CUDA, on a CPU the growth of its
            process.
        labels: the label map, ``(*spatial)``, if requested.
    """

    seconds: float
    stages_s: dict[str, float]
    peak_memory_bytes: int
    labels: npt.NDArray[np.integer[Any]] | None


def has_form_of_monai(features: tuple[int, ...]) -> bool:
    """Whether ``BasicUNetPlusPlus`` can have these channels per resolution."""
    return len(features) == _RESOLUTIONS


def norm_for_monai(described: Mapping[str, Any]) -> dict[str, Any]:
    """The norm in arguments of ``NestedUNet`` as one of ``BasicUNetPlusPlus``; both have the same default."""
    return {"norm": described["norm"]} if "norm" in described else {}


def build_monai_network(task: InferenceTask) -> BasicUNetPlusPlus:
    """MONAI's network with the task's features, the norm of its bundle, and reproducible random weights."""
    norm = {} if task.bundle is None else norm_for_monai(read_network_def(task.bundle))
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
        torch.manual_seed(0)
        # as in ours, the last node has as many channels as the first
        return BasicUNetPlusPlus(
            spatial_dims=len(task.window_shape),
            in_channels=task.in_channels,
            out_channels=task.out_channels,
            features=(*task.features, task.features[0]),
            deep_supervision=True,
            **norm,
        ).eval()


def build_own_network(task: InferenceTask) -> NestedUNet:
    """The whole ``NestedUNet``: the bundle's, or MONAI's network converted, so that both compute the same."""
    if task.bundle is None:
        return NestedUNet.from_basic_unetplusplus(build_monai_network(task))
    checkpoint = Path(task.bundle, WEIGHTS_FILE)
    return load_network(checkpoint, network_def=read_network_def(task.bundle))


def measure_matrix_ceiling(precision: str, device: torch.device | str, tries: int = 5) -> float:
    """The highest rate of operations that torch reaches on this device for products of large matrices.

    Another runtime may multiply faster, so its share of this can be above 1.

    Args:
        precision: ``"fp32"`` (TensorFloat32 on a GPU if torch's convolutions use it), ``"bf16"`` or ``"fp16"``.
        device: where. Matrices are as large as 2048 rows on a CPU and 8192 on a GPU, unless their product takes long,
            as in bf16 on a processor without it.
        tries: number of attempts, of which the fastest counts.
    """
    device = torch.device(device)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    size = _LEAST_MATRIX
    try:
        # one more, as the first one initialises threads and libraries
        _product_seconds(precision, device, size)
        while (seconds := _product_seconds(precision, device, size)) < _LONG_S and size < _MOST_MATRIX[device.type]:
            size *= 2
        seconds = min(seconds, *(_product_seconds(precision, device, size) for _ in range(tries - 1)))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * size**3 / seconds


def _product_seconds(precision: str, device: torch.device, size: int) -> float:
    matrix = torch.ones((size, size), dtype=_DTYPES[precision], device=device)
    return time_task(lambda: torch.matmul(matrix, matrix), device)[1]


class ContenderProcess(contextlib.AbstractContextManager["ContenderProcess"]):
    """A process for one contender, so that its memory is measured separately and a failure affects no other.

    Functions are called one after the other; the process is idle between calls. A call that fails raises a
    ``RuntimeError`` that says why.
    """

    def __init__(self, contender: Contender, task: InferenceTask) -> None:
        self.contender = contender
        self.task = task
        # forking from a process with all imports done is fast; systems without fork import again
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        context.set_forkserver_preload([__name__])
        self._pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=context)

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown(cancel_futures=True)

    def start(self) -> StartedContender:
        """Build and prepare the network, and segment one batch of windows."""
        return self.call(_start_here, self.contender, self.task)

    def expect(self) -> dict[str, npt.NDArray[np.float32]]:
        """The probe's logits at every level in fp32, from the reference network."""
        return self.call(expected_logits, self.task)

    def run(self, stages: bool, labels: bool) -> SegmentedVolume:
        """Segment the volume once, after :meth:`start`; measuring the stages costs a GPU its overlap."""
        return self.call(_run_here, stages, labels)

    def call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Call a module-level function in the process, with arguments that can be pickled."""
        try:
            return self._pool.submit(_telling_why, function, *arguments).result()
        except BrokenProcessPool as e:
            raise RuntimeError("its process ended, perhaps for lack of memory") from e


class ContenderRun:
    """A contender in this process."""

    def __init__(self, contender: Contender, task: InferenceTask) -> None:
        self.contender = contender
        self.task = task
        self.device = torch.device(task.device)
        _load_libraries(contender, self.device)
        self._peak = PeakMemory(self.device)
        self.network = _network_of(contender, task).to(self.device)
        self.volume = make_volume(task).to(self.device)
        self._inferer = _own_inferer(contender, task) if contender.level else _monai_inferer(task)

    def start(self) -> StartedContender:
        """Prepare, and segment the probe twice: the extra time of the first is preparation."""
        # a whole batch, as networks are converted and compiled for one size of batches
        count = min(self.task.sw_batch_size, self.task.windows)
        probe = torch.cat([_probe(self.volume, self.task)] * count)
        seconds = []
        for _ in range(2):
            logits, elapsed = time_task(lambda: self.segment("logits", probe), self.device)
            seconds.append(elapsed)
        self._peak.restart()
        window = torch.empty((1, self.task.in_channels, *self.task.window_shape), device="meta")
        return StartedContender(
            parameters=count_parameters(self.network),
            flops_per_window=count_flops(copy.deepcopy(self.network).to("meta"), window),
            preparation_s=max(seconds[0] - seconds[1], 0.0),
            logits=logits[0].float().cpu().numpy(),
        )

    def segment(self, output: str, volume: torch.Tensor, timer: StageTimer | None = None) -> torch.Tensor:
        """The ``"logits"`` ``(1, out_channels, *spatial)`` of a volume ``(1, in_channels, *spatial)``, or ``"labels"``.

        The label map is ``(1, 1, *spatial)``, in uint8 if the classes fit.
        """
        if isinstance(self._inferer, NestedSlidingWindowInferer):
            # one inferer for both outputs, as it keeps the compiled network
            self._inferer.output, self._inferer.timer = output, timer
            return cast(torch.Tensor, self._inferer(volume, self.network))

        dtype = _DTYPES[self.contender.precision]

        def network(windows: torch.Tensor) -> Any:
            with timed(timer, "network"), torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                return self.network(windows)

        with timed(timer, "windows, stitching"), torch.inference_mode():
            logits = cast(torch.Tensor, self._inferer(volume, network))
        if output == "logits":
            return logits
        with timed(timer, "argmax"), torch.inference_mode():
            found = logits > 0 if logits.shape[1] == 1 else logits.argmax(dim=1, keepdim=True)
            return found.to(torch.uint8 if logits.shape[1] <= 256 else torch.int32)

    def run(self, stages: bool, labels: bool) -> SegmentedVolume:
        """Segment the volume once."""
        timer = StageTimer(self.device) if stages else None
        found, seconds = time_task(lambda: self.segment("labels", self.volume, timer), self.device)
        return SegmentedVolume(
            seconds=seconds,
            stages_s={} if timer is None else dict(timer.seconds),
            peak_memory_bytes=self._peak.bytes(),
            labels=found[0, 0].cpu().numpy() if labels else None,
        )


def _load_libraries(contender: Contender, device: torch.device) -> None:
    """Load libraries first, so that their memory does not count for a network."""
    if contender.runtime == "openvino" and has_openvino():
        import_openvino()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    else:
        nn.functional.conv3d(torch.ones(1, 1, 8, 8, 8), torch.ones(1, 1, 3, 3, 3))


@torch.inference_mode()
def expected_logits(task: InferenceTask) -> dict[str, npt.NDArray[np.float32]]:
    """The probe's logits ``(out_channels, *spatial)`` at every level in fp32.

    They are from MONAI's network, or the bundle's own if there is one, in MONAI's sliding windows.
    """
    device = torch.device(task.device)
    network = build_monai_network(task) if task.bundle is None else build_own_network(task)
    network = network.to(device)

    def by_level(windows: torch.Tensor) -> dict[Any, torch.Tensor]:
        if isinstance(network, NestedUNet):
            return dict(network.forward_levels(windows))
        return {topology.level_name(number): logits for number, logits in enumerate(network(windows), start=1)}

    # MONAI's inferer returns a dict for a dict
    outputs: Any = _monai_inferer(task)(_probe(make_volume(task).to(device), task), by_level)
    return {level: logits[0].float().cpu().numpy() for level, logits in outputs.items()}


def make_volume(task: InferenceTask) -> torch.Tensor:
    """A volume ``(1, in_channels, *spatial)`` of smooth spots in noise, of mean 0 and standard deviation 1."""
    noise = np.random.default_rng(0).standard_normal((task.in_channels, *task.volume_shape), dtype=np.float32)
    spots = ndimage.gaussian_filter(noise, 3.0, axes=tuple(range(1, noise.ndim)))
    volume = spots / spots.std() + 0.2 * noise
    return torch.from_numpy((volume - volume.mean()) / volume.std())[None]


def _probe(volume: torch.Tensor, task: InferenceTask) -> torch.Tensor:
    """The first window of the volume."""
    window = (slice(None), slice(None), *(slice(size) for size in task.window_shape))
    return volume[window].contiguous()


def _network_of(contender: Contender, task: InferenceTask) -> nn.Module:
    if contender.level is not None:
        return build_own_network(task).prune(contender.level).eval()
    if not has_form_of_monai(task.features):
        return build_own_network(task)
    network = build_monai_network(task)
    # MONAI then stitches only the deepest output, the only one needed
    network.deep_supervision = False
    return network


def _monai_inferer(task: InferenceTask) -> SlidingWindowInferer:
    return SlidingWindowInferer(
        roi_size=task.window_shape, sw_batch_size=task.sw_batch_size, overlap=task.overlap, mode="gaussian"
    )


def _own_inferer(contender: Contender, task: InferenceTask) -> NestedSlidingWindowInferer:
    return NestedSlidingWindowInferer(
        roi_size=task.window_shape,
        sw_batch_size=task.sw_batch_size,
        overlap=task.overlap,
        mode="gaussian",
        runtime=contender.runtime,
        precision=contender.precision,
        # each its own, so that every contender does its own conversion
        cache_dir=own_folder(contender, task),
    )


def own_folder(contender: Contender, task: InferenceTask) -> Path:
    """The folder for converted and compiled networks; without spaces, which compilers do not accept."""
    return Path(task.folder, contender.name.replace(" ", "_"))


# -- in the process of a contender -----------------------------------------------------------------------------------


_here: list[ContenderRun] = []


def _telling_why(function: Callable[..., _T], *arguments: Any) -> _T:
    """The result of ``function``; a failure becomes a ``RuntimeError``, as not every error can be pickled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(*arguments)
        # any error of a compiler or driver means that this contender is missing
        except Exception as e:
            raise RuntimeError(" ".join(f"{type(e).__name__}: {e}".split())[:300]) from None


def _start_here(contender: Contender, task: InferenceTask) -> StartedContender:
    torch.set_num_threads(task.threads)
    # so that no earlier run on this machine has done the compilation
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(own_folder(contender, task))
    _here[:] = [ContenderRun(contender, task)]
    return _here[0].start()


def _run_here(stages: bool, labels: bool) -> SegmentedVolume:
    return _here[0].run(stages, labels)
