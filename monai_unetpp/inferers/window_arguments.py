"""Check the arguments of sliding windows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

from monai_unetpp.choices import RUNTIMES
from monai_unetpp.devices import resolve_precision
from monai_unetpp.inferers.depth_gate import ADAPTIVE, gate_tolerance
from monai_unetpp.window_layout import AUTO

_OUTPUTS = ("logits", "labels")

MEAN = "mean"
"""Name, among levels, of the mean of all heads."""


def check_levels(levels: Sequence[str] | str | None) -> tuple[str, ...] | str | None:
    """``levels``, lists as tuples; a ValueError if there are none, or one is invalid or repeated."""
    if levels is None:
        return None
    if isinstance(levels, str) and levels == ADAPTIVE:
        return ADAPTIVE
    names = list(levels) if isinstance(levels, Iterable) and not isinstance(levels, str) else [levels]
    wrong = [
        name
        for name in names
        if not isinstance(name, str)
        or not (re.fullmatch(rf"L[1-9]\d*|{MEAN}", name) or gate_tolerance(name) is not None)
    ]
    if wrong or not names or len(set(names)) < len(names):
        raise ValueError(
            f"levels must be None, a level such as 'L2', 'mean', 'adaptive=0.033' or a list of different ones, or "
            f"'adaptive', got {levels!r}."
        )
    return levels if isinstance(levels, str) else tuple(names)


def check_sizes(roi_size: Any) -> Any:
    """The size of windows, arrays as lists; a TypeError if it is not ``"auto"``, None or integers."""
    roi_size = _without_arrays(roi_size)
    if roi_size == AUTO:
        return roi_size
    sizes = list(roi_size) if isinstance(roi_size, Sequence) and not isinstance(roi_size, str) else [roi_size]
    if not sizes or any(size is not None and not _is_integer(size) for size in sizes):
        raise TypeError(
            f"roi_size must be integers, one for all axes or each, or 'auto', got {roi_size!r}. None stands for the "
            "image's size."
        )
    return roi_size


def check_numbers(name: str, value: Any, fits: Callable[[float], bool], rule: str) -> Any:
    """A number, or one per axis, arrays as lists; it must fit ``rule``, which says in words what ``fits`` tests."""
    value = _without_arrays(value)
    numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not numbers or any(isinstance(number, bool) or not isinstance(number, Real) for number in numbers):
        raise TypeError(f"{name} must be a number, or one per axis, got {value!r}.")
    if not all(fits(number) for number in numbers):
        raise ValueError(f"{name} must be {rule}, got {value!r}.")
    return value


def check_run(sw_batch_size: Any, output: str, runtime: str, precision: str) -> None:
    """Raise a ValueError if an argument that says how windows are run has an invalid value."""
    if sw_batch_size is not None and (not _is_integer(sw_batch_size) or sw_batch_size < 1):
        raise ValueError(
            f"sw_batch_size must be an integer from 1 on, got {sw_batch_size!r}. None chooses one from the free memory."
        )
    if output not in _OUTPUTS:
        raise ValueError(f"output must be one of {', '.join(_OUTPUTS)}, got {output!r}.")
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}.")
    resolve_precision(precision, "cpu")
    if runtime == "openvino" and precision == "fp16":
        raise ValueError("precision must be auto, fp32 or bf16 for runtime 'openvino', got 'fp16'. Use 'auto'.")


def _without_arrays(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, torch.Tensor)) else value


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
