"""A data set in which a broken file costs one case."""

from __future__ import annotations

import logging
from typing import Any

from monai.data import Dataset

from monai_unetpp.data.cases import case_name
from monai_unetpp.data.exhaustion import describe_case_failure

__all__ = ["CaseDataset"]

logger = logging.getLogger(__name__)


class CaseDataset(Dataset):
    """MONAI's ``Dataset`` for cases from :func:`monai_unetpp.data.find_cases`, where one that is broken is no error.

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
