"""The mean of all heads as one segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["mean_of_heads"]


def mean_of_heads(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """The mean of the heads' probabilities, given as logits: softmax (or sigmoid) of the result is that mean.

    The paper, arXiv:1912.05074, averages the segmentation maps of all heads like this. It need not be more accurate
    than the deepest head: measure it. What follows may treat the result like the logits of one head: take the highest,
    threshold at 0, or activate it.

    Args:
        logits: of each head, ``(B, C, *spatial)``. Several channels are taken as classes that exclude one another
            (softmax), one channel as foreground against background (sigmoid).

    Returns:
        ``(B, C, *spatial)`` in float32 at least.
    """
    logits = [head.to(torch.promote_types(head.dtype, torch.float32)) for head in logits]
    if logits[0].shape[1] == 1:
        # the mean of the background's probabilities too: 1 - p would lose all digits where p is near 1
        return _log_mean([head.sigmoid() for head in logits]) - _log_mean([head.neg().sigmoid_() for head in logits])
    return _log_mean([head.softmax(dim=1) for head in logits])


def _log_mean(probabilities: list[torch.Tensor]) -> torch.Tensor:
    total = probabilities[0]
    for others in probabilities[1:]:
        total.add_(others)
    # not minus infinity, which blending and differences could not bear
    return total.div_(len(probabilities)).clamp_min_(torch.finfo(total.dtype).tiny).log_()
