"""Drawing the curves of a training."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from monai_unetpp.files import write_figure
from monai_unetpp.installing import install_command

__all__ = ["draw_curves", "draw_training"]


def draw_curves(curves: str | PathLike[str], picture: str | PathLike[str]) -> None:
    """Draw training loss, validation metrics and learning rate over the epochs.

    Args:
        curves: the CSV file of :class:`monai_unetpp.training.CurveWriter`.
        picture: the image to write, such as ``curves.png``.

    Raises:
        ImportError: matplotlib is not installed; the message has the command that installs it.
        FileNotFoundError: no such CSV file.
        ValueError: a file without epochs.
    """
    with Path(curves).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "epoch" not in rows[0]:
        raise ValueError(f"{curves}: must have a row per epoch with a column 'epoch'. Give the training's curves.csv.")
    metrics = [name for name in rows[0] if name.startswith("val_")]
    panels = [(name, [name]) for name in ("train_loss", "learning_rate") if name in rows[0]]
    if metrics:
        panels.insert(1, ("validation", metrics))
    figure = _figure(len(panels))
    for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in names:
            known = [(int(row["epoch"]), float(row[name])) for row in rows if row[name]]
            axes.plot(*zip(*known, strict=True), label=name.removeprefix("val_").replace("_", " "))
        axes.set_title(title.replace("_", " "))
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        if title == "validation":
            axes.legend(frameon=False)
    write_figure(picture, figure, dpi=120)


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
    panels = 2 if levels else 1
    figure = _figure(panels)
    loss_axes, *others = figure.subplots(1, panels, squeeze=False)[0]
    steps, means = _smoothed(losses)
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


def _smoothed(losses: Sequence[float], most: int = 200) -> tuple[list[int], list[float]]:
    """At most ``most`` means over consecutive steps, with the last step of each."""
    width = max(1, -(-len(losses) // most))
    parts = [losses[start : start + width] for start in range(0, len(losses), width)]
    ends = [min(len(losses), (n + 1) * width) for n in range(len(parts))]
    return ends, [sum(part) / len(part) for part in parts]


def _figure(panels: int) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ImportError(f"{e}. Drawing curves needs: {install_command('report')}") from e
    return Figure(figsize=(4 * panels, 3), layout="constrained", facecolor="white")
