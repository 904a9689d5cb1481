"""Numbered training patches, the same in every run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine
from monai.transforms import Compose, Cropd
from monai.transforms.traits import MultiSampleTrait
from torch.utils.data import Dataset, Sampler

from monai_unetpp.distributed import process_count, rank
from monai_unetpp.training.budget import TrainingBudget


class LateNumber(int):
    """The number of a patch near the end of a training."""


class NumberedPatches(Dataset[dict[str, torch.Tensor]]):
    """Numbered training patches: patch ``i`` depends only on the seed and ``i``.

    So different networks can be trained on the same patches in the same order, with any number of worker processes
    (threads would share the random transforms), and an interrupted training continues with the next patch. Each pass
    over the cases has its own order; with weights, it draws every case at least once, and over the passes in proportion
    to its weight.

    Args:
        data: prepared cases.
        augmentation: the random transforms.
        seed: seed of order, patches and augmentation.
        length: number of patches.
        late_augmentation: the random transforms for a :class:`LateNumber`; None for the same.
        weights: how often each case is drawn, relative to the others; None for all alike.

    Raises:
        ValueError: ``weights`` are not one number above 0 per case.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        augmentation: Compose,
        seed: int,
        length: int,
        late_augmentation: Compose | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        if weights is not None and (len(weights) != len(data) or min(weights) <= 0):
            raise ValueError(
                f"weights must be a number above 0 for each of the {len(data)} cases, got {len(weights)} from "
                f"{min(weights, default=None)}. Correct them."
            )
        self.data = data
        self.augmentation = augmentation
        self.seed = seed
        self.length = length
        self.late_augmentation = augmentation if late_augmentation is None else late_augmentation
        relative = np.ones(len(data)) if weights is None else np.array(weights) / min(weights)
        self._shares = relative / relative.sum()
        self._pass = math.ceil(relative.sum())

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        turn, place = divmod(index, self._pass)
        state = np.random.default_rng((self.seed, 1, index)).integers(2**31)
        augmentation = self.late_augmentation if isinstance(index, LateNumber) else self.augmentation
        augmentation.set_random_state(seed=int(state))
        patch = _drawn(augmentation, self.data[int(self._order(turn)[place])])
        # the random crop returns a list, here of one patch
        result: dict[str, torch.Tensor] = patch[0] if isinstance(patch, list) else patch
        return result

    def _order(self, turn: int) -> npt.NDArray[np.int64]:
        """The cases in the order of a pass: as often as their shares of it say, rounded up or down at random."""
        random = np.random.default_rng((self.seed, 0, turn))
        order = random.permutation(len(self.data))
        if self._pass == len(self.data):
            return order
        ends = np.cumsum(self._shares[order]) * self._pass
        ends[-1] = self._pass
        counts = np.diff(np.floor(ends + random.random()), prepend=0).astype(int)
        return random.permutation(np.repeat(order, counts))


def _drawn(augmentation: Compose, case: Mapping[str, Any]) -> Any:
    """A patch of a prepared case, which stays as it is although transforms may work in place."""
    first = next(iter(augmentation.transforms), None)
    if augmentation.lazy or not isinstance(first, (Cropd, MultiSampleTrait)):
        return augmentation(deepcopy(case))
    # copying what was cut is faster than copying the whole case
    return augmentation(deepcopy(augmentation(case, end=1)), start=1)


class RemainingPatches(Sampler[int]):
    """The numbers of the remaining patches, from the trainer's current step on.

    It must be among the trainer's handlers, to know the current step. Each of n processes takes every n-th patch, so a
    step is that of one process with n times the batch.

    Args:
        length: total number of patches of one process.
        batch_size: patches per step and process.
        budget: tracks the progress, for ``late_share``.
        late_share: share of the training at its end whose patches get a :class:`LateNumber`.

    Raises:
        ValueError: ``late_share`` is not between 0 and 1, or given without ``budget``.
    """

    def __init__(
        self, length: int, batch_size: int, budget: TrainingBudget | None = None, late_share: float = 0.0
    ) -> None:
        if not 0 <= late_share <= 1 or (late_share and budget is None):
            raise ValueError(f"late_share must be 0 to 1, and 0 without a budget, got {late_share}. Correct it.")
        self.length = length
        self.batch_size = batch_size
        self.budget = budget
        self.late_share = late_share
        self._engine: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Follow the trainer ``engine``."""
        self._engine = engine

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        done = 0 if self._engine is None else self._engine.state.iteration * self.batch_size
        late_share, budget = self.late_share, self.budget
        for number in range(done, self.length):
            whole = number * process_count() + rank()
            late = late_share and budget is not None and budget.is_late(late_share, number // self.batch_size)
            yield LateNumber(whole) if late else whole
