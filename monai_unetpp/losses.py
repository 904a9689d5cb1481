"""Losses for deep supervision by level, and on a sample of the voxels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from monai.losses import GeneralizedWassersteinDiceLoss
from monai.losses.unified_focal_loss import AsymmetricFocalTverskyLoss
from torch import nn
from torch.nn import functional

from monai_unetpp.distributed import in_process_group
from monai_unetpp.topology import level_name

#: Losses that are means over samples, without an option for it.
_BY_SAMPLE = (GeneralizedWassersteinDiceLoss, AsymmetricFocalTverskyLoss)


class NestedDeepSupervisionLoss(nn.Module):
    """The weighted sum of a loss over the levels of a nested U-Net.

    Every level is at full resolution, so targets are never resized (unlike MONAI's
    ``DeepSupervisionLoss``, which also favours the first output).

    Args:
        loss: any loss that takes ``(prediction, target)``, such as ``monai.losses.DiceCELoss``.
        level_weights: weights by level name (``{"L1": 0.5, "L2": 1.0}``) or in the order of the network's
            outputs, deepest level first. By default 1 for every level, as in the paper. A weight of 0 leaves a
            level out of the sum (in distributed training its weights get gradients of 0, which the other processes
            wait for); at least one weight must be positive.
        ignore_label: value of unlabelled voxels in the target, which the loss ignores. ``loss`` must then work voxel by
            voxel or on sums over voxels (Dice, cross-entropy, focal or Tversky loss), not on neighbours. With
            ``batch=False`` each sample counts the same however many of its voxels are labelled, which changes
            cross-entropy a little; with ``batch=True`` and ``reduction="sum"`` all samples count as one, which changes
            focal losses. If no voxel of a batch is labelled, the loss is 0.
        distillation: weight of self-distillation: every shallower level also learns the deepest level's class
            probabilities (softmax; sigmoid for a single channel), by the mean Kullback-Leibler divergence over the
            voxels. No gradient flows to the deepest level through it. ``level_weights`` apply as well. 0 turns it off.

    Shapes:
        Predictions ``(B, C, H, W[, D])``: a list with the deepest level first (as ``NestedUNet`` returns in training),
        a dict by level (``forward_levels``), or a single tensor (evaluation, or a network without deep supervision).
        The loss of a single level is not weighted. The target is whatever ``loss`` takes.

    Raises:
        TypeError: predictions or weights of the wrong type.
        ValueError: weights that are negative, all zero, or do not match the levels; with ``ignore_label``, a target of
            another size than the predictions; with it or with ``distillation``, a loss that reduces to more than one
            number.

    Example:
        >>> import torch
        >>> from monai.losses import DiceCELoss
        >>> from monai_unetpp import NestedDeepSupervisionLoss
        >>> loss = NestedDeepSupervisionLoss(DiceCELoss(softmax=True, to_onehot_y=True))
        >>> outputs = [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)]
        >>> bool(loss(outputs, torch.ones(1, 1, 8, 8)) > 0)
        True

    See:
        Section III-B of arXiv:1912.05074; for self-distillation in networks for segmentation, arXiv:2306.03271.
    """

    # MONAI's ComponentLocator only finds a class in the module that its __module__ names
    __module__ = "monai_unetpp"

    def __init__(
        self,
        loss: nn.Module,
        level_weights: Mapping[str, float] | Sequence[float] | None = None,
        ignore_label: int | None = None,
        distillation: float = 0.0,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.ignore_label = ignore_label
        if not (isinstance(distillation, (float, Real)) and 0 <= distillation < math.inf):
            raise ValueError(f"distillation must be 0 or a positive number, got {distillation!r}.")
        self.distillation = float(distillation)
        if isinstance(level_weights, str) or not isinstance(level_weights, (Mapping, Sequence, type(None))):
            raise TypeError(
                "level_weights must be a mapping from level names, a sequence with the deepest level first, or None, "
                f"got {level_weights!r}."
            )
        if level_weights is not None:
            values = list(level_weights.values() if isinstance(level_weights, Mapping) else level_weights)
            if not all(isinstance(value, (float, Real)) and math.isfinite(value) for value in values):
                raise TypeError(f"level_weights must be finite numbers, got {level_weights!r}.")
            if not values or min(values) < 0 or max(values) <= 0:
                raise ValueError(
                    f"level_weights must not be negative and at least one must be positive, got {level_weights!r}."
                )
        self.level_weights = level_weights

    def forward(
        self, input: torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor], target: torch.Tensor
    ) -> torch.Tensor:
        """The loss of ``input`` against ``target``; see the class for their forms."""
        if isinstance(input, torch.Tensor):
            return self._loss(input, target)
        if isinstance(input, Mapping):
            outputs = dict(input)
        elif isinstance(input, (list, tuple)):
            names = [level_name(k) for k in range(len(input), 0, -1)]
            outputs = dict(zip(names, input, strict=True))
        else:
            raise TypeError(f"predictions must be a tensor, a list or a dict of tensors, got {type(input).__name__}.")
        if not outputs:
            raise ValueError("predictions must hold at least one level, got none.")
        if len(outputs) == 1:
            # a single level is not weighted
            [only] = outputs.values()
            return self._loss(only, target)
        weights = self._weights(list(outputs))
        terms = [weights[level] * self._loss(output, target) for level, output in outputs.items() if weights[level]]
        if self.distillation:
            _check_number(terms, "with distillation")
            terms += self._distill(outputs, weights, target)
        if in_process_group():
            terms += [_nothing_of(output) for level, output in outputs.items() if not weights[level]]
        return torch.stack(terms).sum(dim=0)

    def _distill(
        self, outputs: Mapping[str, torch.Tensor], weights: Mapping[str, float], target: torch.Tensor
    ) -> list[torch.Tensor]:
        """The weighted divergences of the shallower levels from the deepest one."""
        deepest, *shallower = sorted(outputs, key=lambda name: -int(name[1:]))
        kept = self._kept(outputs[deepest], target)
        teacher = _log_probabilities(outputs[deepest].detach())
        terms = []
        for level in shallower:
            if not weights[level]:
                continue
            divergence = functional.kl_div(
                _log_probabilities(outputs[level]), teacher, reduction="none", log_target=True
            ).sum(dim=1)
            count = divergence.numel() if kept is None else kept.sum().clamp(min=1)
            total = divergence.sum() if kept is None else (divergence * kept).sum()
            terms.append(self.distillation * weights[level] * total / count)
        return terms

    def _loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of one level over the voxels that are not ignored."""
        kept = self._kept(output, target)
        if kept is None or bool(kept.all()):
            whole: torch.Tensor = self.loss(output, target)
            return whole
        # losses that average over samples get one sample at a time, others the voxels of all samples at once
        modules = list(self.loss.modules())
        summed = any(getattr(module, "reduction", None) == "sum" for module in modules)
        batch = [module.batch for module in modules if hasattr(module, "batch")]
        by_sample = any(isinstance(module, _BY_SAMPLE) for module in modules)
        # MONAI's focal loss sums over samples means over voxels
        apart = False in batch or by_sample or (summed and True not in batch)
        count = 1 if apart else len(target)
        terms = []
        for start in range(0, len(target), count):
            # not by an index, for which a MetaTensor would take its metadata apart
            prediction, truth, inside = (each.narrow(0, start, count) for each in (output, target, kept))
            if bool(inside.any()):
                terms.append(self.loss(_voxels(prediction, inside), _voxels(truth, inside)))
        if not terms:
            return _nothing_of(output)
        _check_number(terms, "where voxels are ignored")
        total = torch.stack(terms).sum(dim=0)
        return total if summed else total / len(terms)

    def _kept(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor | None:
        """The mask ``(B, *spatial)`` of the voxels that are not ignored; None if none can be."""
        if self.ignore_label is None:
            return None
        kept = ~has_label(target, self.ignore_label)
        if target.dim() == output.dim():
            kept = kept.all(dim=1)
        if kept.shape != (len(output), *output.shape[2:]):
            raise ValueError(
                f"target must have the batch and spatial size of the predictions, {list(output.shape)}, got "
                f"{list(target.shape)}. Give one label map per image."
            )
        return kept

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
            return {level: float(weight) for level, weight in given.items()}
        if len(given) != len(levels):
            raise ValueError(f"level_weights must have one entry per level, {len(levels)}, got {len(given)}.")
        return dict(zip(sorted(levels, key=lambda name: -int(name[1:])), map(float, given), strict=True))


def _check_number(terms: Sequence[torch.Tensor], where: str) -> None:
    if terms and terms[0].numel() > 1:
        raise ValueError(
            f"loss must give one number {where}, got the shape {list(terms[0].shape)}. Give it reduction='mean' or "
            "'sum'."
        )


def has_label(target: torch.Tensor, label: int) -> torch.Tensor:
    """Where the label map has the ``label``: nowhere, if its type cannot hold it (PyTorch would wrap 300 to 44)."""
    integers = not (target.is_floating_point() or target.dtype == torch.bool)
    if integers and not torch.iinfo(target.dtype).min <= label <= torch.iinfo(target.dtype).max:
        return torch.zeros_like(target, dtype=torch.bool)
    return target == label


def _voxels(values: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """The voxels of ``values`` ``(B[, C], ...)`` inside the mask ``(B, ...)``, as one image: voxels by 1 (by 1)."""
    found = values[kept][None] if values.dim() == kept.dim() else values.movedim(1, -1)[kept].T[None]
    # some losses take images only, and weights of classes may have their axes
    return found.reshape(*found.shape, *[1] * (values.dim() - found.dim()))


def _log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Log probabilities ``(B, C, ...)`` in at least float32; a single channel is foreground against background."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    return logits.log_softmax(dim=1)


def _nothing_of(output: torch.Tensor) -> torch.Tensor:
    """A loss of 0 whose gradients are 0 for all weights, as distributed training waits for the gradients of each."""
    return output.narrow(0, 0, 0).sum()


class SparseVoxelLoss(nn.Module):
    """A loss over every n-th voxel along each axis from a random start: neighbours are nearly alike.

    With many classes the loss takes longer than the network. In 3D, every second voxel is an eighth of the work.

    Args:
        loss: any loss that takes ``(prediction, target)``, such as :class:`NestedDeepSupervisionLoss`, and does not
            look at neighbouring voxels.
        step: distance between the voxels, from 1, which takes all.

    Shapes:
        Predictions ``(B, C, H, W[, D])``, or a list or dict of them. The target has the same spatial size, with or
        without a channel axis.

    Example:
        >>> import torch
        >>> loss = SparseVoxelLoss(torch.nn.MSELoss(), step=2)
        >>> float(loss(torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)))
        1.0
    """

    def __init__(self, loss: nn.Module, step: int = 2) -> None:
        super().__init__()
        if not isinstance(step, (int, Integral)):
            raise TypeError(f"step must be a whole number, got {step!r}.")
        if step < 1:
            raise ValueError(f"step must be at least 1, got {step}. Give 1 to take all voxels.")
        self.loss = loss
        self.step = int(step)

    def forward(
        self, input: torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor], target: torch.Tensor
    ) -> torch.Tensor:
        """The loss of ``input`` against ``target``; see the class for their forms."""
        heads = input.values() if isinstance(input, Mapping) else input
        reference = heads if isinstance(heads, torch.Tensor) else next(iter(heads), target)
        first = [int(torch.randint(min(self.step, length), ())) for length in reference.shape[2:]]
        taken: Any = (..., *(slice(start, None, self.step) for start in first))
        output: Any
        if isinstance(input, torch.Tensor):
            output = input[taken]
        elif isinstance(input, Mapping):
            output = {name: one[taken] for name, one in input.items()}
        else:
            output = [one[taken] for one in input]
        loss: torch.Tensor = self.loss(output, target[taken])
        return loss
