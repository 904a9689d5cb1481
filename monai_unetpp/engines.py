"""Segmenting case after case; one broken case does not end the run."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeGuard

import torch
from ignite.engine import Engine, Events
from ignite.engine.events import CallableEventWithFilter
from ignite.handlers.base_logger import BaseOutputHandler
from ignite.metrics import Metric
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.networks.utils import eval_mode
from monai.transforms import AsDiscreted, Compose, Invertd, LoadImage, LoadImaged, SaveImaged
from monai.utils import CommonKeys, ImageMetaKey, MetaKeys
from torch.utils.data import DataLoader, IterableDataset

from monai_unetpp.case_results import CaseFailure, CaseResult
from monai_unetpp.data import (
    BlockwiseSpacingd,
    InvertProbabilitiesd,
    SegmentationSaveImaged,
    case_name,
    describe_case_failure,
)
from monai_unetpp.data.formats.grid import voxel_ml
from monai_unetpp.data.formats.source_files import source_files
from monai_unetpp.data.transforms.background import SURROUND_SHARE, SURROUND_VALUE
from monai_unetpp.data.transforms.instances import INSTANCE_COUNT, SplitInstancesd
from monai_unetpp.distributed import in_process_group
from monai_unetpp.measuring.stage_timer import StageTimer, timed

__all__ = ["CaseEvaluator", "CaseFailure", "CaseResult", "count_voxels", "describe_case"]

logger = logging.getLogger(__name__)

_OTHER = "other"
_STAGES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((LoadImage, LoadImaged), "load"),
    (BlockwiseSpacingd, "resample"),
    (AsDiscreted, "argmax"),
    ((Invertd, InvertProbabilitiesd), "inversion"),
    (SaveImaged, "save"),
)


class CaseEvaluator(SupervisedEvaluator):
    """MONAI's ``SupervisedEvaluator`` for independent cases: failed ones are reported, and the run goes on.

    A case may fail in loading (with :class:`monai_unetpp.data.CaseDataset`), in the network, in post-processing or in
    saving. It is logged in one line (with the traceback at debug level) and kept in :attr:`failures`. Handlers of
    ``ITERATION_COMPLETED``, and so metrics, see completed cases only. Once its first file is written, a case is
    completed, and a further one that cannot be written is one of its ``problems``.

    Saving transforms (``SaveImaged`` and subclasses) at the end of ``postprocessing`` run in a separate thread while
    the network processes the next case. At most one case waits to be written, and all are written when :meth:`run`
    returns, even after an interruption. So handlers see a case before it is written, even if writing it then fails. To
    load the next case in parallel, use MONAI's ``ThreadDataLoader``.

    Args:
        device: where the network runs.
        val_data_loader: yields one case at a time.
        network: the network.
        iteration_update: as in ``SupervisedEvaluator``.
        postprocessing: as in ``SupervisedEvaluator``.
        profile: whether to measure the stages of each case for :attr:`CaseResult.stages`: each transform of the data
            set and of ``postprocessing``, and the inferer (in detail if it has an attribute ``timer``). Everything then
            runs in one thread.
        **options: all further arguments of ``SupervisedEvaluator``.

    Attributes:
        completed: the :class:`CaseResult` of each case segmented in this run, in the order of the cases.
        failures: the :class:`CaseFailure` of each other case, in the order of the cases.
        profile: as the argument; may be set between runs.

    Raises:
        ValueError: ``val_data_loader`` yields several cases at a time, or it or its data set is None.
        RuntimeError: while running, ``val_data_loader`` ends before its last case.

    In a bundle, this makes the command end with exit code 1 if any case failed:

    .. code-block:: json

        {"run": ["$@evaluator.run()", "$@evaluator.exit_if_failed()"]}
    """

    _case_failed = False
    _outputs = 0

    def __init__(
        self,
        device: torch.device | str,
        val_data_loader: Iterable[Any],
        network: torch.nn.Module,
        *,
        iteration_update: Callable[[Engine, Any], Any] | None = None,
        postprocessing: Callable[[Any], Any] | None = None,
        profile: bool = False,
        **options: Any,
    ) -> None:
        for name, part in (("val_data_loader", val_data_loader), ("dataset", getattr(val_data_loader, "dataset", ()))):
            if part is None:
                raise ValueError(f"{name} must give the cases, got None. Name one, or copy the bundle again.")
        batch_size = getattr(val_data_loader, "batch_size", None)
        if batch_size not in (None, 1):
            raise ValueError(f"val_data_loader must have batch_size 1, got {batch_size}. Cases have their own sizes.")
        self.completed: list[CaseResult] = []
        self.failures: list[CaseFailure] = []
        self.profile = profile
        self._timer: StageTimer | None = None
        self._update: Callable[[Any, Any], Any] = super()._iteration if iteration_update is None else iteration_update
        self._postprocessing, self._saving = _split_saving(postprocessing)
        self._unsaved: dict[Any, Any] | None = None
        self._saver: ThreadPoolExecutor | None = None
        self._being_saved: tuple[str, str, Future[CaseResult]] | None = None
        self._started = time.perf_counter()
        super().__init__(
            torch.device(device),
            val_data_loader,
            network,
            iteration_update=self._segment,
            postprocessing=None if postprocessing is None else self._postprocess,  # type: ignore[arg-type]
            **options,
        )
        self.add_event_handler(Events.GET_BATCH_STARTED, self._start_case)
        self.add_event_handler(Events.DATALOADER_STOP_ITERATION, self._end_early)

    @property
    def has_postprocessing(self) -> bool:
        """Whether there is any post-processing; without it, nothing is written."""
        return self._postprocessing is not None or self._saving is not None

    @property
    def savers(self) -> tuple[SegmentationSaveImaged, ...]:
        """The transforms of this package at the end of ``postprocessing`` that write label maps."""
        transforms = () if self._saving is None else self._saving.transforms
        return tuple(transform for transform in transforms if isinstance(transform, SegmentationSaveImaged))

    @property
    def depths(self) -> dict[str, int]:
        """Windows of the last image by the level at which they stopped; empty if the inferer does not choose it."""
        found: Mapping[str, dict[str, int]] = getattr(self.inferer, "depths", None) or {}
        return dict(next(iter(found.values()), {}))

    @property
    def numbers_objects(self) -> bool:
        """Whether ``postprocessing`` numbers objects, so that the values of its results are not labels."""
        steps = self._postprocessing.flatten().transforms if isinstance(self._postprocessing, Compose) else ()
        return any(
            isinstance(step, SplitInstancesd) and CommonKeys.PRED in step.keys
            for step in (*steps, self._postprocessing)
        )

    def add_saver(self, transform: Callable[[Any], Any]) -> None:
        """Add a transform after the saving ones at the end of ``postprocessing``.

        Raises:
            ValueError: no transform at the end of ``postprocessing`` saves.
        """
        if self._saving is None:
            raise ValueError("postprocessing must end with a transform that saves, got none. Add one.")
        self._saving.transforms = (*self._saving.transforms, transform)

    def add_postprocessing(self, transform: Callable[[Any], Any]) -> None:
        """Add a transform to the end of ``postprocessing``, before those that save.

        Raises:
            ValueError: there is no ``postprocessing``.
        """
        if not self.has_postprocessing:
            raise ValueError("postprocessing must give label maps, got none. Add it.")
        before = [] if self._postprocessing is None else [self._postprocessing]
        self._postprocessing = Compose([*before, transform])

    def process(self, item: Mapping[str, Any]) -> Any:
        """Run network and post-processing on one prepared item, outside of a run; nothing is saved.

        Args:
            item: as the transform of the data set returns it, with ``image`` ``(C, H, W[, D])``.

        Returns:
            The item after ``postprocessing``, with ``pred``.
        """
        image = item[CommonKeys.IMAGE]
        with eval_mode(self.network):
            outputs = self.inferer(image.as_tensor()[None].to(self.state.device, torch.float32), self.network)
        prediction = MetaTensor(outputs[0], meta=dict(image.meta))
        done = {**item, CommonKeys.PRED: prediction}
        return done if self._postprocessing is None else self._postprocessing(done)

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Segment all cases, and log how many succeeded and which failed."""
        self.completed, self.failures = [], []
        self._outputs = 0
        for earlier in (self.state.metrics, self.state.metric_details):
            earlier.clear()
        started = time.perf_counter()
        try:
            with self._measured(), ThreadPoolExecutor(1, "saving") as self._saver:
                try:
                    super().run(global_epoch)
                finally:
                    self._await_saving()
        finally:
            self._log_summary(time.perf_counter() - started)

    def exit_if_failed(self) -> None:
        """End the program with exit code 1 if a case of the last run failed, or has problems.

        Raises:
            SystemExit: it did.
        """
        if self.failures or any(case.problems for case in self.completed):
            raise SystemExit(1)

    def add_event_handler(self, event_name: Any, handler: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As in ignite, but handlers that use results are not called where there are none.

        Those of ``ITERATION_COMPLETED`` that use the output are not called for failed cases, and metrics are not
        computed if all cases have failed (except in distributed runs, where other processes wait for them).
        """
        if isinstance(event_name, CallableEventWithFilter):
            if event_name == Events.ITERATION_COMPLETED and not (
                isinstance(handler, BaseOutputHandler) and handler.output_transform is None
            ):
                event_name = _filtered(event_name, lambda: not self._case_failed)
            elif event_name == Events.EPOCH_COMPLETED and _uses_metrics(handler):
                event_name = _filtered(event_name, lambda: self._outputs > 0 or not self.failures or in_process_group())
        return super().add_event_handler(event_name, handler, *args, **kwargs)

    def _segment(self, engine: Engine, batchdata: Mapping[str, Any]) -> Any:
        with timed(self._timer, _OTHER):
            output = self._attempt(engine, batchdata)
        if self._timer is not None and not self._case_failed:
            self.completed[-1] = dataclasses.replace(self.completed[-1], stages=dict(self._timer.seconds))
        return output

    def _attempt(self, engine: Engine, batchdata: Mapping[str, Any]) -> Any:
        case, file = describe_case(batchdata)
        self._case_failed = "failure" in batchdata
        failure = _only(batchdata["failure"]) if self._case_failed else self._refusal(batchdata)
        if failure is not None:
            self._case_failed = True
            self._await_saving()
            self._note_failure(CaseFailure.of(case, file, str(failure)))
            return []
        engine.state.output, self._unsaved = None, None
        try:
            output = self._update(engine, batchdata)
            self._finish(case, file, output, batchdata)
            self._outputs += 1
        except Exception as e:
            self._case_failed = True
            self._await_saving()
            predicted = isinstance(engine.state.output, list) or CommonKeys.PRED in (engine.state.output or ())
            self._note_failure(_failure(case, file, "post-processing" if predicted else "inference", e))
            return []
        return output

    def _refusal(self, batchdata: Mapping[str, Any]) -> str | None:
        """Why the result cannot be written, checked before the network runs; None if it can."""
        files = source_files(_meta_of_image(batchdata))
        if not files:
            return None
        item = {key: _only(value) for key, value in batchdata.items()}
        try:
            for saver in self.savers:
                saver.check_result(files, item)
        except OSError as e:
            return str(e)
        return None

    def _postprocess(self, data: Any) -> Any:
        data = _run_stages(self._postprocessing, data, self._timer, "postprocessing")
        if self._saving is not None:
            keys = {key for transform in self._saving.transforms for key in transform.keys}
            # do not hold images or GPU memory while the result is being written
            self._unsaved = {
                key: value.cpu() if isinstance(value, torch.Tensor) else value
                for key, value in data.items()
                if key in keys or not isinstance(value, torch.Tensor)
            }
        return data

    def _finish(self, case: str, file: str, output: Any, batchdata: Mapping[str, Any]) -> None:
        surround, files = _surround(batchdata), source_files(_meta_of_image(batchdata)) or (file,)
        known = CaseResult(case, file, None, 0.0, {}, surround=surround, depths=self.depths, files=files)
        if self._unsaved is None or self._timer is not None or self._saver is None:
            self.completed.append(self._save(known, self._started, _only(output), self._unsaved))
            return
        self._await_saving()
        saving = self._saver.submit(self._save, known, self._started, None, self._unsaved)
        self._being_saved = case, file, saving

    def _save(self, known: CaseResult, started: float, item: Any, unsaved: dict[Any, Any] | None) -> CaseResult:
        """Write a case; the result is what is ``known`` of it and what only its prediction shows."""
        problems = []
        if unsaved is not None and self._saving is not None:
            item, *savers = unsaved, *self._saving.transforms
            for number, saver in enumerate(savers):
                try:
                    item = _run_stages(Compose([saver]), item, self._timer, "save")
                except Exception as e:
                    if number == 0:
                        raise
                    # what is written stays, and must be recorded
                    problems.append(str(_failure(known.case, known.file, "post-processing", e)))
                    logger.error("%s", problems[-1])
        prediction = item.get(CommonKeys.PRED) if isinstance(item, Mapping) else None
        meta: Mapping[Any, Any] = prediction.meta if isinstance(prediction, MetaTensor) else {}
        saved_to, instances = meta.get(MetaKeys.SAVED_TO), meta.get(INSTANCE_COUNT)
        with timed(self._timer, "volumes"):
            # the numbers of objects are not labels
            voxels = count_voxels(prediction) if instances is None else {}
        return dataclasses.replace(
            known,
            output=None if saved_to is None else str(saved_to),
            seconds=time.perf_counter() - started,
            volumes_ml=_volumes_ml(prediction, voxels),
            instances=instances,
            voxels=voxels,
            pixels=prediction.numel() if _is_map(prediction) else 0,
            covered=int(prediction.count_nonzero()) if instances is not None and _is_map(prediction) else 0,
            problems=tuple(problems),
        )

    def _await_saving(self) -> None:
        """Wait until the previous case is written, and record the outcome, so that the order of cases is kept."""
        if self._being_saved is None:
            return
        case, file, saving = self._being_saved
        wait([saving])
        self._being_saved = None
        try:
            self.completed.append(saving.result())
        except Exception as e:
            self._note_failure(_failure(case, file, "post-processing", e))

    def _note_failure(self, failure: CaseFailure) -> None:
        self.failures.append(failure)
        logger.error("%s", failure)

    def _start_case(self) -> None:
        self._started = time.perf_counter()
        if self._timer is not None:
            self._timer.reset()

    def _end_early(self) -> None:
        """Stop if the loader's thread has died; ignite would start again with the first case."""
        done, expected = self.state.iteration, self.state.epoch_length
        raise RuntimeError(
            f"val_data_loader must yield {expected} cases, got {done}. The cause may be in the messages above: keep "
            "errors of single cases out of it with monai_unetpp.data.CaseDataset."
        )

    @contextlib.contextmanager
    def _measured(self) -> Iterator[None]:
        """If profiling, time every part of the work on a case, all in this thread."""
        if not self.profile:
            yield
            return
        timer = self._timer = StageTimer(self.state.device)
        loader, inferer = self.data_loader, self.inferer
        dataset: Any = getattr(loader, "dataset", None)
        transform = getattr(dataset, "transform", None)
        if transform is not None:
            dataset.transform = lambda item: _run_stages(transform, item, timer, "preprocessing")
        if hasattr(inferer, "timer"):
            inferer.timer = timer
        else:
            self.inferer = timer.stage("network")(inferer)
        self.data_loader = _timed_batches(_in_this_thread(loader), timer)
        try:
            yield
        finally:
            self._timer, self.data_loader, self.inferer = None, loader, inferer
            if transform is not None:
                dataset.transform = transform
            if hasattr(inferer, "timer"):
                inferer.timer = None

    def _log_summary(self, seconds: float) -> None:
        done, failed = len(self.completed), len(self.failures)
        logger.info("%d of %d cases segmented in %.1f s.", done, done + failed, seconds)
        if failed:
            logger.error("%d of %d cases failed: %s.", failed, done + failed, ", ".join(f.case for f in self.failures))


def _timed_batches(loader: Iterable[Any], timer: StageTimer) -> Iterator[Any]:
    """The batches of a loader, whose time counts for no stage but those of its transforms."""
    with timer.stage(_OTHER):
        batches = iter(loader)
    while True:
        with timer.stage(_OTHER):
            batch = next(batches, timer)
        if batch is timer:
            return
        yield batch


def _failure(case: str, file: str, stage: str, error: Exception) -> CaseFailure:
    logger.debug("%s: failed", file, exc_info=error)
    return CaseFailure.of(case, file, describe_case_failure(error, file, stage))


def _in_this_thread(loader: Iterable[Any]) -> Iterable[Any]:
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return loader
    return DataLoader(loader.dataset, loader.batch_size, sampler=loader.sampler, collate_fn=loader.collate_fn)


def _split_saving(postprocessing: Callable[[Any], Any] | None) -> tuple[Callable[[Any], Any] | None, Compose | None]:
    """Split off the saving transforms at the end of the post-processing."""
    if isinstance(postprocessing, SaveImaged):
        postprocessing = Compose(postprocessing)
    if type(postprocessing) is not Compose:
        return postprocessing, None
    flat = postprocessing.flatten()
    transforms = list(flat.transforms)
    saving: list[Any] = []
    while transforms and isinstance(transforms[-1], SaveImaged):
        saving.insert(0, transforms.pop())
    if not saving:
        return postprocessing, None
    flat.transforms = tuple(transforms)
    return flat, Compose(saving)


def _run_stages(transform: Any, data: Any, timer: StageTimer | None, default: str) -> Any:
    """Apply a transform; with a timer, the time of each part of a ``Compose`` counts by its kind."""
    if timer is None:
        return transform(data)
    # a lazy Compose runs its parts together
    if type(transform) is not Compose or transform.lazy is not False:
        with timer.stage(_stage_of(transform, default)):
            return transform(data)
    flat = transform.flatten()
    for index, part in enumerate(flat.transforms):
        with timer.stage(_stage_of(part, default)):
            data = flat(data, start=index, end=index + 1)
    return data


def _stage_of(transform: Any, default: str) -> str:
    for kinds, stage in _STAGES:
        if isinstance(transform, kinds):
            return stage
    return "resample" if type(transform).__module__.startswith("monai.transforms.spatial") else default


def _uses_metrics(handler: Callable[..., Any]) -> bool:
    """Whether a handler computes a metric, or is MONAI's own that compares the best one."""
    inside_monai = str(getattr(handler, "__module__", None)).startswith("monai.engines.")
    return inside_monai or isinstance(getattr(handler, "__self__", None), Metric)


def _filtered(event: CallableEventWithFilter, holds: Callable[[], bool]) -> CallableEventWithFilter:
    """The event where a condition holds, beside the filter that it has."""
    given = event.filter
    return event(event_filter=lambda engine, number: holds() and (given is None or bool(given(engine, number))))


def describe_case(batchdata: Any) -> tuple[str, str]:
    """The name of a case, and the first file of its image, from a batch with it alone."""
    file = batchdata.get("file") if isinstance(batchdata, Mapping) else None
    if file is None:
        file = _meta_of_image(batchdata).get(ImageMetaKey.FILENAME_OR_OBJ)
    file = "unnamed case" if file is None else str(_only(file))
    case = batchdata.get("case") if isinstance(batchdata, Mapping) else None
    return (case_name(file) if case is None else str(_only(case))), file


def _meta_of_image(batchdata: Any) -> Mapping[Any, Any]:
    """The metadata of the image of a case; empty without any."""
    image = batchdata.get(CommonKeys.IMAGE) if isinstance(batchdata, Mapping) else None
    return image.meta if isinstance(image, MetaTensor) else {}


def _surround(batchdata: Mapping[str, Any]) -> dict[str, float] | None:
    """The constant surround that the preprocessing recorded; None if there is none."""
    meta = _meta_of_image(batchdata)
    if SURROUND_VALUE not in meta:
        return None
    value, share = (float(_only(meta[key])) for key in (SURROUND_VALUE, SURROUND_SHARE))
    return {"value": value, "share": share} if share > 0 else None


def _only(value: Any) -> Any:
    return value[0] if isinstance(value, (list, tuple)) else value


#: Largest label up to which there is a place in memory for each.
_MOST_COUNTED_AT_ONCE = 2**20


def count_voxels(prediction: Any) -> dict[int, int]:
    """Voxels of each label except 0; empty if the prediction is not a label map."""
    if not _is_map(prediction):
        return {}
    values = prediction.as_tensor().flatten()
    if values.dtype in (torch.uint16, torch.uint32, torch.uint64):
        # of which torch finds no extremes
        values = values.to(torch.int32 if values.dtype == torch.uint16 else torch.int64)
    whole = not values.is_floating_point() or bool(values.isfinite().all() and torch.equal(values, values.round()))
    if not values.numel() or not whole or float(values.min()) < 0:
        return {}
    greatest = int(values.max())
    if greatest > _MOST_COUNTED_AT_ONCE:
        found, counts = (each.tolist() for each in values.unique(return_counts=True))
        return {int(label): count for label, count in zip(found, counts, strict=True) if label}
    counts = torch.bincount(values.to(torch.uint8 if greatest <= 255 else torch.int64)).tolist()
    return {label: count for label, count in enumerate(counts) if label and count}


def _is_map(prediction: Any) -> TypeGuard[MetaTensor]:
    return isinstance(prediction, MetaTensor) and prediction.ndim in (3, 4) and prediction.shape[0] == 1


def _volumes_ml(prediction: Any, voxels: Mapping[int, int]) -> dict[int, float]:
    if not voxels or prediction.ndim != 4:
        return {}
    size_ml = voxel_ml(prediction.affine)
    return {label: count * size_ml for label, count in voxels.items()}
