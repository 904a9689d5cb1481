"""Test-time flips around any inferer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from numbers import Integral
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer

from monai_unetpp.inferers.logits import map_outputs


class FlipInferer(Inferer):
    """Average the logits over flips of the image along some axes: more accurate, for a multiple of the time.

    Half precision is averaged in float32. For labels, let
    :class:`~monai_unetpp.inferers.NestedSlidingWindowInferer` average the logits by its ``flips``.

    Args:
        inferer: the inferer to run; ``SimpleInferer`` by default.
        axes: spatial axes to flip, from 0. ``n`` axes take ``2 ** n`` runs; without axes this is the inferer itself.
            Flip only along axes that were flipped in training.

    Raises:
        ValueError: an axis is negative or repeated.
    """

    def __init__(self, inferer: Inferer | None = None, axes: Sequence[int] = ()) -> None:
        super().__init__()
        # a single number is no list of axes
        listed = list(axes) if isinstance(axes, Iterable) else [None]
        whole = all(isinstance(axis, Integral) and axis >= 0 for axis in listed)
        if not whole or len(set(listed)) < len(listed):
            raise ValueError(f"axes must be different spatial axes from 0 on, such as (0, 1), got {axes!r}.")
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.axes = tuple(listed)

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Infer on ``inputs`` ``(B, C, *spatial)``; results have the structure of the network's output.

        Raises:
            TypeError: there are flips, and the inferer returns labels.
            ValueError: ``inputs`` lacks an axis.
        """
        if not self.axes:
            return self.inferer(inputs, network, *args, **kwargs)
        if any(axis >= inputs.dim() - 2 for axis in self.axes):
            raise ValueError(f"axes must be spatial axes of the image, {inputs.dim() - 2}, got {list(self.axes)}.")
        total: Any = None
        for kept in itertools.product((False, True), repeat=len(self.axes)):
            dims = [axis + 2 for axis, flip in zip(self.axes, kept, strict=True) if flip]
            flipped = inputs.flip(dims) if dims else inputs
            result = map_outputs(partial(_unflipped, dims=dims), self.inferer(flipped, network, *args, **kwargs))
            total = result if total is None else map_outputs(torch.add, total, result)
        return map_outputs(lambda x: x / 2 ** len(self.axes), total)


def _unflipped(logits: torch.Tensor, dims: list[int]) -> torch.Tensor:
    if not logits.is_floating_point():
        raise TypeError(
            f"the inferer must give logits to average over flips, got {logits.dtype}. Use output='logits', or flips of "
            "NestedSlidingWindowInferer."
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.flip(dims) if dims else logits
