"""Data sets: one in which a broken file costs one case, and one whose random numbers are known by epoch."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch.utils.data
from ignite.utils import manual_seed
from monai.data import CacheDataset, Dataset
from monai.transforms import Randomizable

from monai_unetpp.data.exhaustion import describe_case_failure
from monai_unetpp.data.naming import case_name
from monai_unetpp.seeds import mix_seeds

__all__ = ["CaseDataset", "SeededCacheDataset"]

logger = logging.getLogger(__name__)


class CaseDataset(Dataset):
    """MONAI's ``Dataset`` for cases from :func:`monai_unetpp.data.find_cases`, where a broken case is not an error.

    Instead of data a case that cannot be loaded gives ``{"case": name, "file": path, "failure": reason}``, plain
    strings that pass any loader with ``batch_size=1``: in the same process, in worker processes, or
    ``ThreadDataLoader``, which loads the next case while this one is segmented.
    :class:`monai_unetpp.engines.CaseEvaluator` understands it.

    Args:
        data: dicts with ``image`` and, if possible, ``case``.
        transform: what to do with them, usually a ``Compose`` that begins with ``LoadImaged``.
    """

    def _transform(self, index: int) -> Any:
        item = self.data[index]
        image = item["image"]
        file = str(image[0] if isinstance(image, (list, tuple)) else image)
        name = item.get("case") or case_name(file)
        if "failure" in item:
            return {"case": name, "file": file, "failure": item["failure"]}
        try:
            return super()._transform(index)
        except Exception as e:
            logger.debug("%s: loading failed", file, exc_info=True)
            return {"case": name, "file": file, "failure": describe_case_failure(e, file, "loading")}


class SeededCacheDataset(CacheDataset):
    """MONAI's ``CacheDataset``, whose random transforms are seeded again for every epoch.

    So an epoch is the same whether training came to it in one go or was interrupted before, also where worker
    processes stay alive from epoch to epoch. :class:`monai_unetpp.training.TrainingCheckpoint` calls
    :meth:`set_seed` when an epoch begins; before that, this is a ``CacheDataset`` like any other.

    Args:
        arguments: those of ``CacheDataset``.
        options: as well.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._seed = torch.full((), -1, dtype=torch.int64).share_memory_()  # seen by all worker processes
        self._used = (0, -1)

    def __getitem__(self, index: Any) -> Any:
        seed = int(self._seed)
        if seed >= 0 and self._used != (os.getpid(), seed):
            self._used = (os.getpid(), seed)
            _seed_transforms(seed, self.transform)
        return super().__getitem__(index)

    def set_seed(self, seed: int) -> None:
        """Let the random numbers of all that is drawn from now on come from ``seed``, 0 or above."""
        self._seed.fill_(seed)


def _seed_transforms(seed: int, transform: Any) -> None:
    worker = torch.utils.data.get_worker_info()
    mixed = mix_seeds(seed, 0 if worker is None else worker.id + 1)
    if isinstance(transform, Randomizable):
        transform.set_random_state(mixed)
    if worker is not None:
        # some transforms take the numbers of their process; those of the main one, training has seeded
        manual_seed(mixed)
