"""Segmenting case after case, where one broken case does not end the others."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.engine.events import CallableEventWithFilter
from ignite.handlers.base_logger import BaseOutputHandler
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.utils import CommonKeys, ImageMetaKey, MetaKeys

from monai_unetpp.data import case_name, describe_failure

__all__ = ["CaseEvaluator", "CaseFailure", "CaseResult"]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CaseResult:
    """A case that was segmented.

    Attributes:
        case: its name.
        file: the input.
        output: the written file; None where none was written.
        seconds: wall time that the case took, from asking for its data to the written file. Loading that went on
            during the case before is not in it.
        volumes_ml: volume of each label of a 3D segmentation; empty where the prediction is no label map.
    """

    case: str
    file: str
    output: str | None
    seconds: float
    volumes_ml: dict[int, float]


@dataclasses.dataclass(frozen=True)
class CaseFailure:
    """A case that could not be segmented, and why: one line that does not repeat the file."""

    case: str
    file: str
    reason: str


class CaseEvaluator(SupervisedEvaluator):
    """MONAI's ``SupervisedEvaluator`` for cases that stand alone: what fails is named, what follows is done.

    A case may fail in loading (with :class:`monai_unetpp.data.CaseDataset`), in the network, in post-processing or in
    saving. It is logged in one line, the traceback at debug level, and kept in :attr:`failures`; handlers of
    ``ITERATION_COMPLETED``, so also metrics, see completed cases only.

    Args:
        device: where the network runs.
        val_data_loader: gives one case at a time.
        network: the network.
        iteration_update: as in ``SupervisedEvaluator``.
        **options: all further arguments of ``SupervisedEvaluator``.

    Attributes:
        completed: the :class:`CaseResult` of each case that was segmented in this run.
        failures: the :class:`CaseFailure` of each other case.

    Raises:
        ValueError: ``val_data_loader`` gives several cases at a time.

    In a bundle the last line makes the command end with exit code 1 if any case failed:

    .. code-block:: json

        {"run": ["$@evaluator.run()", "$@evaluator.exit_if_failed()"]}
    """

    _case_failed = False

    def __init__(
        self,
        device: torch.device | str,
        val_data_loader: Iterable[Any],
        network: torch.nn.Module,
        *,
        iteration_update: Callable[[Engine, Any], Any] | None = None,
        **options: Any,
    ) -> None:
        batch_size = getattr(val_data_loader, "batch_size", None)
        if batch_size not in (None, 1):
            raise ValueError(f"val_data_loader must have batch_size 1, got {batch_size}. Cases have their own sizes.")
        self.completed: list[CaseResult] = []
        self.failures: list[CaseFailure] = []
        self._update: Callable[[Any, Any], Any] = super()._iteration if iteration_update is None else iteration_update
        self._started = time.perf_counter()
        super().__init__(torch.device(device), val_data_loader, network, iteration_update=self._segment, **options)
        self.add_event_handler(Events.GET_BATCH_STARTED, self._start_clock)

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Segment all cases and log how many were done and which failed."""
        self.completed, self.failures = [], []
        try:
            super().run(global_epoch)
        finally:
            self._log_summary()

    def exit_if_failed(self) -> None:
        """End the program with exit code 1 if a case of the last run failed.

        Raises:
            SystemExit: a case failed.
        """
        if self.failures:
            raise SystemExit(1)

    def add_event_handler(self, event_name: Any, handler: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As in ignite, but handlers of ``ITERATION_COMPLETED`` that use the output are spared failed cases."""
        if (
            isinstance(event_name, CallableEventWithFilter)
            and event_name == Events.ITERATION_COMPLETED
            and not (isinstance(handler, BaseOutputHandler) and handler.output_transform is None)
        ):
            given = event_name.filter

            def completed(engine: Engine, event: int) -> bool:
                return not self._case_failed and (given is None or bool(given(engine, event)))

            event_name = Events.ITERATION_COMPLETED(event_filter=completed)
        return super().add_event_handler(event_name, handler, *args, **kwargs)

    def _segment(self, engine: Engine, batchdata: Mapping[str, Any]) -> Any:
        case, file = _describe_case(batchdata)
        self._case_failed = False
        if "failure" in batchdata:
            return self._note_failure(case, file, str(_only(batchdata["failure"])))
        engine.state.output = None
        try:
            output = self._update(engine, batchdata)
            self.completed.append(self._result(case, file, output))
        except Exception as e:
            logger.debug("%s: failed", file, exc_info=True)
            predicted = isinstance(engine.state.output, list) or CommonKeys.PRED in (engine.state.output or ())
            stage = "post-processing" if predicted else "inference"
            return self._note_failure(case, file, f"{stage} failed with {describe_failure(e)}")
        return output

    def _note_failure(self, case: str, file: str, reason: str) -> list[Any]:
        self._case_failed = True
        failure = CaseFailure(case, file, reason.removeprefix(f"{file}: "))
        self.failures.append(failure)
        logger.error("%s: %s", failure.file, failure.reason)
        return []

    def _result(self, case: str, file: str, output: Any) -> CaseResult:
        item = output[0] if isinstance(output, list) else output
        prediction = item.get(CommonKeys.PRED) if isinstance(item, Mapping) else None
        saved_to = prediction.meta.get(MetaKeys.SAVED_TO) if isinstance(prediction, MetaTensor) else None
        seconds = time.perf_counter() - self._started
        return CaseResult(case, file, None if saved_to is None else str(saved_to), seconds, _volumes_ml(prediction))

    def _start_clock(self) -> None:
        self._started = time.perf_counter()

    def _log_summary(self) -> None:
        done, failed = len(self.completed), len(self.failures)
        seconds = sum(result.seconds for result in self.completed)
        logger.info("%d of %d cases segmented in %.1f s.", done, done + failed, seconds)
        if failed:
            logger.error("%d of %d cases failed: %s.", failed, done + failed, ", ".join(f.case for f in self.failures))


def _describe_case(batchdata: Mapping[str, Any]) -> tuple[str, str]:
    image = batchdata.get(CommonKeys.IMAGE) if isinstance(batchdata, Mapping) else None
    file = batchdata.get("file") if isinstance(batchdata, Mapping) else None
    if file is None and isinstance(image, MetaTensor):
        file = image.meta.get(ImageMetaKey.FILENAME_OR_OBJ)
    file = "unnamed case" if file is None else str(_only(file))
    case = batchdata.get("case") if isinstance(batchdata, Mapping) else None
    return (case_name(file) if case is None else str(_only(case))), file


def _only(value: Any) -> Any:
    return value[0] if isinstance(value, (list, tuple)) else value


def _volumes_ml(prediction: Any) -> dict[int, float]:
    if not isinstance(prediction, MetaTensor) or prediction.ndim != 4 or prediction.shape[0] != 1:
        return {}
    values = prediction.as_tensor().flatten()
    least, greatest = float(values.min()), float(values.max())
    if least < 0 or (values.is_floating_point() and not torch.equal(values, values.round())):
        return {}
    counts = torch.bincount(values.to(torch.uint8 if greatest <= 255 else torch.int64)).tolist()
    voxel_ml = abs(float(np.linalg.det(np.asarray(prediction.affine, dtype=np.float64)[:3, :3]))) / 1000
    return {label: count * voxel_ml for label, count in enumerate(counts) if label and count}
