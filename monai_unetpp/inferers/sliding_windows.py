"""Segment whole volumes with a nested U-Net, window by window."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.utils import BlendMode, PytorchPadMode, look_up_option
from tqdm import tqdm

from monai_unetpp.devices import resolve_device
from monai_unetpp.errors import counted
from monai_unetpp.inferers.depth_gate import ADAPTIVE, DEPTHS, add_gated, check_gate, count_depths
from monai_unetpp.inferers.flips import FlipInferer
from monai_unetpp.inferers.head_averaging import mean_of_heads
from monai_unetpp.inferers.label_maps import LabelMaps
from monai_unetpp.inferers.logits import ONLY, Predicted, logits_by_name, through_pinned_memory
from monai_unetpp.inferers.predictors import Predictor, make_adaptive_predictor, make_predictor, resolve_runtime
from monai_unetpp.inferers.predictors.adaptive import check_several_levels
from monai_unetpp.inferers.predictors.network_copy import is_nested_unet, mark_changed_weights, weight_types
from monai_unetpp.inferers.stitching import BatchStitcher, LabelStitcher, LogitStitcher
from monai_unetpp.inferers.window_arguments import MEAN, check_levels, check_numbers, check_run, check_sizes
from monai_unetpp.inferers.window_batches import WindowBatches
from monai_unetpp.inferers.window_choice import choose_windows, downsampling_of, warn_of_window_norms
from monai_unetpp.inferers.window_memory import (
    WindowMemory,
    choose_batch_size,
    estimate_window_memory,
    first_channels,
    free_memory_bytes,
    usable_memory_bytes,
)
from monai_unetpp.inferers.window_run import WindowRun, device_of
from monai_unetpp.inferers.windows import WindowGrid, check_axes, importance_of
from monai_unetpp.measuring.memory import is_out_of_memory
from monai_unetpp.measuring.stage_timer import StageTimer, timed
from monai_unetpp.networks.hashing import structure_of
from monai_unetpp.window_layout import AUTO, most_window_voxels

logger = logging.getLogger(__name__)

#: Most predictors to keep, one per shape of windows and batches.
_MOST_KEPT = 8


class NestedSlidingWindowInferer(Inferer):
    """Run a nested U-Net over images of any size in overlapping windows.

    Windows, weights and padding are those of MONAI's ``SlidingWindowInferer``, and so are the names and the order of
    the first arguments. With ``mode="constant"``, ``precision="fp32"`` and ``runtime="torch"``, MONAI's defaults, the
    results agree to float32 rounding. MONAI's ``sw_device``, ``cache_roi_weight_map``, ``cpu_thresh``,
    ``buffer_steps``, ``buffer_dim`` and ``with_coord`` have no counterpart. Dropout is off, even if left on by hand.

    Args:
        roi_size: spatial size of the windows, one for all axes or each; ``None``, 0 or -1 stands for the image's own
            size. Use the patch size of the training: deep levels are worse in smaller windows. ``"auto"`` chooses for
            each image the fewest and largest windows that safely fit into free memory, if possible the whole image, in
            multiples of the network's downsampling; see :func:`monai_unetpp.inferers.window_choice.choose_windows`.
            If memory runs out after all, windows of half as many voxels are tried, also for later images.
            This computes fewer voxels, but is only for networks whose output does not depend on the window size, as
            with batch norm: with instance norm another window size changes every voxel, and a warning says so.
        sw_batch_size: windows per batch. ``None`` uses one with OpenVINO, else as many as suit the device's free
            memory; results do not depend on it beyond rounding, which instance norms amplify in constant windows.
        overlap: fraction of a window that overlaps with the next one, from 0 to below 1, for all axes or each. More is
            slower and smoother.
        mode: ``"gaussian"`` gives the centre of a window more weight than its edges; ``"constant"`` does not.
        sigma_scale: standard deviation of the Gaussian in window lengths, for all axes or each.
        padding_mode: how to pad images smaller than a window: ``"constant"``, ``"reflect"``, ``"replicate"`` or
            ``"circular"``, however small they are. The padding is cropped afterwards.
        cval: the padding value for ``"constant"``.
        levels: ``None`` uses what ``network(windows)`` returns, the deepest level; ``"L2"`` that level; ``"mean"`` the
            mean of the probabilities of all heads as logits (see
            :func:`monai_unetpp.inferers.head_averaging.mean_of_heads`); ``"adaptive=0.033"`` the result of
            ``"adaptive"`` at this tolerance; a list of these gives a dict from one pass. ``"adaptive"``, only on its
            own, runs each window only as deep as needed, see ``adaptive_tolerance``.
        output: ``"logits"``, ``(B, C, *spatial)`` in float32, or ``"labels"``, ``(B, 1, *spatial)`` in uint8 (int16 for
            more than 256 classes): the class of the highest logit; with one channel, whether its logit is above 0.
            Label maps are made row by row and hold only the logits of one row of windows and of the overlap of two
            slabs: all four levels of 512 x 512 x 600 voxels with 3 classes in single windows of 96 x 96 x 96 take less
            than 1.5 GB with the volume, without the network. They equal those from logits except for ties.
        flips: spatial axes, from 0: each window's logits are averaged over all mirror images along these axes. ``n``
            axes take ``2 ** n`` times as long. Flip only along axes that were flipped in training.
        skip_constant: run the network only once on equal constant windows. A window is constant if every channel has
            a single value after padding. The logits of the last constant window are reused if it had the same values.
            Results are the same for every network that treats windows independently, but for rounding, which instance
            norms amplify in such windows; images with much empty background take less time.
        device: device for stitching and for the result; by default that of the inputs. The network runs where its
            weights are.
        runtime: ``"auto"``, ``"torch"``, ``"compile"`` or ``"openvino"``.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``, for the network; sums are always float32.
        cache_dir: folder for converted networks.
        progress: show a progress bar.
        adaptive_tolerance: for ``levels="adaptive"``: L1 and L2 of a window are computed; if ``1 - Dice`` between them
            is below this number for every class that occurs in either, L2 is used; else L3 is computed and compared
            with L2, and so on, each level reusing the ones before it. From 0 (every window goes to the deepest level)
            to 1. For the runtimes torch and OpenVINO; with flips every mirror image has its own depth. To see whether
            it pays, run ``monai-unetpp prune --settings adaptive=0.02,0.033``.

    Attributes:
        timer: if set, it records the time of the stages ``"preparation"`` (conversion or compilation, once per
            network and batch shape), ``"windows"``, ``"network"``, ``"stitching"`` and ``"argmax"``.
        ran: runtime and precision of the last run, never ``"auto"``; None before.
        window_sizes: sizes of the windows of all runs: several only where they are chosen for each image.
        depths: number of windows (with flips, of mirror images) of the last run that stopped at each level, by name of
            each adaptive level.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument has an invalid value.

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
        check_run(sw_batch_size, output, runtime, precision)
        self.roi_size = check_sizes(roi_size)
        self.overlap = check_numbers("overlap", overlap, lambda value: 0 <= value < 1, "from 0 to below 1")
        self.mode = str(look_up_option(mode, BlendMode).value)
        self.sigma_scale = check_numbers("sigma_scale", sigma_scale, lambda value: value > 0, "above 0")
        self.padding_mode = str(look_up_option(padding_mode, PytorchPadMode).value)
        self.cval = float(cval)
        self.sw_batch_size = sw_batch_size
        self.levels = check_levels(levels)
        self.adaptive_tolerance = check_gate(levels, adaptive_tolerance, runtime)
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
        self.window_sizes: set[tuple[int, ...]] = set()
        self.depths: dict[str, dict[str, int]] = {}
        self._network: Callable[..., Any] | None = None
        self._structure: tuple[Any, ...] = ()
        self._checksum: tuple[int, ...] = ()
        self._predictors: dict[tuple[Any, ...], Predictor] = {}
        self._logged_bytes = -1
        self._most_at_once: int | None = None
        self._most_voxels: tuple[Any, torch.device, int] | None = None

    @torch.no_grad()
    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Segment images.

        The compiled or converted network is kept until this inferer is called with another one. At each call, changed
        weights are noticed, by their checksums, also where PyTorch does not count the change; so are replaced modules,
        hooks, and changed settings of modules of torch, MONAI and this package.

        Args:
            inputs: ``(B, C, *spatial)``; the network gets windows as plain tensors. Inputs may be on the CPU and the
                network on a GPU.
            network: a ``NestedUNet``, or any function of windows that returns logits ``(B, C, *window)`` or a dict of
                them.
            *args: other arguments of ``network``, the same for every window; only for runtime torch, without levels.
            **kwargs: likewise.

        Returns:
            The result according to ``levels`` and ``output``, without gradient; for a ``MetaTensor`` with its
            metadata, so that it can be inverted and saved like the image.

        Raises:
            TypeError: the network does not have ``levels``, or does not return tensors.
            ValueError: inputs do not fit the arguments, or the network changes the size of windows.
            MemoryError: memory is insufficient even for one window per batch, with ``roi_size="auto"`` of the smallest
                size.
        """
        grid = self._grid(inputs.shape, network, inputs.device)
        images = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        run = WindowRun(images, network, grid, args, kwargs)
        if run.has_arguments:
            self._check_extra_arguments()
        outputs = self._infer_within_memory(run)
        if isinstance(inputs, MetaTensor):
            outputs = {name: MetaTensor(output).copy_meta_from(inputs) for name, output in outputs.items()}
        gives_one = isinstance(self.levels, str) or (self.levels is None and ONLY in outputs)
        return next(iter(outputs.values())) if gives_one else outputs

    def with_options(self, **changes: Any) -> NestedSlidingWindowInferer:
        """Copy this inferer with some arguments changed, without its ``timer``.

        Args:
            **changes: arguments of the constructor.

        Raises:
            TypeError: the constructor does not have an argument.
        """
        options = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        return type(self)(**{**options, **changes})

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
        """Estimate the memory of a run, without that of the network itself.

        The first run logs it, and so does every later one that needs more: before the run for a ``NestedUNet``, else
        after the first batch, which shows the number of classes.

        Args:
            image_shape: ``(B, C, *spatial)``.
            out_channels: output channels of the network.
            sw_batch_size: windows per batch; by default that of the constructor, or 4.
            heads: levels of the network, for ``levels="mean"``.
            input_itemsize: bytes per value of the images.
            network: the network, which matters for ``roi_size="auto"``.

        Raises:
            ValueError: the shape does not fit the arguments.
        """
        grid = self._grid(image_shape, network, torch.device("cpu"))
        batch_size = sw_batch_size or self.sw_batch_size or 4
        return self._estimate(grid, image_shape, out_channels, batch_size, heads, input_itemsize)

    def _estimate(
        self, grid: WindowGrid, shape: Sequence[int], out_channels: int, batch_size: int, heads: int, itemsize: int
    ) -> WindowMemory:
        names = self._names()
        return estimate_window_memory(
            grid,
            images=shape[0],
            in_channels=shape[1],
            out_channels=out_channels,
            outputs=len(names),
            predicted=heads if any(map(_needs_all_levels, names)) else len(names),
            batch_size=batch_size,
            labels=self.output == "labels",
            blended=self.mode == "gaussian",
            input_itemsize=itemsize,
        )

    def _names(self) -> tuple[str, ...]:
        if self.levels is None:
            return (ONLY,)
        return (self.levels,) if isinstance(self.levels, str) else tuple(self.levels)

    def _grid(self, shape: Sequence[int], network: Any, device: torch.device) -> WindowGrid:
        if len(shape) < 3:
            raise ValueError(
                f"inputs must have shape (B, C, *spatial), got {list(shape)}. Add the batch and channel axes."
            )
        if shape[0] < 1:
            raise ValueError(f"inputs must hold at least one image, got shape {list(shape)}. Check the data loader.")
        check_axes(shape[2:], roi_size=self.roi_size, overlap=self.overlap, sigma_scale=self.sigma_scale)
        if not isinstance(self.roi_size, str):
            return WindowGrid.over(shape[2:], self.roi_size, self.overlap)
        most = self._most_voxels_for(network, device_of(network, device))
        return choose_windows(shape[2:], most, downsampling_of(network, len(shape) - 2), self.overlap)

    def _most_voxels_for(self, network: Any, device: torch.device) -> int:
        """Most voxels of a window, estimated once: memory of kept predictors does not count."""
        known = self._most_voxels
        if known is None or known[0] is not network or known[1] != device:
            warn_of_window_norms(network)
            most = most_window_voxels(usable_memory_bytes(device), first_channels(network), self._outputs(network))
            known = self._most_voxels = network, device, most // (self.sw_batch_size or 1)
        return known[2]

    def _outputs(self, network: Any) -> int:
        """Channels of all logits of a window, as far as the network's configuration tells."""
        if not is_nested_unet(network):
            return 1
        if isinstance(self.levels, str):
            levels = 1 if self.levels in network.levels else len(network.levels)
        else:
            levels = len(self.levels or (ONLY,))
        return int(network.config["out_channels"]) * levels

    def _check_extra_arguments(self) -> None:
        if self.runtime not in ("auto", "torch"):
            raise ValueError(
                f"runtime must be 'torch' for other arguments of the network, got {self.runtime!r}. Leave them out, "
                "or use runtime='torch'."
            )
        if self.levels is not None:
            raise ValueError(
                f"levels must be None for other arguments of the network, got {self.levels!r}. Leave them out, or "
                "wrap the network."
            )

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles hold: all but the kept networks, which are made again at the next call."""
        forgotten = dict.fromkeys(("_network", "_most_voxels", "timer"))
        return self.__dict__ | forgotten | {"_predictors": {}, "_structure": ()}

    # -- memory ------------------------------------------------------------------------------------------------------

    def _infer_within_memory(self, run: WindowRun) -> dict[str, torch.Tensor]:
        structure = structure_of(run.called)
        if run.called is not self._network or structure != self._structure:
            self._predictors.clear()
            self._most_at_once = None
            self._network = run.called
            self._structure = structure
            self._checksum = ()
        self._checksum = mark_changed_weights(run.called, self._checksum)
        batch_size = self._batch_size(run)
        before = self._most_voxels, self._most_at_once
        while True:
            try:
                return self._infer(run, batch_size)
            except (RuntimeError, MemoryError) as e:
                if not is_out_of_memory(e):
                    raise
                smaller = self._smaller(run, batch_size)
                if smaller is None:
                    # for other images, as the windows were not at fault
                    self._most_voxels, self._most_at_once = before
                    raise MemoryError(self._memory_message(run, e)) from e
            # outside the handler, where nothing refers to the memory of the failed run
            self._predictors.clear()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            run, batch_size = smaller

    def _smaller(self, run: WindowRun, batch_size: int) -> tuple[WindowRun, int] | None:
        """What to try next where memory is insufficient, also for later images; None if nothing is left."""
        if batch_size > 1:
            logger.warning("Not enough memory for %d windows per batch: trying %d.", batch_size, batch_size // 2)
            self._most_at_once = batch_size // 2
            return run, batch_size // 2
        if self._most_voxels is None or self.roi_size != AUTO:
            return None
        most, size = run.grid.window_voxels // 2, run.grid.image_size
        grid = choose_windows(size, most, downsampling_of(run.network, len(size)), self.overlap)
        if grid.window_voxels >= run.grid.window_voxels:
            return None
        sizes = ["x".join(map(str, each.window_size)) for each in (run.grid, grid)]
        logger.warning("Not enough memory for windows of %s: trying %s.", *sizes)
        self._most_voxels = *self._most_voxels[:2], most
        return dataclasses.replace(run, grid=grid), batch_size

    def _batch_size(self, run: WindowRun) -> int:
        chosen = self.sw_batch_size
        if chosen is None:
            # OpenVINO is as fast with single windows, and its results do not depend on the batch size
            alone = self.roi_size == AUTO or (
                not run.has_arguments
                and resolve_runtime(self.runtime, run.network, run.device, self.precision) == "openvino"
            )
            images, outputs = run.images.shape[0], self._outputs(run.network)
            chosen = 1 if alone else choose_batch_size(run.network, run.grid, images, run.device, outputs)
        # a batch is filled up for some runtimes
        chosen = min(chosen, run.windows)
        # do not retry what did not fit before
        return chosen if self._most_at_once is None else min(chosen, self._most_at_once)

    def _memory_message(self, run: WindowRun, error: Exception) -> str:
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        return (
            f"inputs must fit into memory, got {list(run.images.shape)} with single windows of "
            f"{list(run.grid.window_size)}, output {self.output!r} ({cause:.80}). {self._memory_remedies(1)}"
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
        heads, itemsize = len(predictor.levels or (ONLY,)), run.images.element_size()
        shape = run.images.shape
        estimate = self._estimate(run.grid, shape, out_channels, predictor.batch_size, heads, itemsize)
        # not for every image in the validation of a training
        if estimate.total_bytes > self._logged_bytes:
            self._logged_bytes = estimate.total_bytes
            logger.info(
                "%s of %s, %d per batch, %s: %s.",
                counted(run.windows, "window"),
                "x".join(map(str, run.grid.window_size)),
                predictor.batch_size,
                f"{predictor.runtime} {predictor.precision}",
                estimate,
            )
        needed = estimate.stitching_bytes
        device = self.device or run.images.device
        free = free_memory_bytes(device)
        # a GPU raises an error, which is handled; the system may kill the process without one
        if device.type == "cpu" and free is not None and needed > free:
            logger.warning(
                "%.1f GB of memory are needed but %.1f GB are free: the system may kill this program. %s",
                needed / 1e9,
                free / 1e9,
                self._memory_remedies(predictor.batch_size),
            )

    # -- one run -----------------------------------------------------------------------------------------------------

    def _infer(self, run: WindowRun, batch_size: int) -> dict[str, torch.Tensor]:
        run.depths.clear()
        with timed(self.timer, "preparation"):
            predictor = self._predictor(run, batch_size)
        self.ran = predictor.runtime, predictor.precision
        self.window_sizes.add(run.grid.window_size)
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
        predictions = self._predictions(run, batches, predictor)
        if run.device.type == "cuda" and (self.device or run.images.device).type == "cpu":
            predictions = through_pinned_memory(predictions)
        stitcher = BatchStitcher({})
        with tqdm(total=run.windows, unit="window", disable=not self.progress) as bar:
            for batch, logits in predictions:
                with timed(self.timer, "stitching"):
                    if not stitcher.stitchers:
                        if run.out_channels is None:
                            self._log_memory(run, predictor, next(iter(logits.values())).shape[1])
                        stitcher = self._stitcher(run, logits)
                    stitcher.add(batch, logits)
                bar.update(len(batch.placed))
                # free it before the next batch
                del logits
        # of this run alone, as other threads may run this inferer too
        self.depths = run.depths
        with timed(self.timer, "stitching"):
            stitcher.finish()
            if stitcher.grows_at_end:
                predictor.release()
            return stitcher.results()

    def _predictor(self, run: WindowRun, batch_size: int) -> Predictor:
        levels = self._predicted_levels(run.network)
        # another thread may call this inferer with another network meanwhile
        network = id(run.called), weight_types(run.network)
        key = (network, levels, run.grid.window_size, batch_size, run.device, self.runtime, self.precision)
        predictor = self._predictors.get(key)
        if predictor is None:
            self._make_room(run)
            settings: dict[str, Any] = {
                "window_shape": run.grid.window_size,
                "batch_size": batch_size,
                "device": run.device,
                "runtime": "torch" if run.has_arguments else self.runtime,
                "precision": self.precision,
                "cache_dir": self.cache_dir,
            }
            predictor = self._predictors[key] = (
                make_predictor(run.called, levels=levels, **settings)
                if self.adaptive_tolerance is None
                else make_adaptive_predictor(run.called, self.adaptive_tolerance, **settings)
            )
        return predictor

    def _make_room(self, run: WindowRun) -> None:
        """Drop the oldest predictors, so that with ``roi_size="auto"`` all kept ones fit into memory."""
        most = self._most_voxels[2] if self.roi_size == AUTO and self._most_voxels is not None else None
        for key in list(self._predictors):
            kept = sum(math.prod(predictor.window_shape) for predictor in list(self._predictors.values()))
            if len(self._predictors) < _MOST_KEPT and (most is None or kept + run.grid.window_voxels <= most):
                return
            self._predictors.pop(key, None)

    def _predicted_levels(self, network: Callable[..., Any]) -> tuple[str, ...] | None:
        if self.levels is None:
            return None
        names = self._names()
        if not any(map(_needs_all_levels, names)):
            return names
        levels = getattr(network, "levels", None)
        if not levels:
            raise TypeError(
                f"network must have levels for levels={self.levels!r}, got {type(network).__name__}. Use a "
                "NestedUNet (of one that is wrapped, as by DataParallel, its .module), or levels=None."
            )
        if any(name.startswith(ADAPTIVE) for name in names):
            check_several_levels(levels)
        return tuple(levels)

    def _predictions(self, run: WindowRun, batches: WindowBatches, predictor: Predictor) -> Iterator[Predicted]:
        """Yield each batch with its logits."""
        prepared = False
        while True:
            with timed(self.timer, "windows"):
                batch = batches.next_batch()
            if batch is None:
                return
            if not prepared:
                with timed(self.timer, "preparation"):
                    predictor.prepare(batch.windows)
                prepared = True
            with timed(self.timer, "network"):
                used = 1 + max((window.slot for window in batch.placed if window.slot is not None), default=-1)
                logits = self._predict(run, predictor, batch.windows, used) if used else {}
            yield batch, logits
            del logits

    def _predict(
        self, run: WindowRun, predictor: Predictor, windows: torch.Tensor, used: int
    ) -> dict[str, torch.Tensor]:
        """The logits of all windows; only the first ``used`` belong to an image."""

        def predict(x: torch.Tensor) -> dict[str, torch.Tensor]:
            found = logits_by_name(predictor(x))
            chosen = {ADAPTIVE: found.pop(DEPTHS)} if DEPTHS in found else {}
            found, gates = add_gated(found, self._names())
            depths = {name: each[:used] for name, each in (chosen | gates).items()}
            count_depths(run.depths, depths, predictor.levels or ())
            return found

        outputs: dict[str, torch.Tensor] = FlipInferer(axes=self.flips)(windows, predict)
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

    def _stitcher(self, run: WindowRun, logits: Mapping[str, torch.Tensor]) -> BatchStitcher:
        device, count = self.device or run.images.device, run.images.shape[0]
        importance = importance_of(run.grid, self.mode, self.sigma_scale, device)
        shared = (run.grid, importance, count)
        if self.output == "logits":
            return BatchStitcher(
                {name: LogitStitcher(*shared, found.shape[1], found.dtype, device) for name, found in logits.items()}
            )
        maps = LabelMaps(run.grid, count, [found.shape[1] for found in logits.values()], device)
        stitchers = {
            name: LabelStitcher(*shared, found.shape[1], found.dtype, device, self.timer, maps, number)
            for number, (name, found) in enumerate(logits.items())
        }
        return BatchStitcher(stitchers, maps)


def _needs_all_levels(name: str) -> bool:
    """Whether an entry of ``levels`` is computed from all levels."""
    return name == MEAN or name.startswith(ADAPTIVE)
