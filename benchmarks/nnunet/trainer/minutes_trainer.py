"""nnU-Net's trainer, ended after given minutes; nnU-Net finds it by the environment variable ``nnUNet_extTrainer``."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

_MINUTES = "NNUNET_TRAINING_MINUTES"
_STEPS_PER_EPOCH = 10
_POWER = 0.9  # of nnU-Net's own schedule


class _TimeIsUp(Exception):  # noqa: N818  # it is no error
    """The minutes are over."""


class nnUNetTrainerMinutes(nnUNetTrainer):  # noqa: N801  # nnU-Net looks for names of this form
    """All of nnU-Net's own, but for the length: short epochs, and a learning rate that falls with the time used."""

    # nnU-Net reads the names of these arguments
    def __init__(
        self, plans: dict[str, Any], configuration: str, fold: int, dataset_json: dict[str, Any], device: torch.device
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch = _STEPS_PER_EPOCH
        self.num_val_iterations_per_epoch = 1
        self.num_epochs = 100_000
        self.save_every = self.num_epochs
        self.seconds = 60 * float(os.environ[_MINUTES])

    def run_training(self) -> None:
        """Train until the minutes are over; then end as nnU-Net does."""
        self.start = time.monotonic()
        try:
            super().run_training()
        except _TimeIsUp:
            self.on_train_end()

    def on_train_epoch_start(self) -> None:
        """Let the learning rate follow the time."""
        super().on_train_epoch_start()
        left = max(0.0, 1 - (time.monotonic() - self.start) / self.seconds)
        for group in self.optimizer.param_groups:
            group["lr"] = self.initial_lr * left**_POWER

    def on_epoch_end(self) -> None:
        """Stop in time."""
        super().on_epoch_end()
        if time.monotonic() - self.start >= self.seconds:
            raise _TimeIsUp

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Left out: the cases of the fold are those of the training."""
