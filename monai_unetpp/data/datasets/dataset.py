"""Data sets: one in which a broken file costs only its case, and one that is seeded for every epoch."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch.utils.data
from ignite.utils import manual_seed
from monai.data import CacheDataset, Dataset
from monai.transforms import Randomizable

from monai_unetpp.data.formats.exhaustion import describe_case_failure
from monai_unetpp.data.formats.naming import case_name, first_file
from monai_unetpp.seeds import mix_seeds

logger = logging.getLogger(__name__)


class CaseDataset(Dataset):
    """MONAI's ``Dataset`` for cases from :func:`monai_unetpp.data.find_cases`; a broken case is not an error.

    A case that cannot be loaded gives ``{"case": name, "file": path, "failure": reason}``, plain strings that pass any
    loader with ``batch_size=1``: in the same process, in worker processes, or in a ``ThreadDataLoader``, which loads
    the next case while this one is segmented. :class:`monai_unetpp.engines.CaseEvaluator` reports it.

    Args:
        data: dicts with ``image`` and, if possible, ``case``.
        transform: the preprocessing, usually a ``Compose`` that begins with ``LoadImaged``.
    """

    def _transform(self, index: int) -> Any:
        item = self.data[index]
        try:
            file = first_file(item)
        except (KeyError, TypeError):  # no image, or one in memory
            file = str(item.get("case", f"case {index}"))
        name = item.get("case") or case_name(file)
        if "failure" in item:
            return {"case": name, "file": file, "failure": item["failure"]}
        try:
            return super()._transform(index)
        except Exception as e:
            logger.debug("%s: loading failed", file, exc_info=True)
            return {"case": name, "file": file, "failure": describe_case_failure(e, file, "loading")}


class SeededCacheDataset(CacheDataset):
    """MONAI's ``CacheDataset`` with random transforms that are reseeded for every epoch.

    An epoch is thus the same whether or not training was interrupted before it, even if worker processes persist
    across epochs. :class:`monai_unetpp.training.TrainingCheckpoint` calls :meth:`set_seed` when an epoch begins; before
    that, this is a plain ``CacheDataset``. All arguments are those of ``CacheDataset``.
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
        """Seed the random transforms with ``seed``, 0 or above, from the next item on."""
        self._seed.fill_(seed)


def _seed_transforms(seed: int, transform: Any) -> None:
    worker = torch.utils.data.get_worker_info()
    mixed = mix_seeds(seed, 0 if worker is None else worker.id + 1)
    if isinstance(transform, Randomizable):
        transform.set_random_state(mixed)
    if worker is not None:
        # some transforms use their process's generators; training has seeded those of the main process
        manual_seed(mixed)
