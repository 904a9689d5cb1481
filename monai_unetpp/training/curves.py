"""Drawing the curves of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike

from monai_unetpp.files import write_figure
from monai_unetpp.installing import install_command


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
