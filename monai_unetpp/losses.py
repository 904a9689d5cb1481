"""Deep supervision by level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from monai_unetpp.topology import level_name

__all__ = ["NestedDeepSupervisionLoss"]


class NestedDeepSupervisionLoss(nn.Module):
    """The weighted sum of a loss over the levels of a nested U-Net.

    Every level is at full resolution, so targets are never resized (unlike MONAI's
    ``DeepSupervisionLoss``, which also favours the first output).

    Args:
        loss: any loss that takes ``(prediction, target)``, such as ``monai.losses.DiceCELoss``.
        level_weights: weights by level name (``{"L1": 0.5, "L2": 1.0}``) or in the order of the network's
            outputs, deepest level first. By default 1 for every level, as in the paper. A weight of 0 leaves a
            level out of the sum; at least one weight must be positive.

    Shapes:
        Predictions ``(B, C, H, W[, D])``, as a list with the deepest level first (what ``NestedUNet`` returns in
        training), as a dict by level (``forward_levels``), or a single tensor (evaluation, or a network without
        deep supervision), whose loss is not weighted. The target is whatever ``loss`` takes.

    Raises:
        TypeError: predictions or weights of another kind.
        ValueError: weights that are negative, all zero, or do not match the levels.

    Example:
        >>> import torch
        >>> from monai.losses import DiceCELoss
        >>> from monai_unetpp import NestedDeepSupervisionLoss
        >>> loss = NestedDeepSupervisionLoss(DiceCELoss(softmax=True, to_onehot_y=True))
        >>> outputs = [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)]
        >>> bool(loss(outputs, torch.ones(1, 1, 8, 8)) > 0)
        True

    See:
        Section III-B of arXiv:1912.05074.
    """

    # its public home: MONAI's ComponentLocator only takes a class from the module that the class says it belongs to
    __module__ = "monai_unetpp"

    def __init__(self, loss: nn.Module, level_weights: Mapping[str, float] | Sequence[float] | None = None) -> None:
        super().__init__()
        self.loss = loss
        if isinstance(level_weights, str) or not isinstance(level_weights, (Mapping, Sequence, type(None))):
            raise TypeError(
                "level_weights must be a mapping from level names, a sequence with the deepest level first, or None, "
                f"got {level_weights!r}."
            )
        if level_weights is not None:
            values = list(level_weights.values() if isinstance(level_weights, Mapping) else level_weights)
            if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
                raise TypeError(f"level_weights must be finite numbers, got {level_weights!r}.")
            if not values or min(values) < 0 or max(values) <= 0:
                raise ValueError(
                    f"level_weights must not be negative and at least one must be positive, got {level_weights!r}."
                )
        self.level_weights = level_weights

    def forward(
        self,
        input: torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor],
        target: torch.Tensor,
    ) -> torch.Tensor:
        """The loss of ``input`` against ``target``; see the class for their forms."""
        if isinstance(input, torch.Tensor):
            single: torch.Tensor = self.loss(input, target)
            return single
        if isinstance(input, Mapping):
            outputs = dict(input)
        elif isinstance(input, (list, tuple)):
            if len(input) == 1:
                # one level, whichever it is: there is nothing to weigh it against
                return self.forward(input[0], target)
            names = [level_name(k) for k in range(len(input), 0, -1)]
            outputs = dict(zip(names, input, strict=True))
        else:
            raise TypeError(f"predictions must be a tensor, a list or a dict of tensors, got {type(input).__name__}.")
        if not outputs:
            raise ValueError("predictions must hold at least one level, got none.")
        weights = self._weights(list(outputs))
        terms = [weights[level] * self.loss(output, target) for level, output in outputs.items() if weights[level]]
        return torch.stack(terms).sum(dim=0)

    def _weights(self, levels: list[str]) -> dict[str, float]:
        given = self.level_weights
        if given is None:
            return dict.fromkeys(levels, 1.0)
        if isinstance(given, Mapping):
            if set(given) != set(levels):
                raise ValueError(
                    f"level_weights must name the network's levels {', '.join(sorted(levels))}, "
                    f"got {', '.join(sorted(given))}."
                )
            return dict(given)
        if len(given) != len(levels):
            raise ValueError(f"level_weights must have one entry per level, {len(levels)}, got {len(given)}.")
        return dict(zip(sorted(levels, key=lambda name: -int(name[1:])), given, strict=True))
