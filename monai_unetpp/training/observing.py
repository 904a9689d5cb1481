"""Monitoring a training: Dice of every level on a few cases, and plots of its curves."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset

from monai_unetpp.data import load_datalist
from monai_unetpp.distributed import rank
from monai_unetpp.files import write_figure, write_text
from monai_unetpp.inferers.window_memory import free_memory_bytes
from monai_unetpp.installing import install_command
from monai_unetpp.measuring.memory import is_out_of_memory
from monai_unetpp.networks import NestedUNet
from monai_unetpp.spreadsheet import format_csv
from monai_unetpp.training.budget import TrainingBudget
from monai_unetpp.training.steps import StepCurve

logger = logging.getLogger(__name__)

#: Steps over which TensorBoard shows the mean loss.
_RECENT = 50

_Case = Mapping[str, Any]


def load_observed(
    dataset_dir: str | PathLike[str],
    count: int,
    transform: Callable[..., Any],
    split_dir: str | PathLike[str],
    cases: Sequence[_Case] | None = None,
    **subjects: Any,
) -> Sequence[_Case]:
    """The first cases of the validation list, prepared once as for training.

    Args:
        dataset_dir: folder with ``dataset.json``.
        count: how many; 0 reads nothing.
        transform: prepares a case.
        split_dir: folder for ``split.json``.
        cases: to take instead of the validation list.
        **subjects: how ``load_datalist`` finds them: ``subjects`` and ``subject_pattern``.
    """
    if count < 1:
        return ()
    listed = load_datalist(dataset_dir, "validation", split_dir, **subjects) if cases is None else cases
    prepared: Any = CacheDataset(listed[:count], transform, progress=False)
    return [prepared[number] for number in range(len(listed[:count]))]


class LevelCurves:
    """From time to time, score every level on a few cases, and draw the curves of the training so far.

    It only observes: it selects nothing and draws no random numbers. Two evaluations are at least ``interval_s`` apart,
    and take about ``share`` of the time. If memory runs out in one, the training goes on without further ones. Under
    ``torchrun`` only the first process evaluates. It has a state, so that a resumed training continues its curves.

    Args:
        network: the network whose levels to score.
        cases: prepared cases with ``image`` ``(C, H, W[, D])`` and ``label`` ``(1, H, W[, D])``, the latter as classes.
        inferer: runs the network over an image.
        curve: the losses, for the plot.
        folder: receives ``levels.csv`` (mean Dice over cases and classes without the background, by step and level),
            ``training.png`` if matplotlib is installed, also at the end, and ``tensorboard``.
        device: the device of the network.
        ignored_class: value of unlabelled voxels in the label.
        keys: keys of image and label.
        share: largest share of the time for evaluations.
        interval_s: least seconds between two evaluations.
        loss_alone: whether to draw the loss if there are no cases to observe.
        budget: of the training; an evaluation that would probably exceed its time is left out. None sets no limit.
    """

    def __init__(
        self,
        network: NestedUNet,
        cases: Sequence[_Case],
        inferer: Callable[..., Any],
        curve: StepCurve,
        folder: str | PathLike[str],
        device: torch.device | str = "cpu",
        ignored_class: int | None = None,
        keys: tuple[str, str] = ("image", "label"),
        share: float = 0.05,
        interval_s: float = 60.0,
        loss_alone: bool = False,
        budget: TrainingBudget | None = None,
    ) -> None:
        if not 0 < share < 1:
            raise ValueError(f"share must lie between 0 and 1, got {share}. 0.05 is enough.")
        self.network = network
        self.cases = cases
        self.inferer = inferer
        self.curve = curve
        self.folder = Path(folder)
        self.device = torch.device(device)
        self.ignored_class = ignored_class
        self.keys = keys
        self.share = share
        self.interval_s = interval_s
        self.loss_alone = loss_alone
        self.budget = budget
        self._rows: list[dict[str, float]] = []
        self._ended = 0.0
        self._took = 0.0
        self._board: Any = None

    def attach(self, engine: Engine) -> None:
        """Follow the trainer ``engine``; attach after handlers that change the weights, before those that save."""
        if rank() == 0 and (len(self.cases) > 0 or self.loss_alone):
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)
            engine.add_event_handler(Events.COMPLETED, self._close)

    def __call__(self, engine: Engine) -> None:
        """Evaluate, if it is time."""
        began = time.monotonic()
        if began - self._ended < max(self.interval_s, self._took * (1 - self.share) / self.share):
            return
        if self.budget is not None and self.budget.left_s < self._took:
            return
        scores = self._score_if_possible()
        if scores:
            self._rows.append({"step": engine.state.iteration, **scores})
            self._write()
        self._draw()
        self._tell_board(engine, scores)
        self._ended = time.monotonic()
        self._took = self._ended - began

    def state_dict(self) -> dict[str, Any]:
        """All scores so far."""
        return {"rows": [dict(row) for row in self._rows]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state from :meth:`state_dict`."""
        self._rows = [dict(row) for row in state_dict["rows"]]

    def _start(self) -> None:
        self._ended = time.monotonic()

    def _score_if_possible(self) -> dict[str, float]:
        """Mean Dice by level; nothing without cases, or from when on memory does not suffice."""
        if len(self.cases) == 0:
            return {}
        training = self.network.training
        try:
            self._check_memory()
            return self._score()
        except (RuntimeError, MemoryError) as e:
            if not is_out_of_memory(e):
                raise
            logger.warning("There is too little memory to score whole cases while training; only the loss is shown.")
            self.cases = ()
            return {}
        finally:
            self.network.train(training)

    def _check_memory(self) -> None:
        """Raise an error where a case needs more memory than is free: the system might kill the process."""
        outputs = int(self.network.config["out_channels"]) * len(self.network.levels)
        needed = max(4 * outputs * math.prod(case[self.keys[0]].shape[1:]) for case in self.cases)
        free = free_memory_bytes(self.device)
        if free is not None and needed > free:
            raise MemoryError(f"{needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free.")

    @torch.inference_mode()
    def _score(self) -> dict[str, float]:
        """Mean Dice by level."""
        self.network.eval()
        found: dict[str, list[float]] = {level: [] for level in self.network.levels}
        for case in self.cases:
            image, label = (torch.as_tensor(case[key]).to(self.device) for key in self.keys)
            for level, logits in self.inferer(image[None].float(), self.network.forward_levels).items():
                found[level] += dice_of_classes(logits[0], label[0].long(), self.ignored_class)
        return {level: sum(values) / len(values) for level, values in found.items() if values}

    def _write(self) -> None:
        levels = self.network.levels
        rows = ([row["step"], *(f"{row[level]:.4f}" if level in row else "" for level in levels)] for row in self._rows)
        write_text(self.folder / "levels.csv", format_csv(["step", *levels], rows))

    def _draw(self) -> None:
        try:
            draw_training(self.curve.losses, self._rows, self.folder / "training.png")
        except ImportError as e:
            logger.info("%s", e)

    def _tell_board(self, engine: Engine, scores: Mapping[str, float]) -> None:
        if self._board is None:
            # imported late, as it takes a second
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.folder / "tensorboard"))
        step = engine.state.iteration
        self._board.add_scalar("loss", self.curve.recent_loss(_RECENT), step)
        if scores:
            self._board.add_scalars("dice", dict(scores), step)
        self._board.flush()

    def _close(self) -> None:
        self._draw()
        if self._board is not None:
            self._board.close()


def dice_of_classes(logits: torch.Tensor, label: torch.Tensor, ignored: int | None) -> list[float]:
    """Dice of the foreground classes that the label or the prediction has, in the order of the classes.

    ``logits`` are ``(C, H, W[, D])``, where a single channel is foreground against background, and ``label`` has the
    class of every voxel, ``(H, W[, D])``; voxels of the class ``ignored`` do not count.
    """
    classes = max(logits.shape[0], 2)
    found = logits.argmax(0) if len(logits) > 1 else (logits[0] > 0).long()
    counted = label < classes if ignored is None else label != ignored
    pairs = torch.bincount(label[counted] * classes + found[counted], minlength=classes**2).reshape(classes, classes)
    sizes = pairs.sum(0) + pairs.sum(1)
    return [float(2 * pairs[n, n] / sizes[n]) for n in range(1, classes) if sizes[n] > 0]


def draw_training(losses: Sequence[float], levels: Sequence[Mapping[str, float]], picture: str | PathLike[str]) -> None:
    """Draw the loss of every step, smoothed, and the Dice of every level.

    Args:
        losses: the losses of step 1, 2, ...
        levels: rows with ``step`` and the mean Dice of levels by name, as far as they have one; without any, only the
            loss is drawn.
        picture: the image to write, such as ``training.png``.

    Raises:
        ImportError: matplotlib is not installed; the message has the command that installs it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ImportError(f"{e}. Drawing curves needs: {install_command('report')}") from e
    panels = 2 if levels else 1
    figure = Figure(figsize=(4 * panels, 3), layout="constrained", facecolor="white")
    loss_axes, *others = figure.subplots(1, panels, squeeze=False)[0]
    steps, means = thinned(losses)
    loss_axes.plot(steps, means, color="tab:gray")
    loss_axes.set_title("training loss")
    for axes in others:
        for name in sorted({key for row in levels for key in row} - {"step"}):
            known = [(row["step"], row[name]) for row in levels if name in row]
            axes.plot(*zip(*known, strict=True), marker=".", label=name)
        axes.set_title("mean Dice on validation cases")
        axes.legend(frameon=False)
    for axes in (loss_axes, *others):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    write_figure(picture, figure, dpi=120)


def thinned(losses: Sequence[float], most: int = 200) -> tuple[list[int], list[float]]:
    """The last steps of at most ``most`` equal parts of a curve, and the mean loss of each."""
    width = max(1, -(-len(losses) // most))
    parts = [losses[start : start + width] for start in range(0, len(losses), width)]
    return [min(len(losses), (n + 1) * width) for n in range(len(parts))], list(map(statistics.fmean, parts))
