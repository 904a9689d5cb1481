"""A loss that changes for the end of a training."""

from __future__ import annotations

import torch
from torch import nn

from monai_unetpp.training.budget import TrainingBudget


class LateLoss(nn.Module):
    """One loss for most of a training, another for its end.

    Class weights help rare classes to be learned early, but would shift the borders between classes if kept to the end.

    Args:
        early: the loss at first; it takes ``(prediction, target)``.
        late: the loss at the end.
        budget: tracks the progress; it must be attached to the trainer.
        late_share: share of the training at its end with the late loss.

    Raises:
        ValueError: ``late_share`` is not between 0 and 1.

    Example:
        >>> from monai.losses import DiceCELoss
        >>> from monai_unetpp.training import TrainingBudget
        >>> weights = torch.tensor([0.5, 0.5, 2.0])
        >>> loss = LateLoss(DiceCELoss(weight=weights), DiceCELoss(), TrainingBudget(1000), late_share=0.25)
    """

    def __init__(self, early: nn.Module, late: nn.Module, budget: TrainingBudget, late_share: float) -> None:
        super().__init__()
        if not 0 <= late_share <= 1:
            raise ValueError(f"late_share must be 0 to 1, got {late_share}. Correct it.")
        self.early = early
        self.late = late
        self.budget = budget
        self.late_share = late_share

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The early or late loss of ``input`` against ``target``."""
        loss = self.late if self.budget.is_late(self.late_share) else self.early
        value: torch.Tensor = loss(input, target)
        return value
