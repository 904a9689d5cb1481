"""Training patches by number: the same for every network, process and day."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.transforms import Compose
from torch.utils.data import Dataset, Sampler

from monai_unetpp.distributed import process_count, rank

__all__ = ["NumberedPatches", "RemainingPatches"]


class NumberedPatches(Dataset[dict[str, torch.Tensor]]):
    """Training patches by number: patch ``i`` depends on the seed and on ``i`` alone.

    So several networks can be trained on the same patches in the same order, with any number of workers, and an
    interrupted training continues with the patch that it would have seen next. Each pass over the cases has its own
    order.

    Args:
        data: prepared cases by number.
        augmentation: the random transforms.
        seed: of order, patches and augmentation.
        length: number of patches.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], augmentation: Compose, seed: int, length: int) -> None:
        self.data = data
        self.augmentation = augmentation
        self.seed = seed
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        turn, place = divmod(index, len(self.data))
        order = np.random.default_rng((self.seed, 0, turn)).permutation(len(self.data))
        state = np.random.default_rng((self.seed, 1, index)).integers(2**31)
        self.augmentation.set_random_state(seed=int(state))
        patch: Any = self.augmentation(self.data[int(order[place])])
        # the random crop gives a list of patches, here of one
        result: dict[str, torch.Tensor] = patch[0] if isinstance(patch, list) else patch
        return result


class RemainingPatches(Sampler[int]):
    """The numbers of the patches that are left, from the step on at which the trainer stands.

    It must be among the trainer's handlers, so that it knows the trainer. Where several processes train together, each
    takes every n-th patch: n processes do in a step what one would do with n times the batch.

    Args:
        length: number of all patches of one process.
        batch_size: patches per step and process.
    """

    def __init__(self, length: int, batch_size: int) -> None:
        self.length = length
        self.batch_size = batch_size
        self._engine: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Follow the trainer ``engine``."""
        self._engine = engine

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        done = 0 if self._engine is None else self._engine.state.iteration * self.batch_size
        return (number * process_count() + rank() for number in range(done, self.length))
