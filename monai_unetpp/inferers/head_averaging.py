"""Average the segmentations of all heads."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

__all__ = ["mean_of_heads"]


def mean_of_heads(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of the heads' probabilities as logits: softmax (or sigmoid) of the result is the mean.

    The paper, arXiv:1912.05074, averages the segmentation maps of all heads in this way. It may be less accurate than
    the deepest head: measure it. The result can be used like the logits of one head.

    Args:
        logits: logits of each head, ``(B, C, *spatial)``. Several channels are mutually exclusive classes (softmax);
            one channel is foreground against background (sigmoid).

    Returns:
        ``(B, C, *spatial)`` in float32 or higher precision.
    """
    logits = [head.to(torch.promote_types(head.dtype, torch.float32)) for head in logits]
    if logits[0].shape[1] == 1:
        # average the background's probabilities too: 1 - p would lose all digits for p near 1
        return _log_mean([head.sigmoid() for head in logits]) - _log_mean([head.neg().sigmoid() for head in logits])
    return _log_mean([head.softmax(dim=1) for head in logits])


def _log_mean(probabilities: list[torch.Tensor]) -> torch.Tensor:
    mean = functools.reduce(torch.add, probabilities) / len(probabilities)
    # avoid minus infinity, which would break blending and differences
    return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()
