"""Segmenting whole volumes with a nested U-Net, window by window."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from typing import Any, Literal, get_args

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import BlendMode, PytorchPadMode, look_up_option
from tqdm import tqdm

from monai_unetpp.choices import RUNTIMES
from monai_unetpp.devices import resolve_device, resolve_precision
from monai_unetpp.inferers.depth_gate import ADAPTIVE, add_gated, check_adaptive, count_depths
from monai_unetpp.inferers.flips import FlipInferer
from monai_unetpp.inferers.head_averaging import mean_of_heads
from monai_unetpp.inferers.label_maps import LabelMaps
from monai_unetpp.inferers.logits import ONLY, full_precision, logits_by_name, through_pinned_memory
from monai_unetpp.inferers.predictors import Predictor, make_adaptive_predictor, make_predictor, resolve_runtime
from monai_unetpp.inferers.stitching import LabelStitcher, LogitStitcher, WindowStitcher
from monai_unetpp.inferers.window_arguments import MEAN, check_levels, check_numbers, check_sizes, is_whole
from monai_unetpp.inferers.window_batches import WindowBatch, WindowBatches
from monai_unetpp.inferers.window_choice import choose_windows, downsampling_of, warn_of_window_norms
from monai_unetpp.inferers.window_memory import (
    WindowMemory,
    choose_batch_size,
    estimate_window_memory,
    free_memory_bytes,
    most_window_voxels,
)
from monai_unetpp.inferers.window_run import WindowRun, device_of
from monai_unetpp.inferers.windows import WindowGrid, importance_of
from monai_unetpp.measuring.memory import is_out_of_memory
from monai_unetpp.measuring.stage_timer import StageTimer
from monai_unetpp.window_layout import AUTO

__all__ = ["NestedSlidingWindowInferer"]

logger = logging.getLogger(__name__)

Output = Literal["logits", "labels"]
#: Predictors that are kept, one for each shape of windows and of batches.
_MOST_KEPT = 4


class NestedSlidingWindowInferer(Inferer):
    """Run a nested U-Net over images of any size, by overlapping windows of one size.

    The windows, their weights and the padding are those of MONAI's ``SlidingWindowInferer``, and so are the names and
    the order of the first arguments. With ``mode="constant"``, ``precision="fp32"`` and ``runtime="torch"``, MONAI's
    defaults, the results agree to float32 rounding. MONAI's ``sw_device``, ``cache_roi_weight_map``, ``cpu_thresh``,
    ``buffer_steps``, ``buffer_dim`` and ``with_coord`` have no counterpart: leave them out.

    Beyond MONAI's, this one knows levels, makes label maps in bounded memory, averages over flips, and runs the network
    through torch, torch.compile or OpenVINO.

    Args:
        roi_size: spatial size of the windows, one for all axes or each; ``None``, 0 or -1 stands for the image's own
            size. Take the patch size of the training: deep levels are worse in smaller windows. ``"auto"`` takes for
            each image as few and as large windows as the free memory surely holds, the whole image where it does, in
            multiples of the network's downsampling; see :func:`monai_unetpp.inferers.window_choice.choose_windows`.
            It computes fewer voxels, but only for networks that do not mind what else is in a window, as with batch
            norm: with instance norm a window of another size changes every voxel, which is warned of.
        sw_batch_size: windows that the network gets at once. ``None`` takes one with OpenVINO, else chooses from the
            device's free memory; the result does not depend on it beyond rounding.
        overlap: part of a window that the next one covers again, from 0 to below 1, for all axes or each. More is
            slower and smoother.
        mode: ``"gaussian"`` lets the middle of a window count more than its edges; ``"constant"`` does not.
        sigma_scale: standard deviation of the Gaussian in lengths of the window, for all axes or each.
        padding_mode: how images shorter than a window are padded: ``"constant"``, ``"reflect"``, ``"replicate"`` or
            ``"circular"``. The padding is cut off again.
        cval: the value to pad with, for ``"constant"``.
        levels: ``None`` takes what ``network(windows)`` returns, the deepest level; ``"L2"`` that level; ``"mean"`` the
            mean of the probabilities of all heads, given as logits (see
            :func:`monai_unetpp.inferers.head_averaging.mean_of_heads`); ``"adaptive=0.03"`` what ``"adaptive"`` would
            give at this tolerance; a list of such gives a dict, from one pass. ``"adaptive"``, which stands alone,
            runs each window only as deep as it needs, see ``adaptive_tolerance``.
        output: ``"logits"``, ``(B, C, *spatial)`` in float32, or ``"labels"``, ``(B, 1, *spatial)`` in uint8 (int16 for
            more than 256 classes): the class of the highest logit, and for one channel whether its logit is above 0.
            Label maps are made row by row, so that at no time more logits are held than of one row of windows and of
            what two slabs of windows share: all four levels of a volume of 512 x 512 x 600 with 3 classes take less
            than 1.5 GB with the volume, beside the network. They are equal to those of the logits but for ties.
        flips: spatial axes, 0 the first: each window's logits are averaged over all mirror images along these axes.
            ``n`` axes take ``2 ** n`` times as long. Flip only along axes along which the training did.
        skip_constant: run the network only once over equal constant windows. A window is constant if every channel
            holds one value throughout, after padding. In its place stand the logits that the network gave for the
            latest constant window, if that had the same values; so the result is the same for every network that
            treats windows independently, and images with much empty background take less time.
        device: where the predictions are put together, and where the result lies; by default where the inputs are.
            The network runs where its weights are.
        runtime: ``"auto"``, ``"torch"``, ``"compile"`` or ``"openvino"``.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``, for the network; sums are float32 always.
        cache_dir: where converted networks are kept.
        progress: show a progress bar.
        adaptive_tolerance: for ``levels="adaptive"``: L1 and L2 of a window are computed; where ``1 - Dice`` between
            them is below this number for every class that occurs in either, L2 is taken; else L3 is computed and
            compared with L2, and so on, each level from what the ones before it computed. From 0 (every window goes to
            the deepest level) to 1. It works for the runtimes torch and OpenVINO; with flips every mirror image has a
            depth of its own. Whether it pays, ``monai-unetpp prune --settings adaptive=0.02,0.033`` tells.

    Attributes:
        timer: if set, it is given the time of the stages ``"preparation"`` (conversion or compilation, once for
            a network and a shape of batches), ``"windows"``, ``"network"``, ``"stitching"`` and ``"argmax"``.
        ran: runtime and precision of the last run, never ``"auto"``; None before.
        depths: of the last run, by name of each adaptive level, how many windows (with flips, mirror images of
            windows) stopped at each level.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument with a value that cannot work.

    Example:
        >>> import torch
        >>> from monai_unetpp import NestedUNet
        >>> from monai_unetpp.inferers import NestedSlidingWindowInferer
        >>> net = NestedUNet(spatial_dims=3, in_channels=1, out_channels=3, features=(4, 8, 16)).eval()
        >>> inferer = NestedSlidingWindowInferer(roi_size=16, levels=["L1", "L2"], output="labels")
        >>> labels = inferer(torch.rand(1, 1, 20, 30, 24), net)
        >>> {level: (tuple(found.shape), found.dtype) for level, found in labels.items()}
        {'L1': ((1, 1, 20, 30, 24), torch.uint8), 'L2': ((1, 1, 20, 30, 24), torch.uint8)}
    """

    def __init__(
        self,
        roi_size: Sequence[int | None] | int | str | None,
        sw_batch_size: int | None = None,
        overlap: Sequence[float] | float = 0.25,
        mode: str = "gaussian",
        sigma_scale: Sequence[float] | float = 0.125,
        padding_mode: str = "constant",
        cval: float = 0.0,
        levels: Sequence[str] | str | None = None,
        output: str = "logits",
        flips: Sequence[int] = (),
        skip_constant: bool = False,
        device: torch.device | str | None = None,
        runtime: str = "auto",
        precision: str = "auto",
        cache_dir: str | PathLike[str] | None = None,
        progress: bool = False,
        adaptive_tolerance: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes(roi_size)
        check_numbers("overlap", overlap, lambda value: 0 <= value < 1, "from 0 to below 1")
        check_numbers("sigma_scale", sigma_scale, lambda value: value > 0, "above 0")
        if sw_batch_size is not None and (not is_whole(sw_batch_size) or sw_batch_size < 1):
            raise ValueError(
                f"sw_batch_size must be a whole number from 1 on, got {sw_batch_size!r}. None chooses one from the "
                "free memory."
            )
        if output not in get_args(Output):
            raise ValueError(f"output must be one of {', '.join(get_args(Output))}, got {output!r}.")
        if runtime not in RUNTIMES:
            raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}.")
        resolve_precision(precision, "cpu")
        if runtime == "openvino" and precision == "fp16":
            raise ValueError("precision must be auto, fp32 or bf16 for runtime 'openvino', got 'fp16'. Use 'auto'.")
        self.roi_size = roi_size
        self.overlap = overlap
        self.mode = str(look_up_option(mode, BlendMode).value)
        self.sigma_scale = sigma_scale
        self.padding_mode = str(look_up_option(padding_mode, PytorchPadMode).value)
        self.cval = float(cval)
        self.sw_batch_size = sw_batch_size
        self.levels = check_levels(levels)
        self.adaptive_tolerance = check_adaptive(levels, adaptive_tolerance, runtime)
        self.output = output
        self.flips = FlipInferer(axes=flips).axes
        self.skip_constant = skip_constant
        self.device = None if device is None else resolve_device(str(device))
        self.runtime = runtime
        self.precision = precision
        self.cache_dir = cache_dir
        self.progress = progress
        self.timer: StageTimer | None = None
        self.ran: tuple[str, str] | None = None
        self.depths: dict[str, dict[str, int]] = {}
        self._network: Callable[..., Any] | None = None
        self._predictors: dict[tuple[Any, ...], Predictor] = {}
        self._logged_bytes = -1
        self._most_at_once: int | None = None
        self._most_voxels: tuple[Any, torch.device, int] | None = None

    @torch.no_grad()
    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Segment images.

        The compiled or converted network is kept for further calls with the same ``network``, as long as this inferer
        lives or until it is given another one; changed weights are seen.

        Args:
            inputs: ``(B, C, *spatial)``; the network gets windows as plain tensors. They may lie on a CPU while the
                network's weights lie on a GPU.
            network: a ``NestedUNet``, or any function of windows that returns logits ``(B, C, *window)`` or a dict of
                them.
            *args: further arguments of ``network``, unchanged for every window; only for runtime torch, without levels.
            **kwargs: likewise.

        Returns:
            What ``levels`` and ``output`` ask for; for a ``MetaTensor`` with its metadata, so that it can be inverted
            and saved like the image. It carries no gradient.

        Raises:
            TypeError: ``levels`` for a network without them, or one that returns no tensor.
            ValueError: inputs that do not fit the arguments, or a network that changes the size of windows.
            MemoryError: also half as many windows at once need more memory than there is.
        """
        grid = self._grid(inputs.shape, network, inputs.device)
        images = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        run = WindowRun(images, network, grid, args, kwargs)
        if run.has_arguments:
            self._check_extra_arguments()
        outputs = self._infer_within_memory(run)
        if isinstance(inputs, MetaTensor):
            outputs = {name: MetaTensor(output).copy_meta_from(inputs) for name, output in outputs.items()}
        return outputs[next(iter(outputs))] if self._gives_one(outputs) else outputs

    def with_options(self, **changes: Any) -> NestedSlidingWindowInferer:
        """A new inferer with some arguments changed and the others as they are; its ``timer`` is not set.

        Args:
            **changes: arguments of the constructor.

        Raises:
            TypeError: an argument that the constructor has not.
        """
        return type(self)(**{**self._options(), **changes})

    def estimate_memory(
        self,
        image_shape: Sequence[int],
        out_channels: int,
        *,
        sw_batch_size: int | None = None,
        heads: int = 4,
        input_itemsize: int = 4,
        network: Callable[..., Any] | None = None,
    ) -> WindowMemory:
        """The memory that a run takes, without what the network itself takes.

        The first run logs it, and so does each later one that takes more: before the network is run where that is a
        ``NestedUNet``, and after the first batch where only this tells the number of classes.

        Args:
            image_shape: ``(B, C, *spatial)``.
            out_channels: of the network.
            sw_batch_size: windows at once; by default the constructor's, or 4.
            heads: levels of the network, for ``levels="mean"``.
            input_itemsize: bytes of a value of the images.
            network: what is run, where ``roi_size="auto"`` lets it matter.

        Raises:
            ValueError: a shape that does not fit the arguments.
        """
        names = self._names()
        return estimate_window_memory(
            self._grid(image_shape, network, torch.device("cpu")),
            images=image_shape[0],
            in_channels=image_shape[1],
            out_channels=out_channels,
            outputs=len(names),
            predicted=heads if any(map(_needs_all_levels, names)) else len(names),
            batch_size=sw_batch_size or self.sw_batch_size or 4,
            labels=self.output == "labels",
            blended=self.mode == "gaussian",
            input_itemsize=input_itemsize,
        )

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def _names(self) -> tuple[str, ...]:
        if self.levels is None:
            return (ONLY,)
        return (self.levels,) if isinstance(self.levels, str) else tuple(self.levels)

    def _gives_one(self, outputs: Mapping[str, torch.Tensor]) -> bool:
        return isinstance(self.levels, str) or (self.levels is None and ONLY in outputs)

    def _grid(self, shape: Sequence[int], network: Any, device: torch.device) -> WindowGrid:
        if len(shape) < 3:
            raise ValueError(
                f"inputs must have shape (B, C, *spatial), got {list(shape)}. Add the axes of the batch and the "
                "channels."
            )
        if shape[0] < 1:
            raise ValueError(f"inputs must hold at least one image, got shape {list(shape)}. Check the data loader.")
        if isinstance(self.sigma_scale, Sequence) and len(self.sigma_scale) != len(shape) - 2:
            raise ValueError(
                f"sigma_scale must have one entry per spatial axis of the image, {len(shape) - 2}, got "
                f"{list(self.sigma_scale)}. Give one number for all axes."
            )
        if not isinstance(self.roi_size, str):
            return WindowGrid.over(shape[2:], self.roi_size, self.overlap)
        most = self._most_voxels_for(network, device_of(network, device))
        return choose_windows(shape[2:], most, downsampling_of(network, len(shape) - 2), self.overlap)

    def _most_voxels_for(self, network: Any, device: torch.device) -> int:
        """Of a window; what the kept predictors have taken since it was asked for does not count."""
        known = self._most_voxels
        if known is None or known[0] is not network or known[1] != device:
            warn_of_window_norms(network)
            known = self._most_voxels = network, device, most_window_voxels(network, device)
        return known[2]

    def _check_extra_arguments(self) -> None:
        if self.runtime not in ("auto", "torch"):
            raise ValueError(
                f"runtime must be 'torch' for further arguments of the network, got {self.runtime!r}. Leave them out, "
                "or take runtime='torch'."
            )
        if self.levels is not None:
            raise ValueError(
                f"levels must be None for further arguments of the network, got {self.levels!r}. Leave them out, or "
                "wrap the network."
            )

    def _stage(self, name: str) -> AbstractContextManager[None]:
        return nullcontext() if self.timer is None else self.timer.stage(name)

    # -- memory ------------------------------------------------------------------------------------------------------

    def _infer_within_memory(self, run: WindowRun) -> dict[str, torch.Tensor]:
        batch_size = self._batch_size(run)
        try:
            return self._infer(run, batch_size)
        except (RuntimeError, MemoryError) as e:
            if not is_out_of_memory(e):
                raise
            if batch_size == 1:
                raise MemoryError(self._memory_message(run, batch_size)) from e
            logger.warning("Not enough memory for %d windows at once: trying %d.", batch_size, batch_size // 2)
        # out of the handler, where nothing holds on to the memory of the failed run any more
        self._predictors.clear()
        self._most_at_once = batch_size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            return self._infer(run, batch_size // 2)
        except (RuntimeError, MemoryError) as e:
            if not is_out_of_memory(e):
                raise
            raise MemoryError(self._memory_message(run, batch_size // 2)) from e

    def _batch_size(self, run: WindowRun) -> int:
        chosen = self.sw_batch_size
        if chosen is None:
            # a window alone takes OpenVINO no longer, and what it gives does not depend on how many there are
            alone = self.roi_size == AUTO or (not run.has_arguments and self._resolved(run) == "openvino")
            chosen = 1 if alone else choose_batch_size(run.network, run.grid, run.images.shape[0], run.device)
        # what did not fit once is not tried for each further image
        return chosen if self._most_at_once is None else min(chosen, self._most_at_once)

    def _resolved(self, run: WindowRun) -> str:
        return resolve_runtime(self.runtime, run.network, run.device, self.precision)

    def _memory_message(self, run: WindowRun, batch_size: int) -> str:
        return (
            f"inputs must fit into memory, got {list(run.images.shape)} with {batch_size} windows of "
            f"{list(run.grid.window_size)} at once, output {self.output!r}. {self._memory_remedies(batch_size)}"
        )

    def _memory_remedies(self, batch_size: int) -> str:
        remedies = ["a smaller roi_size"]
        if self.runtime != "torch":
            remedies.append("runtime='torch'")
        if self.device is None or self.device.type != "cpu":
            remedies.insert(0, "device='cpu'")
        if self.output == "logits":
            remedies.insert(0, "output='labels'")
        if batch_size > 1:
            remedies.insert(0, "sw_batch_size=1")
        return f"Try {', '.join(remedies)}, or fewer levels."

    def _log_memory(self, run: WindowRun, predictor: Predictor, out_channels: int) -> None:
        estimate = self.estimate_memory(
            run.images.shape,
            out_channels,
            sw_batch_size=predictor.batch_size,
            heads=len(predictor.levels or (ONLY,)),
            input_itemsize=run.images.element_size(),
            network=run.network,
        )
        # not for each of the many images that a training is validated on
        if estimate.total_bytes > self._logged_bytes:
            self._logged_bytes = estimate.total_bytes
            logger.info(
                "%d window(s) of %s, %d at once, %s: %s.",
                run.windows,
                "x".join(map(str, run.grid.window_size)),
                predictor.batch_size,
                f"{predictor.runtime} {predictor.precision}",
                estimate,
            )
        needed = estimate.stitching_bytes
        device = self.device or run.images.device
        free = free_memory_bytes(device)
        # a GPU gives an error, which is dealt with; a system may end the process without one
        if device.type == "cpu" and free is not None and needed > free:
            logger.warning(
                "%.1f GB of memory are needed and %.1f GB are free: the system may end this program. %s",
                needed / 1e9,
                free / 1e9,
                self._memory_remedies(predictor.batch_size),
            )

    # -- one run -----------------------------------------------------------------------------------------------------

    def _infer(self, run: WindowRun, batch_size: int) -> dict[str, torch.Tensor]:
        self.depths = {}
        with self._stage("preparation"):
            predictor = self._predictor(run, batch_size)
        self.ran = predictor.runtime, predictor.precision
        if run.out_channels is not None:
            self._log_memory(run, predictor, run.out_channels)
        batches = WindowBatches(
            run.images,
            run.grid,
            batch_size,
            run.device,
            self.padding_mode,
            self.cval,
            fixed_size=predictor.runtime != "torch" and self.levels != ADAPTIVE,
            skip_constant=self.skip_constant,
        )
        stitchers: dict[str, WindowStitcher] = {}
        kept: dict[str, torch.Tensor] = {}
        with tqdm(total=run.windows, unit="window", disable=not self.progress) as bar:
            for batch, logits in self._predictions(batches, predictor, self.device or run.images.device):
                with self._stage("stitching"):
                    if not stitchers:
                        if run.out_channels is None:
                            self._log_memory(run, predictor, next(iter(logits.values())).shape[1])
                        stitchers = self._stitchers(run, logits)
                    for name, stitcher in stitchers.items():
                        for window in batch.placed:
                            found = kept[name] if window.slot is None else logits[name][window.slot]
                            stitcher.add(window.image, window.position, found)
                    if batch.kept_slot is not None:
                        kept = {name: found[batch.kept_slot].clone() for name, found in logits.items()}
                bar.update(len(batch.placed))
                # or it would lie in memory beside the next
                del logits
        with self._stage("stitching"):
            for stitcher in stitchers.values():
                stitcher.finish()
            return {name: stitcher.result() for name, stitcher in stitchers.items()}

    def _predictor(self, run: WindowRun, batch_size: int) -> Predictor:
        levels = self._predicted_levels(run.network)
        if run.called is not self._network:
            self._predictors.clear()
            self._most_at_once = None
            self._network = run.called
        key = (levels, run.grid.window_size, batch_size, run.device, self.runtime, self.precision)
        if key not in self._predictors:
            self._make_room(run)
            settings: dict[str, Any] = {
                "window_shape": run.grid.window_size,
                "batch_size": batch_size,
                "device": run.device,
                "runtime": "torch" if run.has_arguments else self.runtime,
                "precision": self.precision,
                "cache_dir": self.cache_dir,
            }
            self._predictors[key] = (
                make_predictor(run.called, levels=levels, **settings)
                if self.adaptive_tolerance is None
                else make_adaptive_predictor(run.called, self.adaptive_tolerance, **settings)
            )
        return self._predictors[key]

    def _make_room(self, run: WindowRun) -> None:
        """Let go of the oldest predictors; of windows as large as memory allows, all that is kept fits together."""
        most = self._most_voxels[2] if self.roi_size == AUTO and self._most_voxels is not None else None
        while self._predictors:
            kept = sum(math.prod(predictor.window_shape) for predictor in self._predictors.values())
            if len(self._predictors) < _MOST_KEPT and (most is None or kept + run.grid.window_voxels <= most):
                return
            del self._predictors[next(iter(self._predictors))]

    def _predicted_levels(self, network: Callable[..., Any]) -> tuple[str, ...] | None:
        if self.levels is None:
            return None
        names = self._names()
        if not any(map(_needs_all_levels, names)):
            return names
        levels = getattr(network, "levels", None)
        if not levels:
            raise TypeError(
                f"network must have levels for levels={self.levels!r}, got {type(network).__name__}. Take a "
                "NestedUNet, or levels=None."
            )
        return tuple(levels)

    def _predictions(
        self, batches: WindowBatches, predictor: Predictor, device: torch.device
    ) -> Iterator[tuple[WindowBatch, dict[str, torch.Tensor]]]:
        """Each batch and its logits, which are on their way to ``device``."""
        predictions = self._predictions_on_device(batches, predictor)
        if batches.device.type == "cuda" and device.type == "cpu":
            predictions = through_pinned_memory(predictions)
        return predictions

    def _predictions_on_device(
        self, batches: WindowBatches, predictor: Predictor
    ) -> Iterator[tuple[WindowBatch, dict[str, torch.Tensor]]]:
        prepared = False
        while True:
            with self._stage("windows"):
                batch = batches.next_batch()
            if batch is None:
                return
            if not prepared:
                with self._stage("preparation"):
                    predictor.prepare(batch.windows)
                prepared = True
            with self._stage("network"):
                used = 1 + max((window.slot for window in batch.placed if window.slot is not None), default=-1)
                logits = self._predict(predictor, batch.windows, used) if used else {}
            yield batch, logits
            del logits

    def _predict(self, predictor: Predictor, windows: torch.Tensor, used: int) -> dict[str, torch.Tensor]:
        """The logits of all windows, of which the first ``used`` are of an image."""
        outputs: dict[str, torch.Tensor]
        if self.flips:
            outputs = FlipInferer(axes=self.flips)(
                windows, lambda x: full_precision(self._at_depths(predictor, logits_by_name(predictor(x)), used))
            )
        else:
            outputs = self._at_depths(predictor, logits_by_name(predictor(windows)), used)
        for found in outputs.values():
            if found.shape[0] != windows.shape[0] or found.shape[2:] != windows.shape[2:]:
                raise ValueError(
                    f"network must give logits of the windows' size, {list(windows.shape[2:])} for each of "
                    f"{windows.shape[0]}, got {list(found.shape)}. Resize inside the network."
                )
        if self.levels is None:
            return outputs
        heads = [found for name, found in outputs.items() if not name.startswith(ADAPTIVE)]
        return {name: mean_of_heads(heads) if name == MEAN else outputs[name] for name in self._names()}

    def _at_depths(self, predictor: Predictor, outputs: dict[str, torch.Tensor], used: int) -> dict[str, torch.Tensor]:
        """``outputs`` with those of gates, and the depths of the first ``used`` windows counted."""
        outputs, depths = add_gated(outputs, self._names())
        if predictor.depths is not None:
            depths[ADAPTIVE] = predictor.depths
        count_depths(self.depths, {name: each[:used] for name, each in depths.items()}, predictor.levels or ())
        return outputs

    def _stitchers(self, run: WindowRun, logits: Mapping[str, torch.Tensor]) -> dict[str, WindowStitcher]:
        device, count = self.device or run.images.device, run.images.shape[0]
        importance = importance_of(run.grid, self.mode, self.sigma_scale, device)
        if self.output == "logits":
            return {
                name: LogitStitcher(run.grid, importance, count, found.shape[1], found.dtype, device)
                for name, found in logits.items()
            }
        maps = LabelMaps(run.grid, count, [found.shape[1] for found in logits.values()], device)
        return {
            name: LabelStitcher(
                run.grid, importance, count, found.shape[1], found.dtype, device, self._stage, maps, number
            )
            for number, (name, found) in enumerate(logits.items())
        }


def _needs_all_levels(name: str) -> bool:
    """Whether what stands among the levels is made from all of them."""
    return name == MEAN or name.startswith(ADAPTIVE)
