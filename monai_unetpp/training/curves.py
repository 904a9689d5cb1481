"""A picture of the curves that a training wrote."""

from __future__ import annotations

import csv
from os import PathLike
from pathlib import Path

from monai_unetpp.files import write_figure

__all__ = ["draw_curves"]


def draw_curves(curves: str | PathLike[str], picture: str | PathLike[str]) -> None:
    """Draw training loss, validation metrics and learning rate over the epochs.

    Args:
        curves: the CSV file of :class:`monai_unetpp.training.CurveWriter`.
        picture: the image to write, such as ``curves.png``.

    Raises:
        ImportError: matplotlib is missing; the message holds the command that installs it.
        FileNotFoundError: no such CSV file.
        ValueError: a file without epochs.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ImportError(f'{e}. Drawing curves needs: pip install "monai-unetpp[report]"') from e
    with Path(curves).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or "epoch" not in rows[0]:
        raise ValueError(f"{curves}: must hold a row per epoch with a column 'epoch'. Give the training's curves.csv.")
    metrics = [name for name in rows[0] if name.startswith("val_")]
    panels = [(name, [name]) for name in ("train_loss", "learning_rate") if name in rows[0]]
    if metrics:
        panels.insert(1, ("validation", metrics))
    figure = Figure(figsize=(4 * len(panels), 3), layout="constrained", facecolor="white")
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
