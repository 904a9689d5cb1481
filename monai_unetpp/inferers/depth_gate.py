"""Choose the depth of each window: stop at the first level that agrees with the one before it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch

__all__ = [
    "ADAPTIVE",
    "DEPTHS",
    "add_gated",
    "check_gate",
    "check_tolerance",
    "count_depths",
    "gate_name",
    "gate_tolerance",
    "gated",
    "levels_agree",
]

#: Name, among the levels, of the depth chosen per window.
ADAPTIVE = "adaptive"
#: Name, among the outputs of a predictor, of the index of each window's level.
DEPTHS = "depths"
_GATE = re.compile(rf"{ADAPTIVE}=(\d+(?:\.\d*)?(?:e-?\d+)?)")


def gate_name(tolerance: float) -> str:
    """The name, among levels, of the depth chosen at ``tolerance``: 0.02 gives ``"adaptive=0.02"``."""
    return f"{ADAPTIVE}={float(tolerance):g}"


def gate_tolerance(name: str) -> float | None:
    """The tolerance in such a name; None for other names."""
    found = _GATE.fullmatch(name)
    return None if found is None else check_tolerance(float(found[1]))


def check_tolerance(value: Any) -> float:
    """Check a tolerance.

    Raises:
        TypeError: it is not a number.
        ValueError: it lies outside 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"adaptive_tolerance must be a number such as 0.033, got {value!r}. It is 1 - Dice.")
    tolerance = float(value)
    if not 0 <= tolerance <= 1:
        raise ValueError(f"adaptive_tolerance must lie between 0 and 1, got {value!r}. 0.033 is a good start.")
    return tolerance


def check_gate(levels: Any, tolerance: Any, runtime: str) -> float | None:
    """Check the tolerance of an inferer with adaptive depth; None for other inferers.

    Raises:
        TypeError: the tolerance is not a number.
        ValueError: a tolerance is given without the level ``"adaptive"`` or vice versa, or the runtime compiles the
            whole network.
    """
    if (levels == ADAPTIVE) != (tolerance is not None):
        raise ValueError(
            f"adaptive_tolerance must be given with levels={ADAPTIVE!r} and only there, got {tolerance!r} with "
            f"levels={levels!r}. Give both, such as 0.033, or none."
        )
    if tolerance is not None and runtime == "compile":
        raise ValueError(
            f"runtime must be auto, torch or openvino for levels={ADAPTIVE!r}, got 'compile'. Use one of these."
        )
    return None if tolerance is None else check_tolerance(tolerance)


def levels_agree(shallower: torch.Tensor, deeper: torch.Tensor, tolerance: float) -> torch.Tensor:
    """Whether two levels give nearly the same segmentation of a window.

    Args:
        shallower: logits of a level, ``(B, C, *spatial)``; a single channel is the foreground against the background.
        deeper: logits of the next level.
        tolerance: upper bound of ``1 - Dice`` between both segmentations, for every class that occurs in either.

    Returns:
        Boolean ``(B,)``. At tolerance 0 no levels agree.
    """
    classes, count = max(2, shallower.shape[1]), shallower.shape[0]
    pairs = (_class_map(shallower).long() * classes + _class_map(deeper)).flatten(1)
    offsets = torch.arange(count, device=pairs.device)[:, None] * classes**2
    found = torch.bincount((pairs + offsets).flatten(), minlength=count * classes**2)
    found = found.view(count, classes, classes).double()
    sizes, shared = found.sum(1) + found.sum(2), found.diagonal(dim1=1, dim2=2)
    difference = torch.where(sizes > 0, 1 - 2 * shared / sizes.clamp(min=1), 0.0)
    return (difference < tolerance).all(dim=1)


def gated(logits: Mapping[str, torch.Tensor], tolerance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply a gate to the known logits of all levels.

    Each level is compared with the one before it; the first that agrees is used, else the deepest.

    Args:
        logits: logits of two or more levels, ``(B, C, *spatial)`` each, shallowest first.
        tolerance: as for :func:`levels_agree`.

    Returns:
        The logits of the level chosen for each window, and the indices of these levels in ``logits``, ``(B,)``.
    """
    found: Sequence[torch.Tensor] = list(logits.values())
    chosen = found[-1].clone()
    depths = torch.full((chosen.shape[0],), len(found) - 1)
    going_on = torch.ones(chosen.shape[0], dtype=torch.bool)
    for number in range(1, len(found) - 1):
        agreeing = levels_agree(found[number - 1], found[number], tolerance).cpu() & going_on
        chosen[agreeing] = found[number][agreeing]
        depths[agreeing] = number
        going_on &= ~agreeing
    return chosen, depths


def add_gated(
    outputs: Mapping[str, torch.Tensor], names: Sequence[str]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Add the outputs of gates to those of levels.

    Args:
        outputs: logits by level, shallowest first.
        names: names of gates, such as ``"adaptive=0.02"``; others are ignored.

    Returns:
        All outputs, and for each gate the index of each window's level.
    """
    extended, depths = dict(outputs), {}
    for name in names:
        tolerance = gate_tolerance(name)
        if tolerance is not None:
            extended[name], depths[name] = gated(outputs, tolerance)
    return extended, depths


def count_depths(counts: dict[str, dict[str, int]], depths: Mapping[str, torch.Tensor], levels: Sequence[str]) -> None:
    """Count the windows by gate and level; ``depths`` holds the indices of their levels."""
    for name, numbers in depths.items():
        of_gate = counts.setdefault(name, dict.fromkeys(levels[1:], 0))
        for number in numbers.tolist():
            of_gate[levels[number]] += 1


def _class_map(logits: torch.Tensor) -> torch.Tensor:
    """The class of the highest logit, the first if several are equal, ``(B, *spatial)`` in int16."""
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).short()
    # on a CPU many times faster than argmax over the first of several axes
    best = logits[:, 0].clone()
    classes = torch.zeros_like(best, dtype=torch.int16)
    for number in range(1, logits.shape[1]):
        classes.masked_fill_(logits[:, number] > best, number)
        torch.maximum(best, logits[:, number], out=best)
    return classes
